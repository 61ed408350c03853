//! The audit log: who failed, who was refused, what changed and who changed it.
//!
//! [`Audit`] takes rows in and never waits; the thread of the store writes them, once a
//! second or when many wait. [`Reader`] answers questions over a connection of its own.
//!
//! An account is stored as a keyed hash. Its name stands in a table of its own once a
//! success has shown that it exists: what is typed into the field of the name may be a
//! password.

mod answer;
mod erasing;
mod filter;
mod forgetting;
mod held;
mod log;
mod question;
mod queue;
mod reader;
mod record;
mod row;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::writer::Shared;
use crate::engine;
pub use answer::{AuditError, Coverage};
pub use filter::{FIELDS, Field, Filter};
pub use forgetting::Bounds;
pub(super) use forgetting::{rewrite, wipe};
pub(super) use log::{Log, begin, close};
pub use question::{Answer, Counted, Cursor, Rows, Share, Top, Wanted};
pub use queue::Health;
pub(super) use queue::{Batch, Erasure, Queue};
pub use reader::{Reader, is_behind};
pub use record::Record;
pub(super) use row::time_to_ms;
pub use row::{ACTIONS, ByHand, KINDS, Kind};

/// What a database of version 1.1 has beside that of 1.0.
pub(super) const TABLES: [&str; 2] = [tables::TABLES, held::TABLE];

/// The file of the secret that accounts are hashed with.
pub(super) const SECRET: &str = log::SECRET;

/// Takes in what is to be written down. Clones write to the same log.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Default))]
pub struct Audit {
    shared: Arc<Shared>,
}

impl Audit {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Has these written down. Those that are alike within a second become one row; what
    /// finds no room is counted.
    pub fn record(&self, changes: impl IntoIterator<Item = engine::Change>) {
        let rows = changes.into_iter().map(row::Row::of_change);
        let now = Instant::now();
        self.shared.audit(|queue| {
            for row in rows {
                queue.push(row, now);
            }
        });
    }

    /// Has written down what a person changed.
    pub fn record_by_hand(&self, by_hand: ByHand) {
        let row = row::Row::of_hand(by_hand);
        let now = Instant::now();
        self.shared.audit(|queue| {
            queue.push(row, now);
            queue.hurry(now);
        });
    }

    /// A success has shown that an account exists, normalised as the engine does: it may
    /// be called by its name until the log forgets that.
    pub fn account_exists(&self, account: &str, at: SystemTime) {
        let now = Instant::now();
        let at_ms = time_to_ms(at);
        self.shared.audit(|queue| queue.know(account, at_ms, now));
    }

    /// Deletes every row of an account, normalised as the engine does, and its name, from
    /// the file and what lies beside it. What was handed over before is written first. Gives
    /// how many rows that were, once they are gone, or why they are not.
    pub fn erase(&self, account: &str) -> oneshot::Receiver<Result<u64, String>> {
        let (done, erased) = oneshot::channel();
        let account = row::short(account.into()).into_string();
        let erasure = Erasure {
            account,
            rows: 0,
            is_deleted: false,
            done,
        };
        let now = Instant::now();
        self.shared.audit(|queue| queue.erase(erasure, now));
        erased
    }

    /// Has changes of what the rules hold stored beside the log: of each key and block the
    /// latest. [`Reader::held`] finds it again.
    pub fn hold(&self, changes: impl IntoIterator<Item = engine::HeldChange>) {
        let changes = changes.into_iter().map(held::named).collect();
        let now = Instant::now();
        self.shared.audit(|queue| queue.hold(changes, now));
    }

    /// Has all that the rules hold stored, in place of what was stored before: at a start,
    /// once that was [read](Reader::held), and where it is [wanted](Self::wants_all_held).
    pub fn hold_all(&self, all: engine::Snapshot) {
        let all = held::Waiting::all(all);
        let now = Instant::now();
        self.shared.audit(|queue| queue.hold_all(all, now));
    }

    /// Whether only [all that the rules hold](Self::hold_all) makes up for what could not be
    /// stored: too many changes waited, or another file was begun. Until then changes are
    /// not taken.
    #[must_use]
    pub fn wants_all_held(&self) -> bool {
        let mut wants = false;
        self.shared.audit(|queue| wants = queue.wants_all_held());
        wants
    }

    /// Has all that was handed over so far written at once. Gives when it is on the disk, or
    /// why it is not; it is tried again then.
    pub fn written(&self) -> oneshot::Receiver<Result<(), String>> {
        let (waiter, written) = oneshot::channel();
        let now = Instant::now();
        self.shared.audit(|queue| queue.wait(waiter, now));
        written
    }

    /// Sets how much of the log is kept; until then all of it is.
    pub fn keep(&self, bounds: Bounds) {
        self.shared.set_bounds(bounds);
    }

    /// What was ordered by hand and waits to be written, in words.
    #[cfg(test)]
    pub(crate) fn by_hand(&self) -> Vec<String> {
        let mut orders = Vec::new();
        self.shared.audit(|queue| orders = queue.by_hand());
        orders
    }

    /// How the log fares.
    #[must_use]
    pub fn health(&self) -> Health {
        let mut health = Health::default();
        self.shared.audit(|queue| health = queue.health());
        health
    }
}
