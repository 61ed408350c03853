//! A crowd of clients, each with an address of its own, that connect one after
//! the other as the kernel does it: a SYN, and again after a second.

use crate::{
    netns::Namespace,
    ready::{Ready, Way},
};
use anyhow::{Result, ensure};
use std::{
    collections::HashMap,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

/// How long nobody looks whose turn it is.
const LOOK: Duration = Duration::from_millis(2);

/// Lets a client begin each `interval`; returns after how long each had the
/// first byte that the server sends of its own accord, or `None` if it had none
/// after `at_most`. (The client's own kernel takes a connection for made when
/// the server's may not.) Connections are closed as soon as that is there.
///
/// The namespace must let sockets take the sources for their own
/// (`ip_nonlocal_bind`, and a route of type `local`).
pub fn connect(
    namespace: &Namespace,
    sources: &[IpAddr],
    to: SocketAddr,
    interval: Duration,
    at_most: Duration,
) -> Result<Vec<Option<Duration>>> {
    namespace.run(|| {
        let mut taken = vec![None; sources.len()];
        let mut waiting: HashMap<usize, Client> = HashMap::new();
        let ready = Ready::new()?;
        let mut coming = sources.iter().enumerate();
        let began = Instant::now();
        let mut next = coming.next();
        while next.is_some() || !waiting.is_empty() {
            while let Some((number, source)) = next
                && began.elapsed() >= interval * u32::try_from(number)?
            {
                let client = Client::begin(*source, to)?;
                ready.add(&client.stream, Way::In, number as u64)?;
                waiting.insert(number, client);
                next = coming.next();
            }
            for number in ready.wait(Instant::now() + LOOK)? {
                let number = usize::try_from(number)?;
                if let Some(client) = waiting.remove(&number) {
                    let elapsed = client.began.elapsed();
                    if client.ends_served() {
                        taken[number] = Some(elapsed);
                    }
                }
            }
            waiting.retain(|_, client| client.began.elapsed() < at_most);
        }
        Ok(taken)
    })
}

/// Somebody whose connection is under way.
struct Client {
    stream: TcpStream,
    began: Instant,
}

/// Begins to connect from an address; the socket does not block.
pub fn begin(source: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a system call on integers.
    let socket = unsafe { libc::socket(family, kind, 0) };
    ensure!(socket >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let (own, own_length) = address(SocketAddr::new(source, 0));
    // SAFETY: an open socket and an address of the length given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const own).cast(), own_length) };
    let error = io::Error::last_os_error();
    ensure!(bound == 0, "taking the address {source}: {error}");
    let (to, to_length) = address(to);
    // SAFETY: as above.
    let status = unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), to_length) };
    let error = io::Error::last_os_error();
    let under_way = status == 0 || error.raw_os_error() == Some(libc::EINPROGRESS);
    ensure!(under_way, "connecting from {source}: {error}");
    Ok(TcpStream::from(socket))
}

impl Client {
    fn begin(source: IpAddr, to: SocketAddr) -> Result<Self> {
        let began = Instant::now();
        Ok(Self {
            stream: begin(source, to)?,
            began,
        })
    }

    /// Whether what has come is the server's first byte, and no error or end.
    fn ends_served(mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(1))
    }
}

/// An address as the kernel takes it.
fn address(of: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: integers, of which zero is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = &raw mut storage;
    let length = match of {
        SocketAddr::V4(of) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: of.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*of.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: it is large enough for an address of any family.
            unsafe { place.cast::<libc::sockaddr_in>().write(address) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(of) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: of.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: of.ip().octets(),
                },
                sin6_scope_id: of.scope_id(),
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(address) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}
