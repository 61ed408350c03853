//! The words of rules, for reading and for describing.

use std::fmt::{self, Display};

use super::rule::{Absent, KeyPart, LimitHeaders, OnSuccess, Shared};
use super::steps::{Action, Algorithm};

pub(super) const ACTIONS: [(&str, Action); 5] = [
    ("throttle", Action::Throttle),
    ("js_challenge", Action::JsChallenge),
    ("captcha", Action::Captcha),
    ("reject", Action::Reject),
    ("block", Action::Block),
];
pub(super) const CHALLENGES: [(&str, Action); 2] = [
    ("js_challenge", Action::JsChallenge),
    ("captcha", Action::Captcha),
];
pub(super) const WINDOWS: [(&str, Algorithm); 3] = [
    ("sliding_log", Algorithm::SlidingLog),
    ("sliding_window", Algorithm::SlidingWindow),
    ("fixed_window", Algorithm::FixedWindow),
];
pub(super) const ABSENT: [(&str, Absent); 2] = [("skip", Absent::Skip), ("share", Absent::Share)];
pub(super) const ON_SUCCESS: [(&str, OnSuccess); 3] = [
    ("keep", OnSuccess::Keep),
    ("reset", OnSuccess::Reset),
    ("halve", OnSuccess::Halve),
];
pub(super) const SHARED: [(&str, Shared); 2] =
    [("challenge", Shared::Challenge), ("block", Shared::Block)];
pub(super) const HEADERS: [(&str, LimitHeaders); 4] = [
    ("x-ratelimit", LimitHeaders::XRatelimit),
    ("x-ratelimit-delta", LimitHeaders::XRatelimitDelta),
    ("ietf", LimitHeaders::Ietf),
    ("none", LimitHeaders::None),
];
/// The fields of an event that a field map may name.
pub(super) const FIELDS: [&str; 14] = [
    "at",
    "id",
    "source",
    "peer",
    "method",
    "host",
    "path",
    "status",
    "account",
    "backend",
    "outcome",
    "headers",
    "response_headers",
    "request",
];

/// The word for a value of one of the tables.
pub(super) fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    let found = words.iter().find(|(_, known)| known == value);
    found.map_or("?", |(word, _)| word)
}

impl Action {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        word_of(&ACTIONS, &self)
    }
}

impl Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_part_text(self))
    }
}

/// A part of a key as it is written.
pub(super) fn key_part_text(part: &KeyPart) -> String {
    match part {
        KeyPart::Source => "source".to_owned(),
        KeyPart::Peer => "peer".to_owned(),
        KeyPart::Account => "account".to_owned(),
        KeyPart::Method => "method".to_owned(),
        KeyPart::Path => "path".to_owned(),
        KeyPart::Host => "host".to_owned(),
        KeyPart::Header(name) => format!("header:{name}"),
        KeyPart::Cookie(name) => format!("cookie:{name}"),
        KeyPart::Query(name) => format!("query:{name}"),
    }
}
