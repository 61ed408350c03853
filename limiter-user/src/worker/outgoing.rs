//! What waits to be sent to a worker: nobody in the daemon waits for it to read.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::channel::Sender;
use super::message::ToWorker;

/// Messages that may wait; a worker that lets more wait is given up.
const MOST: usize = 65_536;

/// The daemon's sending end of a channel. It ends with this.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: mpsc::Sender<(ToWorker, Vec<OwnedFd>)>,
    waiting: Arc<AtomicUsize>,
    /// To close it whoever is sending.
    stream: UnixStream,
}

impl Outgoing {
    /// Sends on a thread of its own.
    ///
    /// # Errors
    /// There is no thread, or no descriptor, to be had.
    pub(super) fn start(stream: UnixStream) -> io::Result<Self> {
        let sender = Sender::new(stream.try_clone()?)?;
        let (queue, messages) = mpsc::channel::<(ToWorker, Vec<OwnedFd>)>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let waits = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name("worker-send".to_owned());
        thread.spawn(move || {
            for (message, files) in messages {
                waits.fetch_sub(1, Ordering::Relaxed);
                let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
                // Whoever receives from the worker notices that it has gone.
                if sender.send(&message, &files).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            queue,
            waiting,
            stream,
        })
    }

    /// Has a message sent, with files of which the worker gets copies.
    pub(super) fn send(&self, message: ToWorker, files: Vec<OwnedFd>) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.close();
            return;
        }
        // It has gone, which whoever receives from it notices.
        let _gone = self.queue.send((message, files));
    }

    /// Gives the worker up: it finds that the daemon has gone, and ends.
    pub(super) fn close(&self) {
        let _closed = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::worker::channel;
    use crate::worker::message::Rules;

    #[test]
    fn who_does_not_read_holds_up_nobody() {
        let (here, there) = channel::pair().unwrap();
        let outgoing = Outgoing::start(here).unwrap();
        let begin = Instant::now();
        let rules = Rules {
            text: "x".repeat(1 << 20),
            ..Rules::default()
        };
        for _ in 0..64 {
            outgoing.send(ToWorker::Rules(rules.clone()), Vec::new());
        }
        outgoing.close();
        assert!(begin.elapsed() < Duration::from_secs(4));
        drop(there);
    }
}
