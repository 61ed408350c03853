//! What a person is told of the rules.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::desk::Desk;
use super::message::Question;
use super::rows::WorkerRows;
use crate::control::api::{AccountRows, HTTP, HeldRow, HeldRows, RuleRow, RuleRows, Unblocked};
use crate::engine::{AgainstAccount, Engine, Explained};
use crate::keeper::{timestamp, unix_time};

/// The answer as JSON.
pub(super) fn answer(desk: &Desk, rows: &WorkerRows, question: &Question) -> String {
    match question {
        Question::Ping => "null".to_owned(),
        Question::Rules => json(&RuleRows {
            rules: desk.with(|engine, _| rules(engine)),
        }),
        Question::Origins => json(&rows.origins()),
        Question::Warnings => json(&rows.warnings()),
        Question::Source(source) => json(&HeldRows {
            held: desk.with(|engine, now_ns| of_source(engine, *source, now_ns)),
        }),
        Question::Account(account) => json(&desk.with(|engine, now_ns| {
            let held = engine.account(account, now_ns);
            of_account(engine.normalised(account), &held)
        })),
        Question::Unlock(account) => json(&desk.with(|engine, now_ns| {
            let held = engine.unlock(account, now_ns);
            of_account(engine.normalised(account), &held)
        })),
        Question::Unblock(network) => json(&Unblocked {
            rules: desk.with(|engine, now_ns| unblock(engine, *network, now_ns)),
        }),
    }
}

fn json(value: &impl Serialize) -> String {
    // Nothing here has a key that is no text.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

fn rules(engine: &Engine) -> Vec<RuleRow> {
    engine
        .tallies()
        .map(|(name, mode, tally)| RuleRow {
            name: name.to_string(),
            mode: mode.name().to_owned(),
            tally,
        })
        .collect()
}

fn of_source(engine: &mut Engine, source: IpAddr, now_ns: u64) -> Vec<HeldRow> {
    let held = engine.explain(source, now_ns);
    held.iter().map(held_row).collect()
}

fn held_row(held: &Explained) -> HeldRow {
    let (action, until_ns) = match held.blocked.or(held.action) {
        Some((action, until_ns)) => (Some(action), Some(until_ns)),
        None => (None, None),
    };
    HeldRow {
        rule: held.rule.to_string(),
        source: Some(held.source),
        action: action.map(|action| action.name().to_owned()),
        until: until_ns.map(|until_ns| timestamp(unix_time(until_ns))),
        // The daemon knows where.
        place: held.blocked.map(|_| HTTP.to_owned()),
        counted: None,
        remaining: held.remaining,
        rungs: held.rungs,
        simulated: held.simulated,
    }
}

fn unblock(engine: &mut Engine, network: IpNet, now_ns: u64) -> Vec<String> {
    let rules = engine.unblock(network.addr(), now_ns);
    rules.iter().map(|rule| rule.to_string()).collect()
}

fn of_account(account: String, held: &[AgainstAccount]) -> AccountRows {
    let row = |held: &AgainstAccount| HeldRow {
        rule: held.rule.to_string(),
        source: None,
        action: held.action.map(|(action, _)| action.name().to_owned()),
        until: held
            .action
            .map(|(_, until_ns)| timestamp(unix_time(until_ns))),
        place: None,
        counted: Some(held.counted),
        remaining: Some(held.limit.saturating_sub(held.counted)),
        rungs: held.rungs,
        simulated: held.simulated,
    };
    AccountRows {
        account,
        held: held.iter().map(row).collect(),
    }
}
