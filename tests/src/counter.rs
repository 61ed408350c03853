//! What an interface has counted: to check that what was sent arrived.

use crate::veth::End;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;

/// Packets and bytes that the kernel counted at an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that were received and thrown away before the stack.
    pub dropped: u64,
}

/// What the interface counted so far.
pub fn traffic(end: &End) -> Result<Traffic> {
    let shown = end.namespace.ip(&format!("link show dev {}", end.name))?;
    let links: serde_json::Value = serde_json::from_str(&shown).context("reading ip's JSON")?;
    let count = |way: &str, what: &str| {
        let counted = &links[0]["stats64"][way][what];
        counted
            .as_u64()
            .with_context(|| format!("ip says no {way} {what}: {shown}"))
    };
    Ok(Traffic {
        received: count("rx", "packets")?,
        received_bytes: count("rx", "bytes")?,
        sent: count("tx", "packets")?,
        dropped: count("rx", "dropped")?,
    })
}

/// What the driver counted so far, by its own names (`ethtool -S`).
pub fn driver(end: &End) -> Result<BTreeMap<String, u64>> {
    let shown = end.namespace.output("ethtool", &["-S", &end.name])?;
    let counters = shown.lines().filter_map(|line| {
        let (name, count) = line.split_once(':')?;
        Some((name.trim().to_owned(), count.trim().parse().ok()?))
    });
    Ok(counters.collect())
}

/// The sum over all queues of what the driver counts as `name`, such as
/// `xdp_drops` of a veth.
pub fn driver_sum(end: &End, name: &str) -> Result<u64> {
    let ending = format!("_{name}");
    let counters = driver(end)?;
    Ok(counters
        .iter()
        .filter(|(it, _)| it.ends_with(&ending))
        .map(|(_, count)| count)
        .sum())
}
