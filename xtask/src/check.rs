//! Formatting, lints, house rules and documentation.

use std::{env, ffi::OsString};

use anyhow::{Context as _, Result};

use crate::{
    tidy,
    toolchain::Setup,
    workspace::{self, Timings, Workspace},
};

/// The crates built for BPF: the XDP program, and those of the test rig.
const EBPF: [&str; 2] = ["limiter-ebpf", "tests/ebpf"];

/// Runs every check that needs no root.
pub(crate) fn run_all(workspace: &Workspace, setup: &Setup, timings: &mut Timings) -> Result<()> {
    timings.step("format", || {
        workspace::run(&mut workspace.cargo(&["fmt", "--all", "--check"]))?;
        // Not members of the workspace.
        for directory in EBPF {
            let mut ebpf = workspace.cargo(&["fmt", "--check", "--manifest-path"]);
            workspace::run(ebpf.arg(format!("{directory}/Cargo.toml")))?;
        }
        Ok(())
    })?;
    timings.step("tidy", || tidy::run(&workspace.root))?;
    timings.step("clippy", || {
        let mut cargo = workspace.cargo(&["clippy", "--workspace", "--all-targets", "--locked"]);
        workspace::run(cargo.args(["--quiet", "--", "-D", "warnings"]))
    })?;
    timings.step("lint the XDP programs", || {
        for directory in EBPF {
            ebpf(workspace, setup, directory)?;
        }
        Ok(())
    })?;
    timings.step("documentation", || {
        let mut cargo = workspace.cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
        workspace::run(cargo.arg("--quiet").env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// `cargo xtask check`.
pub(crate) fn run(workspace: &Workspace, setup: &Setup) -> Result<()> {
    let mut timings = Timings::default();
    run_all(workspace, setup, &mut timings)?;
    println!("all checks passed: {}", timings.summary());
    Ok(())
}

/// Apart from the workspace, for its own target and with its own compiler.
fn ebpf(workspace: &Workspace, setup: &Setup, directory: &str) -> Result<()> {
    let bin = setup.toolchain.sysroot.join("bin");
    let has_clippy = ["cargo-clippy", "clippy-driver"]
        .iter()
        .all(|program| bin.join(program).is_file());
    let arch = env::consts::ARCH;
    let target = workspace.target.join("bpf");
    let mut cargo;
    if has_clippy {
        cargo = setup.cargo("clippy", arch, &workspace.root);
        // The directory of the build, whose macros and build scripts serve
        // here too.
        cargo.arg("--target-dir").arg(target.join(arch));
        cargo.args(["--", "-D", "warnings"]);
    } else {
        println!(
            "no clippy beside {}: the compiler's own warnings only",
            bin.join("rustc").display()
        );
        cargo = setup.cargo("check", arch, &workspace.root);
        let (_, flags) = cargo
            .get_envs()
            .find(|(name, _)| *name == "CARGO_ENCODED_RUSTFLAGS")
            .context("the flags of the XDP program's build are not set")?;
        let mut flags = flags.map(OsString::from).unwrap_or_default();
        flags.push("\x1f-Dwarnings");
        // Another directory: other flags would have the build start afresh.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
        cargo.arg("--target-dir").arg(target.join("check"));
    }
    workspace::run(cargo.current_dir(workspace.root.join(directory)))
}
