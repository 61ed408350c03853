//! `limiter run`: puts everything together, waits for signals, and takes it
//! apart again.

pub mod logging;
mod manager;
mod privileges;
pub mod rescue;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use caps::Capability;
use manager::Manager;
use privileges::Privileges;
use sd_notify::NotifyState;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::control::Access;
use crate::control::api::Refusal;
use crate::control::socket::Lock;
use crate::courier::Courier;
use crate::dataplane::{DataPlane, Options, Origin, PacketLog, Pins, PinsError};
use crate::keeper::reload::{diagnostic_row, in_one_line};
use crate::keeper::{By, Closer, Handle, Keeper, Now, Recalled, interfaces};
use crate::nic::sockets::{close, established};
use crate::notify::Notifier;
use crate::policy::{self, DiskFiles, Loaded, OnExit, Policy};
use crate::store::audit::Audit;
use crate::store::{self, OutboxFile, PositionFile, Secret, Store, Unconfirmed};
use crate::worker::{self, Held, Identity, NoWorker, Spawner, Worker};
use crate::{control, follow};
use sockets::Sockets;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policy file.
    pub config: PathBuf,
    /// The control socket, instead of the policy's.
    pub socket: Option<PathBuf>,
    /// Whether every packet is logged.
    pub trace_packets: bool,
    /// How the log is written.
    pub log: (logging::Format, logging::Level),
}

/// How long connections may take to get their last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// How long the worker may take to serve before the start is told without it.
const SERVING: Duration = Duration::from_secs(5);

/// The user whose what reads events is.
const WORKER_USER: &str = "limiter-worker";

/// The secret that the engine's keys are hashed with.
const ENGINE_SECRET: &str = "engine.key";

/// How long the last changes may take to reach the disk.
const LAST_STORED: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT; what becomes of the program then is the policy's
/// to say. Attaches nothing and returns at once where [`rescue`] says so.
///
/// # Errors
/// Whatever prevents the start, and the end of the keeper's thread. What was
/// attached before is then as it was.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    if let Some(reason) = rescue::held_back() {
        tracing::warn!(
            "nothing is attached: {reason}; a program that is at work already stays, `limiter detach` \
             takes it off"
        );
        return Ok(());
    }
    // What is made is for nobody else; what shall be says so itself.
    let _before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // From here on only three capabilities are in effect, so that what can be
    // read now can be read by a reload. What needs more is named below, and
    // done before `end`: from there on there are no others.
    let privileges = Privileges::begin()?;
    let loaded = load(&privileges, &settings.config)?;
    for warning in &loaded.warnings {
        tracing::warn!("{}", in_one_line(&diagnostic_row(warning)));
    }
    let goes = goes_on(loaded, &settings.config)?;
    let policy = goes.loaded.policy.clone();
    privileges.require()?;
    let (access, warnings) = Access::of(&policy.control)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let socket = settings.socket.as_ref().unwrap_or(&policy.control.socket);
    // As root, also in a directory of the service's user.
    let foreign = [Capability::CAP_DAC_OVERRIDE];
    let mut lock = privileges.with(&foreign, || Lock::take(socket))??;
    // Bound before anything is attached: what can fail has failed by then.
    let control_listener = privileges.with(&foreign, || lock.listen())??;
    let rights = [
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_CHOWN,
    ];
    let sockets = privileges.with(&rights, || Sockets::of(&policy))??;
    let mounting = [Capability::CAP_SYS_ADMIN];
    let pins = privileges.with(&mounting, || open_pins(&policy))??;
    let spawner = Arc::new(start_spawner(&privileges)?);
    privileges.end()?;

    // Threads come only now: each has what its maker has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let _inside = runtime.enter();
    let control_listener = UnixListener::from_std(control_listener).context(LISTENING)?;
    let manager = Manager::find();

    // Before anybody can be answered: who is, may stop the daemon.
    let signals = Signals::new()?;
    let mut keeper = start_keeper(settings, goes, sockets.metrics, pins)?;
    let secret = engine_secret(&policy.state.directory)?;
    let courier = Courier::new(Arc::clone(&spawner), settings.log);
    let outbox = OutboxFile::of(&policy.state.directory);
    let notifier = Notifier::new(Box::new(courier.clone()), outbox, secret, own_name());
    keeper.set_notifier(notifier.clone());
    notifier.start().context("starting a thread")?;
    let own = Own {
        secret,
        audit: keeper.audit().clone(),
        notifier: notifier.clone(),
        courier,
    };
    let worker = worker_of(settings, &policy, &sockets, own)?;
    let held = Held::read(&policy.state.directory).inspect_err(|error| {
        tracing::warn!(
            %error,
            "what the rules held is not known, and not stored anew until it is; it is tried again"
        );
    });
    keeper.keep_challenge_keys();
    keeper.set_worker(worker.clone());
    let (handle, mut ended) = Handle::spawn(keeper).context("starting the keeper")?;
    let (is_ready, ready) = oneshot::channel();
    let (supervising, mut lost) = worker
        .supervise(Arc::clone(&spawner), handle.clone(), held.ok(), is_ready)
        .context("starting a thread")?;
    let tasks = [
        runtime.spawn(control::serve(
            control_listener,
            access,
            control::LIMITS,
            handle.clone(),
        )),
        runtime.spawn(follow::follow_lists(handle.clone())),
        runtime.spawn(follow::follow_interfaces(handle.clone())),
    ];
    let outcome = runtime.block_on(async {
        if tokio::time::timeout(SERVING, ready).await.is_err() {
            tracing::error!("events are not heard yet; the host is guarded all the same");
        }
        let ends = Ends {
            keeper: &mut ended,
            worker: &mut lost,
        };
        serve(&handle, &manager, signals, ends).await
    });
    let has_failed = outcome.is_err();
    let stopped = runtime.block_on(async {
        manager.tell(&[NotifyState::Stopping]);
        settle(&handle).await;
        let stop = move |keeper: &mut Keeper| {
            if has_failed {
                // As after a kill: the next daemon takes it over.
                keeper.leave();
                return Ok(());
            }
            keeper.stop(daemon())
        };
        let stopped = handle.ask(stop).await;
        tokio::time::sleep(LAST_ANSWERS).await;
        stopped
    });
    for task in tasks {
        task.abort();
    }
    notifier.end();
    worker.end();
    let _ended = supervising.join();
    spawner.close();
    drop(handle);
    runtime.shutdown_timeout(Duration::from_secs(2));
    wait_for_end(&mut ended);
    drop(sockets);
    // Only now may another daemon start.
    drop(lock);
    outcome?;
    match stopped {
        Ok(Ok(())) => {
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Err(refusal)) => Err(anyhow!(words(&refusal))),
        Err(error) => Err(error.into()),
    }
}

/// Loads the policy with the rights of a reload.
fn load(privileges: &Privileges, config: &Path) -> anyhow::Result<Loaded> {
    let error = match policy::load(config) {
        Ok(loaded) => return Ok(loaded),
        Err(error) => error,
    };
    let as_root = [Capability::CAP_DAC_OVERRIDE];
    if privileges.with(&as_root, || policy::load(config).is_ok())? {
        return Err(anyhow!(
            "{error}\nthis user could read that only by CAP_DAC_OVERRIDE, which limiter gives up; let it \
             be read by permission (`ls -l`, also the directories above it)"
        ));
    }
    Err(error.into())
}

/// With which policy a start goes on.
struct Goes {
    loaded: Loaded,
    /// What the file says, where nobody has confirmed it.
    rejected: Option<String>,
}

/// The policy of the file; or the one before, where nobody has confirmed what the file
/// says.
fn goes_on(loaded: Loaded, config: &Path) -> anyhow::Result<Goes> {
    let directory = loaded.policy.state.directory.clone();
    let rejected = match Unconfirmed::recall(&directory) {
        Ok(trial) => trial.filter(|trial| trial.tried == loaded.text),
        // The store says what is wrong with the directory.
        Err(error) if error.kind() != io::ErrorKind::InvalidData => None,
        Err(error) => Err(error).with_context(|| {
            format!(
                "{} does not say which policy was confirmed; remove it to put {} in force",
                directory.join("unconfirmed.json").display(),
                config.display()
            )
        })?,
    };
    let Some(trial) = rejected else {
        return Ok(Goes {
            loaded,
            rejected: None,
        });
    };
    let (name, files) = (config.to_string_lossy(), DiskFiles::beside(config));
    let before = policy::parse(&name, &trial.before, &files).with_context(|| {
        format!(
            "nobody has confirmed what {name} says, and the policy of before is not valid any more; \
             mend that, or remove unconfirmed.json in {} to put the file in force",
            directory.display()
        )
    })?;
    tracing::error!(
        "nobody has confirmed what {name} says: the policy of before is put in force; \
         `limiter reload --force` puts the file in force"
    );
    Ok(Goes {
        loaded: before,
        rejected: Some(trial.tried),
    })
}

const LISTENING: &str = "listening";

/// Makes the process that makes the worker, while that may be another user's.
fn start_spawner(privileges: &Privileges) -> anyhow::Result<Spawner> {
    let rights = [Capability::CAP_SETUID, Capability::CAP_SETGID];
    let identity = Identity::of(WORKER_USER, privileges.permit(&rights))?;
    if let Some(remark) = &identity.remark {
        tracing::warn!("{remark}");
    }
    Ok(privileges.with(&rights, || Spawner::start(&identity))??)
}

/// What keys are hashed with.
fn engine_secret(directory: &Path) -> anyhow::Result<Secret> {
    match store::secret(directory, ENGINE_SECRET) {
        Ok(secret) => Ok(secret),
        Err(error) => {
            let path = directory.join(ENGINE_SECRET);
            tracing::warn!(%error, path = %path.display(), "what rules hold does not outlast the daemon");
            store::random().context("reading random bytes")
        }
    }
}

/// What this host calls itself.
fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || ".-".contains(*c);
    let name: String = name.trim().chars().filter(is_plain).collect();
    match name.is_empty() {
        true => "localhost".to_owned(),
        false => name,
    }
}

/// What of the daemon's own the worker's end has.
struct Own {
    secret: Secret,
    audit: Audit,
    notifier: Notifier,
    courier: Courier,
}

/// The worker, with all that it needs.
fn worker_of(
    settings: &Settings,
    policy: &Policy,
    sockets: &Sockets,
    own: Own,
) -> anyhow::Result<Worker> {
    let directory = &policy.state.directory;
    let copies = sockets.descriptors.iter();
    let copies = copies.map(|(name, socket)| Ok((name.clone(), socket.try_clone()?)));
    Ok(Worker::new(worker::Settings {
        log: settings.log,
        secret: own.secret,
        token: sockets.token.clone(),
        group: sockets.group.clone(),
        sockets: copies.collect::<io::Result<_>>().context(LISTENING)?,
        state: directory.clone(),
        audit: own.audit,
        notifier: Some(own.notifier),
        courier: Some(own.courier),
        positions: PositionFile::of(directory),
    }))
}

/// Where the program is to outlast the daemon; `None`: nowhere, and it need not.
fn open_pins(policy: &Policy) -> anyhow::Result<Option<Pins>> {
    match Pins::open(&policy.state.pins) {
        Ok(pins) => Ok(Some(pins)),
        Err(error @ PinsError::NotMounted { .. }) if policy.edge.on_exit == OnExit::Detach => {
            tracing::warn!("{error}; until then the program ends with the daemon");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Loads the program, in the place of one that is at work already.
fn load_program(
    policy: &Policy,
    options: Options,
    pins: Option<Pins>,
) -> anyhow::Result<DataPlane> {
    let Some(pins) = pins else {
        return Ok(DataPlane::load(policy, options)?);
    };
    let plane = DataPlane::open(policy, options, pins)?;
    match plane.origin() {
        Origin::Fresh => {}
        Origin::Inherited => {
            tracing::info!("took over the tables and blocks of the program at work");
        }
        Origin::Rebuilt { because, lost } => tracing::warn!(
            because,
            lost,
            "the tables of the program at work were made anew: all buckets are full"
        ),
    }
    Ok(plane)
}

/// Loads the program and attaches it, everywhere or nowhere.
fn start_keeper(
    settings: &Settings,
    goes: Goes,
    metrics: Option<SocketAddr>,
    pins: Option<Pins>,
) -> anyhow::Result<Keeper> {
    let Loaded { policy, text, .. } = goes.loaded;
    let policy = &policy;
    let options = Options {
        trace: settings.trace_packets,
        ..Options::default()
    };
    let store = Store::open(&policy.state.directory, Now::read()).context("starting the store")?;
    let recalled = Recalled::new(Box::new(store), policy, Now::read());
    let effective = recalled.effective(policy);
    let mut plane = load_program(&effective, options, pins)?;
    if settings.trace_packets {
        let packets = plane.packet_log()?;
        // SAFETY: the log owns its descriptor and is owned by the AsyncFd,
        // which deregisters before it drops the log.
        let packets = unsafe { AsyncFd::register_with_interest(packets, Interest::READABLE) };
        let packets = packets.context("reading the log of packets")?;
        let _task = tokio::spawn(log_packets(packets));
    }
    let is_in_force = *plane.origin() != Origin::Inherited;
    let is_kept = plane.is_kept();
    let mut keeper = Keeper::new(
        Box::new(plane),
        Box::new(interfaces::present),
        Box::new(established),
        settings.config.clone(),
        policy.clone(),
        recalled,
        Now::read(),
    );
    keeper.set_text(text);
    let closer = Closer::start(Box::new(|is_meant| close(is_meant)));
    keeper.set_closer(closer.context("starting a thread that closes connections")?);
    if let Some(rejected) = goes.rejected {
        keeper.set_rolled_back(rejected);
    }
    keeper.restore(Now::read());
    if let Some(address) = metrics {
        keeper.set_metrics(address.to_string());
    }
    if is_kept {
        keeper.set_pins(policy.state.pins.clone());
    }
    let attached = keeper.start(is_in_force, Now::read()).map_err(|refusal| {
        keeper.leave();
        anyhow!(words(&refusal))
    })?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %settings.config.display(),
        limits = policy.edge.limits.len(),
        interfaces = attached.join(" "),
        "running"
    );
    Ok(keeper)
}

/// Has stored what changes by itself, as far as the disk lets it.
async fn settle(handle: &Handle) {
    let settled = handle.ask(|keeper| {
        keeper.settle(Now::read());
        (keeper.receipt(), keeper.audit().written())
    });
    let Ok((receipt, audit)) = settled.await else {
        return;
    };
    if let Err(cause) = receipt.stored(LAST_STORED).await {
        tracing::warn!(cause, "what changed last is not stored");
    }
    match tokio::time::timeout(LAST_STORED, audit).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(cause))) => tracing::warn!(cause, "the end of the audit log is lost"),
        Ok(Err(_)) | Err(_) => tracing::warn!("the end of the audit log may be lost"),
    }
}

/// Passes on what the program says of single packets.
async fn log_packets(mut packets: AsyncFd<PacketLog>) {
    while let Ok(mut ready) = packets.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// Lets the keeper end, and with it the database be closed.
fn wait_for_end(ended: &mut oneshot::Receiver<()>) {
    let deadline = Instant::now() + LAST_STORED;
    while matches!(ended.try_recv(), Err(TryRecvError::Empty)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a daemon cannot go on without: each becomes ready when it has ended.
struct Ends<'a> {
    keeper: &'a mut oneshot::Receiver<()>,
    worker: &'a mut oneshot::Receiver<NoWorker>,
}

/// Follows signals until one ends the daemon, or something ends that it needs.
async fn serve(
    handle: &Handle,
    manager: &Manager,
    mut signals: Signals,
    ends: Ends<'_>,
) -> anyhow::Result<()> {
    manager.tell(&[NotifyState::Ready]);
    let follow = async {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => reload(handle, manager).await,
                _ = &mut *ends.keeper => {
                    return Err(anyhow!("the keeper has ended; this is a defect of limiter"));
                }
                lost = &mut *ends.worker => return Err(without_worker(lost.ok())),
            }
        }
    };
    tokio::select! {
        ended = follow => ended,
        () = manager.inform(handle) => Ok(()),
    }
}

/// Why the daemon ends when its worker has ended for good; `None`: its thread did not say.
fn without_worker(lost: Option<NoWorker>) -> anyhow::Error {
    let Some(lost) = lost else {
        return anyhow!("nothing watches over what hears events; this is a defect of limiter");
    };
    anyhow!(
        "{lost}, and only a new start of limiter can make another one; packets are judged as \
         before, events are not heard until then"
    )
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("catching signals");
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }
}

async fn reload(handle: &Handle, manager: &Manager) {
    manager.reloading();
    // The keeper logs how it went.
    let _logged = control::reload(handle, None, daemon()).await;
    manager.tell(&[NotifyState::Ready]);
}

/// The daemon's own orders.
fn daemon() -> By {
    By::user(nix::unistd::geteuid().as_raw(), None)
}

fn words(refusal: &Refusal) -> String {
    let parts = [&refusal.place, &refusal.detail];
    let parts: Vec<&str> = parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(String::as_str)
        .collect();
    let what = parts.join(": ");
    if refusal.help.is_empty() {
        what
    } else {
        format!("{what}; {}", refusal.help)
    }
}
