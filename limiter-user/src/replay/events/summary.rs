//! The sums of a file and of each rule, for people.

use super::Replay;
use super::listing::{lasting, moment};
use super::rules::RuleSums;
use crate::engine::Tally;
use crate::event::formats::Format;
use crate::keeper::shown;
use crate::policy::Action;
use std::fmt::Write as _;
use std::net::IpAddr;

const SECOND_NS: u64 = 1_000_000_000;

/// Sources and accounts that are named.
const NAMED: usize = 5;

const ACTIONS: [Action; 5] = [
    Action::Throttle,
    Action::JsChallenge,
    Action::Captcha,
    Action::Reject,
    Action::Block,
];

impl Replay<'_> {
    /// Adds the summary to a text.
    pub(super) fn summary(&self, format: &Format, text: &mut String) {
        let seen = &self.seen;
        let span = seen.span_ns.map(|(first, last)| {
            let lasting = lasting((last - first) / SECOND_NS);
            format!(", {} to {} ({lasting})", moment(first), moment(last))
        });
        let span = span.unwrap_or_default();
        let mut lines = vec![format!(
            "{} of format {format}{span}",
            counted(seen.events, "event")
        )];
        for (count, what, which) in [
            (seen.misread, "line", "not understood"),
            (seen.other, "line", "of no request"),
            (seen.exempt, "event", "from exempt sources"),
        ] {
            if count > 0 {
                lines.push(format!("{} {which}", counted(count, what)));
            }
        }
        if let Some(busiest) = seen.sources.in_words(NAMED, IpAddr::to_string) {
            lines.push(format!("busiest: {busiest}"));
        }
        let enforce = self.policy.decide.as_ref().is_none_or(|it| it.enforce);
        for (sums, (_, _, tally)) in self.rules.sums.iter().zip(self.engine.tallies()) {
            let simulated = if enforce && !sums.rule.simulate {
                ""
            } else {
                " (simulated)"
            };
            lines.push(format!("rule {}{simulated}", sums.rule.name));
            let of_rule = rule(sums, &tally).into_iter();
            lines.extend(of_rule.map(|line| format!("    {line}")));
        }
        for line in lines {
            // Writing to a string does not fail.
            let _written = writeln!(text, "{line}");
        }
    }
}

fn rule(sums: &RuleSums<'_>, tally: &Tally) -> Vec<String> {
    if tally.matched == 0 && tally.over == 0 {
        return vec!["matched nothing".to_owned()];
    }
    let mut first = vec![
        format!("{} matched", tally.matched),
        format!("{} counted", tally.counted),
        format!("{} over", tally.over),
    ];
    if tally.not_from > 0 {
        first.push(format!("{} from outside", tally.not_from));
    }
    if tally.key_absent > 0 {
        first.push(format!("{} without its key", tally.key_absent));
    }
    let mut lines = vec![first.join(", ")];
    lines.extend(requests(sums, tally));
    lines.extend(actions(sums, tally));
    lines.push(keys(tally));
    for (what, busiest) in [
        ("sources", sums.sources.in_words(NAMED, |it| shown(*it))),
        (
            "accounts",
            sums.accounts.in_words(NAMED, |it| it.to_string()),
        ),
    ] {
        lines.extend(busiest.map(|busiest| format!("{what}: {busiest}")));
    }
    lines
}

/// A number of things.
pub(super) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// What was done to requests, by action, the strongest last.
fn requests(sums: &RuleSums<'_>, tally: &Tally) -> Option<String> {
    let mut would = sums.would;
    // Delays are decisions and no changes; what was not done, would have been.
    let throttled = Action::Throttle as usize;
    would[throttled] = tally.by_action[throttled].saturating_sub(sums.done[throttled]);
    let done = ACTIONS.iter().zip(sums.done);
    let done = done.map(|(action, count)| (count, format!("{count} {}", action.name())));
    let would = ACTIONS.iter().zip(would);
    let would = would.map(|(action, count)| (count, format!("{count} would {}", action.name())));
    let all = done.chain(would).filter(|(count, _)| *count > 0);
    let all: Vec<String> = all.map(|(_, words)| words).collect();
    (!all.is_empty()).then(|| format!("requests: {}", all.join(", ")))
}

/// What began, and what has not ended.
fn actions(sums: &RuleSums<'_>, tally: &Tally) -> Option<String> {
    let mut parts = Vec::new();
    for (count, what, which) in [
        (sums.begun, "", "begun"),
        (sums.at_nic, "block", "at the NIC"),
        (sums.by_answer, "block", "as a 403"),
        (sums.full, "", "found no room"),
        (tally.active, "key", "under one at the end"),
        (tally.blocked, "source", "blocked at the end"),
    ] {
        if count > 0 {
            parts.push(match what {
                "" => format!("{count} {which}"),
                what => format!("{} {which}", counted(count, what)),
            });
        }
    }
    (!parts.is_empty()).then(|| format!("actions: {}", parts.join(", ")))
}

fn keys(tally: &Tally) -> String {
    let mut parts = vec![format!("{} tracked at the end", tally.tracked)];
    if tally.evicted > 0 {
        let under_count = tally.evicted_under_count;
        parts.push(format!(
            "{} evicted, {under_count} of them under count",
            tally.evicted
        ));
    }
    if tally.untracked > 0 {
        parts.push(format!("{} found no room", tally.untracked));
    }
    format!("keys: {}", parts.join(", "))
}
