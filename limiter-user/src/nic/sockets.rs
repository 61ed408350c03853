//! Established TCP connections, as the kernel tells of them (`sock_diag`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use serde::Serialize;

use super::talk::{self, Talk};

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

/// Closes the established connections of this network namespace of which `is_meant` says so:
/// the program at this end learns that the connection was aborted, the other end is sent a RST
/// (`SOCK_DESTROY`, since Linux 4.5 where it was built with `CONFIG_INET_DIAG_DESTROY`). Returns
/// how many there were.
///
/// # Errors
/// The kernel does not list them, or closes none: it was built without, or CAP_NET_ADMIN is
/// missing.
pub fn close(is_meant: impl Fn(&Connection) -> bool) -> io::Result<u64> {
    let talk = Talk::new(NETLINK_SOCK_DIAG)?;
    let mut closed = 0;
    for (family, id) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let mut meant = Vec::new();
        let question = question(family, id, 0);
        talk::ask_each(NETLINK_SOCK_DIAG, NLM_F_DUMP, question, |answer| {
            if let SockDiagMessage::InetResponse(response) = answer {
                let id = response.header.socket_id;
                if is_meant(&connection(&id)) {
                    meant.push(id);
                }
            }
        })?;
        for id in meant {
            match talk.order(SOCK_DESTROY, request(family, id)) {
                Ok(()) => closed += 1,
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(closed)
}

fn question(family: u8, id: SocketId, port: u16) -> SockDiagMessage {
    let id = SocketId {
        source_port: port,
        ..id
    };
    request(family, id)
}

fn request(family: u8, socket_id: SocketId) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id,
    })
}

fn connection(id: &SocketId) -> Connection {
    Connection::new(
        (id.destination_address, id.destination_port),
        (id.source_address, id.source_port),
    )
}

/// The connections in an answer.
pub(super) fn connections(answers: Vec<SockDiagMessage>) -> impl Iterator<Item = Connection> {
    answers.into_iter().filter_map(|answer| match answer {
        SockDiagMessage::InetResponse(response) => Some(connection(&response.header.socket_id)),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
