//! What rules order, and what of it is done: the worker knows events, the keeper knows who
//! must not be blocked.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use limiter_common::block::Owner;

use super::{BlockName, Keeper, Note, Now, in_full, shown};
use crate::control::api::RuleBlockRow;
use crate::dataplane::model::{BlockRequest, BlockState};
use crate::engine::{Order, Ordered};
use crate::policy::{Action, Decide, Rule, units::duration_text};

/// Why nobody is blocked at the NIC where the proxy is on another host.
const ELSEWHERE: &str = "the proxy is elsewhere (decide.local_proxy)";

/// An order that was refused, and why.
pub type Refused = (Order, String);

/// A rule's part in a block.
#[derive(Clone, Debug)]
pub(super) struct RuleHold {
    /// Which rule, and why.
    pub(super) row: RuleBlockRow,
    /// Until when, as [`Now::mono`].
    pub(super) until: Duration,
}

impl Note {
    /// The rule behind a block; of several the one that ends last.
    pub(super) fn rule(&self) -> Option<&RuleBlockRow> {
        let last = self.rules.iter().max_by_key(|hold| hold.until);
        last.map(|hold| &hold.row)
    }
}

impl Keeper {
    /// Carries out what rules order; gives what is not to be done, and why.
    pub fn obey_rules(&mut self, orders: Vec<Order>, now: Now) -> Vec<Refused> {
        let mut refused = Vec::new();
        if orders.is_empty() {
            return refused;
        }
        let own = own_addresses();
        for order in orders {
            let done = match (&order.what, &own) {
                (Ordered::Block { part, .. }, Ok(own)) => self
                    .judge_order(&order, *part, own)
                    .and_then(|most| self.block_by_rule(&order, most, now)),
                (Ordered::Block { .. }, Err(error)) => {
                    Err(format!("this host's own addresses are not known: {error}"))
                }
                (Ordered::Withdraw, _) => self.withdraw(&order, now),
            };
            if let Err(why) = done {
                self.rules.refused += 1;
                refused.push((order, why));
            }
        }
        refused
    }

    /// For how long a rule may block a source at the NIC, or why it may not.
    fn judge_order(&self, order: &Order, part: usize, own: &[IpNet]) -> Result<Duration, String> {
        let lasting = self.longest_block(order, part, own)?;
        if let Some(wider) = self.allow.widest(order.source) {
            return Err(format!("it lies inside {}, which is allowed", shown(wider)));
        }
        Ok(lasting)
    }

    /// For how long the rule of an order blocks at this step, if it does; what nobody who
    /// goes by the policy in force could order is refused.
    fn longest_block(&self, order: &Order, part: usize, own: &[IpNet]) -> Result<Duration, String> {
        let decide = self.policy.decide.as_ref();
        let decide = decide.ok_or("the policy has no rules")?;
        let rule = self.rule(&order.rule).ok_or("there is no such rule")?;
        let (effect, lasting) = rule.course.step(part).ok_or("it has no such step")?;
        if effect.action != Action::Block {
            return Err("the rule does not block at this step".to_owned());
        }
        let is_on = !self.rules.modes.contains_key(&*order.rule);
        let acts = is_on && decide.enforce && !effect.simulate && !rule.simulate;
        if !acts || self.term_word() == Some("paused") {
            return Err("the rule only counts".to_owned());
        }
        if !decide.local_proxy {
            return Err(ELSEWHERE.to_owned());
        }
        if order.limit.as_deref() != rule.block_limit.as_deref() {
            return Err("the rule does not confine its blocks so".to_owned());
        }
        if self.is_too_wide(rule, order.source) {
            return Err("it is wider than a source of the rule".to_owned());
        }
        if let Some(why) = is_spared(decide, rule, order.source, own) {
            return Err(why);
        }
        let longer = u32::from(rule.jitter_percent) + 100;
        Ok(lasting.saturating_mul(longer) / 100)
    }

    /// Whether a network is wider than a source of a rule.
    fn is_too_wide(&self, rule: &Rule, source: IpNet) -> bool {
        let prefix = match source {
            IpNet::V4(_) => rule.ipv4_prefix.unwrap_or(self.policy.edge.ipv4_prefix),
            IpNet::V6(_) => rule.ipv6_prefix.unwrap_or(self.policy.edge.ipv6_prefix),
        };
        source.prefix_len() < prefix
    }

    /// Why blocks of rules that are not at the NIC are not there, as far as the policy, the lists
    /// and other blocks say; of each rule with its source.
    #[must_use]
    pub fn why_not_at_nic(&self, held: &[(String, IpNet)]) -> Vec<Option<String>> {
        let own = own_addresses().unwrap_or_default();
        let why = |(rule, source): &(String, IpNet)| self.obstacle(rule, *source, &own);
        held.iter().map(why).collect()
    }

    fn obstacle(&self, rule: &str, source: IpNet, own: &[IpNet]) -> Option<String> {
        let decide = self.policy.decide.as_ref()?;
        let rule = self.rule(rule)?;
        if !decide.local_proxy {
            return Some(ELSEWHERE.to_owned());
        }
        if let Some(why) = is_spared(decide, rule, source, own) {
            return Some(why);
        }
        if let Some(wider) = self.allow.widest(source) {
            return Some(format!("{} is allowed", shown(wider)));
        }
        let block = self.plane.block_of(source, rule.block_limit.as_deref());
        let block = block.ok().flatten();
        let is_by_hand = block.is_some_and(|block| block.owner == Owner::Operator);
        is_by_hand.then(|| format!("{} is blocked by hand", shown(source)))
    }

    fn block_by_rule(&mut self, order: &Order, most: Duration, now: Now) -> Result<(), String> {
        let Ordered::Block {
            until_ns,
            part,
            rung,
            cause,
        } = &order.what
        else {
            return Ok(());
        };
        let same = self.block_of(order)?;
        if let Some(block) = same.filter(|it| it.owner == Owner::Operator) {
            let (network, left) = (shown(block.network), block.remaining.as_secs());
            return Err(format!("{network} is blocked by hand, for {left} s more"));
        }
        let now_ns = super::unix_nanos(now.wall);
        let lasting = Duration::from_nanos(until_ns.saturating_sub(now_ns)).min(most);
        if lasting.is_zero() {
            return Err("its time is over".to_owned());
        }
        let hold = RuleHold {
            row: RuleBlockRow::new(&order.rule, *part, *rung, cause),
            until: now.after(lasting).mono,
        };
        let name = (order.source, order.limit.as_deref().map(str::to_owned));
        let before = self.notes.get(&name);
        let mut rules = before.map(|note| note.rules.clone()).unwrap_or_default();
        rules.retain(|it| it.row.rule != *order.rule && it.until > now.mono);
        let is_new = rules.is_empty();
        rules.push(hold.clone());
        let states = self.make_last(&name, &rules, now)?;
        tracing::info!(
            source = %order.source,
            rule = %order.rule,
            step = hold.row.step,
            lasting = duration_text(lasting),
            "blocked by a rule"
        );
        let since = before_since(self.notes.get(&name), is_new, now);
        let note = Note {
            since,
            reason: None,
            uid: None,
            rules,
        };
        self.notes.insert(name, note);
        // With what is noted of it.
        self.record_blocks(&states, now);
        self.sever(&states);
        Ok(())
    }

    /// Takes a rule's part out of a block before its time.
    fn withdraw(&mut self, order: &Order, now: Now) -> Result<(), String> {
        let same = self.block_of(order)?;
        let name = (order.source, order.limit.as_deref().map(str::to_owned));
        let is_rules = same.is_some_and(|block| block.owner == Owner::Rule);
        let Some(note) = self.notes.get(&name).filter(|_| is_rules) else {
            return Ok(());
        };
        let mut rules = note.rules.clone();
        rules.retain(|it| it.row.rule != *order.rule);
        if rules.len() == note.rules.len() {
            return Ok(());
        }
        tracing::info!(source = %order.source, rule = %order.rule, "a rule takes its block back");
        self.hold_by(name, rules, now)
    }

    /// Leaves these parts of a block, or ends it where there are none.
    fn hold_by(&mut self, name: BlockName, rules: Vec<RuleHold>, now: Now) -> Result<(), String> {
        let states = self.make_last(&name, &rules, now)?;
        if rules.is_empty() {
            self.notes.remove(&name);
        } else if let Some(note) = self.notes.get_mut(&name) {
            note.rules = rules;
        }
        self.record_blocks(&states, now);
        Ok(())
    }

    /// Has a block of rules last as long as they want, or end. What is confined to other
    /// limits, and the kernel's own, is as it was.
    fn make_last(
        &mut self,
        name: &BlockName,
        rules: &[RuleHold],
        now: Now,
    ) -> Result<Vec<BlockState>, String> {
        let until = rules.iter().map(|hold| hold.until).max();
        let lasting = until.unwrap_or_default().saturating_sub(now.mono);
        let request = BlockRequest {
            network: name.0,
            lasting: Some(lasting),
            owner: Owner::Rule,
            limit: name.1.clone(),
        };
        let made = self.plane.block_many(&[request]);
        made.map_err(|error| in_full(&*error))
    }

    /// The block that an order is about, if it is there.
    fn block_of(&self, order: &Order) -> Result<Option<BlockState>, String> {
        let found = self.plane.block_of(order.source, order.limit.as_deref());
        found.map_err(|error| in_full(&*error))
    }

    /// Ends blocks of rules that the policy does not have any more, or of what must not be
    /// blocked under it: after a start, and after each change of the policy.
    pub(super) fn judge_held_blocks(&mut self, now: Now) {
        let held = match self.plane.blocks() {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(%error, "blocks of rules are not looked at");
                return;
            }
        };
        let own = own_addresses().unwrap_or_default();
        for block in held.into_iter().filter(|it| it.owner == Owner::Rule) {
            let name = (block.network, block.limit);
            let Some(note) = self.notes.get(&name) else {
                continue;
            };
            let mut rules = note.rules.clone();
            rules.retain(|hold| self.may_hold(&name, &hold.row, &own));
            if rules.len() == note.rules.len() {
                continue;
            }
            tracing::info!(source = %name.0, "a block of rules does not fit the policy any more");
            if let Err(error) = self.hold_by(name, rules, now) {
                tracing::warn!(error, "a block of rules stays");
            }
        }
    }

    /// Whether a rule of the policy may hold a source blocked, there and so.
    fn may_hold(
        &self,
        (source, limit): &(IpNet, Option<String>),
        row: &RuleBlockRow,
        own: &[IpNet],
    ) -> bool {
        let (Some(decide), Some(rule)) = (&self.policy.decide, self.rule(&row.rule)) else {
            return false;
        };
        let part = usize::try_from(row.step.saturating_sub(1)).unwrap_or(usize::MAX);
        let step = rule.course.step(part);
        let blocks = step.is_some_and(|(effect, _)| effect.action == Action::Block);
        blocks
            && rule.block_limit == *limit
            && !self.is_too_wide(rule, *source)
            && is_spared(decide, rule, *source, own).is_none()
    }

    /// Forgets what was noted of blocks that have ended.
    pub(super) fn forget_notes(&mut self, held: &[BlockState]) {
        let names: HashSet<BlockName> = held
            .iter()
            .map(|state| (state.network, state.limit.clone()))
            .collect();
        self.notes.retain(|name, _| names.contains(name));
    }
}

/// Since when a block holds that may have been there before.
fn before_since(before: Option<&Note>, is_new: bool, now: Now) -> std::time::SystemTime {
    before
        .filter(|_| !is_new)
        .map_or(now.wall, |note| note.since)
}

/// Why a source is spared by a rule, if it is.
fn is_spared(decide: &Decide, rule: &Rule, source: IpNet, own: &[IpNet]) -> Option<String> {
    let meets = |network: &&IpNet| network.contains(&source) || source.contains(*network);
    let mut exempt = decide.exempt.iter().chain(&rule.except);
    if let Some(exempt) = exempt.find(meets) {
        return Some(format!("{} is exempt from the rule", shown(*exempt)));
    }
    if let Some(proxy) = decide.trusted_proxies.iter().find(meets) {
        return Some(format!("{} is a trusted proxy", shown(*proxy)));
    }
    let own = own.iter().find(meets)?;
    let own = shown(*own);
    Some(format!("{own} is one of this host's own addresses"))
}

/// The addresses of this host.
fn own_addresses() -> nix::Result<Vec<IpNet>> {
    let address = |it: nix::ifaddrs::InterfaceAddress| {
        let address = it.address?;
        let v4 = address.as_sockaddr_in().map(|it| it.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|it| it.ip().into()))
    };
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(address);
    Ok(addresses.map(|address: IpAddr| address.into()).collect())
}
