//! Reloads under traffic: a packet sees one policy.

use crate::site::{LATE, Site, limit, row, rows, udp};
use limiter_tests::wait;

const ALWAYS: &str = "packets = { rate = \"100000000/s\", burst = 100000000 }";
/// Listed in either policy, by another list.
const LISTED: &str = "203.0.113.1";
/// Each has a port of its own, under a limit whose gate names only it; the
/// limits swap ports and gates.
const GATED: [(&str, u16); 2] = [("198.51.100.1", 1_000), ("198.51.100.2", 2_000)];
/// Denied while drops are enforced; and shut out by a gate while they are not.
const SHUT_OUT: &str = "192.0.2.1";

fn policies() -> [String; 2] {
    let gated = |name: &str, (source, port): (&str, u16)| {
        limit(
            name,
            "udp",
            port,
            &format!("from = [\"{source}\"]\n{ALWAYS}"),
        )
    };
    let shut = gated("shut", ("10.9.9.9", 5_000));
    let [x, y] = GATED;
    let first = format!("deny = [\"{LISTED}\", \"{SHUT_OUT}\"]\n");
    let second = format!("enforce = false\nallow = [\"{LISTED}\"]\n");
    [
        [first, gated("one", x), gated("two", y), shut.clone()].concat(),
        [second, shut, gated("two", x), gated("one", y)].concat(),
    ]
}

#[test]
fn every_packet_is_judged_by_one_policy() {
    for mode in ["native", "generic"] {
        let policies = policies();
        let site = Site::new(mode, &policies[0]);
        let texts = policies.map(|edge| site.policy(mode, &edge));
        let frames = [
            site.frame(GATED[0].0, udp(GATED[0].1)).build(),
            site.frame(GATED[1].0, udp(GATED[1].1)).build(),
            site.frame(LISTED, udp(1_000)).build(),
            site.frame(SHUT_OUT, udp(5_000)).build(),
        ];
        let rounds = site.send_while(&frames, || reload_often(&site, &texts));
        let counts = site.counts();
        let [one, two, deny, allow, shut] = [
            "one pass limit -",
            "two pass limit -",
            "- drop deny -",
            "- pass allow -",
            "shut would_drop not_from -",
        ]
        .map(|name| row(&counts, name));
        // No other row: it would be a mixture.
        assert_eq!(counts.len(), 5, "{counts:?}");
        assert_eq!([one + two, deny + allow + shut], [2 * rounds; 2]);
        // Each policy had its share, and its packets of either kind; at a
        // switch one kind may be ahead by one.
        assert!(
            allow > 0 && shut > 0 && deny > allow.abs_diff(shut),
            "{counts:?}"
        );
        assert!(allow.abs_diff(shut) <= 80, "{counts:?}");
    }
}

/// Eighty times, every eighth by signal.
fn reload_often(site: &Site, texts: &[String; 2]) {
    for number in 1..=80 {
        let which = number % 2;
        site.daemon.write_policy(&texts[which]).unwrap();
        if number % 8 < 2 {
            site.daemon.signal(libc::SIGHUP).unwrap();
            wait::until("the signal's reload", LATE, || {
                let status = site.daemon.json(&["status"])?;
                Ok((status["enforce"] == (which == 0)).then_some(()))
            })
            .unwrap();
        } else {
            site.daemon.ask(&["reload"]).unwrap();
        }
    }
}

#[test]
fn an_invalid_file_leaves_the_old_policy_in_force() {
    let few = "packets = { rate = \"1/h\", burst = 3 }";
    let good = limit("one", "udp", 1_000, few);
    let site = Site::new("native", &good);
    let sender = site.sender();
    let frame = site.frame("198.51.100.1", udp(1_000)).build();
    let send = |times| {
        for _ in 0..times {
            sender.send(&frame).unwrap();
        }
        site.packets()
    };
    send(2);
    let bad = site.policy("native", &good.replace("1/h", "0/h"));
    site.daemon.write_policy(&bad).unwrap();
    let refused = site.daemon.output(&["reload"]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(
        why.contains("limiter.toml:") && why.contains("0/h"),
        "{why}"
    );
    let status = site.daemon.json(&["status"]).unwrap();
    assert_eq!(status["reload"]["successful"], false, "{status}");
    assert_eq!(status["limits"][0], "one");
    let before = rows(&[("one pass limit -", 3), ("one drop limit packets", 1)]);
    assert_eq!(send(2), before);
    // And the daemon goes on.
    let more = good.replace("burst = 3", "burst = 5") + &limit("two", "udp", 2_000, few);
    site.daemon
        .write_policy(&site.policy("native", &more))
        .unwrap();
    site.daemon.ask(&["reload"]).unwrap();
    let status = site.daemon.json(&["status"]).unwrap();
    assert_eq!(status["reload"]["successful"], true, "{status}");
    // The bucket of the same name is as empty as it was.
    let after = rows(&[("one pass limit -", 3), ("one drop limit packets", 2)]);
    assert_eq!(send(1), after);
}

/// What a limit has counted does not go with it.
#[test]
fn no_packet_is_lost_with_a_limit() {
    let site = Site::new("native", &limit("one", "udp", 1_000, ALWAYS));
    let sender = site.sender();
    let frame = site.frame("198.51.100.1", udp(1_000)).build();
    for name in ["one", "two", "three", "one"] {
        let edge = limit(name, "udp", 1_000, ALWAYS);
        site.daemon
            .write_policy(&site.policy("native", &edge))
            .unwrap();
        site.daemon.ask(&["reload"]).unwrap();
        for _ in 0..10 {
            sender.send(&frame).unwrap();
        }
        // Waits for the sum to be that of the interface.
        site.counts();
    }
}

#[test]
fn diff_tells_what_a_reload_changes() {
    let policies = policies();
    let site = Site::new("native", &policies[0]);
    let file = site.daemon.policy().display().to_string();
    let told = || site.daemon.ask(&["diff", &file]).unwrap();
    assert!(told().contains("says what is in force"), "{}", told());
    // What was added at run time is no part of the file.
    site.daemon.ask(&["deny", "add", "198.51.100.77"]).unwrap();
    let text = site.policy("native", &policies[1]);
    site.daemon.write_policy(&text).unwrap();
    let differences = told();
    let lines: Vec<&str> = differences.lines().collect();
    assert_eq!(
        lines,
        [
            "~ edge.enforce: true -> false",
            "~ edge.limit.one.from: 198.51.100.1/32 -> 198.51.100.2/32",
            "~ edge.limit.one.ports: 1000 -> 2000",
            "~ edge.limit.two.from: 198.51.100.2/32 -> 198.51.100.1/32",
            "~ edge.limit.two.ports: 2000 -> 1000",
            "limits match in another order: shut, two, one",
            "+ edge.allow: 203.0.113.1/32",
            "- edge.deny: 192.0.2.1/32",
            "- edge.deny: 203.0.113.1/32",
        ]
    );
    site.daemon.ask(&["reload"]).unwrap();
    assert!(told().contains("says what is in force"), "{}", told());
    let json = site.daemon.json(&["diff", &file]).unwrap();
    assert_eq!(json["values"], serde_json::json!([]));
}
