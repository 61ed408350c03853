//! The rules at work: hears events, counts them by key, and decides.
//!
//! Pure and deterministic: time is an argument, in nanoseconds since the Unix epoch,
//! and so is the secret that keys are hashed with.

pub mod count;
