//! What Prometheus gets: `docs/metrics.md` lists it.

mod classic;
mod collector;
mod server;
#[cfg(test)]
mod tests;

pub use server::{LIMITS, Metrics, serve};
