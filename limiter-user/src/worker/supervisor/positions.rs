//! How far logs were read, written on a thread of its own: a disk that is slow holds up no
//! block. What waits is what is known last.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use crate::store::{PositionFile, Positions};

/// How long the end may wait for the disk.
const LAST: Duration = Duration::from_secs(2);

/// Writes positions; when it ends, it has written the last ones, as far as the disk lets it.
#[derive(Debug)]
pub(super) struct PositionWriter {
    shared: Arc<Shared>,
    /// Ends with the thread.
    ended: mpsc::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: Option<Positions>,
    is_over: bool,
}

impl PositionWriter {
    /// Begins to write to this file.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(file: PositionFile) -> io::Result<Self> {
        Self::to(move |positions| {
            if let Err(error) = file.write(positions) {
                // The store says what is wrong with the directory.
                tracing::debug!(%error, "how far logs were read is not kept");
            }
        })
    }

    fn to(write: impl Fn(&Positions) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (ending, ended) = mpsc::channel();
        let waits = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("worker-places".to_owned());
        thread.spawn(move || {
            let _ending: mpsc::Sender<()> = ending;
            while let Some(positions) = waits.next() {
                write(&positions);
            }
        })?;
        Ok(Self { shared, ended })
    }

    /// Has these written, in the place of any that still wait.
    pub(super) fn write(&self, positions: Positions) {
        self.shared.slot().waiting = Some(positions);
        self.shared.changed.notify_one();
    }
}

impl Drop for PositionWriter {
    fn drop(&mut self) {
        self.shared.slot().is_over = true;
        self.shared.changed.notify_one();
        // Nobody ever sends: either it ends, or it takes too long.
        let _ended = self.ended.recv_timeout(LAST);
    }
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Each of its parts is whole between any two statements.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what is to be written; `None`: nothing follows.
    fn next(&self) -> Option<Positions> {
        let mut slot = self.slot();
        loop {
            if let Some(positions) = slot.waiting.take() {
                return Some(positions);
            }
            if slot.is_over {
                return None;
            }
            let changed = self.changed.wait(slot);
            slot = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::follow::Position;

    fn at(offset: u64) -> Positions {
        let position = Position {
            device: 1,
            inode: 2,
            offset,
            mark: 3,
        };
        Positions::from([("log:/x".to_owned(), position)])
    }

    #[test]
    fn a_slow_disk_holds_up_nobody_and_gets_the_latest() {
        let (began, begins) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let writer = PositionWriter::to(move |positions| {
            began.send(positions.clone()).unwrap();
            released.recv().unwrap();
        });
        let writer = writer.unwrap();
        writer.write(at(0));
        assert_eq!(begins.recv().unwrap(), at(0));
        // The disk hangs, and none of these waits for it.
        for offset in 1..=1_000 {
            writer.write(at(offset));
        }
        release.send(()).unwrap();
        release.send(()).unwrap();
        drop(writer);
        assert_eq!(begins.iter().collect::<Vec<_>>(), [at(1_000)]);
    }

    #[test]
    fn the_last_ones_are_written_before_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = PositionFile::of(directory.path());
        let writer = PositionWriter::start(file.clone()).unwrap();
        writer.write(at(7));
        drop(writer);
        assert_eq!(file.read(), at(7));
    }
}
