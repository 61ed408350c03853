//! The log on real files: what is written, what is answered, what is forgotten.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tempfile::TempDir;

use super::queue::{BATCH, Queue};
use super::row::Row;
use super::*;
use crate::engine::{Cause, Change, What};
use crate::keeper::Now;
use crate::keeper::records::{self, Everything, Records as _};
use crate::policy::Action;
use crate::store::Store;

/// Long enough for a disk that does other things.
const LATE: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_hours(24);

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn change(seconds: u64, rule: &str, account: &str, what: What) -> Change {
    Change {
        at_ns: (1_700_000_000 + seconds) * 1_000_000_000 + 5_000_000,
        rule: rule.into(),
        key: 0xab,
        part: 0,
        what,
        event: Some(Cause {
            source: "192.0.2.7".parse().unwrap(),
            account: (!account.is_empty()).then(|| account.into()),
            path: Some("/login?next=/secret".into()),
            status: Some(401),
        }),
    }
}

fn from(mut change: Change, source: &str, path: &str) -> Change {
    let event = change.event.as_mut().unwrap();
    event.source = source.parse().unwrap();
    event.path = Some(path.into());
    change
}

const REFUSED: What = What::Refused {
    action: Action::Reject,
    simulated: false,
};

pub(super) fn run<R>(waiting: impl Future<Output = R>) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(waiting)
}

/// Opens a store that was read.
pub(super) fn open(directory: &Path) -> Store {
    Store::open(directory, Now::read()).unwrap()
}

/// Waits until all that was handed over is written, or lost.
fn written(audit: &Audit) {
    run(audit.written()).unwrap().unwrap();
}

pub(super) fn reader(directory: &TempDir) -> Reader {
    Reader::open(directory.path(), LATE).unwrap()
}

/// A directory with these written down, in a log that was begun in 1970.
fn filled(changes: impl IntoIterator<Item = Change>) -> TempDir {
    let directory = TempDir::new().unwrap();
    open(directory.path()).audit().record(changes);
    let connection = Connection::open(database(&directory)).unwrap();
    let begun = "UPDATE meta SET value = 0 WHERE key = 'audit_from_ms';";
    connection.execute_batch(begun).unwrap();
    directory
}

fn latest(directory: &TempDir, filter: &Filter, most: usize) -> Vec<Record> {
    let cursor = Cursor::Before(i64::MAX);
    let rows = reader(directory).rows(filter, cursor, most);
    rows.unwrap().records
}

fn of_account(account: &str) -> Filter {
    Filter {
        account: Some(account.to_owned()),
        ..Filter::default()
    }
}

pub(super) fn database(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("limiter.db")
}

#[test]
fn what_happens_is_told_in_json() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let began = What::Began {
        action: Action::Block,
        until_ns: 1_700_000_060_000_000_000,
        rung: 2,
        simulated: true,
        notify_owner: true,
    };
    let ended = Change {
        event: None,
        ..change(3, "lockout", "", What::Ended)
    };
    store.audit().record([
        change(0, "lockout", "ann", What::Counted),
        Change {
            part: 1,
            ..change(1, "lockout", "ann", began)
        },
        from(change(2, "login", "", REFUSED), "::ffff:198.51.100.1", "/a"),
        ended,
    ]);
    store.audit().record_by_hand(ByHand {
        at: time(4),
        uid: 1_000,
        order: "account unlock",
        subject: Some("2001:db8::1".to_owned()),
        detail: Some("for 1h".to_owned()),
        account: Some("ann".to_owned()),
        rule: Some("lockout".to_owned()),
        reason: Some("called".to_owned()),
        count: 1,
    });
    store.audit().account_exists("ann", time(4));
    drop(store);
    let rows = reader(&directory)
        .rows(&Filter::default(), Cursor::After(-1), 9)
        .unwrap();
    let lines = rows
        .records
        .iter()
        .map(|it| serde_json::to_string(it).unwrap());
    let text = lines.collect::<Vec<_>>().join("\n");
    let hash = text.split("account_hash\":\"").nth(1).unwrap()[..16].to_owned();
    let key = "000000000000000000000000000000ab";
    let expected = [
        format!(
            r#"{{"id":0,"at":"2023-11-14T22:13:20.005Z","kind":"counted","count":1,"rule":"lockout","key":"{key}","source":"192.0.2.7","account":"ann","account_hash":"{hash}","path":"/login","status":401}}"#
        ),
        format!(
            r#"{{"id":1,"at":"2023-11-14T22:13:21.005Z","kind":"began","count":1,"rule":"lockout","key":"{key}","source":"192.0.2.7","account":"ann","account_hash":"{hash}","path":"/login","status":401,"action":"block","simulated":true,"tier":2,"rung":2,"until":"2023-11-14T22:14:20.000Z","notify_owner":true}}"#
        ),
        format!(
            r#"{{"id":2,"at":"2023-11-14T22:13:22.005Z","kind":"refused","count":1,"rule":"login","key":"{key}","source":"198.51.100.1","path":"/a","status":401,"action":"reject","tier":1}}"#
        ),
        format!(
            r#"{{"id":3,"at":"2023-11-14T22:13:23.005Z","kind":"ended","count":1,"rule":"lockout","key":"{key}"}}"#
        ),
        format!(
            r#"{{"id":4,"at":"2023-11-14T22:13:24.000Z","kind":"hand","count":1,"rule":"lockout","source":"2001:db8::1","account":"ann","account_hash":"{hash}","uid":1000,"order":"account unlock","subject":"2001:db8::1","detail":"for 1h","reason":"called"}}"#
        ),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    for (line, record) in expected.iter().zip(rows.records) {
        assert_eq!(serde_json::from_str::<Record>(line).unwrap(), record);
    }
}

/// What is typed into the field of the name may be a password.
#[test]
fn an_account_has_no_name_until_a_success() {
    let counted = change(0, "lockout", "correct horse", What::Counted);
    let directory = filled([counted]);
    let files = || -> Vec<u8> {
        let files = fs::read_dir(directory.path()).unwrap();
        let bytes = files.map(|file| fs::read(file.unwrap().path()).unwrap());
        bytes.flatten().collect()
    };
    let holds = |text: &str| files().windows(text.len()).any(|it| it == text.as_bytes());
    assert!(!holds("correct horse") && !holds("secret") && holds("lockout"));
    let told = || latest(&directory, &of_account("correct horse"), 9);
    assert_eq!((told().len(), told()[0].account.clone()), (1, None));
    let store = open(directory.path());
    store.audit().account_exists("correct horse", time(5));
    drop(store);
    assert_eq!(told()[0].account.as_deref(), Some("correct horse"));
}

#[test]
fn questions_are_answered() {
    let counted = |at, account| change(at, "lockout", account, What::Counted);
    let dry = What::Refused {
        action: Action::Reject,
        simulated: true,
    };
    let directory = filled([
        counted(0, "ann"),
        counted(100, "ann"),
        counted(200, "bob"),
        from(change(300, "login", "bob", REFUSED), "192.0.2.9", "/b"),
        from(change(301, "login", "bob", REFUSED), "192.0.2.9", "/c"),
        from(change(302, "login", "", REFUSED), "2001:db8::5", "/c"),
        from(change(303, "login", "", dry), "2001:db8::5", "/d"),
    ]);
    let mut reader = reader(&directory);
    let mut count = |filter: Filter| reader.count(&filter).unwrap().count;
    let all = Filter::default;
    assert_eq!(count(all()), 7);
    assert_eq!(count(of_account("ann")), 2);
    assert_eq!(count(of_account("bob")), 3);
    assert_eq!(count(of_account("carl")), 0);
    let of_network = |network: &str| Filter {
        source: Some(network.parse().unwrap()),
        ..all()
    };
    for (network, expected) in [
        ("192.0.2.0/24", 5),
        ("192.0.2.9/32", 2),
        ("192.0.2.8/29", 2),
        ("0.0.0.0/0", 5),
        ("2001:db8::/32", 2),
        ("::/0", 2),
        ("198.51.100.0/24", 0),
    ] {
        assert_eq!(count(of_network(network)), expected, "{network}");
    }
    let rule = |name: &str| Filter {
        rule: Some(name.to_owned()),
        ..all()
    };
    assert_eq!((count(rule("login")), count(rule("none"))), (4, 0));
    let reject = Filter {
        action: Some(Action::Reject),
        ..all()
    };
    assert_eq!(count(reject.clone()), 3, "a dry run is no refusal");
    let kind = |kind| Filter {
        kind: Some(kind),
        ..all()
    };
    assert_eq!(
        (count(kind(Kind::Refused)), count(kind(Kind::Full))),
        (4, 0)
    );
    let between = |since, until| Filter {
        since: Some(time(since)),
        until: Some(time(until)),
        ..of_account("ann")
    };
    assert_eq!(count(between(0, 100)), 1);
    assert_eq!(count(between(0, 101)), 2);
    assert_eq!(count(between(1, 100)), 0);

    let top = |reader: &mut Reader, filter: &Filter, by| {
        let top = reader.top(filter, by, 2).unwrap();
        let text = |share: Share| format!("{}={}", share.value.unwrap_or_default(), share.count);
        let shares: Vec<String> = top.shares.into_iter().map(text).collect();
        (shares.join(" "), top.count, top.may_lack)
    };
    let expected = |text: &str, count| (text.to_owned(), count, 0);
    let reader = &mut reader;
    assert_eq!(
        top(reader, &reject, Field::Source),
        expected("192.0.2.9=2 2001:db8::5=1", 3)
    );
    assert_eq!(top(reader, &reject, Field::Path), expected("/c=2 /b=1", 3));
    assert_eq!(
        top(reader, &all(), Field::Rule),
        expected("login=4 lockout=3", 7)
    );
    assert_eq!(
        top(reader, &all(), Field::Action),
        expected("reject=4 =3", 7)
    );
    assert_eq!(
        top(reader, &of_account("bob"), Field::Path),
        expected("/b=1 /c=1", 3)
    );
    let (accounts, count, _) = top(reader, &all(), Field::Account);
    assert!(
        accounts.starts_with('#') && accounts.contains("=3 #"),
        "{accounts}"
    );
    assert_eq!(count, 5);
    let counted = reader.count(&all()).unwrap();
    let kinds: Vec<(Kind, u64)> = counted.kinds.into_iter().collect();
    assert_eq!(kinds, [(Kind::Counted, 3), (Kind::Refused, 4)]);
    let mut pages = |filter: Filter, cursor| {
        let rows = reader.rows(&filter, cursor, 2).unwrap();
        let ids: Vec<i64> = rows.records.iter().map(|record| record.id).collect();
        (ids, rows.next)
    };
    let before = Cursor::Before;
    assert_eq!(
        pages(rule("login"), before(i64::MAX)),
        (vec![6, 5], Some(5))
    );
    assert_eq!(pages(rule("login"), before(5)), (vec![4, 3], Some(3)));
    assert_eq!(pages(rule("login"), before(3)), (vec![], None));
    assert_eq!(pages(all(), Cursor::After(-1)), (vec![0, 1], Some(1)));
    assert_eq!(pages(all(), Cursor::After(5)), (vec![6], None));
    assert_eq!(
        pages(of_account("bob"), Cursor::After(2)),
        (vec![3, 4], Some(4))
    );
}

#[test]
fn an_answer_takes_no_longer_than_it_may() {
    let directory = filled((0..20_000).map(|at| change(at, "r", "", What::Counted)));
    let mut reader = Reader::open(directory.path(), Duration::ZERO).unwrap();
    let error = reader.count(&Filter::default()).unwrap_err().to_string();
    assert!(error.contains("ask about less time"), "{error}");
    let none = TempDir::new().unwrap();
    let error = Reader::open(none.path(), LATE).unwrap_err().to_string();
    assert!(error.contains("no audit log in"), "{error}");
    let later = "PRAGMA application_id = 1819112562; PRAGMA user_version = 2000;";
    let connection = Connection::open(database(&none)).unwrap();
    connection.execute_batch(later).unwrap();
    let error = Reader::open(none.path(), LATE).unwrap_err().to_string();
    assert!(error.contains("is no database of this version"), "{error}");
}

fn push(queue: &mut Queue, changes: impl IntoIterator<Item = Change>) {
    let now = Instant::now();
    for change in changes {
        queue.push(Row::of_change(change), now);
    }
}

/// Within a second, as long as nothing in which they differ is lost.
#[test]
fn rows_that_are_alike_are_one() {
    let mut queue = Queue::default();
    let counted = |at, account| change(at, "r", account, What::Counted);
    push(
        &mut queue,
        [
            counted(0, "a"),
            counted(0, "a"),
            counted(0, "b"),
            counted(1, "a"),
        ],
    );
    push(&mut queue, [from(counted(1, "a"), "192.0.2.7", "/other")]);
    let counts =
        |queue: &mut Queue| -> Vec<u64> { queue.take().rows.iter().map(|row| row.count).collect() };
    assert_eq!(counts(&mut queue), [2, 1, 1, 1]);
    assert_eq!(counts(&mut queue), [0_u64; 0]);
}

/// In a flood one row stands for many paths, and names none; what finds no room is
/// counted.
#[test]
fn what_waits_is_bounded() {
    let mut queue = Queue::default();
    let network = |at: u64| {
        from(
            change(0, "r", "", REFUSED),
            &IpAddr::from((at as u32).to_be_bytes()).to_string(),
            "/",
        )
    };
    push(&mut queue, (1..=20_000).map(network));
    let paths = |number: u64| {
        from(
            change(0, "r", "", REFUSED),
            "10.0.0.1",
            &format!("/{number}"),
        )
    };
    push(&mut queue, (0..1_000).map(paths));
    assert_eq!(queue.health().waiting, 20_001);
    push(&mut queue, (30_000..80_000).map(network));
    let health = queue.health();
    assert_eq!((health.waiting, health.dropped), (65_536, 70_001 - 65_536));
    let mut rows = Vec::new();
    let first = queue.take();
    assert_eq!(
        (first.rows.len(), first.gap.unwrap().lost),
        (BATCH, health.dropped)
    );
    rows.extend(first.rows);
    while queue.health().waiting > 0 {
        rows.extend(queue.take().rows);
    }
    assert_eq!(rows.len(), 65_536);
    assert_eq!((rows[20_000].count, &rows[20_000].path), (1_000, &None));
}

/// Trouble that lasts loses the newest, and says how many.
#[test]
fn what_cannot_be_written_is_kept_while_there_is_room() {
    let mut queue = Queue::default();
    let now = Instant::now();
    push(
        &mut queue,
        (0..60_000).map(|at| change(at, "r", "", What::Counted)),
    );
    let batch = queue.take();
    push(
        &mut queue,
        (60_000..70_000).map(|at| change(at, "r", "", What::Counted)),
    );
    assert!(queue.give_back(batch, "full".to_owned(), now));
    let health = queue.health();
    assert_eq!(health.trouble.as_deref(), Some("full"));
    assert_eq!((health.waiting, health.dropped), (65_536, 4_464));
    assert!(queue.due(now).unwrap() > now + Duration::from_secs(4));
    let batch = queue.take();
    assert!(
        !queue.give_back(batch, "full".to_owned(), now),
        "said twice"
    );
    assert!(queue.written(Batch::default()), "the end of it is not news");
}

/// The answer says from when on it is all there.
#[test]
fn what_is_missing_is_said() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let audit = store.audit();
    audit.record([change(0, "r", "", What::Counted)]);
    written(&audit);
    let mut reader = reader(&directory);
    let since = |it: SystemTime| Filter {
        since: Some(it),
        ..Filter::default()
    };
    let begun = reader.covers(&Filter::default()).unwrap();
    assert!(!begun.is_complete, "{begun:?}");
    let now = SystemTime::now() + DAY;
    assert!(reader.covers(&since(now)).unwrap().is_complete);
    drop(store);
    let connection = Connection::open(database(&directory)).unwrap();
    let gap = "UPDATE meta SET value = 0 WHERE key = 'audit_from_ms'; \
               INSERT INTO audit_gap VALUES (1700000100000, 1700000200000, 7);";
    connection.execute_batch(gap).unwrap();
    let covered = reader.covers(&since(time(50))).unwrap();
    assert_eq!((covered.is_complete, covered.lost), (false, 7));
    assert_eq!(covered.complete_from, "2023-11-14T22:16:40.001Z");
    let covered = reader.covers(&since(time(201))).unwrap();
    assert_eq!((covered.is_complete, covered.lost), (true, 0));
    let before = Filter {
        until: Some(time(100)),
        ..since(time(50))
    };
    assert!(reader.covers(&before).unwrap().is_complete);
    // A daemon that did not end orderly.
    connection
        .execute_batch("UPDATE meta SET value = 1 WHERE key = 'audit_open';")
        .unwrap();
    drop((connection, open(directory.path())));
    let store = open(directory.path());
    written(&store.audit());
    let covered = reader.covers(&since(time(201))).unwrap();
    assert_eq!((covered.is_complete, covered.lost), (false, 7));
    drop(store);
    let store = open(directory.path());
    written(&store.audit());
    let again = reader.covers(&since(time(201))).unwrap();
    assert_eq!(again, covered, "an orderly end is no gap");
}

/// Not in the file, nor in what lies beside it, though it stays open.
#[test]
fn an_erased_account_is_gone() {
    let directory = TempDir::new().unwrap();
    let mut store = open(directory.path());
    let audit = store.audit();
    let names: Vec<String> = (0..3_000)
        .map(|number| format!("erasable-{number:04}"))
        .collect();
    for name in &names {
        audit.account_exists(name, time(0));
    }
    let account = |at: u64| &*names[(at % 3_000) as usize];
    audit.record((0..30_000).map(|at| {
        let change = change(at, "r", account(at), What::Counted);
        let path = format!("/users/{}", account(at));
        from(change, "192.0.2.7", &path)
    }));
    for (reason, account) in [
        ("Erasable-0017 called", None),
        ("called", Some("erasable-0017")),
    ] {
        audit.record_by_hand(ByHand {
            account: account.map(str::to_owned),
            reason: Some(reason.to_owned()),
            ..ByHand::new(time(0), 0, "account unlock")
        });
    }
    assert_eq!(run(audit.erase("erasable-0017")).unwrap(), Ok(11));
    // Some together, some after the others: what is deleted moves what is beside it.
    let erased: Vec<&str> = (100..3_000).step_by(58).map(|at| &*names[at]).collect();
    for accounts in erased.chunks(10) {
        let waiting: Vec<_> = accounts.iter().map(|it| audit.erase(it)).collect();
        for rows in waiting {
            assert_eq!(run(rows).unwrap(), Ok(10));
        }
    }
    let mut bytes = Vec::new();
    for file in ["limiter.db", "limiter.db-wal"] {
        bytes.extend(fs::read(directory.path().join(file)).unwrap());
    }
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|it| it == needle);
    let secret = crate::store::find_secret(directory.path(), SECRET)
        .unwrap()
        .unwrap();
    let hash = |name| log::AccountHash::new(&secret).of(name).to_be_bytes();
    assert!(holds(b"erasable-0018") && holds(&hash("erasable-0018")));
    for account in erased.into_iter().chain(["erasable-0017", "Erasable-0017"]) {
        assert!(!holds(account.as_bytes()), "the name of {account}");
        assert!(!holds(&hash(account)), "the hash of {account}");
    }
    let by_hand = Filter {
        kind: Some(Kind::Hand),
        ..Filter::default()
    };
    let by_hand = latest(&directory, &by_hand, 9);
    assert_eq!(by_hand.len(), 1);
    assert_eq!(by_hand[0].reason.as_deref(), Some("(erased)"));
    let mut reader = reader(&directory);
    assert_eq!(reader.count(&of_account("erasable-0017")).unwrap().count, 0);
    assert_eq!(
        reader.count(&of_account("erasable-0018")).unwrap().count,
        10
    );
    // And is taken in again when it is heard of again.
    audit.record([change(40_000, "r", "erasable-0017", What::Counted)]);
    written(&audit);
    assert_eq!(reader.count(&of_account("erasable-0017")).unwrap().count, 1);
    assert_eq!(store.saved(), None);
}

/// The log of a file, as the writer has it.
fn with_log<R>(
    directory: &TempDir,
    change: impl FnOnce(&mut Log, &rusqlite::Transaction<'_>) -> R,
) -> R {
    let mut connection = Connection::open(database(directory)).unwrap();
    let secret = crate::store::secret(directory.path(), SECRET).unwrap();
    let mut log = Log::open(&connection, &secret, 0, false).unwrap();
    let transaction = connection.transaction().unwrap();
    let changed = change(&mut log, &transaction);
    transaction.commit().unwrap();
    changed
}

fn forget(directory: &TempDir, bounds: Bounds, now: SystemTime) -> usize {
    let steps = |log: &mut Log, transaction: &rusqlite::Transaction<'_>| {
        let forget = || log.forget(transaction, bounds, time_to_ms(now)).unwrap();
        std::iter::from_fn(|| forget().then_some(())).count()
    };
    with_log(directory, steps)
}

const EVERYTHING: Bounds = Bounds {
    age: DAY,
    bytes: u64::MAX,
};

#[test]
fn what_is_old_is_forgotten_in_steps() {
    let hours = |hours: u64| hours * 3_600;
    // Two chunks.
    let directory = filled((0..60_000).map(|number| change(number * 3, "r", "ann", What::Counted)));
    let store = open(directory.path());
    store.audit().account_exists("ann", time(0));
    store.audit().account_exists("bob", time(hours(40)));
    drop(store);
    let count = |filter: &Filter| reader(&directory).count(filter).unwrap();
    assert_eq!(forget(&directory, EVERYTHING, time(0)), 0);
    assert_eq!(count(&Filter::default()).count, 60_000);
    assert!(
        forget(&directory, EVERYTHING, time(hours(44))) > 3,
        "in one go"
    );
    let left = count(&Filter::default());
    assert_eq!(
        left.count,
        60_000 - (hours(20) - 20).div_ceil(3),
        "22:13:20 at the minute"
    );
    assert_eq!(left.coverage.complete_from, "2023-11-15T18:13:00.000Z");
    assert!(
        latest(&directory, &of_account("ann"), 1)[0]
            .account
            .is_none()
    );
    assert!(forget(&directory, EVERYTHING, time(hours(24 * 30))) > 3);
    assert_eq!(count(&Filter::default()).count, 0);
    let connection = Connection::open(database(&directory)).unwrap();
    let chunks = "SELECT (SELECT count(*) FROM audit_chunk), (SELECT count(*) FROM audit_account)";
    let left: (i64, i64) = connection
        .query_row(chunks, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(left, (1, 0), "a number of a row would be used again");
    drop(connection);
    let store = open(directory.path());
    store
        .audit()
        .record([change(hours(24 * 31), "r", "", What::Counted)]);
    drop(store);
    let latest = latest(&directory, &Filter::default(), 1);
    assert!(latest[0].id == 2 * tables::CHUNK_ROWS, "{latest:?}");
}

#[test]
fn the_oldest_go_where_it_is_too_large() {
    let directory = filled((0..60_000).map(|number| change(number, "r", "ann", What::Counted)));
    let bounds = Bounds {
        age: 3_650 * DAY,
        bytes: 4 << 20,
    };
    assert!(forget(&directory, bounds, time(100_000)) > 1);
    let mut reader = reader(&directory);
    let left = reader.count(&Filter::default()).unwrap();
    assert!((10_000..50_000).contains(&left.count), "{left:?}");
    let first = time(60_000 - left.count);
    assert_eq!(
        left.coverage.complete_from,
        record::timestamp(time_to_ms(first) - 1_000 + 6)
    );
}

/// By the writer itself, as soon as it is told how much to keep.
#[test]
fn the_writer_forgets() {
    let directory = filled([change(0, "r", "", What::Counted)]);
    let store = open(directory.path());
    store.audit().keep(EVERYTHING);
    store.audit().record([change(1, "r", "", What::Counted)]);
    let mut reader = reader(&directory);
    let deadline = Instant::now() + LATE;
    while reader.count(&Filter::default()).unwrap().rows > 0 || store.audit().health().written == 0
    {
        assert!(Instant::now() < deadline, "nothing is forgotten");
        std::thread::yield_now();
    }
}

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

/// A log that grows under those who ask.
#[test]
fn questions_let_what_is_written_take_its_place() {
    let directory = filled([change(0, "r", "", What::Counted)]);
    assert!(!is_behind(directory.path()));
    let waiting = fs::File::create(directory.path().join("limiter.db-wal")).unwrap();
    waiting.set_len(257 << 20).unwrap();
    assert!(is_behind(directory.path()));
}

/// Before anything is written it is known since when there is a log.
#[test]
fn a_log_is_complete_since_it_was_begun() {
    let directory = TempDir::new().unwrap();
    let now = Now::read();
    let _store = Store::open(directory.path(), now).unwrap();
    let covered = reader(&directory).covers(&Filter::default()).unwrap();
    let begun = record::timestamp(time_to_ms(now.wall));
    assert_eq!(covered.complete_from, begun);
    assert!(!covered.is_complete);
}

/// A clock that was ahead is no reason to be incomplete for years.
#[test]
fn times_that_are_yet_to_come_are_taken_back() {
    let directory = filled([change(0, "r", "", What::Counted)]);
    let connection = Connection::open(database(&directory)).unwrap();
    let ahead = "UPDATE meta SET value = 9000000000000 WHERE key = 'audit_from_ms'; \
                 INSERT INTO audit_gap VALUES (1700000100000, 9000000000000, 7);";
    connection.execute_batch(ahead).unwrap();
    drop(connection);
    let store = open(directory.path());
    written(&store.audit());
    drop(store);
    let tomorrow = Filter {
        since: Some(SystemTime::now() + DAY),
        ..Filter::default()
    };
    assert!(reader(&directory).covers(&tomorrow).unwrap().is_complete);
}

/// Whatever a flood does, it is known who changed what.
#[test]
fn changes_by_hand_have_room_in_a_flood() {
    let mut queue = Queue::default();
    push(
        &mut queue,
        (0..70_000).map(|at| change(at, "r", "", What::Counted)),
    );
    let by_hand = || Row::of_hand(ByHand::new(time(0), 0, "block add"));
    let now = Instant::now();
    for _ in 0..5_000 {
        queue.push(by_hand(), now);
    }
    let health = queue.health();
    assert_eq!(health.waiting, 65_536 + 4_096);
    assert_eq!(health.dropped, 70_000 - 65_536 + 5_000 - 4_096);
    // Nor are they what a failure loses.
    let batch = queue.take();
    push(
        &mut queue,
        (80_000..90_000).map(|at| change(at, "r", "", What::Counted)),
    );
    queue.push(by_hand(), now);
    queue.give_back(batch, "full".to_owned(), now);
    assert_eq!(queue.by_hand().len(), 4_096);
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
