//! The control plane of limiter.

pub mod control;
pub mod dataplane;
pub mod http;
pub mod keeper;
pub mod metrics;
pub mod policy;
