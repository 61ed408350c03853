//! Challenges that were solved before, and what that spares a request.

use super::table::Key;
use crate::policy::{Action, Rule};

/// Those of one request that are looked at.
pub const MOST_CLEARED: usize = 8;

/// A challenge that was solved, of one rule and one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The rule.
    pub rule: Box<str>,
    /// What the challenge was posed for ([`Bound`](super::Bound)).
    pub key: Key,
    /// Which: a weaker one of the same key is not asked for either.
    pub challenge: Action,
    /// How hard it was ([`difficulty_bits`](crate::policy::Effect::difficulty_bits)); a harder one
    /// is asked for. What is not computed is harder than all that is.
    pub bits: u8,
}

/// Those that a request brought, while it is decided about.
#[derive(Debug)]
pub(super) struct Clearing<'a> {
    brought: &'a [Cleared],
    /// Which of them stood in for a challenge: a bit for each, from the lowest.
    pub(super) used: u8,
}

impl<'a> Clearing<'a> {
    /// The first [`MOST_CLEARED`] of these.
    pub(super) fn of(brought: &'a [Cleared]) -> Self {
        Self {
            brought: &brought[..brought.len().min(MOST_CLEARED)],
            used: 0,
        }
    }

    /// Whether an action of a rule's tier or rung against a key is a challenge that one of them stands
    /// in for.
    pub(super) fn waives(&mut self, rule: &Rule, part: usize, key: Key, action: Action) -> bool {
        if self.brought.is_empty() || !action.is_challenge() {
            return false;
        }
        let bits = rule.effect(part).map(|it| it.difficulty_bits(action));
        let stands = |it: &Cleared| {
            let is_enough = action <= it.challenge && bits.is_some_and(|bits| bits <= it.bits);
            is_enough && it.key == key && *it.rule == *rule.name
        };
        let found = self.brought.iter().position(stands);
        if let Some(at) = found {
            self.used |= 1 << at;
        }
        found.is_some()
    }
}
