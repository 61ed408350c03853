//! What questions are answered with.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

/// Values that are told apart at most when they are counted.
const MOST_VALUES: usize = 1 << 20;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is none.
    #[error(
        "there is no audit log in {0}: nothing is written down yet, or state.directory is another"
    )]
    None(std::path::PathBuf),
    /// It took too long.
    #[error("the answer takes longer than {} s; ask about less time", .0.as_secs_f32())]
    TooLong(Duration),
    /// The database says so.
    #[error("cannot read the audit log: {0}; `limiter status` tells how it fares")]
    Database(rusqlite::Error),
    /// The secret, or the file, cannot be read.
    #[error("cannot read the state directory: {0}; ask as the user that the daemon runs as")]
    Unreadable(std::io::Error),
}

/// How far an answer can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// From then on, until the end that was asked for, nothing is missing; RFC 3339.
    pub complete_from: String,
    /// Whether that is all the time that was asked for.
    pub is_complete: bool,
    /// Events inside that time that are known to be missing, as they came faster than
    /// the disk took them. A daemon that was killed does not know how many it lost.
    pub lost: u64,
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Group {
    None,
    Number(i64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

impl Group {
    pub(super) fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Integer(number) => Self::Number(number),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.into()),
            _ => Self::None,
        }
    }
}

/// Counts by value. If there are too many values, those with the smallest counts are
/// forgotten, and by how much that can be wrong is known ("lossy counting").
#[derive(Debug, Default)]
pub(super) struct Sums {
    counts: HashMap<Group, u64>,
    count: u64,
    may_lack: u64,
}

impl Sums {
    pub(super) fn add(&mut self, group: Group, count: u64) {
        self.count += count;
        *self.counts.entry(group).or_default() += count;
        if self.counts.len() > MOST_VALUES {
            let mut counts: Vec<u64> = self.counts.values().copied().collect();
            let half = counts.len() / 2;
            let floor = *counts.select_nth_unstable(half).1;
            self.counts.retain(|_, count| *count > floor);
            self.may_lack += floor;
        }
    }

    /// The largest, the sum of all, and by how much each may be too small.
    pub(super) fn top(self, most: usize) -> (Vec<(Group, u64)>, u64, u64) {
        let mut all: Vec<(Group, u64)> = self.counts.into_iter().collect();
        all.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        all.truncate(most);
        (all, self.count, self.may_lack)
    }
}
