//! `explain --events`: what a policy's rules make of each event of a file, by the
//! file's own clock. No daemon, no NIC, no root.
//!
//! Each event is question and report at once, at its own time, to the very engine
//! that the daemon runs. Nothing was counted before the first of them, and what was
//! done by hand is not known here.

mod busiest;
mod format;
mod listing;
mod remarks;
mod rules;
mod seen;
mod summary;
#[cfg(test)]
mod tests;

pub use format::{FieldMapError, format_of};

use crate::engine::{Engine, Prefixes};
use crate::event::Event;
use crate::event::file::{EventFile, FileError};
use crate::event::formats::Format;
use crate::policy::Policy;
use listing::Listing;
use rules::Rules;
use seen::Seen;
use std::io::{self, BufWriter, Read, Write};

/// What keys are hashed with. The daemon's is a secret, since it hashes what clients
/// choose and stores it; here nothing is stored or sent, and the same file and policy
/// give the same answer whenever they are asked.
const SECRET: [u8; 16] = *b"explain --events";

/// Lines that were not understood and are shown.
const MOST_SHOWN: u64 = 10;

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A decision for each event, as JSON lines.
    Json,
    /// What was done, and each decision too where there are few; then the summary.
    Text,
    /// Each decision and what was done; then the summary.
    All,
}

/// Why events were not explained to the end.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The policy decides nothing.
    #[error(
        "the policy has no [[rule]]: there is nothing to decide by; `limiter init --preset \
         protect-login` prints one to start from"
    )]
    NoRules,
    /// There is no event.
    #[error("no event of format {format} is in it: {cause}")]
    NoEvent {
        /// The format that was tried.
        format: String,
        /// What is there instead, and what to do.
        cause: String,
    },
    /// The file cannot be read on.
    #[error(transparent)]
    Read(FileError),
    /// The reader of the answer went away, or the disk is full.
    #[error("writing the answer: {0}")]
    Write(#[from] io::Error),
}

/// Explains events under the rules of `policy`: a decision for each, or what was
/// done, on `out`. As text the summary follows there; as JSON it goes to `err`, as
/// warnings and lines that were not understood always do.
///
/// # Errors
///
/// See [`EventsError`]; the events before it were explained.
pub fn explain(
    policy: &Policy,
    format: &Format,
    mut input: impl Read,
    form: Form,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), EventsError> {
    let mut replay = Replay::new(policy)?;
    let head = format::head(&mut input).map_err(|cause| {
        let line = 0;
        EventsError::Read(FileError::Read { line, cause })
    })?;
    let mut file = EventFile::new(head.as_slice().chain(input), format.clone());
    let mut out = BufWriter::new(out);
    let mut listing = Listing::new(form);
    let ended = replay.run(&mut file, &mut listing, &mut out, err)?;
    listing.finish(&mut out)?;
    let seen = &mut replay.seen;
    seen.other = file.lines().saturating_sub(seen.events + seen.misread);
    if seen.events > 0 {
        let mut text = String::new();
        replay.summary(format, &mut text);
        match form {
            Form::Json => err.write_all(text.as_bytes())?,
            Form::Text | Form::All => out.write_all(text.as_bytes())?,
        }
    }
    out.flush()?;
    for remark in replay.remarks(format, &head) {
        writeln!(err, "warning: {remark}")?;
    }
    ended?;
    if replay.seen.events > 0 {
        return Ok(());
    }
    Err(EventsError::NoEvent {
        format: format.to_string(),
        cause: format::what_it_is(&head, format, &replay.seen),
    })
}

/// The rules of a policy, in force over a file.
#[derive(Debug)]
struct Replay<'a> {
    policy: &'a Policy,
    engine: Engine,
    rules: Rules<'a>,
    seen: Seen,
}

impl<'a> Replay<'a> {
    fn new(policy: &'a Policy) -> Result<Self, EventsError> {
        let decide = policy.decide.as_ref().filter(|it| !it.rules.is_empty());
        let decide = decide.ok_or(EventsError::NoRules)?;
        let edge = Prefixes {
            ipv4: policy.edge.ipv4_prefix,
            ipv6: policy.edge.ipv6_prefix,
        };
        Ok(Self {
            policy,
            engine: Engine::new(decide, edge, &SECRET),
            rules: Rules::new(policy, decide, edge),
            seen: Seen::default(),
        })
    }

    /// Replays all events. The inner error is the file's, behind the events that were
    /// read.
    fn run<R: Read>(
        &mut self,
        file: &mut EventFile<R>,
        listing: &mut Listing,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> io::Result<Result<(), EventsError>> {
        for read in file.by_ref() {
            match read {
                Ok((line, event)) => self.event(line, &event, listing, out)?,
                Err(error @ FileError::Line { .. }) => {
                    self.seen.misread += 1;
                    if self.seen.misread <= MOST_SHOWN {
                        writeln!(err, "{error}")?;
                    }
                }
                Err(error @ FileError::Read { .. }) => return Ok(Err(EventsError::Read(error))),
            }
        }
        Ok(Ok(()))
    }

    fn event(
        &mut self,
        line: u64,
        event: &Event,
        listing: &mut Listing,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let is_exempt = self.rules.is_exempt(event.source);
        self.seen.note(line, event, is_exempt);
        let decision = self.engine.replay(event);
        let orders = self.engine.orders();
        self.rules.order(orders);
        let changes = self.engine.changes();
        let steps = self.rules.hear(line, event, &decision, changes);
        listing.event(line, event, &decision, steps, out)
    }
}
