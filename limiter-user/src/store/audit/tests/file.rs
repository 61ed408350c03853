//! Files that are of before, locked, full or damaged.

use std::fs;

use super::*;
use crate::keeper::records::{self, Everything};

/// A database of the version before gets a log, and keeps what it has.
#[test]
fn a_database_without_a_log_gets_one() {
    let directory = TempDir::new().unwrap();
    let mut store = open(directory.path());
    let all = Everything {
        blocks_refused: 5,
        ..Everything::default()
    };
    store.hand_over(records::Change::Everything(all), Now::read());
    drop(store);
    let connection = Connection::open(database(&directory)).unwrap();
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'audit%'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(tables.len(), 6);
    connection.execute_batch("DROP TABLE held;").unwrap();
    for table in tables {
        connection
            .execute_batch(&format!("DROP TABLE {table};"))
            .unwrap();
    }
    let before = "PRAGMA user_version = 1000; DELETE FROM meta WHERE key LIKE 'audit%';";
    connection.execute_batch(before).unwrap();
    drop(connection);
    assert!(matches!(
        Reader::open(directory.path(), LATE),
        Err(AuditError::None(_))
    ));
    let mut store = open(directory.path());
    assert_eq!(store.saved().unwrap().all.blocks_refused, 5);
    store.audit().record([change(0, "r", "", What::Counted)]);
    drop(store);
    assert_eq!(
        reader(&directory).count(&Filter::default()).unwrap().count,
        1
    );
    let connection = Connection::open(database(&directory)).unwrap();
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 1_001);
}

/// Others hold the file; blocks are stored and rows written once they let go.
#[test]
fn a_locked_database_is_waited_for() {
    let directory = filled([change(0, "r", "", What::Counted)]);
    let store = open(directory.path());
    let audit = store.audit();
    let connection = Connection::open(database(&directory)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE;").unwrap();
    audit.record([change(1, "r", "", What::Counted)]);
    let error = run(audit.erase("x")).unwrap().unwrap_err();
    assert!(error.contains("locked"), "{error}");
    let health = audit.health();
    assert_eq!((health.waiting, health.dropped), (1, 0));
    assert!(health.trouble.unwrap().contains("`fuser` names it"));
    connection.execute_batch("ROLLBACK;").unwrap();
    written(&audit);
    assert_eq!((audit.health().trouble, audit.health().waiting), (None, 0));
    assert_eq!(
        reader(&directory).count(&Filter::default()).unwrap().count,
        2
    );
}

/// A disk without room: said, and made good.
#[test]
fn a_full_database_is_said() {
    let directory = filled([change(0, "r", "", What::Counted)]);
    let store = open(directory.path());
    let audit = store.audit();
    // Until it is written again, rows stay where they are.
    let connection = Connection::open(database(&directory)).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON audit \
                BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END;";
    connection.execute_batch(full).unwrap();
    audit.record([change(1, "r", "", What::Counted)]);
    let error = run(audit.erase("x")).unwrap().unwrap_err();
    assert!(error.contains("is full"), "{error}");
    assert_eq!(store.trouble(), None, "blocks are stored all the same");
    connection.execute_batch("DROP TRIGGER full;").unwrap();
    drop(connection);
    written(&audit);
    assert_eq!(
        reader(&directory).count(&Filter::default()).unwrap().count,
        2
    );
}

/// Damage inside the log is met when it is written: then another file is begun, and the
/// keeper is told to store everything anew.
#[test]
fn a_damaged_log_is_moved_aside() {
    let directory = filled((0..20_000).map(|at| change(at, "r", "ann", What::Counted)));
    let connection = Connection::open(database(&directory)).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'audit_by_account'";
    let root: u32 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(connection);
    let store = open(directory.path());
    let audit = store.audit();
    written(&audit);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(database(&directory))
        .unwrap();
    std::io::Seek::seek(
        &mut file,
        std::io::SeekFrom::Start(u64::from(root - 1) * 4_096),
    )
    .unwrap();
    std::io::Write::write_all(&mut file, &[0xa5; 4_096]).unwrap();
    let mut other = Connection::open(database(&directory)).unwrap();
    // What the writer has in memory is not valid any more.
    let touch = other.transaction().unwrap();
    touch
        .execute("INSERT INTO meta VALUES ('x', 1)", [])
        .unwrap();
    touch.commit().unwrap();
    drop(other);
    audit.record([change(30_000, "r", "ann", What::Counted)]);
    let error = run(audit.erase("x")).unwrap().unwrap_err();
    assert!(error.contains("malformed"), "{error}");
    assert!(store.trouble().unwrap().contains("malformed"));
    written(&audit);
    assert_eq!(
        reader(&directory).count(&Filter::default()).unwrap().count,
        1
    );
    let names = fs::read_dir(directory.path()).unwrap();
    let is_aside = |name: String| {
        name.contains("corrupt-") && !name.contains("-wal") && !name.contains("-shm")
    };
    let aside =
        names.filter(|it| is_aside(it.as_ref().unwrap().file_name().into_string().unwrap()));
    assert_eq!(aside.count(), 1);
}
