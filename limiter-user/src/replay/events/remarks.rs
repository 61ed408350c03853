//! What is probably wrong with a file, a policy, or the two together.

use super::MOST_SHOWN;
use super::Replay;
use super::format::better;
use super::listing::lasting;
use super::rules::RuleSums;
use super::seen::{Seen, Told};
use super::summary::counted;
use crate::engine::Tally;
use crate::event::formats::Format;
use crate::policy::{Count, Decide, OutcomePattern, RequestPattern, Rule};

/// From so many events on it is remarkable that all are from one source.
const MANY: u64 = 10;

impl Replay<'_> {
    /// In words, what to doubt; `head` is what the file begins with.
    pub(super) fn remarks(&self, format: &Format, head: &[u8]) -> Vec<String> {
        let seen = &self.seen;
        let mut remarks = Vec::new();
        if seen.misread > MOST_SHOWN {
            let more = seen.misread - MOST_SHOWN;
            remarks.push(format!("{} not understood", counted(more, "more line")));
        }
        if seen.events == 0 {
            return remarks;
        }
        if let Some(other) = better(head, format).filter(|_| seen.misread > 0) {
            remarks.push(format!("not all of it is {format}: {other}"));
        }
        remarks.extend(clock(seen));
        if let Some(decide) = &self.policy.decide {
            remarks.extend(one_source(seen, decide));
        }
        for (sums, (_, _, tally)) in self.rules.sums.iter().zip(self.engine.tallies()) {
            remarks.extend(of_rule(sums, &tally, seen, format));
        }
        let dropped = self.engine.dropped_changes();
        if dropped > 0 {
            remarks.push(format!(
                "{dropped} actions ended at once, more than are kept: not all ends are listed"
            ));
        }
        remarks
    }
}

/// Times that cannot be taken as they are.
fn clock(seen: &Seen) -> Vec<String> {
    let mut remarks = Vec::new();
    if seen.timeless == seen.events {
        remarks.push(
            "no event has a time: all are decided at one instant, so no period ever passes".into(),
        );
    } else if seen.timeless > 0 {
        let timeless = seen.timeless;
        remarks.push(format!(
            "{} without a time, decided at the latest before",
            counted(timeless, "event")
        ));
    }
    if let Some(late) = seen.latest {
        let by = lasting(late.by_ns.div_ceil(1_000_000_000));
        let (line, behind) = (late.line, late.behind);
        remarks.push(format!(
            "{} earlier than one before, line {line} by {by} than line {behind}; each is \
             decided at its own time, but for a key time never goes back: sort the file by time, and \
             see whether both times are right",
            counted(seen.late, "event")
        ));
    }
    remarks
}

/// A proxy in the place of its clients.
fn one_source(seen: &Seen, decide: &Decide) -> Option<String> {
    let source = seen.sources.only().filter(|_| seen.events >= MANY)?;
    let is_proxy = decide.trusted_proxies.iter().any(|it| it.contains(source));
    let who = if is_proxy {
        "one of trusted_proxies: the log has the proxy where"
    } else {
        "which is not one of trusted_proxies; if it is a proxy, the log has it where"
    };
    Some(format!(
        "all {} events are from {source}, {who} the client should stand; let the server log the client \
         that the proxy names (nginx: set_real_ip_from)",
        seen.events
    ))
}

/// A rule that has nothing to go by.
fn of_rule(sums: &RuleSums<'_>, tally: &Tally, seen: &Seen, format: &Format) -> Option<String> {
    let rule = sums.rule;
    let name = &rule.name;
    if tally.matched == 0 {
        let why = unselected(rule, seen.told);
        let why = why.map(|field| format!(": no event tells {field}, which it asks for"));
        return Some(format!(
            "rule {name} has not matched{}",
            why.unwrap_or_default()
        ));
    }
    if tally.key_absent == tally.matched {
        let key = sums.key_text();
        return Some(format!(
            "rule {name} has counted nothing: all that it selects ({}) lacks a part of its key, \
             {key}, as far as format {format} tells it; log it too, or say where an account stands \
             (decide.accounts.from)",
            counted(tally.matched, "event")
        ));
    }
    if tally.counted > 0 {
        return None;
    }
    let field = uncounted(rule, seen.told)?;
    Some(format!(
        "rule {name} has counted nothing: no event tells {field}"
    ))
}

/// What a rule asks for when it selects, and no event tells.
fn unselected(rule: &Rule, told: Told) -> Option<&'static str> {
    let asks_method = |it: &RequestPattern| it.method.is_some();
    if !told.host && !rule.hosts.is_empty() {
        Some("a host")
    } else if !told.backend && !rule.backends.is_empty() {
        Some("a backend")
    } else if !told.path && !rule.requests.is_empty() {
        Some("a path")
    } else if !told.method && !rule.requests.is_empty() && rule.requests.iter().all(asks_method) {
        Some("a method")
    } else {
        None
    }
}

/// What a rule asks for when it counts, and no event tells.
fn uncounted(rule: &Rule, told: Told) -> Option<&'static str> {
    let headers = (!told.response_headers).then_some("response headers");
    let status = (!told.status).then_some("a status");
    match &rule.count {
        Count::Requests | Count::Attempts | Count::Distinct(_) => None,
        Count::Statuses(_) => status,
        Count::ResponseHeader(_) | Count::ScoreHeader(_) => headers,
        Count::Failures if told.outcome => None,
        Count::Failures => match &rule.failure {
            None => Some("an outcome, and the rule has no `failure`"),
            Some(OutcomePattern {
                statuses,
                location,
                response_header,
            }) => {
                let asks_headers = location.is_some() || response_header.is_some();
                let status = status.filter(|_| statuses.is_some());
                status.or(headers.filter(|_| asks_headers))
            }
        },
    }
}
