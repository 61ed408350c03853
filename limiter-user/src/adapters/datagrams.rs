//! Datagrams of servers, on a socket that somebody else has bound.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use super::origin::Origin;
use super::running::{Running, Stop};
use super::{Intake, wall_ns};
use crate::event::Event;
use crate::event::Sample;
use crate::event::formats::Format;
use crate::event::lines::MAX_LINE;
use crate::event::reader::Reader;
use crate::seldom::Seldom;

/// Datagrams in one report.
const BATCH: usize = 64;

/// How soon it is seen that the thread should end.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long nothing is received after receiving has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What the kernel is asked to hold for us; it gives what `net.core.rmem_max` allows.
const BUFFER_BYTES: usize = 4 << 20;

/// A syslog header and an event.
const MAX_DATAGRAM: usize = MAX_LINE + 1_024;

/// How often the log names a sender that is not listed, or what goes wrong.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// A socket on which datagrams arrive.
#[derive(Debug)]
pub enum Socket {
    /// Whoever may write to it is heard: its file's permissions say who. The kernel
    /// holds few datagrams for it (`net.unix.max_dgram_qlen`), and a sender that
    /// does not wait loses what finds no room, of which nobody learns here.
    Unix(UnixDatagram),
    /// Only these senders are heard.
    Udp {
        /// The port.
        socket: UdpSocket,
        /// The senders.
        from: Vec<IpNet>,
    },
}

/// How datagrams are read.
#[derive(Clone, Debug)]
pub struct Manner {
    /// What is in them.
    pub format: Format,
    /// Whether a source is the peer where the format does not tell the peer.
    pub direct: bool,
}

/// Reads datagrams on a thread of their own, each as one event.
///
/// # Errors
///
/// The socket does not take a time-out, or there can be no thread.
pub fn listen(
    intake: Arc<Intake>,
    origin: Arc<Origin>,
    socket: Socket,
    manner: &Manner,
) -> io::Result<Running> {
    socket.prepare()?;
    let mut ear = Ear {
        intake,
        origin,
        socket,
        reader: Reader::new(manner.format.clone(), manner.direct),
        buffer: vec![0; MAX_DATAGRAM].into(),
        events: Vec::with_capacity(BATCH),
        forged: 0,
        lost: 0,
        complaints: Seldom::new(COMPLAINTS),
    };
    Running::start("datagrams", move |stop| ear.run(stop))
}

impl Socket {
    fn prepare(&self) -> io::Result<()> {
        let fd = match self {
            Self::Unix(socket) => {
                socket.set_nonblocking(false)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.as_fd()
            }
            Self::Udp { socket, .. } => {
                socket.set_nonblocking(false)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.as_fd()
            }
        };
        // Neither is needed: without them more is lost, or less is known of it.
        let _buffer = setsockopt(&fd, sockopt::RcvBuf, &BUFFER_BYTES);
        let _counted = setsockopt(&fd, sockopt::RxqOvfl, &1);
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Udp { socket, .. } => socket.as_fd(),
        }
    }

    fn hears(&self, sender: Option<IpAddr>) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Udp { from, .. } => {
                sender.is_some_and(|sender| from.iter().any(|network| network.contains(&sender)))
            }
        }
    }
}

/// A datagram in the buffer.
struct Received {
    /// Its length, which may be more than the buffer holds.
    length: usize,
    is_cut: bool,
    sender: Option<IpAddr>,
    /// Datagrams that the kernel had no room for since the socket was made, modulo
    /// 2³²; `None`: it does not say.
    lost: Option<u32>,
}

/// A socket and the thread's own things.
#[derive(Debug)]
struct Ear {
    intake: Arc<Intake>,
    origin: Arc<Origin>,
    socket: Socket,
    reader: Reader,
    buffer: Box<[u8]>,
    events: Vec<Event>,
    forged: u64,
    /// As the kernel said last.
    lost: u32,
    complaints: Seldom,
}

impl Ear {
    fn run(&mut self, stop: &Stop) {
        while !stop.is_set() {
            match self.receive(MsgFlags::empty()) {
                Ok(received) => {
                    self.take(&received);
                    self.drain();
                    self.report();
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => {
                    if let Some(left_out) = self.complaints.due(Instant::now()) {
                        let origin = self.origin.name();
                        tracing::warn!(origin, %error, left_out, "cannot receive datagrams");
                    }
                    stop.wait(PAUSE);
                }
            }
        }
    }

    /// Takes what is there already, up to a batch.
    fn drain(&mut self) {
        for _ in 1..BATCH {
            let Ok(received) = self.receive(MsgFlags::MSG_DONTWAIT) else {
                break;
            };
            self.take(&received);
        }
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<Received, Errno> {
        let fd = self.socket.fd().as_raw_fd();
        let mut pieces = [IoSliceMut::new(&mut self.buffer)];
        let mut control = cmsg_space!(u32);
        // With this flag the kernel tells the whole length of what it cuts.
        let flags = flags | MsgFlags::MSG_TRUNC;
        let message = recvmsg::<SockaddrStorage>(fd, &mut pieces, Some(&mut control), flags)?;
        let lost = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::RxqOvfl(lost) => Some(lost),
                _ => None,
            })
        });
        Ok(Received {
            length: message.bytes,
            is_cut: message.flags.contains(MsgFlags::MSG_TRUNC),
            sender: message.address.as_ref().and_then(sender),
            lost,
        })
    }

    fn take(&mut self, received: &Received) {
        if let Some(lost) = received.lost {
            let more = lost.wrapping_sub(std::mem::replace(&mut self.lost, lost));
            self.reader.drop_events(more.into());
        }
        if !self.socket.hears(received.sender) {
            self.forged += 1;
            if let Some(left_out) = self.complaints.due(Instant::now()) {
                let origin = self.origin.name();
                let sender = received.sender.map(|sender| sender.to_string());
                tracing::warn!(
                    origin,
                    sender,
                    left_out,
                    "a datagram of a sender that is not listed (decide.feedback.from)"
                );
            }
            return;
        }
        let event = if received.is_cut {
            let head = Sample::of(&self.buffer);
            self.reader.too_long(received.length as u64, head);
            None
        } else {
            let length = received.length.min(self.buffer.len());
            self.reader.datagram(&self.buffer[..length])
        };
        self.events.extend(event);
    }

    fn report(&mut self) {
        let tally = self.reader.take_tally();
        let forged = std::mem::take(&mut self.forged);
        if forged > 0 {
            self.origin.count_forged(forged, wall_ns());
        }
        self.intake
            .hear(&self.origin, tally, &mut self.events, wall_ns());
        self.events.clear();
    }
}

fn sender(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    let v6 = || address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip()));
    v4.or_else(v6).map(|address| address.to_canonical())
}
