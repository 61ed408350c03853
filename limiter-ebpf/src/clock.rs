//! The clock of the packet path.

use crate::maps;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use limiter_common::time::Time;

/// Bucket units in a clock step; set when the program is loaded.
#[unsafe(no_mangle)]
static STEP_UNITS: u64 = 128_000_000;

/// 1: the step is what a test wrote, not jiffies.
#[unsafe(no_mangle)]
static TEST_CLOCK: u32 = 0;

/// What the kernel's clocks show.
#[derive(Clone, Copy)]
pub struct Reading {
    /// Jiffies.
    pub step: u64,
    /// `CLOCK_MONOTONIC`.
    pub ns: u64,
}

/// The instant at which this packet is judged.
#[inline(always)]
pub fn now() -> Time {
    // SAFETY: as in `at`.
    let test = unsafe { core::ptr::read_volatile(&TEST_CLOCK) };
    let step = if test != 0 {
        maps::test_step()
    } else {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_jiffies64() }
    };
    at(step)
}

/// The instant of a clock step.
#[inline(always)]
pub fn at(step: u64) -> Time {
    // SAFETY: a global of the object, read as a value that is set before the
    // program is loaded; volatile, or the compiler would fold the default in.
    Time::new(step, unsafe { core::ptr::read_volatile(&STEP_UNITS) })
}

/// Both clocks at once, for the control plane.
#[inline(always)]
pub fn read() -> Reading {
    // SAFETY: no arguments, no effects.
    let step = unsafe { bpf_jiffies64() };
    // SAFETY: as above.
    let ns = unsafe { bpf_ktime_get_ns() };
    Reading { step, ns }
}
