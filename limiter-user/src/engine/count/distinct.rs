//! Values told apart: exact.

use super::Standing;

/// Counts the different values seen within `period_ns`, each by when it was seen
/// last: half open, as with the log. It keeps the last `limit` of them, which is
/// all it takes to tell whether so many count. Values are told apart by 64 bits of
/// a keyed hash: two of 10,000 are taken for one with a probability below 10^-11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distinct {
    limit: usize,
    period_ns: u64,
}

impl Distinct {
    /// Over at `limit` values, at least 1.
    #[must_use]
    pub fn new(limit: u64, period_ns: u64) -> Self {
        Self {
            limit: usize::try_from(limit.max(1)).unwrap_or(usize::MAX / 32),
            period_ns,
        }
    }

    /// Words of a state: for each value its hash and when it was seen last, which is
    /// 0 where there is none.
    #[must_use]
    pub const fn words(&self) -> usize {
        2 * self.limit
    }

    pub(super) fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        let times = || state.chunks_exact(2).map(|value| value[1]);
        let counts = |seen_ns: &u64| self.counts(*seen_ns, now_ns);
        let counted = times().filter(counts).count();
        let taken = (counted as u64).saturating_add(reserved);
        let limit = self.limit as u64;
        let end = |seen_ns: Option<u64>| seen_ns.map_or(0, |at| at.saturating_add(self.period_ns));
        Standing {
            over: taken >= limit,
            until_ns: if counted >= self.limit {
                end(times().min())
            } else {
                0
            },
            delay_ns: 0,
            remaining: limit.saturating_sub(taken),
            reset_ns: end(times().filter(counts).max()),
        }
    }

    pub(super) fn add(&self, state: &mut [u64], now_ns: u64, value: u64) {
        let known = state
            .chunks_exact(2)
            .position(|held| held[0] == value && held[1] != 0);
        let oldest = || {
            let times = state.chunks_exact(2).map(|held| held[1]).enumerate();
            times.min_by_key(|(_, seen_ns)| *seen_ns).map(|(at, _)| at)
        };
        if let Some(at) = known.or_else(oldest) {
            state[2 * at] = value;
            state[2 * at + 1] = now_ns.max(1);
        }
    }

    pub(super) fn halve(&self, state: &mut [u64], now_ns: u64) {
        let counted = state
            .chunks_exact(2)
            .filter(|held| self.counts(held[1], now_ns))
            .count();
        let mut kept = counted / 2;
        for held in state.chunks_exact_mut(2) {
            if kept > 0 && self.counts(held[1], now_ns) {
                kept -= 1;
            } else {
                held.fill(0);
            }
        }
    }

    fn counts(&self, seen_ns: u64, now_ns: u64) -> bool {
        seen_ns != 0 && now_ns.saturating_sub(seen_ns) < self.period_ns
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_value_counts_once() {
        let distinct = Distinct::new(2, 100);
        let mut state = [0; 4];
        for _ in 0..9 {
            distinct.add(&mut state, 10, 7);
        }
        assert_eq!(distinct.judge(&state, 10, 0).remaining, 1);
        distinct.add(&mut state, 20, 0);
        let standing = distinct.judge(&state, 20, 0);
        assert!(standing.over);
        assert_eq!((standing.until_ns, standing.reset_ns), (110, 120));
    }

    proptest! {
        #[test]
        fn like_a_map_of_all_values(
            limit in 1_u64..6,
            steps in proptest::collection::vec((0_u64..40, 0_u64..9), 1..120),
        ) {
            let distinct = Distinct::new(limit, 100);
            let mut state = vec![0; distinct.words()];
            let (mut all, mut now_ns) = (BTreeMap::<u64, u64>::new(), 1_000_u64);
            for (wait, value) in steps {
                now_ns += wait;
                let counted = all.values().filter(|at| now_ns - **at < 100).count() as u64;
                let standing = distinct.judge(&state, now_ns, 0);
                prop_assert_eq!(standing.over, counted >= limit);
                prop_assert_eq!(standing.remaining, limit.saturating_sub(counted));
                all.insert(value, now_ns);
                distinct.add(&mut state, now_ns, value);
            }
        }
    }
}
