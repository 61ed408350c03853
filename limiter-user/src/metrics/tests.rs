//! The text that is scraped, line by line.

use hyper::header::{ACCEPT, HeaderMap};

use super::classic::classic;
use super::server::{Format, Metrics, accepted};
use crate::control::api::{FloodRow, InterfaceRow, ListFileRow};
use crate::dataplane::model::{Counter, MapUse};
use crate::keeper::Snapshot;
use crate::notify;
use crate::notify::queue::{Channel, Kept, Tally};
use crate::store::audit;
use crate::worker::supervisor::Health;
use limiter_common::block::Owner;
use limiter_common::verdict::{Action, Budget, Outcome, Reason};

fn counter(
    interface: Option<&str>,
    limit: Option<&str>,
    outcome: Outcome,
    packets: u64,
) -> Counter {
    Counter {
        interface: interface.map(str::to_owned),
        limit: limit.map(str::to_owned),
        outcome,
        packets,
        bytes: packets * 60,
    }
}

fn snapshot() -> Snapshot {
    let over = Outcome::new(Action::Drop, Reason::Limit(Budget::Connections));
    let allowed = Outcome::new(Action::Pass, Reason::Allow);
    Snapshot {
        counters: vec![
            counter(Some("eth\"0"), Some("https"), over, 7),
            counter(None, None, allowed, 1),
            counter(None, None, allowed, 2),
            counter(Some("eth\"0"), None, allowed, 0),
        ],
        blocks: [(Owner::Operator, 2), (Owner::Rule, 0), (Owner::Kernel, 1)],
        blocks_refused: 5,
        rule_blocks_refused: 6,
        connections_closed: 7,
        worker: Health {
            pid: Some(1),
            restarts: 2,
            last_end: None,
            refused_orders: 3,
            too_many: 4,
            unknown_rows: 5,
        },
        notify: notify::Health {
            channels: vec![(
                Channel::Mail,
                Tally {
                    sent: 31,
                    failed: 32,
                    retried: 33,
                    last_error: None,
                },
                34,
            )],
            kept: vec![(Kept::Account, 35)],
        },
        flood: FloodRow {
            active: true,
            since: None,
            unknown_per_second: None,
            unknown_percent: None,
            admitted: 12,
        },
        state_writable: true,
        audit: audit::Health {
            written: 40,
            dropped: 3,
            ..audit::Health::default()
        },
        maps: vec![
            MapUse {
                map: "blocks",
                capacity: 100,
                entries: Some(3),
            },
            MapUse {
                map: "entries",
                capacity: 65_536,
                entries: None,
            },
        ],
        interfaces: vec![InterfaceRow {
            interface: "eth\"0".to_owned(),
            index: 2,
            mode: "native".to_owned(),
            fallback: None,
            present: true,
            state: "down".to_owned(),
            since: None,
            cause: None,
        }],
        list_files: vec![ListFileRow {
            list: "deny".to_owned(),
            file: "/etc/limiter/deny.d/feed.txt".to_owned(),
            entries: 9,
            skipped_lines: 2,
            kept_since: Some("2026-01-01T00:00:00Z".to_owned()),
            cause: Some("it is gone".to_owned()),
        }],
        limits: vec!["https".to_owned()],
        is_pinned: true,
        term: Some("paused"),
        reload_successful: false,
        reload_succeeded_unix: 1_700_000_000,
    }
}

#[test]
fn open_metrics_text() {
    let text = Metrics::default().text(snapshot()).unwrap();
    let golden = r#"# HELP limiter_packets Packets by interface, limit, verdict and reason
# TYPE limiter_packets counter
limiter_packets_total{interface="",limit="",verdict="pass",reason="allow",budget=""} 3
limiter_packets_total{interface="eth\"0",limit="https",verdict="drop",reason="limit",budget="connections"} 7
# HELP limiter_bytes Bytes of frames by interface, limit, verdict and reason
# TYPE limiter_bytes counter
limiter_bytes_total{interface="",limit="",verdict="pass",reason="allow",budget=""} 180
limiter_bytes_total{interface="eth\"0",limit="https",verdict="drop",reason="limit",budget="connections"} 420
# HELP limiter_blocks_active Blocks in force
# TYPE limiter_blocks_active gauge
limiter_blocks_active{owner="operator"} 2
limiter_blocks_active{owner="rule"} 0
limiter_blocks_active{owner="kernel"} 1
# HELP limiter_blocks_refused Blocks that found no room
# TYPE limiter_blocks_refused counter
limiter_blocks_refused_total{owner="operator"} 5
limiter_blocks_refused_total{owner="rule"} 6
# HELP limiter_connections_closed Connections of blocked sources that were closed
# TYPE limiter_connections_closed counter
limiter_connections_closed_total 7
# HELP limiter_flood_active Whether new sources are too many, so that only those seen before are admitted
# TYPE limiter_flood_active gauge
limiter_flood_active 1
# HELP limiter_sources_admitted Sources that got an entry in the table of sources
# TYPE limiter_sources_admitted counter
limiter_sources_admitted_total 12
# HELP limiter_state_writable Whether blocks and run-time list entries are stored
# TYPE limiter_state_writable gauge
limiter_state_writable 1
# HELP limiter_audit_rows Rows written to the audit log
# TYPE limiter_audit_rows counter
limiter_audit_rows_total 40
# HELP limiter_audit_dropped Events that found no room in the audit log
# TYPE limiter_audit_dropped counter
limiter_audit_dropped_total 3
# HELP limiter_notifications What became of attempts to tell what happens
# TYPE limiter_notifications counter
limiter_notifications_total{channel="mail",outcome="sent"} 31
limiter_notifications_total{channel="mail",outcome="failed"} 32
limiter_notifications_total{channel="mail",outcome="retried"} 33
# HELP limiter_notifications_waiting Notifications that wait
# TYPE limiter_notifications_waiting gauge
limiter_notifications_waiting{channel="mail"} 34
# HELP limiter_notifications_suppressed What nobody was told of, since it would have been too much
# TYPE limiter_notifications_suppressed counter
limiter_notifications_suppressed_total{reason="account"} 35
# HELP limiter_map_capacity Entries that a table holds at most
# TYPE limiter_map_capacity gauge
limiter_map_capacity{map="blocks"} 100
limiter_map_capacity{map="entries"} 65536
# HELP limiter_map_entries Entries of a table, where counting them is cheap
# TYPE limiter_map_entries gauge
limiter_map_entries{map="blocks"} 3
# HELP limiter_interface_attached Whether the program sits on an interface that exists
# TYPE limiter_interface_attached gauge
limiter_interface_attached{interface="eth\"0",mode="native"} 1
# HELP limiter_interface_up Whether an interface that the program sits on is up
# TYPE limiter_interface_up gauge
limiter_interface_up{interface="eth\"0"} 0
# HELP limiter_list_file_entries Entries in force from a list file
# TYPE limiter_list_file_entries gauge
limiter_list_file_entries{list="deny",file="/etc/limiter/deny.d/feed.txt"} 9
# HELP limiter_list_file_skipped_lines Lines of a list file that could not be read
# TYPE limiter_list_file_skipped_lines gauge
limiter_list_file_skipped_lines{list="deny",file="/etc/limiter/deny.d/feed.txt"} 2
# HELP limiter_list_file_kept Whether a list file is not in force as it is now
# TYPE limiter_list_file_kept gauge
limiter_list_file_kept{list="deny",file="/etc/limiter/deny.d/feed.txt"} 1
# HELP limiter_build The version of the daemon
# TYPE limiter_build info
limiter_build_info{version="VERSION"} 1
# HELP limiter_worker_up Whether the process that hears events and serves metrics serves
# TYPE limiter_worker_up gauge
limiter_worker_up 1
# HELP limiter_worker_restarts How often it had to be started again
# TYPE limiter_worker_restarts counter
limiter_worker_restarts_total 2
# HELP limiter_worker_refused What it said and was not believed
# TYPE limiter_worker_refused counter
limiter_worker_refused_total{cause="order"} 3
limiter_worker_refused_total{cause="rate"} 4
limiter_worker_refused_total{cause="rule"} 5
# HELP limiter_program_pinned Whether program and maps outlast the daemon
# TYPE limiter_program_pinned gauge
limiter_program_pinned 1
# HELP limiter_policy_term Whether everything passes for a time, or the policy awaits its confirmation
# TYPE limiter_policy_term gauge
limiter_policy_term{term="paused"} 1
limiter_policy_term{term="unconfirmed"} 0
# HELP limiter_config_last_reload_successful Whether the last attempt to load the policy worked
# TYPE limiter_config_last_reload_successful gauge
limiter_config_last_reload_successful 0
# HELP limiter_config_last_reload_success_timestamp_seconds When a policy was loaded successfully for the last time
# TYPE limiter_config_last_reload_success_timestamp_seconds gauge
# UNIT limiter_config_last_reload_success_timestamp_seconds seconds
limiter_config_last_reload_success_timestamp_seconds 1700000000
"#;
    let golden = golden.replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(text, golden, "{text}");
}

#[test]
fn classic_text_differs_in_its_comments() {
    let open_metrics = Metrics::default().text(snapshot()).unwrap() + "# EOF\n";
    let text = classic(&open_metrics);
    let comments: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    for expected in [
        "# HELP limiter_packets_total Packets by interface, limit, verdict and reason",
        "# TYPE limiter_packets_total counter",
        "# TYPE limiter_build_info gauge",
        "# TYPE limiter_config_last_reload_success_timestamp_seconds gauge",
    ] {
        assert!(comments.contains(&expected), "{expected} in {comments:#?}");
    }
    assert!(
        !comments
            .iter()
            .any(|c| c.starts_with("# UNIT") || *c == "# EOF")
    );
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(samples(&text), samples(&open_metrics));
}

#[test]
fn a_row_stays_as_long_as_its_names_exist() {
    let mut metrics = Metrics::default();
    let row = r#"limit="https",verdict="drop",reason="limit",budget="connections"}"#;
    let mut text = |snapshot| classic(&metrics.text(snapshot).unwrap());
    assert!(text(snapshot()).contains(&format!("{row} 7")));
    let mut cleared = snapshot();
    cleared.counters.clear();
    assert!(text(cleared.clone()).contains(&format!("{row} 0")));
    cleared.limits.clear();
    assert!(!text(cleared).contains(row));
}

#[test]
fn the_format_is_what_the_client_takes() {
    for (accept, format) in [
        ("", Format::Classic),
        ("*/*", Format::Classic),
        (
            "application/openmetrics-text; version=1.0.0",
            Format::OpenMetrics,
        ),
        ("application/openmetrics-text;q=0", Format::Classic),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            Format::OpenMetrics,
        ),
        (
            "application/openmetrics-text;q=0.2, text/plain",
            Format::Classic,
        ),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(accepted(&headers), format, "{accept}");
    }
}
