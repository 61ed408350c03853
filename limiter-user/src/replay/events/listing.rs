//! Decisions and what was done, line by line.

use super::super::report::seconds;
use super::Form;
use crate::engine::Decision;
use crate::event::{Event, Sample};
use crate::policy::Action;
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// As many events are few: then each decision is shown.
const FEW: u64 = 20;

/// One event's decision as JSON, an object on one line: what the engine says, and
/// before it the line of the file, the time (left out where the event has none;
/// nanoseconds behind the point, exact) and the source.
#[derive(Serialize)]
struct Decided<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a RawValue>,
    source: IpAddr,
    #[serde(flatten)]
    decision: &'a Decision,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) at_ns: u64,
    /// `None`: time alone did it.
    pub(super) line: Option<u64>,
    pub(super) what: String,
    pub(super) rule: Arc<str>,
    pub(super) until_ns: Option<u64>,
    /// Escaped.
    pub(super) who: Arc<str>,
}

/// What is written of the events.
#[derive(Debug)]
pub(super) struct Listing {
    form: Form,
    events: u64,
    /// What was not written yet, since the file may have few events; whether it is a
    /// decision.
    held: Vec<(bool, String)>,
    has_heading: bool,
}

impl Listing {
    pub(super) const fn new(form: Form) -> Self {
        Self {
            form,
            events: 0,
            held: Vec::new(),
            has_heading: false,
        }
    }

    /// An event was decided, and this was done.
    pub(super) fn event(
        &mut self,
        line: u64,
        event: &Event,
        decision: &Decision,
        steps: Vec<Step>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.events += 1;
        if self.form == Form::Json {
            return write_json(line, event, decision, out);
        }
        if self.events > FEW && self.form == Form::Text {
            self.let_go(out, false)?;
        }
        // What ends does so before the event is decided.
        let (mut ended, begun): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| step.line.is_none());
        // A rule may hold a source by its key and by a block.
        ended.dedup();
        for step in &ended {
            self.row(false, step_row(step), out)?;
        }
        if self.form == Form::All || self.events <= FEW {
            self.row(true, decision_row(line, event, decision), out)?;
        }
        for step in &begun {
            self.row(false, step_row(step), out)?;
        }
        Ok(())
    }

    /// No more events come.
    pub(super) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.let_go(out, true)
    }

    fn row(&mut self, is_decision: bool, row: String, out: &mut dyn Write) -> io::Result<()> {
        if self.form == Form::Text && self.events <= FEW {
            self.held.push((is_decision, row));
            return Ok(());
        }
        self.write(&row, out)
    }

    fn let_go(&mut self, out: &mut dyn Write, with_decisions: bool) -> io::Result<()> {
        for (is_decision, row) in std::mem::take(&mut self.held) {
            if with_decisions || !is_decision {
                self.write(&row, out)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, row: &str, out: &mut dyn Write) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_heading, true) {
            let heading = columns("AT", "LINE", "WHAT", "RULE", "UNTIL", "WHO");
            out.write_all(heading.as_bytes())?;
        }
        out.write_all(row.as_bytes())
    }
}

fn write_json(
    line: u64,
    event: &Event,
    decision: &Decision,
    out: &mut dyn Write,
) -> io::Result<()> {
    let at = event.at_ns.map(seconds);
    let decided = Decided {
        line,
        at: at.as_deref().map(serde_json::from_str).transpose()?,
        source: event.source,
        decision,
    };
    serde_json::to_writer(&mut *out, &decided)?;
    out.write_all(b"\n")
}

fn decision_row(line: u64, event: &Event, decision: &Decision) -> String {
    let simulated = decision.simulated;
    let reason = decision.reason;
    let reason = reason.map_or_else(String::new, |reason| format!(", {}", reason.name()));
    let of_simulated = if decision.action.is_none() {
        reason.as_str()
    } else {
        ""
    };
    let simulated = simulated.map(|action| format!(" (would {}{of_simulated})", action.name()));
    let what = match decision.action {
        None => "pass".to_owned(),
        Some(Action::Throttle) => format!("throttle {} ms", decision.delay_ms),
        Some(action) => format!("{}{reason}", action.name()),
    };
    columns(
        &event.at_ns.map_or_else(|| "-".to_owned(), moment),
        &line.to_string(),
        &format!("{what}{}", simulated.unwrap_or_default()),
        decision.rule.as_deref().unwrap_or("-"),
        &decision.until_ns.map_or_else(|| "-".to_owned(), moment),
        &request(event),
    )
}

/// Whose request, and which. A query may hold secrets and stays out.
fn request(event: &Event) -> String {
    let mut words = event.source.to_string();
    let path = event.path.as_deref();
    let path = path.map(|path| path.split(['?', '#']).next().unwrap_or(path));
    let status = event.status.map(|status| status.to_string());
    let texts = [
        event.method.as_deref(),
        path,
        status.as_deref(),
        event.account.as_deref(),
    ];
    for text in texts.into_iter().flatten() {
        words.push(' ');
        words.push_str(Sample::of(text.as_bytes()).as_str());
    }
    words
}

fn step_row(step: &Step) -> String {
    columns(
        &moment(step.at_ns),
        &step
            .line
            .map_or_else(|| "-".to_owned(), |it| it.to_string()),
        &step.what,
        &step.rule,
        &step.until_ns.map_or_else(|| "-".to_owned(), moment),
        &step.who,
    )
}

fn columns(at: &str, line: &str, what: &str, rule: &str, until: &str, who: &str) -> String {
    format!("{at:<24}  {line:>8}  {what:<26}  {rule:<20}  {until:<24}  {who}\n")
}

/// A duration for people.
pub(super) fn lasting(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// A time for people (RFC 3339, UTC, milliseconds).
pub(super) fn moment(at_ns: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(at_ns);
    humantime::format_rfc3339_millis(at).to_string()
}
