//! The fixed window: exact between two multiples of the period.

use super::Standing;

/// Counts the events since the last multiple of `period_ns` since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    limit: u64,
    period_ns: u64,
}

impl Fixed {
    /// A window that is over at `limit` events, at least 1.
    #[must_use]
    pub fn new(limit: u64, period_ns: u64) -> Self {
        Self {
            limit: limit.max(1),
            period_ns: period_ns.max(1),
        }
    }

    /// Words of a state: the window's index, and the count.
    #[must_use]
    pub const fn words(&self) -> usize {
        2
    }

    pub(super) fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        let (index, counted) = self.at(state, now_ns);
        let end_ns = (index + 1).saturating_mul(self.period_ns);
        let taken = counted.saturating_add(reserved);
        Standing {
            over: taken >= self.limit,
            until_ns: if counted >= self.limit { end_ns } else { 0 },
            delay_ns: 0,
            remaining: self.limit.saturating_sub(taken),
            reset_ns: if counted == 0 { 0 } else { end_ns },
        }
    }

    pub(super) fn add(&self, state: &mut [u64], now_ns: u64, events: u64) {
        let (index, counted) = self.at(state, now_ns);
        state[0] = index;
        state[1] = counted.saturating_add(events);
    }

    pub(super) fn halve(&self, state: &mut [u64], now_ns: u64) {
        let (index, counted) = self.at(state, now_ns);
        state[0] = index;
        state[1] = counted / 2;
    }

    fn at(&self, state: &[u64], now_ns: u64) -> (u64, u64) {
        let now = now_ns / self.period_ns;
        if now > state[0] {
            (now, 0)
        } else {
            (state[0], state[1])
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reset_is_known() {
        let fixed = Fixed::new(2, 100);
        let mut state = [0; 2];
        fixed.add(&mut state, 199, 2);
        let standing = fixed.judge(&state, 199, 0);
        assert!(standing.over);
        assert_eq!((standing.until_ns, standing.reset_ns), (200, 200));
        assert_eq!(fixed.judge(&state, 200, 0).remaining, 2);
    }

    proptest! {
        #[test]
        fn like_a_list_of_all_events(
            limit in 1_u64..9,
            steps in proptest::collection::vec((0_u64..80, 0_u64..4), 1..100),
        ) {
            let fixed = Fixed::new(limit, 100);
            let mut state = [0; 2];
            let (mut all, mut now_ns) = (Vec::<u64>::new(), 1_000_u64);
            for (wait, events) in steps {
                now_ns += wait;
                let counted = all.iter().filter(|at| **at / 100 == now_ns / 100).count() as u64;
                let standing = fixed.judge(&state, now_ns, 0);
                prop_assert_eq!(standing.over, counted >= limit);
                prop_assert_eq!(standing.remaining, limit.saturating_sub(counted));
                all.extend((0..events).map(|_| now_ns));
                fixed.add(&mut state, now_ns, events);
            }
        }
    }
}
