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
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout, timeout_at};

use super::api::door::{Door, Guest};
use super::api::{MakeId, Members};
use super::gate::{Caller, Gate};
use super::origin::{Origin, SPOE};
use super::sleepers::Sleepers;
use super::verdict::{self, Verdict};
use super::{Figures, Intake, wall_ns};
use crate::event::reader::{Misread, Tally};
use crate::event::{Event, NotUnderstood, Sample};
use crate::http::Listener;
use crate::http::seats::{Busy, Seat, Seats};
use crate::policy::{self, Decide};
use crate::response::Responses;
use crate::seldom::Seldom;
use frames::{Conversation, Heard, Notified, written};

/// Connections at once. HAProxy keeps some for each of its threads.
const CONNECTIONS: usize = 512;

/// Who has been idle for so long makes place for others.
const SPARED: Duration = Duration::from_secs(1);

/// How long a peer may take to greet.
const GREETING: Duration = Duration::from_secs(5);

/// How long it may say nothing then, where nobody waits: longer than HAProxy keeps a
/// connection that it does not need, by the `timeout idle` of its configuration.
const IDLE: Duration = Duration::from_secs(90);

/// How long it may take to fetch what it is answered.
const FETCHED: Duration = Duration::from_secs(10);

/// Answers of a connection that wait for it.
const WAITING: usize = 256;

/// Requests that wait out a delay at once; more are rejected.
const SLEEPERS: usize = 4_096;

const NANOS: u64 = 1_000_000_000;

/// How often the log tells of those who may not ask.
const STRANGERS: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Debug)]
pub struct Spoe {
    intake: Arc<Intake>,
    origin: Arc<Origin>,
    figures: Figures,
    make_id: MakeId,
    responses: RwLock<Arc<Responses>>,
    sleepers: Arc<Sleepers>,
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
            figures: Figures::default(),
            make_id,
            responses: RwLock::new(Arc::new(Responses::of(decide))),
            sleepers: Sleepers::new(SLEEPERS),
            strangers: Seldom::new(STRANGERS),
        })
    }

    /// How fast it decides; no answer has a status.
    #[must_use]
    pub const fn figures(&self) -> &Figures {
        &self.figures
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
    let gate = Gate {
        listener,
        intake: Arc::clone(&intake),
    };
    // Each time: a reload changes who is trusted, and connections outlive it.
    let may_ask = move |caller: &Caller| intake.may_ask(caller.address.ip());
    serve(gate, spoe, may_ask).await;
}

/// Serves a Unix socket for ever; drop the future to stop, which also ends the connections.
pub async fn serve_unix(listener: UnixListener, members: Members, spoe: Arc<Spoe>) {
    let members = Arc::new(members);
    let may_ask = |guest: &Guest| guest.may_enter;
    serve(Door { listener, members }, spoe, may_ask).await;
}

async fn serve<L, F>(listener: L, spoe: Arc<Spoe>, may_ask: F)
where
    L: Listener,
    F: Fn(&L::Peer) -> bool + Clone + Send + Sync + 'static,
{
    let seats = Arc::new(Seats::default());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        seats.make_room(CONNECTIONS, SPARED).await;
        match listener.accept().await {
            Ok((_, peer)) if L::is_stranger(&peer) => spoe.refuse(),
            Ok((stream, peer)) => {
                let (spoe, seat, may_ask) = (Arc::clone(&spoe), seats.take(), may_ask.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = converse(stream, &seat, || may_ask(&peer), &spoe) => {}
                        () = seat.cut(IDLE) => {}
                    }
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

/// Hears one peer until it goes, or may not ask any more.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    seat: &Seat,
    may_ask: impl Fn() -> bool,
    spoe: &Arc<Spoe>,
) {
    let (mut from, mut to) = split(stream);
    let (answers, mut waiting) = mpsc::channel::<BytesMut>(WAITING);
    let hear = async move {
        let mut conversation = Conversation::new();
        let mut bytes = BytesMut::new();
        let greeted_by = tokio::time::Instant::now() + GREETING;
        loop {
            let read = from.read_buf(&mut bytes);
            let read = match conversation.is_greeted() {
                true => Ok(read.await),
                false => timeout_at(greeted_by, read).await,
            };
            if !matches!(read, Ok(Ok(1..))) {
                return;
            }
            if !may_ask() {
                spoe.refuse();
                return;
            }
            let busy = seat.busy();
            if !hear(&mut conversation, &mut bytes, spoe, &answers, seat).await {
                return;
            }
            drop(busy);
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
    seat: &Seat,
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
    for Judged { ack, waits } in judged {
        match waits {
            Some(verdict) => spoe.wait(verdict, ack, answers, seat.busy()),
            None => out.extend_from_slice(&written(Box::new(ack))),
        }
    }
    answers.send(out).await.is_ok() && goes_on
}

/// What a stream is answered.
struct Judged {
    ack: Ack,
    /// Who waits for it.
    waits: Option<Verdict>,
}

impl Spoe {
    fn judge(&self, notified: Vec<Notified>) -> Vec<Judged> {
        let mut tally = Tally::default();
        let mut reports = Vec::new();
        let judged = notified.iter().map(|notified| {
            let mut judged = Judged {
                ack: notified.ack(),
                waits: None,
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
            message::WAIT => judged.waits = Some(message::verdict(message)?),
            name => return Err(message::unknown(name)),
        }
        Ok(())
    }

    fn ask(&self, mut event: Event, ack: &mut Ack) {
        let begin = Instant::now();
        if event.id.is_none() {
            event.id = (self.make_id)().map(|id| format!("{id:032x}").into());
        }
        let tally = Tally {
            read: 1,
            understood: 1,
            ..Tally::default()
        };
        let decision = self.intake.ask(&self.origin, tally, &mut event, wall_ns());
        self.figures.decided(begin.elapsed());
        if let Some(id) = event.id {
            set(ack, "id", String::from(id));
        }
        set(ack, "action", decision.action_name().to_owned());
        if let Some(action) = decision.action {
            let name = match action {
                policy::Action::Throttle => "wait",
                _ => "verdict",
            };
            set(ack, name, verdict::write(&decision, event.source));
        }
        if decision.refuses() {
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

    /// Acknowledges later; where too many wait already, at once, and rejects.
    fn wait(&self, verdict: Verdict, mut ack: Ack, answers: &mpsc::Sender<BytesMut>, busy: Busy) {
        let answers = answers.clone();
        let Verdict {
            mut decision,
            source,
        } = verdict;
        let admitted = self.sleepers.admit(&mut decision, source);
        if admitted.is_none() {
            set(&mut ack, "verdict", verdict::write(&decision, source));
        }
        tokio::spawn(async move {
            if let Some((delay, _place)) = admitted {
                sleep(delay).await;
            }
            let _gone = answers.send(written(Box::new(ack))).await;
            drop(busy);
        });
    }

    /// Counts somebody who may not ask.
    fn refuse(&self) {
        self.origin.count_forged(1, wall_ns());
        if let Some(left_out) = self.strangers.due(Instant::now()) {
            let help = "let HAProxy on this host ask, or name it in decide.trusted_proxies";
            tracing::warn!(help, left_out, "who may not ask came to decide.spoe");
        }
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
