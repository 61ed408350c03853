//! boruta's product of factors: a delay that grows with how far the last periods
//! were over the limit.

use super::Standing;

const MS_NS: u64 = 1_000_000;

/// How near the sum of 20,000 logarithms comes to the logarithm of the product, and how often that is
/// made sure of.
const NEAR: f64 = 1e-6;
const TRIES: u32 = 16;

/// The formula of boruta's `RateLimit` plug, in its own order of floating-point
/// operations. Time falls into bins of `period` since the epoch. From the oldest of the last
/// `memory` bins to the current one, a bin with `n` events contributes the factor
/// `n / period * (period / limit)`, an empty one that of `limit` events; their product
/// times `penalty` is the delay in milliseconds, rounded down, and none if the product is at
/// most 1. A delay of `timeout` or more is a refusal.
///
/// A bin below the limit is thus credit that multiplies: after five quiet seconds a
/// million requests pass. That is what `faithful` asks for; else no factor is below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boruta {
    limit: u32,
    period_ms: u64,
    penalty_ms: u64,
    timeout_ms: u64,
    memory: u64,
    faithful: bool,
    bins: usize,
}

impl Boruta {
    /// All are at least 1 but the penalty, which may be 0; `memory` is at most 10,000
    /// periods, `period_ms`, `penalty_ms` and `timeout_ms` are milliseconds.
    #[must_use]
    pub fn new(
        limit: u32,
        period_ms: u64,
        penalty_ms: u64,
        timeout_ms: u64,
        memory: u32,
        faithful: bool,
    ) -> Self {
        let (period_ms, memory) = (period_ms.max(1), u64::from(memory.clamp(1, 10_000)));
        // An event counts when it has waited: bins ahead of now are needed too.
        let ahead = (timeout_ms / period_ms + 1).min(10_000);
        Self {
            limit: limit.max(1),
            period_ms,
            penalty_ms,
            timeout_ms,
            memory,
            faithful,
            bins: usize::try_from(memory + ahead).unwrap_or(20_001),
        }
    }

    /// Words of a state: the latest bin that was counted in, then the counts in a
    /// ring, two in a word.
    #[must_use]
    pub const fn words(&self) -> usize {
        1 + self.bins.div_ceil(2)
    }

    pub(super) fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        let bin = self.bin(now_ns);
        let delay_ms = self.delay_ms(state, bin, reserved);
        let over = delay_ms >= self.timeout_ms;
        let current = u64::from(self.count(state, bin)).saturating_add(reserved);
        let latest = state[0];
        let idle = (0..self.memory).all(|back| self.count(state, bin.saturating_sub(back)) == 0);
        Standing {
            over,
            until_ns: if over { self.end_ns(state, bin) } else { 0 },
            delay_ns: if over {
                0
            } else {
                delay_ms.saturating_mul(MS_NS)
            },
            remaining: u64::from(self.limit).saturating_sub(current),
            reset_ns: if idle && latest <= bin {
                0
            } else {
                self.start_ns(latest.saturating_add(self.memory))
            },
        }
    }

    pub(super) fn add(&self, state: &mut [u64], now_ns: u64, events: u64) {
        let bin = self.bin(now_ns);
        if bin > state[0] {
            let passed = (bin - state[0]).min(self.bins as u64);
            for back in 0..passed {
                self.put(state, bin - back, 0);
            }
            state[0] = bin;
        }
        let bin = bin.max(state[0].saturating_sub(self.bins as u64 - 1));
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let count = self.count(state, bin).saturating_add(events);
        self.put(state, bin, count);
    }

    pub(super) fn halve(&self, state: &mut [u64], _now_ns: u64) {
        let latest = state[0];
        for back in 0..self.bins as u64 {
            let bin = latest.saturating_sub(back);
            let half = self.count(state, bin) / 2;
            self.put(state, bin, half);
        }
    }

    /// The delay of a request in `bin`, which itself is not in its computation.
    fn delay_ms(&self, state: &[u64], bin: u64, reserved: u64) -> u64 {
        let (unit, limit) = (self.period_ms as f64, f64::from(self.limit));
        let mut product = 1.0_f64;
        for back in (0..self.memory).rev() {
            let counted = match bin.checked_sub(back) {
                Some(bin) => self.count(state, bin),
                None => 0,
            };
            let reserved = if back == 0 { reserved } else { 0 };
            let counted = u64::from(counted).saturating_add(reserved);
            let counted = if counted == 0 { limit } else { counted as f64 };
            let factor = counted / unit * (unit / limit);
            product *= if self.faithful {
                factor
            } else {
                factor.max(1.0)
            };
        }
        if product <= 1.0 {
            0
        } else {
            // Saturates: an infinite product is the longest delay.
            (product * self.penalty_ms as f64).floor() as u64
        }
    }

    /// The start of the first bin in which a request is not refused if nothing more
    /// is counted.
    ///
    /// The product over all bins anew for each later bin would cost the square of the memory. So the sum
    /// of the logarithms is carried from bin to bin, and the product is worked out where that comes
    /// near; a few times at most, then the end of the memory is told, by which it is surely over.
    fn end_ns(&self, state: &[u64], bin: u64) -> u64 {
        let weight = |bin: Option<u64>| match bin.map_or(0, |bin| self.count(state, bin)) {
            0 => 0.0,
            counted if self.faithful => (f64::from(counted) / f64::from(self.limit)).ln(),
            counted => (f64::from(counted) / f64::from(self.limit)).ln().max(0.0),
        };
        // A product of at most 1 delays nobody.
        let over = (self.timeout_ms as f64 / self.penalty_ms as f64).max(1.0);
        let over = over.ln() + NEAR;
        let mut sum: f64 = (0..self.memory)
            .map(|back| weight(bin.checked_sub(back)))
            .sum();
        let mut tries = TRIES;
        for later in 1..self.bins as u64 {
            let next = bin.saturating_add(later);
            let change = weight(Some(next)) - weight(next.checked_sub(self.memory));
            sum += change;
            // What is reserved counts in the current bin alone.
            if sum > over || change == 0.0 && later > 1 {
                continue;
            }
            if self.delay_ms(state, next, 0) < self.timeout_ms {
                return self.start_ns(next);
            }
            tries -= 1;
            if tries == 0 {
                break;
            }
        }
        self.start_ns(bin.saturating_add(self.bins as u64))
    }

    fn bin(&self, now_ns: u64) -> u64 {
        now_ns / MS_NS / self.period_ms
    }

    fn start_ns(&self, bin: u64) -> u64 {
        bin.saturating_mul(self.period_ms).saturating_mul(MS_NS)
    }

    /// The events of a bin; none of one that is not in the ring.
    fn count(&self, state: &[u64], bin: u64) -> u32 {
        if bin > state[0] || state[0] - bin >= self.bins as u64 {
            return 0;
        }
        let place = (bin % self.bins as u64) as usize;
        (state[1 + place / 2] >> (32 * (place % 2))) as u32
    }

    fn put(&self, state: &mut [u64], bin: u64, count: u32) {
        let place = (bin % self.bins as u64) as usize;
        let shift = 32 * (place % 2);
        let word = &mut state[1 + place / 2];
        *word = *word & !(0xffff_ffff << shift) | u64::from(count) << shift;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const NOW: u64 = 1_000;

    /// What the next request gets after so many in each of the last seconds, the
    /// latest last.
    fn after(boruta: Boruta, counts: &[u64]) -> Standing {
        let mut state = vec![0; boruta.words()];
        for (index, events) in counts.iter().enumerate() {
            let second = NOW - (counts.len() - 1 - index) as u64;
            if *events > 0 {
                boruta.add(&mut state, second * SECOND_NS, *events);
            }
        }
        boruta.judge(&state, NOW * SECOND_NS, 0)
    }

    fn delay_ms(boruta: Boruta, counts: &[u64]) -> u64 {
        after(boruta, counts).delay_ns / MS_NS
    }

    fn plain(penalty_ms: u64, timeout_ms: u64, memory: u32, faithful: bool) -> Boruta {
        Boruta::new(1, 1_000, penalty_ms, timeout_ms, memory, faithful)
    }

    fn production(faithful: bool) -> Boruta {
        Boruta::new(10, 1_000, 500, 5_000, 50, faithful)
    }

    #[test]
    fn borutas_own_numbers() {
        for faithful in [true, false] {
            let boruta = plain(100, 5_000, 50, faithful);
            assert_eq!(delay_ms(boruta, &[7]), 700);
            assert_eq!(delay_ms(boruta, &[1, 2]), 200);
            assert_eq!(delay_ms(boruta, &[1, 1]), 0);
            assert_eq!(delay_ms(plain(100, 5_000, 1, faithful), &[9, 3]), 300);
            assert!(after(production(faithful), &[600]).over);
            assert!(after(plain(100, 1, 50, faithful), &[7]).over);
        }
    }

    #[test]
    fn a_single_busy_second_under_the_production_policy() {
        for (count, expected) in [(10, 0), (11, 549), (20, 1_000), (99, 4_950)] {
            assert_eq!(delay_ms(production(true), &[count]), expected, "{count}");
            assert!(!after(production(true), &[count]).over);
        }
        let refused = after(production(true), &[100]);
        assert!(refused.over);
        // A busy bin weighs until it is out of memory.
        assert_eq!(refused.until_ns, (NOW + 50) * SECOND_NS);
    }

    #[test]
    fn quiet_seconds_are_credit_only_if_it_is_faithful() {
        assert_eq!(delay_ms(production(true), &[1, 100]), 0);
        assert!(after(production(false), &[1, 100]).over);
        assert_eq!(delay_ms(production(true), &[1, 1, 1, 1, 1, 999_000]), 0);
        assert!(after(production(false), &[1, 1, 1, 1, 1, 1_000_000]).over);
    }

    #[test]
    fn an_event_that_waited_counts_in_the_bin_in_which_it_ran() {
        let boruta = plain(100, 5_000, 50, true);
        let mut state = vec![0; boruta.words()];
        boruta.add(&mut state, (NOW + 3) * SECOND_NS, 4);
        boruta.add(&mut state, NOW * SECOND_NS, 2);
        assert_eq!(
            boruta.judge(&state, NOW * SECOND_NS, 0).delay_ns,
            200 * MS_NS
        );
        let later = (NOW + 3) * SECOND_NS;
        assert_eq!(boruta.judge(&state, later, 0).delay_ns, 800 * MS_NS);
    }

    #[test]
    fn a_product_beyond_all_numbers_is_a_refusal() {
        assert!(after(plain(100, 5_000, 50, true), &[u64::MAX; 50]).over);
    }

    #[test]
    fn the_end_of_the_longest_memory_is_found_at_once() {
        let boruta = Boruta::new(1, 1, 100, 10_000, 10_000, false);
        let mut state = vec![0; boruta.words()];
        for ms in 0..10_000 {
            boruta.add(&mut state, (20_000 + ms) * MS_NS, 2);
        }
        let now_ns = 29_999 * MS_NS;
        let standing = boruta.judge(&state, now_ns, 0);
        // Six doublings are 6,400 ms, and seven 12,800.
        assert_eq!(standing.until_ns, (29_999 + 10_000 - 6) * MS_NS);
        assert!(boruta.judge(&state, standing.until_ns - MS_NS, 0).over);
        assert!(!boruta.judge(&state, standing.until_ns, 0).over);
    }

    proptest! {
        #[test]
        fn the_end_is_the_first_bin_that_is_not_refused(
            faithful: bool, timeout_ms in 1_u64..2_000,
            counts in proptest::collection::vec(0_u32..6, 1..30),
        ) {
            let boruta = Boruta::new(2, 100, 50, timeout_ms, 12, faithful);
            let mut state = vec![0; boruta.words()];
            for (bin, events) in (1_000..).zip(&counts) {
                if *events > 0 {
                    boruta.add(&mut state, bin * 100 * MS_NS, u64::from(*events));
                }
            }
            // Some have waited, and count later than now; nobody waits for longer than the timeout.
            let waiting = (counts.len() as u64 / 2).min(timeout_ms / 100);
            let bin = 999 + counts.len() as u64 - waiting;
            let standing = boruta.judge(&state, bin * 100 * MS_NS, 0);
            if standing.over {
                let is_over = |bin: &u64| boruta.judge(&state, bin * 100 * MS_NS, 0).over;
                let first = (bin + 1..).find(|bin| !is_over(bin)).unwrap();
                prop_assert_eq!(standing.until_ns, first * 100 * MS_NS);
            }
        }

        #[test]
        fn like_the_formula_over_a_list_of_times(
            limit in 1_u32..5, memory in 1_u32..6, faithful: bool,
            steps in proptest::collection::vec((0_u64..400, 0_u64..4), 1..80),
        ) {
            let boruta = Boruta::new(limit, 100, 50, 1_000, memory, faithful);
            let mut state = vec![0; boruta.words()];
            let (mut all, mut now_ms) = (Vec::<u64>::new(), 100_000_u64);
            for (wait, events) in steps {
                now_ms += wait;
                let mut product = 1.0_f64;
                for back in (0..u64::from(memory)).rev() {
                    let count = all.iter().filter(|at| **at / 100 == now_ms / 100 - back).count();
                    let count = if count == 0 { f64::from(limit) } else { count as f64 };
                    let factor = count / 100.0 * (100.0 / f64::from(limit));
                    product *= if faithful { factor } else { factor.max(1.0) };
                }
                let delay_ms = if product <= 1.0 { 0 } else { (product * 50.0).floor() as u64 };
                let standing = boruta.judge(&state, now_ms * MS_NS, 0);
                prop_assert_eq!(standing.over, delay_ms >= 1_000);
                if standing.over {
                    prop_assert!(standing.until_ns > now_ms * MS_NS);
                    prop_assert!(!boruta.judge(&state, standing.until_ns, 0).over);
                } else {
                    prop_assert_eq!(standing.delay_ns, delay_ms * MS_NS);
                }
                all.extend((0..events).map(|_| now_ms));
                if events > 0 {
                    boruta.add(&mut state, now_ms * MS_NS, events);
                }
            }
        }
    }
}
