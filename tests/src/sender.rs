//! Single frames, sent as they are.

use crate::veth::End;
use anyhow::{Context as _, Result, ensure};
use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// A raw socket on one interface.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// Opens one on `end`.
    pub fn new(end: &End) -> Result<Self> {
        end.namespace
            .run(|| open(end.index))
            .with_context(|| format!("opening a raw socket on {}", end.name))
    }

    /// Sends a frame, Ethernet header first, unchanged.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: an open socket and a buffer of the length given.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error());
        let sent = sent.context("sending a frame")?;
        ensure!(sent == frame.len(), "{sent} of {} bytes sent", frame.len());
        Ok(())
    }

    /// Sends frames one after the other; returns how many.
    pub fn send_all<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<u64> {
        let mut sent = 0;
        for frame in frames {
            self.send(frame)?;
            sent += 1;
        }
        Ok(sent)
    }
}

/// Opens a raw socket in this thread's namespace. It receives nothing.
fn open(index: u32) -> Result<Sender> {
    // SAFETY: a system call on integers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else has.
    let sender = Sender(unsafe { OwnedFd::from_raw_fd(socket) });
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: an open socket and an address of the length given.
    let status = unsafe { libc::bind(socket, (&raw const address).cast(), length) };
    ensure!(status == 0, "bind: {}", io::Error::last_os_error());
    Ok(sender)
}
