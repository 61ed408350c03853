//! Where events come in: applications over HTTP ([`api`]), proxies that ask about each
//! request ([`check`]), servers by datagrams ([`datagrams`]) and by log files that are
//! followed ([`logs`]).
//!
//! This runs in a process without privileges. It binds no socket and opens no
//! file: it is given both, and what it hears goes to a [`Judge`], with the client
//! that a trusted proxy names ([`Proxies`]) and counted by origin ([`origin`]).

pub mod api;
pub mod check;
pub mod datagrams;
mod figures;
mod gate;
mod intake;
pub mod logs;
pub mod origin;
mod proxies;
mod running;
mod sleepers;
pub mod spoe;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::SystemTime;

use tokio::sync::oneshot;

pub use figures::{Figures, LatencyRow, StatusRow};
pub use intake::Intake;
pub use proxies::Proxies;
pub use running::Running;

use crate::challenge::Solved;
use crate::challenge::captcha::Question;
use crate::courier::Answer;
use crate::engine::{Cleared, Decision};
use crate::event::Event;

/// What hears events and decides; all may call it at once.
pub trait Judge: Send + Sync + 'static {
    /// Decides about a request, which brings challenges that were solved before, and counts it.
    fn ask(&self, event: &Event, cleared: &[Cleared]) -> Decision;
    /// Hears that a challenge was solved.
    fn passed(&self, solved: &Solved);
    /// Has the provider of CAPTCHAs that the policy names asked. There may come no answer.
    fn verify(&self, question: Question) -> oneshot::Receiver<Answer>;
    /// Hears what became of requests.
    fn report(&self, events: &[Event]);
    /// Hears what became of requests while nobody heard: each happened when it says.
    fn report_past(&self, events: &[Event]);
}

/// Milliseconds since the Unix epoch.
fn wall_ms() -> u64 {
    wall_ns() / 1_000_000
}

/// Nanoseconds since the Unix epoch.
fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
