//! Defaults, and what each key comes to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::units::Rate;
use super::super::*;
use super::{CLEAN, LIMIT, loaded};

#[test]
fn an_empty_file_is_the_defaults() {
    let expected = Policy {
        edge: Edge {
            interfaces: vec![],
            mode: Mode::Auto,
            enforce: true,
            on_exit: OnExit::Keep,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            sources: 65_536,
            unparsed: Unparsed::Pass,
            allow: vec![],
            deny: vec![],
            allow_from: Arc::default(),
            deny_from: Arc::default(),
            flood: Flood {
                new_sources: per_second(10_000).rate,
                unknown: Unknown {
                    packets: per_second(20_000),
                    connections: per_second(20_000),
                },
                aggregate: Aggregate { ipv4: 24, ipv6: 48 },
            },
            safety: Safety {
                ssh_ports: vec![22],
                control_traffic: ControlTraffic::Pass,
            },
            tables: Tables {
                blocks_operator: 65_536,
                blocks_rule: 131_072,
                blocks_kernel: 8_192,
                lists: 1_048_576,
                interfaces: 16,
                recent: 4_000_000,
            },
            limits: vec![],
        },
        metrics: Metrics {
            listen: "127.0.0.1:9477".parse().unwrap(),
        },
        control: Control {
            socket: PathBuf::from("/run/limiter/control.sock"),
            group: "limiter".to_owned(),
            read_group: None,
        },
        state: State {
            pins: "/run/limiter-bpf".into(),
            directory: PathBuf::from("/var/lib/limiter"),
            retention: Duration::from_hours(30 * 24),
            audit_size: 1 << 30,
        },
        decide: None,
        notify: None,
    };
    assert_eq!(loaded("").policy, expected);
}

fn per_second(amount: u64) -> Bucket {
    Bucket {
        rate: Rate {
            amount,
            per_ns: 1_000_000_000,
        },
        burst: amount,
    }
}

#[test]
fn every_key_of_flood() {
    let text = r#"[edge.flood]
new_sources = "300/min"
unknown = { packets = "50/s", connections = { rate = "7/s", burst = 9 } }
aggregate = { ipv4 = 16, ipv6 = 32 }
"#;
    let expected = Flood {
        new_sources: Rate {
            amount: 300,
            per_ns: 60_000_000_000,
        },
        unknown: Unknown {
            packets: per_second(50),
            connections: Bucket {
                burst: 9,
                ..per_second(7)
            },
        },
        aggregate: Aggregate { ipv4: 16, ipv6: 32 },
    };
    assert_eq!(loaded(text).policy.edge.flood, expected);
}

#[test]
fn every_key_of_a_limit() {
    let text = format!(
        r#"{LIMIT}to = ["192.0.2.10", "2001:db8::/32"]
packets = {{ rate = "5000/s", burst = 10_000 }}
bytes = {{ rate = "1.5MB/min", burst = "40MB" }}
connections = "50/h"
exceed = {{ block = "90s" }}
from = ["10.0.0.0/8"]
total = {{ packets = "100/s", bytes = "1MB/s", connections = "10/s" }}
"#
    );
    let bucket = |amount, seconds: u64, burst| Bucket {
        rate: Rate {
            amount,
            per_ns: seconds * 1_000_000_000,
        },
        burst,
    };
    let expected = Limit {
        name: "https".to_owned(),
        protocol: Protocol::Tcp,
        ports: std::iter::once(443..=443).collect(),
        to: vec![
            "192.0.2.10/32".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ],
        packets: Some(bucket(5_000, 1, 10_000)),
        bytes: Some(bucket(1_500_000, 60, 40_000_000)),
        connections: Some(bucket(50, 3_600, 1)),
        exceed: Exceed::Block(Duration::from_secs(90)),
        from: Some(vec!["10.0.0.0/8".parse().unwrap()]),
        total: Total {
            packets: Some(per_second(100)),
            bytes: Some(per_second(1_000_000)),
            connections: Some(per_second(10)),
        },
    };
    assert_eq!(loaded(&text).policy.edge.limits, [expected]);
}

#[test]
fn no_burst_is_one_seconds_worth() {
    for (budget, expected) in [
        ("packets = '5000/s'", 5_000),
        ("packets = '90/min'", 2),
        ("packets = { rate = '1/h' }", 1),
        ("connections = '50/s'", 50),
        ("bytes = '20MB/s'", 20_000_000),
        ("bytes = '1kB/s'", 1_514),
    ] {
        let limit = loaded(&format!("{LIMIT}{budget}\n"))
            .policy
            .edge
            .limits
            .remove(0);
        let bucket = limit.packets.or(limit.bytes).or(limit.connections);
        assert_eq!(bucket.unwrap().burst, expected, "{budget}");
    }
}

#[test]
fn ports_are_sorted_and_merged() {
    for (ports, expected) in [
        ("[]", vec![]),
        ("[443, 80]", vec![80..=80, 443..=443]),
        (
            "['10-20', '15-30', 31, '33', 65535]",
            vec![10..=31, 33..=33, 65_535..=65_535],
        ),
        ("['1-65535', 5]", vec![1..=65_535]),
    ] {
        let text = format!(
            "[[edge.limit]]\nname = 'a'\nprotocol = 'udp'\npackets = '1/s'\nports = {ports}\n"
        );
        assert_eq!(loaded(&text).policy.edge.limits[0].ports, expected);
    }
}

#[test]
fn lists_are_sets() {
    let text = format!("{CLEAN}allow = ['192.0.2.1', '10.0.0.0/8', '192.0.2.1/32']\n");
    let allow: Vec<String> = loaded(&text)
        .policy
        .edge
        .allow
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(allow, ["10.0.0.0/8", "192.0.2.1/32"]);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_nothing() {
    let text = format!("\u{feff}{CLEAN}mode = 'generic'\n").replace('\n', "\r\n");
    assert_eq!(loaded(&text).policy.edge.mode, Mode::Generic);
}
