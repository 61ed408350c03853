//! A decision in one header: a proxy takes it from the answer to its question to the
//! request that fetches what the client gets, or that waits. Only limiter reads it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use form_urlencoded::byte_serialize;

use crate::engine::{Bound, Decision, Key, Reason};
use crate::policy::Action;

/// The header.
pub(super) const VERDICT: &str = "x-limiter-verdict";

/// A decision that does not pass, and whose request it is of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) decision: Decision,
    pub(super) source: IpAddr,
}

/// A verdict as fields of a form.
pub(super) fn write(decision: &Decision, source: IpAddr) -> String {
    let action = decision.action.map_or("pass", Action::name);
    let mut text = format!("action={action}&source={source}");
    // Names have nothing in them that a form would escape.
    for (key, name) in [("rule", &decision.rule), ("shown", &decision.shown)] {
        if let Some(name) = name {
            let _ = write!(text, "&{key}={name}");
        }
    }
    if let Some(reason) = decision.reason {
        let _ = write!(text, "&reason={}", reason.name());
    }
    if let (Some(bound), Some(part)) = (&decision.bound, decision.part) {
        let _ = write!(text, "&part={part}&key={:032x}", bound.key);
        if let Some(host) = &bound.host {
            let host: String = byte_serialize(host.as_bytes()).collect();
            let _ = write!(text, "&host={host}");
        }
        if bound.resend {
            text.push_str("&resend=1");
        }
    }
    let numbers = [
        ("limit", decision.limit),
        ("remaining", decision.remaining),
        ("reset", decision.reset_s),
        ("retry", decision.retry_after_s),
        ("delay", Some(decision.delay_ms).filter(|delay| *delay > 0)),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            let _ = write!(text, "&{key}={number}");
        }
    }
    text
}

/// The verdict of a header; `None`: it is none.
pub(super) fn read(text: &str) -> Option<Verdict> {
    let mut decision = Decision::default();
    let mut source = None;
    let (mut bound_to, mut host, mut resend) = (None, None, false);
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        let name = || Some(Arc::from(&*value));
        let number = || value.parse().ok();
        match &*key {
            "action" => {
                let mut actions = Action::ALL.into_iter();
                decision.action = actions.find(|action| action.name() == value);
            }
            "reason" => {
                let mut reasons = Reason::ALL.into_iter();
                decision.reason = reasons.find(|reason| reason.name() == value);
            }
            "source" => source = value.parse().ok(),
            "rule" => decision.rule = name(),
            "shown" => decision.shown = name(),
            "limit" => decision.limit = number(),
            "remaining" => decision.remaining = number(),
            "reset" => decision.reset_s = number(),
            "retry" => decision.retry_after_s = number(),
            "part" => decision.part = value.parse().ok(),
            "key" => bound_to = Key::from_str_radix(&value, 16).ok(),
            "host" => host = name(),
            "resend" => resend = true,
            "delay" => decision.delay_ms = number().unwrap_or(0),
            _ => return None,
        }
    }
    decision.bound = bound_to.map(|key| Bound { key, host, resend });
    let _refused_or_throttled = decision.action?;
    Some(Verdict {
        decision,
        source: source?,
    })
}
