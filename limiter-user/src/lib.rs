//! The control plane of limiter.

pub mod policy;
