//! Presets behind Caddy and HAProxy: the numbers are those that clients of nginx see.

use crate::{
    front::{Front, Kind, number, stranger},
    presets::{NO_RATE, kratos},
    presets_login::expect_lockout,
};
use serde_json::Value;

/// A bucket with its headers, Ory's refusal, the admin API's gate, the CAPTCHA.
fn expect_kratos(kind: Kind) {
    let sets = [NO_RATE, "rule.kratos-admin-rate.burst=1000"];
    let front = Front::behind(kind, "kratos", &sets, kratos);
    let (passed, refused) = front.until_refused("GET /admin/identities");
    assert_eq!((passed, refused.status), (10, 429), "{refused:?}");
    front.come_from(stranger(1));
    for (request, headers) in [
        ("GET /admin/identities", "X-Forwarded-For: 10.0.0.1\r\n"),
        ("GET /health/alive", "Host: admin.example.com\r\n"),
    ] {
        let answer = front.send(request, headers, "");
        assert_eq!(answer.status, 403, "{request}: {answer:?}");
        assert_eq!(answer.header("retry-after"), None, "{answer:?}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["id"], "forbidden", "{body}");
    }
    let request = "GET /self-service/login/browser";
    let first = front.send(request, "", "");
    assert_eq!(number(&first, "x-ratelimit-limit"), 30, "{first:?}");
    assert_eq!(number(&first, "x-ratelimit-remaining"), 29, "{first:?}");
    let (passed, refused) = front.until_refused(request);
    assert_eq!((passed, refused.status), (29, 429), "{refused:?}");
    assert!((1..=60).contains(&number(&refused, "retry-after")));
    let body: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(body["error"]["code"], 429, "{body}");
    front.come_from(stranger(2));
    let (failed, challenged) = front.until_refused("POST /self-service/login");
    assert_eq!((failed, challenged.status), (4, 403), "{challenged:?}");
    assert_eq!(challenged.header("x-limiter"), Some("captcha"));
}

#[test]
fn kratos_behind_caddy() {
    expect_kratos(Kind::Caddy);
}

#[test]
fn kratos_behind_haproxy() {
    expect_kratos(Kind::Haproxy);
}

#[test]
fn accounts_are_locked_behind_caddy() {
    expect_lockout(Kind::Caddy);
}

#[test]
fn accounts_are_locked_behind_haproxy() {
    expect_lockout(Kind::Haproxy);
}
