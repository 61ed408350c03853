//! What the rules did: step by step for the listing, and in sums for the summary.

use super::busiest::Busiest;
use super::listing::Step;
use crate::engine::{Cause, Change, Decision, Key, Order, Ordered, Prefixes, What};
use crate::event::{Event, Sample};
use crate::keeper::shown;
use crate::policy::{Action, Decide, KeyPart, Policy, Rule};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What one rule did.
#[derive(Debug)]
pub(super) struct RuleSums<'a> {
    pub(super) rule: &'a Rule,
    prefixes: Prefixes,
    /// Requests by action, from the weakest.
    pub(super) done: [u64; 5],
    /// Those that a simulated action would have been applied to.
    pub(super) would: [u64; 5],
    /// Actions that began, simulated ones too.
    pub(super) begun: u64,
    /// Blocks among them at the NIC, and as an HTTP answer.
    pub(super) at_nic: u64,
    pub(super) by_answer: u64,
    /// Actions that found no room.
    pub(super) full: u64,
    /// Whose requests its action was, or would have been, applied to.
    pub(super) sources: Busiest<IpNet>,
    pub(super) accounts: Busiest<Box<str>>,
}

/// Who is under an action: a key, or a source that is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Held {
    Key(Key),
    Source(IpNet),
}

/// The rules over a file.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    policy: &'a Policy,
    decide: &'a Decide,
    /// In the order of the policy.
    pub(super) sums: Vec<RuleSums<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// What those under an action are called, by rule. As many as have an active action.
    held: HashMap<(usize, Held), Arc<str>>,
    /// Sources that the event at hand has blocked at the NIC.
    ordered: Vec<IpNet>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(policy: &'a Policy, decide: &'a Decide, edge: Prefixes) -> Self {
        let sums = |rule: &'a Rule| RuleSums {
            rule,
            prefixes: Prefixes {
                ipv4: rule.ipv4_prefix.unwrap_or(edge.ipv4),
                ipv6: rule.ipv6_prefix.unwrap_or(edge.ipv6),
            },
            done: [0; 5],
            would: [0; 5],
            begun: 0,
            at_nic: 0,
            by_answer: 0,
            full: 0,
            sources: Busiest::default(),
            accounts: Busiest::default(),
        };
        let named = decide.rules.iter().enumerate();
        Self {
            policy,
            decide,
            sums: decide.rules.iter().map(sums).collect(),
            by_name: named.map(|(at, rule)| (rule.name.as_str(), at)).collect(),
            held: HashMap::new(),
            ordered: Vec::new(),
        }
    }

    /// Whether no rule with a source in its key applies to a source.
    pub(super) fn is_exempt(&self, source: IpAddr) -> bool {
        self.decide.exempt.iter().any(|it| it.contains(&source))
    }

    /// Notes what the event at hand sends to the NIC. Proxies and what the edge allows
    /// are never blocked there, nor anybody where the adapter is not on this host.
    pub(super) fn order(&mut self, orders: impl Iterator<Item = Order>) {
        let spared = |source: &IpNet| {
            let lists = [&self.policy.edge.allow, &self.decide.trusted_proxies];
            let mut networks = lists.into_iter().flatten();
            networks.any(|it| it.contains(source) || source.contains(it))
        };
        self.ordered.clear();
        let blocks = orders.filter(|order| matches!(order.what, Ordered::Block { .. }));
        let sources = blocks.map(|order| order.source);
        let local = self.decide.local_proxy;
        self.ordered
            .extend(sources.filter(|source| local && !spared(source)));
    }

    /// Sums up what came of an event, and tells the steps of the listing.
    pub(super) fn hear(
        &mut self,
        line: u64,
        event: &Event,
        decision: &Decision,
        changes: impl Iterator<Item = Change>,
    ) -> Vec<Step> {
        if let Some(at) = self.delaying(decision) {
            let sums = &mut self.sums[at];
            sums.done[Action::Throttle as usize] += 1;
            let account = event.account.as_deref();
            sums.refuse(event.source, account);
        }
        changes
            .filter_map(|change| self.step(line, event, change))
            .collect()
    }

    /// The rule that makes a request wait; refusals are changes of their own.
    fn delaying(&self, decision: &Decision) -> Option<usize> {
        let rule = decision.rule.as_deref()?;
        let delays = decision.action == Some(Action::Throttle);
        self.by_name.get(rule).copied().filter(|_| delays)
    }

    fn step(&mut self, line: u64, event: &Event, change: Change) -> Option<Step> {
        let at = *self.by_name.get(&*change.rule)?;
        let sums = &mut self.sums[at];
        let cause = change.event.as_ref();
        let source = cause.map(|cause| sums.prefixes.source(cause.source));
        let mut step = Step {
            at_ns: change.at_ns,
            line: Some(line),
            what: String::new(),
            rule: Arc::clone(&change.rule),
            until_ns: None,
            who: "-".into(),
        };
        match change.what {
            What::Counted => return None,
            What::Refused {
                action, simulated, ..
            } => {
                let by_action = if simulated {
                    &mut sums.would
                } else {
                    &mut sums.done
                };
                by_action[action as usize] += 1;
                if let Some(cause) = cause {
                    sums.refuse(cause.source, cause.account.as_deref());
                }
                return None;
            }
            What::Began {
                action, until_ns, ..
            } => {
                sums.begun += 1;
                let blocked = source.filter(|_| action == Action::Block);
                let at_nic = blocked.is_some_and(|source| self.ordered.contains(&source));
                step.what = begins(change.what, at_nic);
                step.until_ns = Some(until_ns);
                if blocked.is_some() && !is_simulated(change.what) {
                    let place = if at_nic {
                        &mut sums.at_nic
                    } else {
                        &mut sums.by_answer
                    };
                    *place += 1;
                }
                let who: Arc<str> = match blocked {
                    Some(source) => shown(source).into(),
                    None => sums.who(event, cause).into(),
                };
                let held = blocked.map_or(Held::Key(change.key), Held::Source);
                self.held.insert((at, held), Arc::clone(&who));
                step.who = sums.with_cause(&who, cause);
            }
            What::Ended => {
                // Of a block the source is known, of a key only what it was called.
                let held = source.map_or(Held::Key(change.key), Held::Source);
                step.who = self.held.remove(&(at, held))?;
                step.line = None;
                "ends".clone_into(&mut step.what);
            }
            What::Cleared => {
                self.held.remove(&(at, Held::Key(change.key)));
                step.who = sums.who(event, cause).into();
                "cleared".clone_into(&mut step.what);
            }
            What::Full { action } => {
                sums.full += 1;
                step.who = sums.who(event, cause).into();
                step.what = format!("no room for {}", action.name());
            }
        }
        Some(step)
    }
}

impl RuleSums<'_> {
    /// The parts of the key, as the policy has them.
    pub(super) fn key_text(&self) -> String {
        let parts: Vec<String> = self.rule.key.iter().map(ToString::to_string).collect();
        parts.join(" and ")
    }

    fn refuse(&mut self, source: IpAddr, account: Option<&str>) {
        self.sources.add(self.prefixes.source(source));
        if let Some(account) = account {
            self.accounts
                .add(Sample::of(account.as_bytes()).as_str().into());
        }
    }

    /// The key of an event for people. What cookies, headers and queries hold is often a
    /// secret, so they are only named.
    fn who(&self, event: &Event, cause: Option<&Cause>) -> String {
        let text = |text: Option<&str>| Sample::of(text.unwrap_or("-").as_bytes()).to_string();
        let source = |address: IpAddr| shown(self.prefixes.source(address));
        let part = |part: &KeyPart| match part {
            KeyPart::Source => source(event.source.to_canonical()),
            KeyPart::Peer => event.peer.map_or_else(|| "-".to_owned(), source),
            KeyPart::Account => text(cause.and_then(|cause| cause.account.as_deref())),
            KeyPart::Path => text(cause.and_then(|cause| cause.path.as_deref())),
            KeyPart::Method => text(event.method.as_deref()),
            KeyPart::Host => text(event.host.as_deref()),
            KeyPart::Header(_) | KeyPart::Cookie(_) | KeyPart::Query(_) => part.to_string(),
        };
        if self.rule.key.is_empty() {
            return "everybody".to_owned();
        }
        let parts: Vec<String> = self.rule.key.iter().map(part).collect();
        parts.join(" ")
    }

    /// Names the source too that gave cause, where the key does not.
    fn with_cause(&self, who: &Arc<str>, cause: Option<&Cause>) -> Arc<str> {
        match cause.filter(|_| !self.rule.key.contains(&KeyPart::Source)) {
            Some(cause) => format!("{who}, last from {}", cause.source).into(),
            None => Arc::clone(who),
        }
    }
}

const fn is_simulated(what: What) -> bool {
    matches!(
        what,
        What::Began {
            simulated: true,
            ..
        }
    )
}

/// In words: an action begins.
fn begins(what: What, at_nic: bool) -> String {
    let What::Began {
        action,
        rung,
        simulated,
        notify_owner,
        ..
    } = what
    else {
        return String::new();
    };
    let would = if simulated { "would begin " } else { "begins " };
    let mut words = format!("{would}{}", action.name());
    if action == Action::Block && !simulated {
        words.push_str(if at_nic { " at the NIC" } else { " as a 403" });
    }
    if rung > 0 {
        words.push_str(&format!(", rung {rung}"));
    }
    if notify_owner {
        words.push_str(", owner to be told");
    }
    words
}
