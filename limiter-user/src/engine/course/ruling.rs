//! What the parts of a rule want done to a request, and what headers tell of it.

use super::Course;
use super::part::Part;
use crate::policy::Action;

/// What a part wants done to a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Ruling {
    pub(in crate::engine) part: usize,
    pub(in crate::engine) action: Action,
    pub(in crate::engine) until_ns: u64,
    pub(in crate::engine) delay_ns: u64,
    /// Whether its timed action is still to begin.
    pub(in crate::engine) due: bool,
    /// Whether it is a timed action that has begun.
    pub(in crate::engine) begun: bool,
}

/// What headers tell of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Shown {
    pub(in crate::engine) limit: u64,
    pub(in crate::engine) remaining: u64,
    pub(in crate::engine) reset_ns: u64,
}

impl Course {
    /// What the parts want done to a request at `now_ns`.
    pub(in crate::engine) fn rulings<'a>(
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

    /// Whether a challenge is offered to whom it refuses, once that is over. That another rule
    /// refuses the same request more sharply takes nothing from it.
    pub(in crate::engine) fn offers_challenge(&self, ruling: Ruling) -> bool {
        let effect = self.parts[ruling.part].effect;
        effect.then.is_some() && ruling.action == effect.action
    }

    /// Offers the challenge for as long as the part looks back, from the end of the refusal.
    pub(in crate::engine) fn offer(&self, ruling: Ruling, state: &mut [u64]) {
        let part = &self.parts[ruling.part];
        let until_ns = ruling.until_ns.saturating_add(part.period_ns);
        state[part.then] = state[part.then].max(until_ns);
    }

    /// What the parts want done where a key has no state because its source may have no
    /// more: each as if it were over, but no block.
    pub(in crate::engine) fn closed(&self, until_ns: u64) -> impl Iterator<Item = Ruling> + '_ {
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
    pub(in crate::engine) fn active_until_ns(&self, state: &[u64], now_ns: u64) -> u64 {
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
    pub(in crate::engine) fn shown(&self, state: &[u64], now_ns: u64) -> Option<Shown> {
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

    /// Whether the key is one of those for which its source is blocked.
    pub(in crate::engine) fn blocks(&self, state: &[u64], now_ns: u64) -> bool {
        self.rulings(state, now_ns)
            .any(|ruling| ruling.action == Action::Block)
    }
}
