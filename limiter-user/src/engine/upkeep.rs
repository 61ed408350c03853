//! What time alone does: actions end, reservations run out, questions are forgotten.

use std::cmp::Reverse;

use super::decision::{Cause, Change, What};
use super::table::{Key, Place};
use super::unit::Unit;
use super::{Engine, MOST_CHANGES};
use std::sync::Arc;

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// The actions of a key.
    Key,
    /// A block.
    Block,
    /// What is stored of a key.
    Held,
}

/// When something ends; the earliest is the greatest, so that a heap gives it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    at_ns: Reverse<u64>,
    unit: usize,
    what: Ending,
    place: Place,
    key: Key,
}

impl End {
    pub(super) const fn of_key(at_ns: u64, unit: usize, place: Place, key: Key) -> Self {
        Self {
            at_ns: Reverse(at_ns),
            unit,
            what: Ending::Key,
            place,
            key,
        }
    }

    pub(super) const fn of_block(at_ns: u64, unit: usize, place: Place, key: Key) -> Self {
        Self {
            what: Ending::Block,
            ..Self::of_key(at_ns, unit, place, key)
        }
    }

    pub(super) const fn of_held(at_ns: u64, unit: usize, place: Place, key: Key) -> Self {
        Self {
            what: Ending::Held,
            ..Self::of_key(at_ns, unit, place, key)
        }
    }
}

impl Engine {
    /// Brings everything up to an instant.
    pub fn upkeep(&mut self, now_ns: u64) {
        self.latest_ns = self.latest_ns.max(now_ns);
        for unit in self.units.iter_mut().filter(|it| it.tally.since_ns == 0) {
            unit.tally.since_ns = now_ns;
        }
        while let Some(at) = self.questions.overdue(now_ns) {
            self.release(at);
        }
        while let Some(at) = self.questions.outdated(now_ns) {
            self.release(at);
            self.questions.forget(at, now_ns);
        }
        while let Some(end) = self
            .ends
            .peek()
            .copied()
            .filter(|end| end.at_ns.0 <= now_ns)
        {
            self.ends.pop();
            match end.what {
                Ending::Key => self.end_key(end, now_ns),
                Ending::Block => self.end_block(end, now_ns),
                Ending::Held => self.end_held(end, now_ns),
            }
        }
    }

    /// Gives back what a question has reserved.
    pub(super) fn release(&mut self, at: u32) {
        for index in 0..self.units.len() {
            self.release_one(at, index);
        }
        self.questions.settle(at);
    }

    /// Gives back what a question has reserved under one rule.
    pub(super) fn release_one(&mut self, at: u32, index: usize) {
        let mark = self.questions.marks(at)[index];
        if !mark.reserved {
            return;
        }
        let unit = &mut self.units[index];
        if let Some(place) = mark.key.and_then(|key| unit.table.find(key)) {
            unit.course.release(unit.table.state_mut(place));
        }
        self.questions.settle_one(at, index);
    }

    /// Drops the ends of what ended earlier by hand, where they have become many.
    pub(super) fn prune_ends(&mut self) {
        let held = |unit: &Unit| unit.table.held() + unit.blocks.held();
        let held: usize = self.units.iter().map(held).sum();
        if self.ends.len() > 4 * held + 1_024 {
            self.find_ends();
        }
    }

    /// Looks anew for all that will end.
    pub(super) fn find_ends(&mut self) {
        self.ends.clear();
        for (index, unit) in self.units.iter_mut().enumerate() {
            let places: Vec<_> = unit.table.places().collect();
            for place in places {
                let is_stored = unit.table.is_stored(place);
                unit.table.fade(place, is_stored);
                if is_stored {
                    self.ends.push(unit.end_of_held(index, place));
                }
            }
            let pinned = unit
                .table
                .places()
                .filter(|place| unit.table.is_pinned(*place));
            self.ends.extend(pinned.map(|place| {
                let until_ns = unit
                    .course
                    .active_until_ns(unit.table.state(place), self.latest_ns);
                End::of_key(until_ns, index, place, unit.table.key(place))
            }));
            let blocks = unit.blocks.all();
            self.ends.extend(
                blocks.map(|(place, key, block)| End::of_block(block.until_ns, index, place, key)),
            );
        }
    }

    fn end_key(&mut self, end: End, now_ns: u64) {
        let Some(unit) = self.units.get_mut(end.unit) else {
            return;
        };
        if !unit.table.is_at(end.place, end.key) || !unit.table.is_pinned(end.place) {
            return;
        }
        let state = unit.table.state(end.place);
        let until_ns = unit.course.active_until_ns(state, now_ns);
        if until_ns > now_ns {
            self.ends
                .push(End::of_key(until_ns, end.unit, end.place, end.key));
            return;
        }
        unit.table.unpin(end.place);
        self.note(
            end.unit,
            end.key,
            0,
            until_ns.max(end.at_ns.0),
            What::Ended,
            None,
        );
    }

    /// What is stored of a key has ended, or was lengthened.
    fn end_held(&mut self, end: End, now_ns: u64) {
        let Some(unit) = self.units.get_mut(end.unit) else {
            return;
        };
        if !unit.table.is_at(end.place, end.key) || !unit.table.fade(end.place, false) {
            return;
        }
        if unit.held_key(end.place, now_ns).is_none() {
            unit.table.change(end.place);
            return;
        }
        unit.table.fade(end.place, true);
        self.ends.push(unit.end_of_held(end.unit, end.place));
    }

    fn end_block(&mut self, end: End, now_ns: u64) {
        let Some(unit) = self.units.get_mut(end.unit) else {
            return;
        };
        let Some(block) = unit.blocks.at(end.place, end.key) else {
            return;
        };
        if block.until_ns > now_ns {
            self.ends
                .push(End::of_block(block.until_ns, end.unit, end.place, end.key));
            return;
        }
        unit.blocks.remove(end.place);
        if self.changes.len() >= MOST_CHANGES {
            self.dropped_changes += 1;
            return;
        }
        self.changes.push(Change {
            at_ns: block.until_ns,
            rule: Arc::clone(&unit.name),
            key: end.key,
            part: block.part,
            what: What::Ended,
            event: Some(Cause::of(block.source.addr())),
        });
    }
}

impl Unit {
    /// When what is stored of a key ends.
    pub(super) fn end_of_held(&self, index: usize, place: Place) -> End {
        let fades_ns = self.course.fades_ns(self.table.state(place));
        End::of_held(fades_ns, index, place, self.table.key(place))
    }
}
