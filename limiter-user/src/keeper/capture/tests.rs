//! Captures over a fake data plane.

use std::path::PathBuf;
use std::time::SystemTime;

use limiter_common::verdict::{Budget, Outcome, Reason};

use super::*;
use crate::dataplane::model::Counter;
use crate::keeper::fake::{Shared, keeper};
use crate::policy::Mode;

const BY: By = By::user(1, None);

/// A keeper whose program sits on an interface.
fn attached() -> (Keeper, Shared, Now) {
    let now = Now::read();
    let (mut keeper, told) = keeper(PathBuf::new(), now);
    keeper.plane.attach("eth0", Mode::Auto).unwrap();
    (keeper, told, now)
}

fn order(reason: Option<&str>, count: u64) -> CaptureOrder {
    CaptureOrder {
        reason: reason.map(str::to_owned),
        count: Some(count),
        ..CaptureOrder::default()
    }
}

fn outcome(action: Action, reason: Reason) -> Outcome {
    Outcome::new(action, reason)
}

fn over() -> Outcome {
    outcome(Action::Drop, Reason::Limit(Budget::Packets))
}

fn packet(outcome: Outcome, bytes: usize) -> SampledPacket {
    SampledPacket {
        taken: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5),
        interface: Some("eth0".to_owned()),
        index: 2,
        outcome,
        limit: None,
        length: bytes as u32,
        frame: vec![0xa5; bytes],
    }
}

fn sampled(told: &Shared) -> Refusals {
    told.lock().unwrap().sampled
}

fn counted(told: &Shared, packets: &[(Outcome, u64)]) {
    let counter = |(outcome, packets): &(Outcome, u64)| Counter {
        interface: None,
        limit: None,
        outcome: *outcome,
        packets: *packets,
        bytes: 0,
    };
    told.lock().unwrap().counters = packets.iter().map(counter).collect();
}

fn sample(told: &Shared, packets: Vec<SampledPacket>) {
    told.lock().unwrap().samples = packets;
}

#[test]
fn each_gets_what_it_asked_for() {
    let (mut keeper, told, now) = attached();
    let denied = outcome(Action::WouldDrop, Reason::Deny);
    counted(&told, &[(over(), 100), (denied, 7)]);
    let all = keeper.begin_capture(&order(None, 3), BY, now).unwrap();
    let deny = keeper.begin_capture(&order(Some("deny"), 10), BY, now);
    let deny = deny.unwrap().id;
    assert_eq!(all.interfaces, ["eth0"]);
    assert_eq!(keeper.status(now).unwrap().captures, 2);
    let of = |outcome| packet(outcome, 300);
    sample(&told, vec![of(over()), of(denied), of(over()), of(over())]);
    counted(&told, &[(over(), 1_100), (denied, 8)]);
    keeper.collect(now);

    // The first has enough, and the other goes on.
    assert_eq!(Some(sampled(&told)), Refusals::named("deny"));
    let taken = keeper.captured(all.id, now).unwrap();
    assert_eq!((taken.under_way, taken.taken, taken.lost), (false, 3, 0));
    let row = &taken.packets[1];
    assert_eq!((&*row.outcome.verdict, row.length), ("would_drop", 300));
    assert_eq!(row.frame, "a5".repeat(256));
    assert_eq!(row.time_unix_ns, 1_700_000_000_000_000_005);
    let refused = RefusedRow {
        drop: 1_000,
        would_drop: 1,
    };
    assert_eq!(taken.refused, Some(refused));

    let rest = keeper.end_capture(deny, now).unwrap();
    assert_eq!((rest.packets.len(), rest.under_way), (1, false));
    assert_eq!(
        rest.refused.map(|it| (it.drop, it.would_drop)),
        Some((0, 1))
    );
    assert_eq!(sampled(&told), Refusals::NONE);
    keeper.end_capture(all.id, now).unwrap();
    assert!(!keeper.is_capturing());
    assert_eq!(keeper.end_capture(deny, now).unwrap_err().status, 404);
}

#[test]
fn time_ends_it_and_who_does_not_ask_is_forgotten() {
    let (mut keeper, told, now) = attached();
    let lasting = Some("30s".to_owned());
    let short = CaptureOrder {
        lasting,
        ..CaptureOrder::default()
    };
    let short = keeper.begin_capture(&short, BY, now).unwrap().id;
    let gone = keeper.begin_capture(&order(None, 9), BY, now).unwrap().id;
    let later = |seconds| now.after(Duration::from_secs(seconds));
    for seconds in [5, 10, 15, 20, 25] {
        assert!(keeper.captured(short, later(seconds)).unwrap().under_way);
    }
    keeper.forsake_captures(later(25));
    assert_eq!(keeper.captured(gone, later(25)).unwrap_err().status, 404);
    assert_eq!(sampled(&told), Refusals::ALL);
    keeper.collect(later(30));
    assert_eq!(sampled(&told), Refusals::NONE);
    assert!(!keeper.captured(short, later(31)).unwrap().under_way);
    keeper.forsake_captures(later(42));
    assert!(!keeper.is_capturing());
}

#[test]
fn what_was_sampled_before_is_not_captured() {
    let (mut keeper, told, now) = attached();
    let first = keeper.begin_capture(&order(None, 9), BY, now).unwrap().id;
    sample(&told, vec![packet(over(), 60)]);
    let second = keeper.begin_capture(&order(None, 9), BY, now).unwrap().id;
    assert_eq!(keeper.captured(second, now).unwrap().taken, 0);
    assert_eq!(keeper.captured(first, now).unwrap().taken, 1);
}

#[test]
fn what_nobody_fetches_is_lost_and_counted() {
    let (mut keeper, told, now) = attached();
    let id = keeper
        .begin_capture(&order(None, 2_000), BY, now)
        .unwrap()
        .id;
    for _ in 0..2 {
        sample(&told, vec![packet(over(), 60); 800]);
        keeper.collect(now);
    }
    let taken = keeper.captured(id, now).unwrap();
    assert_eq!(
        (taken.packets.len(), taken.taken, taken.lost),
        (1_024, 1_024, 576)
    );
    sample(&told, vec![packet(over(), 60); 10]);
    assert_eq!(keeper.captured(id, now).unwrap().packets.len(), 10);
}

#[test]
fn what_cannot_be_is_refused_and_samples_nothing() {
    let (mut keeper, told, now) = attached();
    let with = |change: fn(&mut CaptureOrder)| {
        let mut order = order(None, 1);
        change(&mut order);
        order
    };
    for (order, place, words) in [
        (
            with(|it| it.reason = Some("allow".to_owned())),
            "reason",
            "martian, unparsed, deny",
        ),
        (with(|it| it.count = Some(0)), "count", "1 to 10000"),
        (with(|it| it.count = Some(10_001)), "count", "1 to 10000"),
        (
            with(|it| it.snap_length = Some(1_537)),
            "snap_length",
            "64 to 1536",
        ),
        (
            with(|it| it.lasting = Some("0s".to_owned())),
            "for",
            "1s to 1h",
        ),
        (
            with(|it| it.lasting = Some("61m".to_owned())),
            "for",
            "1s to 1h",
        ),
    ] {
        let refusal = keeper.begin_capture(&order, BY, now).unwrap_err();
        assert_eq!((refusal.status, &*refusal.place), (422, place));
        assert!(refusal.help.contains(words), "{refusal:?}");
    }
    assert_eq!(sampled(&told), Refusals::NONE);
    let mut begin = || keeper.begin_capture(&order(None, 1), BY, now);
    for _ in 0..MOST {
        begin().unwrap();
    }
    assert_eq!(begin().unwrap_err().status, 503);

    let (mut nowhere, _told) = super::super::fake::keeper(PathBuf::new(), now);
    let refusal = nowhere.begin_capture(&order(None, 1), BY, now).unwrap_err();
    assert_eq!(refusal.status, 409);
}

/// A data plane that fails keeps nobody's place for ever.
#[test]
fn a_failure_is_tried_again() {
    let (mut keeper, told, now) = attached();
    let id = keeper.begin_capture(&order(None, 1), BY, now).unwrap().id;
    told.lock().unwrap().failure = Some("the kernel is in a bad mood");
    keeper.end_capture(id, now).unwrap();
    assert_eq!(sampled(&told), Refusals::ALL);
    told.lock().unwrap().failure = None;
    keeper.tick(now);
    assert_eq!(sampled(&told), Refusals::NONE);
}
