use std::net::IpAddr;

use proptest::prelude::*;

use crate::event::json::read;
use crate::event::lines::MAX_LINE;
use crate::event::{Event, NotUnderstood, Outcome};

fn fault(text: &str) -> String {
    let cause = read(text.as_bytes()).expect_err(text);
    assert!(!cause.help().is_empty());
    cause.to_string()
}

#[test]
fn every_key_is_read() {
    let text = br#"{"at": 1795372168.5, "id": "r1", "source": "192.0.2.1", "peer": "::ffff:10.0.0.1",
        "method": "POST", "host": "example.com:8080", "path": "/login?x=1", "status": 401,
        "account": "alice", "backend": "internal", "outcome": "failure",
        "headers": {"User-Agent": "curl", "X-A": ["1", "2"]}, "response_headers": {"X-CF-Block": ""}}"#;
    let pair = |name: &str, value: &str| (name.into(), value.into());
    let expected = Event {
        at_ns: Some(1_795_372_168_500_000_000),
        id: Some("r1".into()),
        peer: Some(IpAddr::from([10, 0, 0, 1])),
        method: Some("POST".into()),
        host: Some("example.com".into()),
        path: Some("/login?x=1".into()),
        status: Some(401),
        account: Some("alice".into()),
        backend: Some("internal".into()),
        outcome: Some(Outcome::Failure),
        headers: vec![
            pair("User-Agent", "curl"),
            pair("X-A", "1"),
            pair("X-A", "2"),
        ],
        response_headers: vec![pair("X-CF-Block", "")],
        ..Event::of(IpAddr::from([192, 0, 2, 1]))
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn only_the_source_is_needed_and_null_is_nothing() {
    let source = IpAddr::from([192, 0, 2, 1]);
    let bare = br#"{"source":"192.0.2.1"}"#;
    assert_eq!(read(bare), Ok(Event::of(source)));
    let nulls = br#"{"source":"192.0.2.1","peer":null,"status":null,"headers":null,"at":null}"#;
    assert_eq!(read(nulls), Ok(Event::of(source)));
    for none in [r"{}", r#"{"source":null}"#, r#"{"peer":"192.0.2.1"}"#] {
        assert_eq!(fault(none), "`source` is missing");
    }
}

#[test]
fn an_empty_value_is_a_value() {
    let event = read(br#"{"source":"192.0.2.1","account":"","path":"-"}"#).unwrap();
    assert_eq!(event.account.as_deref(), Some(""));
    assert_eq!(event.path.as_deref(), Some("-"));
}

#[test]
fn what_is_escaped_is_data_and_what_is_raw_is_an_error() {
    let event = read(br#"{"source":"192.0.2.1","account":"a\u0000\n\u001b[31m"}"#).unwrap();
    assert_eq!(event.account.as_deref(), Some("a\0\n\x1b[31m"));
    let raw = fault("{\"source\":\"192.0.2.1\",\"account\":\"a\0\"}");
    assert!(raw.starts_with("byte 35: control character"), "{raw}");
}

#[test]
fn a_key_comes_once_also_inside_and_by_another_spelling() {
    for (text, key) in [
        (r#"{"source":"192.0.2.1","source":"192.0.2.2"}"#, "source"),
        (
            r#"{"source":"192.0.2.1","st\u0061tus":200,"status":401}"#,
            "status",
        ),
        (
            r#"{"source":"192.0.2.1","peer":null,"peer":"192.0.2.2"}"#,
            "peer",
        ),
        (r#"{"source":"192.0.2.1","headers":{"A":"1","A":"2"}}"#, "A"),
        (
            r#"{"source":"192.0.2.1","headers":{"A":[],"\u0041":"2"}}"#,
            "A",
        ),
        (
            r#"{"source":"192.0.2.1","headers":{},"headers":{}}"#,
            "headers",
        ),
    ] {
        assert_eq!(fault(text), format!("`{key}` twice in one object"));
    }
}

#[test]
fn faults_say_what_and_where() {
    let with = |rest: &str| fault(&format!("{{\"source\":\"192.0.2.1\",{rest}}}"));
    assert_eq!(with(r#""acount":"a""#), "an event has no key `acount`");
    assert_eq!(
        with("\"\x7f\u{202e}\":1"),
        r"an event has no key `\u{7f}\u{202e}`"
    );
    assert_eq!(
        with(r#""status":{}"#),
        "`status` is an object, and one value was expected"
    );
    assert_eq!(
        with(r#""method":1"#),
        "`method` is a number, and a string was expected"
    );
    assert_eq!(
        with(r#""headers":"a""#),
        "`headers` is a string, and an object was expected"
    );
    assert_eq!(
        with(r#""headers":{"A":{"b":1}}"#),
        "`A` is an object, and a string or an array of strings was expected"
    );
    assert_eq!(
        with(r#""status":99"#),
        "`status` is `99`: not a status from 100 to 999"
    );
    assert_eq!(
        with(r#""status":4.5"#),
        "`status` is `4.5`: not a status from 100 to 999"
    );
    assert_eq!(
        with(r#""outcome":"ok""#),
        "`outcome` is `ok`: neither `success` nor `failure`"
    );
    for more in [
        "192.0.2.1:80",
        "[2001:db8::1]:443",
        "[2001:db8::1]",
        "fe80::1%eth0",
    ] {
        let said = with(&format!(r#""peer":"{more}""#));
        assert!(said.contains("a port, brackets and a zone"), "{said}");
    }
    assert_eq!(
        with(r#""peer":"localhost:80""#),
        "`peer` is `localhost:80`: not an IP address"
    );
    assert_eq!(
        with(r#""id":1.5"#),
        "`id` is a negative number or a fraction, and a string or a whole number was expected"
    );
    assert_eq!(with(r#""peer":"""#), "`peer` is ``: not an IP address");
    assert_eq!(fault("[]"), "an array where an object was expected");
    assert_eq!(fault("7"), "a number where an object was expected");
    assert_eq!(fault(""), "byte 1: EOF while parsing a value");
    assert_eq!(
        fault("{\"source\":\"192.0.2.1\"}\n{}"),
        "byte 24: trailing characters"
    );
    assert_eq!(
        read(b"{\"source\":\"\xff\"}"),
        Err(NotUnderstood::NotUtf8 { byte: 12 })
    );
    assert_eq!(
        read(&[b' '; MAX_LINE + 1]),
        Err(NotUnderstood::TooLong {
            length: MAX_LINE as u64 + 1,
            most: MAX_LINE
        })
    );
    let deep = "[".repeat(1_000);
    assert!(fault(&format!("{{\"headers\":{{\"a\":{deep}")).contains("an array of arrays"));
}

#[test]
fn headers_are_bounded() {
    let many: Vec<_> = (0..257).map(|n| format!("\"h{n}\":\"\"")).collect();
    let text = format!("{{\"source\":\"::1\",\"headers\":{{{}}}}}", many.join(","));
    assert_eq!(fault(&text), "more than 256 headers in `headers`");
    let values = vec!["\"\""; 257].join(",");
    let text = format!("{{\"source\":\"::1\",\"headers\":{{\"a\":[{values}]}}}}");
    assert_eq!(fault(&text), "more than 256 headers in `a`");
}

#[test]
fn times_are_unix_seconds_or_rfc_3339() {
    let at = |at: &str| {
        read(format!("{{\"source\":\"::1\",\"at\":{at}}}").as_bytes()).map(|event| event.at_ns)
    };
    for (text, ns) in [
        ("0", 0),
        ("1795372168", 1_795_372_168_000_000_000),
        ("1795372168.916", 1_795_372_168_916_000_000),
        ("1795372168.123456", 1_795_372_168_123_456_000),
        ("\"1795372168.916\"", 1_795_372_168_916_000_000),
        ("\"2026-11-22T18:29:28Z\"", 1_795_372_168_000_000_000),
        (
            "\"2026-11-22T20:29:28.000000001+02:00\"",
            1_795_372_168_000_000_001,
        ),
        ("4102444799", 4_102_444_799_000_000_000),
    ] {
        assert_eq!(at(text), Ok(Some(ns)), "{text}");
    }
    for absurd in [
        "-1",
        "-0.5",
        "4102444800",
        "1795372168916",
        "1e300",
        "\"9999-12-31T23:59:59Z\"",
        "\"1969-12-31T23:59:59Z\"",
        "\"2100-01-01T00:00:00Z\"",
        "18446744073709551615",
    ] {
        let cause = at(absurd).expect_err(absurd).to_string();
        assert!(cause.contains("between 1970 and 2100"), "{absurd}: {cause}");
    }
    for unreadable in [
        "\"\"",
        "\"today\"",
        "\"2026-11-22\"",
        "\"1.2.3\"",
        "\"NaN\"",
        "\"1e3\"",
        "\".\"",
    ] {
        let cause = at(unreadable).expect_err(unreadable).to_string();
        assert!(
            cause.contains("neither Unix seconds"),
            "{unreadable}: {cause}"
        );
    }
    assert!(at("true").is_err());
}

#[test]
fn an_absolute_target_is_its_path() {
    let parts = |path: &str| {
        let text = format!("{{\"source\":\"::1\",\"path\":\"{path}\"}}");
        let event = read(text.as_bytes()).unwrap();
        (event.host.map(String::from), event.path.map(String::from))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        parts("/login?a=http://b/"),
        (None, some("/login?a=http://b/"))
    );
    assert_eq!(
        parts("http://a.example:80/login"),
        (some("a.example"), some("/login"))
    );
    assert_eq!(
        parts("HTTPS://u:p@[::1]:80?x"),
        (some("[::1]"), some("/?x"))
    );
    assert_eq!(parts("*"), (None, some("*")));
    assert_eq!(parts("http://"), (None, some("/")));
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes: Vec<u8>) {
        let _read = read(&bytes);
    }

    #[test]
    fn what_a_serializer_writes_comes_back(
        account in ".*", path in "/[^#]*", status in 100_u16..1_000, source: [u8; 16],
        at_ms in 0_u64..4_102_444_800_000,
    ) {
        let source = IpAddr::from(source);
        let text = serde_json::json!({
            "source": source.to_string(), "account": account, "path": path, "status": status,
            "at": at_ms as f64 / 1e3, "headers": {account.clone(): [path.clone()]},
        })
        .to_string();
        let event = read(text.as_bytes()).unwrap();
        prop_assert_eq!(event.source, source.to_canonical());
        prop_assert_eq!(event.account.as_deref(), Some(&*account));
        prop_assert_eq!(event.path.as_deref(), Some(&*path));
        prop_assert_eq!(event.status, Some(status));
        prop_assert_eq!(event.at_ns, Some(at_ms * 1_000_000));
        prop_assert_eq!(event.headers, vec![(account.into(), path.into())]);
    }
}
