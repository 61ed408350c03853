//! Log files that are followed, all on one thread.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::origin::Origin;
use super::running::{Running, Stop};
use super::{Intake, wall_ns};
use crate::event::Event;
use crate::event::follow::{Follower, Opener, Position, Start};
use crate::event::formats::Format;
use crate::event::reader::Reader;

/// Events in one report.
const BATCH: usize = 512;

/// How often a file that stands still is looked at.
const QUIET: Duration = Duration::from_millis(50);

/// How often positions are given out.
const POSITIONS: Duration = Duration::from_secs(1);

/// A log that is to be followed.
#[derive(Debug)]
pub struct Log {
    /// Where it is counted.
    pub origin: Arc<Origin>,
    /// How its lines are written.
    pub format: Format,
    /// Whether a source is the peer where the format does not tell the peer.
    pub direct: bool,
    /// Whether its requests were asked about, and only what became of them counts.
    pub asked: bool,
    /// Who opens its files.
    pub opener: Box<dyn Opener>,
    /// Where an earlier process stopped; `None`: it is read from its end.
    pub position: Option<Position>,
}

/// How far a log was read and reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The name of its origin.
    pub origin: String,
    /// Where a later process has to go on.
    pub position: Position,
}

/// Follows logs on a thread of their own. `reached` is given what has changed, once a
/// second and at the end.
///
/// # Errors
///
/// There can be no thread.
pub fn follow(
    intake: Arc<Intake>,
    logs: Vec<Log>,
    mut reached: impl FnMut(Vec<Reached>) + Send + 'static,
) -> io::Result<Running> {
    let mut followed: Vec<Followed> = logs.into_iter().map(Followed::of).collect();
    Running::start("logs", move |stop| {
        run(&intake, &mut followed, &mut reached, stop);
    })
}

fn run(
    intake: &Intake,
    logs: &mut [Followed],
    reached: &mut impl FnMut(Vec<Reached>),
    stop: &Stop,
) {
    let mut due = Instant::now() + POSITIONS;
    while !stop.is_set() {
        let mut is_behind = false;
        for log in logs.iter_mut() {
            is_behind |= log.look(intake, Instant::now());
        }
        if Instant::now() >= due {
            give_out(logs, reached);
            due = Instant::now() + POSITIONS;
        }
        if !is_behind {
            stop.wait(QUIET);
        }
    }
    give_out(logs, reached);
}

fn give_out(logs: &mut [Followed], reached: &mut impl FnMut(Vec<Reached>)) {
    let changed: Vec<Reached> = logs.iter_mut().filter_map(Followed::reached).collect();
    if !changed.is_empty() {
        reached(changed);
    }
}

#[derive(Debug)]
struct Followed {
    origin: Arc<Origin>,
    reader: Reader,
    follower: Follower,
    events: Vec<Event>,
    /// As it was given out last.
    position: Option<Position>,
    /// Whether it is read what was written while nobody followed.
    is_past: bool,
}

impl Followed {
    fn of(log: Log) -> Self {
        let start = log.position.map_or(Start::End, Start::At);
        Self {
            origin: log.origin,
            reader: Reader::new(log.format, log.direct).asked(log.asked),
            follower: Follower::new(log.opener, start),
            events: Vec::with_capacity(BATCH),
            position: log.position,
            is_past: log.position.is_some(),
        }
    }

    /// Reads what is new; whether there is more already.
    fn look(&mut self, intake: &Intake, now: Instant) -> bool {
        let Self {
            origin,
            reader,
            follower,
            events,
            is_past,
            ..
        } = self;
        let report = |reader: &mut Reader, events: &mut Vec<Event>| {
            let (tally, now_ns) = (reader.take_tally(), wall_ns());
            match *is_past {
                true => intake.hear_past(origin, tally, events, now_ns),
                false => intake.hear(origin, tally, events, now_ns),
            }
            events.clear();
        };
        // Rules that come while a piece is read, see the next one.
        let wants = intake.origins().wants();
        let look = follower.poll(now, |line| {
            events.extend(reader.line(&line, &|method, target| wants.asks(method, target)));
            if events.len() >= BATCH {
                report(reader, events);
            }
        });
        if reader.tally().read > 0 {
            report(reader, events);
        }
        *is_past &= look.behind > 0 || !follower.is_open();
        origin.set_behind(look.behind);
        if let Some(why) = follower.missed() {
            origin.set_missed(why);
        }
        self.tell();
        // Without progress another look at once is of no use.
        look.behind > 0 && look.read > 0
    }

    /// Says what is wrong, once.
    fn tell(&self) {
        let trouble = self.follower.trouble().map(ToString::to_string);
        if !self.origin.set_trouble(trouble.clone()) {
            return;
        }
        let origin = self.origin.name();
        match trouble {
            Some(error) if self.follower.is_open() => {
                tracing::warn!(
                    origin,
                    error,
                    "the log is followed no further; it is tried again"
                );
            }
            Some(error) => tracing::warn!(origin, error, "no log to follow; it is waited for"),
            None => tracing::info!(origin, "the log is followed again"),
        }
    }

    /// Where it is, if that is not known yet. A file that cannot be read keeps its
    /// last place.
    fn reached(&mut self) -> Option<Reached> {
        let position = self.follower.position().ok().flatten()?;
        if self.position.replace(position) == Some(position) {
            return None;
        }
        Some(Reached {
            origin: self.origin.name().to_owned(),
            position,
        })
    }
}
