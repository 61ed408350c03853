//! What is posed, and what comes of a solution.

use super::spent::Refused;
use super::{Price, token};
use crate::engine;

/// A puzzle as it is posed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posed {
    /// All of it, for the solution.
    pub token: String,
    /// What is wanted.
    pub price: Price,
    /// When it can be solved no more.
    pub end_ms: u64,
    /// Whether the request has to be sent again afterwards.
    pub resend: bool,
}

impl Posed {
    /// What the number is hashed with.
    #[must_use]
    pub fn seed(&self) -> &str {
        token::mark(&self.token)
    }
}

/// What a solution has bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solved {
    /// The rule of the challenge.
    pub rule: String,
    /// Its tier or rung, from 0.
    pub part: usize,
    /// The key that it was posed for.
    pub key: engine::Key,
    /// The name of the cookie for the clearance.
    pub cookie: String,
    /// The clearance.
    pub clearance: String,
    /// When it ends.
    pub end_ms: u64,
    /// For how long it is good, in seconds.
    pub life_s: u64,
}

/// Why a solution buys nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsolved {
    /// It is not a puzzle, a colon and what solves it.
    #[error(
        "a solution is the puzzle, a colon, and a number in decimal digits or the answer to the CAPTCHA"
    )]
    Malformed,
    /// None of the keys has signed the puzzle.
    #[error("this puzzle was not posed here")]
    Forged,
    /// It was posed by another site.
    #[error("this puzzle was posed for another host")]
    Foreign,
    /// Its time is over, or it is older than the process that looks at it.
    #[error("the time for this puzzle is over; ask for another one")]
    Expired,
    /// The number does not solve it, or the provider of the CAPTCHA does not say that the answer does.
    #[error("this does not solve the puzzle")]
    Wrong,
    /// It was spent before.
    #[error("this solution was used before; ask for another puzzle")]
    Replayed,
    /// More were solved than can be remembered, more are being verified than may be, or there is
    /// no key.
    #[error("no solutions can be taken just now")]
    Unable,
    /// The provider of the CAPTCHA cannot be asked.
    #[error("whether the CAPTCHA is solved cannot be found out just now")]
    Away,
}

impl From<Refused> for Unsolved {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Again => Self::Replayed,
            Refused::Full => Self::Unable,
        }
    }
}

impl Unsolved {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::Foreign => "foreign",
            Self::Expired => "expired",
            Self::Wrong => "wrong",
            Self::Replayed => "replayed",
            Self::Unable => "unable",
            Self::Away => "away",
        }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Forged | Self::Foreign | Self::Wrong => 403,
            Self::Replayed => 409,
            Self::Expired => 410,
            Self::Unable | Self::Away => 503,
        }
    }
}
