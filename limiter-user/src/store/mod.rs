//! What outlives a reboot: blocks, run-time list entries and the audit log, in one
//! database in the state directory, and beside it secrets and a policy that is tried. The
//! only importer of rusqlite.
//!
//! It is written by a thread of its own. What cannot be written is said, and
//! tried again; nothing waits for it.

pub mod audit;
mod challenge_keys;
mod database;
mod error;
mod header;
mod outbox;
mod positions;
mod rows;
mod secret;
#[cfg(test)]
mod tests;
mod unconfirmed;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::keeper::Now;
use crate::keeper::records::{Change, Receipt, Records, Saved};
use audit::Audit;
pub use challenge_keys::{CHALLENGE_KEYS, KeyFile};
use database::Place;
pub use outbox::OutboxFile;
pub use positions::{PositionFile, Positions};
pub use secret::{Secret, find_secret, random, secret};
pub use unconfirmed::Unconfirmed;
use writer::{Shared, Writer};

/// For the last changes, when the daemon ends.
const CLOSING: Duration = Duration::from_secs(2);

/// The database.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

impl Store {
    /// Opens the database of a directory, or makes it. What cannot be opened is
    /// [trouble](Records::trouble), not an error.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn open(directory: &Path, now: Now) -> io::Result<Self> {
        Self::of_boot(directory, boot_id(), now)
    }

    fn of_boot(directory: &Path, boot_id: String, now: Now) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let place = Place::new(directory.to_owned(), boot_id);
        let writer = Writer::new(Arc::clone(&shared), place, now);
        let (ending, ended) = channel::<()>();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let _ending = ending;
                writer.run();
            })?;
        Ok(Self { shared, ended })
    }
}

impl Records for Store {
    fn saved(&mut self) -> Option<Saved> {
        self.shared.saved()
    }

    fn hand_over(&mut self, change: Change, now: Now) {
        self.shared.hand_over(change, now);
    }

    fn receipt(&self) -> Receipt {
        self.shared.receipt()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble(Instant::now())
    }

    fn audit(&self) -> Audit {
        Audit::new(Arc::clone(&self.shared))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.close();
        // Either way it ends with the process.
        let _ended = self.ended.recv_timeout(CLOSING);
    }
}

/// What the kernel calls the time since the machine started. Where it does not
/// say, every start counts as the machine's.
fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}
