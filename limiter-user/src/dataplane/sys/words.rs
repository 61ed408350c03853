//! Maps that are memory of this process too.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// A shared mapping of an array of words (`BPF_F_MMAPABLE`).
#[derive(Debug)]
pub(in crate::dataplane) struct Words {
    start: std::ptr::NonNull<std::sync::atomic::AtomicU64>,
    count: usize,
}

// SAFETY: the mapping is shared memory of atomics; nothing is tied to a thread.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    pub(in crate::dataplane) fn map(fd: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = std::ptr::NonNull::new(start.cast())
            .ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { start, count })
    }

    pub(in crate::dataplane) fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        // SAFETY: the mapping covers `count` words, page-aligned, and lives as
        // long as `self`; others change them only as atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; no slice outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * 8) };
    }
}
