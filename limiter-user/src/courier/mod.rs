//! The courier: a process without privileges that connects to servers elsewhere, because the
//! daemon must not read what comes from there and the worker must make no sockets. It is made
//! by the [`Spawner`] when there is something to send, gets [`Job`]s over a
//! channel as the worker's, and answers each. It opens no file for writing, and makes no other sockets than
//! those of IP and pairs of streams.

pub mod job;
mod mail;
mod post;
pub mod process;
mod sandbox;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

pub use job::{Answer, Job, Mail, Post, Tls};
use job::{Answered, ToCourier};

use crate::daemon::logging;
use crate::worker::channel::{self, ChannelError, Receiver, Sender};
use crate::worker::{NoWorker, Role, Spawner};

/// What it adds to the time that a job may take: to look up a name, and to be slow.
const SLACK: Duration = Duration::from_secs(10);

/// Bytes of an answer at most.
const MOST_ANSWER: usize = job::MOST_BODY + 8_192;

/// Who waits for answers, by the numbers of their jobs.
type Waiting = Arc<Mutex<HashMap<u64, mpsc::SyncSender<Answer>>>>;

/// The courier, as the daemon sees it. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Courier {
    spawner: Arc<Spawner>,
    log: (logging::Format, logging::Level),
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    last_job: u64,
}

#[derive(Debug)]
struct Running {
    sender: Arc<Sender<ToCourier>>,
    waiting: Waiting,
}

impl Courier {
    /// One that is not started yet.
    #[must_use]
    pub fn new(spawner: Arc<Spawner>, log: (logging::Format, logging::Level)) -> Self {
        Self {
            spawner,
            log,
            state: Arc::default(),
        }
    }

    /// Has a job done; waits for what comes of it, at most a little longer than it may take.
    #[must_use]
    pub fn deliver(&self, job: Job) -> Answer {
        let patience = Duration::from_millis(job.patience_ms()) + SLACK;
        let (sender, waiting, id) = match self.at_work() {
            Ok(ready) => ready,
            Err(error) => return Answer::Later(format!("the courier cannot be started: {error}")),
        };
        let (answer, answered) = mpsc::sync_channel(1);
        lock(&waiting).insert(id, answer);
        if let Err(error) = sender.send(&ToCourier::Job { id, job }, &[]) {
            self.end(&sender);
            return Answer::Later(format!("the courier has ended: {error}"));
        }
        let answer = answered.recv_timeout(patience);
        lock(&waiting).remove(&id);
        answer.unwrap_or_else(|error| {
            // It is stuck, or has gone: the next job gets another one.
            self.end(&sender);
            Answer::Later(match error {
                mpsc::RecvTimeoutError::Timeout => "the courier does not answer".to_owned(),
                mpsc::RecvTimeoutError::Disconnected => "the courier has ended".to_owned(),
            })
        })
    }

    /// The way to the courier, which is started if it is not there, and a number for a job.
    fn at_work(&self) -> Result<(Arc<Sender<ToCourier>>, Waiting, u64), NoWorker> {
        let mut state = lock(&self.state);
        state.last_job += 1;
        let id = state.last_job;
        let running = match state.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let ready = (
            Arc::clone(&running.sender),
            Arc::clone(&running.waiting),
            id,
        );
        state.running = Some(running);
        Ok(ready)
    }

    fn start(&self) -> Result<Running, NoWorker> {
        let words = |error: std::io::Error| NoWorker::Failed(error.to_string());
        let (here, there) = channel::pair().map_err(words)?;
        self.spawner.spawn(Role::Courier, &there)?;
        drop(there);
        let sender = Arc::new(Sender::new(here.try_clone().map_err(words)?).map_err(words)?);
        let start = ToCourier::Start {
            log: self.log,
            spawner: self.spawner.id(),
        };
        let sent = sender.send(&start, &[]);
        sent.map_err(|error| NoWorker::Failed(error.to_string()))?;
        let waiting = Waiting::default();
        let running = Running {
            sender: Arc::clone(&sender),
            waiting: Arc::clone(&waiting),
        };
        let courier = self.clone();
        let thread = std::thread::Builder::new().name("courier".to_owned());
        let hear = move || {
            let mut answers = Receiver::<Answered>::new(here, MOST_ANSWER);
            let ended = loop {
                match answers.receive() {
                    Ok(Answered { id, answer }) => {
                        if let Some(who) = lock(&waiting).remove(&id) {
                            // Who waited has lost patience.
                            let _gone = who.try_send(answer);
                        }
                    }
                    Err(error) => break error,
                }
            };
            if !matches!(ended, ChannelError::Gone) {
                tracing::error!(error = %ended, "the courier is ended: it says what makes no sense");
            }
            courier.end(&sender);
            // Whoever waits is told by that.
            lock(&waiting).clear();
        };
        thread.spawn(hear).map_err(words)?;
        Ok(running)
    }

    /// Ends this one, if it is the one at work.
    fn end(&self, sender: &Arc<Sender<ToCourier>>) {
        let mut state = lock(&self.state);
        sender.close();
        let is_it = |running: &Running| Arc::ptr_eq(&running.sender, sender);
        if !state.running.as_ref().is_some_and(is_it) {
            return;
        }
        state.running = None;
        match self.spawner.end(Role::Courier) {
            Ok(how) => tracing::debug!(how, "the courier has ended"),
            // It ends with the spawner.
            Err(error) => tracing::debug!(%error, "the courier was not ended"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
