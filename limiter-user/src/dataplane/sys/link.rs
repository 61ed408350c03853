//! XDP links: the program on an interface, held by a descriptor or a pin.

use super::{bpf, bpf_fd, pin};
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// `BPF_XDP` of `enum bpf_attach_type`.
const XDP: u32 = 37;
/// `BPF_LINK_TYPE_XDP` of `enum bpf_link_type`.
const XDP_LINK: u32 = 6;

#[repr(C)]
struct CreateAttr {
    program_fd: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct UpdateAttr {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

#[repr(C)]
struct DetachAttr {
    link_fd: u32,
}

/// The first fields of `struct bpf_link_info`, whose union is aligned to 8.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    interface: u32,
    end: u32,
}

/// Where on an interface the program sits (`XDP_FLAGS_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::dataplane) enum LinkMode {
    /// In the network stack.
    Generic = 1 << 1,
    /// In the driver.
    Native = 1 << 2,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct LinkInfo {
    /// The program's id.
    pub(in crate::dataplane) program: u32,
    /// The interface's index; 0: it has vanished, or somebody detached the link.
    pub(in crate::dataplane) interface: u32,
}

/// An XDP link. Where nobody holds and nothing pins it, it is gone, and the
/// program off the interface.
#[derive(Debug)]
pub(in crate::dataplane) struct Link(OwnedFd);

impl Link {
    /// Puts a program on an interface.
    pub(in crate::dataplane) fn create(
        program: BorrowedFd<'_>,
        interface: u32,
        mode: LinkMode,
    ) -> io::Result<Self> {
        let mut attr = CreateAttr {
            program_fd: program.as_raw_fd() as u32,
            interface,
            attach_type: XDP,
            flags: mode as u32,
        };
        bpf_fd(LINK_CREATE, &mut attr).map(Self)
    }

    /// The one that is pinned at `path`; `InvalidData`: what is there is none.
    pub(in crate::dataplane) fn get(path: &Path) -> io::Result<Self> {
        let link = Self(pin::get(path)?);
        let info: Info = pin::info(link.0.as_fd())?;
        match info.kind {
            XDP_LINK => Ok(link),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Gives it a name, under which it lasts without us.
    pub(in crate::dataplane) fn pin(&self, path: &Path) -> io::Result<()> {
        pin::pin(self.0.as_fd(), path)
    }

    /// Puts another program in the place of its own: each packet meets one of
    /// the two.
    pub(in crate::dataplane) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = UpdateAttr {
            link_fd: self.0.as_raw_fd() as u32,
            program_fd: program.as_raw_fd() as u32,
            flags: 0,
            old_program_fd: 0,
        };
        bpf(LINK_UPDATE, &mut attr).map(drop)
    }

    /// Takes the program off the interface, whoever else holds the link.
    pub(in crate::dataplane) fn detach(&self) -> io::Result<()> {
        let mut attr = DetachAttr {
            link_fd: self.0.as_raw_fd() as u32,
        };
        bpf(LINK_DETACH, &mut attr).map(drop)
    }

    pub(in crate::dataplane) fn info(&self) -> io::Result<LinkInfo> {
        let info: Info = pin::info(self.0.as_fd())?;
        Ok(LinkInfo {
            program: info.program,
            interface: info.interface,
        })
    }
}
