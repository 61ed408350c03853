//! Challenges that were solved before, and what that spares a request.

use super::table::Key;
use crate::policy::Action;

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

    /// Whether an action of a rule against a key is a challenge that one of them stands in for.
    pub(super) fn waives(&mut self, rule: &str, key: Key, action: Action) -> bool {
        let stands = |it: &Cleared| it.key == key && action <= it.challenge && *it.rule == *rule;
        if !action.is_challenge() {
            return false;
        }
        let found = self.brought.iter().position(stands);
        if let Some(at) = found {
            self.used |= 1 << at;
        }
        found.is_some()
    }
}
