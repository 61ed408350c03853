//! The kernel's jiffies, seen from user space.

use super::{error::Error, object::Object};
use std::time::Duration;

/// Jiffies a second that kernels are built with.
const RATES: [u64; 4] = [100, 250, 300, 1_000];

/// Long enough to tell the rates apart: 250 and 300 a second differ by three
/// in this time, and a reading is off by at most one.
const CALIBRATION: Duration = Duration::from_millis(70);

/// The step of the packet path's clock, and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds in a step.
    pub step_ns: u64,
}

/// Both of the kernel's clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) step: u64,
    pub(super) ns: u64,
}

impl Clock {
    /// Finds out how long a jiffy is, by watching some go by.
    pub(super) fn calibrate(object: &Object) -> Result<Self, Error> {
        let first = object.read_clock()?;
        std::thread::sleep(CALIBRATION);
        let second = object.read_clock()?;
        // The kernel's own clock, which stands still where ours would not.
        let elapsed_ns = (second.ns - first.ns).max(1);
        let steps = second.step - first.step;
        let rate = RATES
            .into_iter()
            .min_by_key(|rate| (rate * elapsed_ns / 1_000_000_000).abs_diff(steps))
            .unwrap_or(250);
        Ok(Self {
            step_ns: 1_000_000_000 / rate,
        })
    }

    /// Steps in `duration`, rounded up.
    pub(super) fn steps(self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos().div_ceil(self.step_ns.into())).unwrap_or(u64::MAX >> 1)
    }

    /// The time that `steps` take.
    pub(super) fn duration(self, steps: u64) -> Duration {
        Duration::from_nanos(steps.saturating_mul(self.step_ns))
    }
}
