//! A policy in force for a time: until it is confirmed, or until a pause is over.
//!
//! The program itself goes back to the row of before at the clock step that is
//! written beside both generations; nobody need be there. So nothing that the
//! policy of before needs may be changed until its successor stays: limits that
//! are gone keep their slots, and with them their blocks and counters.

use super::{DataPlane, clock::Clock, error::Error, model::Term};
use crate::policy::{Exceed, Policy};
use limiter_common::layout::{Active, LIMITS, NEVER, PAUSED, UNCONFIRMED, row};
use std::{collections::HashSet, time::Duration};

/// By which generations packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    /// As in [`Active`]; the latest that any packet went by.
    pub(super) generation: u32,
    pub(super) then: u32,
    /// 0: it is known to be over.
    pub(super) until_step: u64,
    pub(super) term: Option<Term>,
}

impl InForce {
    /// One that stays.
    pub(super) const fn lasting(generation: u32) -> Self {
        Self {
            generation,
            then: generation,
            until_step: NEVER,
            term: None,
        }
    }

    /// What another process wrote, at `step`.
    pub(super) const fn of(active: &Active, step: u64) -> Self {
        let all = Self {
            generation: active.generation,
            then: active.then,
            until_step: active.until_step,
            term: match active.term {
                PAUSED => Some(Term::Paused),
                UNCONFIRMED => Some(Term::Unconfirmed),
                _ => None,
            },
        };
        if step < active.until_step {
            all
        } else {
            all.over()
        }
    }

    /// What has an end, and how far off that is at `step`.
    pub(super) fn left(self, step: u64, clock: Clock) -> Option<(Term, Duration)> {
        let left = self.until_step.saturating_sub(step);
        let term = self.term.filter(|_| left > 0)?;
        Some((term, clock.duration(left)))
    }

    /// The generation by which packets go.
    pub(super) const fn current(self) -> u32 {
        if self.until_step == 0 {
            self.then
        } else {
            self.generation
        }
    }

    /// The same with its term over.
    pub(super) const fn over(self) -> Self {
        Self {
            until_step: 0,
            term: None,
            ..self
        }
    }

    /// A generation that no packet ever went by, of the row that is in force or the
    /// other one.
    pub(super) const fn next(self, same_row: bool) -> u32 {
        let next = self.generation.wrapping_add(1);
        if (row(next) == row(self.current())) == same_row {
            next
        } else {
            next.wrapping_add(1)
        }
    }

    /// The row in force under another generation; a term stays.
    pub(super) const fn renewed(self, generation: u32) -> Self {
        match self.term {
            Some(_) => Self { generation, ..self },
            None => Self::lasting(generation),
        }
    }

    /// As the program reads it.
    pub(super) const fn active(self) -> Active {
        Active {
            generation: self.generation,
            then: self.then,
            until_step: self.until_step,
            term: match self.term {
                None => 0,
                Some(Term::Unconfirmed) => UNCONFIRMED,
                Some(Term::Paused) => PAUSED,
            },
            interface_factor: 0,
            zero: 0,
            sampled: limiter_common::sample::Refusals::NONE,
        }
    }
}

impl DataPlane {
    /// Puts another policy in force for `lasting`; then the one of now is in force
    /// again, whether this process lives or not. Source prefixes must be the same.
    /// What is tried blocks nobody (`exceed = { block = … }`): that would last.
    ///
    /// # Errors
    ///
    /// Those of [`DataPlane::apply`], and [`Error::TooManyTogether`]; the old policy is
    /// then still in force.
    pub fn apply_for(
        &mut self,
        policy: &Policy,
        lasting: Duration,
        term: Term,
    ) -> Result<(), Error> {
        self.end_term()?;
        let policy = self.with_sizes(policy);
        self.check_together(&policy)?;
        let mut slots = self.slots.holding();
        let image = match term {
            Term::Paused => self.compile(&policy, &mut slots)?,
            Term::Unconfirmed => self.compile(&without_blocks(&policy), &mut slots)?,
        };
        let slots = slots.released(|_| true);
        let changed = self.changed_totals(&image, &slots)?;
        let generation = self.rows.write(image)?;
        let before = self.rows.in_force();
        // Both generations have the same names.
        self.note(generation, &slots)?;
        self.note(before.current(), &slots)?;
        let until_step = self.step()?.saturating_add(self.clock.steps(lasting));
        self.publish(InForce {
            generation,
            then: before.current(),
            until_step,
            term: Some(term),
        })?;
        self.slots = slots;
        self.refill_totals(&changed)?;
        let before = std::mem::replace(&mut self.policy, policy);
        self.before = Some(Before {
            policy: before,
            totals: changed,
            listed: self.rows.listed_before(),
        });
        Ok(())
    }

    /// Lets what is in force for a time stay, by one write. False if its time was over,
    /// or there is none. What only the policy of before needed goes when the same is
    /// [applied](DataPlane::apply) once more.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn keep(&mut self) -> Result<bool, Error> {
        let in_force = self.rows.in_force();
        if self.term_left()?.is_none() {
            return Ok(false);
        }
        self.publish(InForce::lasting(in_force.generation))?;
        self.before = None;
        Ok(true)
    }

    /// Lets what is in force for a time end `lasting` from now. False if its time was
    /// over, or there is none.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn prolong(&mut self, lasting: Duration) -> Result<bool, Error> {
        if self.term_left()?.is_none() {
            return Ok(false);
        }
        let until_step = self.step()?.saturating_add(self.clock.steps(lasting));
        self.publish(InForce {
            until_step,
            ..self.rows.in_force()
        })?;
        Ok(true)
    }

    /// What is in force for a time, and for how long still; `None`: what is in force
    /// stays.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn term_left(&self) -> Result<Option<(Term, Duration)>, Error> {
        let in_force = self.rows.in_force();
        match in_force.term {
            Some(_) => Ok(in_force.left(self.step()?, self.clock)),
            None => Ok(None),
        }
    }

    /// What the process before had put in force for a time, and for how long that was
    /// still to last.
    pub const fn term_before(&self) -> Option<(Term, Duration)> {
        self.term_before
    }

    /// The policy of before is in force again, from now on or since its time came.
    pub(super) fn end_term(&mut self) -> Result<(), Error> {
        let in_force = self.rows.in_force();
        if in_force.term.is_some() {
            self.publish(in_force.over())?;
        }
        if let Some(before) = self.before.take() {
            self.policy = before.policy;
            self.refill_totals(&before.totals)?;
        }
        Ok(())
    }

    /// Refuses limits of two policies that do not fit in the tables side by side.
    fn check_together(&self, policy: &Policy) -> Result<(), Error> {
        let new: HashSet<&str> = names(policy).collect();
        let (_, old): (Vec<_>, Vec<_>) =
            self.slots.names().partition(|(_, name)| new.contains(name));
        let needed = old.len() + new.len();
        if needed > LIMITS {
            return Err(Error::TooManyTogether {
                needed,
                capacity: LIMITS,
            });
        }
        Ok(())
    }
}

/// What is remembered while a policy is in force for a time.
#[derive(Debug)]
pub(super) struct Before {
    /// What is in force afterwards.
    pub(super) policy: Policy,
    /// The slots whose ceiling is another.
    pub(super) totals: Vec<u32>,
    /// Entries of the lists that are in force then, with those that came since.
    pub(super) listed: usize,
}

/// A policy whose limits do not block.
fn without_blocks(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    for limit in &mut policy.edge.limits {
        if let Exceed::Block(_) = limit.exceed {
            limit.exceed = Exceed::Drop;
        }
    }
    policy
}

fn names(policy: &Policy) -> impl Iterator<Item = &str> {
    policy.edge.limits.iter().map(|limit| limit.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIED: InForce = InForce {
        generation: 8,
        then: 7,
        until_step: 1_000,
        term: Some(Term::Unconfirmed),
    };

    #[test]
    fn no_generation_comes_twice() {
        let stays = InForce::lasting(7);
        assert_eq!(
            (stays.current(), stays.next(true), stays.next(false)),
            (7, 9, 8)
        );
        assert_eq!(
            (TRIED.current(), TRIED.next(true), TRIED.next(false)),
            (8, 10, 9)
        );
        let over = TRIED.over();
        assert_eq!(
            (over.current(), over.next(true), over.next(false)),
            (7, 9, 10)
        );
        let last = InForce::lasting(u32::MAX);
        assert_eq!((last.next(true), last.next(false)), (1, 0));
    }

    #[test]
    fn other_lists_do_not_prolong_a_term() {
        let renewed = TRIED.renewed(10);
        assert_eq!(
            renewed,
            InForce {
                generation: 10,
                ..TRIED
            }
        );
        assert_eq!(TRIED.over().renewed(9), InForce::lasting(9));
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(InForce::of(&TRIED.active(), 999), TRIED);
        assert_eq!(InForce::of(&TRIED.active(), 1_000), TRIED.over());
        let paused = InForce {
            term: Some(Term::Paused),
            ..TRIED
        };
        assert_eq!(InForce::of(&paused.active(), 0), paused);
        let stays = InForce::lasting(3);
        assert_eq!(InForce::of(&stays.active(), u64::MAX - 1), stays);
    }
}
