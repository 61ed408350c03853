//! Other rules take the place of those at work.

use super::decision::Ordered;
use super::key::Shape;
use super::unit::{self, Unit};
use super::{Engine, Prefixes, Snapshot};

use crate::policy::{Course, Decide, Rule};

/// What of a rule outlasts a change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Continuity {
    /// Nothing: it has another key, or more or fewer tiers or rungs.
    Nothing,
    /// Actions that have begun, rungs and blocks, by the place of their tier or rung; what is
    /// counted starts from zero.
    Actions,
    /// All, for no more has changed than who is let in, and what a refusal looks like.
    All,
}

impl Continuity {
    /// From one definition of a rule to another, with the prefixes of rules that name none.
    #[must_use]
    pub fn between(before: (&Rule, Prefixes), after: (&Rule, Prefixes)) -> Self {
        let prefixes = |(rule, edge)| unit::prefixes(rule, edge);
        let is_same_key = before.0.key == after.0.key
            && before.0.absent == after.0.absent
            && prefixes(before) == prefixes(after);
        let as_before = Rule {
            from: before.0.from.clone(),
            response: before.0.response.clone(),
            ..after.0.clone()
        };
        match is_same_key {
            true if as_before == *before.0 => Self::All,
            true if parts(before.0) == parts(after.0) => Self::Actions,
            _ => Self::Nothing,
        }
    }
}

/// A rule that a reload took away.
#[derive(Debug)]
pub(super) struct Aside {
    rule: Rule,
    prefixes: Prefixes,
    held: Snapshot,
}

/// How many tiers or rungs a rule has, and of which kind.
fn parts(rule: &Rule) -> (bool, usize) {
    match &rule.course {
        Course::Tiers(tiers) => (false, tiers.len()),
        Course::Ladder(ladder) => (true, ladder.rungs.len()),
        Course::Boruta(_) => (false, 1),
    }
}

impl Engine {
    /// Puts other rules into force. What a rule holds goes on by the rule of the same name as
    /// far as its [`Continuity`] says; the blocks of all others are taken back. What they held
    /// comes back if the next reload brings the rule back, as one that rolls a policy back
    /// does; with the counts begun anew.
    pub fn reload(&mut self, decide: &Decide, edge: Prefixes) {
        let mut before = std::mem::take(&mut self.units);
        self.accounts = decide.accounts.clone();
        self.exempt = decide.exempt.clone();
        self.enforce = decide.enforce;
        self.shapes.clear();
        self.build(decide, edge);
        let same = |unit: &Unit| before.iter().position(|it| it.name == unit.name);
        let same: Vec<_> = self.units.iter().map(same).collect();
        let (mut adopted, mut carried) = (Vec::new(), Vec::new());
        for (unit, same) in self.units.iter_mut().zip(same) {
            let continuity = same.map_or(Continuity::Nothing, |at| unit.continuity(&before[at]));
            adopted.push(same.filter(|_| continuity == Continuity::All));
            carried.push(same.filter(|_| continuity == Continuity::Actions));
            if let Some(at) = adopted.last().copied().flatten() {
                unit.adopt(&mut before[at]);
            }
        }
        // Who switches a rule or pauses reloads the same ones: that is no reload of theirs.
        let is_same = adopted.len() == before.len() && adopted.iter().all(Option::is_some);
        if !is_same {
            self.bring_back();
        }
        for (at, unit) in before.iter_mut().enumerate() {
            if adopted.contains(&Some(at)) {
                continue;
            }
            self.is_all_due = true;
            match carried.iter().position(|it| *it == Some(at)) {
                Some(index) => self.carry(unit, index),
                None => self.put_aside(unit),
            }
        }
        self.questions.remap(&adopted);
        for index in 0..self.units.len() {
            self.switch(index);
        }
        self.find_ends();
    }

    /// Takes in what rules held that a reload took away before the engine began: those of the
    /// policy `before` that are not at work any more. They come back as after a
    /// [reload](Self::reload).
    pub fn take_aside(&mut self, before: &Decide, edge: Prefixes, held: &Snapshot) {
        let is_gone = |rule: &&Rule| self.units.iter().all(|unit| *unit.name != *rule.name);
        let aside = before.rules.iter().filter(is_gone).map(|rule| Aside {
            rule: rule.clone(),
            prefixes: unit::prefixes(rule, edge),
            held: held.of_rule(&rule.name),
        });
        self.aside = aside.collect();
    }

    /// What rules held that are gone, but for those of which there is another of the name.
    pub(super) fn held_aside(&self) -> impl Iterator<Item = &Snapshot> {
        let is_gone = |aside: &&Aside| {
            let mut units = self.units.iter();
            units.all(|unit| *unit.name != *aside.rule.name)
        };
        self.aside.iter().filter(is_gone).map(|aside| &aside.held)
    }

    pub(super) fn build(&mut self, decide: &Decide, edge: Prefixes) {
        let shapes = &mut self.shapes;
        let mut shape_of = |shape: Shape| {
            shapes
                .iter()
                .position(|it| *it == shape)
                .unwrap_or_else(|| {
                    shapes.push(shape);
                    shapes.len() - 1
                })
        };
        let unit = |rule| Unit::new(rule, edge, &mut shape_of);
        self.units = decide.rules.iter().map(unit).collect();
        let at = |name: &String| decide.rules.iter().position(|rule| rule.name == *name);
        for (unit, rule) in self.units.iter_mut().zip(&decide.rules) {
            unit.clears = rule.clears.iter().filter_map(at).collect();
        }
        self.keys = vec![None; self.shapes.len()];
    }

    /// What a rule holds goes on by another definition of it.
    fn carry(&mut self, before: &mut Unit, index: usize) {
        let now_ns = self.latest_ns;
        self.restore(&before.snapshot(now_ns), now_ns);
        (self.units[index].mode, self.units[index].tally.matched_ns) =
            (before.mode, before.tally.matched_ns);
        let is_confined_alike = self.units[index].block_limit == before.block_limit;
        let blocks: Vec<_> = before.blocks.all().collect();
        for (_, key, block) in blocks {
            let unit = &mut self.units[index];
            let is_out = block.may_be_ordered(now_ns);
            match unit.blocks.find(key, now_ns) {
                Some((place, _)) if is_confined_alike => {
                    unit.blocks.take_order(place, block);
                }
                Some((place, _)) => {
                    unit.blocks.ordered(place, 0);
                    self.orders
                        .extend(is_out.then(|| before.order(block, Ordered::Withdraw)));
                }
                None => self
                    .orders
                    .extend(is_out.then(|| before.order(block, Ordered::Withdraw))),
            }
        }
    }

    /// What rules held that the reload before took away, and that are back.
    fn bring_back(&mut self) {
        self.is_all_due |= !self.aside.is_empty();
        for aside in std::mem::take(&mut self.aside) {
            let before = (&aside.rule, aside.prefixes);
            let unit = self.units.iter().find(|it| *it.name == *aside.rule.name);
            let continuity = unit.map_or(Continuity::Nothing, |unit| {
                Continuity::between(before, (&unit.rule, unit.prefixes))
            });
            if continuity != Continuity::Nothing {
                self.restore(&aside.held, self.latest_ns);
            }
        }
    }

    /// What a rule held that is gone.
    fn put_aside(&mut self, before: &mut Unit) {
        self.aside.push(Aside {
            held: before.snapshot(self.latest_ns),
            rule: before.rule.clone(),
            prefixes: before.prefixes,
        });
        before.withdraw(self.latest_ns, |_| true, &mut self.orders);
    }
}

impl Unit {
    fn continuity(&self, before: &Self) -> Continuity {
        Continuity::between((&before.rule, before.prefixes), (&self.rule, self.prefixes))
    }

    /// Takes over all that a rule of before has counted.
    fn adopt(&mut self, before: &mut Self) {
        debug_assert_eq!(self.course.words(), before.course.words());
        std::mem::swap(&mut self.table, &mut before.table);
        std::mem::swap(&mut self.blocks, &mut before.blocks);
        (self.mode, self.tally) = (before.mode, before.tally);
    }

    /// What it holds.
    pub(super) fn snapshot(&self, now_ns: u64) -> Snapshot {
        let keys = self.table.places();
        let blocks = self.blocks.all();
        Snapshot {
            keys: keys
                .filter_map(|place| self.held_key(place, now_ns))
                .collect(),
            blocks: blocks
                .filter_map(|(.., block)| self.held_block(block, now_ns))
                .collect(),
        }
    }
}
