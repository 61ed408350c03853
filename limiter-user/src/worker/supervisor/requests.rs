//! What the worker asks for and takes a while: metrics and log files.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use super::Shared;
use crate::event::follow::{Disk, Opener as _, Position};
use crate::keeper::Handle;
use crate::metrics::Metrics;
use crate::worker::message::ToWorker;
use crate::worker::outgoing::Outgoing;

/// Requests that may wait; more are refused.
pub(super) const WAITING: usize = 64;

/// What the worker asks for.
#[derive(Debug)]
pub(super) enum Request {
    Scrape {
        id: u64,
    },
    Open {
        id: u64,
        log: String,
        renamed: Option<Position>,
    },
}

/// A request, and to whom the answer goes: not to the worker that comes after it.
pub(super) type Asking = (Request, Arc<Outgoing>);

/// The thread that serves what takes a while.
pub(super) struct Requests {
    shared: Arc<Shared>,
    keeper: Handle,
    runtime: tokio::runtime::Handle,
    metrics: Metrics,
}

impl Requests {
    pub(super) fn new(
        shared: Arc<Shared>,
        keeper: Handle,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            shared,
            keeper,
            runtime,
            metrics: Metrics::default(),
        }
    }

    /// Serves them until nobody can ask any more.
    pub(super) fn run(mut self, waiting: &mpsc::Receiver<Asking>) {
        for (request, outgoing) in waiting {
            self.serve(request, &outgoing);
        }
    }

    fn serve(&mut self, request: Request, outgoing: &Outgoing) {
        match request {
            Request::Scrape { id } => {
                let text = self.scrape();
                outgoing.send(ToWorker::Scraped { id, text }, Vec::new());
            }
            Request::Open { id, log, renamed } => {
                let opened = match (self.shared.log(&log).map(Disk::new), renamed) {
                    (Some(disk), Some(position)) => disk.renamed(&position),
                    (Some(disk), None) => disk.open().map(Some),
                    (None, _) => Err(io::Error::other("the policy has no such log any more")),
                };
                match opened {
                    Ok(file) => {
                        let count = Ok(u32::from(file.is_some()));
                        let files = file.into_iter().map(OwnedFd::from).collect();
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
