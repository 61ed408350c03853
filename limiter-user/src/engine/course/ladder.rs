//! A ladder: which rung counts, and how it comes down.

use super::part::{Part, windowed};
use super::{Course, nanos};
use crate::policy::{self, Algorithm, Count};

/// Where a ladder's words stand: how many rungs are reached, and since when it is
/// quiet.
#[derive(Clone, Copy, Debug)]
pub(super) struct LadderAt {
    pub(super) rungs: usize,
    pub(super) quiet: usize,
    pub(super) decay_ns: u64,
}

impl Course {
    /// The rung of a part, from 1; 0: it is no ladder.
    pub(in crate::engine) const fn rung_of(&self, part: usize) -> u64 {
        match self.ladder {
            Some(_) => part as u64 + 1,
            None => 0,
        }
    }

    pub(in crate::engine) const fn is_ladder(&self) -> bool {
        self.ladder.is_some()
    }

    /// The rungs that a key has reached and not yet come down from.
    pub(in crate::engine) fn rungs(&self, state: &[u64], now_ns: u64) -> u64 {
        self.ladder
            .map_or(0, |ladder| rungs_at(ladder, state, now_ns))
    }

    /// The part that a ladder counts for.
    pub(super) fn rung(&self, state: &[u64], now_ns: u64) -> Option<usize> {
        let ladder = self.ladder?;
        let reached = usize::try_from(rungs_at(ladder, state, now_ns)).unwrap_or(usize::MAX);
        Some(reached.min(self.parts.len().saturating_sub(1)))
    }

    /// A part's words, as they are when the ladder has [come down](Self::descend).
    pub(super) fn words_at<'a>(&'a self, part: &Part, state: &'a [u64], now_ns: u64) -> &'a [u64] {
        let fell = |ladder: LadderAt| rungs_at(ladder, state, now_ns) != state[ladder.rungs];
        if !self.fallen.is_empty() && self.ladder.is_some_and(fell) {
            return &self.fallen[..part.counter.words()];
        }
        part.words(state)
    }

    /// Brings a ladder down by one rung for each quiet time.
    pub(super) fn descend(&self, ladder: LadderAt, state: &mut [u64], now_ns: u64) {
        let reached = rungs_at(ladder, state, now_ns);
        if reached == state[ladder.rungs] {
            return;
        }
        let fallen = state[ladder.rungs] - reached;
        state[ladder.rungs] = reached;
        let quiet_ns = ladder.decay_ns.saturating_mul(fallen);
        state[ladder.quiet] = state[ladder.quiet].saturating_add(quiet_ns);
        if !self.fallen.is_empty() {
            for part in &self.parts {
                part.words_mut(state).fill(0);
            }
        }
    }

    /// The rungs share one state: a ladder counts for one of them at a time.
    pub(super) fn climb(&mut self, ladder: &policy::Ladder, count: &Count) {
        let (rungs, quiet) = (self.take(1), self.take(1));
        self.ladder = Some(LadderAt {
            rungs,
            quiet,
            decay_ns: nanos(ladder.decay),
        });
        let logs = |rung: &&policy::Rung| rung.window.algorithm == Algorithm::SlidingLog;
        let room = ladder
            .rungs
            .iter()
            .filter(logs)
            .map(|rung| rung.window.threshold())
            .max();
        let counters: Vec<_> = ladder
            .rungs
            .iter()
            .map(|rung| windowed(&rung.window, count, room.unwrap_or(1)))
            .collect();
        let words = counters.iter().map(|(counter, ..)| counter.words()).max();
        let at = self.take(words.unwrap_or(0));
        for (rung, (counter, limit, period_ns)) in ladder.rungs.iter().zip(counters) {
            let until = self.take(1);
            let then = self.take(usize::from(rung.effect.then.is_some()));
            self.parts.push(Part {
                counter,
                limit,
                period_ns,
                effect: rung.effect,
                lasting_ns: Some(nanos(rung.lasting)),
                at,
                until,
                then,
            });
        }
        if self.parts.iter().any(|part| !part.logs()) {
            self.fallen = vec![0; words.unwrap_or(0)];
        }
    }
}

pub(super) fn rungs_at(ladder: LadderAt, state: &[u64], now_ns: u64) -> u64 {
    let quiet = now_ns.saturating_sub(state[ladder.quiet]) / ladder.decay_ns.max(1);
    state[ladder.rungs].saturating_sub(quiet)
}
