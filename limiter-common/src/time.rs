//! Time as the packet path sees it: steps of the kernel's clock.

/// Units of bucket time in a nanosecond.
///
/// 2⁻⁵ ns resolves 100 million packets a second (320 units apart) and lets a
/// `u64` reach 18 years, of which the kernel's start value of the jiffies
/// counter takes up to 1.4 and the longest bucket one.
pub const UNITS_PER_NS: u64 = 32;

/// An instant: a count of clock steps (in the kernel: jiffies), and the same
/// instant in bucket units.
///
/// Jiffies cost nothing to read where `bpf_ktime_get_ns` costs 33 ns a packet;
/// the price is that time moves in steps of up to 4 ms (at `HZ=250`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    step: u64,
    units: u64,
}

impl Time {
    /// The instant `step` on a clock with `step_units` bucket units a step.
    #[inline(always)]
    pub const fn new(step: u64, step_units: u64) -> Self {
        Self {
            step,
            units: step.wrapping_mul(step_units),
        }
    }

    /// The count of clock steps.
    #[inline(always)]
    pub const fn step(self) -> u64 {
        self.step
    }

    /// The instant in units of 1/[`UNITS_PER_NS`] ns.
    #[inline(always)]
    pub const fn units(self) -> u64 {
        self.units
    }
}
