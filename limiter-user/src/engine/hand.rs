//! What is asked and done by hand, and what challenges report.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Engine;
use super::account;
use super::view::View;
use crate::event::Event;
use crate::policy::{Action, KeyPart};

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
    /// What it does to the requests that it applies to, where its key is the source.
    pub action: Option<(Action, u64)>,
    /// How many more it lets pass, where its key is the source.
    pub remaining: Option<u64>,
    /// The rungs reached, where it is a ladder.
    pub rungs: u64,
    /// Whether nothing of it is done.
    pub simulated: bool,
}

impl Engine {
    /// What each rule holds against a source at `now_ns`; rules that hold nothing are left
    /// out.
    #[must_use]
    pub fn explain(&mut self, source: IpAddr, now_ns: u64) -> Vec<Explained> {
        let source = source.to_canonical();
        let mut explained = Vec::new();
        for unit in &self.units {
            let key = self.hasher.source(unit.prefixes, source);
            let block = unit.blocks.find(key, now_ns).map(|(_, block)| block);
            let is_source = unit.rule.key == [KeyPart::Source];
            let place = unit.table.find(key).filter(|_| is_source);
            let state = place.map(|place| unit.table.state(place));
            let state = state.filter(|state| unit.course.counts(state, now_ns));
            if block.is_none() && state.is_none() {
                continue;
            }
            let ruling = state.and_then(|state| {
                let rulings = unit.course.rulings(state, now_ns);
                rulings.max_by_key(|ruling| (ruling.action, ruling.until_ns))
            });
            let part = block
                .map(|block| block.part)
                .or(ruling.map(|ruling| ruling.part));
            let shown = state.and_then(|state| unit.course.shown(state, now_ns));
            explained.push(Explained {
                rule: Arc::clone(&unit.name),
                source: unit.prefixes.source(source),
                blocked: block.map(|block| (block.action, block.until_ns)),
                at_nic: block.is_some_and(|block| block.ordered_ns > now_ns),
                action: ruling.map(|ruling| (ruling.action, ruling.until_ns)),
                remaining: shown.map(|shown| shown.remaining),
                rungs: state.map_or(0, |state| unit.course.rungs(state, now_ns)),
                simulated: part.is_some_and(|part| unit.simulates(self.enforce, part)),
            });
        }
        explained
    }

    /// Drops what the rules keyed by account alone hold against one; gives the rules that
    /// did. The account need not be normalised.
    pub fn unlock(&mut self, account: &str, now_ns: u64) -> Vec<Arc<str>> {
        let mut normal = String::new();
        account::normalise(&self.accounts, account, &mut normal);
        let key = self.hasher.account(&normal);
        let mut rules = Vec::new();
        for index in 0..self.units.len() {
            let is_account = self.units[index].rule.key == [KeyPart::Account];
            if is_account && self.clear_key(index, key, now_ns, None) {
                rules.push(Arc::clone(&self.units[index].name));
            }
        }
        rules
    }

    /// Drops the block of a source; gives the rules that held one. What the NIC was told
    /// is the caller's to take back.
    pub fn unblock(&mut self, source: IpAddr, now_ns: u64) -> Vec<Arc<str>> {
        let source = source.to_canonical();
        let mut rules = Vec::new();
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            let key = self.hasher.source(unit.prefixes, source);
            let block = unit.blocks.find(key, now_ns);
            if let Some((place, _)) = block {
                unit.blocks.remove(place);
            }
            let is_source = self.units[index].rule.key == [KeyPart::Source];
            let cleared = is_source && self.clear_key(index, key, now_ns, None);
            if block.is_some() || cleared {
                rules.push(Arc::clone(&self.units[index].name));
            }
        }
        rules
    }

    /// A challenge was passed by whoever would send this request: the tiers with that
    /// challenge, or a weaker one, start again from zero. Tiers that reject or block do not, nor
    /// do keys with an account.
    pub fn passed(&mut self, event: &Event, challenge: Action, now_ns: u64) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let view = View::new(event, None, &self.accounts, &mut scratch);
        let is_exempt = super::unit::holds(&self.exempt, view.source);
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            if unit.by_account || !unit.covers(view.source, is_exempt) {
                continue;
            }
            let source = self.hasher.source(unit.prefixes, view.source);
            if let Some((place, block)) = unit.blocks.find(source, now_ns)
                && block.action <= challenge
                && block.action < Action::Reject
            {
                unit.blocks.remove(place);
            }
            let key = self.hasher.key(&self.shapes[unit.shape], &view);
            let place = key.and_then(|key| unit.table.find(key));
            if let (Some(key), Some(place)) = (key, place)
                && unit.course.pass(unit.table.state_mut(place), challenge)
            {
                self.note(index, key, 0, now_ns, super::What::Cleared, Some(&view));
            }
        }
        self.scratch = scratch;
    }
}
