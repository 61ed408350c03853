//! HTTP for proxies, which ask about each request before they pass it on.
//!
//! - `/check`: forward authentication, as Caddy and Traefik speak it. 2xx passes; any
//!   other answer is what the client gets. With `throttle=later` in its query who is
//!   throttled is told so in a header, and waits at `/check/wait`, which may take longer.
//! - `/check/nginx`: `auth_request`. 204 passes, 403 does not, and says why in a header.
//! - `/check/nginx/answer`: what the client gets then, by that header.
//! - `/check/challenge`: takes the solution of a challenge, from the client itself.
//!
//! Only a proxy on this host asks, or one that is trusted: what it tells of a client is
//! believed.

mod repeats;
mod solved;
mod told;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::net::{TcpListener, UnixListener};

use super::api::door::Door;
use super::api::{Members, random_id};
use super::gate::{Caller, Gate};
use super::origin::{CHECK, Origin};
use super::sleepers::Sleepers;
use super::verdict::{self, Verdict};
use super::{Figures, Intake, wall_ms, wall_ns};
use crate::control::api::Refusal;
use crate::engine::Decision;
use crate::event::Event;
use crate::event::reader::Tally;
use crate::http::{self, Answer, Limits, json};
use crate::policy::{Action, Decide};
use crate::response::{Asked, Responses, mark};
use crate::seldom::Seldom;
use repeats::Repeats;
use told::Wanted;

/// Of a client's request, with what the proxy adds: as much as nginx takes (four buffers of
/// 8 KiB by default). Caddy takes more, and logs all of it in one line, some bytes of it
/// escaped to six: what passes has to fit into [`MAX_LINE`](crate::event::lines::MAX_LINE).
/// As many lines as Apache and HAProxy take: hyper makes room for all of them with each request,
/// which for a thousand was 7 % of the time.
const HEAD: http::Head = http::Head {
    bytes: 40 << 10,
    lines: 100,
};

const _: () = assert!(6 * HEAD.bytes < crate::event::lines::MAX_LINE);

/// For all proxies on a listener. Who sleeps keeps a place.
pub const LIMITS: Limits = Limits {
    connections: 1_024,
    head: HEAD,
    header: Duration::from_secs(5),
    idle: Duration::from_secs(1),
    stall: Duration::from_secs(90),
    strangers: 8,
    spare_of_64: 8,
};

/// Requests that are made to wait at once; more are rejected.
const SLEEPERS: usize = 512;

/// The location of nginx that passes a request on once it has waited.
pub const NGINX_ORIGIN: &str = "@limiter_origin";

/// How often the log names somebody who was refused, or what is wrong with a question.
const REFUSALS: Duration = Duration::from_secs(10);

const NANOS: u64 = 1_000_000_000;

/// What all listeners for proxies share.
#[derive(Debug)]
pub struct Check {
    intake: Arc<Intake>,
    origin: Arc<Origin>,
    figures: Figures,
    policy: RwLock<Arc<InForce>>,
    repeats: Repeats,
    sleepers: Arc<Sleepers>,
    refusals: Seldom,
}

/// What of a policy is asked for here.
#[derive(Debug)]
struct InForce {
    responses: Responses,
    wanted: Wanted,
    /// Whether anything is looked for in bodies.
    reads_bodies: bool,
}

impl InForce {
    fn of(decide: &Decide) -> Self {
        Self {
            responses: Responses::of(decide),
            wanted: Wanted::of(decide),
            reads_bodies: decide.accounts.reads_bodies(),
        }
    }
}

impl Check {
    /// For the `[decide]` of a policy. `None`: the intake has no origin of the name
    /// [`CHECK`].
    #[must_use]
    pub fn new(intake: Arc<Intake>, decide: &Decide) -> Option<Self> {
        Some(Self {
            origin: intake.origins().get(CHECK)?,
            intake,
            figures: Figures::default(),
            policy: RwLock::new(Arc::new(InForce::of(decide))),
            repeats: Repeats::default(),
            sleepers: Sleepers::new(SLEEPERS),
            refusals: Seldom::new(REFUSALS),
        })
    }

    /// Goes by another policy from now on.
    pub fn reload(&self, decide: &Decide) {
        let policy = Arc::new(InForce::of(decide));
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// What was answered so far, and how fast.
    #[must_use]
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }

    fn policy(&self) -> Arc<InForce> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves a TCP port for ever; drop the future to stop.
pub async fn serve_tcp(listener: TcpListener, limits: Limits, check: Arc<Check>) {
    let gate = Gate {
        listener,
        intake: Arc::clone(&check.intake),
    };
    http::serve(gate, limits, busy, move |request, caller: Caller| {
        let check = Arc::clone(&check);
        async move {
            // Each time: a reload changes who is trusted, and connections outlive it.
            let answer = match check.intake.may_ask(caller.address.ip()) {
                true => check.answer(request).await,
                false => Err(check.stranger(caller.address)),
            };
            check.give(answer)
        }
    })
    .await;
}

/// Serves a Unix socket for ever; drop the future to stop.
pub async fn serve_unix(
    listener: UnixListener,
    members: Members,
    limits: Limits,
    check: Arc<Check>,
) {
    let members = Arc::new(members);
    let door = Door {
        listener,
        members: Arc::clone(&members),
    };
    http::serve(door, limits, busy, move |request, guest| {
        let (check, members) = (Arc::clone(&check), Arc::clone(&members));
        async move {
            let answer = match guest.may_enter {
                true => check.answer(request).await,
                false => Err(check.unheard(members.refuse(&guest.peer))),
            };
            check.give(answer)
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

fn refused(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, "application/problem+json", refusal)
}

impl Check {
    /// Turns what is wrong with a question into an answer and a line in the log, since
    /// the proxy shows neither, and counts what is answered.
    fn give(&self, answer: Result<Answer, Refusal>) -> Answer {
        let answer = answer.unwrap_or_else(|refusal| {
            if let Some(left_out) = self.refusals.due(Instant::now()) {
                let (detail, help) = (&refusal.detail, &refusal.help);
                tracing::warn!(detail, help, left_out, "a proxy's question was not heard");
            }
            refused(&refusal)
        });
        self.figures.count(answer.status());
        answer
    }

    fn stranger(&self, address: SocketAddr) -> Refusal {
        self.unheard(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{} is not this host, and no trusted proxy", address.ip()),
            "let the proxy on this host ask, or name it in decide.trusted_proxies",
        ))
    }

    /// Counts somebody who may not ask. A proxy would take a 403 for a decision: it is to do
    /// what it does without limiter.
    fn unheard(&self, refusal: Refusal) -> Refusal {
        self.origin.count_forged(1, wall_ns());
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Refusal::new(status, refusal.detail, refusal.help)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let policy = self.policy();
        let (head, body) = request.into_parts();
        let (headers, uri) = (&head.headers, &head.uri);
        if told::length(headers) > HEAD.bytes {
            // More may come with one read than the server waits for.
            return Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!("a head of more than {} bytes", HEAD.bytes),
                "let the proxy take smaller ones: Caddy by `max_header_size 16KB`",
            ));
        }
        match uri.path() {
            "/check" => {
                let event = told::by_forward_auth(headers, uri.query(), &policy.wanted);
                let mut event = self.heard(event)?;
                if policy.reads_bodies {
                    event.body = told::body(body).await;
                }
                let verdict = self.decide(event);
                let is_throttled = verdict.decision.action == Some(Action::Throttle);
                if is_throttled && told::waits_later(uri.query()) {
                    return Ok(waits_later(&policy, &verdict));
                }
                self.by_forward_auth(&policy, verdict, headers).await
            }
            "/check/wait" => {
                let verdict = verdict_of(headers)?.ok_or_else(|| {
                    let help = "let the proxy ask here only for those who are to wait";
                    let detail = format!("{} did not come", verdict::VERDICT);
                    Refusal::new(StatusCode::BAD_REQUEST, detail, help)
                })?;
                self.by_forward_auth(&policy, verdict, headers).await
            }
            "/check/nginx" => {
                let event = self.heard(told::by_nginx(headers, &policy.wanted));
                Ok(for_nginx(&policy, &self.decide(event?)))
            }
            "/check/nginx/answer" => self.nginx_answer(&policy, headers).await,
            "/check/challenge" => self.solution(&head.method, headers).await,
            _ => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "there is nothing here",
                "/check answers Caddy and Traefik, /check/nginx nginx",
            )),
        }
    }

    /// Counts a question that is none.
    fn heard(&self, event: Result<Event, Refusal>) -> Result<Event, Refusal> {
        event.inspect_err(|_| {
            let tally = Tally {
                read: 1,
                not_understood: 1,
                ..Tally::default()
            };
            self.intake.hear(&self.origin, tally, &mut [], wall_ns());
        })
    }

    /// At once and on this thread: it takes microseconds. What is asked again for the same
    /// request is answered as it was before, and counts once.
    fn decide(&self, mut event: Event) -> Verdict {
        let begin = Instant::now();
        let question = self.repeats.question(&event);
        if let Some(decision) = question.and_then(|it| self.repeats.find(it, begin)) {
            let source = self.intake.client(&event);
            return Verdict { decision, source };
        }
        let tally = Tally {
            read: 1,
            understood: 1,
            ..Tally::default()
        };
        let decision = self.intake.ask(&self.origin, tally, &mut event, wall_ns());
        self.figures.decided(begin.elapsed());
        if let Some(question) = question {
            self.repeats.keep(question, &decision, begin);
        }
        let source = event.source;
        Verdict { decision, source }
    }

    async fn by_forward_auth(
        &self,
        policy: &InForce,
        verdict: Verdict,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let source = verdict.source;
        let decision = self.wait(verdict).await;
        if decision.refuses() {
            return Ok(self.refusal(policy, &decision, source, headers));
        }
        Ok(empty(
            StatusCode::NO_CONTENT,
            policy.responses.limits(&decision, now_s()),
        ))
    }

    async fn nginx_answer(&self, policy: &InForce, headers: &HeaderMap) -> Result<Answer, Refusal> {
        let Some(verdict) = verdict_of(headers)? else {
            // Something else in nginx has refused, and this is what its error page shows.
            return Ok(empty(StatusCode::FORBIDDEN, HeaderMap::new()));
        };
        let source = verdict.source;
        let decision = self.wait(verdict).await;
        if decision.refuses() {
            return Ok(self.refusal(policy, &decision, source, headers));
        }
        let mut redirect = HeaderMap::new();
        let origin = HeaderValue::from_static(NGINX_ORIGIN);
        let _old = redirect.insert(HeaderName::from_static("x-accel-redirect"), origin);
        Ok(empty(StatusCode::OK, redirect))
    }

    /// What the client gets.
    fn refusal(
        &self,
        policy: &InForce,
        decision: &Decision,
        source: IpAddr,
        headers: &HeaderMap,
    ) -> Answer {
        let now_ms = wall_ms();
        let posed = random_id().and_then(|id| {
            let challenges = self.intake.challenges();
            challenges.pose(decision, source, now_ms, id)
        });
        let text = |name: HeaderName| headers.get(name).and_then(|it| it.to_str().ok());
        let asked = Asked {
            accept: text(ACCEPT),
            language: text(ACCEPT_LANGUAGE),
            mode: text(HeaderName::from_static("sec-fetch-mode")),
            puzzle: posed.as_ref(),
            now_s: now_ms / 1_000,
        };
        let reply = policy.responses.refusal(decision, asked);
        let mut answer = Response::new(Full::new(Bytes::from(reply.body)));
        *answer.status_mut() = reply.status;
        *answer.headers_mut() = reply.headers;
        answer
    }

    /// Makes a request wait that is throttled. Where too many wait already, it is
    /// rejected.
    async fn wait(&self, verdict: Verdict) -> Decision {
        let Verdict {
            mut decision,
            source,
        } = verdict;
        if decision.action == Some(Action::Throttle)
            && let Some((delay, _place)) = self.sleepers.admit(&mut decision, source)
        {
            tokio::time::sleep(delay).await;
        }
        decision
    }
}

/// The verdict that a second question brings.
fn verdict_of(headers: &HeaderMap) -> Result<Option<Verdict>, Refusal> {
    let Some(verdict) = told::one(headers, &HeaderName::from_static(verdict::VERDICT))? else {
        return Ok(None);
    };
    let verdict = verdict::read(&verdict).ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("{} is no verdict of limiter's", verdict::VERDICT),
            "let the proxy set it to what limiter has answered: `limiter integration` writes that",
        )
    })?;
    Ok(Some(verdict))
}

/// 204 with what the second question has to bring.
fn waits_later(policy: &InForce, verdict: &Verdict) -> Answer {
    let mut headers = policy.responses.limits(&verdict.decision, now_s());
    set_verdict(&mut headers, verdict);
    empty(StatusCode::NO_CONTENT, headers)
}

fn set_verdict(headers: &mut HeaderMap, verdict: &Verdict) {
    // All of it is names and numbers.
    let text = verdict::write(&verdict.decision, verdict.source);
    if let Ok(verdict) = HeaderValue::from_str(&text) {
        let _old = headers.insert(HeaderName::from_static(verdict::VERDICT), verdict);
    }
}

/// 204, or 403 with what the second question has to bring.
fn for_nginx(policy: &InForce, verdict: &Verdict) -> Answer {
    let mut headers = policy.responses.limits(&verdict.decision, now_s());
    let Some(action) = verdict.decision.action else {
        return empty(StatusCode::NO_CONTENT, headers);
    };
    mark(&mut headers, action);
    set_verdict(&mut headers, verdict);
    empty(StatusCode::FORBIDDEN, headers)
}

fn empty(status: StatusCode, headers: HeaderMap) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

fn now_s() -> u64 {
    wall_ns() / NANOS
}
