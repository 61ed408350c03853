//! When file descriptors run out: who comes is told so, and the rest of the
//! process keeps some.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use crate::seldom::Seldom;

/// How often the log says that they have run out.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// How long a connection that waits may take to be accepted; also the pause
/// where none waits.
const ACCEPTED: Duration = Duration::from_millis(100);

/// The descriptors of this process, as a listener sees them.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// Of 64, those that are for others.
    spare_of_64: u64,
    /// Given up while somebody is refused for want of descriptors.
    reserve: Option<File>,
    complaints: Seldom,
}

impl Descriptors {
    pub(super) fn new(spare_of_64: u64) -> Self {
        Self {
            spare_of_64,
            reserve: None,
            complaints: Seldom::new(COMPLAINTS),
        }
    }

    /// Whether so few are left that this connection should go.
    pub(super) fn are_short(&self, stream: &impl AsFd) -> bool {
        // The limit can be changed from outside at any time.
        let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return false;
        };
        // The kernel gives the lowest number that is free: all below it are in use.
        let used = u64::try_from(stream.as_fd().as_raw_fd()).unwrap_or(0) + 1;
        used.saturating_add(limit / 64 * self.spare_of_64) > limit
    }

    /// Says in the log that a connection cannot be accepted.
    pub(super) fn complain(&self, error: &io::Error) {
        if let Some(left_out) = self.complaints.due(Instant::now()) {
            tracing::warn!(%error, left_out, "cannot accept connections");
        }
    }

    /// Sets one aside, if it is not there yet.
    pub(super) fn reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = File::open("/dev/null").ok();
        }
    }

    /// Where descriptors were what was missing: accepts a connection with the
    /// one in reserve, so that it can be refused. Else waits a little.
    pub(super) async fn lend<T>(
        &mut self,
        error: &io::Error,
        accept: impl Future<Output = io::Result<T>>,
    ) -> Option<T> {
        let ran_out = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        if ran_out && self.reserve.take().is_some() {
            // In vain if somebody else took it, or nobody waits.
            let accepted = tokio::time::timeout(ACCEPTED, accept).await;
            return accepted.ok().and_then(Result::ok);
        }
        tokio::time::sleep(ACCEPTED).await;
        None
    }
}
