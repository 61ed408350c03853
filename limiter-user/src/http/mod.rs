//! HTTP/1.1 for the control socket and the metrics: how many connections, how
//! long each may take, and how much it may send.

mod body;
mod seats;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

pub use body::{BodyError, read_body};
use seats::Seats;

/// A whole response.
pub type Answer = Response<Full<Bytes>>;

/// The largest request head.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// Header lines of a request at most.
const MAX_HEADERS: usize = 64;

/// How much of others' time and memory a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait, and push out who is idle.
    pub connections: usize,
    /// For the head of a request, also the first one on a connection.
    pub header: Duration,
    /// Who has been idle for so long makes place for others.
    pub idle: Duration,
    /// Who neither asks nor fetches its answer for so long is cut.
    pub stall: Duration,
}

/// Where connections come from.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Who is at its other end.
    type Peer: Clone + Send + Sync + 'static;

    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;
    type Peer = std::net::SocketAddr;

    async fn accept(&self) -> io::Result<(Self::Stream, Self::Peer)> {
        Self::accept(self).await
    }
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;
    type Peer = tokio::net::unix::UCred;

    async fn accept(&self) -> io::Result<(Self::Stream, Self::Peer)> {
        let (stream, _) = Self::accept(self).await?;
        let peer = stream.peer_cred()?;
        Ok((stream, peer))
    }
}

/// Serves connections for ever: drop the future to stop, which also ends the
/// connections.
pub async fn serve<L, H, F>(listener: L, limits: Limits, handler: H)
where
    L: Listener,
    H: Fn(Request<Incoming>, L::Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let seats = Arc::new(Seats::default());
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        seats.make_room(limits.connections, limits.idle).await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Without descriptors the next attempt fails at once, too.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let seat = seats.take();
        let handler = handler.clone();
        let _task = connections.spawn(async move {
            let service = service_fn(|request| {
                let busy = seat.busy();
                let answer = handler(request, peer.clone());
                async move {
                    let answer = answer.await;
                    drop(busy);
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header)
                .max_buf_size(MAX_HEAD_BYTES)
                .max_headers(MAX_HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // What a client does wrong is no event for the log.
                _ended = connection => {}
                () = seat.cut(limits.stall) => {}
            }
        });
    }
}
