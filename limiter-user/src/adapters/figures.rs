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
