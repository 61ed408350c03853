//! The checkout, and how programs are run in it.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Where the sources are and where cargo builds them.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo, which knows of CARGO_TARGET_DIR and configuration files.
    pub(crate) fn find() -> Result<Self> {
        let mut cargo = cargo();
        cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
        // The checkout that this was built in, from wherever it is called.
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = cargo.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("running {}", shown(&cargo)))?;
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("reading what cargo metadata prints")?;
        let path = |field: &str| {
            let value = metadata[field].as_str();
            value
                .map(PathBuf::from)
                .with_context(|| format!("cargo metadata says no {field}"))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
        })
    }

    /// The outer cargo, at the workspace's root.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = cargo();
        cargo.args(arguments).current_dir(&self.root);
        cargo
    }

    /// Where set-up puts what it installs for this checkout alone.
    pub(crate) fn setup_directory(&self) -> PathBuf {
        self.target.join("setup")
    }
}

/// The cargo that runs this task, without what `cargo run` told the task of
/// itself: some build scripts would run again for it.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let of_this_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if of_this_package || name == "LD_LIBRARY_PATH" {
            command.env_remove(name);
        }
    }
    command
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().display().to_string();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs a command to its end; it must succeed. It cannot ask for anything.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("running {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Whether a command succeeds; what it prints is nobody's concern.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// What each step of a task took.
#[derive(Default)]
pub(crate) struct Timings(Vec<(String, Duration)>);

impl Timings {
    /// Performs a step and says how long it took.
    pub(crate) fn step<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}");
        let start = Instant::now();
        let result = step().with_context(|| format!("step \"{name}\""));
        let took = start.elapsed();
        let outcome = if result.is_ok() { "done" } else { "failed" };
        println!("==> {name}: {outcome} in {:.1} s", took.as_secs_f64());
        self.0.push((name.to_owned(), took));
        result
    }

    /// All steps on one line.
    pub(crate) fn summary(&self) -> String {
        let steps: Vec<String> = self
            .0
            .iter()
            .map(|(name, took)| format!("{name} {:.1} s", took.as_secs_f64()))
            .collect();
        steps.join(", ")
    }
}
