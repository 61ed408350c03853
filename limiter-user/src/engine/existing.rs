//! Accounts that a success has shown to exist: only those may be called by their names,
//! for what is typed into the field of the name may be a password.

use std::collections::HashSet;

/// Names that wait to be taken; more are named by their next success.
const MOST_NAMES: usize = 4_096;

/// Accounts of which it is remembered that they were named.
const MOST_TOLD: usize = 100_000;

/// They are named again each day: who writes them down forgets them in time.
const DAY_NS: u64 = 86_400_000_000_000;

/// Who has been named today, and who is to be.
#[derive(Debug, Default)]
pub(super) struct Existing {
    day: u64,
    told: HashSet<u64>,
    names: Vec<String>,
}

impl Existing {
    /// A success of an account, normalised, with its hash.
    pub(super) fn note(&mut self, account: &str, hash: u64, now_ns: u64) {
        let day = now_ns / DAY_NS;
        if day != self.day || self.told.len() >= MOST_TOLD {
            self.day = day;
            self.told.clear();
        }
        if self.names.len() < MOST_NAMES && self.told.insert(hash) {
            self.names.push(account.to_owned());
        }
    }

    /// Those who are to be named.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_once_a_day() {
        let mut existing = Existing::default();
        for _ in 0..3 {
            existing.note("ann", 1, DAY_NS);
        }
        existing.note("bob", 2, DAY_NS);
        assert_eq!(existing.take(), ["ann", "bob"]);
        existing.note("ann", 1, DAY_NS + 1);
        assert!(existing.take().is_empty());
        existing.note("ann", 1, 2 * DAY_NS);
        assert_eq!(existing.take(), ["ann"]);
    }

    #[test]
    fn who_finds_no_room_is_named_later() {
        let mut existing = Existing::default();
        for hash in 0..=MOST_NAMES as u64 {
            existing.note("x", hash, 0);
        }
        assert_eq!(existing.take().len(), MOST_NAMES);
        existing.note("late", MOST_NAMES as u64, 0);
        assert_eq!(existing.take(), ["late"]);
    }
}
