//! Sources that many share: who has been logging in from them, and how well.

use super::table::{Key, Table, Worth};
use crate::event::Outcome;

const DAY_NS: u64 = 86_400_000_000_000;
const SOURCES: u32 = 100_000;

/// What is known of the logins from each source.
#[derive(Debug)]
pub(super) struct Crowd(Table);

// Words of a source: the account that succeeded first and since when; since when others
// did; the day, its successes and failures; those of the days before.
const FIRST: usize = 0;
const FIRST_NS: usize = 1;
const OTHERS_NS: usize = 2;
const DAY: usize = 3;
const TODAY: usize = 4;
const BEFORE: usize = 5;
const WORDS: usize = 6;

impl Crowd {
    pub(super) fn new() -> Self {
        Self(Table::new(SOURCES, WORDS, None))
    }

    /// Notes what became of an attempt.
    pub(super) fn note(&mut self, source: Key, account: u64, outcome: Outcome, now_ns: u64) {
        let found = self.0.find(source);
        let place = match (found, outcome) {
            (Some(place), _) => Some(place),
            // A source is known from its first success on.
            (None, Outcome::Failure) => None,
            (None, Outcome::Success) => self.0.insert(source, 0, now_ns, |_| Worth::Much),
        };
        let Some(place) = place else { return };
        self.0.touch(place, now_ns);
        let state = self.0.state_mut(place);
        roll(state, now_ns);
        let (successes, failures) = split(state[TODAY]);
        match outcome {
            Outcome::Failure => state[TODAY] = join(successes, failures.saturating_add(1)),
            Outcome::Success => {
                state[TODAY] = join(successes.saturating_add(1), failures);
                if state[FIRST_NS] == 0 {
                    (state[FIRST], state[FIRST_NS]) = (account, now_ns.max(1));
                } else if state[FIRST] != account && state[OTHERS_NS] == 0 {
                    state[OTHERS_NS] = now_ns.max(1);
                }
            }
        }
    }

    /// Whether accounts other than this one have been logging in from the source
    /// for more than a day before `first_failure_ns`, and on the days before more often with
    /// success than without.
    pub(super) fn is_shared(
        &self,
        source: Key,
        account: Option<u64>,
        first_failure_ns: u64,
    ) -> bool {
        let Some(place) = self.0.find(source) else {
            return false;
        };
        let mut state: [u64; WORDS] = std::array::from_fn(|word| self.0.state(place)[word]);
        roll(&mut state, first_failure_ns);
        let since_ns = match account == Some(state[FIRST]) {
            true => state[OTHERS_NS],
            false => state[FIRST_NS],
        };
        let (successes, failures) = split(state[BEFORE]);
        since_ns != 0 && since_ns.saturating_add(DAY_NS) < first_failure_ns && successes > failures
    }
}

/// Takes the counts of a day that is over to those of the days before, of which half
/// are forgotten each time.
fn roll(state: &mut [u64], now_ns: u64) {
    let day = now_ns / DAY_NS;
    if day <= state[DAY] {
        return;
    }
    let (successes, failures) = split(state[TODAY]);
    let (before_successes, before_failures) = split(state[BEFORE]);
    state[BEFORE] = join(
        (before_successes / 2).saturating_add(successes),
        (before_failures / 2).saturating_add(failures),
    );
    (state[DAY], state[TODAY]) = (day, 0);
}

fn split(counts: u64) -> (u32, u32) {
    ((counts >> 32) as u32, counts as u32)
}

fn join(successes: u32, failures: u32) -> u64 {
    u64::from(successes) << 32 | u64::from(failures)
}
