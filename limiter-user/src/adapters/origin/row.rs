//! What is told of an origin.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What is known of an origin. `read` is the sum of `understood`, `other` and
/// `not_understood`; all counts are of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// As in the policy: `api`, `feedback:unix:/path`, `feedback:udp:127.0.0.1:514`,
    /// `log:/path`.
    pub name: String,
    /// How it writes events; `None`: as applications do.
    pub format: Option<String>,
    /// Lines, datagrams or events that came.
    pub read: u64,
    /// Those that became events.
    pub understood: u64,
    /// Those that tell of no request.
    pub other: u64,
    /// Those that are no events of the format.
    pub not_understood: u64,
    /// Those that nobody had time for.
    pub dropped: u64,
    /// Datagrams of senders that are not listed, and questions of those who may not ask.
    pub forged: u64,
    /// When the last of them came, in nanoseconds since the Unix epoch.
    #[serde(default)]
    pub forged_ns: Option<u64>,
    /// Those that were not understood since the last that was.
    pub misread_in_a_row: u64,
    /// The last that was not understood, and why; escaped.
    pub sample: Option<String>,
    /// How long before it arrived the last event happened, in nanoseconds.
    pub lag_ns: Option<u64>,
    /// The maximum of that over the last minute.
    pub most_lag_ns: Option<u64>,
    /// Bytes of a log that wait to be read.
    pub behind_bytes: u64,
    /// What keeps it from being read.
    pub trouble: Option<String>,
    /// Why the rest of a log could not be read that was rotated while nobody read it.
    #[serde(default)]
    pub missed: Option<String>,
    /// The source of all events, where there is only one.
    pub source: Option<OneSource>,
    /// Parts of keys that rules look for.
    pub keys: Vec<KeyRow>,
}

/// A source that all events are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneSource {
    /// Which.
    pub source: IpAddr,
    /// How many events.
    pub events: u64,
    /// When the first came, in nanoseconds since the Unix epoch.
    pub first_ns: u64,
    /// When the last came.
    pub last_ns: u64,
}

/// A part of a rule's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// The rule.
    pub rule: String,
    /// The part, as in the policy.
    pub part: String,
    /// Events that the rule selects; not counted further where it is plain.
    pub selected: u64,
    /// Whether one of them had it.
    pub given: bool,
}
