//! Debian's packages of the peers that follow logs. Set-up unpacks them below the target
//! directory and installs nothing: a service would start with the machine, and CrowdSec's
//! would register it with its makers.

use crate::process::Process;
use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A file of theirs, by its name on a system that has them installed.
pub fn file(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the own file")?;
    let below = |directory: &Path| directory.join("setup/peers").join(name);
    let found = own.ancestors().map(below).find(|path| path.exists());
    found.with_context(|| {
        format!("no setup/peers/{name} in the target directory: run `cargo xtask setup`")
    })
}

/// Fails with what it printed if it has ended.
pub fn ensure_runs(process: &mut Process, log: &Path) -> Result<()> {
    if let Some(status) = process.ended()? {
        let log = std::fs::read_to_string(log).unwrap_or_default();
        anyhow::bail!("it ended ({status}): {}", log.trim());
    }
    Ok(())
}

/// Runs a command of theirs to its end; returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("running {name}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name} ({}): {}",
        output.status,
        errors.trim()
    );
    String::from_utf8(output.stdout).with_context(|| format!("reading what {name} prints"))
}
