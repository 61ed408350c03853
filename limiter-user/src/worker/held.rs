//! What the rules hold, as the daemon remembers it for the next worker.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::message::ToWorker;
use crate::engine::{HeldBlock, HeldChange, HeldKey, Snapshot};
use crate::store::audit::{AuditError, Reader};

/// How long reading what the rules held may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Entries in a message.
const AT_ONCE: usize = 1_024;

/// Digits of a key.
const KEY: usize = 32;

/// Steps of a rule at most.
const STEPS: usize = 64;

/// How much each rule can hold, by its name.
pub type Most = BTreeMap<String, Room>;

/// How much a rule can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Keys.
    pub keys: usize,
    /// Sources that it blocks.
    pub blocks: usize,
}

/// Keys with an action or a rung, and blocks, by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    keys: BTreeMap<String, BTreeMap<String, HeldKey>>,
    blocks: BTreeMap<String, BTreeMap<IpNet, HeldBlock>>,
}

impl Held {
    /// What was stored.
    #[must_use]
    pub fn of(snapshot: Snapshot) -> Self {
        let mut held = Self::default();
        let keys = snapshot.keys.into_iter().map(HeldChange::Key);
        let blocks = snapshot.blocks.into_iter().map(HeldChange::Block);
        for change in keys.chain(blocks) {
            held.apply(change);
        }
        held
    }

    /// What is stored in a state directory.
    ///
    /// # Errors
    /// It cannot be read, or not in time.
    pub fn read(directory: &Path) -> Result<Self, AuditError> {
        let mut reader = Reader::open(directory, WITHIN)?;
        Ok(Self::of(reader.held()?))
    }

    /// Takes over what is held there and not here; gives that.
    pub(super) fn add(&mut self, other: Self, most: &Most) -> Self {
        let mut added = Self::default();
        let all = other.snapshot();
        let keys = all.keys.into_iter().map(HeldChange::Key);
        let blocks = all.blocks.into_iter().map(HeldChange::Block);
        for change in keys.chain(blocks) {
            if !self.has(&change) && self.takes(&change, most) {
                added.apply(change.clone());
                self.apply(change);
            }
        }
        added
    }

    /// Whether anything is held of what this is about.
    fn has(&self, change: &HeldChange) -> bool {
        let key = |rule: &String, key: &String| {
            let keys = self.keys.get(rule);
            keys.is_some_and(|keys| keys.contains_key(key))
        };
        let block = |rule: &String, source: &IpNet| {
            let blocks = self.blocks.get(rule);
            blocks.is_some_and(|blocks| blocks.contains_key(source))
        };
        match change {
            HeldChange::Key(held) => key(&held.rule, &held.key),
            HeldChange::KeyGone { rule, key: gone } => key(rule, gone),
            HeldChange::Block(held) => block(&held.rule, &held.source),
            HeldChange::BlockGone { rule, source } => block(rule, source),
        }
    }

    /// Whether this can be a change of what the rules of a policy hold.
    pub(super) fn takes(&self, change: &HeldChange, most: &Most) -> bool {
        match change {
            HeldChange::Key(key) => {
                let fits = key.key.len() <= KEY && key.until_ns.len() <= STEPS;
                let held = self.keys.get(&key.rule).map_or(0, BTreeMap::len);
                let has_room = || most.get(&key.rule).is_some_and(|most| held < most.keys);
                fits && (self.has(change) || has_room())
            }
            HeldChange::Block(block) => {
                let held = self.blocks.get(&block.rule).map_or(0, BTreeMap::len);
                let has_room = || most.get(&block.rule).is_some_and(|most| held < most.blocks);
                self.has(change) || has_room()
            }
            HeldChange::KeyGone { .. } | HeldChange::BlockGone { .. } => self.has(change),
        }
    }

    /// Takes a change over.
    pub(super) fn apply(&mut self, change: HeldChange) {
        match change {
            HeldChange::Key(key) => {
                let keys = self.keys.entry(key.rule.clone()).or_default();
                keys.insert(key.key.clone(), key);
            }
            HeldChange::KeyGone { rule, key } => {
                if let Some(keys) = self.keys.get_mut(&rule) {
                    keys.remove(&key);
                }
            }
            HeldChange::Block(block) => {
                let blocks = self.blocks.entry(block.rule.clone()).or_default();
                blocks.insert(block.source, block);
            }
            HeldChange::BlockGone { rule, source } => {
                if let Some(blocks) = self.blocks.get_mut(&rule) {
                    blocks.remove(&source);
                }
            }
        }
    }

    /// All of it.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            keys: self
                .keys
                .values()
                .flat_map(BTreeMap::values)
                .cloned()
                .collect(),
            blocks: self
                .blocks
                .values()
                .flat_map(BTreeMap::values)
                .cloned()
                .collect(),
        }
    }

    /// All of it, for a worker that begins.
    pub(super) fn messages(&self) -> impl Iterator<Item = ToWorker> + use<> {
        pieces(self.snapshot()).map(|piece| ToWorker::Held {
            keys: piece.keys,
            blocks: piece.blocks,
            is_all: piece.is_last,
        })
    }
}

/// A part of what is held, as a message takes it.
pub(super) struct Piece {
    pub(super) is_first: bool,
    pub(super) keys: Vec<HeldKey>,
    pub(super) blocks: Vec<HeldBlock>,
    pub(super) is_last: bool,
}

/// All that is held in pieces, at least one.
pub(super) fn pieces(all: Snapshot) -> impl Iterator<Item = Piece> {
    let count = all.keys.len().max(all.blocks.len());
    let count = count.div_ceil(AT_ONCE).max(1);
    let (mut keys, mut blocks) = (all.keys.into_iter(), all.blocks.into_iter());
    (0..count).map(move |at| Piece {
        is_first: at == 0,
        keys: keys.by_ref().take(AT_ONCE).collect(),
        blocks: blocks.by_ref().take(AT_ONCE).collect(),
        is_last: at + 1 == count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> HeldKey {
        HeldKey {
            rule: "login".to_owned(),
            key: format!("{number:032x}"),
            rungs: 1,
            quiet_ns: 0,
            until_ns: vec![1],
            of: None,
        }
    }

    #[test]
    fn what_is_held_goes_over_whole() {
        let keys: Vec<HeldKey> = (0..AT_ONCE * 2 + 1).map(key).collect();
        let snapshot = Snapshot {
            keys,
            blocks: Vec::new(),
        };
        let mut held = Held::of(snapshot.clone());
        assert_eq!(held.snapshot(), snapshot);
        let mut came = Snapshot::default();
        let mut ends = Vec::new();
        for message in held.messages() {
            let ToWorker::Held {
                keys,
                blocks,
                is_all,
            } = message
            else {
                panic!("{message:?}");
            };
            came.keys.extend(keys);
            came.blocks.extend(blocks);
            ends.push(is_all);
        }
        assert_eq!(came, snapshot);
        assert_eq!(ends, [false, false, true]);
        let gone = HeldChange::KeyGone {
            rule: "login".to_owned(),
            key: key(7).key,
        };
        held.apply(gone);
        assert_eq!(held.snapshot().keys.len(), AT_ONCE * 2);
        assert_eq!(Held::default().messages().count(), 1);
    }

    #[test]
    fn what_no_rule_could_hold_is_not_taken() {
        let room = Room { keys: 2, blocks: 1 };
        let most = Most::from([("login".to_owned(), room)]);
        let mut held = Held::default();
        let takes = |held: &Held, key: HeldKey| held.takes(&HeldChange::Key(key), &most);
        assert!(takes(&held, key(0)));
        let stranger = HeldKey {
            rule: "other".to_owned(),
            ..key(0)
        };
        assert!(!takes(&held, stranger));
        let long = HeldKey {
            key: "0".repeat(KEY + 1),
            ..key(0)
        };
        assert!(!takes(&held, long));
        let many = HeldKey {
            until_ns: vec![0; STEPS + 1],
            ..key(0)
        };
        assert!(!takes(&held, many));
        held.apply(HeldChange::Key(key(0)));
        held.apply(HeldChange::Key(key(1)));
        assert!(!takes(&held, key(2)));
        assert!(takes(&held, key(1)));
        let gone = |key: HeldKey| HeldChange::KeyGone {
            rule: key.rule,
            key: key.key,
        };
        assert!(held.takes(&gone(key(1)), &most));
        assert!(!held.takes(&gone(key(2)), &most));
    }
    #[test]
    fn what_was_held_before_does_not_undo_what_is() {
        let most = Most::from([("login".to_owned(), Room { keys: 3, blocks: 0 })]);
        let now = HeldKey { rungs: 7, ..key(1) };
        let mut held = Held::of(Snapshot {
            keys: vec![now.clone()],
            blocks: Vec::new(),
        });
        let before = Held::of(Snapshot {
            keys: (0..9).map(key).collect(),
            blocks: Vec::new(),
        });
        let added = held.add(before, &most);
        assert_eq!(added.snapshot().keys, [key(0), key(2)]);
        assert_eq!(held.snapshot().keys, [key(0), now, key(2)]);
    }
}
