//! The XDP program: packet pointers, maps and the clock. The verdict itself is
//! made in `limiter_common::judge`.
#![no_std]
#![no_main]

mod capture;
mod clock;
mod frame;
mod maps;
mod memo;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use frame::XdpFrame;
use limiter_common::{judge::judge, verdict::Action};
use maps::Maps;

/// Judges a frame, counts it once, lays a sample aside if somebody wants one, and
/// returns what becomes of it.
#[xdp(frags)]
pub fn limiter(ctx: XdpContext) -> u32 {
    let now = clock::now();
    let maps = Maps::new(&ctx, now);
    let verdict = judge(&mut XdpFrame::new(&ctx), now, &maps);
    maps.count(verdict);
    capture::offer(&ctx, verdict);
    maps::trace(&ctx, verdict);
    match verdict.outcome.action() {
        Action::Pass | Action::WouldDrop => XDP_PASS,
        Action::Drop => XDP_DROP,
    }
}

/// Tells user space what the kernel's clock shows: run on request, never
/// attached.
#[xdp]
pub fn clock(_ctx: XdpContext) -> u32 {
    maps::publish_clock(clock::read());
    XDP_PASS
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that nothing gets here: an endless loop would not
    // load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
