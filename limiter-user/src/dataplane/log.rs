//! The program's log of single packets, for debugging.

use super::error::Error;
use aya::Ebpf;
use aya_log::EbpfLogger;
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

/// What the program logs, to be read whenever its descriptor is readable.
pub struct PacketLog(EbpfLogger<&'static dyn log::Log>);

impl PacketLog {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let logger = EbpfLogger::init(ebpf).map_err(|error| Error::System {
            what: "reading the program's log".to_owned(),
            source: io::Error::other(error),
        })?;
        Ok(Self(logger))
    }

    /// Hands what there is to the `log` crate's logger.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for PacketLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PacketLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl std::fmt::Debug for PacketLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PacketLog").finish_non_exhaustive()
    }
}
