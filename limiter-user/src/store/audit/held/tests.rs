//! What the rules hold, on real files: what a daemon that is killed leaves.

use std::ops::Range;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::engine::{HeldBlock, HeldKey};
use crate::keeper::records::Records as _;
use crate::store::audit::tests::{database, open, reader, run};
use crate::store::audit::{Audit, Reader};

fn key(number: u64, rungs: u64) -> HeldKey {
    HeldKey {
        rule: "lockout".to_owned(),
        key: format!("{number:032x}"),
        rungs,
        quiet_ns: u64::MAX,
        until_ns: vec![0, number],
        of: None,
    }
}

fn block(number: u64) -> HeldBlock {
    HeldBlock {
        rule: "login".to_owned(),
        source: format!("10.0.0.{number}/32").parse().unwrap(),
        until_ns: 7,
        part: 1,
        challenged: true,
    }
}

fn held(numbers: Range<u64>, rungs: u64) -> Snapshot {
    Snapshot {
        keys: numbers.clone().map(|number| key(number, rungs)).collect(),
        blocks: numbers.map(block).collect(),
    }
}

fn gone(number: u64) -> [HeldChange; 2] {
    let HeldKey { rule, key, .. } = key(number, 0);
    let HeldBlock {
        rule: of, source, ..
    } = block(number);
    let block = HeldChange::BlockGone { rule: of, source };
    [HeldChange::KeyGone { rule, key }, block]
}

/// What is stored, in an order of its own.
fn stored(directory: &TempDir) -> Snapshot {
    let mut held = reader(directory).held().unwrap();
    held.keys.sort_by_key(|it| it.key.clone());
    held.blocks.sort_by_key(|it| it.source);
    held
}

fn written(audit: &Audit) {
    run(audit.written()).unwrap().unwrap();
}

/// Over restarts; changes are of what was stored before.
#[test]
fn what_is_held_comes_back() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    store.audit().hold_all(held(10..20, 1));
    written(&store.audit());
    assert_eq!(stored(&directory), held(10..20, 1));
    store.audit().hold_all(held(15..25, 2));
    written(&store.audit());
    assert_eq!(stored(&directory), held(15..25, 2));
    drop(store);
    let store = open(directory.path());
    assert_eq!(stored(&directory), held(15..25, 2));
    let fewer = [20, 21, 22, 23, 24].into_iter().flat_map(gone);
    let more = [HeldChange::Key(key(15, 3)), HeldChange::Block(block(99))];
    store.audit().hold(fewer.chain(more));
    drop(store);
    let mut expected = held(15..20, 2);
    expected.keys[0].rungs = 3;
    expected.blocks.push(block(99));
    assert_eq!(stored(&directory), expected);
}

/// Of each key the latest, whatever came before.
#[test]
fn the_latest_state_counts() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let audit = store.audit();
    audit.hold_all(Snapshot::default());
    audit.hold((0..9).map(|rungs| HeldChange::Key(key(1, rungs))));
    audit.hold(gone(2));
    audit.hold([HeldChange::Key(key(2, 1))]);
    audit.hold([HeldChange::Key(key(3, 1))]);
    audit.hold(gone(3));
    written(&audit);
    assert_eq!(stored(&directory).keys, [key(1, 8), key(2, 1)]);
    // Nor does what is gone come back with all there was.
    audit.hold_all(held(1..5, 4));
    audit.hold(gone(4));
    audit.hold([HeldChange::Key(key(7, 1))]);
    written(&audit);
    let keys = [key(1, 4), key(2, 4), key(3, 4), key(7, 1)];
    assert_eq!(stored(&directory).keys, keys);
}

/// What the files have at this moment, as a daemon leaves them that is killed.
fn killed(directory: &Path) -> TempDir {
    let left = TempDir::new().unwrap();
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
    }
    left
}

/// As soon as it is said to be written, also behind more than one transaction has.
#[test]
fn what_is_written_outlives_the_daemon() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let audit = store.audit();
    let many = 3 * STEP as u64;
    audit.hold_all(Snapshot::default());
    written(&audit);
    audit.hold((0..many).map(|number| HeldChange::Key(key(number, 1))));
    written(&audit);
    let left = killed(directory.path());
    assert_eq!(stored(&left).keys.len() as u64, many);
    audit.hold((0..many).map(|number| HeldChange::Key(key(number, 2))));
    written(&audit);
    let left = killed(directory.path());
    let store = open(left.path());
    assert!(stored(&left).keys.iter().all(|key| key.rungs == 2));
    drop(store);
    assert_eq!(stored(&left).keys.len() as u64, many);
}

/// Others hold the file: nothing is lost, and the newer state counts.
#[test]
fn a_locked_database_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let audit = store.audit();
    audit.hold_all(held(1..4, 1));
    written(&audit);
    let connection = Connection::open(database(&directory)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE;").unwrap();
    audit.hold(
        [HeldChange::Key(key(1, 5)), HeldChange::Key(key(9, 1))]
            .into_iter()
            .chain(gone(2)),
    );
    let error = run(audit.written()).unwrap().unwrap_err();
    assert!(error.contains("locked"), "{error}");
    audit.hold([HeldChange::Key(key(1, 6))].into_iter().chain(gone(9)));
    connection.execute_batch("ROLLBACK;").unwrap();
    written(&audit);
    let mut expected = held(1..4, 1);
    expected.keys[0].rungs = 6;
    expected.keys.remove(1);
    expected.blocks.remove(1);
    assert_eq!(stored(&directory), expected);
    assert!(!audit.wants_all_held());
}

/// More than waits: then all is wanted, and takes the place of what was.
#[test]
fn too_many_changes_want_all() {
    let mut waiting = Waiting::default();
    for number in 0..MOST as u64 {
        waiting.change(named(HeldChange::Key(key(number, 1))));
    }
    assert!(!waiting.is_broken() && waiting.is_due());
    waiting.change(named(HeldChange::Block(block(1))));
    assert!(waiting.is_broken() && !waiting.is_due());
    let before = Waiting::all(held(0..3, 1));
    waiting.give_back(before);
    assert!(waiting.is_broken(), "what came after it is lost");
    waiting = Waiting::all(held(0..3, 2));
    waiting.give_up();
    assert!(waiting.is_all() && !waiting.is_broken(), "it is all there");
}

/// A file that is begun anew has only what came since.
#[test]
fn another_file_wants_all() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let audit = store.audit();
    audit.hold([HeldChange::Key(key(1, 1))]);
    written(&audit);
    assert!(audit.wants_all_held());
    audit.hold_all(held(1..3, 1));
    assert!(!audit.wants_all_held());
    written(&audit);
    drop(store);
    let store = open(directory.path());
    store.audit().hold([HeldChange::Key(key(1, 1))]);
    written(&store.audit());
    assert!(!store.audit().wants_all_held());
    drop(store);
    let left = Reader::open(directory.path(), std::time::Duration::from_secs(60));
    assert_eq!(left.unwrap().held().unwrap(), held(1..3, 1));
}
