//! The kernel's word that interfaces have changed (rtnetlink).

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// Interfaces that come, go, are renamed, switched on or off.
const RTNLGRP_LINK: u32 = 1;

/// Messages taken off the queue at once.
const MESSAGES: usize = 4_096;

/// A socket on which the kernel tells of changes to interfaces. It says that
/// there are some, not which: messages can be lost when many come at once, and
/// who looks at all interfaces misses none.
#[derive(Debug)]
pub(super) struct LinkEvents(Socket);

impl LinkEvents {
    /// Opens one for this network namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(RTNLGRP_LINK)?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Takes what there is off the queue; `false`: there may be more.
    pub(super) fn drain(&self) -> bool {
        // What does not fit is cut off.
        let mut message = [0_u8; 1];
        for _ in 0..MESSAGES {
            if let Err(error) = self.0.recv(&mut message.as_mut_slice(), 0) {
                match error.raw_os_error() {
                    // Some were lost, which is news too.
                    Some(libc::ENOBUFS | libc::EINTR) => {}
                    _ => return true,
                }
            }
        }
        false
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_messages_is_empty() {
        assert!(LinkEvents::open().unwrap().drain());
    }
}
