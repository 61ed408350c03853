//! One origin of events: its format, and what was counted of it.

use std::fmt::Write as _;

use super::fault::{NotUnderstood, Sample};
use super::formats::{Asked, Format};
use super::lines::Line;
use super::{Event, json, syslog};

/// What was counted of an origin. `read` is the sum of `understood`, `other` and
/// `not_understood`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines and datagrams that came.
    pub read: u64,
    /// Those that became events.
    pub understood: u64,
    /// Those that tell of no request.
    pub other: u64,
    /// Those that are no events of the format.
    pub not_understood: u64,
    /// Events and lines that nobody had time for; counted by who lets them go.
    pub dropped: u64,
    /// The last that was not understood.
    pub last: Option<Misread>,
}

impl Tally {
    /// Adds what was counted later.
    pub fn add(&mut self, later: Self) {
        self.read += later.read;
        self.understood += later.understood;
        self.other += later.other;
        self.not_understood += later.not_understood;
        self.dropped += later.dropped;
        self.last = later.last.or(self.last.take());
    }
}

/// A line that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    /// Why.
    pub cause: NotUnderstood,
    /// How it begins.
    pub sample: Sample,
}

impl Misread {
    /// In one line, escaped: what is wrong, what to do and the line itself.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut words = self.cause.to_string();
        // Writing to a string does not fail.
        let _written = write!(words, "; {}: {}", self.cause.help(), self.sample);
        words
    }
}

/// Reads what comes from one origin and counts it.
#[derive(Clone, Debug)]
pub struct Reader {
    format: Format,
    direct: bool,
    asked: bool,
    tally: Tally,
}

impl Reader {
    /// Of a format. `direct` says that whoever the server names as its client is
    /// its TCP peer on this host, where the format does not tell the peer: no
    /// proxy stands before it.
    #[must_use]
    pub fn new(format: Format, direct: bool) -> Self {
        Self {
            format,
            direct,
            asked: false,
            tally: Tally::default(),
        }
    }

    /// The same, whose events were all asked about, though no id says so.
    #[must_use]
    pub fn asked(self, asked: bool) -> Self {
        Self { asked, ..self }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What was counted since this was last asked.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Counts events that were let go.
    pub const fn drop_events(&mut self, events: u64) {
        self.tally.dropped += events;
    }

    /// Reads a line, of which [less may be kept](Format::read_asked) where nobody asks for it;
    /// `None`: it is no event.
    pub fn line(&mut self, line: &Line<'_>, is_asked: Asked<'_>) -> Option<Event> {
        match line {
            Line::Whole(bytes) => {
                let read = self.format.read_asked(bytes, is_asked);
                self.count(read, bytes)
            }
            Line::TooLong { length, head } => {
                self.too_long(*length, head.clone());
                None
            }
        }
    }

    /// Counts a line or a datagram of so many bytes, which was not kept.
    pub fn too_long(&mut self, length: u64, head: Sample) {
        self.tally.read += 1;
        self.misread(Line::too_long(length), head);
    }

    /// Reads an event that an application has written, exactly as it is meant.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn exact(&mut self, bytes: &[u8]) -> Result<Event, Misread> {
        self.tally.read += 1;
        match json::read(bytes) {
            Ok(event) => {
                self.tally.understood += 1;
                Ok(event)
            }
            Err(cause) => {
                let sample = Sample::of(bytes);
                self.misread(cause.clone(), sample.clone());
                Err(Misread { cause, sample })
            }
        }
    }

    /// Reads a datagram of syslog, or one without its header; `None`: it is no
    /// event.
    pub fn datagram(&mut self, datagram: &[u8]) -> Option<Event> {
        let read = syslog::message(datagram).and_then(|message| self.format.read(message));
        self.count(read, datagram)
    }

    fn count(&mut self, read: Result<Option<Event>, NotUnderstood>, bytes: &[u8]) -> Option<Event> {
        self.tally.read += 1;
        match read {
            Ok(Some(event)) => {
                self.tally.understood += 1;
                Some(self.complete(event))
            }
            Ok(None) => {
                self.tally.other += 1;
                None
            }
            Err(cause) => {
                self.misread(cause, Sample::of(bytes));
                None
            }
        }
    }

    fn misread(&mut self, cause: NotUnderstood, sample: Sample) {
        self.tally.not_understood += 1;
        self.tally.last = Some(Misread { cause, sample });
    }

    fn complete(&self, mut event: Event) -> Event {
        if self.direct && event.peer.is_none() {
            event.peer = Some(event.source);
        }
        event.asked = self.asked;
        event
    }
}
