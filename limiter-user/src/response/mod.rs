//! What a client gets: status, headers and body, made of a decision, the rule's
//! `response`, and what the request says it can read. Nothing here reads a clock, a
//! file or a socket.
//!
//! `Access-Control-Allow-Origin` is left to the proxy, which sets it on limiter's
//! answers as on the origin's: who may read them is the application's to say.

mod accept;
mod body;
mod challenge;
mod challenge_words;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER,
};

pub use limits::names as limit_headers;

use crate::challenge::Posed;
use crate::engine::{Decision, OWN_RESPONSE_HEADER, Reason};
use crate::policy::{Action, Body, Challenge, Decide, LimitHeaders, Pages, Response};

/// What a request says of the answer that it can take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Its `Accept`.
    pub accept: Option<&'a str>,
    /// Its `Accept-Language`.
    pub language: Option<&'a str>,
    /// Its `Sec-Fetch-Mode`: what a browser does with the answer.
    pub mode: Option<&'a str>,
    /// The puzzle for it, where it is challenged.
    pub puzzle: Option<&'a Posed>,
    /// The time, in seconds since the Unix epoch.
    pub now_s: u64,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 400 to 499.
    pub status: StatusCode,
    /// All but the length.
    pub headers: HeaderMap,
    /// Whatever `Content-Type` says.
    pub body: String,
}

/// How the rules of a policy answer.
#[derive(Clone, Debug, Default)]
pub struct Responses {
    by_rule: HashMap<String, Response>,
    pages: Pages,
    challenge: Challenge,
}

impl Responses {
    /// Those of a policy.
    #[must_use]
    pub fn of(decide: &Decide) -> Self {
        let rules = decide.rules.iter();
        Self {
            by_rule: rules
                .map(|rule| (rule.name.clone(), rule.response.clone()))
                .collect(),
            pages: decide.pages.clone(),
            challenge: decide.challenge.clone(),
        }
    }

    /// What tells the limit, on any response; `now_s` is seconds since the Unix epoch.
    #[must_use]
    pub fn limits(&self, decision: &Decision, now_s: u64) -> HeaderMap {
        let style = self.rule(decision.shown.as_deref()).headers;
        let mut headers = limits::headers(style, decision, now_s);
        // Scripts of other origins see only what is named to them.
        let mut exposed: Vec<&str> = limits::names(style).to_vec();
        if decision.refuses() && retry_after_s(decision).is_some() {
            exposed.push("Retry-After");
        }
        if !(headers.is_empty() && exposed.is_empty()) {
            set(
                &mut headers,
                ACCESS_CONTROL_EXPOSE_HEADERS,
                &exposed.join(", "),
            );
        }
        headers
    }

    /// The answer to a request that is refused ([`Decision::refuses`]).
    #[must_use]
    pub fn refusal(&self, decision: &Decision, asked: Asked<'_>) -> Reply {
        let action = decision.action.unwrap_or(Action::Reject);
        let response = self.rule(decision.rule.as_deref());
        let status = match action {
            Action::Throttle | Action::Reject if decision.reason.is_none() => response.status,
            _ => 403,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        let told = body::Told {
            action,
            status,
            retry_after_s: retry_after_s(decision),
        };
        let mut headers = self.limits(decision, asked.now_s);
        let (kind, body) = if action.is_challenge() {
            challenge::body(&told, asked, &self.challenge, &mut headers)
        } else {
            body::body(&response.body, &self.pages, &told, asked.accept)
        };
        if let Some(seconds) = told.retry_after_s {
            set(&mut headers, RETRY_AFTER, &seconds.to_string());
        }
        set(&mut headers, CACHE_CONTROL, "no-store");
        if let Some(kind) = kind {
            set(&mut headers, CONTENT_TYPE, kind);
        }
        mark(&mut headers, action);
        Reply {
            status,
            headers,
            body,
        }
    }

    fn rule(&self, name: Option<&str>) -> &Response {
        name.and_then(|name| self.by_rule.get(name))
            .unwrap_or(&USUAL)
    }
}

/// After how many seconds it is worth while to ask again; at a gate never.
fn retry_after_s(decision: &Decision) -> Option<u64> {
    match decision.reason {
        Some(Reason::NotFrom) => None,
        None => Some(decision.retry_after_s.unwrap_or(1).max(1)),
    }
}

/// Of a rule that a policy has no longer.
static USUAL: Response = Response {
    status: 429,
    headers: LimitHeaders::XRatelimit,
    body: Body::ProblemJson,
};

/// Marks a response as limiter's own: it is not the origin's, and no outcome.
pub fn mark(headers: &mut HeaderMap, action: Action) {
    set(
        headers,
        HeaderName::from_static(OWN_RESPONSE_HEADER),
        action.name(),
    );
}

/// Sets a header; a value that is none leaves it out.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        let _old = headers.insert(name, value);
    }
}
