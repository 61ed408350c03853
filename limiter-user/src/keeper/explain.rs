//! Why a source is treated as it is.

use std::net::IpAddr;

use ipnet::IpNet;

use super::show::source_row;
use super::wanted::read_network;
use super::{Keeper, ListKind, Now, unreadable};
use crate::control::api::{BlockRow, Explanation, ListRow, Refusal, SourceRow};

impl Keeper {
    /// What applies to an address or network, in the order in which a packet
    /// meets it.
    ///
    /// # Errors
    /// It cannot be read, or the data plane cannot.
    pub fn explain(&mut self, source: &str, now: Now) -> Result<Explanation, Refusal> {
        let source = read_network(source)?;
        let allow = self.list_rows(ListKind::Allow, now).entries;
        let deny = self.list_rows(ListKind::Deny, now).entries;
        let blocks = self.blocks(now)?.blocks;
        let inside = |network: &IpNet| source != *network && source.contains(network);
        let networks = allow.iter().chain(&deny).map(|row| &row.network);
        let networks = networks.chain(blocks.iter().map(|block| &block.network));
        let inside = networks.filter(|network| inside(network)).count() as u64;

        let states = self.plane.sources().map_err(unreadable)?;
        let limits: Vec<SourceRow> = states
            .into_iter()
            .filter(|state| state.source.contains(&source) || source.contains(&state.source))
            .map(source_row)
            .collect();
        let mut explanation = Explanation {
            source,
            decided_by: String::new(),
            summary: String::new(),
            enforce: self.is_enforced(),
            allow: containing(allow, source),
            deny: containing(deny, source),
            blocks: blocks
                .into_iter()
                .filter(|block| block.network.contains(&source))
                .collect(),
            limits,
            not_from: self.gates_closed_to(source),
            inside,
            held: Vec::new(),
        };
        let ports = &self.policy.edge.safety.ssh_ports;
        let (decided_by, summary) = judge(&explanation, ports);
        explanation.decided_by = decided_by.to_owned();
        explanation.summary = summary;
        Ok(explanation)
    }

    fn gates_closed_to(&self, source: IpNet) -> Vec<String> {
        let limits = self.policy.edge.limits.iter();
        let is_closed = |from: &Vec<IpNet>| !from.iter().any(|network| network.contains(&source));
        limits
            .filter(|limit| limit.from.as_ref().is_some_and(is_closed))
            .map(|limit| limit.name.clone())
            .collect()
    }
}

fn containing(rows: Vec<ListRow>, source: IpNet) -> Vec<ListRow> {
    rows.into_iter()
        .filter(|row| row.network.contains(&source))
        .collect()
}

/// The reason that decides, and a sentence about it. The order is that of the
/// packet path: martian, allow, deny, block, limit.
fn judge(found: &Explanation, ssh_ports: &[u16]) -> (&'static str, String) {
    let source = shown(found.source);
    let dropped = if found.enforce {
        "all its packets are dropped"
    } else {
        "all its packets would be dropped (the policy is not enforced)"
    };
    if is_martian(found.source) {
        let text = "no source can have an address inside ::/16";
        return ("martian", format!("{source}: {dropped}: {text}"));
    }
    if let Some(row) = found.allow.first() {
        let entry = entry_text(row);
        let text = format!("{source}: all its packets pass: allow {entry}");
        return ("allow", text);
    }
    if let Some(row) = found.deny.first() {
        let entry = entry_text(row);
        return ("deny", format!("{source}: {dropped}: deny {entry}"));
    }
    // A kernel block names the limit that was exceeded; it is not confined.
    let is_whole = |block: &&BlockRow| block.limit.is_none() || block.owner == "kernel";
    if let Some(block) = found.blocks.iter().find(is_whole) {
        let block_text = block_text(block);
        let dropped = if block.dry {
            "all its packets would be dropped"
        } else {
            dropped
        };
        let except = match ssh_ports {
            [] => String::new(),
            ports => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!(
                    " (but those to TCP port {}, edge.safety.ssh_ports)",
                    ports.join(", ")
                )
            }
        };
        return (
            "block",
            format!("{source}: {dropped}{except}: {block_text}"),
        );
    }
    let mut text = format!("{source}: its packets: on no list and not blocked; ");
    if !found.blocks.is_empty() {
        let confined: Vec<String> = found
            .blocks
            .iter()
            .map(|block| {
                let limit = block.limit.as_deref().unwrap_or_default();
                format!("{} ({})", limit, block_text(block))
            })
            .collect();
        text = format!(
            "{source}: its packets: blocked for limit {}; ",
            confined.join(", ")
        );
    }
    match found.limits.iter().map(|row| row.dropped).sum::<u64>() {
        _ if found.limits.is_empty() => text.push_str("no limit has met a packet of it lately"),
        0 => text.push_str("within its limits"),
        dropped => text.push_str(&format!("{dropped} of its packets were over a limit")),
    }
    if !found.not_from.is_empty() {
        let names = found.not_from.join(", ");
        text.push_str(&format!("; the gate (`from`) of {names} is closed to it"));
    }
    ("limit", text)
}

fn entry_text(row: &ListRow) -> String {
    let origin = match row.origin.as_str() {
        "file" => "in the policy file".to_owned(),
        _ => format!("added at run time by uid {}", row.uid.unwrap_or_default()),
    };
    let until = match &row.expires {
        Some(expires) => format!("until {expires}"),
        None => "for good".to_owned(),
    };
    let reason = row.reason.as_deref().map(|reason| format!(": {reason}"));
    let reason = reason.unwrap_or_default();
    let network = shown(row.network);
    format!("{network}, {origin}, since {}, {until}{reason}", row.since)
}

fn block_text(block: &BlockRow) -> String {
    let by = match block.owner.as_str() {
        "operator" => block
            .uid
            .map_or("an operator".to_owned(), |uid| format!("uid {uid}")),
        "kernel" => match &block.limit {
            Some(limit) => format!("the packet path for exceeding limit {limit}"),
            None => "the packet path".to_owned(),
        },
        _ => "a rule".to_owned(),
    };
    let since = block
        .since
        .as_deref()
        .map(|since| format!(" since {since}"));
    let reason = block.reason.as_deref().map(|reason| format!(": {reason}"));
    format!(
        "{} blocked by {by}{} until {}{}",
        shown(block.network),
        since.unwrap_or_default(),
        block.expires,
        reason.unwrap_or_default()
    )
}

/// A network as somebody would say it: an address without its full length.
#[must_use]
pub fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

fn is_martian(network: IpNet) -> bool {
    match network.addr() {
        // `::` alone asks for an address in neighbour discovery.
        IpAddr::V6(address) => {
            network.prefix_len() >= 16 && address.segments()[0] == 0 && !address.is_unspecified()
        }
        IpAddr::V4(_) => false,
    }
}
