//! What is legal and probably wrong about the gates of rules (`rule.from`).

use ipnet::IpNet;

use super::checks::{all_networks, covers};
use super::decide::Decide;
use super::diagnostic::quote;
use super::report::Report;
use super::rule::{Count, KeyPart, Rule};
use super::rules::PlacedRule;

pub(super) fn warnings(placed: &PlacedRule, decide: &Decide, report: &Report) {
    let rule = &placed.rule;
    let Some(from) = &rule.from else {
        return;
    };
    let name = quote(&rule.name);
    if rule.requests.is_empty() && rule.hosts.is_empty() && rule.backends.is_empty() {
        let message =
            format!("rule {name} selects every request: nobody outside `from` gets anything");
        report.warn(&placed.from, message, "name `requests` or `hosts`");
    }
    for everything in all_networks() {
        if from.contains(&everything) {
            let message = format!("the gate of rule {name} lets in all of {everything}");
            report.warn(&placed.from, message, "name the networks that may ask");
        }
    }
    let is_outside = |network: &&IpNet| !from.iter().any(|it| overlap(it, network));
    if let Some(network) = rule.except.iter().find(is_outside) {
        let message = format!("`except` does not open the gate of rule {name} to {network}");
        report.warn(&placed.except, message, "add it to `from`, or remove it");
    }
    if rule.is_gate_alone() {
        if rule.count != Count::Requests {
            let message = format!("`count` has no effect: rule {name} has a gate and no limit");
            let help = "add limit, period and action, or remove it";
            report.warn(&placed.count, message, help);
        }
    } else if covers(&free(rule, decide), from) {
        let message = format!("rule {name} counts nobody: all that its gate lets in are exempt");
        let help = "take them out of decide.exempt and `except`, or leave the rule its gate alone";
        report.warn(&placed.from, message, help);
    }
}

/// Whom a rule does not count.
fn free(rule: &Rule, decide: &Decide) -> Vec<IpNet> {
    let has = |part| rule.key.contains(part);
    let by_source = has(&KeyPart::Source) || has(&KeyPart::Peer);
    let exempt = decide.exempt.iter().filter(|_| by_source);
    let all: Vec<IpNet> = exempt.chain(&rule.except).copied().collect();
    IpNet::aggregate(&all)
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
