//! How much of something may come in a second.

use std::time::Instant;

/// A bucket of so many, full at first, refilled at a steady rate.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl Rate {
    pub(super) const fn new(per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            at: None,
        }
    }

    /// How many of these may come now.
    pub(super) fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let since = self
            .at
            .replace(now)
            .map(|at| now.saturating_duration_since(at));
        let refill = since.map_or(0.0, |since| since.as_secs_f64() * self.per_second);
        self.tokens = (self.tokens + refill).min(self.burst);
        let taken = (wanted as f64).min(self.tokens.floor());
        self.tokens -= taken;
        taken as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let begin = Instant::now();
        let mut rate = Rate::new(100.0, 10.0);
        assert_eq!(rate.take(4, begin), 4);
        assert_eq!(rate.take(9, begin), 6);
        assert_eq!(rate.take(9, begin), 0);
        assert_eq!(rate.take(9, begin + Duration::from_millis(50)), 5);
        assert_eq!(rate.take(99, begin + Duration::from_secs(9)), 10);
    }
}
