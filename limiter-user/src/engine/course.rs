//! The course of a rule over the state of one key: what applies, what counting
//! leads to, and how it ends.

mod ladder;
mod part;
mod ruling;

use ladder::{LadderAt, rungs_at};
pub(super) use part::Part;
use part::{DRY, bucketed, windowed};
pub(super) use ruling::{Ruling, Shown};

use super::count::{Amount, Boruta, Counter, Standing};
use super::table::Worth;
use crate::policy::{self, Action, Effect, Gauge, KeyPart, OnSuccess, Rule};

/// The course of a rule, ready to run.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) parts: Vec<Part>,
    ladder: Option<LadderAt>,
    /// Where stands what is reserved, and until when.
    reserved: Option<usize>,
    /// Where stand the hashes of the source and of the account of a key that is made of more than
    /// these.
    tags: Option<usize>,
    words: usize,
    jitter_percent: u8,
    count_refused: bool,
    /// The words of a counter of which nothing is known, where a rung that is come down to finds
    /// those of another: all but logs are kept by the period.
    fallen: Vec<u64>,
}

/// What counting an event led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) part: usize,
    pub(super) until_ns: u64,
}

/// What a key holds beyond its counts, for the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) rungs: u64,
    pub(super) quiet_ns: u64,
    /// By part.
    pub(super) until_ns: Vec<u64>,
}

impl Course {
    pub(super) fn new(rule: &Rule) -> Self {
        let mut course = Self {
            parts: Vec::new(),
            ladder: None,
            reserved: None,
            tags: None,
            words: 0,
            jitter_percent: rule.jitter_percent,
            count_refused: rule.count_refused,
            fallen: Vec::new(),
        };
        if rule.reserve {
            course.reserved = Some(course.take(2));
        }
        if needs_tags(rule) {
            course.tags = Some(course.take(2));
        }
        match &rule.course {
            policy::Course::Tiers(tiers) => course.count_side_by_side(tiers, &rule.count),
            policy::Course::Ladder(ladder) => course.climb(ladder, &rule.count),
            policy::Course::Boruta(boruta) => course.penalise(boruta, rule.simulate),
        }
        course
    }

    fn count_side_by_side(&mut self, tiers: &[policy::Tier], count: &policy::Count) {
        for tier in tiers {
            let (counter, limit, period_ns) = match &tier.gauge {
                Gauge::Window(window) => windowed(window, count, window.threshold()),
                Gauge::TokenBucket(bucket) => bucketed(bucket),
            };
            let until = self.take(1);
            let then = self.take(usize::from(tier.effect.then.is_some()));
            let at = self.take(counter.words());
            self.parts.push(Part {
                counter,
                limit,
                period_ns,
                effect: tier.effect,
                lasting_ns: tier.lasting.map(nanos),
                at,
                until,
                then,
            });
        }
    }

    fn penalise(&mut self, boruta: &policy::Boruta, simulate: bool) {
        let counter = Boruta::new(
            u32::try_from(boruta.limit).unwrap_or(u32::MAX),
            u64::try_from(boruta.period.as_millis()).unwrap_or(u64::MAX),
            boruta.penalty_ms,
            boruta.timeout_ms,
            boruta.memory,
            boruta.faithful,
        );
        let until = self.take(1);
        let at = self.take(counter.words());
        self.parts.push(Part {
            counter: Counter::Boruta(counter),
            limit: boruta.limit,
            period_ns: nanos(boruta.period).saturating_mul(u64::from(boruta.memory)),
            effect: Effect {
                action: Action::Reject,
                wait_ms: 0,
                then: None,
                simulate,
                notify_owner: false,
                difficulty_bits: None,
            },
            lasting_ns: None,
            at,
            until,
            then: until,
        });
    }

    fn take(&mut self, words: usize) -> usize {
        let at = self.words;
        self.words += words;
        at
    }

    /// Words of a key's state.
    pub(super) const fn words(&self) -> usize {
        self.words
    }

    /// Counts an event; `reached` hears what that leads to, in the order of the parts. A
    /// timed action begins where there is room for one. An event that lies `behind_ns` before
    /// `now_ns`, which is the time of the key, counts for the parts whose period reaches so far.
    pub(super) fn count(
        &self,
        state: &mut [u64],
        now_ns: u64,
        behind_ns: u64,
        amount: Amount,
        chance: u64,
        mut reached: impl FnMut(Reached),
    ) {
        if let Some(ladder) = self.ladder {
            let acting = self.parts.iter().any(|part| part.until_ns(state) > now_ns);
            // What was asked before the action began is not held against the next rung.
            if acting && !self.count_refused {
                return;
            }
            self.descend(ladder, state, now_ns);
            state[ladder.quiet] = state[ladder.quiet].max(now_ns);
        }
        let climbing = self.rung(state, now_ns);
        for (index, part) in self.parts.iter().enumerate() {
            if climbing.is_some_and(|rung| rung != index) || behind_ns >= part.period_ns {
                continue;
            }
            // A bucket tells only the event that it cannot hold.
            let is_bucket = part.counter.delays();
            let was_over = part.counter.is_over(part.words(state), now_ns, 0);
            part.counter.add(part.words_mut(state), now_ns, amount);
            let is_over = match is_bucket {
                true => was_over,
                false => part.counter.is_over(part.words(state), now_ns, 0),
            };
            if !is_over {
                continue;
            }
            match part.lasting_ns {
                Some(_) => reached(Reached {
                    part: index,
                    until_ns: self.end_ns(index, state, now_ns, chance),
                }),
                None if was_over => {}
                None => reached(Reached {
                    part: index,
                    until_ns: part.judge(state, now_ns, 0).until_ns,
                }),
            }
        }
    }

    /// When the timed action of a part would end if it began now; it is only lengthened by
    /// chance, and never shortened by what began before.
    pub(super) fn end_ns(&self, part: usize, state: &[u64], now_ns: u64, chance: u64) -> u64 {
        let part = &self.parts[part];
        let lasting_ns = part.lasting_ns.unwrap_or(0);
        let most_ns = u128::from(lasting_ns) * u128::from(self.jitter_percent) / 100;
        let jitter_ns = ((most_ns + 1) * u128::from(chance)) >> 64;
        now_ns
            .saturating_add(lasting_ns)
            .saturating_add(u64::try_from(jitter_ns).unwrap_or(0))
            .max(part.until_ns(state))
            .min(!DRY)
    }

    /// For how long a timed action of a part lasts at most; without end where it has none.
    pub(super) fn longest_ns(&self, part: usize) -> u64 {
        let lasting_ns = self.parts.get(part).and_then(|part| part.lasting_ns);
        lasting_ns.map_or(u64::MAX, |lasting_ns| {
            let most_ns = u128::from(lasting_ns) * (100 + u128::from(self.jitter_percent)) / 100;
            u64::try_from(most_ns).unwrap_or(u64::MAX)
        })
    }

    /// Begins the timed action of a part: its count starts again from zero, and a ladder
    /// climbs. In a `dry` run what was done before goes on as it was. Gives the rung that is
    /// reached.
    pub(super) fn begin(
        &self,
        part: usize,
        state: &mut [u64],
        until_ns: u64,
        now_ns: u64,
        dry: bool,
    ) -> Option<u64> {
        let (index, part) = (part, &self.parts[part]);
        let goes_on = !part.is_dry(state) && part.until_ns(state) > now_ns;
        match dry {
            true if goes_on => {}
            true => state[part.until] = until_ns | DRY,
            false => state[part.until] = until_ns,
        }
        part.words_mut(state).fill(0);
        let ladder = self.ladder?;
        for part in &self.parts {
            part.words_mut(state).fill(0);
        }
        state[ladder.rungs] = (index as u64 + 1).max(state[ladder.rungs]);
        state[ladder.quiet] = until_ns;
        Some(state[ladder.rungs])
    }

    /// Forgets the action of a part that began while nothing was done, and the rungs that
    /// were reached by it. Whether there was one.
    pub(super) fn wake(&self, part: usize, state: &mut [u64]) -> bool {
        let part = &self.parts[part];
        if !part.is_dry(state) {
            return false;
        }
        state[part.until] = 0;
        if let Some(ladder) = self.ladder {
            state[ladder.rungs] = 0;
        }
        true
    }

    /// When neither an action nor a rung is left, of what is stored, if nothing more is
    /// counted.
    pub(super) fn fades_ns(&self, state: &[u64]) -> u64 {
        let foot_ns = self.ladder.map_or(0, |ladder| {
            let down_ns = ladder.decay_ns.saturating_mul(state[ladder.rungs]);
            state[ladder.quiet].saturating_add(down_ns)
        });
        let ends = self.parts.iter().map(|part| part.real_ns(state));
        ends.fold(foot_ns, u64::max)
    }

    /// The hashes of the source and of the account that a key is made of, if it is made of more
    /// than one of them.
    pub(super) fn tags(&self, state: &[u64]) -> Option<[u64; 2]> {
        self.tags.map(|at| [state[at], state[at + 1]])
    }

    pub(super) const fn has_tags(&self) -> bool {
        self.tags.is_some()
    }

    pub(super) fn tag(&self, state: &mut [u64], tags: [u64; 2]) {
        if let Some(at) = self.tags {
            state[at..at + 2].copy_from_slice(&tags);
        }
    }

    /// An attempt is under way.
    pub(super) fn reserve(&self, state: &mut [u64], until_ns: u64) {
        if let Some(at) = self.reserved {
            state[at] += 1;
            state[at + 1] = state[at + 1].max(until_ns);
        }
    }

    /// Its outcome is known, or its time is over.
    pub(super) fn release(&self, state: &mut [u64]) {
        if let Some(at) = self.reserved {
            state[at] = state[at].saturating_sub(1);
        }
    }

    /// What a success does to the counts; actions and rungs stay.
    pub(super) fn succeed(&self, state: &mut [u64], now_ns: u64, what: OnSuccess) {
        let climbing = self.rung(state, now_ns);
        for (index, part) in self.parts.iter().enumerate() {
            if climbing.is_some_and(|rung| rung != index) {
                continue;
            }
            match what {
                OnSuccess::Keep => {}
                OnSuccess::Reset => part.words_mut(state).fill(0),
                OnSuccess::Halve => part.counter.halve(part.words_mut(state), now_ns),
            }
        }
    }

    /// The challenge of a part was passed: that part starts again from zero, and what follows
    /// a refusal is done with. Whether it has one.
    pub(super) fn pass(&self, part: usize, state: &mut [u64]) -> bool {
        let Some(Part { effect, then, .. }) = self.parts.get(part) else {
            return false;
        };
        let is_challenge = effect.action.is_challenge();
        if is_challenge && self.ladder.is_none() {
            self.lift(part, state);
        }
        if effect.then.is_some() {
            state[*then] = 0;
        }
        is_challenge || effect.then.is_some()
    }

    /// Ends the action of a part, and forgets what it would begin anew for.
    pub(super) fn lift(&self, part: usize, state: &mut [u64]) {
        if let Some(part) = self.parts.get(part) {
            state[part.until] = 0;
            part.words_mut(state).fill(0);
        }
    }

    /// Forgets everything but what is under way.
    pub(super) fn clear(&self, state: &mut [u64]) {
        let kept = self.reserved.iter().chain(&self.tags).max();
        state[kept.map_or(0, |at| at + 2)..].fill(0);
    }

    /// Whether anything is known that still matters.
    pub(super) fn counts(&self, state: &[u64], now_ns: u64) -> bool {
        let matters = |part: &Part| {
            part.until_ns(state) > now_ns
                || part.effect.then.is_some() && state[part.then] > now_ns
                || !part
                    .counter
                    .idle(self.words_at(part, state, now_ns), now_ns)
        };
        self.reserved.is_some_and(|at| state[at] > 0)
            || self
                .ladder
                .is_some_and(|ladder| rungs_at(ladder, state, now_ns) > 0)
            || self.parts.iter().any(matters)
    }

    /// What a state is worth keeping for.
    pub(super) fn worth(&self, state: &[u64], now_ns: u64) -> Worth {
        if !self.counts(state, now_ns) {
            return Worth::Nothing;
        }
        let (reserved, _) = self.reservation(state);
        let holds_much = |part: &Part| {
            let standing = self.judge(part, state, now_ns, reserved);
            part.until_ns(state) > now_ns
                || part.effect.then.is_some() && state[part.then] > now_ns
                || standing.over
                || standing.delay_ns > 0
                || part.limit.saturating_sub(standing.remaining) > 1
        };
        if self.rungs(state, now_ns) > 0 || self.parts.iter().any(holds_much) {
            return Worth::Much;
        }
        Worth::Little
    }

    /// What is stored of a key; nothing of what began while nothing was done.
    pub(super) fn held(&self, state: &[u64]) -> Held {
        Held {
            rungs: self.ladder.map_or(0, |ladder| state[ladder.rungs]),
            quiet_ns: self.ladder.map_or(0, |ladder| state[ladder.quiet]),
            until_ns: self.parts.iter().map(|part| part.real_ns(state)).collect(),
        }
    }

    pub(super) fn hold(&self, state: &mut [u64], held: &Held) {
        for (part, until_ns) in self.parts.iter().zip(&held.until_ns) {
            state[part.until] = *until_ns & !DRY;
        }
        if let Some(ladder) = self.ladder {
            state[ladder.rungs] = held.rungs.min(self.parts.len() as u64);
            state[ladder.quiet] = held.quiet_ns;
        }
    }

    fn reservation(&self, state: &[u64]) -> (u64, u64) {
        self.reserved
            .map_or((0, 0), |at| (state[at], state[at + 1]))
    }

    fn judge(&self, part: &Part, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        part.counter
            .judge(self.words_at(part, state, now_ns), now_ns, reserved)
    }
}

/// Whether the keys of a rule must be found by the source or the account that they are made of, and
/// are not by themselves.
fn needs_tags(rule: &Rule) -> bool {
    let of_account = rule.key.contains(&KeyPart::Account) && rule.key.len() > 1;
    let blocks = super::unit::actions(rule).any(|action| action == Action::Block);
    of_account || blocks && rule.key != [KeyPart::Source]
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
