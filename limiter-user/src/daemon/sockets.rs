//! The sockets that the worker serves. They are the daemon's: it makes them while it may,
//! and a worker that takes another's place finds them as they were.

use std::fs;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use nix::unistd::{Gid, Group};

use crate::adapters::api;
use crate::adapters::origin::{API, CHECK, SPOE, feedback_name};
use crate::control::socket;
use crate::policy::{Api, Datagrams, Decide, Feedback, Listen, Policy};
use crate::worker::message::METRICS;

/// Who may ask over a Unix socket is asked of the kernel, connection by connection.
const API_MODE: u32 = 0o666;

/// Who may write to a socket of datagrams is said by its mode alone.
const DATAGRAM_MODE: u32 = 0o660;

/// Bytes of a file with a token that are read: more is none.
const MOST_TOKEN_FILE: u64 = 8_192;

/// How long the worker of a daemon that was killed may take to end, and with it its sockets.
const GIVEN_BACK: Duration = Duration::from_secs(2);

/// The wait before a port is asked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// What the worker gets. The files of the sockets go with this.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// The sockets with their names, as [`Start`](crate::worker::message::Start) has them.
    pub(super) descriptors: Vec<(String, OwnedFd)>,
    /// The group that may use them.
    pub(super) group: Option<api::Group>,
    /// Where metrics are served.
    pub(super) metrics: Option<SocketAddr>,
    /// The token of `decide.api`.
    pub(super) token: Option<Vec<u8>>,
    files: Vec<PathBuf>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for file in &self.files {
            let _gone = fs::remove_file(file);
        }
    }
}

impl Sockets {
    /// Makes all that a policy names.
    ///
    /// # Errors
    /// One cannot be made.
    pub(super) fn of(policy: &Policy) -> anyhow::Result<Self> {
        let mut sockets = Self::default();
        let listen = policy.metrics.listen;
        let listener = bound(GIVEN_BACK, || TcpListener::bind(listen)).with_context(|| {
            format!("cannot serve metrics on {listen} (metrics.listen); name another port there")
        })?;
        sockets.metrics = listener.local_addr().ok();
        sockets.add(METRICS, listener.into());
        if let Some(decide) = &policy.decide {
            sockets.group = decide.group.as_deref().map(group).transpose()?;
            sockets.api(decide)?;
            sockets.ask(&decide.listen, "decide.listen", CHECK)?;
            if let Some(spoe) = &decide.spoe {
                sockets.ask(spoe, "decide.spoe", SPOE)?;
            }
            for feedback in &decide.feedback {
                sockets.datagrams(feedback)?;
            }
        }
        Ok(sockets)
    }

    fn api(&mut self, decide: &Decide) -> anyhow::Result<()> {
        match &decide.api {
            Api::Unix(path) => {
                let listener = socket::listen_at(path, API_MODE)
                    .context("cannot serve applications (decide.api)")?;
                self.files.push(path.clone());
                self.add(API, listener.into());
            }
            Api::Tcp { listen, token_file } => {
                self.token = Some(token(token_file)?);
                let listener = bound(GIVEN_BACK, || TcpListener::bind(listen)).with_context(|| {
                    format!("cannot serve applications on {listen} (decide.api); name another port there")
                })?;
                self.add(API, listener.into());
            }
        }
        Ok(())
    }

    /// Where a proxy asks.
    fn ask(&mut self, at: &Listen, key: &str, name: &str) -> anyhow::Result<()> {
        let socket: OwnedFd = match at {
            Listen::Unix(path) => {
                let listener = socket::listen_at(path, API_MODE)
                    .with_context(|| format!("cannot serve proxies ({key})"))?;
                self.files.push(path.clone());
                listener.into()
            }
            Listen::Tcp(address) => bound(GIVEN_BACK, || TcpListener::bind(address))
                .with_context(|| {
                    format!("cannot serve proxies on {address} ({key}); name another port there")
                })?
                .into(),
        };
        self.add(name, socket);
        Ok(())
    }

    fn add(&mut self, name: &str, socket: OwnedFd) {
        self.descriptors.push((name.to_owned(), socket));
    }

    fn datagrams(&mut self, feedback: &Feedback) -> anyhow::Result<()> {
        let socket: OwnedFd = match &feedback.at {
            Datagrams::Unix(path) => {
                let socket = socket::receive_at(path, DATAGRAM_MODE)
                    .context("cannot hear events (decide.feedback)")?;
                self.files.push(path.clone());
                give(path, self.group.as_ref())?;
                socket.into()
            }
            Datagrams::Udp { listen, .. } => bound(GIVEN_BACK, || UdpSocket::bind(listen))
                .with_context(|| {
                    format!(
                        "cannot hear events on {listen} (decide.feedback); name another port there"
                    )
                })?
                .into(),
        };
        self.add(&feedback_name(feedback), socket);
        Ok(())
    }
}

/// The group of this name.
fn group(name: &str) -> anyhow::Result<api::Group> {
    let found = Group::from_name(name).with_context(|| format!("looking up group `{name}`"))?;
    match found {
        Some(group) => Ok(api::Group {
            name: name.to_owned(),
            gid: group.gid.as_raw(),
        }),
        None => bail!(
            "there is no group `{name}` (decide.group); `groupadd --system {name}` makes it, or name another"
        ),
    }
}

/// Gives a socket to the group that may write to it.
fn give(path: &Path, group: Option<&api::Group>) -> anyhow::Result<()> {
    let Some(group) = group else {
        return Ok(());
    };
    let given = nix::unistd::chown(path, None, Some(Gid::from_raw(group.gid)));
    given.map_err(|cause| {
        anyhow!(
            "cannot give {} to group `{}` (decide.group): {cause}; start limiter as root, or as a \
             member of that group",
            path.display(),
            group.name
        )
    })
}

/// The token in a file.
fn token(path: &Path) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("reading the token of decide.api from {}", path.display());
    let file = fs::File::open(path).with_context(reading)?;
    let mut bytes = Vec::new();
    file.take(MOST_TOKEN_FILE)
        .read_to_end(&mut bytes)
        .with_context(reading)?;
    api::Token::new(&bytes).with_context(reading)?;
    Ok(bytes)
}

/// A socket on a port, which somebody may have still for so long.
fn bound<T>(time: Duration, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + time;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(AGAIN);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_given_back_is_waited_for() {
        let mut left = 3;
        let mut bind = || {
            left -= 1;
            match left {
                0 => Ok("socket"),
                _ => Err(io::ErrorKind::AddrInUse.into()),
            }
        };
        assert_eq!(bound(Duration::from_mins(1), &mut bind).unwrap(), "socket");
        let mut tries = 0;
        let refused = bound(Duration::from_mins(1), || {
            tries += 1;
            io::Result::<()>::Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(tries, 1);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let again = bound(Duration::ZERO, || {
            TcpListener::bind(taken.local_addr().unwrap())
        });
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
