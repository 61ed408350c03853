//! What questions are answered with.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

/// Values that are told apart at most when they are counted.
const MOST_VALUES: usize = 1 << 20;

/// Bytes of their texts at most: an attacker chooses the paths that he asks for.
const MOST_BYTES: usize = 64 << 20;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is none.
    #[error(
        "there is no audit log in {0}: nothing is written down yet, or state.directory is another"
    )]
    None(std::path::PathBuf),
    /// The file is another program's, or a later version's.
    #[error("{0} is no database of this version of limiter")]
    Foreign(std::path::PathBuf),
    /// It took too long.
    #[error("the answer takes longer than {} s; ask about less time", .0.as_secs_f32())]
    TooLong(Duration),
    /// The database says so.
    #[error("cannot read the audit log: {0}; `limiter status` tells how it fares")]
    Database(rusqlite::Error),
    /// Others ask all the time, and what is written waits for them.
    #[error("what is written must take its place first; try again in a minute")]
    Behind,
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

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::None | Self::Number(_) => 0,
        }
    }
}

/// Counts by value. If there are too many values, those with the smallest counts are
/// forgotten, and by how much that can be wrong is known ("lossy counting").
#[derive(Debug, Default)]
pub(super) struct Sums {
    counts: HashMap<Group, u64>,
    /// Of all texts.
    bytes: usize,
    count: u64,
    may_lack: u64,
}

impl Sums {
    pub(super) fn add(&mut self, group: Group, count: u64) {
        self.count += count;
        match self.counts.get_mut(&group) {
            Some(before) => *before += count,
            None => {
                self.bytes += group.bytes();
                self.counts.insert(group, count);
            }
        }
        if self.counts.len() > MOST_VALUES || self.bytes > MOST_BYTES {
            let mut counts: Vec<u64> = self.counts.values().copied().collect();
            let half = counts.len() / 2;
            let floor = *counts.select_nth_unstable(half).1;
            self.counts.retain(|_, count| *count > floor);
            self.bytes = self.counts.keys().map(Group::bytes).sum();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is frequent stays, and what each may lack is known.
    #[test]
    fn too_many_values_are_told_apart_no_more() {
        let mut sums = Sums::default();
        let text = |number: usize| Group::Text(format!("/{number:0>511}").into());
        for number in 0..3 * (MOST_BYTES / 512) {
            sums.add(text(number), 1);
            sums.add(text(0), 1);
        }
        assert!(sums.bytes <= MOST_BYTES, "{}", sums.bytes);
        let all = sums.count;
        let (top, count, may_lack) = sums.top(1);
        assert_eq!((&top[0].0, count), (&text(0), all));
        let missing = (all / 2 + 1) - top[0].1;
        assert!(missing <= may_lack && may_lack < 4, "{missing} {may_lack}");
    }
}
