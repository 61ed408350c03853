//! The daemon's side of the worker: what is asked of it and told to it. It is started again
//! as often as it ends (`restarts`), and what it says is looked at (`listener`).

mod captchas;
mod listener;
mod obeying;
mod positions;
mod requests;
mod restarts;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use captchas::Captchas;
use hyper::StatusCode;
use listener::{Before, Listener, Ways};
use obeying::{Obeying, Orderer};
use positions::PositionWriter;
use requests::{Requests, WAITING};
use restarts::Restarts;
use tokio::sync::oneshot;

use super::held::{Held, Most};
use super::message::{Question, Rules, ToWorker};
use super::outgoing::Outgoing;
use super::said;
use super::spawner::{NoWorker, Spawner};
use crate::adapters::api::Group;
use crate::adapters::origin::log_name_of;
use crate::control::api::Refusal;
use crate::courier::Courier;
use crate::daemon::logging;
use crate::event::follow::Position;
use crate::keeper::{Handle, Refused};
use crate::notify::Notifier;
use crate::policy::Captcha;
use crate::store::PositionFile;
use crate::store::audit::Audit;

/// How long a worker may take to answer a question.
const ANSWERED: Duration = Duration::from_secs(10);

/// How long it may take to say that it lives: what it has told before comes first.
const ALIVE: Duration = Duration::from_secs(30);

/// How often it is asked whether it lives.
const PING: Duration = Duration::from_secs(10);

/// How often it is tried to read what was held before, where that failed.
const RECALL: Duration = Duration::from_mins(1);

/// What stays the same from worker to worker.
#[derive(Debug)]
pub struct Settings {
    /// How it writes its log.
    pub log: (logging::Format, logging::Level),
    /// What keys are hashed with.
    pub secret: [u8; 16],
    /// The token of `decide.api`.
    pub token: Option<Vec<u8>>,
    /// The sockets, with their names; see [`Start::sockets`](super::message::Start::sockets).
    pub sockets: Vec<(String, OwnedFd)>,
    /// The group that may use the API.
    pub group: Option<Group>,
    /// The state directory, where what was held is read again that could not be read.
    pub state: PathBuf,
    /// Where what happens is written down.
    pub audit: Audit,
    /// Who tells of it; `None`: nobody.
    pub notifier: Option<Notifier>,
    /// Who asks providers of CAPTCHAs; `None`: nobody.
    pub courier: Option<Courier>,
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
    /// Rows of rules that neither the policy nor the one before has.
    pub unknown_rows: u64,
}

#[derive(Debug, Default)]
struct State {
    outgoing: Option<Arc<Outgoing>>,
    rules: Rules,
    /// Who poses CAPTCHAs; the secret is in no text that the worker gets.
    captcha: Option<Captcha>,
    /// Those of the policy before.
    before: Option<Rules>,
    logs: Vec<PathBuf>,
    /// How much the rules can hold, and with those of the policy before.
    room: Most,
    most: Arc<Most>,
    positions: BTreeMap<String, Position>,
    questions: HashMap<u64, Questioner>,
    last_question: u64,
    health: Health,
    is_ending: bool,
}

/// Who waits for the answer to a question.
#[derive(Debug)]
struct Questioner {
    answer: oneshot::Sender<String>,
    /// It was to change something: the answer comes after what was ordered for that.
    changes: bool,
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

    /// How much the rules can hold, and those of the policy before: what these held may come
    /// back, and what they did may still be on its way.
    fn most(&self) -> Arc<Most> {
        Arc::clone(&self.state().most)
    }

    /// The file of the log of this name, if the policy has one.
    fn log(&self, name: &str) -> Option<PathBuf> {
        let state = self.state();
        let mut logs = state.logs.iter();
        logs.find(|path| log_name_of(path) == name).cloned()
    }

    /// Waits, unless the daemon ends before; tells whether it does.
    fn wait(&self, time: Duration) -> bool {
        let ended = self
            .ending
            .wait_timeout_while(self.state(), time, |it| !it.is_ending);
        let (state, _) = ended.unwrap_or_else(PoisonError::into_inner);
        state.is_ending
    }

    /// Counts what the keeper has refused, and tells who ordered it.
    fn refuse(&self, worker: Option<&Outgoing>, refused: Vec<Refused>) {
        if refused.is_empty() {
            return;
        }
        self.state().health.refused_orders += refused.len() as u64;
        for (order, why) in refused {
            if let Some(worker) = worker {
                worker.send(ToWorker::Refused(Box::new(order), why), Vec::new());
            }
        }
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
    pub fn new(settings: Settings) -> Self {
        let state = State {
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
    pub fn knows(&self, rules: &Rules) -> bool {
        self.shared.state().rules == *rules
    }

    /// Puts rules in force, now and in every worker to come. `logs` are the paths of
    /// `decide.logs`, `most` what the rules can hold.
    pub fn follow(&self, rules: Rules, logs: Vec<PathBuf>, most: Most) {
        let mut state = self.shared.state();
        let before = std::mem::replace(&mut state.rules, rules.clone());
        // Who pauses, or switches a rule, goes by the same policy.
        if before.text != rules.text {
            let mut all = std::mem::replace(&mut state.room, most.clone());
            all.extend(most);
            state.most = Arc::new(all);
            state.before = Some(before).filter(|before| !before.text.is_empty());
        }
        state.logs = logs;
        // Under the lock: other rules come after these.
        if let Some(outgoing) = &state.outgoing {
            outgoing.send(ToWorker::Rules(rules), Vec::new());
        }
    }

    /// Says who is asked about answers to CAPTCHAs from now on.
    pub fn verify_by(&self, captcha: Option<Captcha>) {
        self.shared.state().captcha = captcha;
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
        let changes = question.changes();
        let questioner = Questioner { answer, changes };
        let (id, outgoing) = self.note(questioner).ok_or_else(away)?;
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
    /// [`end`](Self::end). `held` is what was held when the daemon before ended; `None`: it
    /// could not be read, which is tried again, and is not overwritten until then. `is_ready`
    /// is told when the first one serves. The second value becomes ready when the thread ends
    /// before: with [`NoWorker::Lost`] where nobody can make a worker any more.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn supervise(
        &self,
        spawner: Arc<Spawner>,
        keeper: Handle,
        held: Option<Held>,
        is_ready: oneshot::Sender<()>,
    ) -> io::Result<(JoinHandle<()>, oneshot::Receiver<NoWorker>)> {
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let runtime = tokio::runtime::Handle::current();
        let pinging = self.clone();
        runtime.spawn(async move { pinging.ping().await });
        if let Some(said) = spawner.log() {
            thread("worker-log").spawn(move || said::pass_on(said))?;
        }
        let shared = Arc::clone(&self.shared);
        let told = Arc::clone(&self.shared);
        let refuse = move |orderer: &Orderer, refused| told.refuse(orderer.as_deref(), refused);
        let obeying = Obeying::start(keeper.clone(), runtime.clone(), refuse)?;
        let (requests, waiting) = mpsc::sync_channel(WAITING);
        let serving = Requests::new(Arc::clone(&shared), keeper, runtime);
        thread("worker-requests").spawn(move || serving.run(&waiting))?;
        let before = match held {
            Some(held) => Before::Known(held),
            None => Before::Later(self.recall()?),
        };
        let ways = Ways {
            obeying,
            requests,
            positions: PositionWriter::start(shared.settings.positions.clone())?,
            captchas: Captchas::new(shared.settings.courier.clone()),
            is_ready,
        };
        let mut restarts = Restarts {
            listener: Listener::new(Arc::clone(&shared), ways, before),
            shared,
            spawner,
        };
        let (losing, lost) = oneshot::channel();
        let supervising = thread("worker").spawn(move || {
            if let Err(error) = restarts.run() {
                let _ended = losing.send(error);
            }
        })?;
        Ok((supervising, lost))
    }

    /// Reads what was held before, as often as it takes, on a thread of its own.
    fn recall(&self) -> io::Result<mpsc::Receiver<Held>> {
        let (recalling, recalled) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("worker-recall".to_owned());
        thread.spawn(move || {
            while !shared.wait(RECALL) {
                match Held::read(&shared.settings.state) {
                    Ok(held) => {
                        tracing::info!("what the rules held is known, and stored again");
                        let _gone = recalling.send(held);
                        return;
                    }
                    Err(error) => tracing::debug!(%error, "what the rules held is not known"),
                }
            }
        })?;
        Ok(recalled)
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
    fn note(&self, questioner: Questioner) -> Option<(u64, Arc<Outgoing>)> {
        let mut state = self.shared.state();
        let outgoing = state.outgoing.clone()?;
        state.last_question += 1;
        let id = state.last_question;
        state.questions.insert(id, questioner);
        Some((id, outgoing))
    }
}

fn away() -> Refusal {
    let detail = "the process that hears events does not answer";
    let help = "it is started again by itself; see the daemon's log";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail, help)
}
