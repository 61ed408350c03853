//! Programs that the bench measures beside limiter.
//!
//! Like limiter they take frames in fragments, which makes no difference to a
//! frame in one piece, but only such programs may call each other.

use crate::{IPV4, SOURCE, read16, read32, vary};
use aya_ebpf::{
    bindings::{
        BPF_NOEXIST,
        xdp_action::{XDP_ABORTED, XDP_PASS},
    },
    btf_maps::{LruPerCpuHashMap, PerCpuArray, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Packets by IPv4 source.
#[btf_map]
static COUNTED: LruPerCpuHashMap<u32, u64, 65536> = LruPerCpuHashMap::new();
/// A table of values of 64 bytes; section `memory` makes it as large as
/// limiter's.
#[btf_map]
static PLAIN: LruPerCpuHashMap<u32, [u64; 8], 1024> = LruPerCpuHashMap::new();
/// The program that [`rotate`] calls.
#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();
/// The number of the next source of [`rotate`].
#[btf_map]
static TURN: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The floor: reads Ethernet and IPv4, and passes.
#[xdp(frags)]
pub fn floor(ctx: XdpContext) -> u32 {
    match source(&ctx) {
        // Used, or the compiler would not read it.
        Some(0) | None => XDP_ABORTED,
        Some(_) => XDP_PASS,
    }
}

/// The least that a limiter does: reads Ethernet and IPv4, looks the source up,
/// counts, and passes.
#[xdp(frags)]
pub fn bare(ctx: XdpContext) -> u32 {
    let Some(source) = source(&ctx) else {
        return XDP_ABORTED;
    };
    match COUNTED.get_ptr_mut(source) {
        // SAFETY: this CPU's own value.
        Some(count) => unsafe { *count += 1 },
        None => {
            let _ = COUNTED.insert(source, 1, u64::from(BPF_NOEXIST));
        }
    }
    XDP_PASS
}

/// Gives the frame its next source and hands it to the program in `NEXT`.
#[xdp(frags)]
pub fn rotate(ctx: XdpContext) -> u32 {
    let Some(turn) = TURN.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: this CPU's own value.
    let turn = unsafe { &mut *turn };
    if vary(&ctx, turn).is_some() {
        // SAFETY: the context is the one the kernel passed.
        unsafe { NEXT.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

/// Where an IPv4 frame comes from.
#[inline(always)]
fn source(ctx: &XdpContext) -> Option<u32> {
    // 20 bytes of header at least, no options.
    let is_ipv4 = read16(ctx, 12)? == IPV4 && read16(ctx, 14)? >> 8 == 0x45;
    let source = read32(ctx, SOURCE)?;
    is_ipv4.then_some(source)
}
