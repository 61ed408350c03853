//! What is asked and done by hand, and what challenges report.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::account;
use super::course::Ruling;
use super::table::Key;
use super::unit::{Mode, Tag, Unit, holds};
use super::{Engine, Order, Ordered};
use crate::policy::{Action, KeyPart};

/// When the NIC is asked again that did not take a block.
const AGAIN_NS: u64 = 60_000_000_000;

/// What a rule holds against a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The rule.
    pub rule: Arc<str>,
    /// The source as the rule sees it.
    pub source: IpNet,
    /// What it does to the whole source, and until when, in nanoseconds since the
    /// Unix epoch.
    pub blocked: Option<(Action, u64)>,
    /// Whether an order for it is out to the NIC.
    pub at_nic: bool,
    /// Whether the NIC did not take the last one.
    pub nic_refused: bool,
    /// What it does to the requests that it applies to, where its key is the source.
    pub action: Option<(Action, u64)>,
    /// How many more it lets pass, where its key is the source.
    pub remaining: Option<u64>,
    /// The rungs reached, where it is a ladder.
    pub rungs: u64,
    /// Whether its gate does not let the source in; then nothing else is told here.
    pub shut_out: bool,
    /// Whether nothing of it is done.
    pub simulated: bool,
    /// Why the rule has no say about the source; then nothing of it is done either.
    pub idle: Option<Idle>,
}

/// Why a rule has no say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Somebody has switched it off.
    Off,
    /// The source is exempt from it.
    Exempt,
}

/// What a rule holds against an account under one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgainstAccount {
    /// The rule.
    pub rule: Arc<str>,
    /// The key; of some rules an account has one with each source or path.
    pub key: Key,
    /// How many events count, of how many that may; of the tier or rung with the least left.
    pub counted: u64,
    /// See there.
    pub limit: u64,
    /// The rungs reached, where it is a ladder.
    pub rungs: u64,
    /// What it does to the requests that it applies to, and until when, in nanoseconds
    /// since the Unix epoch.
    pub action: Option<(Action, u64)>,
    /// Whether nothing of it is done.
    pub simulated: bool,
    /// Whether the rule is switched off, so that it does nothing either.
    pub is_off: bool,
}

impl Explained {
    /// A rule that holds nothing against a source.
    fn nothing(unit: &Unit, source: IpAddr) -> Self {
        Self {
            rule: Arc::clone(&unit.name),
            source: unit.prefixes.source(source),
            blocked: None,
            at_nic: false,
            nic_refused: false,
            action: None,
            remaining: None,
            rungs: 0,
            shut_out: false,
            simulated: false,
            idle: None,
        }
    }
}

impl Engine {
    /// What each rule holds against a source at `now_ns`, and before it that its gate does not let
    /// the source in; rules with neither are left out.
    #[must_use]
    pub fn explain(&mut self, source: IpAddr, now_ns: u64) -> Vec<Explained> {
        let source = source.to_canonical();
        let mut explained = Vec::new();
        for unit in &self.units {
            if unit.shuts_out(source) {
                explained.push(Explained {
                    shut_out: true,
                    simulated: unit.only_simulates(self.enforce),
                    ..Explained::nothing(unit, source)
                });
            }
            let key = self.hasher.source(unit.prefixes, source);
            let block = unit.blocks.find(key, now_ns).map(|(_, block)| block);
            let is_source = unit.rule.key == [KeyPart::Source];
            let place = unit.table.find(key).filter(|_| is_source);
            let state = place.map(|place| unit.table.state(place));
            let state = state.filter(|state| unit.course.counts(state, now_ns));
            if block.is_none() && state.is_none() {
                continue;
            }
            let ruling = state.and_then(|it| strongest(unit, it, now_ns, block.is_some()));
            let part = block
                .map(|block| block.part)
                .or(ruling.map(|ruling| ruling.part));
            let shown = state.and_then(|state| unit.course.shown(state, now_ns));
            let is_exempt = holds(&self.exempt, source) || holds(&unit.rule.except, source);
            let idle = match unit.mode {
                Mode::Off => Some(Idle::Off),
                _ => is_exempt.then_some(Idle::Exempt),
            };
            explained.push(Explained {
                blocked: block.map(|block| (block.action, block.until_ns)),
                at_nic: block.is_some_and(|block| block.is_ordered(now_ns)),
                nic_refused: block.is_some_and(|block| block.order_refused),
                action: ruling.map(|ruling| (ruling.action, ruling.until_ns)),
                remaining: shown.map(|shown| shown.remaining),
                rungs: state.map_or(0, |state| unit.course.rungs(state, now_ns)),
                simulated: part.is_some_and(|part| {
                    let began_dry = block.is_some_and(|block| block.simulate);
                    began_dry || unit.simulates(self.enforce, part)
                }),
                idle,
                ..Explained::nothing(unit, source)
            });
        }
        explained
    }

    /// An account as the rules compare it.
    #[must_use]
    pub fn normalised(&self, account: &str) -> String {
        account::normalised_account(Some(&self.accounts), account)
    }

    /// What the rules with accounts in their keys hold against one at `now_ns`. The account
    /// need not be normalised.
    #[must_use]
    pub fn account(&mut self, account: &str, now_ns: u64) -> Vec<AgainstAccount> {
        let key = self.key_of(account);
        let engine = &*self;
        let of_unit = |unit| {
            let keys = Self::keys_of(unit, key).into_iter();
            keys.filter_map(move |key| engine.against(unit, key, now_ns))
        };
        engine.units.iter().flat_map(of_unit).collect()
    }

    /// Drops what the rules with accounts in their keys hold against one, and blocks that are for
    /// it; gives what they held. The account need not be normalised.
    pub fn unlock(&mut self, account: &str, now_ns: u64) -> Vec<AgainstAccount> {
        let key = self.key_of(account);
        let mut dropped = Vec::new();
        for index in 0..self.units.len() {
            for key in Self::keys_of(&self.units[index], key) {
                let against = self.against(&self.units[index], key, now_ns);
                if self.clear_key(index, key, now_ns, None) {
                    dropped.extend(against);
                }
            }
        }
        dropped
    }

    fn key_of(&mut self, account: &str) -> Key {
        let mut normal = String::new();
        account::normalise(&self.accounts, account, &mut normal);
        self.hasher.account(&normal)
    }

    /// The keys of a rule that are an account, or are made of it.
    fn keys_of(unit: &Unit, account: Key) -> Vec<Key> {
        if unit.rule.key == [KeyPart::Account] {
            return vec![account];
        }
        match unit.by_account {
            true => unit.tagged(Tag::Account, account),
            false => Vec::new(),
        }
    }

    fn against(&self, unit: &Unit, key: Key, now_ns: u64) -> Option<AgainstAccount> {
        let place = unit.table.find(key)?;
        let state = unit.table.state(place);
        if !unit.course.counts(state, now_ns) {
            return None;
        }
        let source = unit.source_of(key, state);
        let is_blocked = source.is_some_and(|it| unit.blocks.find(it, now_ns).is_some());
        let ruling = strongest(unit, state, now_ns, is_blocked);
        let shown = unit.course.shown(state, now_ns);
        let (limit, remaining) = shown.map_or((0, 0), |it| (it.limit, it.remaining));
        Some(AgainstAccount {
            rule: Arc::clone(&unit.name),
            key,
            counted: limit.saturating_sub(remaining),
            limit,
            rungs: unit.course.rungs(state, now_ns),
            action: ruling.map(|ruling| (ruling.action, ruling.until_ns)),
            simulated: ruling.is_some_and(|it| unit.simulates(self.enforce, it.part)),
            is_off: unit.mode == Mode::Off,
        })
    }

    /// Drops the block of a source, and what is held against the keys that it is for; gives the rules
    /// that held one.
    pub fn unblock(&mut self, source: IpAddr, now_ns: u64) -> Vec<Arc<str>> {
        let source = source.to_canonical();
        let mut rules = Vec::new();
        for index in 0..self.units.len() {
            let unit = &self.units[index];
            let key = self.hasher.source(unit.prefixes, source);
            let block = unit.blocks.find(key, now_ns);
            let keys = match unit.rule.key == [KeyPart::Source] {
                true => vec![key],
                false => unit.blocking_keys(key, now_ns),
            };
            if let Some((place, _)) = block {
                self.lift_block(index, place, now_ns);
            }
            let mut cleared = block.is_some();
            for key in keys {
                cleared |= self.clear_key(index, key, now_ns, None);
            }
            if cleared {
                rules.push(Arc::clone(&self.units[index].name));
            }
        }
        rules
    }

    /// The challenge of a rule's tier or rung was passed that was posed for this key, all as the
    /// decision named them: that tier starts again from zero, and no other. Tiers that reject or
    /// block do not, but for the challenge that a shared source got in place of a block. Nor do
    /// keys with an account, which a stranger could free then, and keys without a source or peer,
    /// where one who passes would spare all others the challenge.
    pub fn passed(&mut self, rule: &str, part: usize, key: Key, now_ns: u64) {
        let mut units = self.units.iter();
        let Some(index) = units.position(|it| *it.name == *rule && it.mode != Mode::Off) else {
            return;
        };
        let block = self.units[index].blocks.find(key, now_ns);
        let in_place =
            block.filter(|(_, block)| block.part == part && block.action < Action::Reject);
        if let Some((place, _)) = in_place {
            self.lift_block(index, place, now_ns);
        }
        let mut passed = in_place.is_some();
        let unit = &mut self.units[index];
        if let Some(place) = unit.table.find(key) {
            let state = unit.table.state_mut(place);
            if in_place.is_some() {
                unit.course.lift(part, state);
            }
            let is_own = unit.by_source && !unit.by_account;
            passed |= is_own && unit.course.pass(part, state);
            unit.table.shorten(place);
        }
        if passed {
            self.note(index, key, part, now_ns, super::What::Cleared, None);
        }
    }

    /// The NIC did not take an order: its block is not there, and is ordered anew
    /// when its source is heard of after a minute. That an order was refused is heard late: where
    /// another has followed it, that one stands.
    pub fn refused(&mut self, order: &Order, now_ns: u64) {
        let Ordered::Block { until_ns, .. } = order.what else {
            return;
        };
        let is_its = |unit: &&mut Unit| unit.name == order.rule && unit.block_limit == order.limit;
        for unit in self.units.iter_mut().filter(is_its) {
            let key = self.hasher.source(unit.prefixes, order.source.addr());
            let found = unit.blocks.find(key, now_ns);
            if let Some((place, _)) = found.filter(|(_, block)| block.ordered_ns == until_ns) {
                unit.blocks.refused(place, now_ns.saturating_add(AGAIN_NS));
            }
        }
    }
}

impl Unit {
    /// The keys of several parts for which a source is blocked.
    fn blocking_keys(&self, source: Key, now_ns: u64) -> Vec<Key> {
        let mut keys = self.tagged(Tag::Source, source);
        let blocks = |key: &Key| {
            let place = self.table.find(*key);
            place.is_some_and(|place| self.course.blocks(self.table.state(place), now_ns))
        };
        keys.retain(blocks);
        keys
    }
}

/// The strongest of what a rule wants done to a key, among equals the longest. A block that began
/// stands for its source, and not when that is no longer blocked.
fn strongest(unit: &Unit, state: &[u64], now_ns: u64, is_blocked: bool) -> Option<Ruling> {
    let stands = |ruling: &Ruling| ruling.action != Action::Block || !ruling.begun || is_blocked;
    let rulings = unit.course.rulings(state, now_ns).filter(stands);
    rulings.max_by_key(|ruling| (ruling.action, ruling.until_ns))
}
