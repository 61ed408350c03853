//! `explain`.

use super::args;
use super::output::Output;
use super::show::reason;
use super::words::{count, duration};
use super::{Client, Failure};
use crate::control::api::{BlockRow, Explanation, ListRow, SourceRow};
use crate::keeper::shown;
use crate::{
    policy,
    replay::{
        self, ReplayError,
        events::{EventsError, Form, format_of},
    },
};
use std::{
    fs::File,
    io::{Read, stderr, stdin},
    path::Path,
};

pub(super) fn explain(
    client: &Client,
    arguments: &args::Explain,
    output: &mut Output,
) -> Result<(), Failure> {
    if let Some(file) = &arguments.pcap {
        return pcap(arguments, file, output);
    }
    if let Some(file) = &arguments.events {
        return events(arguments, file, output);
    }
    let source = arguments.source.as_deref().unwrap_or_default();
    let found: Explanation = client.get("/v1/explain", &[("source", source)])?;
    if arguments.json.json {
        return Ok(output.json(&found)?);
    }
    for line in lines(&found) {
        output.line(&line)?;
    }
    Ok(())
}

/// An explanation for people: the summary, then what it rests on.
pub(super) fn lines(found: &Explanation) -> Vec<String> {
    let mut lines = vec![found.summary.clone()];
    lines.extend(found.allow.iter().map(|row| entry("allow", row)));
    lines.extend(found.deny.iter().map(|row| entry("deny", row)));
    lines.extend(found.blocks.iter().map(block));
    lines.extend(found.held.iter().map(super::rules::held));
    lines.extend(found.limits.iter().map(limit));
    if found.inside > 0 {
        let inside = count(found.inside);
        let source = found.source;
        lines.push(format!("  {inside} entries and blocks lie inside {source}"));
    }
    lines
}

fn entry(list: &str, row: &ListRow) -> String {
    let until = match (&row.expires, row.remaining_seconds) {
        (Some(expires), Some(left)) => {
            format!("for another {} (until {expires})", duration(left))
        }
        _ => "for good".to_owned(),
    };
    let (network, origin, since) = (shown(row.network), &row.origin, &row.since);
    format!("  {list} {network} ({origin}) since {since}, {until}")
}

fn block(block: &BlockRow) -> String {
    let limit = block.limit.as_deref();
    let limit = limit.map(|limit| format!(", limit {limit}"));
    let dry = if block.dry { ", dry" } else { "" };
    format!(
        "  block {} by {}{}{dry}, for another {} (until {})",
        shown(block.network),
        block.owner,
        limit.unwrap_or_default(),
        duration(block.remaining_seconds),
        block.expires
    )
}

fn limit(row: &SourceRow) -> String {
    let last = row.last_refusal.as_ref();
    let last = last.map(|outcome| format!(", last refused for {}", reason(outcome)));
    format!(
        "  limit {}: {} of {} passed, {} dropped{}",
        row.limit,
        count(row.passed),
        shown(row.source),
        count(row.dropped),
        last.unwrap_or_default()
    )
}

/// The verdict on each packet of a capture. A broken pipe is nobody's fault.
fn pcap(arguments: &args::Explain, file: &Path, output: &mut Output) -> Result<(), Failure> {
    let config =
        policy::load(&arguments.config).map_err(|error| Failure::Words(error.to_string()))?;
    let replayed = replay::explain(
        &config.policy,
        file,
        arguments.json.json,
        output.writer(),
        &mut stderr(),
    );
    match replayed {
        Ok(()) => Ok(()),
        Err(ReplayError::Write(error)) => Err(Failure::Output(error)),
        Err(error @ (ReplayError::Capture(_) | ReplayError::Span { .. })) => {
            Err(Failure::Words(format!("{}: {error}", file.display())))
        }
        Err(error) => Err(Failure::Words(error.to_string())),
    }
}

/// What the rules make of each event of a file.
fn events(arguments: &args::Explain, file: &Path, output: &mut Output) -> Result<(), Failure> {
    let config = &arguments.config;
    let loaded = policy::load(config).map_err(|error| Failure::Words(error.to_string()))?;
    let policy = &loaded.policy;
    let named = arguments.format.as_deref();
    let format = format_of(policy.decide.as_ref(), file, named)
        .map_err(|error| Failure::Words(format!("{}: {error}", config.display())))?;
    let form = match (arguments.json.json, arguments.all) {
        (true, _) => Form::Json,
        (false, false) => Form::Text,
        (false, true) => Form::All,
    };
    let is_stdin = file == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let input: Box<dyn Read> = if is_stdin {
        Box::new(stdin().lock())
    } else {
        let opened = File::open(file);
        Box::new(opened.map_err(|error| Failure::Words(format!("cannot open {name}: {error}")))?)
    };
    let explained =
        replay::events::explain(policy, &format, input, form, output.writer(), &mut stderr());
    match explained {
        Ok(()) => Ok(()),
        Err(EventsError::Write(error)) => Err(Failure::Output(error)),
        Err(error @ EventsError::NoRules) => {
            Err(Failure::Words(format!("{}: {error}", config.display())))
        }
        Err(error) => Err(Failure::Words(format!("{name}: {error}"))),
    }
}
