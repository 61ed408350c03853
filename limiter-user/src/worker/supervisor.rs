//! The daemon's side of the worker: starts it, starts it again, takes its orders after it
//! has looked at them, and answers it.
//!
//! The worker reads what strangers send. It is believed as little as that: a message is
//! bounded, an order must be one that the rules in force could give, and there are only so
//! many a second.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use tokio::sync::oneshot;

use super::channel::{self, ChannelError, MAX_FILES, Receiver};
use super::held::{Held, Most};
use super::message::{FromWorker, Question, Rules, Start, ToWorker};
use super::outgoing::Outgoing;
use super::rate::Rate;
use super::said;
use super::spawner::{NoWorker, Spawner};
use crate::adapters::api::Group;
use crate::adapters::origin::log_name_of;
use crate::control::api::Refusal;
use crate::daemon::logging;
use crate::engine::{HeldChange, Mode, Order, Ordered};
use crate::event::follow::Position;
use crate::keeper::{Handle, Now, Refused};
use crate::metrics::Metrics;
use crate::store::PositionFile;
use crate::store::audit::Audit;

/// How long a worker may take to answer a question.
const ANSWERED: Duration = Duration::from_secs(10);

/// How long it may take to say that it lives: what it has told before comes first.
const ALIVE: Duration = Duration::from_secs(30);

/// How often it is asked whether it lives.
const PING: Duration = Duration::from_secs(10);

/// The wait before the first restart; it doubles with each that follows soon.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Who has worked for so long begins with the first wait again.
const STABLE: Duration = Duration::from_secs(60);

/// Requests of the worker that may wait; more are refused.
const WAITING: usize = 64;

/// Orders a second that are looked at, and at once.
const ORDERS: (f64, f64) = (20_000.0, 50_000.0);

/// How long the keeper may be too busy for orders.
const OBEYED: Duration = Duration::from_secs(5);

/// The wait before it is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// Bytes of a message from the worker at most.
const FROM_WORKER: usize = 1 << 20;

/// Names of accounts in a message, and bytes of one.
const NAMES: usize = 4_096;
const NAME_BYTES: usize = 1_024;

/// Rows a second for the audit log, and at once: more than a disk takes.
const CHANGES: (f64, f64) = (400_000.0, 800_000.0);

/// Files beside a log that are looked at.
const MOST_BESIDE: usize = 64;

/// What stays the same from worker to worker.
#[derive(Debug)]
pub struct Settings {
    /// How it writes its log.
    pub log: (logging::Format, logging::Level),
    /// What keys are hashed with.
    pub secret: [u8; 16],
    /// The token of `decide.api`.
    pub token: Option<Vec<u8>>,
    /// The sockets, with their names; see [`Start::sockets`].
    pub sockets: Vec<(String, OwnedFd)>,
    /// The group that may use the API.
    pub group: Option<Group>,
    /// What was held when the daemon before ended; `None`: it cannot be told, and must not be
    /// overwritten.
    pub held: Option<Held>,
    /// Where what happens is written down.
    pub audit: Audit,
    /// Where it is kept how far logs were read.
    pub positions: PositionFile,
}

/// The worker, for those who ask and tell; clones are of the same.
#[derive(Clone, Debug)]
pub struct Worker {
    shared: Arc<Shared>,
}

/// How the worker fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Its number, while it serves.
    pub pid: Option<u32>,
    /// How often it had to be started again.
    pub restarts: u64,
    /// How the last one ended.
    pub last_end: Option<String>,
    /// Orders that were refused for what they said.
    pub refused_orders: u64,
    /// Orders and rows that came faster than they may.
    pub too_many: u64,
}

#[derive(Debug, Default)]
struct State {
    outgoing: Option<Arc<Outgoing>>,
    rules: Rules,
    logs: Vec<PathBuf>,
    most: Most,
    positions: BTreeMap<String, Position>,
    held: Held,
    /// Whether what is held may take the place of what is stored.
    is_stored: bool,
    questions: HashMap<u64, oneshot::Sender<String>>,
    last_question: u64,
    health: Health,
    is_ending: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Rung when it is to end.
    ending: Condvar,
    settings: Settings,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each of its parts is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to the worker that there is.
    fn outgoing(&self) -> Option<Arc<Outgoing>> {
        self.state().outgoing.clone()
    }
}

/// A question under way; nobody waits for its answer when this is gone.
struct Asked<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.shared.state().questions.remove(&self.id);
    }
}

impl Worker {
    /// One that is not started yet.
    #[must_use]
    pub fn new(mut settings: Settings) -> Self {
        let held = settings.held.take();
        let state = State {
            is_stored: held.is_some(),
            held: held.unwrap_or_default(),
            positions: settings.positions.read(),
            ..State::default()
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                ending: Condvar::new(),
                settings,
            }),
        }
    }

    /// Whether these are the rules that it goes by.
    #[must_use]
    pub fn knows(&self, text: &str, is_enforced: bool, modes: &BTreeMap<String, Mode>) -> bool {
        let state = self.shared.state();
        let rules = &state.rules;
        (rules.text.as_str(), rules.is_enforced, &rules.modes) == (text, is_enforced, modes)
    }

    /// Puts rules in force, now and in every worker to come. `logs` are the paths of
    /// `decide.logs`, `most` what the rules can hold.
    pub fn follow(&self, rules: Rules, logs: Vec<PathBuf>, most: Most) {
        let mut state = self.shared.state();
        state.rules = rules.clone();
        state.logs = logs;
        state.most = most;
        // Under the lock: other rules come after these.
        if let Some(outgoing) = &state.outgoing {
            outgoing.send(ToWorker::Rules(rules), Vec::new());
        }
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.state().health.clone()
    }

    /// Asks it something; the answer is JSON.
    ///
    /// # Errors
    /// There is none just now, or it does not answer.
    pub async fn ask(&self, question: Question) -> Result<String, Refusal> {
        self.ask_within(question, ANSWERED).await
    }

    async fn ask_within(&self, question: Question, time: Duration) -> Result<String, Refusal> {
        let (answer, answered) = oneshot::channel();
        let (id, outgoing) = self.note(answer).ok_or_else(away)?;
        let _asked = Asked {
            shared: &self.shared,
            id,
        };
        outgoing.send(ToWorker::Ask { id, question }, Vec::new());
        match tokio::time::timeout(time, answered).await {
            Ok(Ok(json)) => Ok(json),
            _ => Err(away()),
        }
    }

    /// Starts it, and starts it again whenever it ends, on a thread of its own, until
    /// [`end`](Self::end). `is_ready` is told when the first one serves. The second value
    /// becomes ready when the thread ends before: with [`NoWorker::Lost`] where nobody can
    /// make a worker any more.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn supervise(
        &self,
        spawner: Spawner,
        keeper: Handle,
        is_ready: oneshot::Sender<()>,
    ) -> io::Result<(JoinHandle<()>, oneshot::Receiver<NoWorker>)> {
        let shared = Arc::clone(&self.shared);
        let (requests, waiting) = mpsc::sync_channel::<Asking>(WAITING);
        let serving = Arc::clone(&shared);
        let asked = keeper.clone();
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let runtime = tokio::runtime::Handle::current();
        let pinging = self.clone();
        runtime.spawn(async move { pinging.ping().await });
        let of_requests = runtime.clone();
        thread("worker-requests").spawn(move || {
            let mut requests = Requests {
                shared: &serving,
                keeper: asked,
                runtime: of_requests,
                metrics: Metrics::default(),
            };
            for (request, outgoing) in waiting {
                requests.serve(request, &outgoing);
            }
        })?;
        let mut spawner = spawner;
        if let Some(said) = spawner.log() {
            thread("worker-log").spawn(move || said::pass_on(said))?;
        }
        let (losing, lost) = oneshot::channel();
        let supervising = thread("worker").spawn(move || {
            let mut supervisor = Supervisor {
                shared,
                spawner,
                keeper,
                runtime,
                requests,
                is_ready: Some(is_ready),
                orders: Rate::new(ORDERS.0, ORDERS.1),
                changes: Rate::new(CHANGES.0, CHANGES.1),
                coming: Held::default(),
                current: None,
            };
            if let Err(error) = supervisor.run() {
                let _ended = losing.send(error);
            }
        })?;
        Ok((supervising, lost))
    }

    /// Lets it end, and starts none again.
    pub fn end(&self) {
        let mut state = self.shared.state();
        state.is_ending = true;
        if let Some(outgoing) = &state.outgoing {
            outgoing.close();
        }
        drop(state);
        self.shared.ending.notify_all();
    }

    /// A worker that does not answer is ended, so that another one takes its place.
    async fn ping(&self) {
        loop {
            tokio::time::sleep(PING).await;
            let Some(asked) = self.shared.outgoing() else {
                continue;
            };
            if self.ask_within(Question::Ping, ALIVE).await.is_err() {
                tracing::warn!("the process that hears events does not answer");
                asked.close();
            }
        }
    }

    /// Notes a question; gives its number and to whom it goes.
    fn note(&self, answer: oneshot::Sender<String>) -> Option<(u64, Arc<Outgoing>)> {
        let mut state = self.shared.state();
        let outgoing = state.outgoing.clone()?;
        state.last_question += 1;
        let id = state.last_question;
        state.questions.insert(id, answer);
        Some((id, outgoing))
    }
}

fn away() -> Refusal {
    let detail = "the process that hears events does not answer";
    let help = "it is started again by itself; see the daemon's log";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail, help)
}

/// What the worker asks for and takes a while.
#[derive(Debug)]
enum Request {
    Scrape { id: u64 },
    Open { id: u64, log: u32, beside: bool },
}

/// A request, and to whom the answer goes: not to the worker that comes after it.
type Asking = (Request, Arc<Outgoing>);

/// The thread that has a worker work.
struct Supervisor {
    shared: Arc<Shared>,
    spawner: Spawner,
    keeper: Handle,
    runtime: tokio::runtime::Handle,
    requests: mpsc::SyncSender<Asking>,
    is_ready: Option<oneshot::Sender<()>>,
    orders: Rate,
    changes: Rate,
    /// All that is held, as far as it has come.
    coming: Held,
    /// The way to the worker that is heard.
    current: Option<Arc<Outgoing>>,
}

impl Supervisor {
    fn run(&mut self) -> Result<(), NoWorker> {
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let ended = self.one();
            self.current = None;
            let mut state = self.shared.state();
            state.outgoing = None;
            state.questions.clear();
            state.health.pid = None;
            if state.is_ending {
                return Ok(());
            }
            let ended = match ended {
                Ok(ended) => ended,
                Err(NoWorker::Failed(why)) => why,
                Err(lost) => return Err(lost),
            };
            state.health.restarts += 1;
            state.health.last_end = Some(ended.clone());
            drop(state);
            tracing::error!(
                ended,
                "the process that hears events has ended, or cannot be started; it is tried again"
            );
            if began.elapsed() >= STABLE {
                wait = FIRST_WAIT;
            }
            let state = self.shared.state();
            let ended = self
                .shared
                .ending
                .wait_timeout_while(state, wait, |it| !it.is_ending);
            if ended.is_ok_and(|(state, _)| state.is_ending) {
                return Ok(());
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Has one work until it ends; tells how it did.
    fn one(&mut self) -> Result<String, NoWorker> {
        let mut messages = self.begin()?;
        let error = loop {
            match messages.receive() {
                Ok(message) => self.hear(message),
                Err(error) => break error,
            }
        };
        let ended = self.spawner.end()?;
        Ok(match error {
            ChannelError::Gone => ended,
            error => format!("{error} ({ended})"),
        })
    }

    fn begin(&mut self) -> Result<Receiver<FromWorker>, NoWorker> {
        let words = |error: io::Error| NoWorker::Failed(error.to_string());
        let (here, there) = channel::pair().map_err(words)?;
        let pid = self.spawner.spawn(&there)?;
        drop(there);
        let outgoing = Outgoing::start(here.try_clone().map_err(words)?).map_err(words)?;
        let settings = &self.shared.settings;
        let sockets = settings.sockets.iter();
        let sockets: io::Result<Vec<OwnedFd>> = sockets.map(|(_, it)| it.try_clone()).collect();
        let sockets = sockets.map_err(words)?;
        let mut state = self.shared.state();
        if state.is_ending {
            return Err(NoWorker::Failed("the daemon ends".to_owned()));
        }
        let names = settings.sockets.iter().map(|(name, _)| name.clone());
        let start = Start {
            log: settings.log,
            rules: state.rules.clone(),
            secret: settings.secret,
            token: settings.token.clone(),
            sockets: names.collect(),
            group: settings.group.clone(),
            uid: nix::unistd::geteuid().as_raw(),
            spawner: self.spawner.id(),
            positions: state.positions.clone(),
        };
        // Under the lock: other rules come after these. Nothing here waits.
        outgoing.send(ToWorker::Start(Box::new(start)), sockets);
        for message in state.held.messages() {
            outgoing.send(message, Vec::new());
        }
        let outgoing = Arc::new(outgoing);
        self.current = Some(Arc::clone(&outgoing));
        state.outgoing = Some(outgoing);
        state.health.pid = Some(pid);
        Ok(Receiver::new(here, FROM_WORKER))
    }

    fn hear(&mut self, message: FromWorker) {
        match message {
            FromWorker::Ready => {
                tracing::debug!("the process that hears events serves");
                if let Some(is_ready) = self.is_ready.take() {
                    let _gone = is_ready.send(());
                }
            }
            FromWorker::Orders(orders) => self.carry_out(orders),
            FromWorker::Changes(mut changes) => {
                let taken = self.changes.take(changes.len(), Instant::now());
                self.shared.state().health.too_many += (changes.len() - taken) as u64;
                changes.truncate(taken);
                let state = self.shared.state();
                changes.retain(|change| state.most.contains_key(&*change.rule));
                drop(state);
                self.shared.settings.audit.record(changes);
            }
            FromWorker::Exist(accounts) => {
                let now = SystemTime::now();
                let taken = self.changes.take(accounts.len().min(NAMES), Instant::now());
                let accounts = accounts.into_iter().take(taken);
                for account in accounts.filter(|it| it.len() <= NAME_BYTES) {
                    self.shared.settings.audit.account_exists(&account, now);
                }
            }
            FromWorker::Held(changes) => self.hold(changes),
            FromWorker::HeldAll {
                is_first,
                keys,
                blocks,
                is_last,
            } => {
                if is_first {
                    self.coming = Held::default();
                }
                let keys = keys.into_iter().map(HeldChange::Key);
                let blocks = blocks.into_iter().map(HeldChange::Block);
                let state = self.shared.state();
                for change in keys.chain(blocks) {
                    if self.coming.takes(&change, &state.most) {
                        self.coming.apply(change);
                    }
                }
                drop(state);
                if is_last {
                    let held = std::mem::take(&mut self.coming);
                    let mut state = self.shared.state();
                    if state.is_stored {
                        self.shared.settings.audit.hold_all(held.snapshot());
                    }
                    state.held = held;
                }
            }
            FromWorker::Positions(positions) => {
                let mut state = self.shared.state();
                let logs: Vec<String> = state.logs.iter().map(|path| log_name_of(path)).collect();
                let known = positions
                    .into_iter()
                    .filter(|(name, _)| logs.contains(name));
                state.positions.extend(known);
                state.positions.retain(|name, _| logs.contains(name));
                let reached = state.positions.clone();
                // The disk may be slow, and the keeper asks for the rules.
                drop(state);
                if let Err(error) = self.shared.settings.positions.write(&reached) {
                    // The store says what is wrong with the directory.
                    tracing::debug!(%error, "how far logs were read is not kept");
                }
            }
            FromWorker::Scrape { id } => self.request(Request::Scrape { id }),
            FromWorker::Open { id, log, beside } => {
                self.request(Request::Open { id, log, beside });
            }
            FromWorker::Answer { id, json } => {
                if let Some(who) = self.shared.state().questions.remove(&id) {
                    // Who asked has lost patience.
                    let _gone = who.send(json);
                }
            }
        }
    }

    fn hold(&mut self, mut changes: Vec<HeldChange>) {
        let taken = self.changes.take(changes.len(), Instant::now());
        self.shared.state().health.too_many += (changes.len() - taken) as u64;
        changes.truncate(taken);
        let audit = &self.shared.settings.audit;
        let mut state = self.shared.state();
        changes.retain(|change| {
            let State { held, most, .. } = &mut *state;
            let takes = held.takes(change, most);
            if takes {
                held.apply(change.clone());
            }
            takes
        });
        if !state.is_stored {
            return;
        }
        audit.hold(changes);
        if audit.wants_all_held() {
            audit.hold_all(state.held.snapshot());
        }
    }

    fn request(&self, request: Request) {
        if let Some(outgoing) = &self.current {
            // One that asks faster than it can be served gets nothing.
            let _full = self.requests.try_send((request, Arc::clone(outgoing)));
        }
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        // In their order: what is taken back was ordered before. That is never too much, since
        // there is one for each block at most.
        let now = Instant::now();
        let mut taken = Vec::with_capacity(orders.len());
        for order in orders {
            let is_block = matches!(order.what, Ordered::Block { .. });
            if is_block && self.orders.take(1, now) == 0 {
                self.shared.state().health.too_many += 1;
                self.refuse(order, "too many blocks are ordered in a second".to_owned());
            } else {
                taken.push(order);
            }
        }
        let orders = taken;
        let refused = self.obeyed(orders);
        self.shared.state().health.refused_orders += refused.len() as u64;
        for (order, why) in refused {
            self.refuse(order, why);
        }
    }

    /// What of these the keeper did not do, which may have to be asked more than once.
    fn obeyed(&self, orders: Vec<Order>) -> Vec<Refused> {
        let deadline = Instant::now() + OBEYED;
        loop {
            let copies = orders.clone();
            let asked = (self.keeper).ask(move |keeper| keeper.obey_rules(copies, Now::read()));
            match self.runtime.block_on(asked) {
                Ok(refused) => return refused,
                Err(error) if Instant::now() >= deadline => {
                    let why = error.to_string();
                    return orders
                        .into_iter()
                        .map(|order| (order, why.clone()))
                        .collect();
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    fn refuse(&self, order: Order, why: String) {
        if let Some(outgoing) = &self.current {
            outgoing.send(ToWorker::Refused(Box::new(order), why), Vec::new());
        }
    }
}

/// The thread that serves what takes a while.
struct Requests<'a> {
    shared: &'a Shared,
    keeper: Handle,
    runtime: tokio::runtime::Handle,
    metrics: Metrics,
}

impl Requests<'_> {
    fn serve(&mut self, request: Request, outgoing: &Outgoing) {
        match request {
            Request::Scrape { id } => {
                let text = self.scrape();
                outgoing.send(ToWorker::Scraped { id, text }, Vec::new());
            }
            Request::Open { id, log, beside } => {
                let path = self.shared.state().logs.get(log as usize).cloned();
                let opened = match path {
                    Some(path) if beside => beside_of(&path),
                    Some(path) => open(&path, 0).map(|file| vec![file]),
                    None => Err(io::Error::other("the policy has no such log any more")),
                };
                match opened {
                    Ok(files) => {
                        let count = Ok(u32::try_from(files.len()).unwrap_or(0));
                        let files = files.into_iter().map(OwnedFd::from).collect();
                        outgoing.send(ToWorker::Opened { id, files: count }, files);
                    }
                    Err(error) => {
                        let why = (error.raw_os_error().unwrap_or(0), error.to_string());
                        let files = Err(why);
                        outgoing.send(ToWorker::Opened { id, files }, Vec::new());
                    }
                }
            }
        }
    }

    fn scrape(&mut self) -> Option<String> {
        let asked = self.keeper.ask(|keeper| keeper.snapshot());
        match self.runtime.block_on(asked) {
            Ok(Ok(snapshot)) => self.metrics.text(snapshot).ok(),
            Ok(Err(refusal)) => {
                tracing::warn!(reason = refusal.detail, "no metrics");
                None
            }
            Err(_) => None,
        }
    }
}

fn open(path: &Path, more_flags: i32) -> io::Result<File> {
    // Opening a pipe would wait for its writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | more_flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(
            "it is no regular file; a log file is needed, or a socket under `feedback`",
        ));
    }
    Ok(file)
}

/// Files beside this one whose names begin alike, as those that rotation makes.
fn beside_of(path: &Path) -> io::Result<Vec<File>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let name = name.to_string_lossy();
    let entries = std::fs::read_dir(directory)?.flatten();
    let is_beside = |entry: &std::fs::DirEntry| {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        other != name && other.starts_with(&*name)
    };
    Ok(entries
        .filter(is_beside)
        // No link: whoever may write there must not choose what is read.
        .filter_map(|entry| open(&entry.path(), libc::O_NOFOLLOW).ok())
        .take(MOST_BESIDE.min(MAX_FILES))
        .collect())
}
