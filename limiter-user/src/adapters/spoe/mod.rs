//! HAProxy, over its stream processing offload protocol: it asks about a request, and tells
//! over the same connection what became of it.
//!
//! Three messages are heard, which `docs/integrations/haproxy.md` has configured:
//! `limiter-check` asks, `limiter-report` tells the status and headers of the response, and
//! `limiter-wait` is acknowledged after the delay that the check has named.

mod frames;
mod message;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use spop::frames::Ack;
use spop::{Action, TypedData, VarScope};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout, timeout_at};

use super::api::door::Door;
use super::api::{MakeId, Members};
use super::gate::Gate;
use super::origin::{Origin, SPOE};
use super::{Intake, verdict, wall_ns};
use crate::event::reader::{Misread, Tally};
use crate::event::{Event, NotUnderstood, Sample};
use crate::http::Listener;
use crate::policy::Decide;
use crate::response::Responses;
use crate::seldom::Seldom;
use frames::{Conversation, Heard, Notified, written};

/// Connections at once. HAProxy keeps some for each of its threads.
const CONNECTIONS: usize = 512;

/// How long a peer may take to greet.
const GREETING: Duration = Duration::from_secs(5);

/// How long it may say nothing then: longer than HAProxy keeps a connection that it does not
/// need, by the `timeout idle` of its configuration.
const IDLE: Duration = Duration::from_secs(90);

/// How long it may take to fetch what it is answered.
const FETCHED: Duration = Duration::from_secs(10);

/// Answers of a connection that wait for it.
const WAITING: usize = 256;

/// Requests that wait out a delay at once; whoever comes then does not wait.
const SLEEPERS: usize = 4_096;

const NANOS: u64 = 1_000_000_000;

/// How often the log tells of those who may not ask.
const STRANGERS: Duration = Duration::from_secs(10);

/// The longest delay.
const LONGEST: Duration = Duration::from_secs(30);

/// What all connections share.
#[derive(Debug)]
pub struct Spoe {
    intake: Arc<Intake>,
    origin: Arc<Origin>,
    make_id: MakeId,
    responses: RwLock<Arc<Responses>>,
    sleepers: Arc<Semaphore>,
    strangers: Seldom,
}

impl Spoe {
    /// For the `[decide]` of a policy; `None`: the intake has no origin of the name [`SPOE`].
    /// `make_id` is [`random_id`](super::api::random_id) but in tests.
    #[must_use]
    pub fn new(intake: Arc<Intake>, decide: &Decide, make_id: MakeId) -> Option<Self> {
        Some(Self {
            origin: intake.origins().get(SPOE)?,
            intake,
            make_id,
            responses: RwLock::new(Arc::new(Responses::of(decide))),
            sleepers: Arc::new(Semaphore::new(SLEEPERS)),
            strangers: Seldom::new(STRANGERS),
        })
    }

    /// Goes by another policy from now on.
    pub fn reload(&self, decide: &Decide) {
        let responses = Arc::new(Responses::of(decide));
        *self
            .responses
            .write()
            .unwrap_or_else(PoisonError::into_inner) = responses;
    }
}

/// Serves a TCP port for ever; drop the future to stop, which also ends the connections.
pub async fn serve_tcp(listener: TcpListener, spoe: Arc<Spoe>) {
    let intake = Arc::clone(&spoe.intake);
    serve(Gate { listener, intake }, spoe).await;
}

/// Serves a Unix socket for ever; drop the future to stop, which also ends the connections.
pub async fn serve_unix(listener: UnixListener, members: Members, spoe: Arc<Spoe>) {
    let members = Arc::new(members);
    serve(Door { listener, members }, spoe).await;
}

async fn serve<L: Listener>(listener: L, spoe: Arc<Spoe>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((_, peer)) if L::is_stranger(&peer) => {
                if let Some(left_out) = spoe.strangers.due(Instant::now()) {
                    tracing::warn!(left_out, "who may not ask came to decide.spoe");
                }
            }
            Ok((stream, _)) => {
                let spoe = Arc::clone(&spoe);
                connections.spawn(async move {
                    converse(stream, &spoe).await;
                    drop(seat);
                });
            }
            // Descriptors come back when others let go of them.
            Err(error) => {
                tracing::debug!(%error, "no connection from HAProxy");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Hears one peer until it goes.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, spoe: &Arc<Spoe>) {
    let (mut from, mut to) = split(stream);
    let (answers, mut waiting) = mpsc::channel::<BytesMut>(WAITING);
    let hear = async move {
        let mut conversation = Conversation::new();
        let mut bytes = BytesMut::new();
        let greeted_by = tokio::time::Instant::now() + GREETING;
        loop {
            let read = from.read_buf(&mut bytes);
            let read = match conversation.is_greeted() {
                true => timeout(IDLE, read).await,
                false => timeout_at(greeted_by, read).await,
            };
            if !matches!(read, Ok(Ok(1..))) {
                return;
            }
            if !hear(&mut conversation, &mut bytes, spoe, &answers).await {
                return;
            }
        }
    };
    let answer = async move {
        while let Some(bytes) = waiting.recv().await {
            let sent = timeout(FETCHED, to.write_all(&bytes)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        let _closed = timeout(FETCHED, to.shutdown()).await;
    };
    // Who does not fetch its answers is not heard further either.
    tokio::pin!(hear, answer);
    tokio::select! {
        () = &mut hear => answer.await,
        () = &mut answer => {}
    }
}

/// Hears what has come whole; `false`: the conversation is over.
async fn hear(
    conversation: &mut Conversation,
    bytes: &mut BytesMut,
    spoe: &Arc<Spoe>,
    answers: &mpsc::Sender<BytesMut>,
) -> bool {
    let mut notified = Vec::new();
    let goes_on = loop {
        match conversation.hear(bytes) {
            Ok(Some(Heard::Notify(messages))) => notified.push(messages),
            Ok(Some(Heard::Answer(answer, is_last))) => {
                if answers.send(answer).await.is_err() || is_last {
                    break false;
                }
            }
            Ok(None) => break true,
            Err(broken) => {
                tracing::debug!("HAProxy, or whoever it was, {broken}");
                let _gone = answers.send(broken.told()).await;
                break false;
            }
        }
    };
    if notified.is_empty() {
        return goes_on;
    }
    let judging = Arc::clone(spoe);
    let judged = spawn_blocking(move || judging.judge(notified)).await;
    let Ok(judged) = judged else {
        return false;
    };
    let mut out = BytesMut::new();
    for Judged { ack, delay } in judged {
        match delay {
            Some(delay) => spoe.wait(delay, ack, answers),
            None => out.extend_from_slice(&written(Box::new(ack))),
        }
    }
    answers.send(out).await.is_ok() && goes_on
}

/// What a stream is answered.
struct Judged {
    ack: Ack,
    /// After how long.
    delay: Option<Duration>,
}

impl Spoe {
    fn judge(&self, notified: Vec<Notified>) -> Vec<Judged> {
        let mut tally = Tally::default();
        let mut reports = Vec::new();
        let judged = notified.iter().map(|notified| {
            let mut judged = Judged {
                ack: notified.ack(),
                delay: None,
            };
            for message in notified.messages() {
                let heard = self.one(&message, &mut judged, &mut reports);
                if let Err(cause) = heard {
                    tally.read += 1;
                    tally.not_understood += 1;
                    let sample = Sample::of(message.name.as_bytes());
                    tally.last = Some(Misread { cause, sample });
                }
            }
            judged
        });
        let judged = judged.collect();
        tally.read += reports.len() as u64;
        tally.understood += reports.len() as u64;
        if tally.read > 0 {
            self.intake
                .hear(&self.origin, tally, &mut reports, wall_ns());
        }
        judged
    }

    fn one(
        &self,
        message: &spop::frame::Message,
        judged: &mut Judged,
        reports: &mut Vec<Event>,
    ) -> Result<(), NotUnderstood> {
        match message.name.as_str() {
            message::CHECK => {
                let event = message::event(message)?;
                self.ask(event, &mut judged.ack);
            }
            message::REPORT => reports.push(message::event(message)?),
            message::WAIT => {
                let delay = Duration::from_millis(message::delay_ms(message)?);
                judged.delay = Some(delay.min(LONGEST));
            }
            name => return Err(message::unknown(name)),
        }
        Ok(())
    }

    fn ask(&self, mut event: Event, ack: &mut Ack) {
        if event.id.is_none() {
            event.id = (self.make_id)().map(|id| format!("{id:032x}").into());
        }
        let tally = Tally {
            read: 1,
            understood: 1,
            ..Tally::default()
        };
        let decision = self.intake.ask(&self.origin, tally, &mut event, wall_ns());
        if let Some(id) = event.id {
            set(ack, "id", String::from(id));
        }
        set(ack, "action", decision.action_name().to_owned());
        if decision.delay_ms > 0 {
            set(ack, "delay", decision.delay_ms);
        }
        if decision.refuses() {
            set(ack, "verdict", verdict::write(&decision));
            return;
        }
        let responses = self.responses.read();
        let responses = Arc::clone(&responses.unwrap_or_else(PoisonError::into_inner));
        for (name, value) in &responses.limits(&decision, wall_ns() / NANOS) {
            if let Ok(value) = value.to_str() {
                set(ack, &name.as_str().replace('-', "_"), value.to_owned());
            }
        }
    }

    /// Acknowledges later; where too many wait already, at once, and says so.
    fn wait(&self, delay: Duration, mut ack: Ack, answers: &mpsc::Sender<BytesMut>) {
        let answers = answers.clone();
        let place = Arc::clone(&self.sleepers).try_acquire_owned().ok();
        set(&mut ack, "full", place.is_none());
        tokio::spawn(async move {
            if let Some(_place) = place {
                sleep(delay).await;
            }
            let _gone = answers.send(written(Box::new(ack))).await;
        });
    }
}

/// Sets a variable of the transaction; HAProxy puts its prefix before the name.
fn set(ack: &mut Ack, name: &str, value: impl Into<TypedData>) {
    ack.actions.push(Action::SetVar {
        scope: VarScope::Transaction,
        name: name.to_owned(),
        value: value.into(),
    });
}
