//! Ctrl-C: the bench ends between two measurements, so that everything is taken
//! down in order.

use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT and SIGTERM are only noted.
pub(crate) fn note_signals() {
    extern "C" fn note(_signal: i32) {
        INTERRUPTED.store(true, Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler: extern "C" fn(i32) = note;
        // SAFETY: the handler only stores to an atomic.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether one came.
pub(crate) fn noted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// An error if one came.
pub(crate) fn check() -> Result<()> {
    if noted() {
        bail!("interrupted");
    }
    Ok(())
}
