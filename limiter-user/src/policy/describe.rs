//! A policy in the words of its language, and how two of them differ.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::describe_rules;
use super::model::{Bucket, ControlTraffic, Edge, Exceed, Limit, Mode, OnExit, Policy};
use super::model::{Protocol, Unparsed};
use super::notify::Notify;
use super::units::{Measure, duration_text};

/// What a policy says, defaults included: two descriptions are equal where the
/// policies mean the same, however they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Values by their keys, such as `edge.limit.https.packets`. What is not
    /// there is not set.
    pub values: BTreeMap<String, String>,
    /// The limits' names, in the order in which they are matched.
    pub limits: Vec<String>,
    /// Networks in `edge.allow` and its files.
    pub allow: BTreeSet<IpNet>,
    /// The same of `edge.deny`.
    pub deny: BTreeSet<IpNet>,
}

impl Description {
    /// Describes a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let mut it = Self {
            limits: policy
                .edge
                .limits
                .iter()
                .map(|it| it.name.clone())
                .collect(),
            allow: policy.edge.allow.iter().copied().collect(),
            deny: policy.edge.deny.iter().copied().collect(),
            values: BTreeMap::new(),
        };
        it.edge(&policy.edge);
        for limit in &policy.edge.limits {
            it.limit(limit);
        }
        it.set("metrics.listen", policy.metrics.listen);
        let control = &policy.control;
        it.set("control.socket", control.socket.display());
        it.set("control.group", &control.group);
        if let Some(group) = &control.read_group {
            it.set("control.read_group", group);
        }
        it.set("state.directory", policy.state.directory.display());
        it.set("state.pins", policy.state.pins.display());
        it.set("state.retention", duration_text(policy.state.retention));
        let size = Measure::Bytes.amount_text(policy.state.audit_size);
        it.set("state.audit_size", size);
        if let Some(notify) = &policy.notify {
            it.notify(notify);
        }
        if let Some(decide) = &policy.decide {
            describe_rules::describe(&mut it, decide);
        }
        it
    }

    /// What stands in files of secrets is not described.
    fn notify(&mut self, notify: &Notify) {
        if let Some(smtp) = &notify.smtp {
            self.set("notify.smtp.server", format!("{}:{}", smtp.host, smtp.port));
            self.set("notify.smtp.from", &smtp.from);
            self.set("notify.smtp.tls", format!("{:?}", smtp.tls).to_lowercase());
            if let Some((user, _)) = &smtp.login {
                self.set("notify.smtp.user", user);
            }
        }
        if let Some(webhook) = &notify.webhook {
            self.set("notify.webhook.url", &webhook.url);
        }
        if let Some(to) = &notify.to {
            self.set("notify.to", to);
        }
        self.set("notify.per_hour", notify.per_hour);
        self.set("notify.accounts", notify.accounts);
        self.set(
            "notify.language",
            format!("{:?}", notify.language).to_lowercase(),
        );
    }

    pub(super) fn set(&mut self, key: &str, value: impl ToString) {
        self.values.insert(key.to_owned(), value.to_string());
    }

    fn edge(&mut self, edge: &Edge) {
        self.set("edge.interfaces", edge.interfaces.join(", "));
        let mode = match edge.mode {
            Mode::Auto => "auto",
            Mode::Native => "native",
            Mode::Generic => "generic",
        };
        self.set("edge.mode", mode);
        self.set("edge.enforce", edge.enforce);
        let on_exit = match edge.on_exit {
            OnExit::Keep => "keep",
            OnExit::Detach => "detach",
        };
        self.set("edge.on_exit", on_exit);
        for (key, sources) in [
            ("edge.allow_files", &edge.allow_from),
            ("edge.deny_files", &edge.deny_from),
        ] {
            if !sources.patterns.is_empty() {
                self.set(key, sources.patterns.join(", "));
            }
        }
        self.set("edge.ipv4_prefix", edge.ipv4_prefix);
        self.set("edge.ipv6_prefix", edge.ipv6_prefix);
        self.set("edge.sources", edge.sources);
        let unparsed = match edge.unparsed {
            Unparsed::Pass => "pass",
            Unparsed::Drop => "drop",
        };
        self.set("edge.unparsed", unparsed);
        let flood = &edge.flood;
        let new_sources = Measure::Count.rate_text(flood.new_sources);
        self.set("edge.flood.new_sources", new_sources);
        for (key, bucket) in [
            ("edge.flood.unknown.packets", flood.unknown.packets),
            ("edge.flood.unknown.connections", flood.unknown.connections),
        ] {
            self.set(key, bucket_text(bucket, Measure::Count));
        }
        self.set("edge.flood.aggregate.ipv4", flood.aggregate.ipv4);
        self.set("edge.flood.aggregate.ipv6", flood.aggregate.ipv6);
        self.set("edge.safety.ssh_ports", joined(&edge.safety.ssh_ports));
        let control_traffic = match edge.safety.control_traffic {
            ControlTraffic::Pass => "pass",
            ControlTraffic::Limit => "limit",
        };
        self.set("edge.safety.control_traffic", control_traffic);
        let tables = &edge.tables;
        for (key, capacity) in [
            ("edge.tables.blocks_operator", tables.blocks_operator),
            ("edge.tables.blocks_rule", tables.blocks_rule),
            ("edge.tables.blocks_kernel", tables.blocks_kernel),
            ("edge.tables.lists", tables.lists),
            ("edge.tables.interfaces", tables.interfaces),
            ("edge.tables.recent", tables.recent),
        ] {
            self.set(key, capacity);
        }
    }

    fn limit(&mut self, limit: &Limit) {
        let key = |field: &str| format!("edge.limit.{}.{field}", limit.name);
        let protocol = match limit.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
            Protocol::Any => "any",
        };
        self.set(&key("protocol"), protocol);
        let exceed = match limit.exceed {
            Exceed::Drop => "drop".to_owned(),
            Exceed::Observe => "observe".to_owned(),
            Exceed::Block(time) => format!("block for {}", duration_text(time)),
        };
        self.set(&key("exceed"), exceed);
        if !limit.ports.is_empty() {
            let ports: Vec<String> = limit.ports.iter().map(ports_text).collect();
            self.set(&key("ports"), ports.join(", "));
        }
        for (field, networks) in [("to", Some(&limit.to)), ("from", limit.from.as_ref())] {
            if let Some(networks) = networks.filter(|it| !it.is_empty()) {
                self.set(&key(field), joined(networks));
            }
        }
        let total = &limit.total;
        for (field, bucket, measure) in [
            ("packets", limit.packets, Measure::Count),
            ("bytes", limit.bytes, Measure::Bytes),
            ("connections", limit.connections, Measure::Count),
            ("total.packets", total.packets, Measure::Count),
            ("total.bytes", total.bytes, Measure::Bytes),
            ("total.connections", total.connections, Measure::Count),
        ] {
            if let Some(bucket) = bucket {
                self.set(&key(field), bucket_text(bucket, measure));
            }
        }
    }
}

fn bucket_text(bucket: Bucket, measure: Measure) -> String {
    let rate = measure.rate_text(bucket.rate);
    format!("{rate}, burst {}", measure.amount_text(bucket.burst))
}

fn ports_text(ports: &RangeInclusive<u16>) -> String {
    match (ports.start(), ports.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

pub(super) fn joined<T: ToString>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(T::to_string).collect();
    texts.join(", ")
}

/// What is different in one policy from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Values, in the order of their keys.
    pub values: Vec<Difference>,
    /// The limits' names in their new order, where those that both have are
    /// matched in another.
    pub order: Option<Vec<String>>,
    /// In `edge.allow`.
    pub allow: ListDifference,
    /// In `edge.deny`.
    pub deny: ListDifference,
}

/// A value that is different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its key.
    pub key: String,
    /// What it was; `None`: it was not set.
    pub old: Option<String>,
    /// What it is; `None`: it is not set.
    pub new: Option<String>,
    /// Whether it goes without saying: a key of a rule that only one of the two has, with
    /// its default.
    #[serde(skip)]
    pub is_default: bool,
}

/// Networks that are different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListDifference {
    /// Only in the new one.
    pub added: Vec<IpNet>,
    /// Only in the old one.
    pub removed: Vec<IpNet>,
}

impl ListDifference {
    fn of(old: &BTreeSet<IpNet>, new: &BTreeSet<IpNet>) -> Self {
        Self {
            added: new.difference(old).copied().collect(),
            removed: old.difference(new).copied().collect(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Differences {
    /// Compares two policies.
    #[must_use]
    pub fn between(old: &Description, new: &Description) -> Self {
        let keys: BTreeSet<&String> = old.values.keys().chain(new.values.keys()).collect();
        let defaults = describe_rules::Defaults::new();
        let is_default = |key: &str, value: &str| {
            let of_rule = key
                .strip_prefix("rule.")
                .and_then(|key| key.split_once('.'));
            let Some((rule, field)) = of_rule else {
                return false;
            };
            let count = format!("rule.{rule}.count");
            match (old.values.get(&count), new.values.get(&count)) {
                (Some(count), None) | (None, Some(count)) => defaults.has(count, field, value),
                _ => false,
            }
        };
        let differs = |key: &String| {
            let (old, new) = (old.values.get(key), new.values.get(key));
            (old != new).then(|| Difference {
                key: key.clone(),
                old: old.cloned(),
                new: new.cloned(),
                is_default: old.or(new).is_some_and(|value| is_default(key, value)),
            })
        };
        let kept = |names: &[String], other: &[String]| -> Vec<String> {
            let both = names.iter().filter(|name| other.contains(name));
            both.cloned().collect()
        };
        let moved = kept(&old.limits, &new.limits) != kept(&new.limits, &old.limits);
        Self {
            values: keys.into_iter().filter_map(differs).collect(),
            order: moved.then(|| new.limits.clone()),
            allow: ListDifference::of(&old.allow, &new.allow),
            deny: ListDifference::of(&old.deny, &new.deny),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
            && self.order.is_none()
            && self.allow.is_empty()
            && self.deny.is_empty()
    }
}
