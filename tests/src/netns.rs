//! Network namespaces.

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

/// Where limiter keeps its pins in mounts that are private: in memory, and gone
/// with the namespace.
pub const PINS: &str = "/mnt/limiter-bpf";

/// Gives this thread mounts of its own, with room for [`PINS`].
///
/// # Errors
/// The kernel refuses.
pub fn private_mounts() -> Result<()> {
    own_mounts().context("making private mounts")
}

fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        "/mnt",
        Some("tmpfs"),
        flags,
        Some("size=64k"),
    )?;
    Ok(())
}

/// A network namespace, its loopback up, and for the programs in it mounts of
/// their own ([`private_mounts`]). It has no name anywhere, and is gone with the
/// last handle, process and socket in it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    network: OwnedFd,
    mounts: OwnedFd,
}

impl Namespace {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let made = thread::scope(|scope| scope.spawn(own_namespaces).join());
        let handle = match made {
            Ok(handle) => handle.context("making a network namespace")?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let namespace = Self(Arc::new(handle));
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs a closure on a thread inside the namespace. The mounts are those
    /// outside: `/sys/fs/bpf` is there, and `/sys/class/net` is not this
    /// namespace's.
    ///
    /// # Panics
    /// If the closure does, or the namespace cannot be entered.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        #[expect(clippy::expect_used, reason = "a descriptor that this process holds")]
        let work = || {
            setns(&self.0.network, CloneFlags::CLONE_NEWNET).expect("entering a network namespace");
            inside()
        };
        match thread::scope(|scope| scope.spawn(work).join()) {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A command that will run inside the namespace. Start it from the test's
    /// own thread, not inside of [`Namespace::run`]: it is killed when the
    /// thread that started it ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = Arc::clone(&self.0);
        // Entering mounts goes to their root.
        let directory = std::env::current_dir();
        let inside = move || {
            // SAFETY: a system call on integers, as pre_exec allows.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
                return Err(io::Error::last_os_error());
            }
            setns(&namespace.network, CloneFlags::CLONE_NEWNET)?;
            setns(&namespace.mounts, CloneFlags::CLONE_NEWNS)?;
            if let Ok(directory) = &directory {
                nix::unistd::chdir(directory.as_path())?;
            }
            Ok(())
        };
        // SAFETY: system calls only; a path of usual length is copied to the stack.
        unsafe { command.pre_exec(inside) };
        command
    }

    /// Runs lines of `ip` inside, as one batch; returns what it printed.
    pub fn ip(&self, lines: &str) -> Result<String> {
        let mut ip = self.command("ip");
        ip.args(["-json", "-stats", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = ip.spawn().context("running ip")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes()).context("talking to ip")?;
        }
        let output = child.wait_with_output().context("running ip")?;
        if !output.status.success() {
            bail!(
                "ip: {}\n{lines}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).context("reading what ip prints")
    }

    /// Runs a program inside to its end; it must succeed. Returns what it
    /// printed.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let output = output.with_context(|| format!("running {program}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{program} {arguments:?} ({}): {}",
                output.status,
                errors.trim()
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("reading what {program} prints"))
    }

    /// A path that names it, for programs that want one, while this process
    /// holds it.
    pub fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.0.network.as_raw_fd()
        )
        .into()
    }

    /// Sets a kernel parameter of the namespace, given its path below
    /// `/proc/sys/net`.
    pub fn set(&self, parameter: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{parameter}");
        self.run(|| std::fs::write(&path, value))
            .with_context(|| format!("writing {value} to {path}"))
    }
}

/// Gives this thread, which ends soon, a network and mounts of its own.
fn own_namespaces() -> io::Result<Handles> {
    own_mounts()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(Handles {
        network: File::open("/proc/thread-self/ns/net")?.into(),
        mounts: File::open("/proc/thread-self/ns/mnt")?.into(),
    })
}
