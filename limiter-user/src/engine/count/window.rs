//! The sliding window: an estimate from two counts.

use super::{Standing, share};

/// Counts by windows that start at multiples of `period_ns` since the epoch, the
/// window before in proportion to what the sliding one still covers of it:
/// `before * (period - elapsed) / period + current`. That is compared unrounded.
///
/// The formula is Cloudflare's ("How we built rate limiting capable of scaling to
/// millions of domains", 2017).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    limit: u64,
    period_ns: u64,
}

/// A key's counts, brought up to an instant.
struct Counts {
    index: u64,
    before: u64,
    current: u64,
    elapsed_ns: u64,
}

impl Window {
    /// A window that is over at `limit` events, at least 1 and below 2^32.
    #[must_use]
    pub fn new(limit: u64, period_ns: u64) -> Self {
        Self {
            limit: limit.max(1),
            period_ns: period_ns.max(1),
        }
    }

    /// Words of a state: the window's index, and both counts.
    #[must_use]
    pub const fn words(&self) -> usize {
        2
    }

    pub(super) fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        let counts = self.at(state, now_ns);
        let until_ns = if self.exceeds(&counts, 0) {
            self.end_ns(&counts)
        } else {
            0
        };
        let current = counts.current.saturating_add(reserved);
        Standing {
            over: self.exceeds(&counts, reserved),
            until_ns,
            delay_ns: 0,
            remaining: self
                .limit
                .saturating_sub(current)
                .saturating_sub(self.share_of_before(&counts)),
            reset_ns: match (counts.before, counts.current) {
                (0, 0) => 0,
                (_, 0) => self.start_ns(counts.index + 1),
                _ => self.start_ns(counts.index + 2),
            },
        }
    }

    pub(super) fn is_over(&self, state: &[u64], now_ns: u64, reserved: u64) -> bool {
        // The estimate is never more than both counts, whatever the time.
        let most = (state[1] >> 32) + (state[1] & 0xffff_ffff);
        most.saturating_add(reserved) >= self.limit
            && self.exceeds(&self.at(state, now_ns), reserved)
    }

    pub(super) fn add(&self, state: &mut [u64], now_ns: u64, events: u64) {
        let counts = self.at(state, now_ns);
        let current = counts.current.saturating_add(events);
        put(state, counts.index, counts.before, current);
    }

    pub(super) fn halve(&self, state: &mut [u64], now_ns: u64) {
        let counts = self.at(state, now_ns);
        put(state, counts.index, counts.before / 2, counts.current / 2);
    }

    fn at(&self, state: &[u64], now_ns: u64) -> Counts {
        let (index, before, current) = (state[0], state[1] >> 32, state[1] & 0xffff_ffff);
        let start_ns = self.start_ns(index);
        let elapsed_ns = now_ns.saturating_sub(start_ns);
        if elapsed_ns < self.period_ns {
            // The same window as before, or a time that ran backwards: nothing to divide.
            return Counts {
                index,
                before,
                current,
                elapsed_ns,
            };
        }
        let now = now_ns / self.period_ns;
        let (before, current) = match now.saturating_sub(index) {
            0 => (before, current),
            1 => (current, 0),
            _ => (0, 0),
        };
        let index = now.max(index);
        Counts {
            index,
            before,
            current,
            elapsed_ns: now_ns.saturating_sub(self.start_ns(index)),
        }
    }

    /// Whether the estimate reaches the limit, if `more` events counted already; both times the
    /// period, and so whole numbers.
    fn exceeds(&self, counts: &Counts, more: u64) -> bool {
        let current = counts.current.saturating_add(more);
        let taken = self.scaled_before(counts) + u128::from(current) * u128::from(self.period_ns);
        taken >= u128::from(self.limit) * u128::from(self.period_ns)
    }

    /// What still counts of the window before, times the period.
    fn scaled_before(&self, counts: &Counts) -> u128 {
        u128::from(counts.before) * u128::from(self.period_ns - counts.elapsed_ns)
    }

    /// The same, not times the period, and rounded up.
    fn share_of_before(&self, counts: &Counts) -> u64 {
        let scaled = self.scaled_before(counts);
        // Dividing 128 bits costs more than all the rest.
        match u64::try_from(scaled) {
            Ok(scaled) => scaled.div_ceil(self.period_ns),
            Err(_) => {
                u64::try_from(scaled.div_ceil(u128::from(self.period_ns))).unwrap_or(u64::MAX)
            }
        }
    }

    /// The first instant at which the estimate is below the limit.
    fn end_ns(&self, counts: &Counts) -> u64 {
        let below = |before: u64, allowed: u64| {
            // before * (period - e) < allowed * period
            let covered_ns = share(self.period_ns, allowed, before);
            let exact = u128::from(covered_ns) * u128::from(before)
                == u128::from(self.period_ns) * u128::from(allowed);
            self.period_ns - covered_ns.min(self.period_ns) + u64::from(exact)
        };
        let (start_ns, before, allowed) = if counts.current < self.limit {
            (
                self.start_ns(counts.index),
                counts.before,
                self.limit - counts.current,
            )
        } else {
            (self.start_ns(counts.index + 1), counts.current, self.limit)
        };
        start_ns.saturating_add(below(before, allowed))
    }

    fn start_ns(&self, index: u64) -> u64 {
        index.saturating_mul(self.period_ns)
    }
}

fn put(state: &mut [u64], index: u64, before: u64, current: u64) {
    let most = u64::from(u32::MAX);
    state[0] = index;
    state[1] = before.min(most) << 32 | current.min(most);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE_NS: u64 = 60_000_000_000;
    const SECOND_NS: u64 = 1_000_000_000;

    fn filled(limit: u64, counts: &[(u64, u64)]) -> (Window, [u64; 2]) {
        let window = Window::new(limit, MINUTE_NS);
        let mut state = [0; 2];
        for (now_ns, events) in counts {
            window.add(&mut state, *now_ns, *events);
        }
        (window, state)
    }

    #[test]
    fn forty_two_and_eighteen_are_49_and_a_half_after_fifteen_seconds() {
        let now_ns = MINUTE_NS + 15 * SECOND_NS;
        let counts = [(0, 42), (now_ns, 18)];
        let (window, state) = filled(50, &counts);
        let standing = window.judge(&state, now_ns, 0);
        assert!(!standing.over);
        assert_eq!(standing.remaining, 0);
        let (window, state) = filled(49, &counts);
        assert!(window.judge(&state, now_ns, 0).over);
    }

    #[test]
    fn windows_start_at_multiples_of_the_period() {
        let (window, state) = filled(10, &[(2 * MINUTE_NS - 1, 10)]);
        assert!(window.judge(&state, 2 * MINUTE_NS, 0).over);
        let standing = window.judge(&state, 2 * MINUTE_NS + 6 * SECOND_NS, 0);
        assert_eq!(standing.remaining, 1);
        assert_eq!(standing.reset_ns, 3 * MINUTE_NS);
    }

    #[test]
    fn the_window_before_the_last_no_longer_counts() {
        let (window, state) = filled(10, &[(1, 10)]);
        assert_eq!(window.judge(&state, 2 * MINUTE_NS, 0).remaining, 10);
    }

    #[test]
    fn half_of_each_count_stays() {
        let (window, mut state) = filled(100, &[(0, 40), (MINUTE_NS, 21)]);
        window.halve(&mut state, MINUTE_NS);
        assert_eq!(window.judge(&state, MINUTE_NS, 0).remaining, 70);
    }

    #[test]
    fn a_flood_does_not_wrap() {
        let (window, state) = filled(10, &[(0, u64::MAX), (1, u64::MAX)]);
        assert!(window.judge(&state, 1, u64::MAX).over);
    }

    proptest! {
        #[test]
        fn like_the_formula_in_fractions(
            limit in 1_u64..40,
            steps in proptest::collection::vec((0_u64..150, 0_u64..12), 1..80),
        ) {
            let window = Window::new(limit, 97);
            let mut state = [0; 2];
            let (mut all, mut now_ns) = (Vec::<u64>::new(), 970_u64);
            for (wait, events) in steps {
                now_ns += wait;
                let within = |index: u64| all.iter().filter(|at| **at / 97 == index).count() as u64;
                let scaled = within(now_ns / 97 - 1) * (97 - now_ns % 97) + within(now_ns / 97) * 97;
                let standing = window.judge(&state, now_ns, 0);
                prop_assert_eq!(standing.over, scaled >= limit * 97);
                prop_assert_eq!(standing.remaining, (limit * 97).saturating_sub(scaled) / 97);
                prop_assert_eq!(standing.reset_ns > now_ns, scaled > 0);
                if standing.over {
                    prop_assert!(window.judge(&state, standing.until_ns - 1, 0).over);
                    prop_assert!(!window.judge(&state, standing.until_ns, 0).over);
                }
                all.extend((0..events).map(|_| now_ns));
                window.add(&mut state, now_ns, events);
            }
        }
    }
}
