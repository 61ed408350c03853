//! Waiting for many sockets at once, to the microsecond.

use anyhow::{Context as _, Result};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    time::Instant,
};

/// Sockets told of in one look at most; the others in the next.
const AT_ONCE: usize = 256;

/// Sockets that are waited for (epoll). One that is closed is forgotten.
#[derive(Debug)]
pub struct Ready(OwnedFd);

/// What is waited for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// That something has come, or its other end has gone: as long as it is so.
    In,
    /// The same, and that it is connected: each once.
    Connected,
}

impl Ready {
    /// Of no sockets.
    pub fn new() -> Result<Self> {
        // SAFETY: a system call on integers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        checked(fd).context("making an epoll")?;
        // SAFETY: a new descriptor that nobody else has.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for a socket too, which is told of by this number.
    pub fn add(&self, socket: &impl AsRawFd, way: Way, number: u64) -> Result<()> {
        let events = match way {
            Way::In => libc::EPOLLIN,
            Way::Connected => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET,
        };
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: number,
        };
        let (own, other) = (self.0.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: open descriptors, and an event that lives over the call.
        let added = unsafe { libc::epoll_ctl(own, libc::EPOLL_CTL_ADD, other, &raw mut event) };
        checked(added).context("waiting for a socket").map(drop)
    }

    /// Waits until something has happened on some of them, or until a moment; their numbers. To the
    /// microsecond where this thread has asked for that ([`punctual`]).
    pub fn wait(&self, until: Instant) -> Result<Vec<u64>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; AT_ONCE];
        let left = until.saturating_duration_since(Instant::now());
        let left = libc::timespec {
            tv_sec: i64::try_from(left.as_secs())?,
            tv_nsec: left.subsec_nanos().into(),
        };
        // SAFETY: an array of the length given, and a time that lives over the call.
        let count = unsafe {
            libc::epoll_pwait2(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                AT_ONCE as i32,
                &raw const left,
                std::ptr::null(),
            )
        };
        let count = match checked(count) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            count => usize::try_from(count.context("waiting for sockets")?)?,
        };
        Ok(events[..count].iter().map(|event| event.u64).collect())
    }
}

fn checked(returned: i32) -> io::Result<i32> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}

/// Has the kernel wake this thread when it is time, and not up to 50 µs later.
pub fn punctual() -> Result<()> {
    nix::sys::prctl::set_timerslack(1).context("asking to be waked in time")
}
