//! Challenges that a browser solves by computing: puzzles, their solutions, and the
//! clearances that are given for them.
//!
//! A *puzzle* is posed without a note being made of it: all that has to be known again stands in
//! it, signed (`token`). Its solution can be spent once. What it buys is a *clearance*, signed
//! too, for the same rule, key and host and for a time. Neither says more than that the work was
//! done.
//!
//! Time and random numbers are arguments; times are milliseconds since the Unix epoch.

mod keys;
mod outcome;
mod spent;
#[cfg(test)]
mod tests;
mod token;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use keys::{BadKeys, Key, Keys, LEAD_S, MOST_BYTES};
pub use outcome::{Posed, Solved, Unsolved};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spent::{Refused, Spent};
use token::Kind;
#[cfg(test)]
pub(crate) use work::solve;

use crate::engine::{self, Bound, Cleared, Decision, MOST_CLEARED, account};
use crate::event::{Event, without_port};
use crate::policy::{Action, Decide, KeyPart, Rule};

/// Where solutions are sent, on the site that posed the puzzle.
pub const PATH: &str = "/.limiter/challenge";

/// The request header with a solution: the puzzle, a colon, and the number.
pub const SOLUTION: &str = "x-limiter-solution";

/// The request header with a clearance, for who keeps no cookies.
pub const CLEARANCE: &str = "x-limiter-clearance";

/// What the names of the cookies with clearances begin with. A client that changes between
/// addresses has one for each.
const COOKIE: &str = "limiter-";

/// What is counted, by the words for it; what did not happen yet is told as 0.
const COUNTED: [&str; 10] = [
    "posed",
    "solved",
    "cleared",
    "malformed",
    "forged",
    "foreign",
    "expired",
    "wrong",
    "replayed",
    "unable",
];

/// The puzzles and clearances of a policy, and what of them is spent.
#[derive(Debug)]
pub struct Challenges {
    policy: RwLock<Arc<InForce>>,
    spent: Mutex<Spent>,
    /// What was posed before is not taken: nobody knows whether it is spent.
    began_ms: u64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

/// What of a policy is asked for here.
#[derive(Debug)]
struct InForce {
    keys: Keys,
    solve_within_ms: u64,
    clearance_ms: u64,
    rules: HashMap<String, Rule>,
}

/// What a puzzle says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Puzzle {
    id: u128,
    rule: String,
    part: usize,
    key: engine::Key,
    host: u64,
    challenge: Action,
    bits: u8,
    began_ms: u64,
    end_ms: u64,
}

/// What a clearance says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Clearance {
    id: u128,
    rule: String,
    key: engine::Key,
    host: u64,
    challenge: Action,
    end_ms: u64,
}

impl InForce {
    fn of(decide: &Decide) -> Self {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rules = decide
            .rules
            .iter()
            .filter(|rule| decide.may_challenge(rule));
        Self {
            keys: decide.challenge_keys.clone(),
            solve_within_ms: ms(decide.challenge.solve_within),
            clearance_ms: ms(decide.challenge.clearance),
            rules: rules.map(|it| (it.name.clone(), it.clone())).collect(),
        }
    }

    /// Whether a clearance of this rule is good for one request alone: else who has solved one
    /// puzzle could try passwords of the account as long as it lasts.
    fn is_once(&self, rule: &str) -> bool {
        let rule = self.rules.get(rule);
        rule.is_some_and(|rule| rule.key.contains(&KeyPart::Account))
    }
}

impl Challenges {
    /// Those of a policy.
    #[must_use]
    pub fn new(decide: &Decide, now_ms: u64) -> Self {
        Self {
            policy: RwLock::new(Arc::new(InForce::of(decide))),
            spent: Mutex::default(),
            began_ms: now_ms,
            counts: Mutex::new(COUNTED.map(|word| (word, 0)).into()),
        }
    }

    /// Goes by another policy, or other keys, from now on. What is spent stays spent.
    pub fn reload(&self, decide: &Decide) {
        let policy = Arc::new(InForce::of(decide));
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// The puzzle for a decision that is a challenge. `id` is random. `None`: it is none, or there
    /// is no key.
    #[must_use]
    pub fn pose(&self, decision: &Decision, now_ms: u64, id: u128) -> Option<Posed> {
        let policy = self.policy();
        let challenge = decision.action.filter(|action| action.is_challenge())?;
        let Bound { key, host, resend } = decision.bound.as_ref()?;
        let (rule, part) = (decision.rule.as_deref()?, decision.part?);
        let effect = policy.rules.get(rule)?.effect(part)?;
        let bits = effect.difficulty_bits(challenge);
        let end_ms = now_ms.saturating_add(policy.solve_within_ms);
        let puzzle = Puzzle {
            id,
            rule: rule.to_owned(),
            part,
            key: *key,
            host: host_mark(host.as_deref()),
            challenge,
            bits,
            began_ms: now_ms,
            end_ms,
        };
        let token = token::write(Kind::Puzzle, &puzzle, policy.keys.signing(now_ms / 1_000)?)?;
        self.count("posed");
        Some(Posed {
            token,
            bits,
            end_ms,
            resend: *resend,
        })
    }

    /// Takes a solution ([`SOLUTION`]) that came to a host. `id` is random.
    ///
    /// # Errors
    /// It buys nothing.
    pub fn redeem(
        &self,
        solution: &str,
        host: Option<&str>,
        now_ms: u64,
        id: u128,
    ) -> Result<Solved, Unsolved> {
        let solved = self.look_at(solution, host, now_ms, id);
        self.count(match &solved {
            Ok(_) => "solved",
            Err(unsolved) => unsolved.name(),
        });
        solved
    }

    fn look_at(
        &self,
        solution: &str,
        host: Option<&str>,
        now_ms: u64,
        id: u128,
    ) -> Result<Solved, Unsolved> {
        let policy = self.policy();
        let (text, number) = solution
            .trim()
            .rsplit_once(':')
            .ok_or(Unsolved::Malformed)?;
        let number: u64 = number.parse().map_err(|_| Unsolved::Malformed)?;
        let puzzle: Puzzle =
            token::read(Kind::Puzzle, text, &policy.keys).ok_or(Unsolved::Forged)?;
        if puzzle.host != host_mark(host.map(without_port)) {
            return Err(Unsolved::Foreign);
        }
        if puzzle.end_ms <= now_ms || puzzle.began_ms < self.began_ms {
            return Err(Unsolved::Expired);
        }
        if !work::is_done(token::mark(text), number, puzzle.bits) {
            return Err(Unsolved::Wrong);
        }
        let end_ms = now_ms.saturating_add(policy.clearance_ms);
        let clearance = Clearance {
            id,
            rule: puzzle.rule.clone(),
            key: puzzle.key,
            host: puzzle.host,
            challenge: puzzle.challenge,
            end_ms,
        };
        let key = policy.keys.signing(now_ms / 1_000);
        let key = key.ok_or(Unsolved::Unable)?;
        let token = token::write(Kind::Clearance, &clearance, key).ok_or(Unsolved::Unable)?;
        let spent = self.spent().spend(puzzle.id, puzzle.end_ms, now_ms);
        spent.map_err(|refused| match refused {
            Refused::Again => Unsolved::Replayed,
            Refused::Full => Unsolved::Unable,
        })?;
        Ok(Solved {
            cookie: cookie(&puzzle),
            rule: puzzle.rule,
            part: puzzle.part,
            key: puzzle.key,
            clearance: token,
            end_ms,
            life_s: policy.clearance_ms / 1_000,
        })
    }

    /// Asks about a request with the clearances that it brings. One that is good for a single
    /// request is spent if that one passes by it.
    pub fn ask(
        &self,
        event: &Event,
        now_ms: u64,
        ask: impl FnOnce(&[Cleared]) -> Decision,
    ) -> Decision {
        let policy = self.policy();
        if policy.rules.is_empty() {
            return ask(&[]);
        }
        // Taken before it is asked, so that of many at once one passes.
        let mut held = brought(&policy, event, now_ms);
        held.retain(|it| {
            !policy.is_once(&it.rule) || self.spent().spend(it.id, it.end_ms, now_ms).is_ok()
        });
        let cleared: Vec<Cleared> = held.iter().map(Clearance::cleared).collect();
        let decision = ask(&cleared);
        for (at, it) in held.iter().enumerate() {
            let is_used = decision.cleared & (1 << at) != 0 && !decision.refuses();
            if policy.is_once(&it.rule) && !is_used {
                self.spent().give_back(it.id, it.end_ms);
            }
        }
        if decision.cleared != 0 {
            self.count("cleared");
        }
        decision
    }

    /// How often what happened, by the word for it.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts.lock();
        let counts = counts.unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(word, count)| (*word, *count)).collect()
    }

    fn count(&self, word: &'static str) {
        let counts = self.counts.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        *counts.entry(word).or_default() += 1;
    }

    fn policy(&self) -> Arc<InForce> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        // It is whole between any two of its operations.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clearance {
    fn cleared(&self) -> Cleared {
        Cleared {
            rule: self.rule.as_str().into(),
            key: self.key,
            challenge: self.challenge,
        }
    }
}

/// The clearances in the cookies and the header of a request that hold: each once.
fn brought(policy: &InForce, event: &Event, now_ms: u64) -> Vec<Clearance> {
    let header = account::header(&event.headers, CLEARANCE);
    let texts = account::cookies(event)
        .filter(|(name, _)| name.starts_with(COOKIE))
        .map(|(_, value)| value);
    let host = host_mark(event.host.as_deref());
    let read = |text| token::read::<Clearance>(Kind::Clearance, text, &policy.keys);
    let holds = |it: &Clearance| it.end_ms > now_ms && it.host == host;
    // What is looked at is bounded, whatever of it holds.
    let looked_at = header.into_iter().chain(texts).take(MOST_CLEARED);
    let mut held: Vec<Clearance> = Vec::new();
    for clearance in looked_at.filter_map(read).filter(holds) {
        if held.iter().all(|it| it.id != clearance.id) {
            held.push(clearance);
        }
    }
    held
}

/// The cookie's name: one for each rule, key and host.
fn cookie(puzzle: &Puzzle) -> String {
    let hash = Sha256::new()
        .chain_update(&puzzle.rule)
        .chain_update(puzzle.key.to_le_bytes())
        .chain_update(puzzle.host.to_le_bytes())
        .finalize();
    let digits = hash.iter().take(4).map(|byte| format!("{byte:02x}"));
    format!("{COOKIE}{}", digits.collect::<String>())
}

/// What stands for a host in a token.
fn host_mark(host: Option<&str>) -> u64 {
    let host = host.unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let hash = Sha256::digest(host);
    hash.iter()
        .take(8)
        .fold(0, |mark, byte| mark << 8 | u64::from(*byte))
}
