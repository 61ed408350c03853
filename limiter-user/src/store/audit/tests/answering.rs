//! What is answered, and since when it is all there.

use std::fs;

use super::*;

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
        reason: None,
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

/// A log that grows under those who ask.
#[test]
fn questions_let_what_is_written_take_its_place() {
    let directory = filled([change(0, "r", "", What::Counted)]);
    assert!(!is_behind(directory.path()));
    let waiting = fs::File::create(directory.path().join("limiter.db-wal")).unwrap();
    waiting.set_len(257 << 20).unwrap();
    assert!(is_behind(directory.path()));
}
