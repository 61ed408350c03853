//! What `status` says of requests: what the rules do, and what they are told.

use std::cmp::Reverse;

use super::Failure;
use super::output::Output;
use super::rules::lag;
use super::words::{count, counted};
use crate::control::api::{Requests, RuleRow, Status};
use crate::engine::Tally;
use crate::policy::Action;

/// Rules that are shown at most; `limiter rule list` shows all.
const RULES: usize = 20;

/// What is said of challenges first.
const CHALLENGES: [&str; 3] = ["posed", "solved", "cleared"];

/// The lines of a status.
pub(super) fn lines(requests: &Requests) -> Vec<(&'static str, String)> {
    let mut lines = vec![("requests", asked(requests)), ("events", events(requests))];
    let challenges = challenges(requests);
    if !challenges.is_empty() {
        lines.push(("challenges", challenges));
    }
    let troubles = troubles(requests).into_iter();
    lines.extend(troubles.map(|trouble| ("warning", trouble)));
    lines
}

fn asked(requests: &Requests) -> String {
    let mut totals = [0; Action::ALL.len()];
    for row in &requests.rules {
        for (total, decided) in totals.iter_mut().zip(row.tally.by_action) {
            *total += decided;
        }
    }
    let done = by_action(totals.map(|total| (total > 0).then(|| count(total))));
    let Some(decisions) = &requests.decisions else {
        let words = "nobody can ask: the policy has no decide.listen, decide.spoe or decide.api";
        return words.to_owned();
    };
    let mut words = format!("{} asked", count(decisions.count));
    words.push_str(": ");
    words.push_str(match done.is_empty() {
        true => "none refused",
        false => &done,
    });
    if let Some(us) = decisions.nearly_all_within_us() {
        words.push_str(&format!("; 99 % decided within {}", millis(us)));
    }
    words
}

fn events(requests: &Requests) -> String {
    let sum = |pick: fn(&crate::adapters::origin::Row) -> u64| -> u64 {
        requests.origins.iter().map(pick).sum()
    };
    let mut words = format!("{} understood", count(sum(|row| row.understood)));
    for (number, what) in [
        (sum(|row| row.not_understood), "not understood"),
        (sum(|row| row.dropped), "dropped"),
        (sum(|row| row.forged), "of strangers"),
    ] {
        if number > 0 {
            words.push_str(&format!(", {} {what}", count(number)));
        }
    }
    if let Some(lag_ns) = most_lag_ns(requests) {
        let lag = lag(lag_ns);
        words.push_str(&format!("; in the last minute {lag} behind at most"));
    }
    words
}

/// How late events were heard within the last minute, at most.
pub(super) fn most_lag_ns(requests: &Requests) -> Option<u64> {
    let rows = requests.origins.iter();
    rows.filter_map(|row| row.most_lag_ns).max()
}

fn challenges(requests: &Requests) -> String {
    let counts = &requests.challenges;
    let first = CHALLENGES.into_iter();
    let first = first.filter_map(|name| counts.get_key_value(name));
    let is_first = |name: &str| CHALLENGES.contains(&name);
    let rest = counts.iter().filter(|(name, _)| !is_first(name));
    let all = first.chain(rest).filter(|(_, number)| **number > 0);
    let all: Vec<String> = all
        .map(|(name, number)| format!("{} {name}", count(*number)))
        .collect();
    all.join(", ")
}

/// What keeps origins from being read.
pub(super) fn troubles(requests: &Requests) -> Vec<String> {
    let rows = requests.origins.iter();
    rows.filter_map(|row| Some(format!("{}: {}", row.name, row.trouble.as_ref()?)))
        .collect()
}

/// `0.25 ms`
pub(super) fn millis(us: u64) -> String {
    format!("{} ms", us as f64 / 1e3)
}

/// `reject 12, captcha 3`: what was done, the strongest first; actions without a number are
/// left out.
pub(super) fn by_action(numbers: [Option<String>; Action::ALL.len()]) -> String {
    let named = Action::ALL.into_iter().zip(numbers).rev();
    let named: Vec<String> = named
        .filter_map(|(action, number)| Some(format!("{} {}", action.name(), number?)))
        .collect();
    named.join(", ")
}

/// The rules that do most, in a table.
pub(super) fn table(requests: &Requests, output: &mut Output) -> Result<(), Failure> {
    let mut rules: Vec<&RuleRow> = requests.rules.iter().collect();
    rules.sort_by_key(|row| Reverse(weight(&row.tally)));
    let rows: Vec<[String; 8]> = rules
        .iter()
        .take(RULES)
        .map(|row| {
            let tally = &row.tally;
            let done = tally.by_action.map(|done| (done > 0).then(|| count(done)));
            let done = by_action(done);
            [
                row.name.clone(),
                row.mode.clone(),
                count(tally.matched),
                count(tally.counted),
                count(tally.over),
                count(tally.active),
                count(tally.blocked),
                if done.is_empty() {
                    "-".to_owned()
                } else {
                    done
                },
            ]
        })
        .collect();
    let headings = [
        "RULE", "MODE", "EVENTS", "COUNTED", "OVER", "ACTIVE", "BLOCKED", "DECIDED",
    ];
    let right = [false, false, true, true, true, true, true, false];
    output.table(headings, right, &rows)?;
    let rest = rules.len().saturating_sub(RULES);
    if rest > 0 {
        let rest = counted(rest, "more rule");
        output.line(&format!("and {rest} (`limiter rule list`)"))?;
    }
    Ok(output.line("")?)
}

/// What matters most of a rule comes first: what it does now, what it has done, what it would
/// have.
fn weight(tally: &Tally) -> [u64; 5] {
    [
        tally.active.max(tally.blocked),
        tally.by_action.iter().sum(),
        tally.over,
        tally.counted,
        tally.matched,
    ]
}

/// What is wrong with the process that hears events; nobody minds where there are no rules.
pub(super) fn unheard(status: &Status) -> Option<&'static str> {
    let is_missed = !status.rules.is_empty() && status.requests.is_none();
    is_missed.then_some("events are not heard just now: packets are judged, requests are not")
}
