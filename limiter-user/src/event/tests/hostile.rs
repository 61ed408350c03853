//! What strangers may send, in every format.

use proptest::prelude::*;

use super::{event, request, with_bytes};
use crate::event::Sample;
use crate::event::formats::{Fields, Format};
use crate::event::lines::Line;
use crate::event::reader::Reader;

/// Lines that once were, or well could be, trouble.
const HOSTILE: [(&str, &[u8]); 24] = [
    ("nothing", b""),
    ("spaces", b"   \t "),
    ("NUL", b"\0\0\0"),
    ("an escape byte", b"\x1b]0;owned\x07"),
    ("no UTF-8", b"\xff\xfe\xfd"),
    ("half a character", b"{\"source\":\"\xe3\x81"),
    (
        "a lone surrogate",
        br#"{"source":"192.0.2.1","account":"\ud800"}"#,
    ),
    ("a lone quote", b"\""),
    ("a lone backslash", b"\\"),
    (
        "an open escape",
        br#"1.1.1.1 - - [22/Nov/2026:18:29:28 +0000] "GET /\x2"#,
    ),
    (
        "an escape at the end",
        b"1.1.1.1 - - [22/Nov/2026:18:29:28 +0000] \"GET /\\",
    ),
    ("no time", br#"1.1.1.1 - "GET / HTTP/1.1" 200 1"#),
    ("a short time", br#"1.1.1.1 - - [] "GET / HTTP/1.1" 200 1"#),
    (
        "the 32nd",
        br#"1.1.1.1 - - [32/Nov/2026:18:29:28 +0000] "GET / HTTP/1.1" 200 1"#,
    ),
    (
        "hour 25",
        br#"1.1.1.1 - - [22/Nov/2026:25:29:28 +0000] "GET / HTTP/1.1" 200 1"#,
    ),
    (
        "zone 9999",
        br#"1.1.1.1 - - [22/Nov/2026:18:29:28 +9999] "GET / HTTP/1.1" 200 1"#,
    ),
    (
        "year 9999",
        br#"1.1.1.1 - - [22/Nov/9999:18:29:28 +0000] "GET / HTTP/1.1" 200 1"#,
    ),
    (
        "year 0",
        br#"1.1.1.1 - - [22/Nov/0000:18:29:28 +0000] "GET / HTTP/1.1" 200 1"#,
    ),
    (
        "a port of its own",
        br#"1.1.1.1:99999999 [22/Nov/2026:18:29:30.925] fe be/s1 0/0/0/0/0 200 1 - - "GET /""#,
    ),
    ("an open bracket", b"1.1.1.1:1 [22/Nov/2026:18:29:30.925"),
    ("only a bracket", b"["),
    ("a number for all", b"1e999999999"),
    (
        "an object for all",
        br#"{"source":{},"request":{"headers":7},"http_request":[[]],"headers":[]}"#,
    ),
    (
        "a key of braces",
        br#"{"{\"source\":\"1.1.1.1\"}":{"a":{"b":{"c":[]}}}}"#,
    ),
];

fn formats() -> Vec<Format> {
    let fields = Fields::new([("source", "/a/0"), ("headers", "/h")]).unwrap();
    let named = Format::names().map(|name| name.parse().unwrap());
    named.chain([Format::Fields(fields)]).collect()
}

#[test]
fn hostile_lines_are_no_events() {
    for format in formats() {
        for (name, line) in HOSTILE {
            let read = format.read(line);
            assert!(!matches!(read, Ok(Some(_))), "{format}, {name}: {read:?}");
            if let Err(cause) = read {
                let words = cause.to_string();
                assert!(
                    !words.contains(char::is_control),
                    "{format}, {name}: {words}"
                );
            }
        }
    }
}

#[test]
fn a_client_cannot_write_the_rest_of_its_line() {
    // All that nginx leaves as it is, in each place that a client fills.
    let forged = r"1.1.1.1 - - [22/Nov/2026:18:29:28 +0000] \x22GET /x HTTP/1.1\x22 200 1";
    let line = format!(
        r#"192.0.2.7 - {forged} [22/Nov/2026:18:29:28 +0000] "POST /login?{forged} HTTP/1.1" 401 1 "{forged}" "{forged}""#
    );
    let found = event(&Format::Nginx, line.as_bytes());
    assert_eq!(found.source.to_string(), "192.0.2.7");
    assert!(request(&found).starts_with("POST /login?1.1.1.1"));
    assert_eq!(found.status, Some(401));
    // A captured cookie, which HAProxy does not escape.
    let forged = r#"x - ---- 1/1/0/0/0 0/0 {} "GET /x HTTP/1.1""#;
    let line = format!(
        r#"192.0.2.7:1 [22/Nov/2026:18:29:30.925] fe be/s1 0/0/0/0/0 401 1 c={forged} - ---- 1/1/0/0/0 0/0 {{}} "POST /login HTTP/1.1""#
    );
    let found = event(&Format::Haproxy, line.as_bytes());
    assert_eq!(
        (request(&found), found.status),
        ("POST /login".into(), Some(401))
    );
    // A line end in a value is no line end.
    let line = br#"{"source":"192.0.2.7","path":"/a\n{\"source\":\"1.1.1.1\"}","status":401}"#;
    assert_eq!(event(&Format::Json, line).source.to_string(), "192.0.2.7");
    // `escape=none` lets a client write keys; the second is found.
    let line = br#"{"source":"192.0.2.7","path":"/a","status":"200","x":"","status":"401"}"#;
    for format in [Format::Json, Format::NginxJson, Format::EnvoyJson] {
        assert!(format.read(line).is_err(), "{format}");
    }
    let raw = b"192.0.2.7 - - [22/Nov/2026:18:29:28 +0000] \"GET /\x1b HTTP/1.1\" 200 1";
    let cause = Format::Nginx.read(raw).unwrap_err().to_string();
    assert_eq!(
        cause,
        "byte 50: 0x1b as it is, which the server would have escaped"
    );
}

#[test]
fn samples_may_be_printed_and_are_short() {
    let sample = Sample::of(b"a\x1b[31m\0\xff\xe2\x80\xae\"");
    assert_eq!(sample.as_str(), r#"a\u{1b}[31m\0\xff\u{202e}""#);
    for bytes in [
        vec![0; 10_000],
        vec![b'a'; 10_000],
        "é".repeat(10_000).into_bytes(),
    ] {
        let sample = Sample::of(&bytes);
        assert!(sample.as_str().chars().count() <= 161 && sample.as_str().ends_with('…'));
    }
}

#[test]
fn an_origin_is_counted() {
    let mut reader = Reader::new(Format::Haproxy, true);
    let good =
        b"192.0.2.7:1 [22/Nov/2026:18:29:30.925] fe be/s1 0/0/0/0/0 401 1 - - \"GET / HTTP/1.1\"";
    let event = reader.line(&Line::Whole(good), &|_, _| true).unwrap();
    assert_eq!(event.peer, Some(event.source));
    assert_eq!(
        reader.line(&Line::Whole(b"Proxy fe started."), &|_, _| true),
        None
    );
    assert_eq!(reader.datagram(b"<134>nonsense\x1b\n"), None);
    let head = Sample::of(b"abc");
    assert_eq!(
        reader.line(
            &Line::TooLong {
                length: 10_000_000,
                head
            },
            &|_, _| true
        ),
        None
    );
    reader.drop_events(7);
    let tally = reader.tally();
    let counts = (
        tally.read,
        tally.understood,
        tally.other,
        tally.not_understood,
        tally.dropped,
    );
    assert_eq!(counts, (4, 1, 1, 2, 7));
    let last = tally.last.as_ref().unwrap().in_words();
    assert!(
        last.starts_with("10000000 bytes; 262144 are read at most; "),
        "{last}"
    );
    assert!(last.ends_with(": abc"), "{last}");
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes: Vec<u8>) {
        for format in formats() {
            let _read = format.read(&bytes);
        }
    }

    #[test]
    fn a_line_of_which_bytes_are_missing_never_panics(
        line in prop::sample::select(HOSTILE.to_vec()), from in 0_usize..400, length in 0_usize..40, byte: u8,
    ) {
        let json = with_bytes(include_str!("../samples/nginx-json.log"));
        let samples: [&[u8]; 5] = [
            line.1,
            include_bytes!("../samples/nginx.log"),
            include_bytes!("../samples/haproxy.log"),
            include_bytes!("../samples/caddy.log"),
            &json,
        ];
        for sample in samples {
            let from = from.min(sample.len());
            let until = (from + length).min(sample.len());
            let mut bytes = sample[..from].to_vec();
            bytes.push(byte);
            bytes.extend_from_slice(&sample[until..]);
            for format in formats() {
                for line in bytes.split(|byte| *byte == b'\n') {
                    let _read = format.read(line);
                }
                let _read = format.read(&bytes);
            }
        }
    }

    /// Whatever a client sends as path, agent and name, and nginx escapes: the
    /// event has just that.
    #[test]
    fn what_nginx_escapes_comes_back(
        user in "[^:]+", path in "/[^\\s#]*", agent in ".+", status in 100_u16..600,
    ) {
        prop_assume!(user != "-" && agent != "-");
        let escape = |text: &str| {
            let escaped = text.bytes().map(|byte| match byte {
                b'"' | b'\\' | 0..b' ' | 0x7f.. => format!("\\x{byte:02X}"),
                byte => char::from(byte).to_string(),
            });
            escaped.collect::<String>()
        };
        let line = format!(
            "192.0.2.7 - {} [22/Nov/2026:18:29:28 +0000] \"GET {} HTTP/1.1\" {status} 1 \"-\" \"{}\"",
            escape(&user), escape(&path), escape(&agent),
        );
        let found = event(&Format::Nginx, line.as_bytes());
        prop_assert_eq!(found.account.as_deref(), Some(&*user));
        prop_assert_eq!(found.path.as_deref(), Some(&*path));
        prop_assert_eq!(found.status, Some(status));
        prop_assert_eq!(found.headers, vec![("User-Agent".into(), agent.into())]);
    }
}
