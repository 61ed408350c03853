//! What a person is told of the rules.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::desk::Desk;
use super::message::Question;
use super::rows::WorkerRows;
use crate::control::api::{
    AccountRows, HTTP, HeldRow, HeldRows, Requests, RuleRow, RuleRows, Standing, Unblocked,
};
use crate::engine::{AgainstAccount, Engine, Explained, Idle, Reason};
use crate::keeper::{timestamp, unix_time};
use crate::policy::Action;

/// Why a rule does nothing.
const OFF: &str = "switched off by hand";
const EXEMPT: &str = "the source is exempt";

/// The answer as JSON.
pub(super) fn answer(desk: &Desk, rows: &WorkerRows, question: &Question) -> String {
    match question {
        Question::Ping => "null".to_owned(),
        Question::Rules => json(&RuleRows {
            rules: desk.with(|engine, _| rules(engine)),
        }),
        Question::Origins => json(&rows.origins()),
        Question::Standing => json(&Standing {
            warnings: rows.warnings(),
            requests: requests(desk, rows),
        }),
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

fn requests(desk: &Desk, rows: &WorkerRows) -> Option<Requests> {
    let rules = desk.with(|engine, _| rules(engine));
    (!rules.is_empty()).then(|| Requests {
        rules,
        ..rows.requests()
    })
}

fn of_source(engine: &mut Engine, source: IpAddr, now_ns: u64) -> Vec<HeldRow> {
    let held = engine.explain(source, now_ns);
    held.iter().map(held_row).collect()
}

fn held_row(held: &Explained) -> HeldRow {
    let is_idle = held.idle.is_some();
    let (action, until_ns) = match held.blocked.or(held.action).filter(|_| !is_idle) {
        Some((action, until_ns)) => (Some(action), Some(until_ns)),
        None => (None, None),
    };
    let blocked = held.blocked.filter(|_| !is_idle && !held.simulated);
    let (action, reason) = match held.shut_out {
        true => (Some(Action::Reject), Some(Reason::NotFrom)),
        false => (action, None),
    };
    HeldRow {
        rule: held.rule.to_string(),
        source: Some(held.source),
        action: action.map(|action| action.name().to_owned()),
        until: until_ns.map(|until_ns| timestamp(unix_time(until_ns))),
        // The daemon knows where.
        place: blocked.map(|_| HTTP.to_owned()),
        why: blocked.map(|(action, _)| why_not_at_nic(action, held).to_owned()),
        counted: None,
        remaining: held.remaining,
        rungs: held.rungs,
        reason: reason.map(|reason| reason.name().to_owned()),
        simulated: held.simulated,
        idle: held.idle.map(|idle| match idle {
            Idle::Off => OFF.to_owned(),
            Idle::Exempt => EXEMPT.to_owned(),
        }),
    }
}

/// Why a block may not be at the NIC, as far as this process knows.
const fn why_not_at_nic(action: Action, held: &Explained) -> &'static str {
    match held {
        _ if !matches!(action, Action::Block) => "many share the source: it is challenged instead",
        Explained {
            nic_refused: true, ..
        } => "the NIC did not take it, which the log explains; it is asked again a minute later",
        Explained { at_nic: true, .. } => "it is ordered, and not there",
        _ => "no event since then has named it as the peer; is there a proxy in front?",
    }
}

fn unblock(engine: &mut Engine, network: IpNet, now_ns: u64) -> Vec<String> {
    let rules = engine.unblock(network.addr(), now_ns);
    rules.iter().map(|rule| rule.to_string()).collect()
}

fn of_account(account: String, held: &[AgainstAccount]) -> AccountRows {
    let row = |held: &AgainstAccount| {
        let action = held.action.filter(|_| !held.is_off);
        HeldRow {
            rule: held.rule.to_string(),
            source: None,
            action: action.map(|(action, _)| action.name().to_owned()),
            until: action.map(|(_, until_ns)| timestamp(unix_time(until_ns))),
            place: None,
            why: None,
            counted: Some(held.counted),
            remaining: Some(held.limit.saturating_sub(held.counted)),
            rungs: held.rungs,
            reason: None,
            simulated: held.simulated,
            idle: held.is_off.then(|| OFF.to_owned()),
        }
    };
    AccountRows {
        account,
        held: held.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Mode, Prefixes};
    use crate::event::Event;
    use crate::policy::{NoFiles, parse};

    const NOW_NS: u64 = 1_700_000_000_000_000_000;

    /// An engine that blocks this source, of which it knows the peer.
    fn blocking(source: IpAddr, peer: Option<IpAddr>) -> Engine {
        let policy = "[edge]\n[[rule]]\nname = 'login'\n\
                      count = 'requests'\nkey = ['source']\nlimit = 1\nperiod = '1m'\n\
                      action = 'block'\nfor = '1h'\n";
        let loaded = parse("policy", policy, &NoFiles).unwrap();
        let prefixes = Prefixes { ipv4: 32, ipv6: 64 };
        let decide = loaded.policy.decide.unwrap();
        let mut engine = Engine::new(&decide, prefixes, &[0; 16]);
        let event = Event {
            peer,
            ..Event::of(source)
        };
        engine.ask(&event, NOW_NS);
        engine
    }

    fn row(engine: &mut Engine, source: IpAddr) -> HeldRow {
        let mut rows = of_source(engine, source, NOW_NS);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    #[test]
    fn a_block_that_is_not_at_the_nic_says_why() {
        let source = IpAddr::from([192, 0, 2, 7]);
        let mut engine = blocking(source, None);
        let held = row(&mut engine, source);
        assert_eq!(held.action.as_deref(), Some("block"));
        assert_eq!(held.place.as_deref(), Some(HTTP));
        assert!(held.why.unwrap().contains("named it as the peer"));
        let mut engine = blocking(source, Some(source));
        let order = engine.orders().next().unwrap();
        engine.refused(&order, NOW_NS);
        let why = row(&mut engine, source).why.unwrap();
        assert!(why.contains("did not take it"), "{why}");
    }

    #[test]
    fn a_rule_that_is_off_is_not_said_to_block() {
        let source = IpAddr::from([192, 0, 2, 7]);
        let mut engine = blocking(source, None);
        engine.set_mode("login", Mode::Off);
        let held = row(&mut engine, source);
        assert_eq!((held.action, held.place, held.why), (None, None, None));
        assert_eq!(held.idle.as_deref(), Some(OFF));
        engine.set_mode("login", Mode::Simulate);
        let held = row(&mut engine, source);
        assert!(held.simulated && held.place.is_none(), "{held:?}");
    }
}
