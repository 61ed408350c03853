//! The tables, and what the keeper has in them.

use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use limiter_common::block::Owner;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::audit;
use super::header::{APPLICATION, VERSION};
use crate::image::ListKind;
use crate::keeper::Now;
use crate::keeper::records::{Change, Everything, Saved, StoredBlock, StoredEntry, Written};

/// Times are nanoseconds: `until_mono_ns` since the machine started, as the
/// row `boot_id` says; others since 1970. An empty `limit_name` is none.
const TABLES: &str = "
CREATE TABLE meta(
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE blocks(
    network TEXT NOT NULL,
    limit_name TEXT NOT NULL,
    owner TEXT NOT NULL CHECK(owner IN ('operator', 'rule', 'kernel')),
    until_mono_ns INTEGER NOT NULL,
    dry INTEGER NOT NULL,
    since_ns INTEGER,
    uid INTEGER,
    reason TEXT,
    PRIMARY KEY(network, limit_name, owner)
) STRICT, WITHOUT ROWID;
CREATE TABLE entries(
    list TEXT NOT NULL CHECK(list IN ('allow', 'deny')),
    network TEXT NOT NULL,
    until_mono_ns INTEGER,
    since_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    reason TEXT,
    PRIMARY KEY(list, network)
) STRICT, WITHOUT ROWID;
";

const OWNERS: [Owner; 3] = [Owner::Operator, Owner::Rule, Owner::Kernel];
const LISTS: [ListKind; 2] = [ListKind::Allow, ListKind::Deny];

/// Makes the tables that a file of this version lacks, and the file ours, at once.
pub(super) fn create(connection: &mut Connection, version: u32) -> rusqlite::Result<()> {
    if version >= VERSION {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    if version == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    }
    for tables in audit::TABLES {
        transaction.execute_batch(tables)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Reads all there is; `None`: nothing was ever stored. Rows that cannot be
/// understood are counted, not told.
pub(super) fn read(
    connection: &Connection,
    boot_id: &str,
) -> rusqlite::Result<Option<(Saved, usize)>> {
    let Some(boot) = meta::<String>(connection, "boot_id")? else {
        return Ok(None);
    };
    let number = |key| meta::<i64>(connection, key).map(Option::unwrap_or_default);
    let written = Written {
        is_this_boot: boot == boot_id && !boot_id.is_empty(),
        mono: duration(number("written_mono_ns")?),
        wall: time(number("written_wall_ns")?),
    };
    let mut strange = 0;
    let mut blocks = Vec::new();
    let mut all = connection.prepare("SELECT * FROM blocks")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        match block(row) {
            Ok(Some(block)) => blocks.push(block),
            Ok(None) | Err(_) => strange += 1,
        }
    }
    let mut entries = Vec::new();
    let mut all = connection.prepare("SELECT * FROM entries")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        match entry(row) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) | Err(_) => strange += 1,
        }
    }
    let all = Everything {
        lineage: number("lineage")?.cast_unsigned(),
        blocks_refused: u64::try_from(number("blocks_refused")?).unwrap_or(0),
        blocks,
        entries,
    };
    Ok(Some((Saved { written, all }, strange)))
}

/// Writes changes in turn, and notes when.
pub(super) fn write<'a>(
    transaction: &Transaction<'_>,
    changes: impl Iterator<Item = (&'a Change, Now)>,
    boot_id: &str,
) -> rusqlite::Result<()> {
    for (change, now) in changes {
        apply(transaction, change, now, boot_id)?;
        set(transaction, "written_mono_ns", nanos(now.mono))?;
        set(transaction, "written_wall_ns", since_1970(now.wall))?;
    }
    Ok(())
}

fn apply(
    transaction: &Transaction<'_>,
    change: &Change,
    now: Now,
    boot_id: &str,
) -> rusqlite::Result<()> {
    match change {
        Change::Blocks(blocks) => put_blocks(transaction, blocks),
        Change::Unblocked(network, limit) => {
            let sql = "DELETE FROM blocks WHERE network = ?1 AND limit_name = \
                       coalesce(?2, limit_name) AND owner <> 'kernel'";
            transaction.execute(sql, params![network.to_string(), limit])?;
            Ok(())
        }
        Change::KernelBlocks(blocks) => {
            transaction.execute("DELETE FROM blocks WHERE owner = 'kernel'", [])?;
            put_blocks(transaction, blocks)
        }
        Change::Entries(entries) => put_entries(transaction, entries),
        Change::Unlisted(list, networks) => {
            let sql = "DELETE FROM entries WHERE list = ? AND network = ?";
            let mut delete = transaction.prepare(sql)?;
            for network in networks {
                delete.execute(params![list.name(), network.to_string()])?;
            }
            Ok(())
        }
        Change::BlocksRefused(count) => set(transaction, "blocks_refused", whole(*count)),
        Change::Nothing => {
            let sql = "DELETE FROM blocks WHERE until_mono_ns <= ?";
            transaction.execute(sql, [nanos(now.mono)])?;
            Ok(())
        }
        Change::Everything(all) => {
            transaction.execute_batch("DELETE FROM blocks; DELETE FROM entries;")?;
            set(transaction, "boot_id", boot_id)?;
            set(transaction, "lineage", all.lineage.cast_signed())?;
            set(transaction, "blocks_refused", whole(all.blocks_refused))?;
            put_blocks(transaction, &all.blocks)?;
            put_entries(transaction, &all.entries)
        }
    }
}

fn put_blocks(transaction: &Transaction<'_>, blocks: &[StoredBlock]) -> rusqlite::Result<()> {
    // Beside one of the kernel's, a network has one block of each limit,
    // whoever made it.
    let sql = "DELETE FROM blocks WHERE network = ? AND limit_name = ? AND owner <> 'kernel'";
    let mut delete = transaction.prepare(sql)?;
    let sql = "INSERT OR REPLACE INTO blocks(network, limit_name, owner, until_mono_ns, dry, \
               since_ns, uid, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let mut insert = transaction.prepare(sql)?;
    for block in blocks {
        let network = block.network.to_string();
        let limit = block.limit.as_deref().unwrap_or_default();
        if block.owner != Owner::Kernel {
            delete.execute(params![network, limit])?;
        }
        insert.execute(params![
            network,
            limit,
            block.owner.name(),
            nanos(block.until),
            block.dry,
            block.since.map(since_1970),
            block.uid,
            block.reason,
        ])?;
    }
    Ok(())
}

fn put_entries(transaction: &Transaction<'_>, entries: &[StoredEntry]) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO entries(list, network, until_mono_ns, since_ns, uid, \
               reason) VALUES (?, ?, ?, ?, ?, ?)";
    let mut insert = transaction.prepare(sql)?;
    for entry in entries {
        insert.execute(params![
            entry.list.name(),
            entry.network.to_string(),
            entry.until.map(nanos),
            since_1970(entry.since),
            entry.uid,
            entry.reason,
        ])?;
    }
    Ok(())
}

/// A block of a row, if its words are known.
fn block(row: &Row<'_>) -> rusqlite::Result<Option<StoredBlock>> {
    let owner: String = row.get("owner")?;
    let limit: String = row.get("limit_name")?;
    let owner = OWNERS.into_iter().find(|it| it.name() == owner);
    let (Some(network), Some(owner)) = (network(row)?, owner) else {
        return Ok(None);
    };
    Ok(Some(StoredBlock {
        network,
        limit: Some(limit).filter(|limit| !limit.is_empty()),
        owner,
        until: duration(row.get("until_mono_ns")?),
        dry: row.get("dry")?,
        since: row.get::<_, Option<i64>>("since_ns")?.map(time),
        uid: row.get("uid")?,
        reason: row.get("reason")?,
    }))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Option<StoredEntry>> {
    let list: String = row.get("list")?;
    let list = LISTS.into_iter().find(|it| it.name() == list);
    let (Some(network), Some(list)) = (network(row)?, list) else {
        return Ok(None);
    };
    let until: Option<i64> = row.get("until_mono_ns")?;
    Ok(Some(StoredEntry {
        list,
        network,
        until: until.map(duration),
        since: time(row.get("since_ns")?),
        uid: row.get("uid")?,
        reason: row.get("reason")?,
    }))
}

/// A network without bits outside of its prefix.
fn network(row: &Row<'_>) -> rusqlite::Result<Option<IpNet>> {
    let text: String = row.get("network")?;
    Ok(crate::policy::parse_network(&text).ok())
}

fn meta<T: rusqlite::types::FromSql>(
    connection: &Connection,
    key: &str,
) -> rusqlite::Result<Option<T>> {
    let sql = "SELECT value FROM meta WHERE key = ?";
    let value = connection.query_row(sql, [key], |row| row.get(0));
    value.optional()
}

fn set(
    transaction: &Transaction<'_>,
    key: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)";
    transaction.execute(sql, params![key, value]).map(drop)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

fn since_1970(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    nanos(since.unwrap_or_default())
}

fn time(nanos: i64) -> SystemTime {
    let time = SystemTime::UNIX_EPOCH.checked_add(duration(nanos));
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
