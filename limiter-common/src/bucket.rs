//! The arithmetic of a token bucket whose whole state is one word.
//!
//! A bucket of `burst` tokens refilled at `rate` is kept as its *theoretical
//! arrival time* (GCRA, ITU-T I.371 annex A, in its virtual scheduling form):
//! the instant at which it will be full again. Each token moves it `1/rate`
//! into the future; it may not lie further ahead than `burst/rate`. Zero, what
//! a new map value holds, is a full bucket.

use crate::time::Time;
#[cfg(not(target_arch = "bpf"))]
use crate::time::UNITS_PER_NS;

/// The longest a bucket may take to refill: one year, so that arrival times
/// stay within a word ([`crate::time::UNITS_PER_NS`]).
pub const REFILL_MAX_NS: u64 = 365 * 86_400 * 1_000_000_000;

/// Binary places of [`Bucket::cost`] at most.
#[cfg(not(target_arch = "bpf"))]
const SHIFT_MAX: u32 = 16;

/// A budget's rate and burst, made ready for the packet path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Units of time per token, times 2^`shift`; 0: no such budget.
    pub cost: u64,
    /// How far ahead of now the arrival time may lie, in units.
    pub burst_units: u64,
    /// The burst in tokens: a packet larger than this never passes.
    pub burst_tokens: u64,
    /// What a whole lease costs, in units ([`crate::entry`]); 0: none is given.
    pub lease_units: u64,
    /// See `cost`.
    pub shift: u32,
    /// Tokens in a lease.
    pub lease_tokens: u32,
}
const _: () = assert!(size_of::<Bucket>() == 40);

impl Bucket {
    /// No budget: nothing is charged and nothing refused.
    pub const NONE: Self = Self {
        cost: 0,
        burst_units: 0,
        burst_tokens: 0,
        lease_units: 0,
        shift: 0,
        lease_tokens: 0,
    };

    /// A bucket of `burst_tokens` that gains `amount` tokens every `per_ns`
    /// nanoseconds and hands out leases of at most `lease_max_tokens`.
    ///
    /// `None` where the rate or burst is 0 or refilling takes more than
    /// [`REFILL_MAX_NS`]. What one token costs is rounded up, so that the rate
    /// is never exceeded; rates at which that would take more than a
    /// thousandth get more binary places. The burst is rounded up likewise, by
    /// less than one unit, or a packet as large as the burst could never pass.
    #[cfg(not(target_arch = "bpf"))]
    pub fn new(amount: u64, per_ns: u64, burst_tokens: u64, lease_max_tokens: u32) -> Option<Self> {
        if amount == 0 || per_ns == 0 || burst_tokens == 0 {
            return None;
        }
        let interval = u128::from(per_ns) * u128::from(UNITS_PER_NS);
        let units = |shift: u32, tokens: u64| {
            let cost = (interval << shift).div_ceil(u128::from(amount));
            (cost, (cost * u128::from(tokens)).div_ceil(1 << shift))
        };
        let exact = interval.is_multiple_of(u128::from(amount));
        let mut shift = if exact || interval >= 1000 * u128::from(amount) {
            0
        } else {
            SHIFT_MAX
        };
        // Bursts of hours at such rates: fewer places, so that the burst's
        // cost times 2^shift stays within a word.
        while shift > 0 && units(shift, burst_tokens).1 << shift >= 1 << 63 {
            shift -= 1;
        }
        let (cost, burst_units) = units(shift, burst_tokens);
        if burst_units > u128::from(REFILL_MAX_NS) * u128::from(UNITS_PER_NS) {
            return None;
        }
        let mut bucket = Self {
            cost: u64::try_from(cost).ok()?,
            burst_units: u64::try_from(burst_units).ok()?,
            burst_tokens,
            lease_units: 0,
            shift,
            lease_tokens: 0,
        };
        // An eighth: four leases must be left when one is given, and what is
        // leased is out of the other CPUs' sight for a moment.
        let lease = u64::from(lease_max_tokens).min(burst_tokens / 8);
        bucket.lease_tokens = u32::try_from(lease).ok()?;
        bucket.lease_units = bucket.units(lease);
        Some(bucket)
    }

    /// True if the budget exists.
    #[inline(always)]
    pub const fn exists(&self) -> bool {
        self.cost != 0
    }

    /// What `tokens` (at most `burst_tokens`) cost, rounded up.
    #[inline(always)]
    pub const fn units(&self, tokens: u64) -> u64 {
        (tokens
            .wrapping_mul(self.cost)
            .wrapping_add((1 << (self.shift & 31)) - 1))
            >> (self.shift & 31)
    }

    /// What `tokens` that are handed back are worth, rounded down.
    #[inline(always)]
    pub const fn units_back(&self, tokens: u64) -> u64 {
        tokens.wrapping_mul(self.cost) >> (self.shift & 31)
    }

    /// True if a bucket that is full again at `arrival` can give `units` at
    /// `now`.
    #[inline(always)]
    pub const fn can_give(&self, arrival: u64, now: Time, units: u64) -> bool {
        let now = now.units();
        let base = if arrival > now { arrival } else { now };
        base.wrapping_add(units).wrapping_sub(now) <= self.burst_units
    }

    /// An arrival time as this bucket could have made it: another one's, with a longer
    /// time until it is full, counts as empty.
    #[inline(always)]
    pub const fn bounded(&self, arrival: u64, now: Time) -> u64 {
        let latest = now.units().wrapping_add(self.burst_units);
        if arrival > latest { latest } else { arrival }
    }

    /// The arrival time that holds as many tokens of `self` (at most its
    /// burst) as `arrival` holds of `old`. A part of a token is rounded down,
    /// to 2^-16: many conversions must not add up to a gift.
    #[inline(always)]
    pub const fn converted(&self, old: &Self, arrival: u64, now: Time) -> u64 {
        if !self.exists() || !old.exists() || arrival <= now.units() {
            return 0;
        }
        let debt = (arrival - now.units()) << (old.shift & 31);
        let missing = debt / old.cost;
        // `level` and less than one token, `rest / old.cost`, too little.
        let level = old.burst_tokens.saturating_sub(missing);
        let rest = debt % old.cost;
        if level > self.burst_tokens || level == self.burst_tokens && rest == 0 {
            return 0;
        }
        // A token takes an hour at most, less than 2^47 units.
        let part = ((rest << 16) / old.cost + (rest != 0) as u64) * self.cost;
        let part = (part >> (16 + (self.shift & 31))) + (part != 0) as u64;
        let debt = self.units(self.burst_tokens - level).wrapping_add(part);
        let debt = if debt > self.burst_units {
            self.burst_units
        } else {
            debt
        };
        now.units().wrapping_add(debt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn now(ns: u64) -> Time {
        Time::new(ns, UNITS_PER_NS)
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_not_one_more() {
        for (amount, per, burst) in [
            (1, 3600 * SECOND, 7),
            (5_000, SECOND, 10_000),
            (100_000_000, SECOND, 1_000_000),
            (3, 60 * SECOND, 1),
        ] {
            let bucket = Bucket::new(amount, per, burst, 64).unwrap();
            let at = now(5 * SECOND);
            assert!(bucket.can_give(0, at, bucket.units(burst)));
            assert!(!bucket.can_give(0, at, bucket.units(burst) + 1));
            let empty = at.units() + bucket.burst_units;
            assert!(!bucket.can_give(empty, at, bucket.units(1)));
            let interval = per.div_ceil(amount);
            assert!(!bucket.can_give(empty, now(5 * SECOND + interval - 2), bucket.units(1)));
            assert!(bucket.can_give(empty, now(5 * SECOND + interval + 1), bucket.units(1)));
        }
    }

    #[test]
    fn rounding_never_admits_more_than_the_rate() {
        for amount in [3, 7, 1_250_000_000, 33_333_333_333, 100_000_000_000] {
            let bucket = Bucket::new(amount, SECOND, amount, 131_072).unwrap();
            for tokens in [1, 60, 61, 1514, 9014] {
                let exact = f64::from(u32::try_from(tokens).unwrap()) * 32e9 / amount as f64;
                let units = bucket.units(tokens) as f64;
                assert!(units >= exact * 0.999_999_9, "{amount} {tokens}");
                assert!(units <= exact * 1.001 + 1.0, "{amount} {tokens}");
                assert!(bucket.units_back(tokens) <= bucket.units(tokens));
            }
        }
    }

    #[test]
    fn bursts_of_hours_at_high_rates_stay_within_a_word() {
        const DAY: u64 = 86_400;
        for rate in [33_333_333_333, 70_000_000, 99_999_999_999] {
            let bucket = Bucket::new(rate, SECOND, rate * DAY, 131_072).unwrap();
            let at = now(1000 * SECOND);
            assert!(bucket.can_give(0, at, bucket.units(rate * DAY)), "{rate}");
            let half = at.units() + bucket.units(rate * DAY / 2);
            let same = bucket.converted(&bucket, half, at);
            assert!(half.abs_diff(same) <= 2 * bucket.cost, "{rate}");
        }
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        assert_eq!(Bucket::new(0, SECOND, 1, 0), None);
        assert_eq!(Bucket::new(1, SECOND, 0, 0), None);
        assert_eq!(Bucket::new(1, 3600 * SECOND, 100_000_000, 0), None);
        assert!(Bucket::new(1, 3600 * SECOND, 8760, 0).is_some());
    }

    #[test]
    fn a_new_rate_keeps_the_tokens() {
        let old = Bucket::new(10, SECOND, 100, 0).unwrap();
        let at = now(1000 * SECOND);
        let arrival = at.units() + old.units(70);
        for (new, tokens) in [
            (Bucket::new(1000, SECOND, 1000, 0).unwrap(), 30),
            (Bucket::new(1, SECOND, 20, 0).unwrap(), 20),
        ] {
            let arrival = new.converted(&old, arrival, at);
            assert!(new.can_give(arrival, at, new.units(tokens)));
            assert!(!new.can_give(arrival, at, new.units(tokens + 1)));
        }
    }

    /// An empty bucket holds nothing a moment later either, however often its
    /// budget changes.
    #[test]
    fn a_new_rate_gives_nothing() {
        for (amount, per) in [(1, 3600 * SECOND), (7, SECOND), (1_000_003, SECOND)] {
            let buckets = [3, 5].map(|burst| Bucket::new(amount, per, burst, 0).unwrap());
            let at = now(1000 * SECOND);
            // Almost the whole of a token is there.
            for missing in [1, buckets[0].units(1) / 2, buckets[0].units(1) - 1] {
                let full = at.units() + buckets[0].units(2) + missing;
                let mut arrival = full;
                for round in 0..100 {
                    let [old, new] = [buckets[round % 2], buckets[(round + 1) % 2]];
                    arrival = new.converted(&old, arrival, at);
                    assert!(
                        !new.can_give(arrival, at, new.units(1)),
                        "{amount} {missing}"
                    );
                }
                // And next to nothing is lost.
                let lost = 100 * ((buckets[0].cost >> 16) + 2);
                let bound = full + lost;
                assert!((full..=bound).contains(&arrival), "{amount} {missing}");
            }
        }
    }
}
