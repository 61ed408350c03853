//! Questions to the log, over a connection of their own. They hold up nobody, and take
//! no longer than they are given.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params_from_iter};

use super::answer::{AuditError, Counted, Coverage, Group, Share, Sums, Top};
use super::filter::{Field, Filter, Selection};
use super::held;
use super::log::{AccountHash, SECRET};
use super::record::{self, COLUMNS, Record};
use super::tables;
use crate::engine::Snapshot;
use crate::store::database;
use crate::store::secret::find_secret;

/// How many steps of the database's machine lie between two looks at the clock.
const LOOK: i32 = 10_000;

/// A connection for questions.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    accounts: Option<AccountHash>,
    within: Duration,
}

impl Reader {
    /// Opens the log of a state directory; each answer may take so long.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(directory: &Path, within: Duration) -> Result<Self, AuditError> {
        let secret = find_secret(directory, SECRET).map_err(AuditError::Unreadable)?;
        let path = directory.join(database::FILE);
        if !path.try_exists().map_err(AuditError::Unreadable)? {
            return Err(AuditError::None(directory.to_owned()));
        }
        let connection = database::connect_read_only(&path).map_err(AuditError::Database)?;
        let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'audit_chunk'";
        let found = connection.query_row(sql, [], |_| Ok(())).optional();
        if found.map_err(AuditError::Database)?.is_none() {
            return Err(AuditError::None(directory.to_owned()));
        }
        Ok(Self {
            connection,
            accounts: secret.as_ref().map(AccountHash::new),
            within,
        })
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`AuditError::TooLong`], or the database cannot be read.
    pub fn count(&mut self, filter: &Filter) -> Result<Counted, AuditError> {
        self.timed(|it| {
            let selection = it.selection(filter)?;
            let what = "total(count), count(*)";
            let sql = selection.indexed(what, "audit_by_action", "");
            let mut sums = it.connection.prepare(&sql)?;
            let (mut count, mut rows) = (0, 0);
            for chunk in it.chunks(&selection, "ASC")? {
                let found = params_from_iter(selection.parameters(chunk));
                let (of_chunk, rows_of_chunk): (f64, i64) =
                    sums.query_row(found, |row| Ok((row.get(0)?, row.get(1)?)))?;
                count += of_chunk as u64;
                rows += rows_of_chunk.cast_unsigned();
            }
            let coverage = it.coverage(&selection)?;
            Ok(Counted {
                count,
                rows,
                coverage,
            })
        })
    }

    /// The values of a field that occur most often, `most` at most.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub fn top(&mut self, filter: &Filter, by: Field, most: usize) -> Result<Top, AuditError> {
        self.timed(|it| {
            let selection = it.selection(filter)?;
            let mut sums = Sums::default();
            // What the index is sorted by is counted without sorting.
            let (columns, index) = match by {
                Field::Source => ("source", "audit_by_source"),
                Field::Account => ("account", "audit_by_account"),
                Field::Rule => ("action, rule", "audit_by_action"),
                Field::Action => ("action", "audit_by_action"),
                Field::Path => ("action, rule, path", "audit_by_action"),
            };
            let what = format!("total(count), {columns}");
            let named = match by {
                Field::Source | Field::Account => format!("AND {columns} IS NOT NULL"),
                _ => String::new(),
            };
            let rest = format!("{named} GROUP BY {columns}");
            let sql = selection.indexed(&what, index, &rest);
            let mut of_chunk = it.connection.prepare(&sql)?;
            let sql = "SELECT text FROM audit_path WHERE chunk = ? AND path = ?";
            let mut path = it.connection.prepare(sql)?;
            let place = columns.split(',').count();
            for chunk in it.chunks(&selection, "ASC")? {
                let mut rows = of_chunk.query(params_from_iter(selection.parameters(chunk)))?;
                while let Some(row) = rows.next()? {
                    let group = match (by, row.get_ref(place)?) {
                        (Field::Path, ValueRef::Integer(number)) => {
                            let text = path.query_row([chunk, number], |row| row.get(0))?;
                            Group::Text(text)
                        }
                        (_, value) => Group::of(value),
                    };
                    sums.add(group, row.get::<_, f64>(0)? as u64);
                }
            }
            let (top, count, may_lack) = sums.top(most);
            let mut shares = Vec::new();
            for (group, count) in top {
                let value = it.name(by, group)?;
                shares.push(Share { value, count });
            }
            let coverage = it.coverage(&selection)?;
            Ok(Top {
                shares,
                count,
                may_lack,
                coverage,
            })
        })
    }

    /// The latest rows, the latest first, `most` at most.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub fn latest(
        &mut self,
        filter: &Filter,
        most: usize,
    ) -> Result<(Vec<Record>, Coverage), AuditError> {
        self.timed(|it| {
            let selection = it.selection(filter)?;
            let sql = selection.rows(COLUMNS, "ORDER BY id DESC LIMIT ?");
            let mut of_chunk = it.connection.prepare(&sql)?;
            let mut records = Vec::new();
            for chunk in it.chunks(&selection, "DESC")? {
                let mut parameters = selection.parameters(chunk);
                let room = i64::try_from(most - records.len()).unwrap_or(i64::MAX);
                parameters.push(Value::Integer(room));
                let mut rows = of_chunk.query(params_from_iter(parameters))?;
                while let Some(row) = rows.next()? {
                    records.extend(Record::read(row)?);
                }
                if records.len() >= most {
                    break;
                }
            }
            Ok((records, it.coverage(&selection)?))
        })
    }

    /// Writes every row as a line of JSON, in the order in which they were written; gives
    /// how many. The time it may take is that of each chunk of rows.
    ///
    /// # Errors
    /// As [`Self::count`]; [`AuditError::Output`].
    pub fn export(&mut self, filter: &Filter, out: &mut dyn Write) -> Result<u64, AuditError> {
        let (selection, chunks) = self.timed(|it| {
            let selection = it.selection(filter)?;
            let chunks = it.chunks(&selection, "ASC")?;
            Ok((selection, chunks))
        })?;
        let sql = selection.rows(COLUMNS, "ORDER BY id");
        let mut written = 0;
        for chunk in chunks {
            // Nothing is held while the output is waited for.
            let records = self.timed(|it| {
                let mut of_chunk = it.connection.prepare(&sql)?;
                let mut rows = of_chunk.query(params_from_iter(selection.parameters(chunk)))?;
                let mut records = Vec::new();
                while let Some(row) = rows.next()? {
                    records.extend(Record::read(row)?);
                }
                Ok(records)
            })?;
            for record in &records {
                serde_json::to_writer(&mut *out, record).map_err(std::io::Error::from)?;
                out.write_all(b"\n")?;
            }
            written += records.len() as u64;
        }
        out.flush()?;
        Ok(written)
    }

    /// What the rules held when it was stored last.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub fn held(&mut self) -> Result<Snapshot, AuditError> {
        self.timed(|it| held::read(&it.connection))
    }

    /// How far an answer about this filter can be relied on.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub fn covers(&mut self, filter: &Filter) -> Result<Coverage, AuditError> {
        self.timed(|it| it.coverage(&it.selection(filter)?))
    }

    /// Sees one state of the log throughout, and ends in time.
    fn timed<R>(
        &mut self,
        answer: impl FnOnce(&Self) -> rusqlite::Result<R>,
    ) -> Result<R, AuditError> {
        let within = self.within;
        let deadline = Instant::now() + within;
        let is_late = move || Instant::now() >= deadline;
        let answered = self
            .connection
            .progress_handler(LOOK, Some(is_late))
            .and_then(|()| {
                let transaction = self.connection.unchecked_transaction()?;
                let answered = answer(self);
                drop(transaction);
                answered
            });
        answered.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => AuditError::TooLong(within),
            _ => AuditError::Database(error),
        })
    }

    fn selection(&self, filter: &Filter) -> rusqlite::Result<Selection> {
        let rule = match &filter.rule {
            Some(name) => {
                let sql = "SELECT rule FROM audit_rule WHERE name = ?";
                let found = self.connection.query_row(sql, [name], |row| row.get(0));
                found.optional()?
            }
            None => None,
        };
        Ok(Selection::new(filter, rule, self.accounts.as_ref()))
    }

    fn chunks(&self, selection: &Selection, order: &str) -> rusqlite::Result<Vec<i64>> {
        let sql = format!(
            "SELECT chunk FROM audit_chunk WHERE last_ms >= ? AND first_ms < ? \
             ORDER BY chunk {order}"
        );
        let mut chunks = self.connection.prepare(&sql)?;
        let range = [selection.since_ms, selection.until_ms];
        chunks.query_map(range, |row| row.get(0))?.collect()
    }

    fn coverage(&self, selection: &Selection) -> rusqlite::Result<Coverage> {
        let sql = "SELECT max(last_ms), total(lost) FROM audit_gap \
                   WHERE last_ms >= ? AND first_ms < ?";
        let range = [selection.since_ms, selection.until_ms];
        let (gap_ms, lost): (Option<i64>, f64) = self
            .connection
            .query_row(sql, range, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut from_ms = tables::from_ms(&self.connection)?;
        if let Some(gap_ms) = gap_ms {
            from_ms = from_ms.max(gap_ms.saturating_add(1));
        }
        let is_complete = from_ms <= selection.since_ms;
        Ok(Coverage {
            complete_from: record::timestamp(from_ms.max(selection.since_ms)),
            is_complete,
            lost: lost as u64,
        })
    }

    fn name(&self, by: Field, group: Group) -> rusqlite::Result<Option<String>> {
        let number = match group {
            Group::None => return Ok(None),
            Group::Text(text) => return Ok(Some(text.into())),
            Group::Bytes(bytes) => {
                let address = record::address(Some(bytes.into()));
                return Ok(address.map(|address| address.to_string()));
            }
            Group::Number(number) => number,
        };
        let sql = match by {
            Field::Action => {
                let action = record::action(number);
                let name = action.and_then(|action| serde_json::to_value(action).ok());
                return Ok(name.and_then(|name| name.as_str().map(str::to_owned)));
            }
            Field::Account => "SELECT name FROM audit_account WHERE hash = ?",
            _ => "SELECT name FROM audit_rule WHERE rule = ?",
        };
        let name = self.connection.query_row(sql, [number], |row| row.get(0));
        let hash = || format!("#{}", record::hash_text(number));
        Ok(Some(name.optional()?.unwrap_or_else(hash)))
    }
}
