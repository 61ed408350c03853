//! HTTP for applications: they ask about requests and report what became of them.
//!
//! On a Unix socket the kernel says who asks ([`Members`]), on a TCP port a token
//! does ([`Token`]).

mod body;
pub(in crate::adapters) mod door;
mod routes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::origin::{API, Origin};
use super::{Figures, Intake, wall_ns};
use crate::control::api::Refusal;
use crate::event::lines::MAX_LINE;
use crate::event::reader::Reader;
use crate::http::{self, Answer, BodyError, Limits, json, read_body};
use door::Door;
pub use door::{BadToken, Group, Members, Token};
use routes::{Route, Routed};

/// For all applications on a listener.
pub const LIMITS: Limits = Limits {
    connections: 256,
    head: http::Head::USUAL,
    header: Duration::from_secs(5),
    idle: Duration::from_secs(1),
    stall: Duration::from_secs(60),
    strangers: 8,
    spare_of_64: 8,
};

/// The largest body of a report; of a question it is [`MAX_LINE`].
pub const MAX_REPORT_BYTES: usize = 1 << 20;

/// Reports at once whose body is larger than [`MAX_LINE`], or may be.
const LARGE_BODIES: usize = 8;

/// For the body of a request.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Requests that wait for the judge at once.
const JUDGING: usize = 32;

/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(1);

/// Makes an id for what comes without one; `None`: the kernel has no random bytes.
pub type MakeId = fn() -> Option<u128>;

/// What all listeners of the API share.
#[derive(Debug)]
pub struct Api {
    intake: Arc<Intake>,
    origin: Arc<Origin>,
    figures: Figures,
    make_id: MakeId,
    judging: Arc<Semaphore>,
    large_bodies: Semaphore,
}

/// An id as the kernel's random bytes have it.
#[must_use]
pub fn random_id() -> Option<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(u128::from_ne_bytes(bytes))
}

impl Api {
    /// The API to an intake; `make_id` is [`random_id`] but in tests. `None`: the
    /// intake has no origin of the name [`API`].
    #[must_use]
    pub fn new(intake: Arc<Intake>, make_id: MakeId) -> Option<Self> {
        Some(Self {
            origin: intake.origins().get(API)?,
            intake,
            figures: Figures::default(),
            make_id,
            judging: Arc::new(Semaphore::new(JUDGING)),
            large_bodies: Semaphore::new(LARGE_BODIES),
        })
    }

    /// What was answered so far, and how fast.
    #[must_use]
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }
}

/// Serves a Unix socket for ever; drop the future to stop.
pub async fn serve_unix(listener: UnixListener, members: Members, limits: Limits, api: Arc<Api>) {
    let members = Arc::new(members);
    let door = Door {
        listener,
        members: Arc::clone(&members),
    };
    http::serve(door, limits, busy, move |request, guest| {
        let (api, members) = (Arc::clone(&api), Arc::clone(&members));
        async move {
            let answer = if guest.may_enter {
                answer(&api, request).await
            } else {
                Err(members.refuse(&guest.peer))
            };
            api.give(answer)
        }
    })
    .await;
}

/// Serves a TCP port for ever; drop the future to stop.
pub async fn serve_tcp(listener: TcpListener, token: Token, limits: Limits, api: Arc<Api>) {
    let token = Arc::new(token);
    http::serve(listener, limits, busy, move |request, peer| {
        let (api, token) = (Arc::clone(&api), Arc::clone(&token));
        async move {
            let answer = match token.is_shown(request.headers()) {
                true => answer(&api, request).await,
                false => Err(token.refuse(peer)),
            };
            api.give(answer)
        }
    })
    .await;
}

/// For who comes when there are no file descriptors.
fn busy() -> Answer {
    refused(&Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "no file descriptors left for one more client",
        "keep connections open and send several requests over each",
    ))
}

/// What stands in the way, as problem details (RFC 9457).
fn refused(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(status, "application/problem+json", refusal);
    let header = match status {
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
        StatusCode::UNAUTHORIZED => Some((hyper::header::WWW_AUTHENTICATE, "Bearer")),
        StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = header {
        let value = HeaderValue::from_static(value);
        let _old = answer.headers_mut().insert(name, value);
    }
    answer
}

async fn answer(api: &Arc<Api>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    match routes::route(request.method(), request.uri().path()) {
        Routed::Found(Route::Check) => api.check(request).await,
        Routed::Found(Route::Events) => api.events(request).await,
        Routed::Refused(refusal) => Err(refusal),
    }
}

impl Api {
    /// Turns a refusal into its answer, and counts what is answered.
    fn give(&self, answer: Result<Answer, Refusal>) -> Answer {
        let answer = answer.unwrap_or_else(|refusal| refused(&refusal));
        self.figures.count(answer.status());
        answer
    }

    /// `POST /v1/check`: decides about one request.
    async fn check(self: &Arc<Self>, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let body = read_body(request.into_body(), MAX_LINE, BODY_TIME);
        let body = body.await.map_err(|error| no_body(&error))?;
        let begin = Instant::now();
        let turn = self.turn().await?;
        let api = Arc::clone(self);
        let judged = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            api.judge(&body, begin)
        });
        judged.await.map_err(|_panicked| defect())?
    }

    fn judge(&self, body: &[u8], begin: Instant) -> Result<Answer, Refusal> {
        let mut reader = Reader::new(crate::event::formats::Format::Json, false);
        let mut event = match reader.exact(body) {
            Ok(event) => event,
            Err(misread) => {
                self.intake
                    .hear(&self.origin, reader.take_tally(), &mut [], wall_ns());
                return Err(body::refusal(&misread, body));
            }
        };
        if event.id.is_none() {
            let made = (self.make_id)().ok_or_else(no_randomness)?;
            event.id = Some(format!("{made:032x}").into());
        }
        let tally = reader.take_tally();
        let decision = self.intake.ask(&self.origin, tally, &mut event, wall_ns());
        self.figures.decided(begin.elapsed());
        let id = event.id.as_deref().unwrap_or_default();
        let checked = body::Checked::new(id, decision);
        Ok(json(StatusCode::OK, "application/json", &checked))
    }

    /// `POST /v1/events`: hears what became of one or many.
    async fn events(self: &Arc<Self>, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let announced = hyper::body::Body::size_hint(request.body()).upper();
        let is_small = announced.is_some_and(|bytes| bytes <= MAX_LINE as u64);
        let _place = match is_small {
            true => None,
            false => Some(in_time(self.large_bodies.acquire()).await?),
        };
        let body = read_body(request.into_body(), MAX_REPORT_BYTES, BODY_TIME);
        let body = body.await.map_err(|error| no_body(&error))?;
        let turn = self.turn().await?;
        let api = Arc::clone(self);
        let heard = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            body::hear(&api.intake, &api.origin, &body)
        });
        let heard = heard.await.map_err(|_panicked| defect())??;
        let status = match heard.not_understood {
            0 => StatusCode::OK,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Ok(json(status, "application/json", &heard))
    }

    /// Waits for a turn with the judge, and not for long: what piles up is refused.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        in_time(Arc::clone(&self.judging).acquire_owned()).await
    }
}

async fn in_time<T, E>(turn: impl Future<Output = Result<T, E>>) -> Result<T, Refusal> {
    let turn = tokio::time::timeout(TURN, turn).await;
    turn.ok().and_then(Result::ok).ok_or_else(|| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "no turn within {} s: too much is asked and reported",
                TURN.as_secs()
            ),
            "decide without an answer as your application should when this one is away, and send \
             several events with one request",
        )
    })
}

fn no_body(error: &BodyError) -> Refusal {
    let (status, help) = match error {
        BodyError::TooLarge(_) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "send of each event only what rules ask for, and fewer events at once to /v1/events",
        ),
        BodyError::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "send the body at once"),
        BodyError::Broken(_) => (StatusCode::BAD_REQUEST, "send the whole body"),
    };
    Refusal::new(status, error.to_string(), help)
}

fn no_randomness() -> Refusal {
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the kernel gives no random bytes for an id",
        "send an `id` of your own",
    )
}

fn defect() -> Refusal {
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "this request met a defect",
        "see the log",
    )
}
