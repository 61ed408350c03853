//! What waits to be sent to a worker: nobody in the daemon waits for it to read, but who
//! begins one with all that is held.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::channel::{MAX_FILES, Sender};
use super::message::ToWorker;

/// What may wait; a worker that lets more wait is given up.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 64 << 20;
const MOST_FILES: usize = 2 * MAX_FILES;

/// Bytes that wait before who sends [in turn](Outgoing::send_in_turn) waits too.
const IN_TURN: usize = 4 << 20;

/// The daemon's sending end of a channel. It ends with this.
#[derive(Debug)]
pub(super) struct Outgoing {
    shared: Arc<Shared>,
    /// To close it whoever is sending.
    stream: UnixStream,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(ToWorker, Vec<OwnedFd>)>,
    /// Bytes and files of these and of what is being sent.
    bytes: usize,
    files: usize,
    /// Nothing follows.
    is_over: bool,
}

impl Queue {
    /// Takes a message, or does not: then too much waits.
    fn add(&mut self, message: ToWorker, files: Vec<OwnedFd>) -> bool {
        let bytes = self.bytes + message.bytes();
        let descriptors = self.files + files.len();
        if self.messages.len() >= MOST || bytes > MOST_BYTES || descriptors > MOST_FILES {
            return false;
        }
        (self.bytes, self.files) = (bytes, descriptors);
        self.messages.push_back((message, files));
        true
    }

    /// Lets go what nobody will read.
    fn give_up(&mut self) {
        *self = Self {
            is_over: true,
            ..Self::default()
        };
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each of its parts is whole between any two statements.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let changed = self.changed.wait(queue);
        changed.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits, until there is nothing and nothing follows.
    fn send(&self, sender: &Sender<ToWorker>) {
        loop {
            let mut queue = self.queue();
            let (message, files) = loop {
                match queue.messages.pop_front() {
                    Some(next) => break next,
                    None if queue.is_over => return,
                    None => queue = self.wait(queue),
                }
            };
            drop(queue);
            let descriptors: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
            let sent = sender.send(&message, &descriptors);
            let mut queue = self.queue();
            // Whoever receives from the worker notices that it has gone.
            if sent.is_err() {
                queue.give_up();
            }
            queue.bytes = queue.bytes.saturating_sub(message.bytes());
            queue.files = queue.files.saturating_sub(files.len());
            drop(queue);
            self.changed.notify_all();
        }
    }
}

impl Outgoing {
    /// Sends on a thread of its own.
    ///
    /// # Errors
    /// There is no thread, or no descriptor, to be had.
    pub(super) fn start(stream: UnixStream) -> io::Result<Self> {
        let sender = Sender::new(stream.try_clone()?)?;
        let shared = Arc::new(Shared::default());
        let sending = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("worker-send".to_owned());
        thread.spawn(move || sending.send(&sender))?;
        Ok(Self { shared, stream })
    }

    /// Has a message sent, with files of which the worker gets copies.
    pub(super) fn send(&self, message: ToWorker, files: Vec<OwnedFd>) {
        let mut queue = self.shared.queue();
        if queue.is_over {
            // Whoever receives from it notices that.
            return;
        }
        let is_taken = queue.add(message, files);
        drop(queue);
        if is_taken {
            self.shared.changed.notify_all();
        } else {
            self.close();
        }
    }

    /// The same, after most of what waits is sent, or will never be.
    pub(super) fn send_in_turn(&self, message: ToWorker) {
        let mut queue = self.shared.queue();
        while queue.bytes > IN_TURN && !queue.is_over {
            queue = self.shared.wait(queue);
        }
        drop(queue);
        self.send(message, Vec::new());
    }

    /// Gives the worker up: it finds that the daemon has gone, and ends.
    pub(super) fn close(&self) {
        let _closed = self.stream.shutdown(std::net::Shutdown::Both);
        self.shared.queue().give_up();
        self.shared.changed.notify_all();
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.shared.queue().is_over = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::worker::channel;
    use crate::worker::message::Rules;

    fn rules(bytes: usize) -> ToWorker {
        ToWorker::Rules(Rules {
            text: "x".repeat(bytes),
            ..Rules::default()
        })
    }

    /// Whether nothing more is sent, also of what waited.
    fn is_given_up(outgoing: &Outgoing, mut there: UnixStream) -> bool {
        // What the socket holds can still be read.
        let ended = there.read_to_end(&mut Vec::new()).is_ok();
        let queue = outgoing.shared.queue();
        ended && queue.is_over && queue.messages.is_empty()
    }

    #[test]
    fn who_does_not_read_holds_up_nobody() {
        let (here, there) = channel::pair().unwrap();
        let outgoing = Outgoing::start(here).unwrap();
        let begin = Instant::now();
        for _ in 0..16 {
            outgoing.send(rules(1 << 20), Vec::new());
        }
        assert!(begin.elapsed() < Duration::from_secs(4));
        assert!(!outgoing.shared.queue().is_over);
        outgoing.close();
        assert!(is_given_up(&outgoing, there));
    }

    #[test]
    fn who_lets_too_many_bytes_wait_is_given_up() {
        let (here, there) = channel::pair().unwrap();
        let outgoing = Outgoing::start(here).unwrap();
        let message = 8 << 20;
        for _ in 0..MOST_BYTES / message + 1 {
            outgoing.send(rules(message), Vec::new());
        }
        assert!(is_given_up(&outgoing, there));
    }

    #[test]
    fn who_lets_too_many_files_wait_is_given_up() {
        let mut queue = Queue::default();
        let file = tempfile::tempfile().unwrap();
        let copies = |count| -> Vec<OwnedFd> {
            let copy = |_| file.try_clone().unwrap().into();
            (0..count).map(copy).collect()
        };
        assert!(queue.add(rules(0), copies(MAX_FILES)));
        assert!(queue.add(rules(0), copies(MAX_FILES)));
        assert!(queue.add(rules(0), Vec::new()));
        assert!(!queue.add(rules(0), copies(1)));
    }

    #[test]
    fn what_goes_in_turn_may_be_more_than_may_wait() {
        let (here, there) = channel::pair().unwrap();
        let outgoing = Outgoing::start(here).unwrap();
        let message = 8 << 20;
        let count = MOST_BYTES / message + 2;
        let reading = std::thread::spawn(move || {
            let mut messages = channel::Receiver::<ToWorker>::new(there, channel::MAX_MESSAGE);
            std::iter::from_fn(|| messages.receive().ok()).count()
        });
        for _ in 0..count {
            outgoing.send_in_turn(rules(message));
        }
        drop(outgoing);
        assert_eq!(reading.join().unwrap(), count);
    }
}
