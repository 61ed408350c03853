//! What is active, change by change: what a database lacks since it was last told.

use super::snapshot::hexadecimal;
use super::upkeep::End;
use super::{Engine, HeldChange, MOST_CHANGES, Snapshot};

/// What a database lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldChanges {
    /// These, in this order.
    Some(Vec<HeldChange>),
    /// So much that all of it comes anew, in place of what is stored.
    All(Snapshot),
}

impl Engine {
    /// What has become active, other or inactive at `now_ns` since this was last asked; everything
    /// the first time, after a reload that dropped a rule or brought one back, and where more than
    /// 65,536 changed. It takes as long as there are changes, and they wait in a word each.
    pub fn held_changes(&mut self, now_ns: u64) -> HeldChanges {
        self.upkeep(now_ns);
        let waiting = |unit: &super::Unit| unit.table.unstored() + unit.blocks.unstored();
        let waiting: usize = self.units.iter().map(waiting).sum();
        self.prune_ends();
        if self.is_all_due || waiting > MOST_CHANGES {
            self.is_all_due = false;
            return HeldChanges::All(self.store_all(now_ns));
        }
        let mut changes = Vec::with_capacity(waiting);
        for (index, unit) in self.units.iter_mut().enumerate() {
            unit.store_keys(now_ns, &mut changes, |end| self.ends.push(end), index);
            unit.store_blocks(now_ns, &mut changes);
        }
        HeldChanges::Some(changes)
    }

    /// Notes that everything is stored, and gives it.
    fn store_all(&mut self, now_ns: u64) -> Snapshot {
        for (index, unit) in self.units.iter_mut().enumerate() {
            unit.table.take_gone();
            unit.table.take_changed();
            let places: Vec<_> = unit.table.places().collect();
            for place in places {
                let is_held = unit.held_key(place, now_ns).is_some();
                unit.table.store(place, is_held);
                if is_held && !unit.table.fade(place, true) {
                    self.ends.push(unit.end_of_held(index, place));
                }
            }
            unit.blocks.take_gone();
            unit.blocks.take_changed();
            let blocks: Vec<_> = unit.blocks.all().collect();
            for (place, _, block) in blocks {
                let is_held = unit.held_block(block, now_ns).is_some();
                unit.blocks.store(place, is_held);
            }
        }
        self.snapshot(now_ns)
    }
}

impl super::Unit {
    fn store_keys(
        &mut self,
        now_ns: u64,
        changes: &mut Vec<HeldChange>,
        mut ends: impl FnMut(End),
        index: usize,
    ) {
        let gone = |rule: String, key| HeldChange::KeyGone {
            rule,
            key: hexadecimal(key),
        };
        // What went comes first: the same key may be back.
        for key in self.table.take_gone() {
            changes.push(gone(self.name.to_string(), key));
        }
        for place in self.table.take_changed() {
            let held = self.held_key(place, now_ns);
            let was_stored = self.table.store(place, held.is_some());
            match held {
                Some(held) => {
                    changes.push(HeldChange::Key(held));
                    if !self.table.fade(place, true) {
                        ends(self.end_of_held(index, place));
                    }
                }
                None if was_stored => {
                    changes.push(gone(self.name.to_string(), self.table.key(place)));
                }
                None => {}
            }
        }
    }

    fn store_blocks(&mut self, now_ns: u64, changes: &mut Vec<HeldChange>) {
        let gone = |rule: String, source| HeldChange::BlockGone { rule, source };
        for source in self.blocks.take_gone() {
            changes.push(gone(self.name.to_string(), source));
        }
        for place in self.blocks.take_changed() {
            let block = self.blocks.get(place);
            let held = self.held_block(block, now_ns);
            let was_stored = self.blocks.store(place, held.is_some());
            match held {
                Some(held) => changes.push(HeldChange::Block(held)),
                None if was_stored => {
                    changes.push(gone(self.name.to_string(), block.source));
                }
                None => {}
            }
        }
    }
}
