//! Harness of the end-to-end tests.

pub mod frames;
