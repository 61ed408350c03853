//! What the rules hold against whom, beside the log: actions, rungs and blocks that are
//! to survive the daemon.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::{HeldChange, Snapshot};

/// One row for each key and each block, so that what has not changed is not written
/// again.
pub(super) const TABLE: &str = "
CREATE TABLE held(
    kind TEXT NOT NULL CHECK(kind IN ('key', 'block')),
    rule TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY(kind, rule, name)
) STRICT, WITHOUT ROWID;
";

/// Stands once all that the rules hold was stored in this file: changes are then all
/// that is missing.
const WHOLE: &str = "held_is_whole";

/// Keys and blocks that wait at most, unless they are all there are.
pub(super) const MOST: usize = 262_144;

/// Changes of one transaction.
const STEP: usize = 8_192;

const KEY: &str = "key";
const BLOCK: &str = "block";

/// What a row is about: its kind, its rule, and the key or the source.
type Name = (&'static str, String, String);

/// A change and what it is about.
pub(super) type Named = (Name, HeldChange);

/// What is to be stored: of each key and each block the latest.
#[derive(Debug, Default)]
pub(in crate::store) struct Waiting {
    changes: HashMap<Name, HeldChange>,
    /// In place of all that is stored.
    is_all: bool,
    /// Changes were lost: only all at once makes up for them.
    is_broken: bool,
}

impl Waiting {
    /// All there is, in place of what is stored.
    pub(super) fn all(snapshot: Snapshot) -> Self {
        let keys = snapshot.keys.into_iter().map(HeldChange::Key);
        let blocks = snapshot.blocks.into_iter().map(HeldChange::Block);
        Self {
            changes: keys.chain(blocks).map(named).collect(),
            is_all: true,
            is_broken: false,
        }
    }

    /// Takes in a change. Where too many wait, they are given up.
    pub(super) fn change(&mut self, (name, change): Named) {
        if self.is_broken {
            return;
        }
        if self.is_all && is_gone(&change) {
            self.changes.remove(&name);
            return;
        }
        self.changes.insert(name, change);
        if self.changes.len() > MOST && !self.is_all {
            self.give_up();
        }
    }

    /// Gives up what waits, until there is all at once again.
    pub(in crate::store) fn give_up(&mut self) {
        if !self.is_all {
            self.changes = HashMap::new();
            self.is_broken = true;
        }
    }

    /// Whether all there is must be handed over.
    pub(super) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether this is all there is.
    pub(in crate::store) const fn is_all(&self) -> bool {
        self.is_all
    }

    /// Whether there is something to write.
    pub(super) fn is_due(&self) -> bool {
        self.is_all || !self.changes.is_empty()
    }

    /// What is to be written next. All there is, is written at once: else a daemon that is
    /// killed meanwhile would leave a mixture.
    pub(super) fn take(&mut self) -> Self {
        if self.is_all || self.changes.len() <= STEP {
            let rest = Self {
                is_broken: self.is_broken,
                ..Self::default()
            };
            return std::mem::replace(self, rest);
        }
        let names: Vec<Name> = self.changes.keys().take(STEP).cloned().collect();
        let taken = names.iter().filter_map(|it| self.changes.remove_entry(it));
        Self {
            changes: taken.collect(),
            ..Self::default()
        }
    }

    /// Takes back what could not be written; what came after it counts.
    pub(super) fn give_back(&mut self, before: Self) {
        if self.is_all || self.is_broken {
            return;
        }
        let after = std::mem::replace(self, before);
        for change in after.changes {
            self.change(change);
        }
    }
}

/// Writes what waited; all of it or, after an error, nothing.
pub(super) fn write(transaction: &Transaction<'_>, waiting: &Waiting) -> rusqlite::Result<()> {
    let mut unchanged = HashSet::new();
    if waiting.is_all {
        unchanged = remove_others(transaction, waiting)?;
        let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?, 1)";
        transaction.execute(sql, [WHOLE])?;
    }
    let sql = "INSERT OR REPLACE INTO held(kind, rule, name, value) VALUES (?, ?, ?, ?)";
    let mut insert = transaction.prepare(sql)?;
    let sql = "DELETE FROM held WHERE kind = ? AND rule = ? AND name = ?";
    let mut delete = transaction.prepare(sql)?;
    for (name, change) in &waiting.changes {
        let (kind, rule, of) = name;
        match value(change) {
            Some(_) if unchanged.contains(name) => {}
            Some(value) => {
                insert.execute(params![kind, rule, of, value])?;
            }
            None => {
                delete.execute(params![kind, rule, of])?;
            }
        }
    }
    Ok(())
}

/// Deletes what is stored and not among all there is; gives what is stored as it is.
fn remove_others(transaction: &Transaction<'_>, all: &Waiting) -> rusqlite::Result<HashSet<Name>> {
    let (mut unchanged, mut gone) = (HashSet::new(), Vec::new());
    for kind in [KEY, BLOCK] {
        let mut stored =
            transaction.prepare("SELECT rule, name, value FROM held WHERE kind = ?")?;
        let mut rows = stored.query([kind])?;
        while let Some(row) = rows.next()? {
            let name = (kind, row.get(0)?, row.get(1)?);
            match all.changes.get(&name).and_then(value) {
                None => gone.push(name),
                Some(value) if value == row.get::<_, String>(2)? => {
                    unchanged.insert(name);
                }
                Some(_) => {}
            }
        }
    }
    let sql = "DELETE FROM held WHERE kind = ? AND rule = ? AND name = ?";
    let mut delete = transaction.prepare(sql)?;
    for (kind, rule, name) in gone {
        delete.execute(params![kind, rule, name])?;
    }
    Ok(unchanged)
}

/// Whether all that the rules hold was ever stored in this file.
pub(super) fn is_whole(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM meta WHERE key = ?";
    let found = connection.query_row(sql, [WHOLE], |_| Ok(()));
    Ok(found.optional()?.is_some())
}

/// What is stored, but for rows that cannot be understood.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        keys: read_kind(connection, KEY)?,
        blocks: read_kind(connection, BLOCK)?,
    })
}

fn read_kind<T: DeserializeOwned>(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<T>> {
    let mut all = connection.prepare("SELECT value FROM held WHERE kind = ?")?;
    let mut rows = all.query([kind])?;
    let mut held = Vec::new();
    while let Some(row) = rows.next()? {
        held.extend(serde_json::from_str(&row.get::<_, String>(0)?));
    }
    Ok(held)
}

/// A change with its name.
pub(super) fn named(change: HeldChange) -> Named {
    let name = match &change {
        HeldChange::Key(key) => (KEY, key.rule.clone(), key.key.clone()),
        HeldChange::KeyGone { rule, key } => (KEY, rule.clone(), key.clone()),
        HeldChange::Block(block) => (BLOCK, block.rule.clone(), block.source.to_string()),
        HeldChange::BlockGone { rule, source } => (BLOCK, rule.clone(), source.to_string()),
    };
    (name, change)
}

const fn is_gone(change: &HeldChange) -> bool {
    matches!(
        change,
        HeldChange::KeyGone { .. } | HeldChange::BlockGone { .. }
    )
}

/// How a row is stored; `None`: not any more.
fn value(change: &HeldChange) -> Option<String> {
    match change {
        HeldChange::Key(key) => Some(json(key)),
        HeldChange::Block(block) => Some(json(block)),
        HeldChange::KeyGone { .. } | HeldChange::BlockGone { .. } => None,
    }
}

/// Numbers, texts and lists of them always have a form in JSON.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
