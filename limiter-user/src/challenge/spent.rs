//! What can be spent once, until it expires.

use std::collections::BTreeSet;

/// Entries at most: nine hundred solutions a second, where a puzzle lives for five minutes.
const MOST: usize = 1 << 18;

/// What has been spent: by the end of its life and its id, so that what is over goes first.
#[derive(Debug, Default)]
pub(super) struct Spent(BTreeSet<(u64, u128)>);

/// Why something cannot be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was, before.
    Again,
    /// There is no room to remember it.
    Full,
}

impl Spent {
    /// Spends what ends at `end_ms`.
    pub(super) fn spend(&mut self, id: u128, end_ms: u64, now_ms: u64) -> Result<(), Refused> {
        self.spend_of(id, end_ms, now_ms, MOST)
    }

    fn spend_of(&mut self, id: u128, end_ms: u64, now_ms: u64, most: usize) -> Result<(), Refused> {
        while self.0.first().is_some_and(|(end_ms, _)| *end_ms <= now_ms) {
            self.0.pop_first();
        }
        if self.0.contains(&(end_ms, id)) {
            return Err(Refused::Again);
        }
        if self.0.len() >= most {
            return Err(Refused::Full);
        }
        self.0.insert((end_ms, id));
        Ok(())
    }

    /// It was not needed after all.
    pub(super) fn give_back(&mut self, id: u128, end_ms: u64) {
        self.0.remove(&(end_ms, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent_once_and_forgotten_when_it_is_over() {
        let mut spent = Spent::default();
        assert_eq!(spent.spend_of(1, 100, 0, 2), Ok(()));
        assert_eq!(spent.spend_of(1, 100, 99, 2), Err(Refused::Again));
        assert_eq!(spent.spend_of(2, 50, 0, 2), Ok(()));
        assert_eq!(spent.spend_of(3, 100, 49, 2), Err(Refused::Full));
        assert_eq!(spent.spend_of(3, 100, 50, 2), Ok(()));
        assert_eq!(spent.spend_of(1, 100, 99, 2), Err(Refused::Again));
        spent.give_back(1, 100);
        assert_eq!(spent.spend_of(1, 100, 99, 2), Ok(()));
        assert_eq!(spent.0.len(), 2);
    }
}
