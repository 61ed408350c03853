//! What is known of one request or login attempt, and how it is read from what
//! servers and applications write.

mod draft;
mod fault;
pub mod file;
pub mod follow;
pub mod formats;
pub mod json;
pub mod lines;
mod map;
mod moment;
pub mod reader;
pub mod syslog;
#[cfg(test)]
mod tests;
mod value;
mod walk;

pub(crate) use draft::MAX_HEADERS;
pub use fault::{NotUnderstood, Sample};
pub(crate) use value::{address_in, without_port};

pub mod path;

use std::net::IpAddr;

/// An event, however it came in. Only the source must be known; what an adapter
/// cannot tell is absent, which is something else than empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in nanoseconds since the Unix epoch; `None`: on arrival.
    pub at_ns: Option<u64>,
    /// What joins a question and its report.
    pub id: Option<Box<str>>,
    /// Whether it was asked about, though no id joins question and report: only what
    /// became of it is news.
    pub asked: bool,
    /// The client, as the application or the proxy names it.
    pub source: IpAddr,
    /// The TCP peer as this host's NIC sees it; `None`: not known, and then it is
    /// not the source.
    pub peer: Option<IpAddr>,
    /// The method, as sent.
    pub method: Option<Box<str>>,
    /// The host that was asked for, without port.
    pub host: Option<Box<str>>,
    /// The path, as sent: with its query, not normalised.
    pub path: Option<Box<str>>,
    /// The status of the response.
    pub status: Option<u16>,
    /// Whose login it is, as typed.
    pub account: Option<Box<str>>,
    /// The authentication backend.
    pub backend: Option<Box<str>>,
    /// What the application says that became of it.
    pub outcome: Option<Outcome>,
    /// Headers of the request in order, names as sent.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Headers of the response.
    pub response_headers: Vec<(Box<str>, Box<str>)>,
    /// The body of the request, where it is told.
    pub body: Option<Body>,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Body {
    /// Its beginning, as sent.
    pub bytes: Box<[u8]>,
    /// Whether that is known to be all of it.
    pub is_whole: bool,
}

/// The outcome of a login or another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// It failed.
    Failure,
}

impl Event {
    /// One of which nothing but the source is known.
    #[must_use]
    pub const fn of(source: IpAddr) -> Self {
        Self {
            at_ns: None,
            id: None,
            asked: false,
            source,
            peer: None,
            method: None,
            host: None,
            path: None,
            status: None,
            account: None,
            backend: None,
            outcome: None,
            headers: Vec::new(),
            response_headers: Vec::new(),
            body: None,
        }
    }
}
