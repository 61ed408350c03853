//! `reload`, `confirm`, `pause`, `resume`: what is in force, and for how long.

use super::args::{Json, Pause, Reload};
use super::output::Output;
use super::words::{counted, duration};
use super::{Client, Failure};
use crate::control::api::{Reloaded, TermRow};
use crate::policy::units::duration_text;

/// Lets the daemon read its policy file again.
pub(super) fn reload(client: &Client, reload: &Reload, output: &mut Output) -> Result<(), Failure> {
    let client = client.forced(reload.force.force);
    let confirm = reload.confirm.map(duration_text);
    let parameters = confirm.iter().map(|lasting| ("confirm", lasting.as_str()));
    let parameters: Vec<_> = parameters.collect();
    let reloaded = client.post_with("/v1/reload", &parameters, &())?;
    show("policy reloaded", &reloaded, reload.json, output)
}

/// Lets the policy that is tried stay.
pub(super) fn confirm(client: &Client, json: Json, output: &mut Output) -> Result<(), Failure> {
    let reloaded = client.post("/v1/confirm", &())?;
    show("policy confirmed", &reloaded, json, output)
}

/// Lets everything pass.
pub(super) fn pause(client: &Client, pause: &Pause, output: &mut Output) -> Result<(), Failure> {
    let lasting = duration_text(pause.lasting);
    let reloaded = client.post_with("/v1/pause", &[("for", &lasting)], &())?;
    show("paused", &reloaded, pause.json, output)
}

/// Puts the policy in force that would be by itself, later.
pub(super) fn resume(client: &Client, json: Json, output: &mut Output) -> Result<(), Failure> {
    let reloaded = client.post("/v1/resume", &())?;
    show("resumed", &reloaded, json, output)
}

fn show(what: &str, reloaded: &Reloaded, json: Json, output: &mut Output) -> Result<(), Failure> {
    if json.json {
        return Ok(output.json(reloaded)?);
    }
    let of = |count: u64, what| counted(usize::try_from(count).unwrap_or(usize::MAX), what);
    let (limits, rules) = (of(reloaded.limits, "limit"), of(reloaded.rules, "rule"));
    output.line(&format!("{what}: {limits}, {rules}"))?;
    for (what, names) in [
        ("attached to", &reloaded.attached),
        ("detached from", &reloaded.detached),
    ] {
        if !names.is_empty() {
            output.line(&format!("{what}: {}", names.join(", ")))?;
        }
    }
    if let Some(term) = &reloaded.term {
        output.line(&in_words(term))?;
    }
    for notice in &reloaded.notices {
        output.line(&format!("warning: {notice}"))?;
    }
    for warning in &reloaded.warnings {
        for line in warning.text.lines() {
            output.line(line)?;
        }
    }
    Ok(())
}

/// What is in force for a time, and what to do about it.
pub(super) fn in_words(term: &TermRow) -> String {
    let left = duration(term.remaining_seconds);
    let until = &term.until;
    match term.term.as_str() {
        "paused" => format!(
            "everything passes until {until} (for {left}); `limiter resume` ends that at once"
        ),
        _ => format!(
            "rolled back at {until} (in {left}) unless `limiter confirm` comes first; `limiter resume` \
             rolls back at once"
        ),
    }
}
