//! What a file has told: when, of whom, and which fields its events have at all.

use super::busiest::Busiest;
use crate::event::Event;
use std::net::IpAddr;

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Lines that are events.
    pub(super) events: u64,
    /// Lines that were not understood.
    pub(super) misread: u64,
    /// Lines that tell of no request.
    pub(super) other: u64,
    /// Events without a time.
    pub(super) timeless: u64,
    /// Events from sources that are exempt.
    pub(super) exempt: u64,
    /// The earliest and the latest time.
    pub(super) span_ns: Option<(u64, u64)>,
    /// The line of the latest time.
    latest_line: u64,
    /// Events earlier than one before them.
    pub(super) late: u64,
    /// The one of them that is so by most.
    pub(super) latest: Option<Late>,
    /// Fields that any event has.
    pub(super) told: Told,
    pub(super) sources: Busiest<IpAddr>,
}

/// An event that is earlier than one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) line: u64,
    pub(super) by_ns: u64,
    /// The line of the one before it.
    pub(super) behind: u64,
}

/// Fields that any event has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) method: bool,
    pub(super) host: bool,
    pub(super) path: bool,
    pub(super) status: bool,
    pub(super) backend: bool,
    pub(super) outcome: bool,
    pub(super) response_headers: bool,
}

impl Seen {
    pub(super) fn note(&mut self, line: u64, event: &Event, is_exempt: bool) {
        self.events += 1;
        self.exempt += u64::from(is_exempt);
        self.sources.add(event.source);
        self.clock(line, event.at_ns);
        let told = &mut self.told;
        told.method |= event.method.is_some();
        told.host |= event.host.is_some();
        told.path |= event.path.is_some();
        told.status |= event.status.is_some();
        told.backend |= event.backend.is_some();
        told.outcome |= event.outcome.is_some();
        told.response_headers |= !event.response_headers.is_empty();
    }

    fn clock(&mut self, line: u64, at_ns: Option<u64>) {
        let Some(at_ns) = at_ns else {
            self.timeless += 1;
            return;
        };
        let (first, last) = self.span_ns.unwrap_or((at_ns, at_ns));
        self.span_ns = Some((first.min(at_ns), last.max(at_ns)));
        if at_ns >= last {
            self.latest_line = line;
            return;
        }
        self.late += 1;
        let by_ns = last - at_ns;
        if self.latest.is_none_or(|late| late.by_ns < by_ns) {
            let behind = self.latest_line;
            self.latest = Some(Late {
                line,
                by_ns,
                behind,
            });
        }
    }
}
