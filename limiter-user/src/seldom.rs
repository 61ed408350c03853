//! Log lines that others can bring about: not as often as they like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says when a line of a kind is due again, and how many were left out since
/// the last one.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Seldom {
    /// At most one line in `every`.
    pub(crate) const fn new(every: Duration) -> Self {
        Self {
            every,
            last: Mutex::new(None),
        }
    }

    /// How many lines were left out before this one; `None`: so is this one.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        // Whole between any two statements.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((then, left_out)) if now.saturating_duration_since(*then) < self.every => {
                *left_out += 1;
                None
            }
            before => Some(before.replace((now, 0)).map_or(0, |(_, left_out)| left_out)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_its_time_says_how_many_were_left_out() {
        let seldom = Seldom::new(Duration::from_secs(1));
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(seldom.due(at(0)), Some(0));
        assert_eq!(seldom.due(at(1)), None);
        assert_eq!(seldom.due(at(999)), None);
        assert_eq!(seldom.due(at(1_000)), Some(2));
        assert_eq!(seldom.due(at(2_000)), Some(0));
    }
}
