//! Writing the log.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Statement, Transaction, params};
use siphasher::sip::SipHasher24;

use super::held;
use super::queue::{Batch, Gap};
use super::row::{self, Row};
use super::tables::{self, CHUNK_ROWS};
use crate::engine::Reason;
use crate::store::secret::Secret;

/// The file of the secret that accounts are hashed with.
pub(super) const SECRET: &str = "audit.key";

/// Where little happens, a chunk is closed after so long: what a question leaves out, it
/// leaves out by chunks.
const CHUNK_MS: i64 = 86_400_000;

/// Gaps that are no further apart are one.
const NEAR_MS: i64 = 60_000;

/// The log of an open database: what is known of it by heart.
#[derive(Debug)]
pub(in crate::store) struct Log {
    pub(super) accounts: AccountHash,
    /// The file has all that the rules hold, but for changes that wait.
    has_all_held: bool,
    rules: HashMap<Arc<str>, i64>,
    pub(super) paths: HashMap<Box<str>, i64>,
    /// The number of the next path of the chunk.
    next_path: i64,
    chunk: i64,
    /// When its first row was written.
    begun_ms: i64,
    /// Rows that were ever written into it.
    rows: i64,
}

/// How accounts are stored.
#[derive(Clone, Debug)]
pub(super) struct AccountHash(SipHasher24);

impl AccountHash {
    pub(super) fn new(secret: &Secret) -> Self {
        Self(SipHasher24::new_with_key(secret))
    }

    pub(super) fn of(&self, account: &str) -> i64 {
        self.0.hash(account.as_bytes()).cast_signed()
    }
}

impl Log {
    /// Reads what must be known to go on. All that came since `now_ms` will be written; at the
    /// start of a daemon, `is_start`, what the one before may have lost is noted.
    pub(in crate::store) fn open(
        connection: &Connection,
        secret: &Secret,
        now_ms: i64,
        is_start: bool,
    ) -> rusqlite::Result<Self> {
        begin(connection, now_ms)?;
        tables::mend_times(connection, now_ms)?;
        let was_open = tables::set_open(connection, true)?;
        let mut log = Self {
            accounts: AccountHash::new(secret),
            has_all_held: held::is_whole(connection)?,
            rules: HashMap::new(),
            paths: HashMap::new(),
            next_path: 0,
            chunk: 0,
            begun_ms: now_ms,
            rows: 0,
        };
        let sql = "SELECT chunk, first_ms, last_ms, rows FROM audit_chunk \
                   ORDER BY chunk DESC LIMIT 1";
        let last = connection.query_row(sql, [], |row| {
            log.chunk = row.get(0)?;
            log.begun_ms = row.get(1)?;
            log.rows = row.get(3)?;
            row.get::<_, i64>(2)
        });
        let last_ms = last.optional()?;
        if was_open && is_start {
            let lost = 0;
            let first_ms = last_ms.unwrap_or(now_ms).min(now_ms);
            let last_ms = now_ms;
            note_gap(
                connection,
                Gap {
                    first_ms,
                    last_ms,
                    lost,
                },
            )?;
        }
        let mut all = connection.prepare("SELECT name, rule FROM audit_rule")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            log.rules
                .insert(row.get::<_, String>(0)?.into(), row.get(1)?);
        }
        let mut all = connection.prepare("SELECT text, path FROM audit_path WHERE chunk = ?")?;
        let mut rows = all.query([log.chunk])?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(1)?;
            log.paths.insert(row.get::<_, String>(0)?.into(), number);
            log.next_path = log.next_path.max(number.saturating_add(1));
        }
        Ok(log)
    }

    /// The chunk that is written to.
    pub(super) const fn chunk(&self) -> i64 {
        self.chunk
    }

    /// Writes a batch, but for its erasures. After an error the log must be opened anew.
    pub(in crate::store) fn write(
        &mut self,
        transaction: &Transaction<'_>,
        batch: &Batch,
    ) -> rusqlite::Result<()> {
        let mut rest = batch.rows.as_slice();
        while let Some(first) = rest.first() {
            let is_old = first.at_ms.saturating_sub(self.begun_ms) > CHUNK_MS;
            if self.rows >= CHUNK_ROWS || self.rows > 0 && is_old {
                self.chunk += 1;
                self.rows = 0;
                self.paths.clear();
                self.next_path = 0;
            }
            if self.rows == 0 {
                self.begun_ms = first.at_ms;
            }
            let room = usize::try_from(CHUNK_ROWS - self.rows).unwrap_or(0);
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.write_rows(transaction, now)?;
            rest = later;
        }
        let sql = "INSERT INTO audit_account(hash, name, seen_ms) VALUES (?, ?, ?) \
                   ON CONFLICT DO UPDATE SET seen_ms = max(seen_ms, excluded.seen_ms)";
        let mut insert = transaction.prepare(sql)?;
        for (account, at_ms) in &batch.known {
            insert.execute(params![self.accounts.of(account), account, at_ms])?;
        }
        if let Some(gap) = batch.gap {
            note_gap(transaction, gap)?;
        }
        held::write(transaction, &batch.held)?;
        self.has_all_held |= batch.held.is_all();
        Ok(())
    }

    /// Whether the file has all that the rules hold, but for changes that wait.
    pub(in crate::store) const fn has_all_held(&self) -> bool {
        self.has_all_held
    }

    fn write_rows(&mut self, transaction: &Transaction<'_>, rows: &[Row]) -> rusqlite::Result<()> {
        let sql = "INSERT INTO audit(id, chunk, at_ms, kind, action, simulated, rule, key, source, \
                   account, path, status, tier, rung, until_ms, notify_owner, uid, hand_order, \
                   subject, detail, reason, count) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut insert = transaction.prepare(sql)?;
        let sql = "INSERT INTO audit_path(chunk, path, text) VALUES (?, ?, ?)";
        let mut name_path = transaction.prepare(sql)?;
        for row in rows {
            self.write_row(transaction, &mut insert, &mut name_path, row)?;
        }
        let times = || rows.iter().map(|row| row.at_ms);
        let sql = "INSERT INTO audit_chunk(chunk, first_ms, last_ms, rows) VALUES (?, ?, ?, ?) \
                   ON CONFLICT DO UPDATE SET first_ms = min(first_ms, excluded.first_ms), \
                   last_ms = max(last_ms, excluded.last_ms), rows = excluded.rows";
        let (first_ms, last_ms) = (times().min(), times().max());
        transaction.execute(sql, params![self.chunk, first_ms, last_ms, self.rows])?;
        Ok(())
    }

    fn write_row(
        &mut self,
        transaction: &Transaction<'_>,
        insert: &mut Statement<'_>,
        name_path: &mut Statement<'_>,
        row: &Row,
    ) -> rusqlite::Result<()> {
        let rule = match &row.rule {
            Some(name) => Some(self.rule(transaction, name)?),
            None => None,
        };
        let path = match &row.path {
            Some(path) => Some(self.path(name_path, path)?),
            None => None,
        };
        let hand = row.hand.as_deref();
        insert.execute(params![
            self.chunk * CHUNK_ROWS + self.rows,
            self.chunk,
            row.at_ms,
            row.kind as i64,
            row::action_number(row.action),
            row.simulated,
            rule,
            row.key.map(u128::to_be_bytes),
            row.source.map(row::octets),
            row.account
                .as_ref()
                .map(|account| self.accounts.of(account)),
            path,
            row.status,
            row.tier,
            row.rung,
            row.until_ms,
            row.notify_owner,
            hand.map(|hand| hand.uid),
            hand.map(|hand| hand.order),
            hand.and_then(|hand| hand.subject.as_deref()),
            hand.and_then(|hand| hand.detail.as_deref()),
            match hand {
                Some(hand) => hand.reason.as_deref(),
                None => row.refused_for.map(Reason::name),
            },
            i64::try_from(row.count).unwrap_or(i64::MAX),
        ])?;
        self.rows += 1;
        Ok(())
    }

    fn rule(&mut self, transaction: &Transaction<'_>, name: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some(rule) = self.rules.get(name) {
            return Ok(*rule);
        }
        transaction.execute("INSERT INTO audit_rule(name) VALUES (?)", [name.as_ref()])?;
        let rule = transaction.last_insert_rowid();
        self.rules.insert(Arc::clone(name), rule);
        Ok(rule)
    }

    fn path(&mut self, name_path: &mut Statement<'_>, path: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.paths.get(path) {
            return Ok(*number);
        }
        let number = self.next_path;
        name_path.execute(params![self.chunk, number, path])?;
        self.paths.insert(path.into(), number);
        self.next_path += 1;
        Ok(number)
    }
}

/// Notes since when there is a log, if there was none.
pub(in crate::store) fn begin(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    match tables::has_begun(connection)? {
        true => Ok(()),
        false => tables::set_from_ms(connection, now_ms),
    }
}

/// Notes that the daemon ends orderly.
pub(in crate::store) fn close(connection: &Connection) -> rusqlite::Result<()> {
    tables::set_open(connection, false).map(drop)
}

/// Notes rows that are missing, with those before if they are near.
fn note_gap(connection: &Connection, gap: Gap) -> rusqlite::Result<()> {
    let lost = i64::try_from(gap.lost).unwrap_or(i64::MAX);
    let sql = "UPDATE audit_gap SET first_ms = min(first_ms, ?1), last_ms = max(last_ms, ?2), \
               lost = lost + ?3 WHERE rowid = (SELECT max(rowid) FROM audit_gap) \
               AND last_ms >= ?1 - ?4 AND first_ms <= ?2 + ?4";
    if connection.execute(sql, params![gap.first_ms, gap.last_ms, lost, NEAR_MS])? == 0 {
        let sql = "INSERT INTO audit_gap(first_ms, last_ms, lost) VALUES (?, ?, ?)";
        connection.execute(sql, params![gap.first_ms, gap.last_ms, lost])?;
    }
    Ok(())
}
