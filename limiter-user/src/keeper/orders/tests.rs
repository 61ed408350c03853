//! What the keeper does with what rules order.

use std::path::PathBuf;

use super::*;
use crate::control::api::Entry;
use crate::engine::{Cause, Mode};
use crate::keeper::fake::{POLICY, Shared, keeper, policy};
use crate::keeper::records::Change;
use crate::keeper::{By, unix_nanos};
use crate::policy::{NoFiles, parse};

const BY: By = By::user(1000, Some(7));
const CLIENT: &str = "198.51.100.7/32";

const RULES: &str = r#"
[decide]
trusted_proxies = ["198.51.100.100/32"]
exempt = ["198.51.100.101/32"]
[[rule]]
name = "long"
count = "requests"
key = ["source"]
limit = 5
period = "1m"
action = "block"
for = "1d"
[[rule]]
name = "short"
count = "requests"
key = ["source"]
limit = 5
period = "1m"
action = "block"
for = "5m"
[[rule]]
name = "trial"
count = "requests"
key = ["source"]
limit = 5
period = "1m"
action = "block"
for = "1h"
simulate = true
[[rule]]
name = "answer"
count = "requests"
key = ["source"]
limit = 5
period = "1m"
action = "reject"
"#;

struct Host {
    keeper: Keeper,
    told: Shared,
    now: Now,
}

impl Host {
    fn new() -> Self {
        let now = Now::read();
        let (mut keeper, told) = keeper(PathBuf::from("limiter.toml"), now);
        keeper.policy = policy(&format!("{POLICY}{RULES}"));
        Self { keeper, told, now }
    }

    fn order(&self, rule: &str, source: &str, lasting_s: u64) -> Order {
        let source: IpNet = source.parse().unwrap();
        Order {
            source,
            rule: rule.into(),
            limit: None,
            what: Ordered::Block {
                until_ns: unix_nanos(self.now.wall) + lasting_s * 1_000_000_000,
                part: 0,
                rung: 0,
                cause: Cause {
                    source: source.addr(),
                    account: None,
                    path: Some("/login".into()),
                    status: Some(401),
                    owner: None,
                },
            },
        }
    }

    /// Why an order is refused; empty: it is not.
    fn obey(&mut self, order: Order) -> String {
        let mut refused = self.keeper.obey_rules(vec![order], self.now);
        refused.pop().map(|(_, why)| why).unwrap_or_default()
    }

    fn withdraw(&mut self, rule: &str) -> String {
        let order = Order {
            what: Ordered::Withdraw,
            ..self.order(rule, CLIENT, 0)
        };
        self.obey(order)
    }

    fn why_not_at_nic(&self, source: &str) -> Option<String> {
        let held = [("long".to_owned(), source.parse().unwrap())];
        self.keeper.why_not_at_nic(&held).remove(0)
    }

    /// For how long the client is blocked, in seconds; 0: it is not.
    fn left(&self) -> u64 {
        let told = self.told.lock().unwrap();
        let mut blocks = told.blocks.iter();
        let block = blocks.find(|it| it.network.to_string() == CLIENT);
        block.map_or(0, |block| block.remaining.as_secs_f64().round() as u64)
    }
}

#[test]
fn what_no_rule_in_force_could_order_is_refused() {
    let mut host = Host::new();
    for (rule, source, why) in [
        ("none", CLIENT, "there is no such rule"),
        ("answer", CLIENT, "does not block"),
        ("trial", CLIENT, "only counts"),
        ("long", "198.51.100.0/24", "wider than a source"),
        ("long", "10.1.2.3/32", "lies inside 10.0.0.0/8"),
        ("long", "198.51.100.100/32", "is a trusted proxy"),
        ("long", "198.51.100.101/32", "is exempt"),
        ("long", "127.0.0.1/32", "own addresses"),
    ] {
        let order = host.order(rule, source, 60);
        let said = host.obey(order);
        assert!(said.contains(why), "{rule} {source}: {said}");
    }
    let part = |part| {
        let mut order = Host::new().order("long", CLIENT, 60);
        if let Ordered::Block { part: at, .. } = &mut order.what {
            *at = part;
        }
        order
    };
    assert_eq!(host.obey(part(1)), "it has no such step");
    let confined = Order {
        limit: Some("https".into()),
        ..host.order("long", CLIENT, 60)
    };
    assert!(host.obey(confined).contains("confine"));
    let over = host.order("long", CLIENT, 0);
    assert_eq!(host.obey(over), "its time is over");
    host.keeper.rules.modes.insert("long".to_owned(), Mode::Off);
    let order = host.order("long", CLIENT, 60);
    assert_eq!(host.obey(order), "the rule only counts");
    assert_eq!(host.left(), 0);
    assert_eq!(host.keeper.rules.refused, 12);
}

#[test]
fn a_block_lasts_as_the_rule_says_at_most() {
    let mut host = Host::new();
    let order = host.order("short", CLIENT, 9_999);
    assert_eq!(host.obey(order), "");
    assert_eq!(host.left(), 300);
    let row = host.keeper.blocks(host.now).unwrap().blocks.remove(0);
    assert_eq!(row.owner, "rule");
    let rule = row.rule.unwrap();
    assert_eq!((rule.rule.as_str(), rule.step), ("short", 1));
    assert_eq!(rule.sample.status, Some(401));
    assert!(row.reason.unwrap().contains("rule short, tier 1"));
}

#[test]
fn several_rules_hold_one_source() {
    let mut host = Host::new();
    for (rule, lasting_s) in [("long", 86_400), ("short", 300)] {
        let order = host.order(rule, CLIENT, lasting_s);
        assert_eq!(host.obey(order), "");
        assert_eq!(host.left(), 86_400);
    }
    assert_eq!(host.withdraw("long"), "");
    assert_eq!(host.left(), 300);
    assert_eq!(host.withdraw("long"), "");
    assert_eq!(host.left(), 300);
    assert_eq!(host.withdraw("short"), "");
    assert_eq!(host.left(), 0);
}

#[test]
fn what_is_blocked_by_hand_is_the_operators() {
    let mut host = Host::new();
    let entry = Entry {
        network: CLIENT.to_owned(),
        lasting: Some("1m".to_owned()),
        ..Entry::default()
    };
    host.keeper.add_blocks(&[entry], BY, host.now).unwrap();
    let order = host.order("long", CLIENT, 60);
    assert!(host.obey(order).contains("blocked by hand"));
    assert_eq!(host.withdraw("long"), "");
    assert_eq!(host.left(), 60);
}

#[test]
fn another_policy_ends_blocks_that_do_not_fit_it() {
    let mut host = Host::new();
    for (rule, source) in [("long", CLIENT), ("short", "198.51.100.8/32")] {
        let order = host.order(rule, source, 200);
        assert_eq!(host.obey(order), "");
    }
    let trusting = RULES.replace("198.51.100.100/32", "198.51.100.8/32");
    let other = trusting.replace("\"long\"", "\"other\"");
    let loaded = parse("limiter.toml", &format!("{POLICY}{other}"), &NoFiles).unwrap();
    host.keeper.policy = loaded.policy;
    host.keeper.judge_held_blocks(host.now);
    assert!(host.told.lock().unwrap().blocks.is_empty());
    assert!(host.keeper.notes.is_empty());
}

#[test]
fn a_block_that_is_wider_than_a_source_by_now_ends() {
    let mut host = Host::new();
    let with = |prefix: u8| {
        let narrow = RULES.replacen("for = ", &format!("ipv4_prefix = {prefix}\nfor = "), 1);
        let loaded = parse("limiter.toml", &format!("{POLICY}{narrow}"), &NoFiles);
        loaded.unwrap().policy
    };
    host.keeper.policy = with(24);
    let wide = "198.51.101.0/24";
    for (rule, source) in [("long", wide), ("short", CLIENT)] {
        let order = host.order(rule, source, 200);
        assert_eq!(host.obey(order), "");
    }
    let blocked = |host: &Host| host.told.lock().unwrap().blocks.len();
    host.keeper.judge_held_blocks(host.now);
    assert_eq!(blocked(&host), 2);
    host.keeper.policy = with(25);
    host.keeper.judge_held_blocks(host.now);
    assert_eq!(blocked(&host), 1);
}

#[test]
fn what_keeps_a_block_off_the_nic_is_told() {
    let mut host = Host::new();
    for (source, why) in [
        ("10.1.2.3/32", Some("10.0.0.0/8 is allowed")),
        ("198.51.100.100/32", Some("is a trusted proxy")),
        ("198.51.100.101/32", Some("is exempt")),
        ("127.0.0.1/32", Some("own addresses")),
        (CLIENT, None),
    ] {
        let said = host.why_not_at_nic(source);
        let is_told = match (&said, why) {
            (Some(said), Some(why)) => said.contains(why),
            (said, why) => said.is_none() && why.is_none(),
        };
        assert!(is_told, "{source}: {said:?}");
    }
    let entry = Entry {
        network: CLIENT.to_owned(),
        ..Entry::default()
    };
    host.keeper.add_blocks(&[entry], BY, host.now).unwrap();
    let said = host.why_not_at_nic(CLIENT);
    assert_eq!(said.as_deref(), Some("198.51.100.7 is blocked by hand"));
    let elsewhere = RULES.replace("[decide]", "[decide]\nlocal_proxy = false");
    host.keeper.policy = policy(&format!("{POLICY}{elsewhere}"));
    let said = host.why_not_at_nic(CLIENT).unwrap();
    assert!(said.contains("decide.local_proxy"), "{said}");
}

#[test]
fn who_switches_a_rule_is_noted() {
    let mut host = Host::new();
    for mode in [Mode::Off, Mode::Simulate, Mode::On] {
        let switched = host.keeper.switch_rule("long", mode, BY, host.now);
        assert_eq!(switched.unwrap().changed, 1);
    }
    let unknown = host.keeper.switch_rule("none", Mode::Off, BY, host.now);
    assert_eq!(unknown.unwrap_err().status, 404);
    assert_eq!(
        host.told.lock().unwrap().audit.by_hand(),
        [
            "1000 rule disable; long",
            "1000 rule simulate; long",
            "1000 rule enable; long",
        ]
    );
}

/// As another daemon finds it.
#[test]
fn all_rules_behind_a_block_are_stored() {
    let mut host = Host::new();
    for (rule, lasting_s) in [("long", 86_400), ("short", 300)] {
        let order = host.order(rule, CLIENT, lasting_s);
        assert_eq!(host.obey(order), "");
    }
    let stored = {
        let told = host.told.lock().unwrap();
        let blocks = told.changes.iter().rev().find_map(|change| match change {
            Change::Blocks(blocks) => Some(blocks.clone()),
            _ => None,
        });
        blocks.unwrap().remove(0)
    };
    host.keeper.notes.clear();
    let left = stored.until.saturating_sub(host.now.mono);
    host.keeper.note(&stored, left, host.now);
    assert_eq!(host.withdraw("long"), "");
    assert_eq!(host.left(), 300);
    assert_eq!(host.withdraw("short"), "");
    assert_eq!(host.left(), 0);
}
