//! The control plane of limiter.

pub mod dataplane;
pub mod policy;
