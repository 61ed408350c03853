//! When a rule acts, and how: tiers, ladders and boruta's limiter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::Rate;

/// The longest that anything lasts.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// When a rule acts, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// Counted separately and side by side; 1 to [`MAX_TIERS`](super::MAX_TIERS).
    Tiers(Vec<Tier>),
    /// One rung at a time.
    Ladder(Ladder),
    /// boruta's product of factors: delays, then rejects.
    Boruta(Boruta),
}

impl Course {
    /// What a tier or rung does, and for how long at most, without jitter: `part` from 0.
    #[must_use]
    pub fn step(&self, part: usize) -> Option<(Effect, Duration)> {
        match self {
            Self::Tiers(tiers) => {
                let tier = tiers.get(part)?;
                let most = match (tier.lasting, &tier.gauge) {
                    (Some(lasting), _) => lasting,
                    // What is estimated from two windows falls within two of them.
                    (None, Gauge::Window(window)) => window.period.saturating_mul(2),
                    (None, Gauge::TokenBucket(_)) => LONGEST,
                };
                Some((tier.effect, most))
            }
            Self::Ladder(ladder) => {
                let rung = ladder.rungs.get(part)?;
                Some((rung.effect, rung.lasting))
            }
            Self::Boruta(_) => None,
        }
    }
}

/// One tier of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tier {
    /// When it is reached.
    pub gauge: Gauge,
    /// What it does then.
    pub effect: Effect,
    /// For how long, 1 s to 365 d; `None`: while the count stays at or over the
    /// limit.
    pub lasting: Option<Duration>,
}

/// Longer and longer actions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ladder {
    /// 1 to [`MAX_TIERS`](super::MAX_TIERS); the last repeats.
    pub rungs: Vec<Rung>,
    /// It falls by one rung for each such time without a counted event after its
    /// action ended; 1 s to 365 d.
    pub decay: Duration,
}

/// One step of a ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// When it is reached.
    pub window: Window,
    /// What it does then.
    pub effect: Effect,
    /// For how long, 1 s to 365 d.
    pub lasting: Duration,
}

/// How a tier measures.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gauge {
    /// So many in a period.
    Window(Window),
    /// A token bucket.
    TokenBucket(TokenBucket),
}

/// So many in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The count at which it is reached, 1 to 1,000,000,000.
    pub limit: u64,
    /// 1 s to 365 d.
    pub period: Duration,
    /// Whether it takes more than `limit`.
    pub exceeds: bool,
    /// How what is in the period is told.
    pub algorithm: Algorithm,
}

impl Window {
    /// The count from which on the action applies.
    #[must_use]
    pub const fn threshold(&self) -> u64 {
        self.limit.saturating_add(self.exceeds as u64)
    }
}

/// How what is in the period is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Exact: the times of the last events; of limits up to 10,000.
    SlidingLog,
    /// An estimate from two aligned windows.
    SlidingWindow,
    /// One aligned window.
    FixedWindow,
}

/// A token bucket over events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TokenBucket {
    /// How fast it refills.
    pub rate: Rate,
    /// How many tokens it holds, 1 to 1,000,000,000.
    pub burst: u64,
    /// How many of the burst pass at once, below `burst`; the others wait until
    /// their token comes. `None`: all pass at once.
    pub delay: Option<u64>,
}

/// boruta's limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Boruta {
    /// Events in a period that are neutral, 1 to 100,000.
    pub limit: u64,
    /// The unit of time, 1 s to 1 h.
    pub period: Duration,
    /// What the product is multiplied with, in milliseconds, 1 to 600,000.
    pub penalty_ms: u64,
    /// The delay from which on it rejects, in milliseconds, 1 to 600,000.
    pub timeout_ms: u64,
    /// How many periods are looked at, 1 to 10,000.
    pub memory: u32,
    /// Whether quiet periods give credit, as in boruta itself.
    pub faithful: bool,
}

/// What a tier or rung does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// The action.
    pub action: Action,
    /// How long [`Action::Throttle`] makes a request wait, 1 to 60,000 ms.
    pub wait_ms: u64,
    /// The challenge that is offered to those who were rejected:
    /// [`Action::JsChallenge`] or [`Action::Captcha`].
    pub then: Option<Action>,
    /// Whether it is counted and not done; true where the rule says so.
    pub simulate: bool,
    /// Whether the owner of the account is told.
    pub notify_owner: bool,
    /// How hard its challenges are to compute, 1 to 28 ([`Effect::difficulty_bits`]).
    pub difficulty_bits: Option<u8>,
}

impl Effect {
    /// How many leading zero bits the solution of this challenge must have: each doubles the
    /// work.
    #[must_use]
    pub fn difficulty_bits(&self, challenge: Action) -> u8 {
        let usual = match challenge {
            Action::Captcha => CAPTCHA_BITS,
            _ => JS_CHALLENGE_BITS,
        };
        self.difficulty_bits.unwrap_or(usual)
    }
}

/// A quarter of a million hashes on average: less than a second of a phone.
const JS_CHALLENGE_BITS: u8 = 18;
/// Two million: some seconds.
const CAPTCHA_BITS: u8 = 21;

/// What is done to requests; the later is the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They are made to wait.
    Throttle,
    /// The browser must compute something.
    JsChallenge,
    /// A person must solve something.
    Captcha,
    /// They are refused with the rule's response.
    Reject,
    /// The whole source is refused, at the NIC where it is the peer.
    Block,
}

impl Action {
    /// All, from the weakest.
    pub const ALL: [Self; 5] = [
        Self::Throttle,
        Self::JsChallenge,
        Self::Captcha,
        Self::Reject,
        Self::Block,
    ];

    /// Whether a client can pass it by solving something.
    #[must_use]
    pub const fn is_challenge(self) -> bool {
        matches!(self, Self::JsChallenge | Self::Captcha)
    }
}
