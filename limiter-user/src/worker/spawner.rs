//! The spawner: a process that was made before the daemon gave up its privileges, has none
//! itself, and makes the worker and the courier as often as they are needed. So these run as
//! another user, also after the daemon cannot change users any more.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caps::CapSet;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Uid, User};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::channel::{self, ChannelError, Receiver, Sender};

/// What the processes are called; by it the program knows what it is to be.
pub const SPAWNER: &str = "limiter-spawner";
/// As [`SPAWNER`].
pub const WORKER: &str = "limiter-worker";
/// As [`SPAWNER`].
pub const COURIER: &str = "limiter-courier";

/// The program itself, also after another file has taken its name.
const SELF: &str = "/proc/self/exe";

/// Who the worker is where it has no user of its own.
const NOBODY: &str = "nobody";

/// Its user and group where nobody is known by that name: the kernel's own for those that
/// it cannot tell (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: (u32, u32) = (65_534, 65_534);

/// How long the spawner may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(2);

/// How long after its channel its process may end.
const ENDING: Duration = Duration::from_millis(500);

/// What it says that answers nothing.
const NONSENSE: &str = "limiter-spawner answers what it was not asked; this is a defect of limiter";

/// Bytes of an order or an answer.
const SMALL: usize = 65_536;

/// What the spawner makes, one of each at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// What hears events.
    Worker,
    /// What talks to servers elsewhere.
    Courier,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Worker => WORKER,
            Self::Courier => COURIER,
        }
    }
}

/// What the daemon orders, by which number the answer is known: one that comes too late is not
/// taken for that to the next.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u64,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
enum What {
    /// One of these; the end of its channel comes beside it.
    Spawn(Role),
    /// The end of the one there is.
    Kill(Role),
}

/// What the spawner tells.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Told {
    /// The answer to the order of this number.
    Done { number: u64, outcome: Outcome },
    /// One has ended that nobody ended.
    Ended(Role, String),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    /// There is one, with this process number.
    Spawned(u32),
    /// There is none, and why.
    Failed(String),
    /// It was ended, in this way; `None`: it had ended before.
    Killed(Option<String>),
}

/// The spawner, as the daemon sees it. It ends with this.
#[derive(Debug)]
pub struct Spawner {
    id: u32,
    talk: Mutex<Talk>,
}

/// One order and its answer at a time.
#[derive(Debug)]
struct Talk {
    orders: Sender<Order>,
    told: Receiver<Told>,
    child: Child,
    /// The number of the last order.
    number: u64,
    /// How the last one of a role ended that nobody ended.
    ended: Vec<(Role, String)>,
}

/// Why there is no spawner.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {SPAWNER}: {0}")]
pub struct SpawnerError(#[from] io::Error);

/// Why there is no worker, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum NoWorker {
    /// Another try may fare better.
    #[error("{0}")]
    Failed(String),
    /// The spawner has gone, so that none can be made.
    #[error("{SPAWNER} has ended ({0})")]
    Lost(String),
}

/// Nobody but root is there to be the worker.
#[derive(Debug, thiserror::Error)]
#[error(
    "what reads events must not run as root, and this process may not change users: start it with \
     CAP_SETUID and CAP_SETGID, which it gives up, or as another user"
)]
pub struct NoIdentity;

/// Whose the worker's process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user, if that is another one than the daemon's.
    user: Option<(u32, u32)>,
    /// What to tell the operator about it.
    pub remark: Option<String>,
}

impl Identity {
    /// The user of this name, where the daemon `may_change` users; else the best there is.
    ///
    /// # Errors
    /// That would be root.
    pub fn of(name: &str, may_change: bool) -> Result<Self, NoIdentity> {
        let find = |name| User::from_name(name).ok().flatten();
        if !may_change {
            if Uid::effective().is_root() {
                return Err(NoIdentity);
            }
            let remark = format!(
                "what reads events runs as this user, without capabilities; with CAP_SETUID and \
                 CAP_SETGID at the start it runs as `{name}`"
            );
            return Ok(Self {
                user: None,
                remark: Some(remark),
            });
        }
        let (user, remark) = match find(name) {
            Some(user) => (Some(user), None),
            None => {
                let remark = format!(
                    "there is no user `{name}`, so that what reads events runs as `{NOBODY}`; \
                     `useradd --system --shell /usr/sbin/nologin {name}` makes it"
                );
                (find(NOBODY), Some(remark))
            }
        };
        let ids = user.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
        Ok(Self {
            user: Some(ids.unwrap_or(OVERFLOW)),
            remark,
        })
    }
}

impl Spawner {
    /// Starts it; to be done while the process still has its privileges and no threads.
    ///
    /// # Errors
    /// See [`SpawnerError`].
    pub fn start(identity: &Identity) -> Result<Self, SpawnerError> {
        let (here, there) = channel::pair()?;
        let mut command = Command::new(SELF);
        command
            .arg0(SPAWNER)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(there)))
            .stdout(Stdio::null())
            // The daemon's own is a socket or a terminal, which they could do things to.
            .stderr(Stdio::piped())
            // What a terminal sends is for the daemon, which ends the worker in its turn.
            .process_group(0);
        if let Some((uid, gid)) = identity.user {
            // The library drops the other groups with that.
            command.gid(gid).uid(uid);
        }
        let child = command.spawn()?;
        // A spawner that is stopped, by its worker at worst, must not stop the daemon too.
        here.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            id: child.id(),
            talk: Mutex::new(Talk {
                orders: Sender::new(here.try_clone()?)?,
                told: Receiver::new(here, SMALL),
                child,
                number: 0,
                ended: Vec::new(),
            }),
        })
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        // Between any two statements nothing is half said.
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the spawner and those that it makes write to the log, once.
    pub fn log(&self) -> Option<ChildStderr> {
        self.talk().child.stderr.take()
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Makes a process with this end of a channel as its standard input.
    ///
    /// # Errors
    /// See [`NoWorker`].
    pub fn spawn(&self, role: Role, end: &UnixStream) -> Result<u32, NoWorker> {
        match self.talk().order(What::Spawn(role), Some(end))? {
            Outcome::Spawned(pid) => Ok(pid),
            Outcome::Failed(cause) => Err(NoWorker::Failed(cause)),
            Outcome::Killed(_) => Err(NoWorker::Failed(NONSENSE.to_owned())),
        }
    }

    /// Ends the process of this role, if it still runs, and tells how it ended.
    ///
    /// # Errors
    /// See [`NoWorker`].
    pub fn end(&self, role: Role) -> Result<String, NoWorker> {
        let mut talk = self.talk();
        let outcome = talk.order(What::Kill(role), None)?;
        let before = talk.ended.extract_if(.., |(whose, _)| *whose == role);
        let before = before.last().map(|(_, how)| how);
        match outcome {
            Outcome::Killed(how) => {
                let how = how.or(before);
                Ok(how.unwrap_or_else(|| "it had ended".to_owned()))
            }
            Outcome::Spawned(_) | Outcome::Failed(_) => Err(NoWorker::Failed(NONSENSE.to_owned())),
        }
    }
}

impl Talk {
    /// Has something done, and waits for the answer to that.
    fn order(&mut self, what: What, end: Option<&UnixStream>) -> Result<Outcome, NoWorker> {
        self.number += 1;
        let files: Vec<_> = end.iter().map(|end| end.as_fd()).collect();
        let order = Order {
            number: self.number,
            what,
        };
        let sent = self.orders.send(&order, &files);
        sent.map_err(|error| self.without(&error))?;
        loop {
            let told = self.told.receive();
            match told.map_err(|error| self.without(&error))? {
                Told::Done { number, outcome } if number == self.number => return Ok(outcome),
                // To an order that nobody waits for any more.
                Told::Done { .. } => {}
                Told::Ended(role, how) => {
                    self.ended.retain(|(whose, _)| *whose != role);
                    self.ended.push((role, how));
                }
            }
        }
    }

    /// What an error of its channel means: one that is only slow may answer later.
    fn without(&mut self, error: &ChannelError) -> NoWorker {
        if matches!(error, ChannelError::Failed(_)) {
            return NoWorker::Failed(format!("{SPAWNER}: {error}"));
        }
        // It closes its channel a moment before it can be waited for.
        let deadline = Instant::now() + ENDING;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return NoWorker::Lost(how(status)),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
                _ => return NoWorker::Lost(error.to_string()),
            }
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Spawner {
    /// Ends it, and what it has made, and waits for that. It takes no orders any more.
    pub fn close(&self) {
        // It ends when nobody can give it orders any more.
        let mut talk = self.talk();
        talk.orders.close();
        let deadline = Instant::now() + PATIENCE;
        while matches!(talk.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

/// The spawner's own process: orders come over standard input, until the daemon has gone.
///
/// # Errors
/// Its privileges cannot be given up, or standard input is no channel.
pub fn run() -> anyhow::Result<()> {
    give_up_privileges()?;
    block_signals();
    let stream = super::standard_input()?;
    let told = Sender::new(stream.try_clone()?)?;
    let mut orders = Receiver::<Order>::new(stream.try_clone()?, SMALL);
    let mut running: Vec<Running> = Vec::new();
    loop {
        let mut watched = vec![PollFd::new(&stream, PollFlags::IN)];
        watched.extend(
            running
                .iter()
                .map(|it| PollFd::new(&it.pidfd, PollFlags::IN)),
        );
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ordered = !watched[0].revents().is_empty();
        let ended = watched[1..].iter().map(|it| !it.revents().is_empty());
        let ended: Vec<bool> = ended.collect();
        drop(watched);
        let mut ended = ended.into_iter();
        for over in running.extract_if(.., |_| ended.next().unwrap_or(false)) {
            let role = over.role;
            told.send(&Told::Ended(role, over.wait()), &[])?;
        }
        if !is_ordered {
            continue;
        }
        let order = match orders.receive() {
            Ok(order) => order,
            Err(error) => {
                end(&mut running, |_| true);
                return match error {
                    ChannelError::Gone => Ok(()),
                    other => Err(other.into()),
                };
            }
        };
        let outcome = match order.what {
            What::Spawn(role) => {
                end(&mut running, |it| it.role == role);
                spawn(&mut running, role, orders.file())
            }
            What::Kill(role) => Outcome::Killed(end(&mut running, |it| it.role == role)),
        };
        let number = order.number;
        told.send(&Told::Done { number, outcome }, &[])?;
    }
}

fn spawn(running: &mut Vec<Running>, role: Role, end: Option<OwnedFd>) -> Outcome {
    match end.map(|end| Running::start(role, end)) {
        Some(Ok(started)) => {
            let pid = started.child.id();
            running.push(started);
            Outcome::Spawned(pid)
        }
        Some(Err(error)) => Outcome::Failed(format!("cannot start {}: {error}", role.name())),
        None => Outcome::Failed(format!("no channel for {}", role.name())),
    }
}

/// Ends those that are meant; how the last one did.
fn end(running: &mut Vec<Running>, is_meant: impl Fn(&Running) -> bool) -> Option<String> {
    let meant = running.extract_if(.., |it| is_meant(it));
    let ended = meant.map(|it| {
        it.kill();
        it.wait()
    });
    ended.last()
}

/// A process that runs.
struct Running {
    role: Role,
    child: Child,
    /// Becomes readable when it ends, and stands for no other process.
    pidfd: OwnedFd,
}

impl Running {
    fn start(role: Role, end: OwnedFd) -> io::Result<Self> {
        let mut child = Command::new(SELF)
            .arg0(role.name())
            .stdin(Stdio::from(end))
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = pid
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match pidfd {
            Ok(pidfd) => Ok(Self { role, child, pidfd }),
            Err(error) => {
                let _killed = child.kill();
                let _status = child.wait();
                Err(error.into())
            }
        }
    }

    fn kill(&self) {
        // It may have ended meanwhile.
        let _sent = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }

    fn wait(mut self) -> String {
        match self.child.wait() {
            Ok(status) => how(status),
            Err(error) => error.to_string(),
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => signal.as_str().to_owned(),
            Err(_) => format!("signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// Gives up all capabilities of this process, and its groups, also of what it executes.
fn give_up_privileges() -> anyhow::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let effective = caps::read(None, CapSet::Permitted)?;
    caps::set(None, CapSet::Effective, &effective)?;
    if effective.contains(&caps::Capability::CAP_SETGID) {
        nix::unistd::setgroups(&[])?;
    }
    // Nobody else of this user may look into it or trace it.
    nix::sys::prctl::set_dumpable(false)?;
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set)?;
    }
    Ok(())
}

/// Signals are for the daemon: it ends the others by closing their channels.
pub(crate) fn block_signals() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    // It fails for no set of valid signals.
    let _blocked = signals.thread_block();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spawner that is played by the test.
    fn talk() -> (Talk, Sender<Told>, Receiver<Order>) {
        let (here, there) = channel::pair().unwrap();
        let talk = Talk {
            orders: Sender::new(here.try_clone().unwrap()).unwrap(),
            told: Receiver::new(here, SMALL),
            child: Command::new("true").spawn().unwrap(),
            number: 0,
            ended: Vec::new(),
        };
        let told = Sender::new(there.try_clone().unwrap()).unwrap();
        (talk, told, Receiver::new(there, SMALL))
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next() {
        let (talk, told, mut orders) = talk();
        let done = |number, outcome| Told::Done { number, outcome };
        let late = done(1, Outcome::Spawned(7));
        told.send(&Told::Ended(Role::Worker, "SIGKILL".to_owned()), &[])
            .unwrap();
        told.send(&late, &[]).unwrap();
        told.send(&done(2, Outcome::Killed(None)), &[]).unwrap();
        let spawner = Spawner {
            id: 0,
            talk: Mutex::new(Talk { number: 1, ..talk }),
        };
        // It had ended before the order, and how is known.
        assert_eq!(spawner.end(Role::Worker).unwrap(), "SIGKILL");
        let order = orders.receive().unwrap();
        assert!(matches!(order.what, What::Kill(Role::Worker)) && order.number == 2);
        // That was of another one.
        told.send(&done(3, Outcome::Killed(None)), &[]).unwrap();
        assert_eq!(spawner.end(Role::Worker).unwrap(), "it had ended");
    }
}
