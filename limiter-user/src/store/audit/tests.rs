//! The log on real files: what is written, what is answered, what is forgotten.

mod answering;
mod file;
mod forgetting;
mod waiting;

use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::engine::{Cause, Change, What};
use crate::keeper::Now;
use crate::keeper::records::Records as _;
use crate::policy::Action;
use crate::store::Store;

/// Long enough for a disk that does other things.
const LATE: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_hours(24);

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn change(seconds: u64, rule: &str, account: &str, what: What) -> Change {
    Change {
        at_ns: (1_700_000_000 + seconds) * 1_000_000_000 + 5_000_000,
        rule: rule.into(),
        key: 0xab,
        part: 0,
        what,
        event: Some(Cause {
            source: "192.0.2.7".parse().unwrap(),
            account: (!account.is_empty()).then(|| account.into()),
            path: Some("/login?next=/secret".into()),
            status: Some(401),
            owner: None,
        }),
    }
}

fn from(mut change: Change, source: &str, path: &str) -> Change {
    let event = change.event.as_mut().unwrap();
    event.source = source.parse().unwrap();
    event.path = Some(path.into());
    change
}

const REFUSED: What = What::Refused {
    action: Action::Reject,
    reason: None,
    simulated: false,
};

pub(super) fn run<R>(waiting: impl Future<Output = R>) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(waiting)
}

/// Opens a store that was read.
pub(super) fn open(directory: &Path) -> Store {
    Store::open(directory, Now::read()).unwrap()
}

/// Waits until all that was handed over is written, or lost.
fn written(audit: &Audit) {
    run(audit.written()).unwrap().unwrap();
}

pub(super) fn reader(directory: &TempDir) -> Reader {
    Reader::open(directory.path(), LATE).unwrap()
}

/// A directory with these written down, in a log that was begun in 1970.
fn filled(changes: impl IntoIterator<Item = Change>) -> TempDir {
    let directory = TempDir::new().unwrap();
    open(directory.path()).audit().record(changes);
    let connection = Connection::open(database(&directory)).unwrap();
    let begun = "UPDATE meta SET value = 0 WHERE key = 'audit_from_ms';";
    connection.execute_batch(begun).unwrap();
    directory
}

fn latest(directory: &TempDir, filter: &Filter, most: usize) -> Vec<Record> {
    let cursor = Cursor::Before(i64::MAX);
    let rows = reader(directory).rows(filter, cursor, most);
    rows.unwrap().records
}

fn of_account(account: &str) -> Filter {
    Filter {
        account: Some(account.to_owned()),
        ..Filter::default()
    }
}

pub(super) fn database(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("limiter.db")
}
