//! The control plane of limiter.
