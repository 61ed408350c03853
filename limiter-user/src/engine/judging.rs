//! What is to be done with a request: what the rules say, and the strongest of it.

use super::clearing::Clearing;
use super::counting::Stage;
use super::course::Ruling;
use super::decision::{Decision, Reason, SECOND_NS, What};
use super::questions::{Mark, RESERVE_NS};
use super::table::{Key, Place};
use super::telling::tell;
use super::unit::holds;
use super::view::View;
use super::{Engine, count::Amount};
use crate::policy::Action;
use std::sync::Arc;

/// For how long a source is told to wait that may bring no further key.
const CLOSED_NS: u64 = 30 * SECOND_NS;

/// A rule that has a say about an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) unit: usize,
    pub(super) key: Key,
    pub(super) place: Option<Place>,
    /// Whether the rule selects it; else only its action applies.
    pub(super) selected: bool,
    /// How long the rule makes it wait.
    pub(super) delay_ns: u64,
}

/// What one rule wants done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    pub(super) unit: usize,
    pub(super) key: Key,
    pub(super) part: usize,
    pub(super) action: Action,
    pub(super) reason: Option<Reason>,
    /// `u64::MAX`: it has no end.
    pub(super) until_ns: u64,
    pub(super) delay_ns: u64,
}

/// The strongest, a gate's before others, and among equals the longest.
#[derive(Clone, Copy, Debug, Default)]
struct Strongest(Option<Say>);

impl Strongest {
    fn hear(&mut self, say: Say) {
        let weight = |say: &Say| (say.action, say.reason, say.delay_ns, say.until_ns);
        if self.0.is_none_or(|held| weight(&held) < weight(&say)) {
            self.0 = Some(say);
        }
    }
}

impl Engine {
    /// Decides, then counts what counts at this stage. Under `id` the question is kept, and
    /// beside it stands whether another had it before. `clearing` is what was solved for
    /// this request.
    pub(super) fn decide(
        &mut self,
        view: &View<'_>,
        now_ns: u64,
        stage: Stage,
        mut clearing: Clearing<'_>,
        id: Option<(Key, bool)>,
    ) -> Decision {
        self.gather(view, stage, None);
        let (real, simulated) = self.judge(view, now_ns, &mut clearing);
        let refused = real.is_some_and(|say| say.action > Action::Throttle);
        for say in real.iter().chain(&simulated) {
            self.units[say.unit].tally.by_action[say.action as usize] += 1;
            if say.action > Action::Throttle {
                let what = What::Refused {
                    action: say.action,
                    reason: say.reason,
                    simulated: !refused || Some(say.unit) != real.map(|real| real.unit),
                };
                self.note(say.unit, say.key, say.part, now_ns, what, Some(view));
            }
        }
        let marks = match id {
            Some(_) => self.units.len(),
            None => 0,
        };
        self.marks.resize(marks, Mark::default());
        self.count_hits(view, now_ns, stage, refused);
        if let (Stage::Question, Some((id, repeated))) = (stage, id) {
            self.keep_question(id, repeated, view, now_ns, refused);
        }
        let mut decision = self.show(now_ns);
        decision.simulated = simulated.map(|say| say.action);
        if let Some(say) = real.or(simulated) {
            decision.part = Some(say.part);
            decision.reason = say.reason;
            decision.rule = Some(Arc::clone(&self.units[say.unit].name));
        }
        decision.cleared = clearing.used;
        if let Some(say) = real {
            tell(&mut decision, say, view, now_ns);
        }
        decision
    }

    /// Finds the rules that have a say, and their keys. A report that lacks a part of a key has
    /// the key of its question.
    ///
    /// With many keys, most of an event's time is waiting for memory. So the buckets of
    /// all rules are asked for first, then the places that these name, and only then is any
    /// of them looked at: the waits overlap.
    pub(super) fn gather(&mut self, view: &View<'_>, stage: Stage, question: Option<u32>) {
        self.hits.clear();
        self.gated.clear();
        self.unclear.clear();
        self.keys.fill(None);
        let is_exempt = holds(&self.exempt, view.source);
        for (index, unit) in self.units.iter_mut().enumerate() {
            if !view.is_subject_to(&unit.rule) {
                continue;
            }
            let is_plain = unit.rule.apply.is_empty() && unit.rule.backends.is_empty();
            let selected = is_plain || view.is_selected_by(&unit.rule, stage);
            let is_shut_out = selected && unit.shuts_out(view.source);
            if is_shut_out {
                self.gated.push(index);
            }
            let is_covered = unit.covers(view.source, is_exempt);
            if !is_covered && !is_shut_out {
                continue;
            }
            if selected {
                unit.tally.matched += 1;
                unit.tally.matched_ns = unit.tally.matched_ns.max(self.latest_ns);
            }
            if !is_covered || unit.rule.is_gate_alone() {
                continue;
            }
            let shape = &self.shapes[unit.shape];
            let key = *self.keys[unit.shape].get_or_insert_with(|| self.hasher.key(shape, view));
            let asked = || question.and_then(|at| self.questions.marks(at)[index].key);
            let Some(key) = key.or_else(asked) else {
                unit.tally.key_absent += u64::from(selected);
                if selected && view.is_unclear && unit.by_account {
                    self.unclear.push(index);
                }
                continue;
            };
            self.hits.push(Hit {
                unit: index,
                key,
                place: None,
                selected,
                delay_ns: 0,
            });
        }
        for hit in &mut self.hits {
            hit.place = self.units[hit.unit].table.likely(hit.key);
        }
        for hit in &self.hits {
            if let Some(place) = hit.place {
                self.units[hit.unit].table.fetch(place);
            }
        }
        for hit in &mut self.hits {
            hit.place = self.units[hit.unit].table.find(hit.key);
        }
    }

    /// What is done, and what a simulated rule would do, beyond the challenges that were
    /// solved.
    fn judge(
        &mut self,
        view: &View<'_>,
        now_ns: u64,
        clearing: &mut Clearing<'_>,
    ) -> (Option<Say>, Option<Say>) {
        let (mut real, mut simulated) = (Strongest::default(), Strongest::default());
        for index in 0..self.units.len() {
            // Who solves the challenge in place of one ends it; no clearance does away with the next.
            if let Some((key, block)) = self.block_of(index, view, now_ns) {
                let say = Say {
                    unit: index,
                    key,
                    part: block.part,
                    action: block.action,
                    reason: None,
                    until_ns: block.until_ns,
                    delay_ns: 0,
                };
                let simulates =
                    block.simulate || self.units[index].simulates(self.enforce, block.part);
                if simulates { &mut simulated } else { &mut real }.hear(say);
                self.units[index].tally.over += 1;
            }
        }
        for index in self.gated.iter().copied() {
            let unit = &mut self.units[index];
            let say = Say {
                unit: index,
                key: self.hasher.source(unit.prefixes, view.source),
                part: 0,
                action: Action::Reject,
                reason: Some(Reason::NotFrom),
                until_ns: u64::MAX,
                delay_ns: 0,
            };
            let simulates = unit.only_simulates(self.enforce);
            if simulates { &mut simulated } else { &mut real }.hear(say);
            unit.tally.not_from += 1;
            unit.tally.over += 1;
        }
        // Whose account nobody can tell would get around the rule: it has to prove something else.
        for index in self.unclear.iter().copied() {
            let (action, unit) = (Action::JsChallenge, &self.units[index]);
            // Of its source, but none of the keys that anything is counted under.
            let source = self.hasher.source(unit.prefixes, view.source);
            let key = self.hasher.text(&source.to_le_bytes());
            if clearing.waives(&unit.rule, 0, key, action) {
                continue;
            }
            let say = Say {
                unit: index,
                key,
                part: 0,
                action,
                reason: None,
                until_ns: now_ns.saturating_add(SECOND_NS),
                delay_ns: 0,
            };
            let simulates = self.units[index].simulates(self.enforce, 0);
            if simulates { &mut simulated } else { &mut real }.hear(say);
            self.units[index].tally.over += 1;
        }
        for index in 0..self.hits.len() {
            let hit = self.hits[index];
            // What its gate has refused is over already.
            let is_over_before = self.gated.contains(&hit.unit);
            let Some(place) = hit.place else {
                if self.is_closed(hit, view, now_ns) {
                    let unit = &mut self.units[hit.unit];
                    let until_ns = now_ns.saturating_add(CLOSED_NS);
                    for ruling in unit.course.closed(until_ns) {
                        let (part, action) = (ruling.part, ruling.action);
                        if clearing.waives(&unit.rule, part, hit.key, action) {
                            continue;
                        }
                        let simulates = unit.simulates(self.enforce, ruling.part);
                        if simulates { &mut simulated } else { &mut real }.hear(say(hit, ruling));
                    }
                    unit.tally.over += u64::from(!is_over_before);
                }
                continue;
            };
            let mut due = None;
            let is_blocked = self.block_of(hit.unit, view, now_ns).is_some();
            let unit = &mut self.units[hit.unit];
            let key_ns = now_ns.max(unit.table.last_ns(place));
            let mut over = false;
            let mut offers = Vec::new();
            for ruling in unit.course.rulings(unit.table.state(place), key_ns) {
                // The block of the source stands for it, or what it gets in its place. If there
                // is none any more, it was taken back.
                let is_lifted = ruling.action == Action::Block && (is_blocked || ruling.begun);
                let (part, action) = (ruling.part, ruling.action);
                if is_lifted || clearing.waives(&unit.rule, part, hit.key, action) {
                    continue;
                }
                over = true;
                let simulates = unit.simulates(self.enforce, ruling.part);
                let say = say(hit, ruling);
                if simulates { &mut simulated } else { &mut real }.hear(say);
                if !simulates && ruling.action == Action::Throttle {
                    self.hits[index].delay_ns = self.hits[index].delay_ns.max(ruling.delay_ns);
                }
                if !simulates && unit.course.offers_challenge(ruling) {
                    offers.push(ruling);
                }
                due = due.or(ruling.due.then_some(ruling.part));
            }
            unit.tally.over += u64::from(over && !is_blocked && !is_over_before);
            for ruling in offers {
                unit.course.offer(ruling, unit.table.state_mut(place));
            }
            if let Some(part) = due {
                self.begin_due(hit, place, part, view, key_ns);
            }
        }
        (real.0, simulated.0)
    }

    /// Whether a key that is not tracked would not be, because its source brought as many as
    /// it may: what came of the request could not be counted.
    fn is_closed(&mut self, hit: Hit, view: &View<'_>, now_ns: u64) -> bool {
        let unit = &mut self.units[hit.unit];
        if !hit.selected || !unit.table.has_quota() {
            return false;
        }
        let maker = self.hasher.source(unit.prefixes, view.source) as u64;
        let course = &unit.course;
        let worth = |state: &[u64]| course.worth(state, now_ns);
        !unit.table.has_room_for(maker, worth)
    }

    /// Keeps a question for its report, and reserves what rules reserve. Where the id
    /// was another question's before, nobody can tell whose report comes: then what would be
    /// reserved counts as failed at once.
    fn keep_question(
        &mut self,
        id: Key,
        repeated: bool,
        view: &View<'_>,
        now_ns: u64,
        refused: bool,
    ) {
        for index in 0..self.hits.len() {
            let hit = self.hits[index];
            if !hit.selected {
                continue;
            }
            self.marks[hit.unit].key = Some(hit.key);
            if refused || !self.units[hit.unit].awaits() {
                continue;
            }
            if repeated {
                self.count_amount(index, view, now_ns, Stage::Question, Amount::ONE);
                continue;
            }
            if let Some(place) = self.place_of(index, view, now_ns) {
                let unit = &mut self.units[hit.unit];
                let until_ns = now_ns.saturating_add(RESERVE_NS);
                unit.course.reserve(unit.table.state_mut(place), until_ns);
                self.marks[hit.unit].reserved = true;
            }
        }
        let marks = &self.marks;
        self.questions
            .ask(id, view, now_ns, refused, repeated, marks);
        self.marks.clear();
    }
}

fn say(hit: Hit, ruling: Ruling) -> Say {
    Say {
        unit: hit.unit,
        key: hit.key,
        part: ruling.part,
        action: ruling.action,
        reason: None,
        until_ns: ruling.until_ns,
        delay_ns: ruling.delay_ns,
    }
}
