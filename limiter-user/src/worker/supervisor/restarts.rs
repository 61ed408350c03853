//! The thread that starts a worker, hears it until it ends, and starts another one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::listener::Listener;
use crate::worker::channel::{self, ChannelError, Receiver};
use crate::worker::message::{FromWorker, Start, ToWorker};
use crate::worker::outgoing::Outgoing;
use crate::worker::spawner::{NoWorker, Role, Spawner};

/// The wait before the first restart; it doubles with each that follows soon.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Who has worked for so long begins with the first wait again.
const STABLE: Duration = Duration::from_secs(60);

/// Bytes of a message from the worker at most.
const FROM_WORKER: usize = 1 << 20;

/// The thread that has a worker work.
#[derive(Debug)]
pub(super) struct Restarts {
    pub(super) shared: Arc<Shared>,
    pub(super) spawner: Arc<Spawner>,
    pub(super) listener: Listener,
}

impl Restarts {
    /// Has one work after another, until the daemon ends.
    ///
    /// # Errors
    /// None can be made any more.
    pub(super) fn run(&mut self) -> Result<(), NoWorker> {
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let ended = self.one();
            self.listener.turn_to(None);
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
            if self.shared.wait(wait) {
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
                Ok(message) => self.listener.hear(message),
                Err(error) => break error,
            }
        };
        let ended = self.spawner.end(Role::Worker)?;
        Ok(match error {
            ChannelError::Gone => ended,
            error => format!("{error} ({ended})"),
        })
    }

    fn begin(&mut self) -> Result<Receiver<FromWorker>, NoWorker> {
        let words = |error: io::Error| NoWorker::Failed(error.to_string());
        let (here, there) = channel::pair().map_err(words)?;
        let pid = self.spawner.spawn(Role::Worker, &there)?;
        drop(there);
        let outgoing = Outgoing::start(here.try_clone().map_err(words)?).map_err(words)?;
        let settings = &self.shared.settings;
        let sockets = settings.sockets.iter();
        let sockets: io::Result<Vec<OwnedFd>> = sockets.map(|(_, it)| it.try_clone()).collect();
        let sockets = sockets.map_err(words)?;
        let names = settings.sockets.iter().map(|(name, _)| name.clone());
        let state = self.shared.state();
        let rules = state.rules.clone();
        let start = Start {
            log: settings.log,
            rules: rules.clone(),
            before: state.before.clone(),
            secret: settings.secret,
            token: settings.token.clone(),
            sockets: names.collect(),
            group: settings.group.clone(),
            uid: nix::unistd::geteuid().as_raw(),
            spawner: self.spawner.id(),
            positions: state.positions.clone(),
        };
        drop(state);
        outgoing.send(ToWorker::Start(Box::new(start)), sockets);
        // Not under the lock: that may be much.
        for message in self.listener.held() {
            outgoing.send_in_turn(message);
        }
        let outgoing = Arc::new(outgoing);
        let mut state = self.shared.state();
        if state.is_ending {
            return Err(NoWorker::Failed("the daemon ends".to_owned()));
        }
        if state.rules != rules {
            // They have changed meanwhile; from here on each change is told.
            outgoing.send(ToWorker::Rules(state.rules.clone()), Vec::new());
        }
        self.listener.turn_to(Some(Arc::clone(&outgoing)));
        state.outgoing = Some(outgoing);
        state.health.pid = Some(pid);
        Ok(Receiver::new(here, FROM_WORKER))
    }
}
