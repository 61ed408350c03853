//! What aya does not offer of `bpf(2)`: maps in batches, links whose descriptor
//! one holds, pins.

mod link;
mod map;
mod pin;
mod table;
mod words;

pub(super) use link::{Link, LinkMode};
pub(super) use map::{Blobs, GracePeriod};
pub(super) use pin::{get, map_shape, pin};
pub(super) use table::Table;
pub(super) use words::Words;

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// A type of which every bit pattern is a value and that has no padding: what
/// may be copied from and to the kernel.
///
/// # Safety
///
/// As said: `#[repr(C)]` or `#[repr(transparent)]` over integers, no implicit
/// padding.
pub(super) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: integers only, sizes asserted where they are defined.
            unsafe impl Plain for $type {}
        )*
    };
}

/// The key of an LPM trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct TrieKey {
    pub(super) bits: u32,
    pub(super) data: [u8; 24],
}

plain!(
    u32,
    u64,
    TrieKey,
    limiter_common::block::Block,
    limiter_common::block::BlockKey,
    limiter_common::block::Lengths,
    limiter_common::class::Class,
    limiter_common::layout::Active,
    limiter_common::layout::EntryKey,
    limiter_common::layout::Former,
    limiter_common::layout::Interface,
    limiter_common::layout::Limit,
    limiter_common::layout::LimitSet,
    limiter_common::layout::Network,
    limiter_common::layout::Policy,
    limiter_common::layout::Tally,
    [u64; 8],
    [u64; 24],
);

/// `bpf(2)`.
fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is one of the structures of this module, whose pointers the
    // callers keep alive; the kernel checks everything else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for commands that answer with a new descriptor.
fn bpf_fd<A>(command: libc::c_long, attr: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes a map as `attr` says, a beginning of the call's structure.
pub(super) fn make_map<A>(attr: &mut A) -> io::Result<OwnedFd> {
    bpf_fd(MAP_CREATE, attr)
}

/// Loads a program, likewise.
pub(super) fn load_program<A>(attr: &mut A) -> io::Result<OwnedFd> {
    bpf_fd(PROG_LOAD, attr)
}

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `MAP_LOOKUP` or `MAP_UPDATE` of one element, key and value given by address.
fn element(command: libc::c_long, map: BorrowedFd<'_>, key: u64, value: u64) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        reserved: 0,
        key,
        value,
        flags: 0,
    };
    bpf(command, &mut attr).map(drop)
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>().expose_provenance() as u64
}
