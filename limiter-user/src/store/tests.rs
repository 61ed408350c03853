//! The database on real files: what comes back, and what is said where it
//! cannot be stored.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use limiter_common::block::Owner;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::image::ListKind;
use crate::keeper::records::{Everything, StoredBlock, StoredEntry};

const BOOT: &str = "0f9f1c5e-7a52-4f0e-8c57-0a1b2c3d4e5f";

/// Long enough for a disk that does other things.
const LATE: Duration = Duration::from_secs(60);

fn open(directory: &Path) -> Store {
    Store::of_boot(directory, BOOT.to_owned(), Now::read()).unwrap()
}

/// Hands a change over and waits until it is stored.
fn store(store: &mut Store, change: Change) -> Result<(), String> {
    store.hand_over(change, Now::read());
    let stored = store.receipt().stored(LATE);
    run(stored)
}

fn run<R>(waiting: impl Future<Output = R>) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(waiting)
}

/// Also while it is in the midst of it.
#[test]
fn a_disk_that_does_not_answer_is_said() {
    let shared = Shared::default();
    shared.hand_over(Change::BlocksRefused(1), Now::read());
    assert_eq!(shared.next(Instant::now()).unwrap().orders.len(), 1);
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    assert_eq!(shared.trouble(later(5)), None);
    let trouble = shared.trouble(later(15)).unwrap();
    assert!(trouble.contains("does not answer"), "{trouble}");
    shared.store(1);
    assert_eq!(shared.trouble(later(15)), None);
}

fn block(network: &str, owner: Owner, limit: Option<&str>) -> StoredBlock {
    StoredBlock {
        network: network.parse().unwrap(),
        limit: limit.map(str::to_owned),
        owner,
        until: Now::read().mono + Duration::from_hours(1),
        dry: false,
        since: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 7)),
        uid: Some(1_000),
        reason: Some("a 'scanner'; \u{1f980}".to_owned()),
    }
}

fn entry(list: ListKind, network: &str, until: Option<Duration>) -> StoredEntry {
    StoredEntry {
        list,
        network: network.parse().unwrap(),
        until,
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        uid: u32::MAX,
        reason: None,
    }
}

fn everything() -> Everything {
    Everything {
        lineage: u64::MAX - 6,
        blocks_refused: 3,
        blocks: vec![
            block("192.0.2.1/32", Owner::Operator, None),
            block("192.0.2.1/32", Owner::Operator, Some("https")),
            StoredBlock {
                since: None,
                uid: None,
                reason: None,
                dry: true,
                ..block("192.0.2.1/32", Owner::Kernel, Some("https"))
            },
            block("2001:db8::/48", Owner::Rule, None),
        ],
        entries: vec![
            entry(ListKind::Allow, "10.0.0.0/8", None),
            entry(ListKind::Deny, "10.0.0.0/8", Some(Duration::from_secs(5))),
        ],
    }
}

fn saved(directory: &Path) -> Everything {
    open(directory).saved().unwrap().all
}

/// A directory with everything stored in it.
fn filled() -> TempDir {
    let directory = TempDir::new().unwrap();
    let mut made = open(directory.path());
    assert_eq!(made.saved(), None);
    store(&mut made, Change::Everything(everything())).unwrap();
    directory
}

fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn database(directory: &TempDir) -> PathBuf {
    directory.path().join("limiter.db")
}

#[test]
fn what_is_stored_comes_back() {
    let directory = filled();
    let mut again = open(directory.path());
    let found = again.saved().unwrap();
    assert_eq!(found.all, everything_like(&found.all));
    assert!(found.written.is_this_boot);
    let now = Now::read();
    assert!(now.mono - found.written.mono < LATE, "{found:?}");
    assert!(now.wall.duration_since(found.written.wall).unwrap() < LATE);
    assert_eq!(again.saved(), None, "told twice");
    drop(again);
    let boot = "another".to_owned();
    let mut rebooted = Store::of_boot(directory.path(), boot, now).unwrap();
    assert!(!rebooted.saved().unwrap().written.is_this_boot);
}

/// [`everything`] with the ends that `found` has: those are read from a clock.
fn everything_like(found: &Everything) -> Everything {
    let mut all = everything();
    assert_eq!(all.blocks.len(), found.blocks.len());
    all.blocks
        .sort_by_key(|it| (it.network, it.limit.clone(), it.owner.name()));
    for (block, found) in all.blocks.iter_mut().zip(&found.blocks) {
        assert!(block.until - found.until < LATE);
        block.until = found.until;
    }
    all
}

#[test]
fn changes_in_turn() {
    let directory = filled();
    let mut it = open(directory.path());
    let network = "192.0.2.1/32".parse().unwrap();
    let renewed = StoredBlock {
        owner: Owner::Rule,
        ..block("192.0.2.1/32", Owner::Rule, Some("https"))
    };
    store(&mut it, Change::Blocks(vec![renewed])).unwrap();
    let owners = |all: &Everything| -> Vec<(String, Owner)> {
        let of = |block: &StoredBlock| (block.limit.clone().unwrap_or_default(), block.owner);
        let of_network = all.blocks.iter().filter(|it| it.network == network);
        of_network.map(of).collect()
    };
    let named = |limit: &str, owner| (limit.to_owned(), owner);
    let whole = named("", Owner::Operator);
    drop(it);
    let both = [named("https", Owner::Kernel), named("https", Owner::Rule)];
    let expected = [std::slice::from_ref(&whole), &both].concat();
    assert_eq!(owners(&saved(directory.path())), expected);

    let mut it = open(directory.path());
    let ended = Change::Unblocked(network, Some("https".to_owned()));
    store(&mut it, ended).unwrap();
    store(&mut it, Change::BlocksRefused(9)).unwrap();
    store(
        &mut it,
        Change::Unlisted(ListKind::Deny, vec!["10.0.0.0/8".parse().unwrap()]),
    )
    .unwrap();
    drop(it);
    let found = saved(directory.path());
    assert_eq!(owners(&found), [whole, named("https", Owner::Kernel)]);
    assert_eq!((found.blocks_refused, found.lineage), (9, u64::MAX - 6));
    assert_eq!(found.entries, [entry(ListKind::Allow, "10.0.0.0/8", None)]);

    let mut it = open(directory.path());
    store(&mut it, Change::Unblocked(network, None)).unwrap();
    store(&mut it, Change::KernelBlocks(Vec::new())).unwrap();
    store(
        &mut it,
        Change::Entries(vec![entry(ListKind::Allow, "10.0.0.0/8", Some(LATE))]),
    )
    .unwrap();
    // What is over goes.
    let later = Now::read().after(Duration::from_hours(2));
    it.hand_over(Change::Nothing, later);
    store(&mut it, Change::Nothing).unwrap();
    drop(it);
    let found = saved(directory.path());
    assert_eq!(found.blocks, []);
    assert_eq!(found.entries[0].until, Some(LATE));
}

#[test]
fn nobody_else_reads_it() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("a/b");
    let mut it = open(&directory);
    store(&mut it, Change::Everything(everything())).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory) & !0o750, 0);
    assert_eq!(
        names(&directory),
        ["limiter.db", "limiter.db-shm", "limiter.db-wal"]
    );
    for name in names(&directory) {
        assert_eq!(mode(&directory.join(&name)), 0o600, "{name}");
    }
    drop(it);
    assert_eq!(names(&directory), ["limiter.db"]);
    // Somebody else made it so.
    let file = directory.join("limiter.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&directory));
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn two_do_not_share_a_directory() {
    let directory = filled();
    let first = open(directory.path());
    let mut second = open(directory.path());
    let trouble = second.trouble().unwrap();
    assert!(trouble.contains("another process"), "{trouble}");
    assert_eq!(second.saved(), None);
    let lost = store(&mut second, Change::BlocksRefused(1)).unwrap_err();
    assert_eq!(lost, trouble);
    drop(first);
    // What the other one has stored is not replaced unseen.
    let replaced = store(&mut second, Change::Everything(Everything::default()));
    assert!(replaced.unwrap_err().contains("being put in force"));
    assert_eq!(second.saved().unwrap().all.blocks_refused, 3);
    store(&mut second, Change::Everything(everything())).unwrap();
    assert_eq!(second.trouble(), None);
    store(&mut second, Change::BlocksRefused(4)).unwrap();
    drop(second);
    assert_eq!(saved(directory.path()).blocks_refused, 4);
}

/// What is not ours to write is not touched, nor is anything put beside it.
#[test]
fn what_others_wrote_is_left_as_it_is() {
    for (pragma, words) in [
        (
            "user_version = 2003",
            "a later version of limiter (its format is 2, and 1",
        ),
        ("application_id = 7", "another program's database"),
    ] {
        let directory = filled();
        let connection = Connection::open(database(&directory)).unwrap();
        let rollback = "PRAGMA journal_mode = DELETE; PRAGMA";
        connection
            .execute_batch(&format!("{rollback} {pragma};"))
            .unwrap();
        drop(connection);
        let before = fs::read(database(&directory)).unwrap();
        let mut it = open(directory.path());
        let trouble = it.trouble().unwrap();
        assert!(trouble.contains(words), "{trouble}");
        assert_eq!(it.saved(), None);
        store(&mut it, Change::Everything(everything())).unwrap_err();
        drop(it);
        assert_eq!(fs::read(database(&directory)).unwrap(), before);
        assert_eq!(names(directory.path()), ["limiter.db"]);
    }
}

/// What a later version of this format has added does not matter.
#[test]
fn a_later_minor_version_is_used() {
    let directory = filled();
    let connection = Connection::open(database(&directory)).unwrap();
    let more = "PRAGMA user_version = 1002; CREATE TABLE more(x); \
                ALTER TABLE entries ADD COLUMN more TEXT;";
    connection.execute_batch(more).unwrap();
    drop(connection);
    let mut it = open(directory.path());
    assert_eq!(it.saved().unwrap().all.entries.len(), 2);
    store(&mut it, Change::Everything(everything())).unwrap();
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let damaged: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.fill(b'x'),
        |bytes| bytes.truncate(50),
        |bytes| bytes.truncate(5_000),
        |bytes| bytes[4_096..].fill(0xa5),
    ];
    for (number, damage) in (0..).zip(damaged) {
        let directory = filled();
        let mut bytes = fs::read(database(&directory)).unwrap();
        damage(&mut bytes);
        fs::write(database(&directory), &bytes).unwrap();
        let mut it = open(directory.path());
        assert_eq!((it.trouble(), it.saved()), (None, None), "{number}");
        store(&mut it, Change::Everything(everything())).unwrap();
        drop(it);
        assert_eq!(saved(directory.path()).blocks_refused, 3);
        let names = names(directory.path());
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[1].starts_with("limiter.db.corrupt-"), "{names:?}");
        assert_eq!(fs::read(directory.path().join(&names[1])).unwrap(), bytes);
    }
}

#[test]
fn only_the_latest_damaged_files_are_kept() {
    let directory = TempDir::new().unwrap();
    let put = |name: &str| fs::write(directory.path().join(name), "x").unwrap();
    for seconds in 1..=5 {
        put(&format!("limiter.db.corrupt-100000000{seconds}"));
    }
    put("limiter.db.corrupt-1000000001-wal");
    put("limiter.db.corrupt-of-mine");
    put("limiter.db");
    drop(open(directory.path()));
    let names = names(directory.path());
    let kept = names
        .iter()
        .filter(|name| name.contains("corrupt-1"))
        .count();
    assert_eq!((kept, names.len()), (3, 5), "{names:?}");
}

/// Damage that is done while it is open is found at the next attempt.
#[test]
fn damage_at_run_time_is_made_good() {
    let directory = filled();
    let mut it = open(directory.path());
    let connection = Connection::open(database(&directory)).unwrap();
    connection
        .execute_batch("DROP TABLE entries; DROP TABLE blocks;")
        .unwrap();
    drop(connection);
    let lost = store(&mut it, Change::Everything(everything())).unwrap_err();
    assert!(lost.contains("no such table"), "{lost}");
    assert!(it.trouble().unwrap().contains("move it away"));
    fs::write(database(&directory), "garbage").unwrap();
    store(&mut it, Change::Everything(everything())).unwrap();
    assert_eq!(it.trouble(), None);
    drop(it);
    assert_eq!(saved(directory.path()).blocks.len(), 4);
}

#[test]
fn rows_that_make_no_sense_are_left_out() {
    let directory = filled();
    let connection = Connection::open(database(&directory)).unwrap();
    let strange = "INSERT INTO entries VALUES ('allow', 'nonsense', NULL, 0, 0, NULL), \
                   ('deny', '192.0.2.1/24', 1, 0, 0, NULL), ('deny', '::/0', 1, 0, -1, NULL), \
                   ('deny', '192.0.2.7/32', -5, -5, 0, NULL); \
                   UPDATE meta SET value = -1 WHERE key = 'blocks_refused';";
    connection.execute_batch(strange).unwrap();
    drop(connection);
    let found = saved(directory.path());
    assert_eq!((found.entries.len(), found.blocks_refused), (3, 0));
    assert_eq!(found.entries[2].until, Some(Duration::ZERO));
}

/// Where nothing can be written, what there is can be read.
#[test]
fn a_database_is_read_without_writing() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("with space?and#more%");
    let mut it = open(&directory);
    store(&mut it, Change::Everything(everything())).unwrap();
    // Beside it lies what is not in the file yet.
    let place = || Place::new(directory.clone(), BOOT.to_owned());
    let found = place().read_only().unwrap().unwrap();
    assert_eq!(found.all.blocks.len(), 4);
    drop(it);
    let before = fs::read(directory.join("limiter.db")).unwrap();
    let found = place().read_only().unwrap().unwrap();
    assert_eq!(found.all.blocks.len(), 4);
    assert_eq!(names(&directory), ["limiter.db"]);
    assert_eq!(fs::read(directory.join("limiter.db")).unwrap(), before);
}

#[test]
fn a_directory_that_cannot_be_is_said() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("file");
    fs::write(&directory, "").unwrap();
    let mut it = open(&directory);
    let trouble = it.trouble().unwrap();
    assert!(
        trouble.contains("cannot make") && trouble.contains("state.directory"),
        "{trouble}"
    );
    store(&mut it, Change::Everything(everything())).unwrap_err();
    fs::remove_file(&directory).unwrap();
    store(&mut it, Change::Everything(everything())).unwrap();
}

/// Without a writer nothing is taken for ever.
#[test]
fn what_waits_is_bounded() {
    let shared = Shared::default();
    let now = Now::read();
    let many = || {
        let network = "192.0.2.1/32".parse().unwrap();
        Change::Unlisted(ListKind::Deny, vec![network; 150_000])
    };
    let trouble = || shared.trouble(now.instant);
    let lost = || {
        let stored = shared.receipt().stored(Duration::ZERO);
        run(stored).unwrap_err()
    };
    for _ in 0..2 {
        shared.hand_over(many(), now);
    }
    assert_eq!(
        (trouble(), &*lost()),
        (None, "the disk takes longer than 0 s")
    );
    for _ in 0..2 {
        shared.hand_over(many(), now);
        assert_eq!(trouble(), Some(lost()));
        assert!(lost().contains("does not keep up"));
    }
    // Everything makes up for it, and what follows waits behind it.
    shared.hand_over(Change::Everything(everything()), now);
    shared.hand_over(Change::BlocksRefused(1), now);
    assert_eq!(lost(), "the disk takes longer than 0 s");
}
