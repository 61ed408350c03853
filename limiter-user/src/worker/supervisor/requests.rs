//! What the worker asks for and takes a while: metrics and log files; and, between that,
//! what the keeper had no time for.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, mpsc, mpsc::RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Shared;
use super::obeying::Obeying;
use crate::keeper::Handle;
use crate::metrics::Metrics;
use crate::worker::channel::MAX_FILES;
use crate::worker::message::ToWorker;
use crate::worker::outgoing::Outgoing;

/// Requests that may wait; more are refused.
pub(super) const WAITING: usize = 64;

/// Files beside a log that are looked at.
const MOST_BESIDE: usize = 64;

/// How often the keeper is asked for what it had no time for.
const AGAIN: Duration = Duration::from_secs(1);

/// What the worker asks for.
#[derive(Debug)]
pub(super) enum Request {
    Scrape { id: u64 },
    Open { id: u64, log: String, beside: bool },
}

/// A request, and to whom the answer goes: not to the worker that comes after it.
pub(super) type Asking = (Request, Arc<Outgoing>);

/// The thread that serves what takes a while.
pub(super) struct Requests {
    shared: Arc<Shared>,
    keeper: Handle,
    runtime: tokio::runtime::Handle,
    obeying: Arc<Obeying>,
    metrics: Metrics,
}

impl Requests {
    pub(super) fn new(
        shared: Arc<Shared>,
        keeper: Handle,
        runtime: tokio::runtime::Handle,
        obeying: Arc<Obeying>,
    ) -> Self {
        Self {
            shared,
            keeper,
            runtime,
            obeying,
            metrics: Metrics::default(),
        }
    }

    /// Serves them until nobody can ask any more.
    pub(super) fn run(mut self, waiting: &mpsc::Receiver<Asking>) {
        let mut due = Instant::now() + AGAIN;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            match waiting.recv_timeout(left) {
                Ok((request, outgoing)) => self.serve(request, &outgoing),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Also where there is always a request.
            if Instant::now() >= due {
                self.obeying.try_again();
                due = Instant::now() + AGAIN;
            }
        }
    }

    fn serve(&mut self, request: Request, outgoing: &Outgoing) {
        match request {
            Request::Scrape { id } => {
                let text = self.scrape();
                outgoing.send(ToWorker::Scraped { id, text }, Vec::new());
            }
            Request::Open { id, log, beside } => {
                let path = self.shared.log(&log);
                let opened = match path {
                    Some(path) if beside => beside_of(&path),
                    Some(path) => open(&path, 0).map(|file| vec![file]),
                    None => Err(io::Error::other("the policy has no such log any more")),
                };
                match opened {
                    Ok(files) => {
                        let count = Ok(u32::try_from(files.len()).unwrap_or(0));
                        let files = files.into_iter().map(OwnedFd::from).collect();
                        outgoing.send(ToWorker::Opened { id, files: count }, files);
                    }
                    Err(error) => {
                        let why = (error.raw_os_error().unwrap_or(0), error.to_string());
                        let files = Err(why);
                        outgoing.send(ToWorker::Opened { id, files }, Vec::new());
                    }
                }
            }
        }
    }

    fn scrape(&mut self) -> Option<String> {
        let asked = self.keeper.ask(|keeper| keeper.snapshot());
        match self.runtime.block_on(asked) {
            Ok(Ok(snapshot)) => self.metrics.text(snapshot).ok(),
            Ok(Err(refusal)) => {
                tracing::warn!(reason = refusal.detail, "no metrics");
                None
            }
            Err(_) => None,
        }
    }
}

fn open(path: &Path, more_flags: i32) -> io::Result<File> {
    // Opening a pipe would wait for its writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | more_flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(
            "it is no regular file; a log file is needed, or a socket under `feedback`",
        ));
    }
    Ok(file)
}

/// Files beside this one whose names begin alike, as those that rotation makes.
fn beside_of(path: &Path) -> io::Result<Vec<File>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let name = name.to_string_lossy();
    let entries = std::fs::read_dir(directory)?.flatten();
    let is_beside = |entry: &std::fs::DirEntry| {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        other != name && other.starts_with(&*name)
    };
    Ok(entries
        .filter(is_beside)
        // No link: whoever may write there must not choose what is read.
        .filter_map(|entry| open(&entry.path(), libc::O_NOFOLLOW).ok())
        .take(MOST_BESIDE.min(MAX_FILES))
        .collect())
}
