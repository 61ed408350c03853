//! The tables of the log.
//!
//! Rows come in chunks of at most [`CHUNK_ROWS`], in the order in which they were
//! written, and every index begins with the chunk. So whatever is written touches the
//! pages of one chunk, however many rows there are and however the attacker spreads
//! them; what is deleted lies together; and a question about a month costs one look into
//! the index of each chunk.

use rusqlite::{Connection, OptionalExtension as _, params};

/// Rows of a chunk at most.
pub(super) const CHUNK_ROWS: i64 = 1 << 15;

/// Times are milliseconds since 1970. `rule` and `path` are of `audit_rule` and, within
/// the chunk, `audit_path`; `account` is a keyed hash; an `id` is never used again.
pub(super) const TABLES: &str = "
CREATE TABLE audit_chunk(
    chunk INTEGER PRIMARY KEY,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    rows INTEGER NOT NULL
) STRICT;
CREATE TABLE audit_rule(
    rule INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE audit_path(
    chunk INTEGER NOT NULL,
    path INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY(chunk, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit_account(
    hash INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_account_seen ON audit_account(seen_ms);
CREATE TABLE audit_gap(
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    lost INTEGER NOT NULL
) STRICT;
CREATE TABLE audit(
    id INTEGER PRIMARY KEY,
    chunk INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    action INTEGER NOT NULL,
    simulated INTEGER NOT NULL,
    rule INTEGER,
    key BLOB,
    source BLOB,
    account INTEGER,
    path INTEGER,
    status INTEGER,
    tier INTEGER,
    rung INTEGER,
    until_ms INTEGER,
    notify_owner INTEGER NOT NULL,
    uid INTEGER,
    hand_order TEXT,
    subject TEXT,
    detail TEXT,
    reason TEXT,
    count INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_by_account
    ON audit(chunk, account, at_ms, kind, action, simulated, rule, count)
    WHERE account IS NOT NULL;
CREATE INDEX audit_by_source
    ON audit(chunk, source, at_ms, kind, action, simulated, rule, count)
    WHERE source IS NOT NULL;
CREATE INDEX audit_by_action
    ON audit(chunk, action, rule, path, kind, simulated, at_ms, count);
CREATE INDEX audit_by_hand ON audit(chunk, at_ms) WHERE kind = 6;
";

/// Since when there is a log, or since when it has not forgotten, in milliseconds since
/// 1970.
const FROM: &str = "audit_from_ms";

/// Stands while a daemon writes, and is found by the next one if it did not end
/// orderly.
const OPEN: &str = "audit_open";

fn number(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT value FROM meta WHERE key = ?";
    connection
        .query_row(sql, [key], |row| row.get(0))
        .optional()
}

fn set(connection: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)";
    connection.execute(sql, params![key, value]).map(drop)
}

/// The time from which on nothing was forgotten.
pub(super) fn from_ms(connection: &Connection) -> rusqlite::Result<i64> {
    Ok(number(connection, FROM)?.unwrap_or(i64::MAX))
}

/// Notes that what was before is not all there any more.
pub(super) fn set_from_ms(connection: &Connection, from_ms: i64) -> rusqlite::Result<()> {
    let before = number(connection, FROM)?.unwrap_or(i64::MIN);
    match from_ms > before {
        true => set(connection, FROM, from_ms),
        false => Ok(()),
    }
}

/// Takes back what was noted by a clock that was ahead: else nothing would be complete
/// until then.
pub(super) fn mend_times(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE meta SET value = ?1 WHERE key = ?2 AND value > ?1";
    connection.execute(sql, params![now_ms, FROM])?;
    let sql = "UPDATE audit_gap SET first_ms = min(first_ms, ?1), last_ms = ?1 WHERE last_ms > ?1";
    connection.execute(sql, [now_ms])?;
    Ok(())
}

/// Notes whether a daemon writes; whether one did.
pub(super) fn set_open(connection: &Connection, is_open: bool) -> rusqlite::Result<bool> {
    let was_open = number(connection, OPEN)? == Some(1);
    if was_open != is_open {
        set(connection, OPEN, is_open.into())?;
    }
    Ok(was_open)
}

/// Whether there is a log already.
pub(super) fn has_begun(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(number(connection, FROM)?.is_some())
}
