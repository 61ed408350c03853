//! `[edge]`, `[edge.safety]`, `[edge.tables]`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::checks;
use super::diagnostic::quote;
use super::flood::flood;
use super::limit::{PlacedLimit, limit};
use super::lists::{ListFiles, ListReader, patterns};
use super::model::{ControlTraffic, Edge, Mode, OnExit, Safety, Tables, Unparsed};
use super::networks::{NETWORK_HELP, NetworkSet, parse_network};
use super::reader::{Section, Value};
use super::report::{At, Place, Read, Report};
use super::sources::ListSources;
use super::units::Problem;
use super::{MAX_LIMITS, MAX_SSH_PORTS};

const MODES: [(&str, Mode); 3] = [
    ("auto", Mode::Auto),
    ("native", Mode::Native),
    ("generic", Mode::Generic),
];
const ON_EXIT: [(&str, OnExit); 2] = [("keep", OnExit::Keep), ("detach", OnExit::Detach)];
const UNPARSED: [(&str, Unparsed); 2] = [("pass", Unparsed::Pass), ("drop", Unparsed::Drop)];
const CONTROL_TRAFFIC: [(&str, ControlTraffic); 2] = [
    ("pass", ControlTraffic::Pass),
    ("limit", ControlTraffic::Limit),
];
const INTERFACES_HELP: &str = r#"allowed: interface names or globs, such as ["eth0", "ens*"]"#;
const MAX_TABLE_ENTRIES: u64 = 1 << 24;

/// The edge, its parts still with the places that checks point to.
pub(super) struct PlacedEdge {
    /// All but the lists and limits, which are below.
    pub(super) settings: Edge,
    pub(super) interfaces: Place,
    pub(super) allow: NetworkSet,
    pub(super) deny: NetworkSet,
    pub(super) limits: Vec<PlacedLimit>,
}

impl PlacedEdge {
    pub(super) fn into_edge(self) -> Edge {
        let limits = self.limits.into_iter().map(|placed| placed.limit);
        Edge {
            allow: self.allow.to_sorted(),
            deny: self.deny.to_sorted(),
            limits: limits.collect(),
            ..self.settings
        }
    }
}

pub(super) fn edge(root: &Section<'_>, files: &dyn ListFiles, report: &Report) -> Read<PlacedEdge> {
    let section = root.section("edge")?;
    let interfaces = section.read_or("interfaces", section.at(Vec::new()), interfaces);
    let mode = section.read_or("mode", Mode::Auto, |v| v.word(&MODES));
    let enforce = section.read_or("enforce", true, Value::boolean);
    let on_exit = section.read_or("on_exit", OnExit::Keep, |v| v.word(&ON_EXIT));
    let ipv4_prefix = section.read_or("ipv4_prefix", 32, |v| v.small(8..=32));
    let ipv6_prefix = section.read_or("ipv6_prefix", 64, |v| v.small(16..=64));
    let sources = section.read_or("sources", 65_536, |v| v.small(1_024..=MAX_TABLE_ENTRIES));
    let unparsed = section.read_or("unparsed", Unparsed::Pass, |v| v.word(&UNPARSED));
    let mut lists = ListReader {
        files,
        report,
        count: 0,
    };
    let (allow, allow_from) = network_set(&section, "allow", "allow_files", &mut lists);
    let (deny, deny_from) = network_set(&section, "deny", "deny_files", &mut lists);
    let flood = flood(&section);
    let safety = safety(&section);
    let tables = tables(&section);
    let limits = section.read_or("limit", Vec::new(), limits);
    checks::denied_and_allowed(&allow, &deny, report);
    if let Ok(tables) = &tables {
        let entries = allow.len() + deny.len();
        checks::list_size(entries, tables.lists, &section.place, report);
    }

    let interfaces = interfaces?;
    Ok(PlacedEdge {
        settings: Edge {
            interfaces: interfaces.value,
            mode: mode?,
            enforce: enforce?,
            on_exit: on_exit?,
            ipv4_prefix: ipv4_prefix?,
            ipv6_prefix: ipv6_prefix?,
            sources: sources?,
            unparsed: unparsed?,
            allow: Vec::new(),
            deny: Vec::new(),
            allow_from: Arc::new(allow_from),
            deny_from: Arc::new(deny_from),
            flood: flood?,
            safety: safety?,
            tables: tables?,
            limits: Vec::new(),
        },
        interfaces: interfaces.place,
        allow,
        deny,
        limits: limits?,
    })
}

fn interfaces(value: &Value<'_>) -> Read<At<Vec<String>>> {
    let names = value.list(INTERFACES_HELP, |item| {
        Ok(item.at(item.text(INTERFACES_HELP, interface)?))
    })?;
    let mut seen = HashSet::new();
    let mut twice = Ok(());
    for name in &names {
        if !seen.insert(name.value.as_str()) {
            let message = format!("{} is listed twice", quote(&name.value));
            let problem = Problem::new(message, "remove one");
            twice = Err(value.error_at(&name.place, problem));
        }
    }
    twice?;
    Ok(value.at(names.into_iter().map(|name| name.value).collect()))
}

/// A name that the kernel would accept, or a glob over such names.
fn interface(text: &str) -> Result<String, Problem> {
    const LONGEST: usize = 15;
    let wrong = |what: String| Problem::new(format!("{} {what}", quote(text)), INTERFACES_HELP);
    let is_glob = text.contains(['*', '?', '[', ']']);
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if matches!(text, "" | "." | "..") || text.contains(forbidden) {
        return Err(wrong("cannot be the name of an interface".to_owned()));
    }
    if !is_glob && text.len() > LONGEST {
        return Err(wrong(format!(
            "is longer than the {LONGEST} characters of an interface name"
        )));
    }
    match glob::Pattern::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) => Err(wrong(format!("is not a glob: {}", fault.msg))),
    }
}

/// What is right of a list; the report has what is wrong with it.
fn network_set(
    section: &Section<'_>,
    key: &'static str,
    files_key: &'static str,
    lists: &mut ListReader<'_>,
) -> (NetworkSet, ListSources) {
    let mut set = NetworkSet::default();
    let mut sources = ListSources::default();
    let inline = section.read(key, |value| {
        value.list_of_good(NETWORK_HELP, |item| {
            Ok(item.at(item.text(NETWORK_HELP, parse_network)?))
        })
    });
    for network in inline.ok().flatten().into_iter().flatten() {
        set.insert(network);
    }
    sources.written = set.to_sorted();
    let patterns = section.read(files_key, patterns);
    for pattern in patterns.ok().flatten().into_iter().flatten() {
        lists.add(&pattern, &mut set, &mut sources);
    }
    (set, sources)
}

fn safety(edge: &Section<'_>) -> Read<Safety> {
    let section = edge.section("safety")?;
    let ssh_ports = section.read_or("ssh_ports", vec![22], ssh_ports);
    let control_traffic = section.read_or("control_traffic", ControlTraffic::Pass, |v| {
        v.word(&CONTROL_TRAFFIC)
    });
    Ok(Safety {
        ssh_ports: ssh_ports?,
        control_traffic: control_traffic?,
    })
}

fn ssh_ports(value: &Value<'_>) -> Read<Vec<u16>> {
    let mut ports: Vec<u16> = value.list("allowed: ports, such as [22]", |item| {
        item.small(1..=65_535)
    })?;
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MAX_SSH_PORTS {
        let message = format!("{} ports in `ssh_ports`", ports.len());
        let help = format!("allowed: up to {MAX_SSH_PORTS}");
        return Err(value.error(Problem::new(message, help)));
    }
    Ok(ports)
}

fn tables(edge: &Section<'_>) -> Read<Tables> {
    let section = edge.section("tables")?;
    let entries = |key, default| section.read_or(key, default, |v| v.small(1..=MAX_TABLE_ENTRIES));
    let recent = section.read_or("recent", 4_000_000, |v| v.small(1_024..=1 << 28));
    let blocks_operator = entries("blocks_operator", 65_536);
    let blocks_rule = entries("blocks_rule", 131_072);
    let blocks_kernel = entries("blocks_kernel", 8_192);
    let lists = entries("lists", 1_048_576);
    let interfaces = section.read_or("interfaces", 16, |v| v.small(1..=1_024));
    Ok(Tables {
        blocks_operator: blocks_operator?,
        blocks_rule: blocks_rule?,
        blocks_kernel: blocks_kernel?,
        lists: lists?,
        interfaces: interfaces?,
        recent: recent?,
    })
}

fn limits(value: &Value<'_>) -> Read<Vec<PlacedLimit>> {
    let mut names = HashMap::new();
    let help = "write [[edge.limit]], with two brackets";
    let limits = value.list_of_good(help, |item| limit(item, &mut names))?;
    if limits.len() > MAX_LIMITS {
        let message = format!("{} limits", limits.len());
        let help = format!("allowed: up to {MAX_LIMITS}");
        return Err(value.error(Problem::new(message, help)));
    }
    Ok(limits)
}
