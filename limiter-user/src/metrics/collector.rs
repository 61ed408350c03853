//! A snapshot of the keeper as metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;

use crate::control::api::ListFileRow;
use crate::keeper::Snapshot;
use limiter_common::verdict::Outcome;

/// Interface, limit and outcome: what a counter's labels are made of. Without
/// interface or limit the name is empty.
type Row = (String, String, Outcome);

/// The counters that have been exported: a row is exported from its first
/// packet on, as long as its interface and limit exist.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeSet<Row>);

impl Rows {
    /// The packets and bytes to export. Rows of the same labels (interfaces
    /// that are gone share one) are summed up.
    pub(super) fn update(&mut self, snapshot: &Snapshot) -> BTreeMap<Row, (u64, u64)> {
        let mut values: BTreeMap<Row, (u64, u64)> = BTreeMap::new();
        for counter in &snapshot.counters {
            let name = |name: &Option<String>| name.clone().unwrap_or_default();
            let row = (
                name(&counter.interface),
                name(&counter.limit),
                counter.outcome,
            );
            let value = values.entry(row).or_default();
            value.0 = value.0.saturating_add(counter.packets);
            value.1 = value.1.saturating_add(counter.bytes);
        }
        let exists = |(interface, limit, _): &Row| {
            (interface.is_empty()
                || snapshot
                    .interfaces
                    .iter()
                    .any(|i| i.interface == *interface))
                && (limit.is_empty() || snapshot.limits.iter().any(|known| known == limit))
        };
        self.0.retain(exists);
        values.retain(|row, (packets, _)| *packets > 0 || self.0.contains(row));
        for row in &self.0 {
            values.entry(row.clone()).or_default();
        }
        self.0.extend(values.keys().cloned());
        values
    }
}

/// What a scrape is made of.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) snapshot: Snapshot,
    pub(super) counters: BTreeMap<Row, (u64, u64)>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.packets(encoder)?;
        let blocks = self.snapshot.blocks.iter();
        let blocks = blocks.map(|(owner, count)| ([("owner", owner.name())], *count));
        gauges(encoder, "limiter_blocks_active", "Blocks in force", blocks)?;
        let refused = [
            ([("owner", "operator")], self.snapshot.blocks_refused),
            ([("owner", "rule")], self.snapshot.rule_blocks_refused),
        ];
        let help = "Blocks that found no room";
        counters(encoder, "limiter_blocks_refused", help, refused.into_iter())?;
        let help = "Connections of blocked sources that were closed";
        let family = encoder.encode_descriptor(
            "limiter_connections_closed",
            help,
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.snapshot.connections_closed).encode(family)?;
        let flood = &self.snapshot.flood;
        let help = "Whether new sources are too many, so that only those seen before are admitted";
        gauge(
            encoder,
            "limiter_flood_active",
            help,
            None,
            u64::from(flood.active),
        )?;
        let help = "Sources that got an entry in the table of sources";
        let family = encoder.encode_descriptor(
            "limiter_sources_admitted",
            help,
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(flood.admitted).encode(family)?;
        let help = "Whether blocks and run-time list entries are stored";
        let writable = u64::from(self.snapshot.state_writable);
        gauge(encoder, "limiter_state_writable", help, None, writable)?;
        let audit = &self.snapshot.audit;
        for (name, help, count) in [
            (
                "limiter_audit_rows",
                "Rows written to the audit log",
                audit.written,
            ),
            (
                "limiter_audit_dropped",
                "Events that found no room in the audit log",
                audit.dropped,
            ),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(family)?;
        }
        self.notify(encoder)?;
        self.maps(encoder)?;
        let interfaces = self.snapshot.interfaces.iter().map(|interface| {
            let labels = [
                ("interface", interface.interface.as_str()),
                ("mode", interface.mode.as_str()),
            ];
            let is_attached = matches!(interface.state.as_str(), "attached" | "down");
            (labels, u64::from(is_attached))
        });
        let help = "Whether the program sits on an interface that exists";
        gauges(encoder, "limiter_interface_attached", help, interfaces)?;
        let up = self.snapshot.interfaces.iter().map(|interface| {
            let labels = [("interface", interface.interface.as_str())];
            (labels, u64::from(interface.state == "attached"))
        });
        let help = "Whether an interface that the program sits on is up";
        gauges(encoder, "limiter_interface_up", help, up)?;
        self.list_files(encoder)?;
        self.daemon(encoder)
    }
}

impl Scrape {
    fn packets(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = |pick: fn(&(u64, u64)) -> u64| {
            self.counters
                .iter()
                .map(move |((interface, limit, outcome), value)| {
                    let reason = outcome.reason();
                    let labels = [
                        ("interface", interface.as_str()),
                        ("limit", limit.as_str()),
                        ("verdict", outcome.action().name()),
                        ("reason", reason.name()),
                        ("budget", reason.budget().name().unwrap_or_default()),
                    ];
                    (labels, pick(value))
                })
        };
        let help = "Packets by interface, limit, verdict and reason";
        counters(encoder, "limiter_packets", help, rows(|value| value.0))?;
        let help = "Bytes of frames by interface, limit, verdict and reason";
        counters(encoder, "limiter_bytes", help, rows(|value| value.1))
    }

    fn notify(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let health = &self.snapshot.notify;
        let outcomes = health.channels.iter().flat_map(|(channel, tally, _)| {
            let counts = [
                ("sent", tally.sent),
                ("failed", tally.failed),
                ("retried", tally.retried),
            ];
            counts.map(|(outcome, count)| {
                ([("channel", channel.name()), ("outcome", outcome)], count)
            })
        });
        let help = "What became of attempts to tell what happens";
        counters(encoder, "limiter_notifications", help, outcomes)?;
        let waiting = health
            .channels
            .iter()
            .map(|(channel, _, waiting)| ([("channel", channel.name())], *waiting as u64));
        let help = "Notifications that wait";
        gauges(encoder, "limiter_notifications_waiting", help, waiting)?;
        let kept = health
            .kept
            .iter()
            .map(|(why, count)| ([("reason", why.name())], *count));
        let help = "What nobody was told of, since it would have been too much";
        counters(encoder, "limiter_notifications_suppressed", help, kept)
    }

    fn maps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let maps = &self.snapshot.maps;
        let capacities = maps.iter().map(|map| ([("map", map.map)], map.capacity));
        let help = "Entries that a table holds at most";
        gauges(encoder, "limiter_map_capacity", help, capacities)?;
        let entries = maps
            .iter()
            .filter_map(|map| Some(([("map", map.map)], map.entries?)));
        let help = "Entries of a table, where counting them is cheap";
        gauges(encoder, "limiter_map_entries", help, entries)
    }

    fn list_files(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = |pick: fn(&ListFileRow) -> u64| {
            let files = self.snapshot.list_files.iter();
            files.map(move |row| {
                let labels = [("list", row.list.as_str()), ("file", row.file.as_str())];
                (labels, pick(row))
            })
        };
        let help = "Entries in force from a list file";
        let entries = rows(|row| row.entries);
        gauges(encoder, "limiter_list_file_entries", help, entries)?;
        let help = "Lines of a list file that could not be read";
        let skipped = rows(|row| row.skipped_lines);
        gauges(encoder, "limiter_list_file_skipped_lines", help, skipped)?;
        let help = "Whether a list file is not in force as it is now";
        let kept = rows(|row| u64::from(row.kept_since.is_some()));
        gauges(encoder, "limiter_list_file_kept", help, kept)
    }

    fn worker(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let worker = &self.snapshot.worker;
        let help = "Whether the process that hears events and serves metrics serves";
        let is_up = u64::from(worker.pid.is_some());
        gauge(encoder, "limiter_worker_up", help, None, is_up)?;
        let help = "How often it had to be started again";
        let family = encoder.encode_descriptor(
            "limiter_worker_restarts",
            help,
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(worker.restarts).encode(family)?;
        let help = "What it said and was not believed";
        let refused = [
            ([("cause", "order")], worker.refused_orders),
            ([("cause", "rate")], worker.too_many),
            ([("cause", "rule")], worker.unknown_rows),
        ];
        counters(encoder, "limiter_worker_refused", help, refused.into_iter())
    }

    fn daemon(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let family = encoder.encode_descriptor(
            "limiter_build",
            "The version of the daemon",
            None,
            MetricType::Info,
        )?;
        info.encode(family)?;

        self.worker(encoder)?;
        let help = "Whether program and maps outlast the daemon";
        let is_pinned = u64::from(self.snapshot.is_pinned);
        gauge(encoder, "limiter_program_pinned", help, None, is_pinned)?;

        let terms = ["paused", "unconfirmed"].map(|term| {
            let is_it = self.snapshot.term == Some(term);
            ([("term", term)], u64::from(is_it))
        });
        let help = "Whether everything passes for a time, or the policy awaits its confirmation";
        gauges(encoder, "limiter_policy_term", help, terms.into_iter())?;
        let help = "Whether the last attempt to load the policy worked";
        let successful = u64::from(self.snapshot.reload_successful);
        gauge(
            encoder,
            "limiter_config_last_reload_successful",
            help,
            None,
            successful,
        )?;
        let help = "When a policy was loaded successfully for the last time";
        gauge(
            encoder,
            "limiter_config_last_reload_success_timestamp",
            help,
            Some(&Unit::Seconds),
            self.snapshot.reload_succeeded_unix,
        )
    }
}

pub(crate) fn counters<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = ([(&'a str, &'a str); N], u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

pub(crate) fn gauges<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = ([(&'a str, &'a str); N], u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(family)
}
