//! Challenges that a browser solves by computing, or a person by a CAPTCHA: puzzles, their
//! solutions, and the clearances that are given for them.
//!
//! A *puzzle* is posed without a note being made of it: all that has to be known again stands in
//! it, signed (`token`). Its solution can be spent once. What it buys is a *clearance*, signed
//! too, for the same rule, key and host and for a time. Neither says more than that the work was
//! done, or that the provider of the CAPTCHA is content.
//!
//! Time and random numbers are arguments; times are milliseconds since the Unix epoch, but where a
//! [`Moment`] has those of a clock that nobody sets too.

pub mod captcha;
mod clearance;
mod keys;
mod outcome;
mod pending;
mod spent;
#[cfg(test)]
mod tests;
mod token;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use clearance::Clearance;
pub use clearance::surplus;
pub use keys::{BadKeys, Key, Keys, LEAD_S, MOST as MOST_KEYS, MOST_BYTES};
pub use outcome::{Posed, Solved, Unsolved};
use pending::Places;
pub use pending::{AT_ONCE, Pending};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spent::Spent;
use token::Kind;
#[cfg(test)]
pub(crate) use work::solve;

use crate::engine::{self, Bound, Decision};
use crate::event::without_port;
use crate::policy::{Action, Captcha, Decide, KeyPart, Provider, Rule};

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
const COUNTED: [&str; 12] = [
    "posed",
    "solved",
    "unverified",
    "cleared",
    "malformed",
    "forged",
    "foreign",
    "expired",
    "wrong",
    "replayed",
    "unable",
    "away",
];

/// The puzzles and clearances of a policy, and what of them is spent.
#[derive(Debug)]
pub struct Challenges {
    policy: RwLock<Arc<InForce>>,
    /// Puzzles that were solved, answers to CAPTCHAs, and clearances that are good for one
    /// request: a flood of one kind leaves room to the others.
    solutions: Mutex<Spent>,
    answers: Mutex<Spent>,
    clearances: Mutex<Spent>,
    places: Mutex<Places>,
    /// What was made before by another run is not taken: nobody knows whether it is spent.
    run: u64,
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
    captcha: Option<Captcha>,
}

/// A time by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Milliseconds by a clock that nobody sets.
    pub steady_ms: u64,
}

/// What has to be done for a clearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Price {
    /// A number is looked for; how many leading zero bits are wanted.
    Work(u8),
    /// A CAPTCHA of this provider.
    Captcha(Provider),
}

/// What a solution comes to.
#[derive(Debug)]
pub enum Redeemed<'a> {
    /// It is one.
    Solved(Solved),
    /// A provider has to say.
    Pending(Pending<'a>),
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
    price: Price,
    /// Who was challenged, where the provider of a CAPTCHA is told.
    source: Option<IpAddr>,
    /// The run of the process that posed it.
    run: u64,
    began_ms: u64,
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
            captcha: decide.challenge.captcha.clone(),
        }
    }

    /// What a challenge of these bits costs.
    fn price(&self, challenge: Action, bits: u8) -> Price {
        match (&self.captcha, challenge) {
            (Some(captcha), Action::Captcha) => Price::Captcha(captcha.provider),
            _ => Price::Work(bits),
        }
    }

    /// Whether this is a price that such a challenge has.
    fn asks_so(&self, challenge: Action, price: Price) -> bool {
        match (&self.captcha, challenge) {
            (Some(captcha), Action::Captcha) => price == Price::Captcha(captcha.provider),
            _ => true,
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
    /// Those of a policy. `run` is random: no other run has it, here or on another node.
    #[must_use]
    pub fn new(decide: &Decide, now_ms: u64, run: u64) -> Self {
        Self {
            policy: RwLock::new(Arc::new(InForce::of(decide))),
            solutions: Mutex::default(),
            answers: Mutex::default(),
            clearances: Mutex::default(),
            places: Mutex::default(),
            run,
            began_ms: now_ms,
            counts: Mutex::new(COUNTED.map(|word| (word, 0)).into()),
        }
    }

    /// Goes by another policy, or other keys, from now on. What is spent stays spent.
    pub fn reload(&self, decide: &Decide) {
        let policy = Arc::new(InForce::of(decide));
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// The puzzle for a decision that is a challenge, of a request of this source. `id` is random.
    /// `None`: it is none, or there is no key.
    #[must_use]
    pub fn pose(
        &self,
        decision: &Decision,
        source: IpAddr,
        now_ms: u64,
        id: u128,
    ) -> Option<Posed> {
        let policy = self.policy();
        let challenge = decision.action.filter(|action| action.is_challenge())?;
        let Bound { key, host, resend } = decision.bound.as_ref()?;
        let (rule, part) = (decision.rule.as_deref()?, decision.part?);
        let effect = policy.rules.get(rule)?.effect(part)?;
        let price = policy.price(challenge, effect.difficulty_bits(challenge));
        let tells = policy.captcha.as_ref().is_some_and(|it| it.send_address);
        let end_ms = now_ms.saturating_add(policy.solve_within_ms);
        let puzzle = Puzzle {
            id,
            rule: rule.to_owned(),
            part,
            key: *key,
            host: host_mark(host.as_deref()),
            challenge,
            price,
            source: Some(source).filter(|_| tells && matches!(price, Price::Captcha(_))),
            run: self.run,
            began_ms: now_ms,
            end_ms,
        };
        let token = token::write(Kind::Puzzle, &puzzle, policy.keys.signing(now_ms / 1_000)?)?;
        self.count("posed");
        Some(Posed {
            token,
            price,
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
        now: Moment,
        id: u128,
    ) -> Result<Redeemed<'_>, Unsolved> {
        let redeemed = self.look_at(solution.trim(), host, now, id);
        match &redeemed {
            Ok(Redeemed::Solved(_)) => self.count("solved"),
            Ok(Redeemed::Pending(_)) => {}
            Err(unsolved) => self.count(unsolved.name()),
        }
        redeemed
    }

    fn look_at(
        &self,
        solution: &str,
        host: Option<&str>,
        now: Moment,
        id: u128,
    ) -> Result<Redeemed<'_>, Unsolved> {
        let policy = self.policy();
        let (text, solution) = solution.split_once(':').ok_or(Unsolved::Malformed)?;
        if !captcha::is_response(solution) {
            return Err(Unsolved::Malformed);
        }
        let puzzle = self.puzzle(&policy, text, host, now)?;
        let Price::Work(bits) = puzzle.price else {
            let pending = Pending::of(self, policy, puzzle, solution, now);
            return pending.map(Redeemed::Pending);
        };
        let number: u64 = solution.parse().map_err(|_| Unsolved::Malformed)?;
        if !work::is_done(token::mark(text), number, bits) {
            return Err(Unsolved::Wrong);
        }
        let solved = self.clear(&policy, &puzzle, now, id)?;
        self.solutions().spend(puzzle.id, puzzle.end_ms, now)?;
        Ok(Redeemed::Solved(solved))
    }

    /// The puzzle of a token, if it can be solved now.
    fn puzzle(
        &self,
        policy: &InForce,
        text: &str,
        host: Option<&str>,
        now: Moment,
    ) -> Result<Puzzle, Unsolved> {
        let puzzle: Puzzle =
            token::read(Kind::Puzzle, text, &policy.keys).ok_or(Unsolved::Forged)?;
        if puzzle.host != host_mark(host.map(without_port)) {
            return Err(Unsolved::Foreign);
        }
        let is_over = puzzle.end_ms <= now.wall_ms || !self.knows(puzzle.run, puzzle.began_ms);
        match is_over || !policy.asks_so(puzzle.challenge, puzzle.price) {
            true => Err(Unsolved::Expired),
            false => Ok(puzzle),
        }
    }

    /// Whether this run knows what is spent of what another began then.
    const fn knows(&self, run: u64, began_ms: u64) -> bool {
        run == self.run || began_ms >= self.began_ms
    }

    /// The clearance for a puzzle that is solved.
    fn clear(
        &self,
        policy: &InForce,
        puzzle: &Puzzle,
        now: Moment,
        id: u128,
    ) -> Result<Solved, Unsolved> {
        let end_ms = now.wall_ms.saturating_add(policy.clearance_ms);
        let clearance = Clearance {
            id,
            run: self.run,
            rule: puzzle.rule.clone(),
            part: puzzle.part,
            key: puzzle.key,
            host: puzzle.host,
            challenge: puzzle.challenge,
            price: puzzle.price,
            began_ms: now.wall_ms,
            end_ms,
        };
        let key = policy.keys.signing(now.wall_ms / 1_000);
        let key = key.ok_or(Unsolved::Unable)?;
        let token = token::write(Kind::Clearance, &clearance, key).ok_or(Unsolved::Unable)?;
        Ok(Solved {
            cookie: clearance::cookie(puzzle),
            rule: puzzle.rule.clone(),
            part: puzzle.part,
            key: puzzle.key,
            clearance: token,
            end_ms,
            life_s: policy.clearance_ms / 1_000,
        })
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

    fn solutions(&self) -> MutexGuard<'_, Spent> {
        lock(&self.solutions)
    }

    fn answers(&self) -> MutexGuard<'_, Spent> {
        lock(&self.answers)
    }

    fn clearances(&self) -> MutexGuard<'_, Spent> {
        lock(&self.clearances)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        lock(&self.places)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole between any two of its operations.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
