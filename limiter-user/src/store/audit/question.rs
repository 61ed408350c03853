//! What can be asked, and what comes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::answer::{AuditError, Coverage};
use super::filter::{Field, Filter};
use super::reader::Reader;
use super::record::Record;
use super::row::Kind;

/// What is asked of the rows that a [`Filter`] leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The rows, so many at most.
    Rows(Cursor, usize),
    /// How many there are.
    Count,
    /// The values of a field that occur most often, so many at most.
    Top(Field, usize),
}

/// Which rows come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The latest of those with a number below this one.
    Before(i64),
    /// In the order in which they were written, those with a number above this one.
    After(i64),
}

/// An answer; which one, the question says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// Rows.
    Rows(Rows),
    /// How many.
    Counted(Counted),
    /// The most frequent values.
    Top(Top),
}

/// Some rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// As they were asked for.
    pub records: Vec<Record>,
    /// The number of the row to go on from; `None`: there are no more.
    pub next: Option<i64>,
    /// How far this can be relied on.
    pub coverage: Coverage,
}

/// How many, and how sure that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// What rows stand for: failures, refusals, changes.
    pub count: u64,
    /// The same by kind; those that are not zero.
    pub kinds: BTreeMap<Kind, u64>,
    /// Rows.
    pub rows: u64,
    /// How far this can be relied on.
    pub coverage: Coverage,
}

/// The values that occur most often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// The most frequent first.
    pub shares: Vec<Share>,
    /// What all rows stand for.
    pub count: u64,
    /// Each count may be too small by as much: there were too many values to tell all
    /// apart.
    pub may_lack: u64,
    /// How far this can be relied on.
    pub coverage: Coverage,
}

/// A value and how often it occurs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The value as in [`Record`]; of an account its name, else its hash behind `#`;
    /// `None`: rows without it.
    pub value: Option<String>,
    /// What its rows stand for.
    pub count: u64,
}

impl Reader {
    /// Answers a question.
    ///
    /// # Errors
    /// [`AuditError::TooLong`], or the database cannot be read.
    pub fn answer(&mut self, filter: &Filter, wanted: Wanted) -> Result<Answer, AuditError> {
        match wanted {
            Wanted::Rows(cursor, most) => self.rows(filter, cursor, most).map(Answer::Rows),
            Wanted::Count => self.count(filter).map(Answer::Counted),
            Wanted::Top(by, most) => self.top(filter, by, most).map(Answer::Top),
        }
    }
}
