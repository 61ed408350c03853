//! Counters: how many events of one key count at an instant.
//!
//! A counter is a definition that all keys of a tier share; what is known of one
//! key is a slice of words that the caller keeps. All zero is a key of which
//! nothing is known. Times are nanoseconds since the Unix epoch and do not run
//! backwards for a key; where they do, the later one is taken.

mod boruta;
mod bucket;
mod distinct;
mod fixed;
mod log;
mod window;

pub use boruta::Boruta;
pub use bucket::Bucket;
pub use distinct::Distinct;
pub use fixed::Fixed;
pub use log::Log;
pub use window::Window;

/// How a key stands with a limit before the next event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the next event is one too many.
    pub over: bool,
    /// When that ends if nothing more is counted; now or earlier if it is not over.
    pub until_ns: u64,
    /// How long the next event is to wait, where the algorithm delays.
    pub delay_ns: u64,
    /// How many more events pass at this instant, rounded down.
    pub remaining: u64,
    /// When nothing that counts now counts any more.
    pub reset_ns: u64,
}

/// What an event adds to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// How many events it stands for; 1 but for scores.
    pub events: u64,
    /// What it has that is told apart, hashed; only [`Counter::Distinct`] looks.
    pub value: u64,
}

impl Amount {
    /// One event.
    pub const ONE: Self = Self {
        events: 1,
        value: 0,
    };
}

/// A counter of any algorithm.
#[derive(Clone, Debug, PartialEq)]
pub enum Counter {
    /// Every event by its time.
    Log(Log),
    /// Two windows, the earlier one in proportion.
    Window(Window),
    /// One window, aligned to the epoch.
    Fixed(Fixed),
    /// Tokens.
    Bucket(Bucket),
    /// boruta's product of factors.
    Boruta(Boruta),
    /// Values told apart.
    Distinct(Distinct),
}

/// Calls a method of whichever counter it is.
macro_rules! each {
    ($counter:expr, $inner:ident => $call:expr) => {
        match $counter {
            Counter::Log($inner) => $call,
            Counter::Window($inner) => $call,
            Counter::Fixed($inner) => $call,
            Counter::Bucket($inner) => $call,
            Counter::Boruta($inner) => $call,
            Counter::Distinct($inner) => $call,
        }
    };
}

impl Counter {
    /// Words that a key's state takes.
    #[must_use]
    pub fn words(&self) -> usize {
        each!(self, counter => counter.words())
    }

    /// How a key stands at `now_ns`, if `reserved` more events counted already.
    #[must_use]
    pub fn judge(&self, state: &[u64], now_ns: u64, reserved: u64) -> Standing {
        each!(self, counter => counter.judge(state, now_ns, reserved))
    }

    /// Whether the next event is one too many: what [`Self::judge`] says, without the rest.
    #[must_use]
    pub fn is_over(&self, state: &[u64], now_ns: u64, reserved: u64) -> bool {
        match self {
            Self::Window(window) => window.is_over(state, now_ns, reserved),
            other => other.judge(state, now_ns, reserved).over,
        }
    }

    /// Whether an event may have to wait though it is not one too many.
    #[must_use]
    pub const fn delays(&self) -> bool {
        matches!(self, Self::Bucket(_) | Self::Boruta(_))
    }

    /// Counts an event.
    pub fn add(&self, state: &mut [u64], now_ns: u64, amount: Amount) {
        match self {
            Self::Log(log) => log.add(state, now_ns, amount.events),
            Self::Window(window) => window.add(state, now_ns, amount.events),
            Self::Fixed(fixed) => fixed.add(state, now_ns, amount.events),
            Self::Bucket(bucket) => bucket.add(state, now_ns, amount.events),
            Self::Boruta(boruta) => boruta.add(state, now_ns, amount.events),
            Self::Distinct(distinct) => distinct.add(state, now_ns, amount.value),
        }
    }

    /// Forgets half of what counts; of an odd number one more.
    pub fn halve(&self, state: &mut [u64], now_ns: u64) {
        each!(self, counter => counter.halve(state, now_ns));
    }

    /// Whether nothing counts at `now_ns`: then the state may be forgotten.
    #[must_use]
    pub fn idle(&self, state: &[u64], now_ns: u64) -> bool {
        each!(self, counter => counter.judge(state, now_ns, 0).reset_ns) <= now_ns
    }
}

/// `numerator / denominator` of what two 64-bit words multiply to, rounded down.
fn share(value: u64, numerator: u64, denominator: u64) -> u64 {
    let share = u128::from(value) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}
