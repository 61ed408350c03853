//! The audit log by its resources, over a log of its own.

use std::time::SystemTime;

use super::*;
use crate::control::api::{AuditAnswer, EraseOrder, Erased};
use crate::engine::{Cause, Change, What};
use crate::keeper::fake::{Told, begun, policy};
use crate::keeper::records::Records as _;
use crate::policy::Action;
use crate::store::Store;

fn changes() -> Vec<Change> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ns = u64::try_from(now.unwrap().as_nanos()).unwrap();
    let change = |(number, (account, source, what)): (u64, (&str, &str, What))| Change {
        at_ns: now_ns - number * 1_000_000_000,
        rule: "login".into(),
        key: 7,
        part: 0,
        what,
        event: Some(Cause {
            source: source.parse().unwrap(),
            account: Some(account.into()),
            path: Some("/login".into()),
            status: Some(401),
            owner: None,
        }),
    };
    let refused = What::Refused {
        action: Action::Reject,
        reason: None,
        simulated: false,
    };
    let all = [
        ("ann", "192.0.2.7", What::Counted),
        ("ann", "192.0.2.7", What::Counted),
        ("ann", "192.0.2.8", refused),
        ("bob", "192.0.2.9", refused),
    ];
    (1..).zip(all).map(change).collect()
}

/// A server whose keeper writes into a log, and what writes to it.
fn with_log() -> (Server, Store) {
    let mut opened = None;
    let server = start_with(LIMITS, |config| {
        let directory = config.parent().unwrap().join("state");
        let store = Store::open(&directory, Now::read()).unwrap();
        let told = Told {
            audit: store.audit(),
            ..Told::default()
        };
        let text = format!("{POLICY}\n[state]\ndirectory = {directory:?}\n");
        opened = Some(store);
        begun(config, policy(&text), told, Now::read())
    });
    (server, opened.unwrap())
}

fn ask(client: &Client, parameters: &[(&str, &str)]) -> AuditAnswer {
    client.get("/v1/audit", parameters).unwrap()
}

fn count(client: &Client, parameters: &[(&str, &str)]) -> u64 {
    let parameters = [parameters, &[("count", "true")]].concat();
    match ask(client, &parameters) {
        AuditAnswer::Counted(counted) => counted.count,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_and_accounts_erased() {
    let (server, store) = with_log();
    let audit = store.audit();
    audit.record(changes());
    audit.written().await.unwrap().unwrap();
    with(&server, |client| {
        // As it is typed.
        let of_ann = [("account", " Ann"), ("since", "7d")];
        assert_eq!(count(&client, &of_ann), 3);
        assert_eq!(count(&client, &[("kind", "counted")]), 2);
        assert_eq!(count(&client, &[("source", "192.0.2.8/31")]), 2);
        let top = [("action", "reject"), ("by", "source"), ("limit", "1")];
        let AuditAnswer::Top(top) = ask(&client, &top) else {
            panic!("no top");
        };
        assert_eq!((top.shares.len(), top.count), (1, 2));
        let blocked: Changed = client.post("/v1/blocks", &entry("198.51.100.7")).unwrap();
        assert_eq!(blocked.changed, 1);
    })
    .await;
    audit.written().await.unwrap().unwrap();
    with(&server, |client| {
        let AuditAnswer::Rows(rows) = ask(&client, &[("kind", "hand")]) else {
            panic!("no rows");
        };
        let row = &rows.records[0];
        assert_eq!(row.order.as_deref(), Some("block add"));
        assert_eq!(row.uid, Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(row.detail.as_deref(), Some("for 10m"));
        let order = EraseOrder {
            account: "ANN".to_owned(),
        };
        let erased: Erased = client.post("/v1/audit/erase", &order).unwrap();
        assert_eq!(erased.rows, 3);
        assert_eq!(count(&client, &[("account", "ann")]), 0);
        assert_eq!(count(&client, &[("account", "bob")]), 1);
        let AuditAnswer::Rows(rows) = ask(&client, &[("kind", "hand")]) else {
            panic!("no rows");
        };
        let row = &rows.records[0];
        assert_eq!(row.order.as_deref(), Some("audit erase"));
        assert_eq!((&row.account, &row.account_hash), (&None, &None));
    })
    .await;
}

/// Of a log that is not there, and of an order that is none.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_says_why() {
    let (server, store) = with_log();
    let directory = server.config.parent().unwrap().join("state");
    drop(store);
    std::fs::remove_dir_all(directory).unwrap();
    let asked = with(&server, |client| {
        client.get::<AuditAnswer>("/v1/audit", &[("since", "1h")])
    });
    match asked.await.unwrap_err() {
        ClientError::Refused(refusal) => {
            assert_eq!(refusal.status, 404);
            assert!(refusal.detail.contains("no audit log in"), "{refusal:?}");
        }
        other => panic!("{other}"),
    }
    let request = b"POST /v1/audit/erase HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Content-Length: 2\r\n\r\n{}";
    let answer = raw(&server, request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains(r#"send {\"account\""#), "{answer}");
    still_works(&server).await;
}
