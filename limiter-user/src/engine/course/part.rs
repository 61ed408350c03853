//! One tier or rung over the state of a key.

use super::nanos;
use crate::engine::count::{Bucket, Counter, Distinct, Fixed, Log, Standing, Window};
use crate::policy::{self, Action, Algorithm, Count, Effect};

/// A tier or rung at work.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Part {
    pub(super) counter: Counter,
    /// How many pass.
    pub(super) limit: u64,
    /// For how long an event counts.
    pub(in crate::engine) period_ns: u64,
    pub(in crate::engine) effect: Effect,
    pub(in crate::engine) lasting_ns: Option<u64>,
    /// Where the counter's words stand.
    pub(super) at: usize,
    /// Where stand the end of its timed action and that of the challenge behind it.
    pub(super) until: usize,
    pub(super) then: usize,
}

/// Marks the end of an action that began while nothing was done: it is not done later either.
/// No real end is so late, in the year 2262.
pub(super) const DRY: u64 = 1 << 63;

impl Part {
    /// How long a request is to wait; only [`Action::Throttle`] makes it.
    pub(super) fn wait_ns(&self) -> u64 {
        match self.effect.action {
            Action::Throttle => self.effect.wait_ms.saturating_mul(1_000_000),
            _ => 0,
        }
    }

    /// When its timed action ends, done or not.
    pub(super) fn until_ns(&self, state: &[u64]) -> u64 {
        state[self.until] & !DRY
    }

    /// When what is done ends.
    pub(super) fn real_ns(&self, state: &[u64]) -> u64 {
        match self.is_dry(state) {
            true => 0,
            false => state[self.until],
        }
    }

    pub(super) fn is_dry(&self, state: &[u64]) -> bool {
        state[self.until] & DRY != 0
    }

    pub(super) fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        self.counter.judge(self.words(state), now_ns, reserved)
    }

    pub(super) fn logs(&self) -> bool {
        matches!(self.counter, Counter::Log(_))
    }

    pub(super) fn words<'a>(&self, state: &'a [u64]) -> &'a [u64] {
        &state[self.at..self.at + self.counter.words()]
    }

    pub(super) fn words_mut<'a>(&self, state: &'a mut [u64]) -> &'a mut [u64] {
        &mut state[self.at..self.at + self.counter.words()]
    }
}

pub(super) fn windowed(window: &policy::Window, count: &Count, room: u64) -> (Counter, u64, u64) {
    let (limit, period_ns) = (window.threshold(), nanos(window.period));
    let counter = match (count, window.algorithm) {
        (Count::Distinct(_), _) => Counter::Distinct(Distinct::new(limit, period_ns)),
        (_, Algorithm::SlidingLog) => Counter::Log(Log::new(limit, period_ns, room)),
        (_, Algorithm::SlidingWindow) => Counter::Window(Window::new(limit, period_ns)),
        (_, Algorithm::FixedWindow) => Counter::Fixed(Fixed::new(limit, period_ns)),
    };
    (counter, limit, period_ns)
}

pub(super) fn bucketed(bucket: &policy::TokenBucket) -> (Counter, u64, u64) {
    let rate = bucket.rate;
    // The first never waits: it is what the others wait for.
    let undelayed = bucket.delay.map(|delay| delay.saturating_sub(1));
    let counter = Bucket::new(rate.amount, rate.per_ns, bucket.burst, undelayed);
    let full_ns = u64::try_from(rate.time_for_ns(bucket.burst)).unwrap_or(u64::MAX);
    (Counter::Bucket(counter), bucket.burst, full_ns)
}
