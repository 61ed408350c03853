//! The control plane of limiter.

pub mod adapters;
pub mod challenge;
pub mod cli;
pub mod control;
pub mod courier;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
pub mod engine;
pub mod event;
pub mod follow;
pub mod http;
pub mod image;
pub mod integration;
pub mod keeper;
pub mod metrics;
pub mod nic;
pub mod notify;
pub mod observe;
pub mod policy;
pub mod replay;
pub mod response;
mod seldom;
pub mod store;
pub mod worker;
