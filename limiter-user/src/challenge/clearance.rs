//! Clearances: what a solution has bought, and how requests bring them.

use std::cell::LazyCell;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::token::{self, Kind};
use super::{CLEARANCE, COOKIE, Challenges, InForce, Moment, Price, Puzzle};
use crate::engine::{self, Cleared, Decision, MOST_CLEARED, account};
use crate::event::Event;
use crate::policy::Action;

/// What a clearance says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clearance {
    pub(super) id: u128,
    /// The run of the process that gave it.
    pub(super) run: u64,
    pub(super) rule: String,
    pub(super) part: usize,
    pub(super) key: engine::Key,
    pub(super) host: u64,
    pub(super) challenge: Action,
    /// What was paid.
    pub(super) price: Price,
    pub(super) began_ms: u64,
    pub(super) end_ms: u64,
}

impl Clearance {
    fn cleared(&self) -> Cleared {
        Cleared {
            rule: self.rule.as_str().into(),
            key: self.key,
            challenge: self.challenge,
            bits: match self.price {
                Price::Work(bits) => bits,
                Price::Captcha(_) => u8::MAX,
            },
        }
    }
}

impl Challenges {
    /// Asks about a request with the clearances that it brings. One that is good for a single
    /// request is spent if that one passes by it.
    pub fn ask(
        &self,
        event: &Event,
        now: Moment,
        ask: impl FnOnce(&[Cleared]) -> Decision,
    ) -> Decision {
        let policy = self.policy();
        if policy.rules.is_empty() {
            return ask(&[]);
        }
        // Taken before it is asked, so that of many at once one passes.
        let mut held = brought(&policy, event, now.wall_ms);
        held.retain(|it| {
            !policy.is_once(&it.rule)
                || self.knows(it.run, it.began_ms)
                    && self.clearances().spend(it.id, it.end_ms, now).is_ok()
        });
        let cleared: Vec<Cleared> = held.iter().map(Clearance::cleared).collect();
        let decision = ask(&cleared);
        for (at, it) in held.iter().enumerate() {
            let is_used = decision.cleared & (1 << at) != 0 && !decision.refuses();
            if policy.is_once(&it.rule) && !is_used {
                self.clearances().give_back(it.id);
            }
        }
        if decision.cleared != 0 {
            self.count("cleared");
        }
        decision
    }
}

/// The clearances in the cookies and the header of a request that hold: each once.
fn brought(policy: &InForce, event: &Event, now_ms: u64) -> Vec<Clearance> {
    let header = account::header(&event.headers, CLEARANCE);
    let cookies: Vec<(&str, &str)> = account::cookies(event).collect();
    // A browser sends the oldest first.
    let texts = cookies.into_iter().rev();
    let texts = texts
        .filter(|(name, _)| is_cookie(name))
        .map(|(_, value)| value);
    let read = |text| token::read::<Clearance>(Kind::Clearance, text, &policy.keys);
    // Most requests bring none: nothing is hashed for them.
    let host = LazyCell::new(|| super::host_mark(event.host.as_deref()));
    let holds = |it: &Clearance| {
        it.end_ms > now_ms && it.host == *host && policy.asks_so(it.challenge, it.price)
    };
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

/// The cookie's name: one for each tier of a rule, key and host. A clearance takes the place of
/// none that stands for something else.
pub(super) fn cookie(puzzle: &Puzzle) -> String {
    let hash = Sha256::new()
        .chain_update(&puzzle.rule)
        .chain_update(puzzle.part.to_le_bytes())
        .chain_update(puzzle.key.to_le_bytes())
        .chain_update(puzzle.host.to_le_bytes())
        .finalize();
    let digits = hash
        .iter()
        .take(DIGITS / 2)
        .map(|byte| format!("{byte:02x}"));
    format!("{COOKIE}{}", digits.collect::<String>())
}

/// Hexadecimal digits of a cookie's name.
const DIGITS: usize = 8;

/// Whether a cookie has a name such as [`cookie`] gives.
fn is_cookie(name: &str) -> bool {
    let digits = name.strip_prefix(COOKIE).unwrap_or_default();
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.len() == DIGITS && digits.bytes().all(is_digit)
}

/// The cookies of a browser that have to go so that it has no more than are looked at once it gets
/// this one: the oldest.
pub fn surplus<'a>(cookies: impl Iterator<Item = &'a str>, new: &str) -> Vec<String> {
    let names = cookies
        .map(str::trim)
        .filter(|name| is_cookie(name) && *name != new);
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.truncate(names.len().saturating_sub(MOST_CLEARED - 1));
    names
}
