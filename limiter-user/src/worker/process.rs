//! The worker's own process: hears events, decides, and serves the metrics. It has no
//! capabilities, opens no files and makes no sockets: all it has came over its channel.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::answers;
use super::channel::{ChannelError, MAX_MESSAGE, Receiver, Sender};
use super::desk::{Desk, InForce, now_ns, switch};
use super::hearing::Hearing;
use super::link::{Link, Reply};
use super::message::{FromWorker, METRICS, Start, ToWorker};
use super::rows::WorkerRows;
use super::sandbox;
use super::spawner::block_signals;
use crate::daemon::logging;
use crate::engine::{Engine, Snapshot};
use crate::metrics;
use crate::policy::Decide;

/// How often what is due with time is done.
const TICK: Duration = Duration::from_millis(100);

/// How often it is looked whether something is probably not meant.
const LOOK: Duration = Duration::from_secs(10);

/// Where the kernel is told whom to end for want of memory: rather this process than the
/// daemon, which guards the host without it.
const OOM: &str = "/proc/self/oom_score_adj";

/// Works until the daemon has gone.
///
/// # Errors
/// The daemon does not say what is to be done, or the sockets that it gave are none.
pub fn run() -> anyhow::Result<()> {
    block_signals();
    end_on_panic();
    let stream = standard_input()?;
    let sender = Sender::new(stream.try_clone()?)?;
    let mut messages = Receiver::<ToWorker>::new(stream, MAX_MESSAGE);
    let Some(start) = begin(&mut messages)? else {
        return Ok(());
    };
    logging::start(start.log.0, start.log.1);
    first_for_want_of_memory();
    // Before there are other threads, which then get the same.
    die_with(start.spawner)?;
    nix::sys::prctl::set_dumpable(false)?;
    if let Err(error) = sandbox::close() {
        tracing::warn!(
            "the process that hears events keeps system calls that it does not need: {error:#}"
        );
    }
    let Some(held) = held(&mut messages)? else {
        return Ok(());
    };
    work(start, &held, sender, messages)
}

/// Has the kernel end this process rather than the daemon where memory runs out.
pub(crate) fn first_for_want_of_memory() {
    // Only a higher value may be written without privileges.
    if let Err(error) = std::fs::write(OOM, "0") {
        tracing::debug!(%error, "cannot become the first to be ended for want of memory");
    }
}

/// Ends this process when the spawner, which has this number, ends, however that does.
pub(crate) fn die_with(spawner: u32) -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before, and then another process, not always the first, is the parent.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get());
    if parent != i32::try_from(spawner).ok() {
        bail!("the spawner has ended");
    }
    Ok(())
}

/// A thread that panics takes the process with it, so that another one takes its place:
/// half a worker would go unnoticed.
pub(crate) fn end_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        say(info);
        std::process::exit(101);
    }));
}

/// The first message; `None`: the daemon has gone.
fn begin(messages: &mut Receiver<ToWorker>) -> anyhow::Result<Option<Start>> {
    match messages.receive() {
        Ok(ToWorker::Start(start)) => Ok(Some(*start)),
        Ok(_) => bail!("the daemon does not begin with the beginning; this is a defect of limiter"),
        Err(ChannelError::Gone) => Ok(None),
        Err(error) => Err(error).context("waiting for the daemon"),
    }
}

/// What was held before; `None`: the daemon has gone.
fn held(messages: &mut Receiver<ToWorker>) -> anyhow::Result<Option<Snapshot>> {
    let mut held = Snapshot::default();
    loop {
        match messages.receive() {
            Ok(ToWorker::Held {
                keys,
                blocks,
                is_all,
            }) => {
                held.keys.extend(keys);
                held.blocks.extend(blocks);
                if is_all {
                    return Ok(Some(held));
                }
            }
            Ok(_) => bail!("the daemon does not say what is held; this is a defect of limiter"),
            Err(ChannelError::Gone) => return Ok(None),
            Err(error) => return Err(error).context("waiting for the daemon"),
        }
    }
}

fn work(
    start: Start,
    held: &Snapshot,
    sender: Sender<FromWorker>,
    mut messages: Receiver<ToWorker>,
) -> anyhow::Result<()> {
    let in_force = InForce::of(&start.rules).context("reading the policy in force")?;
    let decide = in_force.decide.clone().unwrap_or_default();
    let mut engine = Engine::new(&decide, in_force.prefixes, &start.secret);
    switch(&mut engine, &start.rules);
    if let Some(before) = &start.before {
        match InForce::of(before) {
            Ok(InForce { decide, prefixes }) => {
                engine.take_aside(&decide.unwrap_or_default(), prefixes, held);
            }
            Err(error) => {
                tracing::warn!(%error, "what rules held that are gone cannot come back");
            }
        }
    }
    let restored = engine.restore(held, now_ns());
    if restored > 0 {
        tracing::info!(restored, "what the rules held is held again");
    }
    let link = Arc::new(Link::new(sender));
    let desk = Arc::new(Desk::new(engine, Arc::clone(&link)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let _inside = runtime.enter();
    let mut sockets = BTreeMap::new();
    for name in &start.sockets {
        let socket = messages.file();
        sockets.insert(
            name.clone(),
            socket.context("the daemon sent too few sockets")?,
        );
    }
    let listener = sockets.remove(METRICS);
    let hearing = Hearing::begin(&desk, &link, &decide, &start, sockets)?;
    let rows = WorkerRows::new(Arc::clone(&desk), Arc::clone(&link), Arc::new(hearing));
    let rows = Arc::new(rows);
    if let Some(listener) = listener {
        serve_metrics(&runtime, listener, &link, &rows)?;
    }
    let sending = Arc::clone(&link);
    spawn("send", move || {
        sending.send();
        // The thread that receives notices it too.
    })?;
    let (ticking, looking) = (Arc::clone(&desk), Arc::clone(&rows));
    spawn("tick", move || {
        loop {
            std::thread::sleep(TICK);
            ticking.tick();
        }
    })?;
    spawn("look", move || {
        loop {
            std::thread::sleep(LOOK);
            looking.warnings();
        }
    })?;
    link.tell(FromWorker::Ready);
    let (reloads, waiting) = mpsc::channel();
    let hears = Arc::clone(&rows);
    spawn("reload", move || {
        for decide in waiting {
            hears.hearing().reload(&decide);
        }
    })?;
    let ended = receive(&mut messages, &desk, &link, &rows, &reloads);
    runtime.shutdown_background();
    match ended {
        ChannelError::Gone => Ok(()),
        error => Err(error).context("listening to the daemon"),
    }
}

fn serve_metrics(
    runtime: &tokio::runtime::Runtime,
    listener: OwnedFd,
    link: &Arc<Link>,
    rows: &Arc<WorkerRows>,
) -> anyhow::Result<()> {
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true).context("serving metrics")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("serving metrics")?;
    let (link, rows) = (Arc::clone(link), Arc::clone(rows));
    runtime.spawn(metrics::serve(listener, metrics::LIMITS, move |answers| {
        let (link, rows) = (Arc::clone(&link), Arc::clone(&rows));
        async move {
            let parts = tokio::task::spawn_blocking(move || {
                let daemon = link.scrape()?;
                Some(daemon + &rows.text(&answers).ok()?)
            });
            parts.await.ok().flatten()
        }
    }));
    Ok(())
}

/// Does what the daemon says, until it has gone.
fn receive(
    messages: &mut Receiver<ToWorker>,
    desk: &Desk,
    link: &Link,
    rows: &WorkerRows,
    reloads: &mpsc::Sender<Decide>,
) -> ChannelError {
    loop {
        match messages.receive() {
            Ok(ToWorker::Rules(rules)) => match InForce::of(&rules) {
                Ok(in_force) => {
                    desk.follow(&in_force, &rules);
                    // It may have to wait for an answer that comes this way.
                    let _ended = reloads.send(in_force.decide.unwrap_or_default());
                }
                Err(error) => tracing::error!(%error, "the rules stay as they were"),
            },
            Ok(ToWorker::Refused(order, why)) => {
                tracing::warn!(
                    source = %order.source,
                    rule = %order.rule,
                    why,
                    "not blocked at the NIC: its requests are refused instead"
                );
                desk.with(|engine, now_ns| engine.refused(&order, now_ns));
            }
            Ok(ToWorker::Scraped { id, text }) => link.answer(id, Reply::Text(text)),
            Ok(ToWorker::Opened { id, files }) => {
                let files = files.map(|count| (0..count).map_while(|_| messages.file()).collect());
                link.answer(id, Reply::Files(files));
            }
            Ok(ToWorker::Verified { id, answer }) => link.verified(id, answer),
            Ok(ToWorker::Ask { id, question }) => {
                let json = answers::answer(desk, rows, &question);
                link.tell(FromWorker::Answer { id, json });
            }
            Ok(ToWorker::Held {
                keys,
                blocks,
                is_all,
            }) => {
                // It could not be read before.
                let held = Snapshot { keys, blocks };
                desk.with(|engine, now_ns| {
                    engine.restore(&held, now_ns);
                    if is_all {
                        // While nobody else has the engine: after all that it held without this.
                        link.tell(FromWorker::Recalled);
                    }
                });
            }
            Ok(ToWorker::Start(_)) => {
                return ChannelError::Garbage("a second beginning".to_owned());
            }
            Err(error) => return error,
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map(drop).context("starting a thread")
}

/// The socket that a process of limiter's was started with.
pub(crate) fn standard_input() -> anyhow::Result<UnixStream> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let stream = UnixStream::from(input);
    let peer = stream.peer_addr();
    peer.context("limiter starts this process itself; it is of no use to anybody else")?;
    Ok(stream)
}
