use proptest::prelude::*;

use super::{event, request};
use crate::event::formats::Format;
use crate::event::syslog::message;

fn text(datagram: &str) -> String {
    let message = message(datagram.as_bytes()).expect(datagram);
    String::from_utf8(message.to_vec()).unwrap()
}

#[test]
fn what_nginx_and_haproxy_send() {
    let datagrams = include_bytes!("../samples/datagrams.log");
    let mut count = 0;
    for datagram in datagrams
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message = message(datagram).unwrap();
        let format = match message {
            [b'{', ..] => Format::Json,
            _ if datagram.windows(7).any(|word| word == b"haproxy") => Format::Haproxy,
            _ => Format::Nginx,
        };
        let event = event(&format, message);
        assert_eq!(
            (request(&event), event.status),
            ("GET /index.html?q=1".into(), Some(401))
        );
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn headers_come_off() {
    for (datagram, expected) in [
        ("{\"a\":1}\n", "{\"a\":1}"),
        ("<134>raw line\n\0", "raw line"),
        ("<134>Nov  2 18:29:28 haproxy[1]: a: b", "a: b"),
        ("<134>Nov 22 18:29:28 host tag: a: b", "a: b"),
        ("<134>Nov 22 18:29:28 no tag at: all", "no tag at: all"),
        ("<134>Nov 22 18:29:28 short", "short"),
        ("<134>1 2026-11-22T18:29:28Z h a p m - msg", "msg"),
        ("<134>1 - - - - - - \u{feff}msg", "msg"),
        ("<134>1 - - - - - [a b=\"\\]\\\"]\"][c] m [x]", "m [x]"),
        ("<134>1 - - - - - -", ""),
        ("", ""),
    ] {
        assert_eq!(text(datagram), expected, "{datagram}");
    }
}

#[test]
fn a_header_that_breaks_off_is_an_error() {
    for (datagram, expected) in [
        ("<>x", "byte 2: a priority as `<134>` was expected"),
        ("<1345>x", "byte 6: a priority as `<134>` was expected"),
        ("<134", "byte 5: a priority as `<134>` was expected"),
        (
            "<134>1 a b",
            "byte 10: time, host, name, process and message id (RFC 5424) was expected",
        ),
        (
            "<134>1 - - - - - x",
            "byte 18: structured data, or `-` (RFC 5424) was expected",
        ),
        (
            "<134>1 - - - - - [a",
            "byte 18: structured data, or `-` (RFC 5424) was expected",
        ),
        (
            "<134>1 - - - - - -x",
            "byte 19: a space before the message was expected",
        ),
    ] {
        let cause = message(datagram.as_bytes()).expect_err(datagram);
        assert_eq!(cause.to_string(), expected, "{datagram}");
    }
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes: Vec<u8>, rest in "(<[0-9]{0,4}>)?(1 )?[-\\[\\]\"\\\\ a:0-9]{0,60}") {
        let _message = message(&bytes);
        let _message = message(rest.as_bytes());
    }

    /// What a client writes cannot pass for the header of its line.
    #[test]
    fn the_message_is_the_message(body in "[^\\x00\\n\\r]*[^\\x00\\n\\r ]") {
        for head in ["<190>Nov 22 18:29:28 edge: ", "<190>Nov 22 18:29:28 vm edge: ", "<1>1 - - - - - - "] {
            let body = body.trim_start_matches('\u{feff}');
            prop_assert_eq!(text(&format!("{head}{body}\n")), body);
        }
    }
}
