//! What is deleted: by age and by size. In small steps, so that whatever is to
//! be written need not wait.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::log::Log;
use super::tables::{self, CHUNK_ROWS};

/// Rows that are deleted at once.
pub(super) const STEP: i64 = 8_192;

/// How finely age is measured.
const GRAIN_MS: i64 = 60_000;

/// How much of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For how long.
    pub age: Duration,
    /// How large the database may be, in bytes. The oldest rows go first.
    pub bytes: u64,
}

impl Log {
    /// Deletes some of what is to be kept no longer at `now_ms`; whether there may be more.
    pub(in crate::store) fn forget(
        &self,
        transaction: &Transaction<'_>,
        bounds: Bounds,
        now_ms: i64,
    ) -> rusqlite::Result<bool> {
        if self.drop_empty_chunk(transaction)? {
            return Ok(true);
        }
        if used_bytes(transaction)? > bounds.bytes && forget_oldest(transaction, now_ms)? {
            return Ok(true);
        }
        let age_ms = i64::try_from(bounds.age.as_millis()).unwrap_or(i64::MAX);
        let before_ms = now_ms.saturating_sub(age_ms);
        forget_before(transaction, before_ms - before_ms.rem_euclid(GRAIN_MS))
    }

    /// Removes what is left of the oldest chunk, once it has no rows; whether it had none.
    fn drop_empty_chunk(&self, transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
        let sql = "SELECT min(chunk) FROM audit_chunk";
        let oldest: Option<i64> = transaction.query_row(sql, [], |row| row.get(0))?;
        let Some(oldest) = oldest.filter(|oldest| *oldest < self.chunk()) else {
            return Ok(false);
        };
        let sql = "SELECT 1 FROM audit WHERE id >= ? AND id < ? LIMIT 1";
        let range = [oldest * CHUNK_ROWS, (oldest + 1) * CHUNK_ROWS];
        let row: Option<i64> = transaction
            .query_row(sql, range, |row| row.get(0))
            .optional()?;
        if row.is_some() {
            return Ok(false);
        }
        let sql = "DELETE FROM audit_path WHERE chunk = ?1 AND path IN \
                   (SELECT path FROM audit_path WHERE chunk = ?1 ORDER BY path LIMIT ?2)";
        if transaction.execute(sql, [oldest, STEP])? == 0 {
            transaction.execute("DELETE FROM audit_chunk WHERE chunk = ?", [oldest])?;
        }
        Ok(true)
    }
}

/// The largest database that is written anew, in bytes in use. It takes some ten seconds.
const MOST_REWRITTEN: u64 = 4 << 30;

/// Writes the file anew. The library overwrites what is deleted, but not the copies that
/// it leaves in unused parts of a page where it moves rows from one to another.
pub(in crate::store) fn rewrite(connection: &Connection) -> rusqlite::Result<()> {
    match used_bytes(connection)? > MOST_REWRITTEN {
        true => Ok(()),
        false => connection.execute_batch("VACUUM"),
    }
}

/// Writes what was deleted into the file and empties what is written before it; whether
/// nobody was in the way.
pub(in crate::store) fn wipe(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    connection.busy_timeout(crate::store::database::BUSY)?;
    busy.map(|busy: i64| busy == 0)
}

/// What of the file is in use.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(pages * number("PRAGMA page_size")?).unwrap_or(0))
}

/// Whether there was something to forget.
fn forget_oldest(transaction: &Transaction<'_>, now_ms: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT max(id), max(at_ms) FROM (SELECT id, at_ms FROM audit ORDER BY id LIMIT ?)";
    let (last, last_ms): (Option<i64>, Option<i64>) =
        transaction.query_row(sql, [STEP], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(last), Some(last_ms)) = (last, last_ms) else {
        return Ok(false);
    };
    transaction.execute("DELETE FROM audit WHERE id <= ?", [last])?;
    // A row of a clock that was wrong may have a time that is yet to come.
    tables::set_from_ms(transaction, last_ms.min(now_ms).saturating_add(1))?;
    Ok(true)
}

/// Whether there may be more.
fn forget_before(transaction: &Transaction<'_>, before_ms: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT chunk FROM audit_chunk WHERE first_ms < ? ORDER BY chunk LIMIT 1";
    let chunk: Option<i64> = transaction
        .query_row(sql, [before_ms], |row| row.get(0))
        .optional()?;
    let Some(chunk) = chunk else {
        let sql = "DELETE FROM audit_gap WHERE last_ms < ?";
        transaction.execute(sql, [before_ms])?;
        let sql = "DELETE FROM audit_account WHERE hash IN \
                   (SELECT hash FROM audit_account WHERE seen_ms < ? LIMIT ?)";
        return Ok(transaction.execute(sql, [before_ms, STEP])? > 0);
    };
    let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit \
               WHERE id >= ? AND id < ? AND at_ms < ? ORDER BY id LIMIT ?)";
    let (from, to) = (chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS);
    let rows = transaction.execute(sql, [from, to, before_ms, STEP])?;
    if (rows as i64) < STEP {
        let sql = "UPDATE audit_chunk SET first_ms = ? WHERE chunk = ?";
        transaction.execute(sql, [before_ms, chunk])?;
    }
    tables::set_from_ms(transaction, before_ms)?;
    Ok(true)
}
