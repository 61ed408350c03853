//! What Prometheus gets: `docs/metrics.md` lists it.

mod classic;
mod collector;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use collector::{counters, gauges};
pub use server::{Answers, LIMITS, Metrics, serve};
