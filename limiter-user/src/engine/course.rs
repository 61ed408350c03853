//! The course of a rule over the state of one key: what applies, what counting
//! leads to, and how it ends.

use super::count::{Amount, Boruta, Bucket, Counter, Distinct, Fixed, Log, Standing, Window};
use super::table::Worth;
use crate::policy::{self, Action, Algorithm, Count, Effect, Gauge, KeyPart, OnSuccess, Rule};

/// A tier or rung at work.
#[derive(Clone, Debug)]
pub(super) struct Part {
    counter: Counter,
    /// How many pass.
    limit: u64,
    pub(super) period_ns: u64,
    pub(super) effect: Effect,
    pub(super) lasting_ns: Option<u64>,
    /// Where the counter's words stand.
    at: usize,
    /// Where stand the end of its timed action and that of the challenge behind it.
    until: usize,
    then: usize,
}

/// Marks the end of an action that began while nothing was done: it is not done later either.
/// No real end is so late, in the year 2262.
const DRY: u64 = 1 << 63;

/// Where a ladder's words stand: how many rungs are reached, and since when it is
/// quiet.
#[derive(Clone, Copy, Debug)]
struct LadderAt {
    rungs: usize,
    quiet: usize,
    decay_ns: u64,
}

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

/// What a part wants done to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruling {
    pub(super) part: usize,
    pub(super) action: Action,
    pub(super) until_ns: u64,
    pub(super) delay_ns: u64,
    /// Whether its timed action is still to begin.
    pub(super) due: bool,
    /// Whether it is a timed action that has begun.
    pub(super) begun: bool,
}

/// What counting an event led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) part: usize,
    pub(super) until_ns: u64,
}

/// What headers tell of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) reset_ns: u64,
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
            policy::Course::Tiers(tiers) => {
                for tier in tiers {
                    let (counter, limit, period_ns) = match &tier.gauge {
                        Gauge::Window(window) => windowed(window, &rule.count, window.threshold()),
                        Gauge::TokenBucket(bucket) => bucketed(bucket),
                    };
                    let until = course.take(1);
                    let then = course.take(usize::from(tier.effect.then.is_some()));
                    let at = course.take(counter.words());
                    course.parts.push(Part {
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
            policy::Course::Ladder(ladder) => course.climb(ladder, &rule.count),
            policy::Course::Boruta(boruta) => {
                let counter = Boruta::new(
                    u32::try_from(boruta.limit).unwrap_or(u32::MAX),
                    u64::try_from(boruta.period.as_millis()).unwrap_or(u64::MAX),
                    boruta.penalty_ms,
                    boruta.timeout_ms,
                    boruta.memory,
                    boruta.faithful,
                );
                let until = course.take(1);
                let at = course.take(counter.words());
                course.parts.push(Part {
                    counter: Counter::Boruta(counter),
                    limit: boruta.limit,
                    period_ns: nanos(boruta.period),
                    effect: Effect {
                        action: Action::Reject,
                        wait_ms: 0,
                        then: None,
                        simulate: rule.simulate,
                        notify_owner: false,
                    },
                    lasting_ns: None,
                    at,
                    until,
                    then: until,
                });
            }
        }
        course
    }

    /// The rungs share one state: a ladder counts for one of them at a time.
    fn climb(&mut self, ladder: &policy::Ladder, count: &Count) {
        let (rungs, quiet) = (self.take(1), self.take(1));
        self.ladder = Some(LadderAt {
            rungs,
            quiet,
            decay_ns: nanos(ladder.decay),
        });
        let logs = |rung: &&policy::Rung| rung.window.algorithm == Algorithm::SlidingLog;
        let room = ladder
            .rungs
            .iter()
            .filter(logs)
            .map(|rung| rung.window.threshold())
            .max();
        let counters: Vec<_> = ladder
            .rungs
            .iter()
            .map(|rung| windowed(&rung.window, count, room.unwrap_or(1)))
            .collect();
        let words = counters.iter().map(|(counter, ..)| counter.words()).max();
        let at = self.take(words.unwrap_or(0));
        for (rung, (counter, limit, period_ns)) in ladder.rungs.iter().zip(counters) {
            let until = self.take(1);
            let then = self.take(usize::from(rung.effect.then.is_some()));
            self.parts.push(Part {
                counter,
                limit,
                period_ns,
                effect: rung.effect,
                lasting_ns: Some(nanos(rung.lasting)),
                at,
                until,
                then,
            });
        }
        if self.parts.iter().any(|part| !part.logs()) {
            self.fallen = vec![0; words.unwrap_or(0)];
        }
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

    /// What the parts want done to a request at `now_ns`.
    pub(super) fn rulings<'a>(
        &'a self,
        state: &'a [u64],
        now_ns: u64,
    ) -> impl Iterator<Item = Ruling> + 'a {
        let climbing = self.rung(state, now_ns);
        self.parts
            .iter()
            .enumerate()
            .filter_map(move |(index, part)| {
                let counts = climbing.is_none_or(|rung| rung == index);
                self.ruling(part, index, state, now_ns, counts)
            })
    }

    fn ruling(
        &self,
        part: &Part,
        index: usize,
        state: &[u64],
        now_ns: u64,
        counts: bool,
    ) -> Option<Ruling> {
        let rule = |action, until_ns, delay_ns, due| {
            Some(Ruling {
                part: index,
                action,
                until_ns,
                delay_ns,
                due,
                begun: false,
            })
        };
        let wait_ns = part.wait_ns();
        let until_ns = part.until_ns(state);
        if until_ns > now_ns {
            return rule(part.effect.action, until_ns, wait_ns, false).map(|ruling| Ruling {
                begun: true,
                ..ruling
            });
        }
        let (reserved, reserved_ns) = self.reservation(state);
        let may_say = || {
            part.counter.delays()
                || part
                    .counter
                    .is_over(self.words_at(part, state, now_ns), now_ns, reserved)
        };
        if counts && may_say() {
            let standing = self.judge(part, state, now_ns, reserved);
            if standing.over {
                let due = part.lasting_ns.is_some() && standing.until_ns > now_ns;
                let until_ns = if standing.until_ns > now_ns {
                    standing.until_ns
                } else {
                    reserved_ns
                };
                return rule(part.effect.action, until_ns, wait_ns, due);
            }
            if standing.delay_ns > 0 {
                let until_ns = now_ns.saturating_add(standing.delay_ns);
                return rule(Action::Throttle, until_ns, standing.delay_ns, false);
            }
        }
        match part.effect.then {
            Some(then) if state[part.then] > now_ns => rule(then, state[part.then], 0, false),
            _ => None,
        }
    }

    /// Counts an event; `reached` hears what that leads to, in the order of the parts. A
    /// timed action begins where there is room for one.
    pub(super) fn count(
        &self,
        state: &mut [u64],
        now_ns: u64,
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
            if climbing.is_some_and(|rung| rung != index) {
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

    /// The rung of a part, from 1; 0: it is no ladder.
    pub(super) const fn rung_of(&self, part: usize) -> u64 {
        match self.ladder {
            Some(_) => part as u64 + 1,
            None => 0,
        }
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

    pub(super) const fn is_ladder(&self) -> bool {
        self.ladder.is_some()
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

    /// Whether a challenge is offered to whom it refuses, once that is over. That another rule
    /// refuses the same request more sharply takes nothing from it.
    pub(super) fn offers_challenge(&self, ruling: Ruling) -> bool {
        let effect = self.parts[ruling.part].effect;
        effect.then.is_some() && ruling.action == effect.action
    }

    /// Offers the challenge for as long as the part looks back, from the end of the refusal.
    pub(super) fn offer(&self, ruling: Ruling, state: &mut [u64]) {
        let part = &self.parts[ruling.part];
        let until_ns = ruling.until_ns.saturating_add(part.period_ns);
        state[part.then] = state[part.then].max(until_ns);
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

    /// Whether the key is one of those for which its source is blocked.
    pub(super) fn blocks(&self, state: &[u64], now_ns: u64) -> bool {
        self.rulings(state, now_ns)
            .any(|ruling| ruling.action == Action::Block)
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

    /// What the parts want done where a key has no state because its source may have no
    /// more: each as if it were over, but no block.
    pub(super) fn closed(&self, until_ns: u64) -> impl Iterator<Item = Ruling> + '_ {
        self.parts
            .iter()
            .enumerate()
            .map(move |(index, part)| Ruling {
                part: index,
                action: part.effect.action.min(Action::Reject),
                until_ns,
                delay_ns: part.wait_ns(),
                begun: false,
                due: false,
            })
    }

    /// When the last of what is active ends; now or earlier if nothing is.
    pub(super) fn active_until_ns(&self, state: &[u64], now_ns: u64) -> u64 {
        let climbing = self.rung(state, now_ns);
        let ends = self.parts.iter().enumerate().map(|(index, part)| {
            let counts = climbing.is_none_or(|rung| rung == index);
            let over_ns = match counts && part.lasting_ns.is_none() {
                true => self.judge(part, state, now_ns, 0).until_ns,
                false => 0,
            };
            over_ns.max(part.until_ns(state))
        });
        ends.max().unwrap_or(0)
    }

    /// What headers tell of it: the part with the least left.
    pub(super) fn shown(&self, state: &[u64], now_ns: u64) -> Option<Shown> {
        let climbing = self.rung(state, now_ns);
        let (reserved, _) = self.reservation(state);
        let parts = self.parts.iter().enumerate();
        let shown = parts.filter_map(|(index, part)| {
            if part.until_ns(state) > now_ns {
                return Some(Shown {
                    limit: part.limit,
                    remaining: 0,
                    reset_ns: part.until_ns(state),
                });
            }
            let counts = climbing.is_none_or(|rung| rung == index);
            counts.then(|| {
                let standing = self.judge(part, state, now_ns, reserved);
                Shown {
                    limit: part.limit,
                    remaining: standing.remaining,
                    reset_ns: standing.reset_ns.max(now_ns),
                }
            })
        });
        shown.min_by_key(|shown| (shown.remaining, shown.limit))
    }

    /// The rungs that a key has reached and not yet come down from.
    pub(super) fn rungs(&self, state: &[u64], now_ns: u64) -> u64 {
        self.ladder
            .map_or(0, |ladder| rungs_at(ladder, state, now_ns))
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

    /// The part that a ladder counts for.
    fn rung(&self, state: &[u64], now_ns: u64) -> Option<usize> {
        let ladder = self.ladder?;
        let reached = usize::try_from(rungs_at(ladder, state, now_ns)).unwrap_or(usize::MAX);
        Some(reached.min(self.parts.len().saturating_sub(1)))
    }

    fn judge(&self, part: &Part, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        part.counter
            .judge(self.words_at(part, state, now_ns), now_ns, reserved)
    }

    /// A part's words, as they are when the ladder has [come down](Self::descend).
    fn words_at<'a>(&'a self, part: &Part, state: &'a [u64], now_ns: u64) -> &'a [u64] {
        let fell = |ladder: LadderAt| rungs_at(ladder, state, now_ns) != state[ladder.rungs];
        if !self.fallen.is_empty() && self.ladder.is_some_and(fell) {
            return &self.fallen[..part.counter.words()];
        }
        part.words(state)
    }

    /// Brings a ladder down by one rung for each quiet time.
    fn descend(&self, ladder: LadderAt, state: &mut [u64], now_ns: u64) {
        let reached = rungs_at(ladder, state, now_ns);
        if reached == state[ladder.rungs] {
            return;
        }
        let fallen = state[ladder.rungs] - reached;
        state[ladder.rungs] = reached;
        let quiet_ns = ladder.decay_ns.saturating_mul(fallen);
        state[ladder.quiet] = state[ladder.quiet].saturating_add(quiet_ns);
        if !self.fallen.is_empty() {
            for part in &self.parts {
                part.words_mut(state).fill(0);
            }
        }
    }
}

impl Part {
    /// How long a request is to wait; only [`Action::Throttle`] makes it.
    fn wait_ns(&self) -> u64 {
        match self.effect.action {
            Action::Throttle => self.effect.wait_ms.saturating_mul(1_000_000),
            _ => 0,
        }
    }

    /// When its timed action ends, done or not.
    fn until_ns(&self, state: &[u64]) -> u64 {
        state[self.until] & !DRY
    }

    /// When what is done ends.
    fn real_ns(&self, state: &[u64]) -> u64 {
        match self.is_dry(state) {
            true => 0,
            false => state[self.until],
        }
    }

    fn is_dry(&self, state: &[u64]) -> bool {
        state[self.until] & DRY != 0
    }

    fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        self.counter.judge(self.words(state), now_ns, reserved)
    }

    fn logs(&self) -> bool {
        matches!(self.counter, Counter::Log(_))
    }

    fn words<'a>(&self, state: &'a [u64]) -> &'a [u64] {
        &state[self.at..self.at + self.counter.words()]
    }

    fn words_mut<'a>(&self, state: &'a mut [u64]) -> &'a mut [u64] {
        &mut state[self.at..self.at + self.counter.words()]
    }
}

/// Whether the keys of a rule must be found by the source or the account that they are made of, and
/// are not by themselves.
fn needs_tags(rule: &Rule) -> bool {
    let of_account = rule.key.contains(&KeyPart::Account) && rule.key.len() > 1;
    let blocks = super::unit::actions(rule).any(|action| action == Action::Block);
    of_account || blocks && rule.key != [KeyPart::Source]
}

fn rungs_at(ladder: LadderAt, state: &[u64], now_ns: u64) -> u64 {
    let quiet = now_ns.saturating_sub(state[ladder.quiet]) / ladder.decay_ns.max(1);
    state[ladder.rungs].saturating_sub(quiet)
}

fn windowed(window: &policy::Window, count: &Count, room: u64) -> (Counter, u64, u64) {
    let (limit, period_ns) = (window.threshold(), nanos(window.period));
    let counter = match (count, window.algorithm) {
        (Count::Distinct(_), _) => Counter::Distinct(Distinct::new(limit, period_ns)),
        (_, Algorithm::SlidingLog) => Counter::Log(Log::new(limit, period_ns, room)),
        (_, Algorithm::SlidingWindow) => Counter::Window(Window::new(limit, period_ns)),
        (_, Algorithm::FixedWindow) => Counter::Fixed(Fixed::new(limit, period_ns)),
    };
    (counter, limit, period_ns)
}

fn bucketed(bucket: &policy::TokenBucket) -> (Counter, u64, u64) {
    let rate = bucket.rate;
    // The first never waits: it is what the others wait for.
    let undelayed = bucket.delay.map(|delay| delay.saturating_sub(1));
    let counter = Bucket::new(rate.amount, rate.per_ns, bucket.burst, undelayed);
    let full_ns = u64::try_from(rate.time_for_ns(bucket.burst)).unwrap_or(u64::MAX);
    (Counter::Bucket(counter), bucket.burst, full_ns)
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
