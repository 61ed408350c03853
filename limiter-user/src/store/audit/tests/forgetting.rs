//! What is forgotten, with time and on request.

use std::fs;

use super::*;

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
