//! What the rules hold against whom, beside the log: actions, rungs and blocks that are
//! to survive the daemon.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use siphasher::sip::SipHasher24;

use crate::engine::Snapshot;

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

/// What is stored, by heart: the hash of the value of each row.
#[derive(Debug)]
pub(super) struct Held(HashMap<Name, u64>);

type Name = (&'static str, Box<str>, Box<str>);

const KEY: &str = "key";
const BLOCK: &str = "block";

impl Held {
    /// Learns what is stored.
    pub(super) fn learn(connection: &Connection) -> rusqlite::Result<Self> {
        let mut held = HashMap::new();
        for kind in [KEY, BLOCK] {
            let sql = "SELECT rule, name, value FROM held WHERE kind = ?";
            let mut all = connection.prepare(sql)?;
            let mut rows = all.query([kind])?;
            while let Some(row) = rows.next()? {
                let (rule, name): (Box<str>, Box<str>) = (row.get(0)?, row.get(1)?);
                let value: String = row.get(2)?;
                held.insert((kind, rule, name), hash(&value));
            }
        }
        Ok(Self(held))
    }

    /// Stores a snapshot in place of the one before.
    pub(super) fn store(
        &mut self,
        transaction: &Transaction<'_>,
        snapshot: &Snapshot,
    ) -> rusqlite::Result<()> {
        let mut gone = std::mem::take(&mut self.0);
        let sql = "INSERT OR REPLACE INTO held(kind, rule, name, value) VALUES (?, ?, ?, ?)";
        let mut insert = transaction.prepare(sql)?;
        let mut put = |kind, rule: &str, name: Box<str>, value: String| {
            let name = (kind, rule.into(), name);
            let hash = hash(&value);
            if gone.remove(&name) != Some(hash) {
                insert.execute(params![name.0, name.1, name.2, value])?;
            }
            self.0.insert(name, hash);
            Ok::<(), rusqlite::Error>(())
        };
        for key in &snapshot.keys {
            put(KEY, &key.rule, key.key.as_str().into(), json(key))?;
        }
        for block in &snapshot.blocks {
            let name = block.source.to_string().into();
            put(BLOCK, &block.rule, name, json(block))?;
        }
        let sql = "DELETE FROM held WHERE kind = ? AND rule = ? AND name = ?";
        let mut delete = transaction.prepare(sql)?;
        for (kind, rule, name) in gone.into_keys() {
            delete.execute(params![kind, rule, name])?;
        }
        Ok(())
    }
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

/// Numbers, texts and lists of them always have a form in JSON.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn hash(value: &str) -> u64 {
    SipHasher24::new().hash(value.as_bytes())
}
