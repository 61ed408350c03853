//! HTTP/1.1 for the control socket and the metrics: how many connections, how
//! long each may take, and how much it may send.

mod body;
mod descriptors;
mod json;
mod peer;
pub(crate) mod seats;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

pub use body::{BodyError, read_body};
use descriptors::Descriptors;
pub use json::json;
pub use peer::Peer;
use seats::{Seat, Seats};

/// A whole response.
pub type Answer = Response<Full<Bytes>>;

/// The largest request head but of those whose heads are others' ([`Head`]).
const MAX_HEAD_BYTES: usize = 32 << 10;

/// Header lines of such a request at most.
const MAX_HEADERS: usize = 64;

/// What is read and thrown away of a request that was answered before it had come whole, and
/// for how long. A connection that is closed with unread bytes is reset, and the answer lost.
const LINGER_BYTES: u64 = 8 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// How large the head of a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// All of it.
    pub bytes: usize,
    /// Its headers.
    pub lines: usize,
}

impl Head {
    /// Of who writes its own requests.
    pub const USUAL: Self = Self {
        bytes: MAX_HEAD_BYTES,
        lines: MAX_HEADERS,
    };
}

/// How much of others' time and memory a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait, and push out who is idle.
    pub connections: usize,
    /// How large a head may be.
    pub head: Head,
    /// For the head of a request, also the first one on a connection.
    pub header: Duration,
    /// Who has been idle for so long makes place for others.
    pub idle: Duration,
    /// Who neither asks nor fetches its answer for so long is cut.
    pub stall: Duration,
    /// Connections at once of those who may do nothing here, beside the
    /// others; they get one answer each. More are closed.
    pub strangers: usize,
    /// Of 64 file descriptors that this process may have, how many are left to
    /// the rest of it. Who comes when no others are free is refused.
    pub spare_of_64: u64,
}

/// Where connections come from.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static;
    /// Who is at its other end.
    type Peer: Clone + Send + Sync + 'static;

    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;

    /// Whether that is nobody who may do anything here.
    fn is_stranger(_peer: &Self::Peer) -> bool {
        false
    }
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;
    type Peer = std::net::SocketAddr;

    async fn accept(&self) -> io::Result<(Self::Stream, Self::Peer)> {
        Self::accept(self).await
    }
}

/// Serves connections for ever: drop the future to stop, which also ends the
/// connections. `busy` is the answer where there are no descriptors.
pub async fn serve<L, H, F>(listener: L, limits: Limits, busy: fn() -> Answer, handler: H)
where
    L: Listener,
    H: Fn(Request<Incoming>, L::Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let (seats, strangers) = (Arc::new(Seats::default()), Arc::new(Seats::default()));
    let mut descriptors = Descriptors::new(limits.spare_of_64);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        seats.make_room(limits.connections, limits.idle).await;
        descriptors.reserve();
        let accepted = match listener.accept().await {
            Ok(accepted) => Some(accepted),
            Err(error) => {
                seats.send_away(limits.idle);
                descriptors.complain(&error);
                descriptors.lend(&error, listener.accept()).await
            }
        };
        let Some((stream, peer)) = accepted else {
            continue;
        };
        let is_short = descriptors.are_short(&stream);
        if is_short {
            seats.send_away(limits.idle);
        }
        let handler = handler.clone();
        if !is_short && !L::is_stranger(&peer) {
            let seat = seats.take();
            let answer = move |request| handler(request, peer.clone());
            connections.spawn(many(stream, limits, seat, answer));
        } else if strangers.taken() < limits.strangers {
            let seat = strangers.take();
            let answer = move |request| {
                let answer = (!is_short).then(|| handler(request, peer.clone()));
                async move {
                    match answer {
                        Some(answer) => answer.await,
                        None => busy(),
                    }
                }
            };
            connections.spawn(once(stream, limits, seat, answer));
        }
    }
}

/// Answers whatever is asked on a connection, until it has to go.
async fn many<S, H, F>(stream: S, limits: Limits, seat: Seat, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let head = limits.head;
    converse(
        stream,
        true,
        head,
        limits.header,
        limits.stall,
        &seat,
        handler,
    )
    .await;
}

/// Answers one request on a connection, and has little time for it.
async fn once<S, H, F>(stream: S, limits: Limits, seat: Seat, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let head = limits.head;
    converse(
        stream,
        false,
        head,
        limits.idle,
        limits.idle,
        &seat,
        handler,
    )
    .await;
}

async fn converse<S, H, F>(
    mut stream: S,
    keep_alive: bool,
    head: Head,
    header: Duration,
    stall: Duration,
    seat: &Seat,
    handler: H,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let busy = seat.busy();
        let answer = handler(request);
        async move {
            let answer = answer.await;
            drop(busy);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(header)
        .max_buf_size(head.bytes)
        .max_headers(head.lines)
        .serve_connection(TokioIo::new(&mut stream), service);
    tokio::select! {
        // What a client does wrong is no event for the log.
        _ended = connection => {}
        () = seat.cut(stall) => return,
    }
    tokio::select! {
        () = linger(stream) => {}
        () = seat.cut(stall) => {}
    }
}

/// Waits until the client has read what it was answered, and says so by closing.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let rest = async {
        stream.shutdown().await?;
        let mut rest = stream.take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _over = tokio::time::timeout(LINGER, rest).await;
}
