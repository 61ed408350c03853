//! The sliding log: exact.

use super::Standing;

/// Counts the events younger than `period_ns`: half open, one of exactly that age
/// no longer counts. It keeps the times of the last `room`, which is all it takes
/// to tell whether `limit` of them count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    limit: usize,
    period_ns: u64,
    room: usize,
}

const TIMES: usize = 1;

impl Log {
    /// A log that is over at `limit` events, at least 1. It has room for `room` of
    /// them, so that steps of a ladder can share a state.
    #[must_use]
    pub fn new(limit: u64, period_ns: u64, room: u64) -> Self {
        let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX / 16);
        let room = usize::try_from(room).unwrap_or(usize::MAX / 16);
        Self {
            limit,
            period_ns,
            room: room.max(limit),
        }
    }

    /// Words of a state: where the next time goes and how many there are, then the
    /// times in a ring.
    #[must_use]
    pub const fn words(&self) -> usize {
        TIMES + self.room
    }

    pub(super) fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        let counted = self.counted(state, now_ns);
        let taken = (counted as u64).saturating_add(reserved);
        let limit = self.limit as u64;
        let end = |back| self.nth_ns(state, back).saturating_add(self.period_ns);
        Standing {
            over: taken >= limit,
            until_ns: if counted >= self.limit {
                end(self.limit)
            } else {
                0
            },
            delay_ns: 0,
            remaining: limit.saturating_sub(taken),
            reset_ns: if counted == 0 { 0 } else { end(1) },
        }
    }

    pub(super) fn add(&self, state: &mut [u64], now_ns: u64, events: u64) {
        let (next, held) = unpack(state);
        let time_ns = match held {
            0 => now_ns,
            _ => now_ns.max(self.nth_ns(state, 1)),
        };
        let events = usize::try_from(events).unwrap_or(self.room).min(self.room);
        for step in 0..events {
            state[TIMES + (next + step) % self.room] = time_ns;
        }
        pack(
            state,
            (next + events) % self.room,
            (held + events).min(self.room),
        );
    }

    pub(super) fn halve(&self, state: &mut [u64], now_ns: u64) {
        let kept = self.counted(state, now_ns) / 2;
        let (next, _) = unpack(state);
        pack(state, next, kept);
    }

    /// How many count, `room` at most.
    fn counted(&self, state: &[u64], now_ns: u64) -> usize {
        let (_, held) = unpack(state);
        let counts = |back: usize| now_ns.saturating_sub(self.nth_ns(state, back)) < self.period_ns;
        if held == 0 || !counts(1) {
            return 0;
        }
        let (mut counted, mut expired) = (1, held + 1);
        if counts(held) {
            return held;
        }
        while expired - counted > 1 {
            let middle = counted.midpoint(expired);
            if counts(middle) {
                counted = middle;
            } else {
                expired = middle;
            }
        }
        counted
    }

    /// The time of the event that is the `back`th from the latest, which is the first.
    fn nth_ns(&self, state: &[u64], back: usize) -> u64 {
        let (next, _) = unpack(state);
        state[TIMES + (next + self.room - back) % self.room]
    }
}

fn unpack(state: &[u64]) -> (usize, usize) {
    ((state[0] >> 32) as usize, (state[0] & 0xffff_ffff) as usize)
}

fn pack(state: &mut [u64], next: usize, held: usize) {
    state[0] = (next as u64) << 32 | held as u64;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(limit: u64, period_ns: u64) -> (Log, Vec<u64>) {
        let log = Log::new(limit, period_ns, limit);
        (log, vec![0; log.words()])
    }

    #[test]
    fn it_is_over_at_the_limit_and_not_before() {
        let (log, mut state) = log(3, 100);
        for count in 0..3 {
            let standing = log.judge(&state, 10, 0);
            assert!(!standing.over);
            assert_eq!(standing.remaining, 3 - count);
            log.add(&mut state, 10, 1);
        }
        let standing = log.judge(&state, 10, 0);
        assert!(standing.over);
        assert_eq!((standing.remaining, standing.until_ns), (0, 110));
    }

    #[test]
    fn an_event_of_exactly_the_period_no_longer_counts() {
        let (log, mut state) = log(1, 100);
        log.add(&mut state, 10, 1);
        assert!(log.judge(&state, 109, 0).over);
        assert!(!log.judge(&state, 110, 0).over);
    }

    #[test]
    fn reserved_events_count_like_others() {
        let (log, mut state) = log(3, 100);
        log.add(&mut state, 0, 1);
        assert!(!log.judge(&state, 0, 1).over);
        assert!(log.judge(&state, 0, 2).over);
    }

    #[test]
    fn a_time_that_runs_backwards_is_the_latest_one() {
        let (log, mut state) = log(2, 100);
        log.add(&mut state, 500, 1);
        log.add(&mut state, 400, 1);
        assert!(log.judge(&state, 599, 0).over);
        assert!(!log.judge(&state, 600, 0).over);
    }

    #[test]
    fn half_of_five_leaves_the_two_latest() {
        let (log, mut state) = log(5, 100);
        for time_ns in 1..=5 {
            log.add(&mut state, time_ns, 1);
        }
        log.halve(&mut state, 5);
        assert_eq!(log.judge(&state, 5, 0).remaining, 3);
        assert_eq!(log.judge(&state, 104, 0).remaining, 4);
    }

    proptest! {
        #[test]
        fn like_a_list_of_all_events(
            limit in 1_u64..9,
            extra in 0_u64..5,
            steps in proptest::collection::vec((0_u64..60, 0_u64..4, 0_u64..3), 1..120),
        ) {
            let log = Log::new(limit, 100, limit + extra);
            let mut state = vec![0; log.words()];
            let (mut all, mut now_ns) = (Vec::new(), 1_000);
            for (wait, events, reserved) in steps {
                now_ns += wait;
                let counted = all.iter().filter(|at| now_ns - **at < 100).count() as u64;
                let standing = log.judge(&state, now_ns, reserved);
                prop_assert_eq!(standing.over, counted + reserved >= limit);
                prop_assert_eq!(standing.remaining, limit.saturating_sub(counted + reserved));
                if standing.until_ns > now_ns {
                    prop_assert!(log.judge(&state, standing.until_ns - 1, 0).over);
                    prop_assert!(!log.judge(&state, standing.until_ns, 0).over);
                }
                for _ in 0..events {
                    all.push(now_ns);
                }
                log.add(&mut state, now_ns, events);
            }
        }
    }
}
