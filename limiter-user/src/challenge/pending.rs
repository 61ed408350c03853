//! Answers to CAPTCHAs while their provider is asked what they are worth.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::captcha::{self, Finding, Question, UNLOADED};
use super::spent::Refused;
use super::{Challenges, InForce, Moment, Puzzle, Solved, Unsolved};
use crate::courier::Answer;
use crate::engine;
use crate::policy::{Captcha, OnFailure};

/// Answers that a provider is asked about at once, and of one key of a rule.
pub const AT_ONCE: usize = 24;
const OF_ONE_KEY: usize = 4;

/// For how long an answer is known to have been used: longer than a provider takes it.
const ANSWER_MS: u64 = 3_600_000;

/// What is being asked about, by key: a flood of wrong answers of one source leaves places to
/// others.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<engine::Key, usize>);

impl Places {
    fn take(&mut self, key: engine::Key) -> bool {
        let held = self.0.get(&key).copied().unwrap_or_default();
        if held >= OF_ONE_KEY || self.0.values().sum::<usize>() >= AT_ONCE {
            return false;
        }
        self.0.insert(key, held + 1);
        true
    }

    fn give_back(&mut self, key: engine::Key) {
        let held = self.0.remove(&key).unwrap_or_default();
        if held > 1 {
            self.0.insert(key, held - 1);
        }
    }
}

/// An answer to a CAPTCHA. Until it is settled nobody else can spend its puzzle, or the answer
/// elsewhere; if it comes to nothing, both are given back.
#[derive(Debug)]
pub struct Pending<'a> {
    challenges: &'a Challenges,
    policy: Arc<InForce>,
    captcha: Captcha,
    puzzle: Puzzle,
    response: String,
    is_spent: bool,
}

impl<'a> Pending<'a> {
    pub(super) fn of(
        challenges: &'a Challenges,
        policy: Arc<InForce>,
        puzzle: Puzzle,
        response: &str,
        now: Moment,
    ) -> Result<Self, Unsolved> {
        // It was posed by a policy that asks otherwise.
        let captcha = policy.captcha.clone().ok_or(Unsolved::Expired)?;
        if !challenges.places().take(puzzle.key) {
            return Err(Unsolved::Unable);
        }
        if let Err(refused) = reserve(challenges, &puzzle, response, now) {
            challenges.places().give_back(puzzle.key);
            return Err(refused.into());
        }
        Ok(Self {
            challenges,
            policy,
            captcha,
            puzzle,
            response: response.to_owned(),
            is_spent: false,
        })
    }

    /// What the provider is to be asked.
    #[must_use]
    pub fn question(&self) -> Question {
        Question {
            response: self.response.clone(),
            source: self.puzzle.source,
        }
    }

    /// Who is asked, and how.
    #[must_use]
    pub const fn captcha(&self) -> &Captcha {
        &self.captcha
    }

    /// Reads what the provider has answered.
    #[must_use]
    pub fn judge(&self, answer: &Answer) -> Finding {
        let is_host = |host: &str| super::host_mark(Some(host)) == self.puzzle.host;
        captcha::judge(&self.captcha, answer, is_host)
    }

    /// What that buys. `id` is random.
    ///
    /// # Errors
    /// Nothing.
    pub fn settle(mut self, finding: &Finding, now: Moment, id: u128) -> Result<Solved, Unsolved> {
        let is_open = self.captcha.on_failure == OnFailure::Open;
        let solved = match finding {
            Finding::Failed => Err(Unsolved::Wrong),
            Finding::Away(_) if !is_open => Err(Unsolved::Away),
            Finding::Passed | Finding::Away(_) => {
                self.challenges.clear(&self.policy, &self.puzzle, now, id)
            }
        };
        self.is_spent = solved.is_ok();
        self.challenges.count(match (&solved, finding) {
            (Ok(_), Finding::Away(_)) => "unverified",
            (Ok(_), _) => "solved",
            (Err(unsolved), _) => unsolved.name(),
        });
        solved
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.is_spent {
            self.challenges.solutions().give_back(self.puzzle.id);
            if let Some(answer) = mark(&self.response) {
                self.challenges.answers().give_back(answer);
            }
        }
        self.challenges.places().give_back(self.puzzle.key);
    }
}

/// Spends a puzzle and an answer to it, or neither.
fn reserve(
    challenges: &Challenges,
    puzzle: &Puzzle,
    response: &str,
    now: Moment,
) -> Result<(), Refused> {
    challenges
        .solutions()
        .spend(puzzle.id, puzzle.end_ms, now)?;
    let Some(answer) = mark(response) else {
        return Ok(());
    };
    let end_ms = now.wall_ms.saturating_add(ANSWER_MS);
    let spent = challenges.answers().spend(answer, end_ms, now);
    spent.inspect_err(|_| challenges.solutions().give_back(puzzle.id))
}

/// By which an answer is known; none for what everybody sends whose script does not come.
fn mark(response: &str) -> Option<u128> {
    let hash = Sha256::digest(response);
    let mark = hash
        .iter()
        .take(16)
        .fold(0, |mark, byte| mark << 8 | u128::from(*byte));
    (response != UNLOADED).then_some(mark)
}
