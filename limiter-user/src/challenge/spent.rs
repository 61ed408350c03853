//! What can be spent once, until it expires.

use std::collections::{BTreeSet, HashMap};

use super::Moment;

/// Entries at most: nine hundred solutions a second, where a puzzle lives for five minutes.
const MOST: usize = 1 << 18;

/// What has been spent, by its id. What is over by both clocks goes first: one that was set
/// forward for a while would else make it good again.
#[derive(Debug, Default)]
pub(super) struct Spent {
    by_id: HashMap<u128, Ends>,
    /// By the end of its life.
    order: BTreeSet<(u64, u128)>,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    wall_ms: u64,
    steady_ms: u64,
}

/// Why something cannot be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was, before.
    Again,
    /// There is no room to remember it.
    Full,
}

impl Spent {
    /// Spends what ends at `end_ms`, as the clock on the wall has it.
    pub(super) fn spend(&mut self, id: u128, end_ms: u64, now: Moment) -> Result<(), Refused> {
        self.spend_of(id, end_ms, now, MOST)
    }

    fn spend_of(&mut self, id: u128, end_ms: u64, now: Moment, most: usize) -> Result<(), Refused> {
        self.forget(now);
        if self.by_id.contains_key(&id) {
            return Err(Refused::Again);
        }
        if self.by_id.len() >= most {
            return Err(Refused::Full);
        }
        self.keep(id, end_ms, now);
        Ok(())
    }

    /// It was not needed after all.
    pub(super) fn give_back(&mut self, id: u128) {
        if let Some(ends) = self.by_id.remove(&id) {
            self.order.remove(&(ends.steady_ms, id));
        }
    }

    fn keep(&mut self, id: u128, end_ms: u64, now: Moment) {
        let left_ms = end_ms.saturating_sub(now.wall_ms);
        let steady_ms = now.steady_ms.saturating_add(left_ms);
        let ends = Ends {
            wall_ms: end_ms,
            steady_ms,
        };
        self.by_id.insert(id, ends);
        self.order.insert((steady_ms, id));
    }

    fn forget(&mut self, now: Moment) {
        while let Some((steady_ms, id)) = self.order.first().copied() {
            if steady_ms > now.steady_ms {
                return;
            }
            self.order.pop_first();
            let ends = self.by_id.remove(&id);
            // The clock was set back since.
            if let Some(ends) = ends.filter(|ends| ends.wall_ms > now.wall_ms) {
                self.keep(id, ends.wall_ms, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: u64, steady_ms: u64) -> Moment {
        Moment { wall_ms, steady_ms }
    }

    #[test]
    fn what_is_spent_is_spent_once_and_forgotten_when_it_is_over() {
        let mut spent = Spent::default();
        assert_eq!(spent.spend_of(1, 100, at(0, 0), 2), Ok(()));
        assert_eq!(spent.spend_of(1, 100, at(99, 99), 2), Err(Refused::Again));
        assert_eq!(spent.spend_of(2, 150, at(99, 99), 2), Ok(()));
        assert_eq!(spent.spend_of(3, 200, at(99, 99), 2), Err(Refused::Full));
        assert_eq!(spent.spend_of(3, 200, at(100, 100), 2), Ok(()));
        assert_eq!(spent.spend_of(2, 150, at(149, 149), 2), Err(Refused::Again));
        spent.give_back(2);
        assert_eq!(spent.spend_of(2, 150, at(149, 149), 2), Ok(()));
        assert_eq!((spent.by_id.len(), spent.order.len()), (2, 2));
    }

    #[test]
    fn no_clock_that_is_set_makes_it_good_again() {
        let mut spent = Spent::default();
        let mut spend = |now| spent.spend(1, 1_100, now);
        assert_eq!(spend(at(1_000, 0)), Ok(()));
        // Forward, and back again.
        assert_eq!(spend(at(9_000, 10)), Err(Refused::Again));
        assert_eq!(spend(at(1_020, 20)), Err(Refused::Again));
        // Back: it lives for longer than was thought.
        assert_eq!(spend(at(500, 100)), Err(Refused::Again));
        assert_eq!(spend(at(1_099, 699)), Err(Refused::Again));
        assert_eq!(spend(at(1_100, 700)), Ok(()));
    }
}
