//! What counts, and what counting leads to.

use super::account::header;
use super::blocks::Block;
use super::course::Reached;
use super::decision::What;
use super::judging::Hit;
use super::table::{Key, Place};
use super::unit::holds;
use super::upkeep::End;
use super::view::View;
use super::{Engine, count::Amount};
use crate::event::{Event, Outcome};
use crate::policy::{Action, Count, Course, KeyPart, OnSuccess};

/// When an event is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the request is passed on.
    Question,
    /// After the response.
    Report,
    /// The same, read from what was written while nobody heard: late, and so perhaps behind
    /// what the key has counted since.
    Past,
    /// Both at once.
    Replay,
}

impl Engine {
    /// Counts a request that was decided. Where there are marks, those say which rules did.
    pub(super) fn count_hits(&mut self, view: &View<'_>, now_ns: u64, stage: Stage, refused: bool) {
        for index in 0..self.hits.len() {
            let hit = self.hits[index];
            if !hit.selected || refused && !self.units[hit.unit].rule.count_refused {
                continue;
            }
            let counted = self.count_hit(index, view, now_ns, stage);
            if let Some(mark) = self.marks.get_mut(hit.unit) {
                mark.counted = counted;
            }
        }
        if stage == Stage::Replay && !refused {
            self.note_outcomes(view, now_ns, None);
        }
    }

    /// Counts a report; `question` is what it is joined to. `repeated`: which question
    /// it answers cannot be told, so that only those rules count it that have not counted
    /// the questions already.
    pub(super) fn count_report(
        &mut self,
        view: &View<'_>,
        now_ns: u64,
        stage: Stage,
        question: Option<u32>,
        repeated: bool,
    ) {
        let was_asked = question.is_some() || view.event.asked;
        let matched: Vec<u64> = match was_asked {
            true => self.units.iter().map(|unit| unit.tally.matched).collect(),
            false => Vec::new(),
        };
        self.gather(view, stage, question);
        // What was asked about matched then.
        for (unit, matched) in self.units.iter_mut().zip(matched) {
            unit.tally.matched = matched;
        }
        for index in 0..self.hits.len() {
            let mut hit = self.hits[index];
            let mark = question.map(|at| self.questions.marks(at)[hit.unit]);
            if let Some(key) = mark.and_then(|mark| mark.key).filter(|key| *key != hit.key) {
                hit.key = key;
                hit.place = self.units[hit.unit].table.find(key);
                self.hits[index] = hit;
            }
            let unit = &self.units[hit.unit];
            let counted = match mark {
                Some(mark) => mark.counted,
                None if unit.counts_questions() => repeated || view.event.asked,
                None => repeated && unit.awaits(),
            };
            if !hit.selected || counted {
                continue;
            }
            if self.count_hit(index, view, now_ns, stage)
                && let Some(at) = question
            {
                self.questions.mark_mut(at, hit.unit).counted = true;
            }
        }
        self.note_outcomes(view, now_ns, question);
        self.order_blocks(view, now_ns);
    }

    /// What was asked under an id that is asked under again: what is reserved for it counts as
    /// failed, for its report may be hidden behind that of the other.
    pub(super) fn displace(&mut self, at: u32, now_ns: u64) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let lent = self.questions.lend(at);
        let asked = lent.asked();
        let event = Event::of(asked.source);
        let view = View::new(&event, Some(asked), &self.accounts, &mut scratch);
        self.hits.clear();
        for (unit, mark) in self.questions.marks(at).iter().enumerate() {
            if let Some(key) = mark.key.filter(|_| mark.reserved) {
                self.hits.push(Hit {
                    unit,
                    key,
                    place: None,
                    selected: true,
                    delay_ns: 0,
                });
            }
        }
        self.release(at);
        for index in 0..self.hits.len() {
            self.count_amount(index, &view, now_ns, Stage::Question, Amount::ONE);
        }
        self.questions.give_back(at, lent);
        self.questions.forget(at, now_ns);
        self.scratch = scratch;
    }

    /// Gives back what a question has reserved under the rules that a report settles.
    pub(super) fn settle(&mut self, at: u32, view: &View<'_>) {
        for index in 0..self.units.len() {
            if view.settles(&self.units[index].rule) {
                self.release_one(at, index);
            }
        }
    }

    /// Counts an event under one rule, if it counts there. Whether it did.
    fn count_hit(&mut self, index: usize, view: &View<'_>, now_ns: u64, stage: Stage) -> bool {
        match self.amount(self.hits[index].unit, view, stage) {
            Some(amount) => self.count_amount(index, view, now_ns, stage, amount),
            None => false,
        }
    }

    /// Counts what an event adds under one rule. Whether there was room.
    pub(super) fn count_amount(
        &mut self,
        index: usize,
        view: &View<'_>,
        now_ns: u64,
        stage: Stage,
        amount: Amount,
    ) -> bool {
        let hit = self.hits[index];
        let Some(place) = self.place_of(index, view, now_ns) else {
            return false;
        };
        let unit = &mut self.units[hit.unit];
        unit.tally.counted += 1;
        // In boruta itself an event counts when it has waited, so that any number can
        // wait at once; else it counts at once.
        let waited_ns = match unit.rule.course {
            Course::Boruta(boruta) if boruta.faithful => hit.delay_ns,
            _ => 0,
        };
        let key_ns = now_ns.max(unit.table.last_ns(place));
        let behind_ns = match stage {
            Stage::Past => key_ns - now_ns,
            _ => 0,
        };
        unit.table.touch(place, key_ns);
        let chance = chance(hit.key, key_ns);
        self.reached.clear();
        let (course, reached) = (&unit.course, &mut self.reached);
        let at_ns = key_ns.saturating_add(waited_ns);
        let state = unit.table.state_mut(place);
        course.count(state, at_ns, behind_ns, amount, chance, |it| {
            reached.push(it);
        });
        if unit.course.is_ladder() && unit.table.is_stored(place) {
            unit.table.change(place);
        }
        if !unit.counts_questions() {
            self.note(hit.unit, hit.key, 0, now_ns, What::Counted, Some(view));
        }
        for position in 0..self.reached.len() {
            let reached = self.reached[position];
            self.begin(hit, place, reached, view, key_ns);
        }
        self.clear_others(hit.unit, view, now_ns);
        true
    }

    /// What an event adds under a rule.
    fn amount(&mut self, index: usize, view: &View<'_>, stage: Stage) -> Option<Amount> {
        let unit = &self.units[index];
        if !unit.rule.selects_backend(view.backend) {
            return None;
        }
        let response = &view.event.response_headers;
        let is_told = stage != Stage::Question;
        let counts = match &unit.rule.count {
            Count::Requests | Count::Attempts => true,
            Count::Statuses(statuses) => {
                is_told && view.event.status.is_some_and(|it| statuses.contains(it))
            }
            Count::ResponseHeader(pattern) => {
                is_told
                    && response
                        .iter()
                        .any(|(name, value)| pattern.matches(name, value))
            }
            Count::Failures => is_told && view.outcome(&unit.rule) == Some(Outcome::Failure),
            Count::ScoreHeader(name) => {
                let score = header(response, name).filter(|_| is_told);
                let events = score.and_then(|score| score.parse().ok());
                return events
                    .filter(|events| (1..=1_000_000).contains(events))
                    .map(|events| Amount { events, value: 0 });
            }
            Count::Distinct(part) => {
                let shape = &self.shapes[unit.shape];
                let value = self.hasher.value(part, shape, view)?;
                return Some(Amount { events: 1, value });
            }
        };
        counts.then_some(Amount::ONE)
    }

    /// The place of a hit's key, which gets one if it has none and there is room.
    pub(super) fn place_of(&mut self, index: usize, view: &View<'_>, now_ns: u64) -> Option<Place> {
        let hit = self.hits[index];
        let unit = &mut self.units[hit.unit];
        let place = match hit.place {
            Some(place) if unit.table.is_at(place, hit.key) => place,
            _ => match unit.table.find(hit.key) {
                Some(place) => place,
                None => {
                    let maker = self.hasher.source(unit.prefixes, view.source) as u64;
                    let course = &unit.course;
                    let worth = |state: &[u64]| course.worth(state, now_ns);
                    let place = unit.table.insert(hit.key, maker, now_ns, worth)?;
                    if course.has_tags() {
                        let account = view.account.map(|it| self.hasher.account(it) as u64);
                        let tags = [maker, account.unwrap_or(0)];
                        course.tag(unit.table.state_mut(place), tags);
                    }
                    place
                }
            },
        };
        self.hits[index].place = Some(place);
        Some(place)
    }

    /// A timed action that should have begun earlier: for want of room then, or because a
    /// bucket tells only the event that it cannot hold.
    pub(super) fn begin_due(
        &mut self,
        hit: Hit,
        place: Place,
        part: usize,
        view: &View<'_>,
        now_ns: u64,
    ) {
        let unit = &self.units[hit.unit];
        let chance = chance(hit.key, now_ns);
        let until_ns = unit
            .course
            .end_ns(part, unit.table.state(place), now_ns, chance);
        self.begin(hit, place, Reached { part, until_ns }, view, now_ns);
    }

    /// Begins or lengthens an action.
    fn begin(&mut self, hit: Hit, place: Place, reached: Reached, view: &View<'_>, now_ns: u64) {
        let Reached { part, until_ns } = reached;
        let unit = &mut self.units[hit.unit];
        let (effect, is_timed) = {
            let part = &unit.course.parts[part];
            (part.effect, part.lasting_ns.is_some())
        };
        let has_room = unit.table.is_pinned(place) || unit.has_room();
        let action = match effect.action {
            Action::Block if holds(&self.exempt, view.source) => Some(Action::Block),
            Action::Block if !has_room => None,
            Action::Block => self.block(hit.unit, part, until_ns, view, now_ns),
            action => Some(action),
        };
        let Some(action) = action.filter(|_| has_room || !is_timed) else {
            self.units[hit.unit].tally.full += 1;
            let action = effect.action;
            self.note(
                hit.unit,
                hit.key,
                part,
                now_ns,
                What::Full { action },
                Some(view),
            );
            return;
        };
        let unit = &mut self.units[hit.unit];
        let simulated = unit.simulates(self.enforce, part);
        let mut rung = None;
        if is_timed {
            let state = unit.table.state_mut(place);
            rung = unit.course.begin(part, state, until_ns, now_ns, simulated);
            unit.table.change(place);
        }
        if has_room && !unit.table.is_pinned(place) {
            unit.table.pin(place);
            self.ends
                .push(End::of_key(until_ns, hit.unit, place, hit.key));
        }
        let what = What::Began {
            action,
            until_ns,
            rung: rung.unwrap_or(0),
            simulated,
            notify_owner: effect.notify_owner,
        };
        self.note(hit.unit, hit.key, part, now_ns, what, Some(view));
    }

    /// Blocks the source of an event, or challenges it if many share it; which of the
    /// two. `None`: there is no room.
    fn block(
        &mut self,
        index: usize,
        part: usize,
        until_ns: u64,
        view: &View<'_>,
        now_ns: u64,
    ) -> Option<Action> {
        let unit = &self.units[index];
        let key = self.hasher.source(unit.prefixes, view.source);
        let period_ns = unit.course.parts[part].period_ns;
        let account = view
            .account
            .map(|account| self.hasher.account(account) as u64);
        let is_shared = unit.spares_crowds
            && self
                .crowd
                .is_shared(key, account, now_ns.saturating_sub(period_ns));
        let unit = &mut self.units[index];
        let block = Block {
            source: unit.prefixes.source(view.source),
            until_ns,
            ordered_ns: 0,
            order_refused: false,
            restored: false,
            part,
            action: if is_shared {
                Action::Captcha
            } else {
                Action::Block
            },
            simulate: unit.simulates(self.enforce, part),
        };
        let (place, is_new) = unit.blocks.add(key, block, now_ns)?;
        let block = unit.blocks.at(place, key).unwrap_or(block);
        if is_new {
            self.ends
                .push(End::of_block(block.until_ns, index, place, key));
        }
        self.order(index, place, block, view, now_ns);
        Some(block.action)
    }

    /// A counted event of one rule may clear what others hold against the same keys.
    fn clear_others(&mut self, index: usize, view: &View<'_>, now_ns: u64) {
        for position in 0..self.units[index].clears.len() {
            let other = self.units[index].clears[position];
            let shape = &self.shapes[self.units[other].shape];
            if let Some(key) = self.hasher.key(shape, view) {
                self.clear_key(other, key, now_ns, Some(view));
            }
        }
    }

    /// Drops what a rule holds against a key, and the block of its source if that is for this
    /// key; `view` is an event of the key, if one is at hand. Whether there was anything.
    pub(super) fn clear_key(
        &mut self,
        index: usize,
        key: Key,
        now_ns: u64,
        view: Option<&View<'_>>,
    ) -> bool {
        let unit = &mut self.units[index];
        let Some(place) = unit.table.find(key) else {
            return false;
        };
        let state = unit.table.state(place);
        let mattered = unit.course.counts(state, now_ns);
        if unit.course.blocks(state, now_ns) {
            let source = view.map(|view| self.hasher.source(unit.prefixes, view.source));
            let source = source.or_else(|| unit.source_of(key, state));
            let block = source.and_then(|source| unit.blocks.find(source, now_ns));
            if let Some((block, _)) = block {
                self.lift_block(index, block, now_ns);
            }
        }
        let unit = &mut self.units[index];
        unit.course.clear(unit.table.state_mut(place));
        unit.table.unpin(place);
        unit.table.shorten(place);
        if mattered {
            self.note(index, key, 0, now_ns, What::Cleared, view);
        }
        mattered
    }

    /// What became of an attempt: for the counts of its key, and for what is known of
    /// its source; once for each question.
    fn note_outcomes(&mut self, view: &View<'_>, now_ns: u64, question: Option<u32>) {
        let mut outcome = view.told;
        for index in 0..self.hits.len() {
            let hit = self.hits[index];
            let unit = &mut self.units[hit.unit];
            let here = view.outcome(&unit.rule);
            outcome = outcome.or(here);
            let on_success = unit.rule.on_success;
            let succeeds = here == Some(Outcome::Success) && on_success != OnSuccess::Keep;
            if let Some(at) = question.filter(|_| here.is_some()) {
                let mark = self.questions.mark_mut(at, hit.unit);
                if std::mem::replace(&mut mark.noted, true) {
                    continue;
                }
            }
            if !hit.selected || !succeeds {
                continue;
            }
            if let Some(place) = hit.place.filter(|place| unit.table.is_at(*place, hit.key)) {
                let key_ns = now_ns.max(unit.table.last_ns(place));
                let state = unit.table.state_mut(place);
                unit.course.succeed(state, key_ns, on_success);
            }
        }
        let (Some(outcome), Some(account)) = (outcome, view.account) else {
            return;
        };
        if question.is_some_and(|at| !self.questions.is_first_noted(at)) {
            return;
        }
        let name = account;
        let account = self.hasher.account(account) as u64;
        if outcome == Outcome::Success {
            self.existing.note(name, account, now_ns);
        }
        // Once for each way of making a source.
        for (position, shape) in self.shapes.iter().enumerate() {
            let is_source =
                |unit: &super::Unit| unit.spares_crowds && unit.source_shape == position;
            if shape.parts == [KeyPart::Source] && self.units.iter().any(is_source) {
                let source = self.hasher.source(shape.prefixes, view.source);
                self.crowd.note(source, account, outcome, now_ns);
            }
        }
    }
}

/// A number that nobody can foretell without the secret that the key was made with,
/// and that is the same whenever the same happens.
fn chance(key: Key, now_ns: u64) -> u64 {
    // A finaliser of MurmurHash3, by Austin Appleby (public domain): each bit of the sum reaches all.
    let mut mixed = (key >> 64) as u64 ^ now_ns;
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53_u64] {
        mixed = (mixed ^ mixed >> 33).wrapping_mul(factor);
    }
    mixed ^ mixed >> 33
}
