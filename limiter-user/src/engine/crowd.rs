//! Sources that many share: who has been logging in from them, and how well.

use super::table::{Key, Table, Worth};
use crate::event::Outcome;

const DAY_NS: u64 = 86_400_000_000_000;
const RECENT_NS: u64 = 7 * DAY_NS;
const SOURCES: u32 = 100_000;

/// What is known of the logins from each source.
#[derive(Debug)]
pub(super) struct Crowd(Table);

// Words of a source: three accounts, of each which, since when it succeeds and when it last did;
// the day, its successes and failures; those of the days before.
const ACCOUNTS: usize = 9;
const DAY: usize = 9;
const TODAY: usize = 10;
const BEFORE: usize = 11;
const WORDS: usize = 12;

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
                remember(&mut state[..ACCOUNTS], account, now_ns.max(1));
            }
        }
    }

    /// Whether two accounts other than this one have been logging in from the source
    /// for more than a day before `first_failure_ns`, and within the last week, and on the days
    /// before more often with success than without.
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
        let logs_in = |held: &&[u64]| {
            account != Some(held[0])
                && held[1] != 0
                && held[1].saturating_add(DAY_NS) < first_failure_ns
                && held[2].saturating_add(RECENT_NS) > first_failure_ns
        };
        let others = state[..ACCOUNTS].chunks_exact(3).filter(logs_in).count();
        let (successes, failures) = split(state[BEFORE]);
        others >= 2 && successes > failures
    }
}

/// Notes that an account succeeded: of those that do, three are known until they have
/// not for a week.
fn remember(accounts: &mut [u64], account: u64, now_ns: u64) {
    let held = || accounts.chunks_exact(3).enumerate();
    let known = held().find(|(_, held)| held[0] == account && held[1] != 0);
    let stale = || {
        let is_stale = |(_, held): &(usize, &[u64])| held[2].saturating_add(RECENT_NS) < now_ns;
        held().filter(is_stale).min_by_key(|(_, held)| held[2])
    };
    let is_known = known.is_some();
    let Some(at) = known.or_else(stale).map(|(at, _)| 3 * at) else {
        return;
    };
    if !is_known {
        (accounts[at], accounts[at + 1]) = (account, now_ns);
    }
    accounts[at + 2] = now_ns;
}

/// Takes the counts of a day that is over to those of the days before, of which half
/// are forgotten each day.
fn roll(state: &mut [u64], now_ns: u64) {
    let day = now_ns / DAY_NS;
    if day <= state[DAY] {
        return;
    }
    let days = u32::try_from(day - state[DAY]).unwrap_or(u32::MAX);
    let halved = |count: u32, times| count.checked_shr(times).unwrap_or(0);
    let (successes, failures) = split(state[TODAY]);
    let (before_successes, before_failures) = split(state[BEFORE]);
    state[BEFORE] = join(
        halved(before_successes, days).saturating_add(halved(successes, days - 1)),
        halved(before_failures, days).saturating_add(halved(failures, days - 1)),
    );
    (state[DAY], state[TODAY]) = (day, 0);
}

fn split(counts: u64) -> (u32, u32) {
    ((counts >> 32) as u32, counts as u32)
}

fn join(successes: u32, failures: u32) -> u64 {
    u64::from(successes) << 32 | u64::from(failures)
}
