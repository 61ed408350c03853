//! What comes in a body, and what is answered.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::adapters::origin::Origin;
use crate::adapters::{Intake, wall_ns};
use crate::control::api::Refusal;
use crate::engine::Decision;
use crate::event::formats::Format;
use crate::event::reader::{Misread, Reader};
use crate::event::{Event, NotUnderstood};

/// Events in one report to the judge.
const BATCH: usize = 512;

/// What a body is to be.
const ONE: &str = "send one event as a JSON object; several to /v1/events, one a line";

/// Errors that are told at most.
const MOST_TOLD: usize = 10;

/// The answer to a question.
#[derive(Debug, Serialize)]
pub(super) struct Checked<'a> {
    /// What the report has to name.
    id: &'a str,
    #[serde(flatten)]
    decision: Decision,
    /// The rule that `limit` is of, where it is not the one that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_rule: Option<Arc<str>>,
}

impl<'a> Checked<'a> {
    pub(super) fn new(id: &'a str, decision: Decision) -> Self {
        let shown = decision.shown.clone();
        let limit_rule = shown.filter(|shown| decision.rule.as_ref() != Some(shown));
        Self {
            id,
            decision,
            limit_rule,
        }
    }
}

/// The answer to a report.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Heard {
    /// Events that were understood; all of them are counted.
    pub(super) understood: u64,
    /// Those that were not.
    pub(super) not_understood: u64,
    /// The first of these.
    pub(super) errors: Vec<Wrong>,
}

/// An event that was not understood.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// The line that it is on, from 1.
    line: u64,
    error: String,
    help: &'static str,
    /// How it begins, escaped.
    sample: String,
}

/// Why a question was none.
pub(super) fn refusal(misread: &Misread, body: &[u8]) -> Refusal {
    let status = match misread.cause {
        _ if is_blank(body) => return nothing(),
        NotUnderstood::NotJson { .. } if is_several(body) => {
            let detail = "there is more than one event in the body";
            return Refusal::new(StatusCode::BAD_REQUEST, detail, ONE);
        }
        NotUnderstood::NotJson { .. } | NotUnderstood::NotUtf8 { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let detail = format!("{}: {}", misread.cause, misread.sample);
    Refusal::new(status, detail, misread.cause.help())
}

fn nothing() -> Refusal {
    let detail = "there is nothing in the body";
    Refusal::new(StatusCode::BAD_REQUEST, detail, ONE)
}

/// Whether another object follows a whole one.
fn is_several(body: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    let is_whole = matches!(values.next(), Some(Ok(_)));
    let rest = body.get(values.byte_offset()..).unwrap_or_default();
    is_whole && rest.trim_ascii_start().starts_with(b"{")
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

/// Hears one event, which may go over several lines, or one on each line. What is not
/// understood keeps nothing else from being counted.
pub(super) fn hear(intake: &Intake, origin: &Origin, body: &[u8]) -> Result<Heard, Refusal> {
    if is_blank(body) {
        return Err(nothing());
    }
    let mut reader = Reader::new(Format::Json, false);
    let mut heard = Heard::default();
    let mut events: Vec<Event> = Vec::new();
    for (number, event) in parts(body) {
        match reader.exact(event) {
            Ok(event) => events.push(event),
            Err(misread) => heard.wrong(number, &misread),
        }
        if events.len() >= BATCH {
            heard.understood += events.len() as u64;
            intake.hear(origin, reader.take_tally(), &mut events, wall_ns());
            events.clear();
        }
    }
    heard.understood += events.len() as u64;
    intake.hear(origin, reader.take_tally(), &mut events, wall_ns());
    Ok(heard)
}

/// The events of a body, with the numbers of their lines.
fn parts(body: &[u8]) -> Vec<(u64, &[u8])> {
    let lines = body.split(|byte| *byte == b'\n');
    let numbered = (1..).zip(lines);
    let lines: Vec<(u64, &[u8])> = numbered.filter(|(_, line)| !is_blank(line)).collect();
    // A first line that is whole JSON is an event of its own.
    let is_whole = |line: &[u8]| serde_json::from_slice::<IgnoredAny>(line).is_ok();
    match lines.first() {
        Some((number, first)) if lines.len() > 1 && !is_whole(first) && is_whole(body) => {
            vec![(*number, body)]
        }
        _ => lines,
    }
}

impl Heard {
    fn wrong(&mut self, line: u64, misread: &Misread) {
        self.not_understood += 1;
        if self.errors.len() < MOST_TOLD {
            self.errors.push(Wrong {
                line,
                error: misread.cause.to_string(),
                help: misread.cause.help(),
                sample: misread.sample.to_string(),
            });
        }
    }
}
