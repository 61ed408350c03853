//! Samples of refused packets, for `limiter capture`.

use crate::{clock, frame, maps};
use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, xdp_md},
    btf_maps::{Array, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
    programs::XdpContext,
};
use limiter_common::{
    sample::{FRAME_BYTES, Meter, REFUSALS, RING_BYTES, Sample, SampleHead, place},
    verdict::{Outcome, Verdict},
};

/// How many samples of each refusal are taken.
#[btf_map]
static METERS: Array<Meter, { REFUSALS as usize }> = Array::new();

/// What was taken and not yet read.
#[btf_map]
static SAMPLES: RingBuf<Sample, RING_BYTES> = RingBuf::new();

/// Takes a sample of a refused packet, if somebody wants one. A packet that
/// passes does not get to the question.
#[inline(always)]
pub fn offer(ctx: &XdpContext, verdict: Verdict) {
    if place(verdict.outcome).is_some() && maps::sampled().contain(verdict.outcome) {
        take_sample(ctx.ctx, verdict.outcome.index(), verdict.limit);
    }
}

/// Writes a sample, unless there were enough of this refusal just now or nobody
/// reads them: 1 if it did.
///
/// A global function: the verifier follows it once, not once for each way that
/// leads to a refusal.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_sample(ctx: *mut xdp_md, outcome: u32, limit: u32) -> u32 {
    let place = Outcome::from_index(outcome).and_then(place);
    let Some(meter) = place.and_then(|place| METERS.get(place)) else {
        return 0;
    };
    if !meter.admits(clock::now().step()) {
        return 0;
    }
    let length = frame::length(ctx);
    let captured = length.min(FRAME_BYTES);
    if captured == 0 {
        return 0;
    }
    let head = SampleHead {
        // SAFETY: no arguments, no effects.
        ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: the context is the one the kernel passed.
        interface: unsafe { (*ctx).ingress_ifindex },
        limit,
        outcome,
        length: length as u32,
        captured: captured as u32,
        reserved: 0,
    };
    let Some(mut entry) = SAMPLES.reserve(0) else {
        return 0;
    };
    let sample = entry.as_mut_ptr();
    // SAFETY: all of the sample was reserved.
    unsafe { (&raw mut (*sample).head).write(head) };
    // SAFETY: as above.
    let frame = unsafe { &raw mut (*sample).frame };
    // SAFETY: `captured` is no more than there is room for.
    let is_whole = unsafe { frame::copy_start(ctx, frame.cast(), captured) };
    if !is_whole {
        entry.discard(0);
        return 0;
    }
    // Whoever wants samples comes to look.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    1
}
