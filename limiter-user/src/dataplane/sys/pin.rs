//! Names in a BPF file system, and what lies behind them.

use super::{address, bpf, bpf_fd};
use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

#[repr(C)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The first fields of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Gives a map or link a name. There must be none of this name.
pub(in crate::dataplane) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = name(path)?;
    let mut attr = PinAttr {
        path: address(name.as_bytes_with_nul()),
        fd: fd.as_raw_fd() as u32,
        flags: 0,
    };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

/// What has this name.
pub(in crate::dataplane) fn get(path: &Path) -> io::Result<OwnedFd> {
    let name = name(path)?;
    let mut attr = PinAttr {
        path: address(name.as_bytes_with_nul()),
        fd: 0,
        flags: 0,
    };
    bpf_fd(OBJ_GET, &mut attr)
}

/// Type, size of keys, size of values, capacity and flags of a map.
pub(in crate::dataplane) fn map_shape(fd: BorrowedFd<'_>) -> io::Result<[u32; 5]> {
    let info: MapInfo = info(fd)?;
    Ok([
        info.kind,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.flags,
    ])
}

/// The beginning of what the kernel tells of a BPF object; `T` is one of the
/// kernel's structures cut off behind some field.
pub(super) fn info<T: Copy + Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut info).expose_provenance() as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    // Written by the kernel behind the compiler's back.
    Ok(std::hint::black_box(info))
}

fn name(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
