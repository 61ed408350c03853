//! Processes that end with their handle.

use crate::wait;
use anyhow::{Context as _, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A running process; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a command ([`crate::netns::Namespace::command`]). What it prints
    /// goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let name = command.get_program().display().to_string();
        let log = fs::File::create(log).context("making a log file")?;
        let errors = log.try_clone().context("making a log file")?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal (`libc::SIGSTOP`, …).
    pub fn signal(&self, signal: i32) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("a process number")?;
        // SAFETY: a system call on integers; the child is not reaped before
        // `self` is gone, so the number is its own.
        if unsafe { libc::kill(id, signal) } != 0 {
            return Err(io::Error::last_os_error()).context("sending a signal");
        }
        Ok(())
    }

    /// Its status if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        let what = format!("the end of {}", self.name);
        wait::until(&what, wait::SOON, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended and been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of this test alone, removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("limiter-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // A test that was killed has left its own, and its number came again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making {}", path.display()));
                }
            }
        }
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}
