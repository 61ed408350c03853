use ipnet::IpNet;
use proptest::prelude::*;

use super::address;
use crate::adapters::Proxies;
use crate::event::Event;

const PROXY: &str = "10.0.0.1";

fn proxies(header: &str) -> Proxies {
    let trusted: Vec<IpNet> = vec![
        "10.0.0.0/8".parse().unwrap(),
        "2001:db8:1::/48".parse().unwrap(),
    ];
    Proxies::new(trusted, header)
}

fn event(source: &str, headers: &[(&str, &str)]) -> Event {
    let headers = headers.iter();
    Event {
        headers: headers
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        peer: Some(address(source)),
        ..Event::of(address(source))
    }
}

/// The client behind [`PROXY`] with one header.
fn client(header: &str, value: &str) -> String {
    let event = event(PROXY, &[(header, value)]);
    proxies(header).client(&event).to_string()
}

#[test]
fn the_right_most_address_that_is_no_trusted_proxy() {
    for (value, expected) in [
        ("192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, 10.0.0.2,10.0.0.3", "192.0.2.7"),
        ("192.0.2.7:4711, 10.0.0.2:80", "192.0.2.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("192.0.2.7, 2001:db8:1::2", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, ::ffff:10.0.0.2", "192.0.2.7"),
        (" ,, 192.0.2.7 ,\t, ", "192.0.2.7"),
        // All are proxies: a health check of one of them.
        ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
        // What is no address ends the search.
        ("192.0.2.7, unknown, 10.0.0.2", "10.0.0.2"),
        ("192.0.2.7, garbage", PROXY),
        ("\"192.0.2.7\"", PROXY),
        ("", PROXY),
        (",", PROXY),
    ] {
        assert_eq!(client("X-Forwarded-For", value), expected, "{value}");
    }
}

#[test]
fn only_the_header_of_a_trusted_proxy_and_only_that_header() {
    let proxies = proxies("X-Forwarded-For");
    let header = [("x-forwarded-for", "192.0.2.7")];
    let mut stranger = event("198.51.100.9", &header);
    proxies.settle(&mut stranger);
    assert_eq!(stranger.source, address("198.51.100.9"));
    let mut trusted = event(PROXY, &header);
    proxies.settle(&mut trusted);
    assert_eq!(trusted.source, address("192.0.2.7"));
    assert_eq!(trusted.peer, Some(address(PROXY)));
    let mapped = event("::ffff:10.0.0.1", &header);
    assert_eq!(proxies.client(&mapped), address("192.0.2.7"));
    for other in ["X-Real-IP", "Forwarded", "X-Forwarded-For-2"] {
        let event = event(PROXY, &[(other, "192.0.2.7")]);
        assert_eq!(proxies.client(&event), address(PROXY), "{other}");
    }
    // Several lines are one list.
    let lines = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-For", "10.0.0.2, 10.0.0.3"),
    ];
    assert_eq!(proxies.client(&event(PROXY, &lines)), address("192.0.2.7"));
}

#[test]
fn forwarded_of_rfc_7239() {
    for (value, expected) in [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        ("for=192.0.2.43, for=10.0.0.2;by=10.0.0.1", "192.0.2.43"),
        (
            "proto=https;for=\"192.0.2.60:80\";host=\"a,b;c\"",
            "192.0.2.60",
        ),
        (
            "for=6.6.6.6, for=192.0.2.60;host=\"a,\\\"b\\\"\"",
            "192.0.2.60",
        ),
        // Nothing that a client has sent changes how the rest is read.
        ("for=\"6.6.6.6, for=192.0.2.60", "192.0.2.60"),
        ("for=6.6.6.6;host=\"\\, for=192.0.2.60", "192.0.2.60"),
        ("for=192.0.2.7, for=unknown", PROXY),
        ("for=192.0.2.7, for=_hidden, for=10.0.0.2", "10.0.0.2"),
        ("for=192.0.2.7;for=192.0.2.8", PROXY),
        ("by=10.0.0.2", PROXY),
        ("192.0.2.7", PROXY),
    ] {
        assert_eq!(client("Forwarded", value), expected, "{value}");
    }
}

#[test]
fn a_long_header_is_looked_at_from_the_right() {
    let many = |trusted: usize| {
        let mut list = "192.0.2.7".to_owned();
        list.push_str(&", 10.0.0.2".repeat(trusted));
        client("X-Forwarded-For", &list)
    };
    assert_eq!(many(63), "192.0.2.7");
    assert_eq!(many(64), "10.0.0.2");
    // An address that is cut is none.
    for padding in 8_150..8_200 {
        let list = format!("192.0.2.77, {}10.0.0.2", " ".repeat(padding));
        let found = client("X-Forwarded-For", &list);
        assert!(
            ["192.0.2.77", "10.0.0.2", PROXY].contains(&&*found),
            "{found}"
        );
    }
    let huge = format!("{}, 192.0.2.7", "6.6.6.6, ".repeat(1 << 20));
    assert_eq!(client("X-Forwarded-For", &huge), "192.0.2.7");
    assert_eq!(client("Forwarded", &"\"".repeat(1 << 20)), PROXY);
}

proptest! {
    #[test]
    fn no_header_panics(value in "[\",;=\\\\ a-f0-9:.\\[\\]%for\\PC]{0,80}") {
        for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP"] {
            client(header, &value);
        }
    }

    /// Whatever a client sends, the address that the proxy adds is the client.
    #[test]
    fn what_a_client_sends_changes_nothing(sent in "[\",;=\\\\ a-f0-9:.for\\PC]{0,40}") {
        let list = format!("{sent}, 192.0.2.7");
        prop_assert_eq!(client("X-Forwarded-For", &list), "192.0.2.7");
        let list = format!("{sent}, for=192.0.2.7");
        prop_assert_eq!(client("Forwarded", &list), "192.0.2.7");
    }
}
