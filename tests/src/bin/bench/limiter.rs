//! limiter's own program, loaded as the daemon loads it.

use crate::policies::Shape;
use anyhow::{Context as _, Result, ensure};
use limiter_user::{
    dataplane::{DataPlane, Options, model::Counter},
    policy::Policy,
};
use std::collections::BTreeMap;

/// `XDP_DROP`.
pub(crate) const DROP: u32 = 1;
/// `XDP_PASS`.
pub(crate) const PASS: u32 = 2;

/// A loaded program with its tables.
pub(crate) struct Limiter {
    pub(crate) plane: DataPlane,
}

/// Packets by action, reason and limit, such as `drop limit:packets web`.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Of what was counted: packets passed and dropped.
pub(crate) fn passed_and_dropped(counts: &Counts) -> [u64; 2] {
    ["pass ", "drop "].map(|action| {
        let ours = counts.iter().filter(|(words, _)| words.starts_with(action));
        ours.map(|(_, packets)| packets).sum()
    })
}

impl Limiter {
    /// Loads it with a policy and nothing else.
    pub(crate) fn new(policy: &Policy) -> Result<Self> {
        let plane = DataPlane::load(policy, Options::default()).context("loading limiter")?;
        Ok(Self { plane })
    }

    /// Loads it with everything that belongs to a shape.
    pub(crate) fn of(shape: &Shape) -> Result<Self> {
        let mut limiter = Self::new(&shape.policy()?)?;
        limiter.plane.block_many(&shape.blocks())?;
        Ok(limiter)
    }

    /// What it has counted.
    pub(crate) fn counts(&self) -> Result<Counts> {
        self.counts_where(|_| true)
    }

    /// What it has counted at an interface.
    pub(crate) fn counts_at(&self, interface: &str) -> Result<Counts> {
        self.counts_where(|counter| counter.interface.as_deref() == Some(interface))
    }

    fn counts_where(&self, wanted: impl Fn(&Counter) -> bool) -> Result<Counts> {
        let mut counts = Counts::new();
        for counter in self.plane.counters()?.iter().filter(|it| wanted(it)) {
            let reason = counter.outcome.reason();
            let mut words = format!("{} {}", counter.outcome.action().name(), reason.name());
            if let Some(budget) = reason.budget().name() {
                words = format!("{words}:{budget}");
            }
            if let Some(limit) = &counter.limit {
                words = format!("{words} {limit}");
            }
            *counts.entry(words).or_default() += counter.packets;
        }
        Ok(counts)
    }

    /// Packets passed and dropped so far.
    pub(crate) fn passed_and_dropped(&self) -> Result<[u64; 2]> {
        Ok(passed_and_dropped(&self.counts()?))
    }

    /// Runs copies of a frame; returns nanoseconds for each.
    ///
    /// # Errors
    ///
    /// If one met anything but what is `expected`, in the words of [`Counts`].
    pub(crate) fn time(&self, frame: &[u8], packets: u32, expected: &str) -> Result<f64> {
        self.check(packets, expected, || {
            let run = self.plane.test_run(frame, packets)?;
            Ok((run.action, run.duration.as_nanos() as f64))
        })
    }

    /// Checks that a run of so many packets, which tells the last one's action
    /// and the time of each, is counted as expected.
    pub(crate) fn check(
        &self,
        packets: u32,
        expected: &str,
        run: impl FnOnce() -> Result<(u32, f64)>,
    ) -> Result<f64> {
        let before = self.counts()?;
        let (action, ns) = run()?;
        let mut moved = self.counts()?;
        for (words, packets) in &before {
            *moved.entry(words.clone()).or_default() -= packets;
        }
        moved.retain(|_, packets| *packets != 0);
        let right = Counts::from([(expected.to_owned(), packets.into())]);
        ensure!(moved == right, "{right:?} expected, {moved:?} met");
        let wanted = if expected.starts_with("drop") {
            DROP
        } else {
            PASS
        };
        ensure!(action == wanted, "the program returned {action}");
        Ok(ns)
    }
}
