//! The server's side: requests become orders to the keeper.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::ALLOW;
use hyper::{Request, StatusCode};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::access::{Access, Door, Guest, Right};
use super::api::{Changed, Refusal};
use super::routes::{Route, Routed};
use crate::http::{self, Answer, BodyError, Limits, read_body};
use crate::keeper::records::Receipt;
use crate::keeper::{By, Handle, Keeper, Now, Stopped};
use crate::policy;

/// For everybody on the control socket.
pub const LIMITS: Limits = Limits {
    connections: 64,
    head: http::Head::USUAL,
    header: Duration::from_secs(5),
    idle: Duration::from_secs(1),
    stall: Duration::from_secs(60),
    strangers: 8,
    spare_of_64: 8,
};

/// The largest body of an import; other requests have none.
const MAX_IMPORT_BYTES: usize = 16 << 20;

/// Bodies larger than this wait for each other.
const SMALL_BODY_BYTES: usize = 64 << 10;

/// Large bodies in memory at once.
const LARGE_BODIES: usize = 2;

/// For the body of a request.
const BODY_TIME: Duration = Duration::from_secs(20);

/// For a change to reach the disk before it is answered.
const STORED_WITHIN: Duration = Duration::from_secs(2);

/// What all requests share.
#[derive(Debug)]
struct Shared {
    keeper: Handle,
    access: Arc<Access>,
    large_bodies: Semaphore,
    /// One reload reads files at a time, so that the last one asked for wins.
    reload: tokio::sync::Mutex<()>,
    observations: Semaphore,
    questions: Arc<Semaphore>,
}

/// Serves the control socket for ever; drop the future to stop.
pub async fn serve(listener: UnixListener, access: Access, limits: Limits, keeper: Handle) {
    let access = Arc::new(access);
    let door = Door {
        listener,
        access: Arc::clone(&access),
    };
    let shared = Arc::new(Shared {
        keeper,
        access,
        large_bodies: Semaphore::new(LARGE_BODIES),
        reload: tokio::sync::Mutex::new(()),
        observations: super::observe::places(),
        questions: super::audit::places(),
    });
    http::serve(door, limits, busy, move |request, guest| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request, guest).await }
    })
    .await;
}

/// For who comes when there are no file descriptors.
fn busy() -> Answer {
    let detail = "the daemon has no file descriptors left for one more client";
    let help = "try again when others are done; if that lasts, raise the daemon's limit (LimitNOFILE=, `prlimit`)";
    problem(&Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail, help))
}

async fn answer(shared: &Shared, request: Request<Incoming>, guest: Guest) -> Answer {
    if guest.right < Right::Look {
        return problem(&shared.access.refuse(&guest, "anything"));
    }
    match super::routes::route(request.method(), request.uri()) {
        Routed::Found(route) if guest.right < route.needs() => {
            let asked = format!("{} {}", request.method(), request.uri().path());
            problem(&shared.access.refuse(&guest, &asked))
        }
        Routed::Found(route) => {
            let by = By::user(guest.peer.uid, guest.peer.pid);
            let done = match super::routes::login(request.headers()) {
                Ok(login) => carry_out(shared, route, request, By { login, ..by }).await,
                Err(refusal) => Err(refusal),
            };
            done.unwrap_or_else(|refusal| problem(&refusal))
        }
        Routed::Refused(refusal) => problem(&refusal),
        Routed::WrongMethod(allowed) => {
            let help = format!("allowed here: {allowed}");
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let mut answer = problem(&Refusal::new(status, "this cannot be done here", help));
            if let Ok(value) = allowed.parse() {
                answer.headers_mut().insert(ALLOW, value);
            }
            answer
        }
    }
}

/// How long sources are watched for their rates.
const WATCHED: Duration = Duration::from_secs(1);

/// The busiest sources, by what they send now and not by what they sent ever.
async fn sources(
    keeper: &Handle,
    count: usize,
) -> Result<Result<crate::control::api::Sources, Refusal>, Stopped> {
    // Their time is that of the reading itself: other orders may come first.
    let before = keeper.ask(|keeper| {
        let now = Now::read();
        (keeper.sample_sources(now), now)
    });
    let (before, began) = before.await?;
    let before = match before {
        Ok(before) => before,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // From the beginning of one reading to that of the other.
    tokio::time::sleep(WATCHED.saturating_sub(began.instant.elapsed())).await;
    keeper
        .ask(move |keeper| keeper.sources(count, &before, Now::read()))
        .await
}

async fn carry_out(
    shared: &Shared,
    route: Route,
    request: Request<Incoming>,
    by: By,
) -> Result<Answer, Refusal> {
    let keeper = &shared.keeper;
    let now = Now::read();
    match route {
        Route::Status => super::rules::status(keeper)
            .await
            .map(|status| json(&status)),
        Route::Policy => asked(keeper.ask(|keeper| Ok(keeper.policy_in_force())).await),
        Route::Stats => asked(keeper.ask(|keeper| keeper.stats()).await),
        Route::Sources { count } => asked(sources(keeper, count).await),
        Route::Observation { lasting } => {
            super::observe::observe(keeper, &shared.observations, lasting)
                .await
                .map(|observation| json(&observation))
        }
        Route::BeginCapture => {
            let body = read_import(shared, request, SMALL_BODY_BYTES).await?;
            let order = super::routes::capture_order(&body)?;
            asked(
                keeper
                    .ask(move |keeper| keeper.begin_capture(&order, by, Now::read()))
                    .await,
            )
        }
        Route::Captured { id } => asked(keeper.ask(move |keeper| keeper.captured(id, now)).await),
        Route::EndCapture { id } => {
            asked(keeper.ask(move |keeper| keeper.end_capture(id, now)).await)
        }
        Route::Blocks => asked(keeper.ask(move |keeper| keeper.blocks(now)).await),
        Route::List(kind) => asked(
            keeper
                .ask(move |keeper| Ok(keeper.list_rows(kind, now)))
                .await,
        ),
        Route::Explain { source } => {
            let explained = super::rules::explain(keeper, source).await;
            explained.map(|explanation| json(&explanation))
        }
        Route::Audit(asked) => super::audit::answer(keeper, &shared.questions, *asked, now)
            .await
            .map(|answer| json(&answer)),
        Route::EraseAccount => {
            let body = read_import(shared, request, SMALL_BODY_BYTES).await?;
            let order = super::audit::erase_order(&body)?;
            let erased = super::audit::erase(keeper, order, by).await;
            erased.map(|erased| json(&erased))
        }
        Route::Reload { is_forced, confirm } => {
            let by = By { is_forced, ..by };
            read_import(shared, request, SMALL_BODY_BYTES).await?;
            let _turn = shared.reload.lock().await;
            let reloaded = reload(keeper, confirm, by).await;
            reloaded.map(|reloaded| json(&reloaded))
        }
        Route::Confirm => asked(
            keeper
                .ask(move |keeper| keeper.confirm(by, Now::read()))
                .await,
        ),
        Route::Pause { lasting } => {
            asked((keeper.ask(move |keeper| keeper.pause(lasting, by, Now::read()))).await)
        }
        Route::Resume => asked(
            keeper
                .ask(move |keeper| keeper.resume(by, Now::read()))
                .await,
        ),
        Route::AddBlocks { is_forced } => {
            let by = By { is_forced, ..by };
            let is_minimal = super::routes::prefers_minimal(request.headers());
            let entries = super::routes::entries(&import(shared, request).await?)?;
            let add = if is_minimal {
                Keeper::import_blocks
            } else {
                Keeper::add_blocks
            };
            let made = move |keeper: &mut Keeper| add(keeper, &entries, by, Now::read());
            stored(keeper, made).await
        }
        Route::DeleteBlock { network, limit } => {
            let unblocked = super::rules::unblock(keeper, network, limit, by).await;
            unblocked.map(|changed| json(&changed))
        }
        Route::AddToList { kind, is_forced } => {
            let by = By { is_forced, ..by };
            let entries = super::routes::entries(&import(shared, request).await?)?;
            stored(keeper, move |keeper| {
                keeper.add_to_list(kind, &entries, by, Now::read())
            })
            .await
        }
        Route::DeleteFromList {
            kind,
            network,
            is_forced,
        } => {
            let by = By { is_forced, ..by };
            stored(keeper, move |keeper| {
                keeper.delete_from_list(kind, &network, by, Now::read())
            })
            .await
        }
        Route::Rules => super::rules::rules(keeper).await.map(|rows| json(&rows)),
        Route::Origins => super::rules::origins(keeper).await.map(|rows| json(&rows)),
        Route::SwitchRule { name, mode } => {
            let switched = super::rules::switch(keeper, name, mode, by).await;
            switched.map(|changed| json(&changed))
        }
        Route::Account { account } => {
            let rows = super::rules::account(keeper, account).await;
            rows.map(|rows| json(&rows))
        }
        Route::Unlock { account, reason } => {
            let unlocked = super::rules::unlock(keeper, account, reason, by).await;
            unlocked.map(|rows| json(&rows))
        }
        Route::TestNotify => super::rules::test_notify(keeper, by)
            .await
            .map(|tested| json(&tested)),
        Route::Detach { interface } => asked(
            keeper
                .ask(move |keeper| keeper.detach(interface.as_deref(), by, now))
                .await,
        ),
    }
}

/// Reads the policy file again and puts it in force; with `confirm`, until it is not
/// confirmed within that time. The file is read outside
/// of the keeper's thread, which meanwhile serves others.
///
/// # Errors
/// See [`crate::keeper::Keeper::reload`].
pub(crate) async fn reload(
    keeper: &Handle,
    confirm: Option<Duration>,
    by: By,
) -> Result<super::api::Reloaded, Refusal> {
    let config = keeper
        .ask(|keeper| keeper.config().to_owned())
        .await
        .map_err(stopped)?;
    let loaded = tokio::task::spawn_blocking(move || policy::load(&config))
        .await
        .map_err(|_| stopped(Stopped))?;
    keeper
        .ask(move |keeper| match confirm {
            None => keeper.reload(loaded, by, Now::read()),
            Some(lasting) => keeper.try_policy(loaded, lasting, by, Now::read()),
        })
        .await
        .map_err(stopped)?
}

/// The body of an import.
async fn import(shared: &Shared, request: Request<Incoming>) -> Result<Bytes, Refusal> {
    read_import(shared, request, MAX_IMPORT_BYTES).await
}

async fn read_import(
    shared: &Shared,
    request: Request<Incoming>,
    limit_bytes: usize,
) -> Result<Bytes, Refusal> {
    use hyper::body::Body as _;
    let body = request.into_body();
    let is_small = body
        .size_hint()
        .upper()
        .is_some_and(|bytes| bytes <= SMALL_BODY_BYTES as u64);
    let _turn = if is_small {
        None
    } else {
        let turn = tokio::time::timeout(BODY_TIME, shared.large_bodies.acquire()).await;
        let busy = || {
            let help = "try again when the others are done";
            let detail = "other imports are under way";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail, help)
        };
        Some(turn.map_err(|_| busy())?.map_err(|_| busy())?)
    };
    read_body(body, limit_bytes, BODY_TIME)
        .await
        .map_err(|error| {
            let (status, help) = match error {
                BodyError::TooLarge(_) => {
                    (StatusCode::PAYLOAD_TOO_LARGE, "send it in several requests")
                }
                BodyError::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "send it at once"),
                BodyError::Broken(_) => (StatusCode::BAD_REQUEST, "send the whole body"),
            };
            Refusal::new(status, error.to_string(), help)
        })
}

/// The answer to a change once it is stored, so that whoever has it can count on
/// the change, or with a notice that it is not.
async fn stored(
    keeper: &Handle,
    change: impl FnOnce(&mut Keeper) -> Result<Changed, Refusal> + Send + 'static,
) -> Result<Answer, Refusal> {
    let asked = keeper.ask(move |keeper| {
        let changed = change(keeper)?;
        Ok((changed, keeper.receipt()))
    });
    let (changed, receipt) = asked.await.map_err(stopped)??;
    Ok(json(&noted(changed, receipt).await))
}

/// What was changed, with a notice if it is not stored.
pub(super) async fn noted(mut changed: Changed, receipt: Receipt) -> Changed {
    if let Err(cause) = receipt.stored(STORED_WITHIN).await {
        changed.notices.push(format!(
            "made, but not stored: after a reboot it would be as before ({cause})"
        ));
    }
    changed
}

fn asked<T: Serialize>(answer: Result<Result<T, Refusal>, Stopped>) -> Result<Answer, Refusal> {
    answer.map_err(stopped)?.map(|value| json(&value))
}

pub(super) fn stopped(error: Stopped) -> Refusal {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Refusal::new(status, error.to_string(), "try again; see the daemon's log")
}

fn json(value: &impl Serialize) -> Answer {
    http::json(StatusCode::OK, "application/json", value)
}

fn problem(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    http::json(status, "application/problem+json", refusal)
}
