//! The token bucket: exact.

use super::Standing;

/// Admits `capacity` events at once and `amount` more in every `per_ns`
/// nanoseconds. nginx's `limit_req` admits 1 + burst, Traefik's middleware burst:
/// whoever makes the bucket says which.
///
/// A state is the debt, in parts of an event: an event is `per_ns` of them, and
/// `amount` are paid back in each nanosecond, so nothing is ever rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    amount: u64,
    per_ns: u64,
    capacity: u64,
    /// Events beyond the first that need not wait; `None`: none waits.
    undelayed: Option<u64>,
}

impl Bucket {
    /// A bucket of a rate and a capacity, each at least 1. With `undelayed`, events
    /// that come faster than the rate wait until it has caught up to so many, as
    /// with nginx's `delay`.
    #[must_use]
    pub fn new(amount: u64, per_ns: u64, capacity: u64, undelayed: Option<u64>) -> Self {
        Self {
            amount: amount.max(1),
            per_ns: per_ns.max(1),
            capacity: capacity.max(1),
            undelayed,
        }
    }

    /// Words of a state: the time of the debt, and the debt.
    #[must_use]
    pub const fn words(&self) -> usize {
        3
    }

    pub(super) fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        let debt = self.debt(state, now_ns);
        let event = u128::from(self.per_ns);
        let room = (event * u128::from(self.capacity))
            .saturating_sub(debt)
            .saturating_sub(event.saturating_mul(u128::from(reserved)));
        let over = room < event;
        let brim = event * u128::from(self.capacity - 1);
        let free = event * u128::from(self.undelayed.unwrap_or(u64::MAX));
        Standing {
            over,
            until_ns: self.paid_ns(debt.saturating_sub(brim), now_ns),
            delay_ns: match over {
                true => 0,
                false => self.paid_ns(debt.saturating_sub(free), now_ns) - now_ns,
            },
            remaining: u64::try_from(room / event).unwrap_or(u64::MAX),
            reset_ns: self.paid_ns(debt, now_ns),
        }
    }

    pub(super) fn add(&self, state: &mut [u64], now_ns: u64, events: u64) {
        let debt = self.debt(state, now_ns) + u128::from(self.per_ns) * u128::from(events);
        // What the bucket cannot hold spills.
        let most = u128::from(self.per_ns) * u128::from(self.capacity);
        put(state, now_ns, debt.min(most));
    }

    pub(super) fn halve(&self, state: &mut [u64], now_ns: u64) {
        let debt = self.debt(state, now_ns) / 2;
        put(state, now_ns, debt);
    }

    fn debt(&self, state: &[u64], now_ns: u64) -> u128 {
        let debt = u128::from(state[1]) << 64 | u128::from(state[2]);
        let paid = u128::from(now_ns.saturating_sub(state[0])) * u128::from(self.amount);
        debt.saturating_sub(paid)
    }

    /// When so much will have been paid back, rounded up.
    fn paid_ns(&self, debt: u128, now_ns: u64) -> u64 {
        let wait = debt.div_ceil(u128::from(self.amount));
        now_ns.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

fn put(state: &mut [u64], now_ns: u64, debt: u128) {
    state[0] = state[0].max(now_ns);
    state[1] = (debt >> 64) as u64;
    state[2] = debt as u64;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// Events that pass of so many at once.
    fn at_once(bucket: Bucket, events: usize) -> usize {
        let mut state = [0; 3];
        (0..events)
            .filter(|_| {
                let passes = !bucket.judge(&state, 0, 0).over;
                if passes {
                    bucket.add(&mut state, 0, 1);
                }
                passes
            })
            .count()
    }

    #[test]
    fn it_admits_its_capacity_at_once() {
        assert_eq!(at_once(Bucket::new(10, SECOND_NS, 1 + 20, None), 50), 21);
        assert_eq!(at_once(Bucket::new(10, SECOND_NS, 20, None), 50), 20);
        assert_eq!(at_once(Bucket::new(1, SECOND_NS, 1, None), 50), 1);
    }

    #[test]
    fn it_admits_one_more_when_it_is_paid_and_not_before() {
        let bucket = Bucket::new(3, SECOND_NS, 1, None);
        let mut state = [0; 3];
        bucket.add(&mut state, 0, 1);
        let standing = bucket.judge(&state, 0, 0);
        assert_eq!(standing.until_ns, 333_333_334);
        assert!(bucket.judge(&state, 333_333_333, 0).over);
        assert!(!bucket.judge(&state, 333_333_334, 0).over);
    }

    #[test]
    fn excess_waits_until_the_rate_has_caught_up() {
        // nginx: rate=10r/s burst=3 delay=1.
        let bucket = Bucket::new(10, SECOND_NS, 4, Some(1));
        let mut state = [0; 3];
        let mut delays = Vec::new();
        while !bucket.judge(&state, 0, 0).over {
            delays.push(bucket.judge(&state, 0, 0).delay_ns / 1_000_000);
            bucket.add(&mut state, 0, 1);
        }
        assert_eq!(delays, [0, 0, 100, 200]);
    }

    proptest! {
        #[test]
        fn never_more_than_capacity_and_rate(
            amount in 1_u64..50, per_ns in 1_u64..1_000, capacity in 1_u64..20,
            waits in proptest::collection::vec(0_u64..100, 1..200),
        ) {
            let bucket = Bucket::new(amount, per_ns, capacity, None);
            let mut state = [0; 3];
            let (mut admitted, mut now_ns) = (Vec::<u64>::new(), 1_000_000);
            for wait in waits {
                now_ns += wait;
                let standing = bucket.judge(&state, now_ns, 0);
                let conforms = |times: &[u64]| times.iter().enumerate().all(|(earlier, from)| {
                    let events = (times.len() - earlier) as u64;
                    events * per_ns <= capacity * per_ns + (now_ns - from) * amount
                });
                let mut with_this = admitted.clone();
                with_this.push(now_ns);
                prop_assert_eq!(!standing.over, conforms(&with_this));
                if standing.over {
                    prop_assert!(bucket.judge(&state, standing.until_ns - 1, 0).over);
                    prop_assert!(!bucket.judge(&state, standing.until_ns, 0).over);
                } else {
                    bucket.add(&mut state, now_ns, 1);
                    admitted = with_this;
                }
            }
        }
    }
}
