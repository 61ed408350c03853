//! Why nothing is stored, and what to do.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why nothing is stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("cannot {what} {path}: {source}; mend that, or name another state.directory")]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "another process keeps its state in {0}; give each daemon a state.directory of its own"
    )]
    InUse(PathBuf),
    #[error(
        "{path} was written by a later version of limiter (its format is {major}, and {own} is \
         the latest known here), and is left as it is; run that version, or move the file away"
    )]
    Newer { path: PathBuf, major: u32, own: u32 },
    #[error("{0} is another program's database, and is left as it is; move it away")]
    Foreign(PathBuf),
    #[error("cannot {what} {path}: {}; {}", words(.source), help(.source))]
    Database {
        what: &'static str,
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("what was stored before is being put in force")]
    TakingBack,
    #[error("what was stored before cannot be read yet; `limiter status` says why")]
    NotRead,
}

impl StoreError {
    /// Whether the file is damaged, and another attempt would find it so again.
    pub(super) fn is_corruption(&self) -> bool {
        let Self::Database { source, .. } = self else {
            return false;
        };
        let code = source.sqlite_error_code();
        matches!(
            code,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
    }

    /// Whether the file may still be read.
    pub(super) fn is_about_writing(&self) -> bool {
        let Self::Database { source, .. } = self else {
            return matches!(self, Self::File { .. });
        };
        let code = source.sqlite_error_code();
        matches!(
            code,
            Some(
                ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
            )
        )
    }
}

/// What the library says, without the statement that failed.
fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

fn help(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on its file system",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "let the daemon write there, or name another state.directory"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "end what holds it (`fuser` names it)"
        }
        Some(ErrorCode::SystemIoFailure) => "look at the disk and its file system",
        _ => "move it away to begin anew",
    }
}
