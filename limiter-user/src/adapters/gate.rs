//! The ports for proxies, and who may ask there.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use super::Intake;
use crate::http::Listener;

/// A port with those who may ask there.
pub(super) struct Gate {
    pub(super) listener: TcpListener,
    pub(super) intake: Arc<Intake>,
}

/// Somebody at the port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) address: SocketAddr,
    /// Whether it was trusted when it came.
    may_ask: bool,
}

impl Listener for Gate {
    type Stream = TcpStream;
    type Peer = Caller;

    async fn accept(&self) -> std::io::Result<(Self::Stream, Caller)> {
        let (stream, address) = self.listener.accept().await?;
        // An answer is one small write, and the proxy waits for it.
        stream.set_nodelay(true)?;
        let may_ask = self.intake.may_ask(address.ip());
        Ok((stream, Caller { address, may_ask }))
    }

    fn is_stranger(caller: &Caller) -> bool {
        !caller.may_ask
    }
}
