//! Packet memory: the only module that dereferences it.

use aya_ebpf::{
    bindings::xdp_md,
    btf_maps::PerCpuArray,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use limiter_common::packet::{Frame, Header};

/// The longest header that is read at once: IPv6's.
const HEADER_MAX: usize = 40;

/// Offsets stay below this: what the verifier allows to be added to a packet
/// pointer.
const OFFSET_MAX: usize = 0x7fff;

/// The frame that the program was called for.
///
/// Most frames lie in one piece. Where a driver hands over the first bytes
/// elsewhere (some leave the linear part empty), they are copied to [`SCRATCH`].
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

/// Holds one header; each CPU has its own. On the stack it would take too much.
#[btf_map]
static SCRATCH: PerCpuArray<[u8; HEADER_MAX], 1> = PerCpuArray::new();

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub const fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Reads `N` bytes wherever they are.
    #[inline(always)]
    fn copy<const N: usize>(&self, offset: usize) -> Option<*const u8> {
        const { assert!(N <= HEADER_MAX) };
        let buffer = SCRATCH.get_ptr_mut(0)?.cast::<u8>();
        // SAFETY: the buffer holds `N` bytes, is this CPU's own, and of the header
        // before nothing is read any more; the helper checks the offset.
        let status =
            unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset as u32, buffer.cast(), N as u32) };
        (status == 0).then_some(buffer.cast_const())
    }
}

impl Frame for XdpFrame<'_> {
    type Header<'a, const N: usize>
        = Bytes<N>
    where
        Self: 'a;

    #[inline(always)]
    fn header<const N: usize>(&mut self, offset: usize) -> Option<Bytes<N>> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = self.ctx.data() + offset;
        if start + N <= self.ctx.data_end() {
            return Some(Bytes(start as *const u8));
        }
        self.copy::<N>(offset).map(Bytes)
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        // The length over all fragments costs a call: only where the linear
        // part does not answer.
        end <= self.ctx.data_end() - self.ctx.data() || end <= self.length()
    }

    #[inline(always)]
    fn length(&self) -> usize {
        length(self.ctx.ctx)
    }
}

/// Bytes of the frame that a context stands for, over all fragments.
#[inline(always)]
pub fn length(ctx: *mut xdp_md) -> usize {
    // SAFETY: callers have the context from the kernel.
    unsafe { bpf_xdp_get_buff_len(ctx) as usize }
}

/// Copies the frame's first `length` bytes, wherever they are; false if there
/// are not so many.
///
/// # Safety
///
/// There is room for them behind `to`.
#[inline(always)]
pub unsafe fn copy_start(ctx: *mut xdp_md, to: *mut u8, length: usize) -> bool {
    // SAFETY: as the caller says; the helper checks the frame's end.
    unsafe { bpf_xdp_load_bytes(ctx, 0, to.cast(), length as u32) == 0 }
}

/// `N` bytes that were checked to be there.
#[derive(Clone, Copy)]
pub struct Bytes<const N: usize>(*const u8);

impl<const N: usize> Header<N> for Bytes<N> {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N) };
        // SAFETY: `AT` is inside the `N` bytes that `header` checked.
        unsafe { *self.0.add(AT) }
    }

    #[inline(always)]
    fn be16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N) };
        // SAFETY: inside the checked bytes. BPF loads need no alignment where
        // the kernel has efficient unaligned access, and headers behind an
        // Ethernet header are 2-aligned everywhere else.
        u16::from_be(unsafe { *self.0.add(AT).cast::<u16>() })
    }

    #[inline(always)]
    fn be32<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N) };
        // SAFETY: as for `be16`.
        u32::from_be(unsafe { *self.0.add(AT).cast::<u32>() })
    }
}
