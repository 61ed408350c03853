//! When new sources are too many: since when, and how much of the traffic
//! that is.

use std::time::{Duration, Instant, SystemTime};

use super::{Keeper, Now, PlaneError, timestamp};
use crate::control::api::FloodRow;
use crate::dataplane::model::{Counter, FloodState};
use limiter_common::verdict::{Action, Reason};

/// What is known of new sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    state: FloodState,
    flood: Option<Flood>,
}

/// A flood that is under way.
#[derive(Clone, Debug)]
struct Flood {
    since: SystemTime,
    start: Instant,
    first: Packets,
    last: (Instant, Packets),
    /// Packets a second of unknown sources, and their share of all in percent.
    rate: Option<(u64, u64)>,
}

/// Packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Packets {
    all: u64,
    unknown: u64,
    refused: u64,
}

impl Packets {
    fn of(counters: &[Counter]) -> Self {
        let mut packets = Self::default();
        for counter in counters {
            packets.all += counter.packets;
            if counter.outcome.reason() == Reason::UnknownSource {
                packets.unknown += counter.packets;
                if counter.outcome.action() != Action::Pass {
                    packets.refused += counter.packets;
                }
            }
        }
        packets
    }

    const fn since(self, before: Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            unknown: self.unknown.saturating_sub(before.unknown),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

impl Flood {
    fn begun(now: Now, packets: Packets) -> Self {
        Self {
            since: now.wall,
            start: now.instant,
            first: packets,
            last: (now.instant, packets),
            rate: None,
        }
    }

    fn measure(&mut self, now: Now, packets: Packets) {
        let (then, before) = self.last;
        let elapsed = now.instant.saturating_duration_since(then);
        if elapsed < Duration::from_millis(500) {
            return;
        }
        let new = packets.since(before);
        let per_second = new.unknown as f64 / elapsed.as_secs_f64();
        let percent = new.unknown * 100 / new.all.max(1);
        self.rate = Some((per_second as u64, percent));
        self.last = (now.instant, packets);
    }
}

impl Keeper {
    /// Looks whether new sources are too many; one line in the log when they
    /// begin to be and one when it is over.
    pub(super) fn watch_flood(&mut self, now: Now) -> Result<(), PlaneError> {
        let state = self.plane.flood()?;
        self.watch.state = state;
        match (&mut self.watch.flood, state.is_active) {
            (None, false) => {}
            (None, true) => {
                let packets = Packets::of(&self.plane.counters()?);
                tracing::warn!("too many new sources: admission is on (edge.flood)");
                self.watch.flood = Some(Flood::begun(now, packets));
                if let Some(notifier) = self.notifier() {
                    notifier.flood_begun(now.wall);
                }
            }
            (Some(flood), true) => flood.measure(now, Packets::of(&self.plane.counters()?)),
            (Some(flood), false) => {
                let total = Packets::of(&self.plane.counters()?).since(flood.first);
                tracing::info!(
                    seconds = now.instant.saturating_duration_since(flood.start).as_secs(),
                    unknown = total.unknown,
                    refused = total.refused,
                    "new sources are few again: admission is off"
                );
                let began = flood.since;
                self.watch.flood = None;
                if let Some(notifier) = self.notifier() {
                    notifier.flood_over(began, now.wall, total.unknown, total.refused);
                }
            }
        }
        Ok(())
    }

    /// How new sources are treated, as an answer.
    pub(super) fn flood_row(&self) -> FloodRow {
        let flood = self.watch.flood.as_ref();
        let rate = flood.and_then(|flood| flood.rate);
        FloodRow {
            active: flood.is_some(),
            since: flood.map(|flood| timestamp(flood.since)),
            unknown_per_second: rate.map(|rate| rate.0),
            unknown_percent: rate.map(|rate| rate.1),
            admitted: self.watch.state.admitted,
        }
    }
}
