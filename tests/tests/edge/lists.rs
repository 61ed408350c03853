//! Entries of run time, and what is told of a source.

use crate::site::{Site, limit, rows, udp};

fn policy() -> String {
    let slow = "packets = { rate = \"1/h\", burst = 3 }";
    let lists = "deny = [\"192.0.2.0/24\"]\n";
    [lists, &limit("slow", "udp", 1_000, slow)].concat()
}

/// A source whose entry a CPU already holds.
#[test]
fn a_list_entry_holds_at_once_for_a_tracked_source() {
    for source in ["198.51.100.1", "2001:db8:1::5"] {
        let site = Site::new("native", &policy());
        let sender = site.sender();
        let frame = site.frame(source, udp(1_000)).build();
        let send = |times| {
            for _ in 0..times {
                sender.send(&frame).unwrap();
            }
            site.packets()
        };
        let change = |list, verb| site.daemon.ask(&[list, verb, source]).unwrap();
        send(4);
        change("allow", "add");
        send(10);
        change("allow", "del");
        send(1);
        change("deny", "add");
        send(5);
        change("deny", "del");
        let expected = rows(&[
            ("slow pass limit -", 3),
            ("slow drop limit packets", 3),
            ("- pass allow -", 10),
            ("- drop deny -", 5),
        ]);
        assert_eq!(send(1), expected);
    }
}

#[test]
fn explain_names_what_decides() {
    let site = Site::new("native", &policy());
    let sender = site.sender();
    let explain = |source: &str| {
        let found = site.daemon.json(&["explain", source]).unwrap();
        let text = site.daemon.ask(&["explain", source]).unwrap();
        (found["decided_by"].as_str().unwrap().to_owned(), text)
    };
    let source = "198.51.100.1";
    for _ in 0..5 {
        sender
            .send(&site.frame(source, udp(1_000)).build())
            .unwrap();
    }
    site.counts();
    let (decided, text) = explain(source);
    assert_eq!(decided, "limit");
    assert!(text.contains("limit slow"), "{text}");
    assert!(
        text.contains("3 of 198.51.100.1 passed, 2 dropped"),
        "{text}"
    );
    let (decided, text) = explain("192.0.2.9");
    assert_eq!(decided, "deny");
    assert!(text.contains("192.0.2.0/24"), "{text}");
    let block = ["block", "add", source, "--reason", "a test"];
    site.daemon.ask(&block).unwrap();
    let (decided, text) = explain(source);
    assert_eq!(decided, "block");
    assert!(text.contains("a test"), "{text}");
    site.daemon.ask(&["block", "del", source]).unwrap();
    site.daemon
        .ask(&["allow", "add", "198.51.100.0/24"])
        .unwrap();
    let (decided, text) = explain(source);
    assert_eq!(decided, "allow");
    assert!(text.contains("198.51.100.0/24"), "{text}");
    // What is allowed cannot be blocked or denied; the allow is named.
    for list in ["block", "deny"] {
        let refused = site.daemon.output(&[list, "add", source]).unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(why.contains("198.51.100.0/24"), "{why}");
    }
}

#[test]
fn sources_are_listed_busiest_first() {
    let site = Site::new("native", &policy());
    let sender = site.sender();
    for (last, times) in [(1, 4), (2, 9), (3, 1), (4, 6), (5, 2)] {
        let source = format!("198.51.100.{last}");
        for _ in 0..times {
            sender
                .send(&site.frame(&source, udp(1_000)).build())
                .unwrap();
        }
    }
    site.counts();
    let shown = site.daemon.json(&["sources", "--count", "4"]).unwrap();
    assert_eq!(shown["total"], 5);
    let listed: Vec<String> = shown["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("{} {} {}", row["source"], row["passed"], row["dropped"]))
        .collect();
    let expected = [(2, 3, 6), (4, 3, 3), (1, 3, 1), (5, 2, 0)];
    let expected = expected
        .map(|(last, passed, dropped)| format!("\"198.51.100.{last}/32\" {passed} {dropped}"));
    assert_eq!(listed, expected);
}
