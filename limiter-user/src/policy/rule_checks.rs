//! What only shows when `[decide]`, the rules and the edge are seen together:
//! contradictions, and what is legal and probably wrong.

use std::collections::HashSet;

use super::checks::all_networks;
use super::decide::{Api, Decide, Listen};
use super::decision::PlacedDecide;
use super::diagnostic::quote;
use super::gates;
use super::report::Report;
use super::rule::{Count, KeyPart, OnSuccess, Shared};
use super::rules::{PlacedRule, PlacedRules};
use super::schema::suggest;
use super::steps::{Action, Course, Effect, Gauge, Tier, Window};
use super::units::Problem;
use super::words::{ACTIONS, key_part_text, word_of};
use crate::event::formats::Format;

/// Reports rules that contradict themselves or one another.
pub(super) fn errors(rules: &PlacedRules, report: &Report) {
    for placed in &rules.good {
        unknown_cleared(placed, &rules.names, report);
        keys_that_lack(placed, report);
        too_many_values(placed, report);
    }
}

fn unknown_cleared(placed: &PlacedRule, names: &HashSet<String>, report: &Report) {
    for cleared in &placed.clears {
        if cleared.value == placed.rule.name {
            let help = r#"name another; to forget failures after a success, on_success = "reset""#;
            let problem = Problem::new("a rule that clears itself", help);
            report.error(&cleared.place, problem);
        } else if !names.contains(&cleared.value) {
            let mut others: Vec<&str> = names.iter().map(String::as_str).collect();
            others.retain(|name| *name != placed.rule.name);
            others.sort_unstable();
            let message = format!("there is no rule {}", quote(&cleared.value));
            let help = suggest(&cleared.value, others.into_iter(), "");
            report.error(&cleared.place, Problem::new(message, help));
        }
    }
}

fn keys_that_lack(placed: &PlacedRule, report: &Report) {
    let rule = &placed.rule;
    if let Count::Distinct(part) = &rule.count
        && rule.key.contains(part)
    {
        let message = format!(
            "distinct {} for each of it: always one",
            quote(&key_part_text(part))
        );
        let help = "take it out of `key`";
        report.error(&placed.count, Problem::new(message, help));
    }
    for (index, effect) in effects(&rule.course).enumerate() {
        let Some(places) = placed.course.get(index) else {
            continue;
        };
        if effect.action == Action::Block && !rule.key.contains(&KeyPart::Source) {
            let help = "add source to `key`, or use \"reject\"";
            let message = "a block where the key has no source: what one client did would not tell whom to block";
            report.error(&places.action, Problem::new(message, help));
        }
        if effect.notify_owner && !rule.key.contains(&KeyPart::Account) {
            let help = "add account to `key`, or remove it";
            let message = "no owner to notify: the key has no account";
            report.error(&places.notify, Problem::new(message, help));
        }
    }
}

/// Values told apart at most: all of them are looked through for each event.
const MAX_DISTINCT: u64 = 1_000;

fn too_many_values(placed: &PlacedRule, report: &Report) {
    let Count::Distinct(_) = placed.rule.count else {
        return;
    };
    let most = match &placed.rule.course {
        Course::Tiers(tiers) => tiers.iter().filter_map(|tier| limit(&tier.gauge)).max(),
        Course::Ladder(ladder) => ladder.rungs.iter().map(|rung| rung.window.limit).max(),
        Course::Boruta(_) => None,
    };
    if let Some(most) = most.filter(|most| *most > MAX_DISTINCT) {
        let message = format!("a limit of {most} is too much to tell values apart");
        let help = "allowed: up to 1000";
        report.error(&placed.count, Problem::new(message, help));
    }
}

fn limit(gauge: &Gauge) -> Option<u64> {
    match gauge {
        Gauge::Window(window) => Some(window.limit),
        Gauge::TokenBucket(_) => None,
    }
}

/// Reports blocks that are confined to a limit that does not exist.
pub(super) fn limits(rules: &[PlacedRule], limits: &[&str], report: &Report) {
    for placed in rules {
        let Some(name) = &placed.rule.block_limit else {
            continue;
        };
        if !limits.contains(&name.as_str()) {
            let message = format!("there is no limit {}", quote(name));
            let help = match limits {
                [] => "the policy has no [[edge.limit]]".to_owned(),
                _ => suggest(name, limits.iter().copied(), ""),
            };
            report.error(&placed.block_limit, Problem::new(message, help));
        }
    }
}

/// What a rule's tiers or rungs do.
fn effects(course: &Course) -> Box<dyn Iterator<Item = &Effect> + '_> {
    match course {
        Course::Tiers(tiers) => Box::new(tiers.iter().map(|tier| &tier.effect)),
        Course::Ladder(ladder) => Box::new(ladder.rungs.iter().map(|rung| &rung.effect)),
        Course::Boruta(_) => Box::new(std::iter::empty()),
    }
}

/// Reports what is legal and probably wrong where the file has no rules at all.
pub(super) fn without_rules(decide: &PlacedDecide, report: &Report) {
    let help = "add [[rule]]; until then every request passes";
    report.warn(
        &decide.place,
        "nothing is decided: there are no rules",
        help,
    );
    section(decide, report);
}

/// Reports what is legal and probably wrong.
pub(super) fn warnings(decide: &PlacedDecide, rules: &[PlacedRule], report: &Report) {
    section(decide, report);
    for placed in rules {
        outcomes(placed, decide, report);
        without_effect(placed, report);
        dominated(placed, report);
        gates::warnings(placed, &decide.decide, report);
    }
    if decide.decide.challenge.captcha.is_none() {
        without_provider(rules, report);
    }
}

/// Reports the first tier that asks for a CAPTCHA where nobody poses one.
fn without_provider(rules: &[PlacedRule], report: &Report) {
    let asks = |effect: &Effect| Action::Captcha == effect.then.unwrap_or(effect.action);
    let found = rules.iter().find_map(|placed| {
        let at = effects(&placed.rule.course).position(asks)?;
        Some((&placed.rule.name, placed.course.get(at)?))
    });
    if let Some((rule, places)) = found {
        let message = format!(
            "rule {} asks for a CAPTCHA, and nobody poses one: it gets a puzzle eight times as hard as \
             that of js_challenge, which a program solves too",
            quote(rule)
        );
        let help =
            "name a provider in decide.challenge.captcha, or use \"js_challenge\" or \"reject\"";
        report.warn(&places.action, message, help);
    }
}

/// Reports, once, that what is to be told has nobody to tell.
pub(super) fn nobody_told(rules: &[PlacedRule], report: &Report) {
    let mut told = rules.iter().flat_map(|placed| {
        let places = placed.course.iter();
        let steps = effects(&placed.rule.course).zip(places);
        steps.filter(|(effect, _)| effect.notify_owner)
    });
    if let Some((_, places)) = told.next() {
        let help = "add [notify] with a webhook or smtp, or remove it";
        let message = "nobody is notified: the policy has no [notify]";
        report.warn(&places.notify, message, help);
    }
}

fn section(placed: &PlacedDecide, report: &Report) {
    let decide = &placed.decide;
    let asked = [
        (Some(&decide.listen), Some(&placed.listen)),
        (decide.spoe.as_ref(), placed.spoe.as_ref()),
    ];
    for (listen, place) in asked {
        if let (Some(Listen::Tcp(address)), Some(place)) = (listen, place)
            && !address.ip().is_loopback()
        {
            let message = "whoever takes a trusted proxy's address can ask here, and be counted \
                           as whom it likes";
            let help = "listen on loopback, or let a firewall guard it";
            report.warn(place, message, help);
        }
    }
    if let (Api::Tcp { listen, .. }, Some(place)) = (&decide.api, &placed.api)
        && !listen.ip().is_loopback()
    {
        let message = "the token crosses the network in the clear";
        report.warn(
            place,
            message,
            "listen on loopback, behind a proxy that speaks TLS",
        );
    }
    if let Some(place) = &placed.client_header
        && decide.trusted_proxies.is_empty()
    {
        let message = "`client_header` is not believed: no proxy is trusted";
        report.warn(place, message, r#"add trusted_proxies = ["127.0.0.0/8"]"#);
    }
    for everything in all_networks() {
        if decide.trusted_proxies.contains(&everything) {
            let message = format!("trusting {everything} lets every client say who it is");
            report.warn(&placed.trusted_proxies, message, "name your proxies");
        }
        if decide.exempt.contains(&everything) {
            let message = format!("exempt {everything}: no rule with a source applies to anybody");
            report.warn(&placed.exempt, message, "name the networks that you trust");
        }
    }
}

/// Whether anything but a rule's own patterns can say what became of a login.
fn tells_outcomes(placed: &PlacedDecide) -> bool {
    let Decide { feedback, logs, .. } = &placed.decide;
    let feedback = feedback.iter().map(|it| (&it.format, &it.fields));
    let logs = logs.iter().map(|it| (&it.format, &it.fields));
    placed.api.is_some()
        || feedback.chain(logs).any(|(format, fields)| match format {
            Format::Json | Format::KratosJson => true,
            Format::Fields(_) => fields.contains_key("outcome"),
            _ => false,
        })
}

fn outcomes(placed: &PlacedRule, decide: &PlacedDecide, report: &Report) {
    let rule = &placed.rule;
    let name = quote(&rule.name);
    if rule.count == Count::Failures && rule.failure.is_none() && !tells_outcomes(decide) {
        let message = format!("rule {name} counts failures, and nothing says what failed");
        let help = "add `failure`, or let the application say so: decide.api, feedback or logs";
        report.warn(&placed.count, message, help);
    }
    // Whether a source is shared is learnt from successes.
    let spares = rule.shared == Shared::Challenge
        && effects(&rule.course).any(|effect| effect.action == Action::Block);
    let needs_success = rule.on_success != OnSuccess::Keep || spares;
    if rule.count != Count::Failures
        && let Some(place) = &placed.failure
    {
        let message = format!("`failure` has no effect: rule {name} does not count failures");
        report.warn(place, message, r#"write count = "failures", or remove it"#);
    }
    if rule.count != Count::Failures
        && !needs_success
        && let Some(place) = &placed.success
    {
        let message = format!("`success` has no effect: rule {name} does nothing on success");
        report.warn(place, message, "set `on_success`, or remove it");
    }
}

fn without_effect(placed: &PlacedRule, report: &Report) {
    let rule = &placed.rule;
    let has = |part| rule.key.contains(part);
    if let Some(place) = &placed.prefix
        && !has(&KeyPart::Source)
        && !has(&KeyPart::Peer)
    {
        let message = "a prefix has no effect: the key has neither source nor peer";
        report.warn(place, message, "remove it");
    }
    let counts_later = matches!(
        rule.count,
        Count::Failures | Count::Attempts | Count::Statuses(_)
    );
    if let Some(reserve) = placed.reserve.as_ref().filter(|it| it.value)
        && !counts_later
    {
        let message = "`reserve` has no effect: what counts is known at once, or never awaited";
        report.warn(&reserve.place, message, "remove it");
    }
    if !rule.apply.is_empty() && rule.requests.is_empty() {
        let message = "`apply` has no effect: the rule selects every request";
        report.warn(&placed.apply, message, "name `requests`, or remove it");
    }
    if rule.block_limit.is_some() && !effects(&rule.course).any(|it| it.action == Action::Block) {
        let message = format!(
            "`block_limit` has no effect: rule {} never blocks",
            quote(&rule.name)
        );
        report.warn(&placed.block_limit, message, "remove it");
    }
    if rule.jitter_percent > 0 && !lasts(&rule.course) {
        let message = "`jitter` has no effect: no action has a duration";
        report.warn(&placed.jitter, message, "add `for`, or remove it");
    }
    for everything in all_networks() {
        if rule.except.contains(&everything) {
            let message = format!(
                "rule {} applies to nobody of {everything}",
                quote(&rule.name)
            );
            report.warn(&placed.except, message, "name the networks that you trust");
        }
    }
}

fn lasts(course: &Course) -> bool {
    match course {
        Course::Tiers(tiers) => tiers.iter().any(|tier| tier.lasting.is_some()),
        Course::Ladder(_) => true,
        Course::Boruta(_) => false,
    }
}

/// A tier that another of the same period outdoes at every count adds nothing.
fn dominated(placed: &PlacedRule, report: &Report) {
    let Course::Tiers(tiers) = &placed.rule.course else {
        return;
    };
    for (index, tier) in tiers.iter().enumerate() {
        let others = tiers
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let better = others
            .filter(|(other, it)| outdoes(it, tier) && (*other < index || !outdoes(tier, it)))
            .map(|(_, it)| it)
            .next();
        if let (Some(better), Some(places)) = (better, placed.course.get(index)) {
            let action = word_of(&ACTIONS, &better.effect.action);
            let limit = window(better).map_or(0, Window::threshold);
            let message = format!(
                "this tier never adds anything: {} at {limit} in the same period is as strong",
                quote(action)
            );
            let help = "give it a lower limit, a stronger action or a longer `for`, or remove it";
            report.warn(&places.whole, message, help);
        }
    }
}

fn window(tier: &Tier) -> Option<&Window> {
    match &tier.gauge {
        Gauge::Window(window) => Some(window),
        Gauge::TokenBucket(_) => None,
    }
}

/// Whether whenever `tier` acts, `other` acts already, as strongly and as long.
fn outdoes(other: &Tier, tier: &Tier) -> bool {
    let (Some(theirs), Some(own)) = (window(other), window(tier)) else {
        return false;
    };
    let is_as_long = match (other.lasting, tier.lasting) {
        (None, None) => true,
        (Some(theirs), None) => theirs >= own.period,
        (Some(theirs), Some(own)) => theirs >= own,
        (None, Some(_)) => false,
    };
    theirs.period == own.period
        && theirs.threshold() <= own.threshold()
        && other.effect.action >= tier.effect.action
        && is_as_long
        && !other.effect.simulate
        && !tier.effect.simulate
        && (other.effect.notify_owner || !tier.effect.notify_owner)
}
