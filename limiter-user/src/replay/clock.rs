//! The capture's own clock.

use crate::policy::CLOCK_STEP;
use limiter_common::time::{Time, UNITS_PER_NS};

/// Nanoseconds in a step of the clock: what `HZ=250` makes of the kernel's.
pub(super) const STEP_NS: u64 = CLOCK_STEP.as_nanos() as u64;

/// The longest capture: bucket time ends two years later.
const SPAN_MAX_NS: u64 = 16 * 365 * 86_400 * 1_000_000_000;

/// Turns the times of packets into steps since the first of them.
///
/// It never goes back: a packet older than one before it is judged at the
/// latest time there was, as it would have been where it was captured.
#[derive(Debug, Default)]
pub(super) struct CaptureClock {
    first_ns: Option<u64>,
    since_first_ns: u64,
    /// Packets older than one before them.
    pub(super) late: u64,
}

impl CaptureClock {
    /// When a packet captured at `at_ns` is judged; `None` if that is more
    /// than 16 years after the first.
    pub(super) fn now(&mut self, at_ns: Option<u64>) -> Option<Time> {
        if let Some(at_ns) = at_ns {
            let first_ns = *self.first_ns.get_or_insert(at_ns);
            match at_ns.checked_sub(first_ns) {
                Some(since) if since >= self.since_first_ns => self.since_first_ns = since,
                _ => self.late += 1,
            }
        }
        if self.since_first_ns > SPAN_MAX_NS {
            return None;
        }
        // Not from 0, at which a bucket that was never used would seem to have
        // been used just now.
        let step = 1 + self.since_first_ns / STEP_NS;
        Some(Time::new(step, STEP_NS * UNITS_PER_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_count_from_the_first_packet_and_never_back() {
        let start = 1_700_000_000_123_456_789;
        let mut clock = CaptureClock::default();
        for (after_ns, step, late) in [
            (0, 1, 0),
            (STEP_NS - 1, 1, 0),
            (STEP_NS, 2, 0),
            (10 * STEP_NS, 11, 0),
            (9 * STEP_NS, 11, 1),
            (10 * STEP_NS, 11, 1),
            (11 * STEP_NS, 12, 1),
        ] {
            let now = clock.now(Some(start + after_ns)).unwrap();
            assert_eq!((now.step(), clock.late), (step, late), "{after_ns}");
        }
        assert_eq!(clock.now(Some(start - 1)).unwrap().step(), 12);
        assert_eq!(clock.now(None).unwrap().step(), 12);
    }

    #[test]
    fn the_longest_capture_stays_within_bucket_time() {
        let mut clock = CaptureClock::default();
        assert!(clock.now(None).is_some());
        assert!(clock.now(Some(0)).is_some());
        let last = clock.now(Some(SPAN_MAX_NS)).unwrap();
        assert_eq!(last.units(), last.step() * STEP_NS * UNITS_PER_NS);
        let refill = limiter_common::bucket::REFILL_MAX_NS * UNITS_PER_NS;
        assert!(last.units().checked_add(refill).is_some());
        assert_eq!(clock.now(Some(SPAN_MAX_NS + 1)), None);
        assert_eq!(clock.now(Some(u64::MAX)), None);
    }
}
