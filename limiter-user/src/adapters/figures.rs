//! What was answered, and how fast.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

/// The upper bounds of the buckets of decisions, in microseconds.
const BOUNDS_US: [u64; 15] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    1_000_000,
];

/// Answers of one status: `limiter_http_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRow {
    /// The status.
    pub status: u16,
    /// How many.
    pub answers: u64,
}

/// How long decisions took, from a whole body to the decision:
/// `limiter_decision_duration_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// Upper bounds of buckets in microseconds, rising, and how many decisions are in
    /// each bucket alone.
    pub buckets: Vec<(u64, u64)>,
    /// All decisions, those beyond the last bound too.
    pub count: u64,
    /// What they took together, in nanoseconds.
    pub sum_ns: u64,
}

/// Counts of answers and decisions.
#[derive(Debug, Default)]
pub struct Figures(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_status: BTreeMap<u16, u64>,
    buckets: [u64; BOUNDS_US.len()],
    count: u64,
    sum_ns: u64,
}

impl LatencyRow {
    /// Those that came after `before`, which is of the same listeners and earlier.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let pairs = self.buckets.iter().zip(&before.buckets);
        Self {
            buckets: pairs
                .map(|((bound, now), (_, then))| (*bound, now.saturating_sub(*then)))
                .collect(),
            count: self.count.saturating_sub(before.count),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
        }
    }

    /// The bound, in microseconds, within which 99 % of all decisions were made; `None`:
    /// there were none, or more than 1 % took longer than the last bound.
    #[must_use]
    pub fn nearly_all_within_us(&self) -> Option<u64> {
        let nearly_all = self.count - self.count / 100;
        let mut within = 0;
        let bounds = self.buckets.iter().filter(|_| self.count > 0);
        let mut reached = bounds.filter(|(_, count)| {
            within += count;
            within >= nearly_all
        });
        reached.next().map(|(bound, _)| *bound)
    }

    /// Adds those of another listener.
    pub fn add(&mut self, other: &Self) {
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

impl Figures {
    /// How many answers there were of each status.
    #[must_use]
    pub fn statuses(&self) -> Vec<StatusRow> {
        let counts = self.counts();
        let rows = counts.by_status.iter();
        rows.map(|(status, answers)| StatusRow {
            status: *status,
            answers: *answers,
        })
        .collect()
    }

    /// How long decisions took.
    #[must_use]
    pub fn latency(&self) -> LatencyRow {
        let counts = self.counts();
        LatencyRow {
            buckets: BOUNDS_US.into_iter().zip(counts.buckets).collect(),
            count: counts.count,
            sum_ns: counts.sum_ns,
        }
    }

    pub(super) fn count(&self, status: StatusCode) {
        *self.counts().by_status.entry(status.as_u16()).or_default() += 1;
    }

    pub(super) fn decided(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let us = ns.div_ceil(1_000);
        let mut counts = self.counts();
        counts.count += 1;
        counts.sum_ns = counts.sum_ns.saturating_add(ns);
        if let Some(at) = BOUNDS_US.iter().position(|bound| us <= *bound) {
            counts.buckets[at] += 1;
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_holds_99_of_100() {
        let figures = Figures::default();
        assert_eq!(figures.latency().nearly_all_within_us(), None);
        for _ in 0..99 {
            figures.decided(Duration::from_micros(20));
        }
        figures.decided(Duration::from_secs(2));
        let before = figures.latency();
        assert_eq!(before.nearly_all_within_us(), Some(25));
        figures.decided(Duration::from_secs(2));
        assert_eq!(figures.latency().nearly_all_within_us(), None);
        let since = figures.latency().since(&before);
        assert_eq!((since.count, since.nearly_all_within_us()), (1, None));
    }
}
