//! What operators get beside the program, tried by the programs that it is for.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod alerts;
mod dashboard;

use std::path::{Path, PathBuf};

/// A file of the checkout.
fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
