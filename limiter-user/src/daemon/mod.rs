//! `limiter run`: puts everything together, waits for signals, and takes it
//! apart again.

pub mod logging;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use sd_notify::NotifyState;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::control::api::Refusal;
use crate::control::socket::Lock;
use crate::dataplane::{DataPlane, Options, PacketLog};
use crate::keeper::reload::{diagnostic_row, in_one_line};
use crate::keeper::{By, Handle, Keeper, Now, interfaces};
use crate::policy::{self, Policy};
use crate::{control, metrics};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policy file.
    pub config: PathBuf,
    /// The control socket, instead of the policy's.
    pub socket: Option<PathBuf>,
    /// Whether every packet is logged.
    pub trace_packets: bool,
}

/// How long connections may take to get their last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT, then detaches.
///
/// # Errors
/// Whatever prevents the start, and the end of the keeper's thread. The
/// program is then attached nowhere.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    // Sockets and the lock file are not for everybody, not even for the moment
    // before their mode is set.
    let _before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
    let loaded = policy::load(&settings.config)?;
    for warning in &loaded.warnings {
        tracing::warn!("{}", in_one_line(&diagnostic_row(warning)));
    }
    let policy = loaded.policy;
    let socket = settings.socket.as_ref().unwrap_or(&policy.control.socket);
    let mut lock = Lock::take(socket)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let _inside = runtime.enter();
    // Bound before anything is attached: what can fail has failed by then.
    let (control_listener, warning) = lock.listen(&policy.control.group)?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    if policy.control.read_group.is_some() {
        tracing::warn!("control.read_group has no effect in this version");
    }
    let metrics_listener = runtime.block_on(listen_for_metrics(&policy))?;

    let keeper = start_keeper(settings, &policy, &metrics_listener)?;
    let (handle, ended) = Handle::spawn(keeper).context("starting the keeper")?;
    let tasks = [
        runtime.spawn(control::serve(
            control_listener,
            control::LIMITS,
            handle.clone(),
        )),
        runtime.spawn(metrics::serve(
            metrics_listener,
            metrics::LIMITS,
            handle.clone(),
        )),
    ];
    let outcome = runtime.block_on(serve(&handle, ended));
    let detached = runtime.block_on(async {
        notify(&[NotifyState::Stopping]);
        let detached = handle.ask(|keeper| keeper.detach(None, daemon())).await;
        tokio::time::sleep(LAST_ANSWERS).await;
        detached
    });
    for task in tasks {
        task.abort();
    }
    drop(handle);
    runtime.shutdown_timeout(Duration::from_secs(2));
    // Only now may another daemon start.
    drop(lock);
    outcome?;
    match detached {
        Ok(Ok(_)) => {
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Err(refusal)) => Err(anyhow!(words(&refusal))),
        Err(error) => Err(error.into()),
    }
}

async fn listen_for_metrics(policy: &Policy) -> anyhow::Result<TcpListener> {
    let listen = policy.metrics.listen;
    TcpListener::bind(listen).await.with_context(|| {
        format!("cannot serve metrics on {listen} (metrics.listen); name another port there")
    })
}

/// Loads the program and attaches it, everywhere or nowhere.
fn start_keeper(
    settings: &Settings,
    policy: &Policy,
    metrics: &TcpListener,
) -> anyhow::Result<Keeper> {
    let options = Options {
        trace: settings.trace_packets,
        ..Options::default()
    };
    let mut plane = DataPlane::load(policy, options)?;
    if settings.trace_packets {
        let packets = plane.packet_log()?;
        // SAFETY: the log owns its descriptor and is owned by the AsyncFd,
        // which deregisters before it drops the log.
        let packets = unsafe { AsyncFd::register_with_interest(packets, Interest::READABLE) };
        let packets = packets.context("reading the log of packets")?;
        let _task = tokio::spawn(log_packets(packets));
    }
    let mut keeper = Keeper::new(
        Box::new(plane),
        Box::new(interfaces::present),
        settings.config.clone(),
        policy.clone(),
        Now::read(),
    );
    if let Ok(address) = metrics.local_addr() {
        keeper.set_metrics(address.to_string());
    }
    let mut notices = Vec::new();
    let attached = keeper
        .attach_new(policy, &mut notices)
        .map_err(|refusal| anyhow!(words(&refusal)))?;
    for notice in notices {
        tracing::warn!("{notice}");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %settings.config.display(),
        limits = policy.edge.limits.len(),
        interfaces = attached.join(" "),
        "running"
    );
    Ok(keeper)
}

/// Passes on what the program says of single packets.
async fn log_packets(mut packets: AsyncFd<PacketLog>) {
    while let Ok(mut ready) = packets.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// Follows signals until one ends the daemon, or the keeper ends.
async fn serve(handle: &Handle, mut ended: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    notify(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => reload(handle).await,
            _ = &mut ended => {
                return Err(anyhow!("the keeper has ended; this is a defect of limiter"));
            }
        }
    }
    Ok(())
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

async fn reload(handle: &Handle) {
    // systemd takes a reload for finished at the next READY=1 after this.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    // The keeper logs how it went.
    let _logged = control::reload(handle, daemon()).await;
    notify(&[NotifyState::Ready]);
}

/// The daemon's own orders.
fn daemon() -> By {
    By {
        uid: nix::unistd::geteuid().as_raw(),
        pid: None,
    }
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
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
