//! What only shows when the parts are seen together: contradictions, and what
//! is legal and probably wrong.

use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::CLOCK_STEP;
use super::diagnostic::quote;
use super::edge::PlacedEdge;
use super::limit::{PlacedLimit, merge};
use super::lists::TOLD;
use super::model::{Exceed, Limit, Protocol};
use super::networks::NetworkSet;
use super::report::{At, Place, Report};
use super::units::Problem;

/// Reports each entry of deny that lies inside one of allow: a contradiction
/// where both stand in the policy file. What list files say may change at any
/// time, and is no reason to be without a policy.
pub(super) fn denied_and_allowed(allow: &NetworkSet, deny: &NetworkSet, report: &Report) {
    let mut in_files = 0;
    for (denied, place) in deny.iter() {
        let Some((allowed, at)) = allow.covering(denied) else {
            continue;
        };
        let message = format!("deny {denied} lies inside allow {allowed}");
        if place.is_in_policy() && at.is_in_policy() {
            let help = format!(
                "what is allowed is never denied; remove one (the allow is at {})",
                at.label()
            );
            report.error(place, Problem::new(message, help));
            continue;
        }
        in_files += 1;
        match in_files {
            ..=TOLD => {
                let help = format!("it has no effect (the allow is at {})", at.label());
                report.warn(place, message, help);
            }
            MORE => report.warn(place, "and more of these", "they have no effect"),
            _ => {}
        }
    }
}

const MORE: usize = TOLD + 1;

/// Reports lists that do not fit their table.
pub(super) fn list_size(entries: usize, capacity: u32, place: &Place, report: &Report) {
    if u32::try_from(entries).is_ok_and(|entries| entries <= capacity) {
        return;
    }
    let message = format!("allow and deny hold {entries} networks, the table {capacity}");
    let help = "raise `edge.tables.lists` or shorten the lists";
    report.error(place, Problem::new(message, help));
}

/// Reports what is legal and probably wrong.
pub(super) fn warnings(edge: &PlacedEdge, report: &Report) {
    if edge.settings.interfaces.is_empty() {
        report.warn(
            &edge.interfaces,
            "no interfaces: nothing will be attached",
            r#"name them: interfaces = ["eth0"]"#,
        );
    }
    for everything in all_networks() {
        if let Some((network, place)) = edge.allow.covering(&everything) {
            let message = format!("allow {network} lets every such source past deny and limits");
            report.warn(place, message, "name the networks that you trust");
        }
    }
    for (index, limit) in edge.limits.iter().enumerate() {
        shadowed(limit, &edge.limits[..index], report);
        catches_replies(limit, report);
        blocks_spoofed(limit, report);
        coarse_burst(limit, report);
        denied_gate(limit, &edge.deny, report);
    }
}

fn shadowed(limit: &PlacedLimit, earlier: &[PlacedLimit], report: &Report) {
    let (to, protocol) = (destinations(&limit.limit), limit.limit.protocol);
    let wider = earlier
        .iter()
        .map(|earlier| &earlier.limit)
        .filter(|earlier| {
            (earlier.protocol == protocol || earlier.protocol == Protocol::Any)
                && covers(&destinations(earlier), &to)
        });
    let mut names = Vec::new();
    let mut taken = Vec::new();
    for earlier in wider {
        names.push(quote(&earlier.name));
        taken.extend(ports(earlier));
    }
    taken.sort_by_key(|range| *range.start());
    let taken = merge(taken);
    let holds = |wanted: RangeInclusive<u16>| {
        let inside = |range: &RangeInclusive<u16>| {
            range.contains(wanted.start()) && range.contains(wanted.end())
        };
        taken.iter().any(inside)
    };
    if ports(&limit.limit).into_iter().all(holds) {
        let message = format!(
            "limit {} never matches: {} before it match all of its packets",
            quote(&limit.limit.name),
            names.join(", ")
        );
        report.warn(&limit.name, message, "move it up, or remove it");
    }
}

/// All of IPv4, all of IPv6.
pub(super) fn all_networks() -> [IpNet; 2] {
    [Ipv4Net::default().into(), Ipv6Net::default().into()]
}

/// None given means all, spelt out so that both can be compared.
fn destinations(limit: &Limit) -> Vec<IpNet> {
    if limit.to.is_empty() {
        return all_networks().to_vec();
    }
    IpNet::aggregate(&limit.to)
}

fn ports(limit: &Limit) -> Vec<RangeInclusive<u16>> {
    if limit.ports.is_empty() {
        return std::iter::once(0..=u16::MAX).collect();
    }
    limit.ports.clone()
}

/// Whether each of the latter lies in one of the former.
pub(super) fn covers(wide: &[IpNet], narrow: &[IpNet]) -> bool {
    narrow
        .iter()
        .all(|narrow| wide.iter().any(|wide| wide.contains(narrow)))
}

/// Replies are never SYNs without ACK, so a limit on connections alone is
/// harmless to them.
fn catches_replies(limit: &PlacedLimit, report: &Report) {
    let Limit {
        name,
        protocol,
        ports,
        packets,
        bytes,
        from,
        ..
    } = &limit.limit;
    let counts = packets.is_some() || bytes.is_some() || from.is_some();
    if ports.is_empty() && *protocol != Protocol::Icmp && counts {
        let message = format!(
            "limit {} has no ports: it also catches replies to this host's own connections",
            quote(name)
        );
        report.warn(&limit.name, message, "name the ports that you serve");
    }
}

fn blocks_spoofed(limit: &PlacedLimit, report: &Report) {
    if !matches!(limit.limit.exceed, Exceed::Block(_)) {
        return;
    }
    let what = match limit.limit.protocol {
        Protocol::Tcp => "SYNs",
        Protocol::Udp => "UDP packets",
        Protocol::Icmp => "ICMP packets",
        Protocol::Any => "packets of any protocol",
    };
    let message = format!("source addresses of {what} can be spoofed: others can be got blocked");
    let help = r#"use "drop", or protect who must never be blocked with `edge.allow`"#;
    report.warn(&limit.exceed, message, help);
}

/// Time is measured in steps: what a bucket cannot hold of one step's refill
/// is lost.
fn coarse_burst(limit: &PlacedLimit, report: &Report) {
    let step_ns = u64::try_from(CLOCK_STEP.as_nanos()).unwrap_or(u64::MAX);
    for At { value, place } in &limit.buckets {
        let refill = value.rate.tokens_in(step_ns);
        if value.burst < refill {
            let message = format!(
                "a burst of {} is less than the rate brings in one clock step of {} ms ({refill}): the rate will not be reached",
                value.burst,
                CLOCK_STEP.as_millis()
            );
            report.warn(
                place,
                message,
                format!("raise the burst to {refill} or more"),
            );
        }
    }
}

fn denied_gate(limit: &PlacedLimit, deny: &NetworkSet, report: &Report) {
    let Some(from) = &limit.limit.from else {
        return;
    };
    if from.iter().all(|network| deny.covering(network).is_some()) {
        let message = format!(
            "every network in `from` of limit {} is denied: nothing will pass it",
            quote(&limit.limit.name)
        );
        report.warn(&limit.from, message, "remove them from deny, or the limit");
    }
}
