//! The limiter at work, on this machine alone.

use anyhow::Result;

use crate::{
    setup, test,
    workspace::{self, Workspace, is_root},
};

/// `cargo xtask demo`. The demo itself is a program of the tests, since it
/// uses their harness.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if !is_root() {
        anyhow::bail!("the demo attaches an XDP program in a network namespace: run it as root");
    }
    setup::run(workspace)?;
    test::mount_bpffs()?;
    // The demo starts the program as a user would.
    let mut cargo = workspace.cargo(&["build", "--release", "--locked"]);
    workspace::run(cargo.args(["-p", "limiter-user", "--bin", "limiter"]))?;
    let mut cargo = workspace.cargo(&["run", "--quiet", "--release", "--locked"]);
    cargo.args(["-p", "limiter-tests", "--bin", "demo", "--"]);
    workspace::run(cargo.args(arguments))
}
