//! The adapters at work: what they are given, and what is told of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use rustix::net::AddressFamily;

use super::desk::Desk;
use super::link::Link;
use super::message::{API, CHECK, Start};
use crate::adapters::api::{self, Api, Members, Token};
use crate::adapters::check::{self, Check};
use crate::adapters::datagrams::{self, Manner, Socket};
use crate::adapters::logs::{self, Log, Reached};
use crate::adapters::origin::{Row, SPOE, Told, feedback_name, log_name, warnings};
use crate::adapters::spoe::{self, Spoe};
use crate::adapters::{Figures, Intake, Running};
use crate::event::follow::{Opener, Position};
use crate::policy::{Datagrams, Decide, LogFile};

/// What hears events in this process.
#[derive(Debug)]
pub(super) struct Hearing {
    intake: Arc<Intake>,
    api: Option<Arc<Api>>,
    check: Option<Arc<Check>>,
    spoe: Option<Arc<Spoe>>,
    link: Arc<Link>,
    positions: Positions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    decide: Decide,
    /// Those that read datagrams, as long as this process lives.
    _ears: Vec<Running>,
    followed: Option<Running>,
    told: Told,
}

/// How far logs were read, by the names of their origins.
type Positions = Arc<Mutex<BTreeMap<String, Position>>>;

impl Hearing {
    /// Begins to hear, where there are sockets for that.
    ///
    /// # Errors
    /// A socket is none, or there is no thread to be had.
    pub(super) fn begin(
        desk: &Arc<Desk>,
        link: &Arc<Link>,
        decide: &Decide,
        start: &Start,
        mut sockets: BTreeMap<String, OwnedFd>,
    ) -> anyhow::Result<Self> {
        let judge = Arc::clone(desk);
        let intake = Arc::new(Intake::new(judge, decide));
        let api = match sockets.remove(API) {
            Some(socket) => serve_api(&intake, start, socket)?,
            None => None,
        };
        let check = match sockets.remove(CHECK) {
            Some(socket) => serve_check(&intake, decide, start, socket)?,
            None => None,
        };
        let spoe = match sockets.remove(SPOE) {
            Some(socket) => serve_spoe(&intake, decide, start, socket)?,
            None => None,
        };
        let ears = listen(&intake, decide, &mut sockets)?;
        let positions = Arc::new(Mutex::new(start.positions.clone()));
        let hearing = Self {
            intake,
            api,
            check,
            spoe,
            link: Arc::clone(link),
            state: Mutex::new(State {
                _ears: ears,
                ..State::default()
            }),
            positions,
        };
        hearing.follow(decide)?;
        Ok(hearing)
    }

    /// Goes by another policy. Sockets stay as they are.
    pub(super) fn reload(&self, decide: &Decide) {
        self.intake.reload(decide);
        if let Some(check) = &self.check {
            check.reload(decide);
        }
        if let Some(spoe) = &self.spoe {
            spoe.reload(decide);
        }
        if let Err(error) = self.follow(decide) {
            tracing::error!(%error, "logs are not followed");
        }
    }

    /// Follows the logs of a policy, if they are others than before.
    fn follow(&self, decide: &Decide) -> anyhow::Result<()> {
        let mut state = self.state();
        let is_same = state.decide.logs == decide.logs;
        state.decide = decide.clone();
        if is_same {
            return Ok(());
        }
        // It tells how far it has come before it ends.
        state.followed = None;
        let positions = lock(&self.positions).clone();
        let logs = decide.logs.iter();
        let logs = logs.filter_map(|log| self.log(log, &positions));
        let (link, positions) = (Arc::clone(&self.link), Arc::clone(&self.positions));
        let reached = move |reached: Vec<Reached>| {
            let reached: BTreeMap<String, Position> = reached
                .into_iter()
                .map(|it| (it.origin, it.position))
                .collect();
            lock(&positions).extend(reached.clone());
            link.positions(reached);
        };
        let following = logs::follow(Arc::clone(&self.intake), logs.collect(), reached);
        state.followed = Some(following.context("following logs")?);
        Ok(())
    }

    fn log(&self, log: &LogFile, positions: &BTreeMap<String, Position>) -> Option<Log> {
        let name = log_name(log);
        Some(Log {
            origin: self.intake.origins().get(&name)?,
            format: log.format.clone(),
            direct: log.direct,
            asked: log.asked,
            opener: Box::new(Daemon {
                link: Arc::clone(&self.link),
                log: name.clone(),
            }),
            position: positions.get(&name).copied(),
        })
    }

    /// What is known of each origin.
    pub(super) fn rows(&self, now_ns: u64) -> Vec<Row> {
        self.intake.origins().rows(now_ns)
    }

    /// What became of challenges, by the word for it.
    pub(super) fn challenges(&self) -> Vec<(&'static str, u64)> {
        self.intake.challenges().counts()
    }

    /// Those who are asked about requests, each with how fast it decides.
    pub(super) fn figures(&self) -> impl Iterator<Item = (&'static str, &Figures)> {
        let api = self.api.as_deref().map(|api| (API, api.figures()));
        let check = self.check.as_deref().map(|check| (CHECK, check.figures()));
        let spoe = self.spoe.as_deref().map(|spoe| (SPOE, spoe.figures()));
        [api, check, spoe].into_iter().flatten()
    }

    /// What is probably not meant; what is new is logged.
    pub(super) fn warnings(&self, now_ns: u64) -> Vec<String> {
        let rows = self.rows(now_ns);
        let mut state = self.state();
        let all = warnings(&state.decide, &rows, now_ns);
        for warning in state.told.news(&all) {
            tracing::warn!("{warning}");
        }
        all.iter().map(ToString::to_string).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The daemon opens log files for who may not.
#[derive(Debug)]
struct Daemon {
    link: Arc<Link>,
    /// The name of the log's origin.
    log: String,
}

impl Opener for Daemon {
    fn open(&self) -> io::Result<File> {
        self.link.open(&self.log)
    }

    fn renamed(&self, position: &Position) -> io::Result<Option<File>> {
        self.link.renamed(&self.log, position)
    }
}

fn unix(socket: OwnedFd) -> io::Result<tokio::net::UnixListener> {
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

fn tcp(socket: OwnedFd) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn serve_api(
    intake: &Arc<Intake>,
    start: &Start,
    socket: OwnedFd,
) -> anyhow::Result<Option<Arc<Api>>> {
    let Some(api) = Api::new(Arc::clone(intake), api::random_id) else {
        return Ok(None);
    };
    let api = Arc::new(api);
    let serving = Arc::clone(&api);
    match &start.token {
        None => {
            let listener = unix(socket)?;
            let members = Members::new(start.uid, start.group.clone());
            tokio::spawn(api::serve_unix(listener, members, api::LIMITS, serving));
        }
        Some(token) => {
            let listener = tcp(socket)?;
            let token = Token::new(token)?;
            tokio::spawn(api::serve_tcp(listener, token, api::LIMITS, serving));
        }
    }
    Ok(Some(api))
}

fn serve_check(
    intake: &Arc<Intake>,
    decide: &Decide,
    start: &Start,
    socket: OwnedFd,
) -> anyhow::Result<Option<Arc<Check>>> {
    let Some(check) = Check::new(Arc::clone(intake), decide) else {
        return Ok(None);
    };
    let check = Arc::new(check);
    let serving = Arc::clone(&check);
    // What the daemon has made at its start; a policy of today may name another.
    match rustix::net::sockopt::socket_domain(&socket)? {
        AddressFamily::UNIX => {
            let listener = unix(socket)?;
            let members = Members::new(start.uid, start.group.clone());
            tokio::spawn(check::serve_unix(listener, members, check::LIMITS, serving));
        }
        _ => {
            let listener = tcp(socket)?;
            tokio::spawn(check::serve_tcp(listener, check::LIMITS, serving));
        }
    }
    Ok(Some(check))
}

fn serve_spoe(
    intake: &Arc<Intake>,
    decide: &Decide,
    start: &Start,
    socket: OwnedFd,
) -> anyhow::Result<Option<Arc<Spoe>>> {
    let Some(spoe) = Spoe::new(Arc::clone(intake), decide, api::random_id) else {
        return Ok(None);
    };
    let spoe = Arc::new(spoe);
    let serving = Arc::clone(&spoe);
    match rustix::net::sockopt::socket_domain(&socket)? {
        AddressFamily::UNIX => {
            let listener = unix(socket)?;
            let members = Members::new(start.uid, start.group.clone());
            tokio::spawn(spoe::serve_unix(listener, members, serving));
        }
        _ => {
            let listener = tcp(socket)?;
            tokio::spawn(spoe::serve_tcp(listener, serving));
        }
    }
    Ok(Some(spoe))
}

/// Reads the sockets of `decide.feedback` that there are.
fn listen(
    intake: &Arc<Intake>,
    decide: &Decide,
    sockets: &mut BTreeMap<String, OwnedFd>,
) -> anyhow::Result<Vec<Running>> {
    let mut ears = Vec::new();
    for feedback in &decide.feedback {
        let name = feedback_name(feedback);
        let (Some(socket), Some(origin)) = (sockets.remove(&name), intake.origins().get(&name))
        else {
            continue;
        };
        let socket = match &feedback.at {
            Datagrams::Unix(_) => Socket::Unix(UnixDatagram::from(socket)),
            Datagrams::Udp { from, .. } => Socket::Udp {
                socket: UdpSocket::from(socket),
                from: from.clone(),
            },
        };
        let manner = Manner {
            format: feedback.format.clone(),
            direct: feedback.direct,
        };
        let ear = datagrams::listen(Arc::clone(intake), origin, socket, &manner);
        ears.push(ear.with_context(|| format!("reading {name}"))?);
    }
    Ok(ears)
}
