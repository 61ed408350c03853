//! Questions to the log, over a connection of their own. They hold up nobody, and take
//! no longer than they are given.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params_from_iter};

use super::answer::{AuditError, Coverage, Group, Sums};
use super::filter::{Field, Filter, Selection};
use super::held;
use super::log::{AccountHash, SECRET};
use super::question::{Counted, Cursor, Rows, Share, Top};
use super::record::{self, COLUMNS, Record};
use super::row::kind;
use super::tables::{self, CHUNK_ROWS};
use crate::engine::Snapshot;
use crate::store::database;
use crate::store::header::{APPLICATION, VERSION};
use crate::store::secret::find_secret;

/// How many steps of the database's machine lie between two looks at the clock.
const LOOK: i32 = 10_000;

/// Whoever asks holds up that what is written takes its place. Above so many bytes that
/// wait, nobody else may ask until it has.
const MOST_WAITING: u64 = 256 << 20;

/// Whether what is written to the log of a state directory must take its place before
/// more can be asked.
#[must_use]
pub fn is_behind(directory: &Path) -> bool {
    let waiting = std::fs::metadata(directory.join(database::WAITING));
    waiting.is_ok_and(|file| file.len() > MOST_WAITING)
}

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
        // Through the library only: it loses its locks where somebody else in this process
        // closes the file.
        let connection = database::connect_read_only(&path).map_err(AuditError::Database)?;
        let number = |sql| connection.query_row(sql, [], |row| row.get::<_, u32>(0));
        let application = number("PRAGMA application_id").map_err(AuditError::Database)?;
        let version = number("PRAGMA user_version").map_err(AuditError::Database)?;
        if version != 0 && application != APPLICATION || version / 1_000 > VERSION / 1_000 {
            return Err(AuditError::Foreign(path));
        }
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
            // In the order of the index: sorted by kind it takes much longer.
            let sql = selection.indexed("kind, count", "audit_by_action", "");
            let mut of_chunk = it.connection.prepare(&sql)?;
            let mut kinds = BTreeMap::new();
            let (mut count, mut rows) = (0_u64, 0);
            for chunk in it.chunks(&selection, "ASC")? {
                let mut found = of_chunk.query(params_from_iter(selection.parameters(chunk)))?;
                while let Some(row) = found.next()? {
                    let of_row = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
                    rows += 1;
                    count = count.saturating_add(of_row);
                    if let Some(kind) = kind(row.get(0)?) {
                        let of_kind: &mut u64 = kinds.entry(kind).or_default();
                        *of_kind = of_kind.saturating_add(of_row);
                    }
                }
            }
            let coverage = it.coverage(&selection)?;
            Ok(Counted {
                count,
                kinds,
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

    /// Rows, `most` at most; fewer where finding more would take too long.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub fn rows(
        &mut self,
        filter: &Filter,
        cursor: Cursor,
        most: usize,
    ) -> Result<Rows, AuditError> {
        let enough = Instant::now() + self.within / 2;
        self.timed(|it| {
            let selection = it.selection(filter)?;
            let (order, after, before) = match cursor {
                Cursor::Before(before) => ("DESC", i64::MIN, before),
                Cursor::After(after) => ("ASC", after, i64::MAX),
            };
            let rest = format!("AND id > ? AND id < ? ORDER BY id {order} LIMIT ?");
            let sql = selection.rows(COLUMNS, &rest);
            let mut of_chunk = it.connection.prepare(&sql)?;
            let (mut records, mut next) = (Vec::new(), None);
            let mut room = most;
            for chunk in it.chunks(&selection, order)? {
                let (first, last) = (chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS - 1);
                if last <= after || first >= before {
                    continue;
                }
                if Instant::now() >= enough && next.is_some() {
                    return it.page(&selection, records, next);
                }
                let mut parameters = selection.parameters(chunk);
                let bounds = [after, before, i64::try_from(room).unwrap_or(i64::MAX)];
                parameters.extend(bounds.map(Value::Integer));
                let mut rows = of_chunk.query(params_from_iter(parameters))?;
                while let Some(row) = rows.next()? {
                    room -= 1;
                    next = Some(row.get("id")?);
                    records.extend(Record::read(row)?);
                }
                if room == 0 {
                    return it.page(&selection, records, next);
                }
                next = Some(if order == "ASC" { last } else { first });
            }
            it.page(&selection, records, None)
        })
    }

    fn page(
        &self,
        selection: &Selection,
        records: Vec<Record>,
        next: Option<i64>,
    ) -> rusqlite::Result<Rows> {
        let coverage = self.coverage(selection)?;
        Ok(Rows {
            records,
            next,
            coverage,
        })
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
