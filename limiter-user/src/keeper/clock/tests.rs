//! A wall clock that is set back or forth by a day changes what is shown, and
//! nothing that is done.

use std::path::PathBuf;

use super::*;
use crate::control::api::{CaptureOrder, Entry};
use crate::dataplane::model::{Counter, FloodState};
use crate::keeper::fake::{Shared, keeper};
use crate::keeper::{By, Keeper, ListKind};
use crate::policy::Mode;
use limiter_common::verdict::{Action, Outcome, Reason};

const BY: By = By::user(1, None);
const DAY: Duration = Duration::from_hours(24);

/// A clock by which the keeper begins, and how it shows the time so many seconds
/// later, after having been set.
struct Clock(Now);

impl Clock {
    fn set(&self, forth: bool, seconds: u64) -> Now {
        let later = self.0.after(Duration::from_secs(seconds));
        let wall = if forth {
            later.wall + DAY
        } else {
            later.wall - DAY
        };
        Now { wall, ..later }
    }
}

fn both_ways(test: impl Fn(&mut Keeper, &Shared, &Clock, bool)) {
    for forth in [false, true] {
        let clock = Clock(Now::read());
        let (mut keeper, told) = keeper(PathBuf::new(), clock.0);
        test(&mut keeper, &told, &clock, forth);
    }
}

fn for_a_minute(network: &str) -> [Entry; 1] {
    [Entry {
        network: network.to_owned(),
        lasting: Some("1m".to_owned()),
        ..Entry::default()
    }]
}

#[test]
fn monotonic_readings_are_of_one_clock() {
    let first = Now::read();
    let second = Now::read();
    assert!(second.mono >= first.mono && first.mono > Duration::ZERO);
    let minute = Duration::from_mins(1);
    let later = first.after(minute);
    assert_eq!(later.mono - first.mono, minute);
    assert_eq!(later.instant - first.instant, minute);
}

#[test]
fn blocks_and_entries_last_as_long() {
    both_ways(|keeper, told, clock, forth| {
        keeper
            .add_blocks(&for_a_minute("192.0.2.1"), BY, clock.0)
            .unwrap();
        keeper
            .add_to_list(ListKind::Deny, &for_a_minute("192.0.2.2"), BY, clock.0)
            .unwrap();
        let now = clock.set(forth, 59);
        keeper.tick(now);
        // The data plane, which ends blocks, has a clock of its own.
        let block = keeper.blocks(now).unwrap().blocks.remove(0);
        assert_eq!(block.remaining_seconds, 60);
        let expires = now.after(Duration::from_mins(1)).wall;
        assert_eq!(block.expires, timestamp(expires));
        let rows = keeper.list_rows(ListKind::Deny, now).entries;
        assert_eq!(rows[0].remaining_seconds, Some(1), "{rows:?}");
        keeper.tick(clock.set(forth, 60));
        assert_eq!(told.lock().unwrap().lists.1.len(), 1);
    });
}

#[test]
fn floods_are_measured_alike() {
    both_ways(|keeper, told, clock, forth| {
        let count = |unknown| {
            told.lock().unwrap().counters = vec![Counter {
                interface: None,
                limit: None,
                outcome: Outcome::new(Action::Drop, Reason::UnknownSource),
                packets: unknown,
                bytes: 0,
            }];
        };
        told.lock().unwrap().flood = FloodState {
            is_active: true,
            admitted: 0,
        };
        count(1_000);
        keeper.tick(clock.0);
        count(3_000);
        let now = clock.set(forth, 2);
        keeper.tick(now);
        let status = keeper.status(now).unwrap();
        assert_eq!(status.flood.unknown_per_second, Some(1_000));
        assert_eq!(status.uptime_seconds, 2);
    });
}

#[test]
fn captures_end_when_they_are_due() {
    both_ways(|keeper, _told, clock, forth| {
        keeper.plane.attach("eth0", Mode::Auto).unwrap();
        let order = CaptureOrder {
            lasting: Some("5s".to_owned()),
            ..CaptureOrder::default()
        };
        let id = keeper.begin_capture(&order, BY, clock.0).unwrap().id;
        keeper.forsake_captures(clock.set(forth, 4));
        assert!(keeper.captured(id, clock.set(forth, 4)).unwrap().under_way);
        assert!(!keeper.captured(id, clock.set(!forth, 5)).unwrap().under_way);
    });
}
