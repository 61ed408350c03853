//! The control plane of limiter.

pub mod dataplane;
pub mod image;
pub mod policy;
pub mod replay;
