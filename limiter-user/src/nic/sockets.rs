//! Established TCP connections, as the kernel tells of them (`sock_diag`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use serde::Serialize;

use super::talk;

/// A TCP connection, seen from this host. IPv4 is never written as IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
}

impl Connection {
    /// A connection between these ends.
    #[must_use]
    pub fn new((peer, peer_port): (IpAddr, u16), (local, local_port): (IpAddr, u16)) -> Self {
        Self {
            peer: SocketAddr::new(peer.to_canonical(), peer_port),
            local: SocketAddr::new(local.to_canonical(), local_port),
        }
    }

    /// Whether its packets never leave the host.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.peer.ip().is_loopback() || self.peer.ip() == self.local.ip()
    }
}

/// The connections of this network namespace that are established to these
/// ports of it. The kernel passes over all others, of which there may be
/// millions.
///
/// # Errors
/// The kernel does not say.
pub fn established(ports: &[u16]) -> io::Result<Vec<Connection>> {
    let mut found = Vec::new();
    for port in ports {
        for (family, id) in [
            (AF_INET, SocketId::new_v4()),
            (AF_INET6, SocketId::new_v6()),
        ] {
            let question = question(family, id, *port);
            let answers = talk::ask(NETLINK_SOCK_DIAG, NLM_F_DUMP, question)?;
            found.extend(connections(answers));
        }
    }
    Ok(found)
}

fn question(family: u8, id: SocketId, port: u16) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id: SocketId {
            source_port: port,
            ..id
        },
    })
}

/// The connections in an answer.
pub(super) fn connections(answers: Vec<SockDiagMessage>) -> impl Iterator<Item = Connection> {
    answers.into_iter().filter_map(|answer| match answer {
        SockDiagMessage::InetResponse(response) => {
            let id = response.header.socket_id;
            Some(Connection::new(
                (id.destination_address, id.destination_port),
                (id.source_address, id.source_port),
            ))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests;
