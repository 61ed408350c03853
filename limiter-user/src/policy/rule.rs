//! `[[rule]]`: which events count, by which key, how many in which period, and
//! the action. The validated model; what each key means stands in
//! `docs/rules.md`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use super::limit::merge;
use super::pattern::Pattern;
use super::steps::Course;

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// 1 to 63 of `A-Z a-z 0-9 _ . -`, unique among the rules.
    pub name: String,
    /// Which requests it selects; empty: all.
    pub requests: Vec<RequestPattern>,
    /// Which hosts, in lower case; empty: all.
    pub hosts: Vec<Pattern>,
    /// Which authentication backends; empty: all, and events that name none.
    pub backends: Vec<String>,
    /// A gate: requests that it selects are refused to sources outside. `Some` is never empty.
    pub from: Option<Vec<IpNet>>,
    /// What counts.
    pub count: Count,
    /// What a failed attempt looks like where the application does not say.
    pub failure: Option<OutcomePattern>,
    /// What a successful one looks like.
    pub success: Option<OutcomePattern>,
    /// The parts of the key, in order, each once; empty: one counter for all.
    pub key: Vec<KeyPart>,
    /// What becomes of events that lack a part of the key.
    pub absent: Absent,
    /// Bits of an IPv4 address that make a source, 8 to 32; `None`: as at the edge.
    pub ipv4_prefix: Option<u8>,
    /// Bits of an IPv6 address that make a source, 16 to 64; `None`: as at the edge.
    pub ipv6_prefix: Option<u8>,
    /// Sources that it does not apply to, besides `decide.exempt`.
    pub except: Vec<IpNet>,
    /// When it acts, and how.
    pub course: Course,
    /// By how many percent at most a duration is lengthened at random, 0 to 100.
    pub jitter_percent: u8,
    /// What a success does to the counts of its key.
    pub on_success: OnSuccess,
    /// Whether an attempt that was let through counts as failed until its outcome
    /// is known or 30 s have passed.
    pub reserve: bool,
    /// Whether requests that were refused count too.
    pub count_refused: bool,
    /// Which requests the action applies to besides those selected.
    pub apply: Vec<RequestPattern>,
    /// Whether everything is counted and nothing done.
    pub simulate: bool,
    /// What becomes of a source that others have long been logging in from.
    pub shared: Shared,
    /// The edge limit that its blocks are confined to.
    pub block_limit: Option<String>,
    /// The rules whose counts for the same key its counted event clears.
    pub clears: Vec<String>,
    /// Keys tracked at most, 1 to 16,777,216.
    pub tracked: u32,
    /// Keys with an active action at most, 1 to 16,777,216.
    pub blocked: u32,
    /// Tracked keys that one source may bring at most, 1 to `tracked`.
    pub keys_per_source: u32,
    /// What a refusal looks like.
    pub response: Response,
}

impl Rule {
    /// Whether it selects a request by method and path (normalised), as the
    /// event tells them. `None` fits only where the rule does not ask.
    #[must_use]
    pub fn selects(&self, method: Option<&str>, path: Option<&str>) -> bool {
        any_request(&self.requests, method, path)
    }

    /// Whether its action applies to a request: one that it selects, or one that
    /// `apply` adds.
    #[must_use]
    pub fn applies(&self, method: Option<&str>, path: Option<&str>) -> bool {
        self.selects(method, path)
            || (!self.apply.is_empty() && any_request(&self.apply, method, path))
    }

    /// Whether it selects a host, in lower case and without port.
    #[must_use]
    pub fn selects_host(&self, host: Option<&str>) -> bool {
        let fits = |host: &str| self.hosts.iter().any(|pattern| pattern.matches(host));
        self.hosts.is_empty() || host.is_some_and(fits)
    }

    /// Whether its gate lets a source in.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        let holds = |networks: &Vec<IpNet>| networks.iter().any(|it| it.contains(&source));
        self.from.as_ref().is_none_or(holds)
    }

    /// Whether it has a gate and nothing else to do: it counts nothing.
    #[must_use]
    pub fn is_gate_alone(&self) -> bool {
        let never_acts = matches!(&self.course, Course::Tiers(tiers) if tiers.is_empty());
        self.from.is_some() && never_acts && self.clears.is_empty()
    }

    /// Whether it selects an authentication backend.
    #[must_use]
    pub fn selects_backend(&self, backend: Option<&str>) -> bool {
        let is_named = |backend: &str| self.backends.iter().any(|it| it == backend);
        self.backends.is_empty() || backend.is_some_and(is_named)
    }
}

fn any_request(patterns: &[RequestPattern], method: Option<&str>, path: Option<&str>) -> bool {
    patterns.is_empty() || patterns.iter().any(|it| it.matches(method, path))
}

/// A method, or any, and a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestPattern {
    /// In capitals; `None`: any.
    pub method: Option<String>,
    /// Compared with normalised paths ([`crate::event::path::normalise`]).
    pub path: Pattern,
}

impl RequestPattern {
    /// Whether a request fits; GET includes HEAD. What the event does not tell
    /// fits only what is not asked: no method, the path `*`.
    #[must_use]
    pub fn matches(&self, method: Option<&str>, path: Option<&str>) -> bool {
        let method_fits = match (self.method.as_deref(), method) {
            (None, _) => true,
            (Some("GET"), Some("HEAD")) => true,
            (wanted, method) => wanted == method,
        };
        let path_fits = || match path {
            Some(path) => self.path.matches(path),
            None => self.path.as_str() == "*",
        };
        method_fits && path_fits()
    }
}

/// `rule.count`: what counts, one each unless said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Requests, when they are asked about.
    Requests,
    /// Responses with one of these statuses, when they are reported.
    Statuses(Statuses),
    /// Responses with a header.
    ResponseHeader(HeaderPattern),
    /// Attempts that failed.
    Failures,
    /// Attempts, when they are asked about, whatever comes of them.
    Attempts,
    /// As much as a response header says, 1 to 1,000,000; its name in lower case.
    ScoreHeader(String),
    /// Different values of a part, which is none of the key.
    Distinct(KeyPart),
}

/// Statuses, in ranges that are sorted and do not touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Those in any of the ranges.
    #[must_use]
    pub fn new(mut ranges: Vec<RangeInclusive<u16>>) -> Self {
        ranges.sort_by_key(|range| *range.start());
        Self(merge(ranges))
    }

    /// Whether a status is one of them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }
}

/// A response header that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeaderPattern {
    /// In lower case; names are compared without case.
    pub name: String,
    /// Trimmed; `None`: any value.
    pub value: Option<String>,
    /// Whether the value is compared without case.
    pub ignore_case: bool,
}

impl HeaderPattern {
    /// Whether a header fits.
    #[must_use]
    pub fn matches(&self, name: &str, value: &str) -> bool {
        let value_fits = |wanted: &str| match self.ignore_case {
            true => wanted.to_lowercase() == value.trim().to_lowercase(),
            false => wanted == value.trim(),
        };
        self.name.eq_ignore_ascii_case(name) && self.value.as_deref().is_none_or(value_fits)
    }
}

/// What an outcome looks like: all that is given must fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutcomePattern {
    /// The status.
    pub statuses: Option<Statuses>,
    /// The response header `Location`, trimmed.
    pub location: Option<Pattern>,
    /// Another response header.
    pub response_header: Option<HeaderPattern>,
}

impl OutcomePattern {
    /// Whether a response fits. What is asked for and not told does not.
    #[must_use]
    pub fn matches(&self, status: Option<u16>, headers: &[(Box<str>, Box<str>)]) -> bool {
        let status_fits = |wanted: &Statuses| status.is_some_and(|it| wanted.contains(it));
        let any = |fits: &dyn Fn(&str, &str) -> bool| {
            headers.iter().any(|(name, value)| fits(name, value))
        };
        let location_fits = |wanted: &Pattern| {
            any(&|name, value| {
                name.eq_ignore_ascii_case("location") && wanted.matches(value.trim())
            })
        };
        let header_fits = |wanted: &HeaderPattern| any(&|name, value| wanted.matches(name, value));
        self.statuses.as_ref().is_none_or(status_fits)
            && self.location.as_ref().is_none_or(location_fits)
            && self.response_header.as_ref().is_none_or(header_fits)
    }
}

/// A part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPart {
    /// The client, masked to a prefix.
    Source,
    /// The TCP peer, masked likewise.
    Peer,
    /// Whose login it is.
    Account,
    /// The method.
    Method,
    /// The normalised path.
    Path,
    /// The host.
    Host,
    /// A request header, by its name in lower case.
    Header(String),
    /// A cookie, by its name.
    Cookie(String),
    /// A parameter of the query, by its name.
    Query(String),
}

/// `rule.absent`: what becomes of events that lack a part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// They are not counted by this rule, but as `key_absent`.
    Skip,
    /// They share one value.
    Share,
}

/// `rule.on_success`: what a success does to the counts of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSuccess {
    /// Nothing.
    Keep,
    /// They start again from zero.
    Reset,
    /// They are halved, rounded down.
    Halve,
}

/// `rule.shared`: what becomes of a source on which other accounts have been
/// logging in for more than a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// It is challenged in place of a block.
    Challenge,
    /// It is blocked as any other.
    Block,
}

/// `rule.response`: what a refusal looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Response {
    /// 400 to 499.
    pub status: u16,
    /// Which headers tell the limit.
    pub headers: LimitHeaders,
    /// The body.
    pub body: Body,
}

/// `rule.response.headers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitHeaders {
    /// `X-RateLimit-*`, the reset as Unix time.
    XRatelimit,
    /// `X-RateLimit-*`, the reset in seconds from now.
    XRatelimitDelta,
    /// `RateLimit` and `RateLimit-Policy`, as the IETF's draft has them.
    Ietf,
    /// None.
    None,
}

/// `rule.response.body`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// The error object of Ory's products.
    OryJson,
    /// RFC 9457.
    ProblemJson,
    /// A page for people.
    Html,
    /// None.
    Empty,
    /// What is in this file; absolute.
    File(PathBuf),
}
