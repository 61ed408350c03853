//! XDP programs of the test rig: a sender of many sources, a sink, and what
//! the bench measures limiter against.
#![no_std]
#![no_main]

mod bench;

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE,
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
    },
    btf_maps::{Array, PerCpuArray},
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Where the varied word of a source address is: all of an IPv4 source, the
/// second word of an IPv6 source. Frames carry no VLAN tags.
const SOURCE: usize = 26;
/// Where the first word of an IPv6 source is.
const IPV6_SOURCE: usize = 22;
/// Where the checksum of an IPv4 header is.
const IPV4_CHECKSUM: usize = 24;
const IPV4: u16 = 0x0800;

/// How many sources there are; 0: 2³².
#[unsafe(no_mangle)]
static SOURCES: u32 = 1;
/// 1: drawn at random; 0: one after the other.
#[unsafe(no_mangle)]
static RANDOM: u32 = 0;
/// The first source, where none are listed.
#[unsafe(no_mangle)]
static FIRST: u32 = 0;
/// 1: the sources are those in `LISTED`.
#[unsafe(no_mangle)]
static USE_LISTED: u32 = 0;
/// 1: the first word of an IPv6 source is drawn too, so that it is any /64 of
/// 2000::/3.
#[unsafe(no_mangle)]
static ANY_GLOBAL: u32 = 0;
/// Where the transport checksum is; 0: nowhere.
#[unsafe(no_mangle)]
static TRANSPORT_CHECKSUM: u32 = 0;

/// Sources as 32-bit words, host order.
#[btf_map]
static LISTED: Array<u32, 4096, { BPF_F_MMAPABLE as usize }> = Array::new();
/// What a flood still has to do; it runs on one CPU at a time.
#[btf_map]
static ORDERS: Array<Orders, 1> = Array::new();
/// Frames that reached the sink, on each CPU.
#[btf_map]
static SUNK: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Four words, which the sender sets as such.
#[repr(C)]
struct Orders {
    /// Frames to send.
    frames: u64,
    /// Time between two; 0: none.
    interval_ns: u64,
    /// When the next may be sent, in the time of `bpf_ktime_get_ns`.
    due_ns: u64,
    /// The number of the next source.
    next: u64,
}

/// Frames that are sent together: each time the receiver is woken costs it
/// several microseconds.
const BURST: u64 = 64;
/// How far behind its pace a flood may be and still make up for it: less than
/// fills the ring of a veth (256 frames) at a million and a half a second.
const LATE_NS: u64 = 100_000;

macro_rules! setting {
    ($name:ident) => {
        // SAFETY: a global of the object, set before it is loaded; volatile,
        // or the compiler would fold the default in.
        unsafe { core::ptr::read_volatile(&$name) }
    };
}

/// Gives the frame another source and sends it back out, when it is time.
#[xdp]
pub fn flood(ctx: XdpContext) -> u32 {
    let Some(orders) = ORDERS.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: the program runs on one CPU at a time.
    let orders = unsafe { &mut *orders };
    if !orders.allow() {
        return XDP_DROP;
    }
    match vary(&ctx, &mut orders.next) {
        Some(()) => XDP_TX,
        None => XDP_ABORTED,
    }
}

impl Orders {
    /// Whether a frame is to be sent now.
    #[inline(always)]
    fn allow(&mut self) -> bool {
        if self.frames == 0 {
            return false;
        }
        if self.interval_ns != 0 && self.frames.is_multiple_of(BURST) {
            // SAFETY: no arguments, no effects.
            let now_ns = unsafe { bpf_ktime_get_ns() };
            if now_ns < self.due_ns {
                return false;
            }
            self.due_ns = self.due_ns.max(now_ns - LATE_NS) + self.interval_ns * BURST;
        }
        self.frames -= 1;
        true
    }
}

/// Counts the frame and drops it.
#[xdp]
pub fn sink(_ctx: XdpContext) -> u32 {
    if let Some(count) = SUNK.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe { *count += 1 };
    }
    XDP_DROP
}

/// Puts the next source into the frame and mends its checksums.
#[inline(always)]
fn vary(ctx: &XdpContext, next: &mut u64) -> Option<()> {
    let source = next_source(next)?;
    let old = read32(ctx, SOURCE)?;
    write32(ctx, SOURCE, source)?;
    if read16(ctx, 12)? == IPV4 {
        mend(ctx, IPV4_CHECKSUM, old, source)?;
    }
    mend_transport(ctx, old, source)?;
    if setting!(ANY_GLOBAL) != 0 {
        // SAFETY: no arguments, no effects.
        let drawn = unsafe { bpf_get_prandom_u32() };
        let first = 1 << 29 | drawn >> 3;
        let old = read32(ctx, IPV6_SOURCE)?;
        write32(ctx, IPV6_SOURCE, first)?;
        mend_transport(ctx, old, first)?;
    }
    Some(())
}

/// Adjusts the transport checksum to a word of the source that changed.
#[inline(always)]
fn mend_transport(ctx: &XdpContext, old: u32, source: u32) -> Option<()> {
    // Literal offsets: UDP and TCP behind IPv4, then behind IPv6.
    match setting!(TRANSPORT_CHECKSUM) {
        40 => mend(ctx, 40, old, source),
        50 => mend(ctx, 50, old, source),
        60 => mend(ctx, 60, old, source),
        70 => mend(ctx, 70, old, source),
        _ => Some(()),
    }
}

#[inline(always)]
fn next_source(next: &mut u64) -> Option<u32> {
    let number = if setting!(RANDOM) != 0 {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_get_prandom_u32() }
    } else {
        let number = *next as u32;
        *next = next.wrapping_add(1);
        number
    };
    let sources = setting!(SOURCES);
    let index = if sources == 0 {
        number
    } else {
        number % sources
    };
    if setting!(USE_LISTED) != 0 {
        LISTED.get(index).copied()
    } else {
        Some(setting!(FIRST).wrapping_add(index))
    }
}

/// Adjusts the checksum at `at` to a word that changed (RFC 1624, equation 3).
#[inline(always)]
fn mend(ctx: &XdpContext, at: usize, old: u32, new: u32) -> Option<()> {
    let mut sum = u32::from(!read16(ctx, at)?);
    sum += (!old >> 16) + (!old & 0xffff) + (new >> 16) + (new & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let pointer = at_offset::<2>(ctx, at)?.cast::<u16>();
    // SAFETY: inside the frame, as `at_offset` checked.
    unsafe { *pointer = (!(sum as u16)).to_be() };
    Some(())
}

#[inline(always)]
fn at_offset<const N: usize>(ctx: &XdpContext, at: usize) -> Option<*mut u8> {
    let start = ctx.data() + at;
    (start + N <= ctx.data_end()).then_some(start as *mut u8)
}

#[inline(always)]
fn read16(ctx: &XdpContext, at: usize) -> Option<u16> {
    let pointer = at_offset::<2>(ctx, at)?.cast::<u16>();
    // SAFETY: inside the frame, as `at_offset` checked.
    Some(u16::from_be(unsafe { *pointer }))
}

#[inline(always)]
fn read32(ctx: &XdpContext, at: usize) -> Option<u32> {
    let pointer = at_offset::<4>(ctx, at)?.cast::<u32>();
    // SAFETY: inside the frame, as `at_offset` checked.
    Some(u32::from_be(unsafe { *pointer }))
}

#[inline(always)]
fn write32(ctx: &XdpContext, at: usize, value: u32) -> Option<()> {
    let pointer = at_offset::<4>(ctx, at)?.cast::<u32>();
    // SAFETY: inside the frame, as `at_offset` checked.
    unsafe { *pointer = value.to_be() };
    Some(())
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
