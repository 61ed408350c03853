//! `explain`.

use super::args;
use super::output::Output;
use super::show::reason;
use super::words::{count, duration};
use super::{Client, Failure};
use crate::control::api::{Explanation, ListRow};
use crate::keeper::shown;
use crate::policy;
use crate::replay::{self, ReplayError};

pub(super) fn explain(
    client: &Client,
    arguments: &args::Explain,
    output: &mut Output,
) -> Result<(), Failure> {
    let Some(source) = &arguments.source else {
        return pcap(arguments, output);
    };
    let found: Explanation = client.get("/v1/explain", &[("source", source)])?;
    if arguments.json.json {
        return Ok(output.json(&found)?);
    }
    output.line(&found.summary)?;
    entries("allow", &found.allow, output)?;
    entries("deny", &found.deny, output)?;
    for block in &found.blocks {
        let limit = block.limit.as_deref();
        let limit = limit.map(|limit| format!(", limit {limit}"));
        let dry = if block.dry { ", dry" } else { "" };
        output.line(&format!(
            "  block {} by {}{}{dry}, for another {} (until {})",
            shown(block.network),
            block.owner,
            limit.unwrap_or_default(),
            duration(block.remaining_seconds),
            block.expires
        ))?;
    }
    for row in &found.limits {
        let last = row.last_refusal.as_ref();
        let last = last.map(|outcome| format!(", last refused for {}", reason(outcome)));
        output.line(&format!(
            "  limit {}: {} of {} passed, {} dropped{}",
            row.limit,
            count(row.passed),
            shown(row.source),
            count(row.dropped),
            last.unwrap_or_default()
        ))?;
    }
    if found.inside > 0 {
        let inside = count(found.inside);
        output.line(&format!(
            "  {inside} entries and blocks lie inside {}",
            found.source
        ))?;
    }
    Ok(())
}

fn entries(list: &str, rows: &[ListRow], output: &mut Output) -> Result<(), Failure> {
    for row in rows {
        let until = match (&row.expires, row.remaining_seconds) {
            (Some(expires), Some(left)) => {
                format!("for another {} (until {expires})", duration(left))
            }
            _ => "for good".to_owned(),
        };
        let (network, origin, since) = (shown(row.network), &row.origin, &row.since);
        output.line(&format!(
            "  {list} {network} ({origin}) since {since}, {until}"
        ))?;
    }
    Ok(())
}

/// The verdict on each packet of a capture.
fn pcap(arguments: &args::Explain, output: &mut Output) -> Result<(), Failure> {
    let Some(file) = &arguments.pcap else {
        // The command line has one or the other.
        return Ok(());
    };
    let words = |error: &dyn std::error::Error| Failure::Words(error.to_string());
    let loaded = policy::load(&arguments.config).map_err(|error| words(&error))?;
    let json = arguments.json.json;
    replay::explain(
        &loaded.policy,
        file,
        json,
        output.writer(),
        &mut std::io::stderr(),
    )
    .map_err(|error| match error {
        ReplayError::Write(error) => Failure::Output(error),
        other => words(&other),
    })
}
