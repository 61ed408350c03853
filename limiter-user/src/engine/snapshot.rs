//! What outlives a restart: actions, rungs and blocks; not counts.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::blocks::Block;
use super::course::Held;
use super::table::{Key, Place};
use super::unit::Unit;
use super::upkeep::End;
use crate::policy::Action;

/// All that is active.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Keys with an action or a rung.
    pub keys: Vec<HeldKey>,
    /// Blocked sources.
    pub blocks: Vec<HeldBlock>,
}

/// A key with an action or a rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldKey {
    /// The rule.
    pub rule: String,
    /// The key, in hexadecimal.
    pub key: String,
    /// The rungs reached.
    pub rungs: u64,
    /// Since when it is quiet, in nanoseconds since the Unix epoch.
    pub quiet_ns: u64,
    /// When the action of each tier or rung ends; 0: there was none.
    pub until_ns: Vec<u64>,
    /// Its source and its account, hashed, where it is made of more than one of them.
    #[serde(default)]
    pub of: Option<[u64; 2]>,
}

/// A blocked source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlock {
    /// The rule.
    pub rule: String,
    /// Whom.
    pub source: IpNet,
    /// Until when, in nanoseconds since the Unix epoch.
    pub until_ns: u64,
    /// The tier or rung.
    pub part: usize,
    /// Whether it is challenged in place of a block.
    pub challenged: bool,
}

/// A change of what is active, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldChange {
    /// A key has an action or a rung, others than before.
    Key(HeldKey),
    /// A key has neither any more.
    KeyGone {
        /// The rule.
        rule: String,
        /// The key, in hexadecimal.
        key: String,
    },
    /// A source is blocked, or otherwise than before.
    Block(HeldBlock),
    /// A source is not blocked any more.
    BlockGone {
        /// The rule.
        rule: String,
        /// Whom.
        source: IpNet,
    },
}

impl Snapshot {
    /// What one rule holds.
    pub(super) fn of_rule(&self, name: &str) -> Self {
        let keys = self.keys.iter().filter(|key| key.rule == name);
        let blocks = self.blocks.iter().filter(|block| block.rule == name);
        Self {
            keys: keys.cloned().collect(),
            blocks: blocks.cloned().collect(),
        }
    }

    fn add(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.blocks.extend(other.blocks);
    }
}

impl Engine {
    /// What is active at `now_ns`, and what rules held that the last reload took away.
    #[must_use]
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for unit in &self.units {
            snapshot.add(unit.snapshot(now_ns));
        }
        for held in self.held_aside() {
            snapshot.add(held.clone());
        }
        snapshot
    }

    /// Takes in what was active when it was stored; what has ended since, or belongs to
    /// rules that are gone or have other tiers, is left out. Gives how much was taken.
    /// The secret must be that of before. What keys have counted meanwhile that hold nothing gives
    /// way to it. Blocks are ordered at the NIC anew when their source is next heard of, and taken
    /// back there if they end before, for they may be there.
    pub fn restore(&mut self, snapshot: &Snapshot, now_ns: u64) -> usize {
        let keys = snapshot
            .keys
            .iter()
            .filter(|key| self.restore_key(key, now_ns))
            .count();
        let blocks = snapshot
            .blocks
            .iter()
            .filter(|block| self.restore_block(block, now_ns));
        let restored = keys + blocks.count();
        // What a rule does not do, now or any more, is not to stay at the NIC.
        for index in 0..self.units.len() {
            self.switch(index);
        }
        restored
    }

    fn restore_key(&mut self, held: &HeldKey, now_ns: u64) -> bool {
        let Some(index) = self.units.iter().position(|unit| *unit.name == *held.rule) else {
            return false;
        };
        let Ok(key) = u128::from_str_radix(&held.key, 16) else {
            return false;
        };
        let unit = &mut self.units[index];
        if held.until_ns.len() != unit.course.parts.len() {
            return false;
        }
        let mut state = unit.blank.clone();
        let course = &unit.course;
        course.hold(
            &mut state,
            &Held {
                rungs: held.rungs,
                quiet_ns: held.quiet_ns,
                until_ns: held.until_ns.clone(),
            },
        );
        if let Some(tags) = held.of {
            course.tag(&mut state, tags);
        }
        if !course.counts(&state, now_ns) {
            return false;
        }
        // One that only counts may have come before what was held was known.
        if let Some(place) = unit.table.find(key) {
            if unit.held_key(place, now_ns).is_some() {
                return false;
            }
            unit.table.remove(place);
        }
        let worth = |state: &[u64]| course.worth(state, now_ns);
        // Who made it is not known: nobody's quota is to bear it alone.
        let maker = (key >> 64) as u64;
        // None of its events counts any more: the next one gives it its time, which may be before
        // now where that was written while nobody heard.
        let Some(place) = unit.table.admit(key, maker, 0, worth) else {
            return false;
        };
        unit.table.state_mut(place).copy_from_slice(&state);
        unit.table.change(place);
        let until_ns = course.active_until_ns(&state, now_ns);
        if until_ns > now_ns && unit.table.may_pin() {
            unit.table.pin(place);
            self.ends.push(End::of_key(until_ns, index, place, key));
        }
        true
    }

    fn restore_block(&mut self, held: &HeldBlock, now_ns: u64) -> bool {
        let Some(index) = self.units.iter().position(|unit| *unit.name == *held.rule) else {
            return false;
        };
        let unit = &mut self.units[index];
        let part = unit.course.parts.get(held.part);
        let is_same = unit.prefixes.source(held.source.addr()) == held.source
            && part.is_some_and(|part| part.effect.action == Action::Block);
        if !is_same || held.until_ns <= now_ns {
            return false;
        }
        let key = self.hasher.source(unit.prefixes, held.source.addr());
        let block = Block {
            source: held.source,
            until_ns: held.until_ns,
            ordered_ns: 0,
            order_refused: false,
            restored: !held.challenged,
            part: held.part,
            action: if held.challenged {
                Action::Captcha
            } else {
                Action::Block
            },
            simulate: false,
        };
        let Some((place, is_new)) = unit.blocks.add(key, block, now_ns) else {
            return false;
        };
        if is_new {
            self.ends
                .push(End::of_block(held.until_ns, index, place, key));
        }
        true
    }
}

impl Unit {
    /// What is stored of a key; `None`: it has neither action nor rung.
    pub(super) fn held_key(&self, place: Place, now_ns: u64) -> Option<HeldKey> {
        let state = self.table.state(place);
        let held = self.course.held(state);
        let acts = held.until_ns.iter().any(|until_ns| *until_ns > now_ns);
        (acts || self.course.rungs(state, now_ns) > 0).then(|| HeldKey {
            rule: self.name.to_string(),
            key: hexadecimal(self.table.key(place)),
            rungs: held.rungs,
            quiet_ns: held.quiet_ns,
            until_ns: held.until_ns,
            of: self.course.tags(state),
        })
    }

    /// What is stored of a block; `None`: it has ended, or nothing is done by it.
    pub(super) fn held_block(&self, block: Block, now_ns: u64) -> Option<HeldBlock> {
        (block.until_ns > now_ns && !block.simulate).then(|| HeldBlock {
            rule: self.name.to_string(),
            source: block.source,
            until_ns: block.until_ns,
            part: block.part,
            challenged: block.action != Action::Block,
        })
    }
}

/// A key, as it is stored.
pub(super) fn hexadecimal(key: Key) -> String {
    format!("{key:032x}")
}
