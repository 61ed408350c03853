//! A limit's ceiling over all sources together.

use crate::{
    atomic::Word,
    bucket::Bucket,
    entry::{Tokens, advance},
    time::Time,
};

/// The state of one limit's ceiling: arrival times
/// in the order of [`crate::layout::Limit::total`]. Zero is full.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Total {
    arrivals: [Word; 3],
    reserved: [u64; 5],
}
const _: () = assert!(size_of::<Total>() == 64);

impl Total {
    /// Charges every bucket, or none; true if all could give.
    #[inline(always)]
    pub fn charge(&self, buckets: &[Bucket; 3], now: Time, cost: Tokens) -> bool {
        let tokens = cost.fields();
        let mut charged = 0;
        while charged < buckets.len() {
            let bucket = &buckets[charged];
            let arrival = &self.arrivals[charged];
            if bucket.exists() && tokens[charged] != 0 {
                let units = bucket.units(tokens[charged]);
                // What a policy of before, or one that was tried, has left.
                let left = arrival.load();
                let bounded = bucket.bounded(left, now);
                if bounded != left {
                    let _ = arrival.replace(left, bounded);
                }
                // While it is empty its word is only read: all CPUs share it.
                if !bucket.can_give(arrival.load(), now, units)
                    || !advance(arrival, bucket, now, units)
                {
                    self.refund_first(charged, buckets, cost);
                    return false;
                }
            }
            charged += 1;
        }
        true
    }

    /// Takes a charge back: the packet did not pass after all.
    #[inline(always)]
    pub fn refund(&self, buckets: &[Bucket; 3], cost: Tokens) {
        self.refund_first(buckets.len(), buckets, cost);
    }

    #[inline(always)]
    fn refund_first(&self, count: usize, buckets: &[Bucket; 3], cost: Tokens) {
        let tokens = cost.fields();
        let mut i = 0;
        while i < buckets.len() {
            let bucket = &buckets[i];
            if i < count && bucket.exists() && tokens[i] != 0 {
                self.arrivals[i].fetch_add(bucket.units(tokens[i]).wrapping_neg());
            }
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another ceiling, under which it takes longer to be full, was in force.
    #[test]
    fn what_is_over_is_empty_and_no_more() {
        let now = Time::new(1_000_000, 128_000_000);
        let packets = |rate, per_ns, burst| {
            let bucket = Bucket::new(rate, per_ns, burst, 0).unwrap();
            [Bucket::NONE, bucket, Bucket::NONE]
        };
        let slow = packets(1_000, 3_600_000_000_000, 100_000);
        let fast = packets(1_000, 1_000_000_000, 1_000);
        let (total, one) = (Total::default(), Tokens::new(0, 1, 100));
        for _ in 0..60_000 {
            assert!(total.charge(&slow, now, one));
        }
        assert!(!total.charge(&fast, now, one));
        // A second's worth is a second away.
        let later = Time::new(1_000_000 + 250, 128_000_000);
        assert!((0..1_000).all(|_| total.charge(&fast, later, one)));
        assert!(!total.charge(&fast, later, one));
    }
}
