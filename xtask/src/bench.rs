//! What limiter costs, beside its peers, on this machine.

use std::{
    io,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    test,
    workspace::{Workspace, is_root, shown},
};

/// `cargo xtask bench`. The bench itself is a program of the tests, since it
/// uses their harness. Only what it prints goes to stdout.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the bench attaches XDP programs in network namespaces: run it as root");
    }
    let own = std::env::current_exe().context("finding this program")?;
    succeed(
        Command::new(own)
            .arg("setup")
            .stdout(Stdio::from(io::stderr())),
    )?;
    test::mount_bpffs()?;
    // Some sections measure the daemon, which is looked for beside the bench.
    let daemon = [
        "build",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "limiter-user",
    ];
    succeed(workspace.cargo(&daemon).stdout(Stdio::from(io::stderr())))?;
    let mut cargo = workspace.cargo(&["run", "--quiet", "--release", "--locked"]);
    cargo.args(["-p", "limiter-tests", "--bin", "bench", "--"]);
    succeed(cargo.args(arguments))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("running {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}
