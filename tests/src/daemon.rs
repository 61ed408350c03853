//! The `limiter` program: the daemon and its command line.

use crate::{
    mounts::{self, Mount},
    netns::{Namespace, PINS},
    process::{Process, Scratch},
    wait,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Names the program to test; without it, it is looked for beside the tests,
/// where cargo puts it.
const PROGRAM: &str = "LIMITER_PROGRAM";

/// The program that is tested.
pub fn program() -> Result<PathBuf> {
    if let Some(named) = env::var_os(PROGRAM) {
        return Ok(named.into());
    }
    // target/PROFILE/deps/TEST, target/PROFILE/demo
    let test = env::current_exe().context("finding the test's own file")?;
    let beside = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("limiter"))
        .find(|path| path.is_file());
    match beside {
        Some(path) => Ok(path),
        None => bail!(
            "no program `limiter` beside {}; build it (cargo build --package limiter-user) or name \
             it in {PROGRAM}",
            test.display()
        ),
    }
}

/// A user that no system has a name for.
pub const NOBODY_KNOWN: u32 = 64_999;

/// How a daemon is started; as the tests are, unless something else is said.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// As another user, in no group but that of the same number, with these
    /// capabilities (`+bpf`) in every set of them and no others.
    pub user: Option<(u32, Vec<String>)>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Further lines of `[control]`.
    pub control: String,
}

impl Terms {
    /// As a user that no system has a name for, with these capabilities.
    pub fn unprivileged(capabilities: &[&str]) -> Self {
        let capabilities = capabilities.iter().map(|it| (*it).to_owned()).collect();
        Self {
            user: Some((NOBODY_KNOWN, capabilities)),
            ..Self::default()
        }
    }
}

/// Prepares a command as another user: it runs `program`, of which whoever it
/// is must be able to reach the file.
pub fn as_user(
    namespace: &Namespace,
    uid: u32,
    groups: &[u32],
    capabilities: &[String],
    program: &Path,
) -> Command {
    let mut command = namespace.command("setpriv");
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    let gid = groups.first().cloned().unwrap_or_else(|| uid.to_string());
    command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
    match &groups[..] {
        [] | [_] => command.arg("--clear-groups"),
        [_, more @ ..] => command.arg(format!("--groups={}", more.join(","))),
    };
    let sets = [&["-all".to_owned()], capabilities].concat().join(",");
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.arg(format!("{set}={sets}"));
    }
    command.arg("--").arg(program);
    command
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Mutex<Option<Process>>,
    namespace: Namespace,
    scratch: Scratch,
    terms: Terms,
    /// What lies over the state directory, for the daemon alone.
    mount: Mutex<Option<Mount>>,
}

impl Daemon {
    /// Starts one in `namespace` and waits until it answers. `policy` has no
    /// `[control]` and no `[state]`: both are put behind it, with places in a
    /// directory of this test's.
    pub fn start(namespace: &Namespace, policy: &str) -> Result<Self> {
        Self::start_on(namespace, policy, Terms::default())
    }

    /// The same on other terms.
    pub fn start_on(namespace: &Namespace, policy: &str, terms: Terms) -> Result<Self> {
        let daemon = Self::prepare(namespace, policy, terms)?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// Everything but the process: for one that will not start
    /// ([`Daemon::run`]), or later ([`Daemon::launch`]).
    pub fn prepare(namespace: &Namespace, policy: &str, terms: Terms) -> Result<Self> {
        let daemon = Self {
            process: Mutex::new(None),
            namespace: namespace.clone(),
            scratch: Scratch::new()?,
            terms,
            mount: Mutex::new(None),
        };
        daemon.write_policy(policy)?;
        daemon.give_away()?;
        Ok(daemon)
    }

    /// Lets everybody reach the program and the policy, and gives the
    /// directory to whoever the daemon runs as.
    fn give_away(&self) -> Result<()> {
        let Some((uid, _)) = &self.terms.user else {
            return Ok(());
        };
        fs::copy(program()?, self.shared_program()).context("copying the program")?;
        for (path, mode) in [(self.scratch.path("."), 0o755), (self.policy(), 0o644)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        chown(self.scratch.path("."), Some(*uid), Some(*uid))
            .context("giving the directory away")?;
        // Who may not mount finds a file system of its own, as of a service's unit.
        self.mount_pins()?;
        let owner = format!("{uid}:{uid}");
        self.namespace.output("chown", &[&owner, PINS]).map(drop)
    }

    fn mount_pins(&self) -> Result<()> {
        let script = format!(
            "mountpoint -q {PINS} || {{ mkdir -p {PINS} && \
             mount -t bpf -o mode=0700,nosuid,nodev,noexec bpf {PINS}; }}"
        );
        self.namespace.output("sh", &["-c", &script]).map(drop)
    }

    /// Lets something else lie over the state directory from the next launch
    /// on, where only the daemon sees it.
    pub fn mount(&self, mount: Option<Mount>) {
        *self.mount.lock().unwrap_or_else(PoisonError::into_inner) = mount;
    }

    /// A copy of the program that every user can reach, if the daemon is
    /// another user's.
    pub fn shared_program(&self) -> PathBuf {
        self.scratch.path("limiter")
    }

    /// Runs a daemon that ends by itself; returns how, and what it printed.
    pub fn run(&self) -> Result<Output> {
        let mut command = self.run_command()?;
        command
            .stdin(Stdio::null())
            .output()
            .context("running limiter")
    }

    fn run_command(&self) -> Result<Command> {
        let mut command = match &self.terms.user {
            Some((uid, capabilities)) => as_user(
                &self.namespace,
                *uid,
                &[],
                capabilities,
                &self.shared_program(),
            ),
            None => self.namespace.command(program()?),
        };
        command.envs(self.terms.environment.iter().cloned());
        command.arg("run").arg("--config").arg(self.policy());
        Ok(command)
    }

    /// Replaces the policy's file, at once and as a whole; `reload` puts it in
    /// force.
    pub fn write_policy(&self, policy: &str) -> Result<()> {
        let text = format!("{policy}\n{}", self.places());
        let new = self.scratch.path("limiter.toml.new");
        fs::write(&new, text).context("writing the policy")?;
        fs::rename(&new, self.policy()).context("replacing the policy")
    }

    /// The policy's file.
    pub fn policy(&self) -> PathBuf {
        self.scratch.path("limiter.toml")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch.path("control.sock")
    }

    /// The state directory, as it is without a mount.
    pub fn state(&self) -> PathBuf {
        self.scratch.path("state")
    }

    /// The state directory as the running daemon has it.
    pub fn state_inside(&self) -> Result<PathBuf> {
        let process = self.lock();
        let process = process.as_ref().context("the daemon was stopped")?;
        let state = self.state();
        let below = state.strip_prefix("/").context("an absolute path")?;
        Ok(PathBuf::from(format!("/proc/{}/root", process.id())).join(below))
    }

    /// Sections that keep what the daemon leaves in this test's directory.
    fn places(&self) -> String {
        format!(
            "[control]\nsocket = {:?}\n{}\n[state]\ndirectory = {:?}\npins = {PINS:?}\n",
            self.socket(),
            self.terms.control,
            self.state()
        )
    }

    /// Starts the process, for the first time or again, and waits until it
    /// answers: it listens before it has attached anything, and answers after.
    pub fn launch(&self) -> Result<()> {
        self.begin()?;
        wait::until("the daemon", wait::SOON, || {
            if let Some(process) = self.lock().as_mut()
                && let Some(status) = process.ended()?
            {
                bail!("the daemon ended ({status}): {}", self.log()?);
            }
            let answer = self.output(&["status"])?;
            Ok(answer.status.success().then_some(()))
        })
    }

    /// Starts the process and does not wait.
    pub fn begin(&self) -> Result<()> {
        // The old one must be gone before the new one takes its socket.
        drop(self.take());
        let mut command = self.run_command()?;
        if let Some(mount) = *self.mount.lock().unwrap_or_else(PoisonError::into_inner) {
            // What it pins is for the next one too.
            self.mount_pins()?;
            mounts::inside(&mut command, &self.state(), mount)?;
        }
        let log = self.scratch.path("log");
        *self.lock() = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// What it printed since it was last started.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.scratch.path("log")).context("reading the daemon's log")
    }

    /// A command of the command line for it.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command(program()?);
        command.arg("--socket").arg(self.socket()).args(arguments);
        Ok(command)
    }

    /// Runs a command of the command line against it.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?
            .stdin(Stdio::null())
            .output()
            .context("running limiter")
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "limiter {arguments:?} ({}): {errors}",
            output.status
        );
        String::from_utf8(output.stdout).context("reading what limiter prints")
    }

    /// The same with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.ask(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// Sends it a signal: `libc::SIGSTOP`, `SIGCONT`, `SIGKILL`, `SIGHUP`.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let process = self.lock();
        let process = process.as_ref().context("the daemon was stopped")?;
        process.signal(signal)
    }

    /// Its process.
    pub fn id(&self) -> Result<u32> {
        let process = self.lock();
        let process = process.as_ref().context("the daemon was stopped")?;
        Ok(process.id())
    }

    /// Ends it as an init system would, and waits.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.take().context("the daemon was stopped")?.stop()
    }

    /// How it has ended, if it has by itself.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        let mut process = self.lock();
        let process = process.as_mut().context("the daemon was stopped")?;
        process.ended()
    }

    /// Kills it, and waits.
    pub fn kill(&self) -> Result<()> {
        let process = self.take();
        drop(process.context("the daemon was stopped")?);
        Ok(())
    }

    fn take(&self) -> Option<Process> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
