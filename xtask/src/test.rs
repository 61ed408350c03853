//! Everything that must hold before a change goes in.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    check, setup,
    workspace::{self, Timings, Workspace, is_root},
};

/// `cargo xtask test`: set-up, checks, build, tests, one after the other.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if !is_root() {
        bail!(
            "the tests load programs into the kernel and make network namespaces: run this as \
             root, or `cargo xtask check` for all that needs no root"
        );
    }
    let mut timings = Timings::default();
    let setup = timings.step("setup", || setup::run(workspace))?;
    check::run_all(workspace, &setup, &mut timings)?;
    timings.step("build the tests", || {
        let mut cargo = workspace.cargo(&["test", "--workspace", "--locked", "--no-run"]);
        workspace::run(cargo.arg("--quiet"))?;
        // The end-to-end tests start it; cargo builds it only for tests of
        // its own package.
        let mut cargo = workspace.cargo(&["build", "--package", "limiter-user", "--locked"]);
        workspace::run(cargo.arg("--quiet"))
    })?;
    mount_bpffs()?;
    let mut summaries = Vec::new();
    let outcome = timings.step("test", || {
        // One failure must not hide what the other binaries have to say.
        let mut cargo = workspace.cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
        tests(cargo.args(arguments), &mut summaries)
    });
    // The reader wants these, and they are far apart above.
    println!("==> {}", timings.summary());
    for summary in summaries {
        println!("{summary}");
    }
    outcome
}

/// Runs `cargo test`, showing what it prints, and keeps its summaries.
fn tests(cargo: &mut Command, summaries: &mut Vec<String>) -> Result<()> {
    println!("$ {}", workspace::shown(cargo));
    // One pipe for both, or the names of the test binaries, which cargo
    // prints to stderr, would not be where their tests are.
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let other_writer = writer.try_clone().context("making a pipe")?;
    cargo
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(other_writer);
    let mut child = cargo.spawn().context("running cargo test")?;
    // The command holds the pipe's writing end, without which reading ends.
    cargo.stdout(Stdio::null()).stderr(Stdio::null());

    let mut binary = String::new();
    let mut output = BufReader::new(reader);
    let mut line = Vec::new();
    while output
        .read_until(b'\n', &mut line)
        .context("reading the tests' output")?
        > 0
    {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(&line)
            .context("showing the tests' output")?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.starts_with("Running ") || text.starts_with("Doc-tests ") {
            binary = text.to_owned();
        } else if text.starts_with("test result: ") {
            summaries.push(format!("{binary}: {text}"));
        }
        line.clear();
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() {
        bail!("cargo test failed ({status})");
    }
    Ok(())
}

/// Maps and programs are pinned there; systemd mounts it, containers do not.
pub(crate) fn mount_bpffs() -> Result<()> {
    const BPFFS: &str = "/sys/fs/bpf";
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let is_mounted = mounts.lines().any(|mount| {
        let mut fields = mount.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    });
    if is_mounted {
        return Ok(());
    }
    if !Path::new(BPFFS).is_dir() {
        bail!("{BPFFS} does not exist: this kernel has no BPF, or /sys is not mounted");
    }
    workspace::run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
        .context("mounting the BPF file system, which needs CAP_SYS_ADMIN")
}
