//! Manual pages and completions, from the definitions of the command line.

use std::path::{Path, absolute};

use anyhow::{Context as _, Result};

use crate::workspace::{self, Workspace};

/// `cargo xtask man DIRECTORY`. An example of limiter-user writes them, since
/// only that crate knows its command line.
pub(crate) fn run(workspace: &Workspace, directory: &Path) -> Result<()> {
    // Cargo runs at the workspace's root, the caller may be elsewhere.
    let directory =
        absolute(directory).with_context(|| format!("finding {}", directory.display()))?;
    let mut cargo = workspace.cargo(&["run", "--quiet", "--locked"]);
    cargo.args(["-p", "limiter-user", "--example", "man", "--"]);
    workspace::run(cargo.arg(directory))
}
