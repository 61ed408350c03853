//! What was decided, as text or JSON, and the sums.

use super::tables::MemoryTables;
use crate::image::{Slots, network};
use ipnet::IpNet;
use limiter_common::{
    address::{Address, Family},
    layout::Policy,
    verdict::{Outcome, Verdict},
};
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::{self, Write};

/// One packet's decision.
///
/// As JSON an object on one line. `verdict` and `reason` are always there;
/// what a packet does not have is left out: `at` (nanoseconds behind the
/// point, exact), `source` (a network where the policy's prefix is shorter
/// than an address), `budget`, `limit`.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    verdict: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
}

/// A packet and what was decided about it.
#[derive(Debug)]
pub(super) struct Decided<'a> {
    pub(super) at_ns: Option<u64>,
    /// The source, where the packet has one.
    pub(super) source: Option<IpNet>,
    pub(super) verdict: Verdict,
    pub(super) limit: Option<&'a str>,
}

impl Decided<'_> {
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let at = self.at_ns.map(seconds);
        let at = at.as_deref().map(serde_json::from_str).transpose()?;
        let reason = self.verdict.outcome.reason();
        let line = Line {
            at,
            source: self.source.map(name),
            verdict: self.verdict.outcome.action().name(),
            reason: reason.name(),
            budget: reason.budget().name(),
            limit: self.limit,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    }

    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        write_columns(
            out,
            &self.at_ns.map_or_else(absent, seconds),
            &self.source.map_or_else(absent, name),
            self.verdict.outcome.action().name(),
            &reason(self.verdict.outcome),
            self.limit.unwrap_or("-"),
        )
    }
}

/// The first line of the text form.
pub(super) fn write_heading(out: &mut dyn Write) -> io::Result<()> {
    write_columns(out, "AT", "SOURCE", "VERDICT", "REASON", "LIMIT")
}

fn write_columns(
    out: &mut dyn Write,
    at: &str,
    source: &str,
    verdict: &str,
    reason: &str,
    limit: &str,
) -> io::Result<()> {
    writeln!(
        out,
        "{at:<20}  {source:<24}  {verdict:<10}  {reason:<17}  {limit}"
    )
}

/// Seconds with nine places.
pub(super) fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn absent() -> String {
    "-".to_owned()
}

/// An address where the network is one, else the network.
fn name(source: IpNet) -> String {
    if source.prefix_len() == source.max_prefix_len() {
        source.addr().to_string()
    } else {
        source.to_string()
    }
}

/// The reason, and the budget where one ran out.
fn reason(outcome: Outcome) -> String {
    let reason = outcome.reason();
    match reason.budget().name() {
        Some(budget) => format!("{}/{budget}", reason.name()),
        None => reason.name().to_owned(),
    }
}

/// The source that `policy` makes of an address.
pub(super) fn source(policy: &Policy, address: Address) -> IpNet {
    let prefix = match address.family {
        Family::Ipv4 => policy.ipv4_prefix,
        Family::Ipv6 => policy.ipv6_prefix,
    };
    network(address.masked(prefix), prefix)
}

/// What became of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets and bytes by limit and outcome, in the order of the limits'
    /// slots; those without a limit last.
    pub rows: Vec<SummaryRow>,
    /// Packets judged.
    pub packets: u64,
    /// Packets of which the capture kept only the beginning.
    pub cut: u64,
    /// Packets older than one before them.
    pub late: u64,
    /// Packets without a time.
    pub timeless: u64,
}

/// Packets of one limit and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// The limit's name, where one took part.
    pub limit: Option<String>,
    /// What became of them, and why.
    pub outcome: Outcome,
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, without padding and checksum.
    pub bytes: u64,
}

impl Summary {
    /// Takes the sums from what `tables` counted.
    pub(super) fn count(&mut self, tables: &MemoryTables, slots: &Slots) {
        let row = |(key, tally): (&(u32, Outcome), &limiter_common::layout::Tally)| SummaryRow {
            limit: slots.name(key.0 as usize).map(str::to_owned),
            outcome: key.1,
            packets: tally.packets,
            bytes: tally.bytes,
        };
        self.rows = tables.tallies().iter().map(row).collect();
    }

    /// Writes the sums and what is to be known of the capture.
    ///
    /// # Errors
    ///
    /// Those of `err`.
    pub fn write(&self, err: &mut dyn Write) -> io::Result<()> {
        let packets = self.packets;
        writeln!(err, "{packets} packet{}", plural(packets))?;
        for row in &self.rows {
            writeln!(
                err,
                "{:>12} packets {:>15} bytes  {:<10}  {:<17}  {}",
                row.packets,
                row.bytes,
                row.outcome.action().name(),
                reason(row.outcome),
                row.limit.as_deref().unwrap_or("-"),
            )?;
        }
        for (count, what) in [
            (
                self.cut,
                "cut short by the capture and judged from what is there; \
                 tcpdump keeps whole ones with `-s 0`",
            ),
            (
                self.late,
                "older than one before and judged at the latest time there was",
            ),
            (
                self.timeless,
                "without a time and judged at the time of the one before",
            ),
        ] {
            if count > 0 {
                writeln!(err, "{count} packet{} {what}", plural(count))?;
            }
        }
        Ok(())
    }
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
