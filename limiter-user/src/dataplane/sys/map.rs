//! Maps that the program never sees.

use super::{MAP_LOOKUP, MAP_UPDATE, Table, address, element, make_map};
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

#[repr(C)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    reserved: [u32; 4],
}

/// Waits until no packet is under way that began before.
///
/// Replacing the inner map of a map of maps makes the kernel wait for a grace
/// period (`maybe_wait_bpf_programs`), also where `membarrier(2)` refuses
/// (nohz_full).
#[derive(Debug)]
pub(in crate::dataplane) struct GracePeriod {
    outer: Table<u32, u32>,
    inner: OwnedFd,
}

impl GracePeriod {
    pub(in crate::dataplane) fn new() -> io::Result<Self> {
        let name = *b"limiter_grace\0\0\0";
        let inner = create(ARRAY, 4, 1, 0, name)?;
        let outer = create(ARRAY_OF_MAPS, 4, 1, inner.as_raw_fd() as u32, name)?;
        Ok(Self {
            outer: Table::new(outer),
            inner,
        })
    }

    pub(in crate::dataplane) fn wait(&self) -> io::Result<()> {
        self.outer.set(&0, &(self.inner.as_raw_fd() as u32))
    }
}

/// An array of a few large values, each written and read as a whole: one that is
/// being written when the process is killed is written.
#[derive(Debug)]
pub(in crate::dataplane) struct Blobs {
    fd: OwnedFd,
    bytes: usize,
}

impl Blobs {
    /// Makes one of `count` values, all zeros, named `name`.
    pub(in crate::dataplane) fn create(
        bytes: usize,
        count: u32,
        name: [u8; 16],
    ) -> io::Result<Self> {
        let fd = create(ARRAY, bytes as u32, count, 0, name)?;
        Ok(Self { fd, bytes })
    }

    /// The one behind `fd`, whose values are `bytes` long.
    pub(in crate::dataplane) const fn new(fd: OwnedFd, bytes: usize) -> Self {
        Self { fd, bytes }
    }

    pub(in crate::dataplane) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The value of `key`.
    pub(in crate::dataplane) fn get(&self, key: u32) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.bytes];
        let target = value.as_mut_ptr().expose_provenance() as u64;
        element(MAP_LOOKUP, self.fd(), address(&key), target)?;
        // Written by the kernel behind the compiler's back.
        std::hint::black_box(&mut value);
        Ok(value)
    }

    /// Replaces the value of `key`; what `value` lacks in length is zeros.
    ///
    /// # Errors
    ///
    /// `FileTooLarge` if it does not fit.
    pub(in crate::dataplane) fn set(&self, key: u32, mut value: Vec<u8>) -> io::Result<()> {
        // A zero is behind it.
        if value.len() >= self.bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        value.resize(self.bytes, 0);
        let source = address(value.as_slice());
        element(MAP_UPDATE, self.fd(), address(&key), source)
    }
}

fn create(
    map_type: u32,
    value_size: u32,
    max_entries: u32,
    inner_map_fd: u32,
    name: [u8; 16],
) -> io::Result<OwnedFd> {
    make_map(&mut CreateAttr {
        map_type,
        key_size: 4,
        value_size,
        max_entries,
        map_flags: 0,
        inner_map_fd,
        numa_node: 0,
        name,
        reserved: [0; 4],
    })
}
