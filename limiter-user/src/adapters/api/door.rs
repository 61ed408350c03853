//! Who may ask and report.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::net::UnixListener;

use crate::control::api::Refusal;
use crate::http::{Listener, Peer};
use crate::seldom::Seldom;

/// How often the log names somebody who was refused.
const REFUSALS: Duration = Duration::from_secs(10);

/// Bytes of a token at least: 16 hexadecimal digits are 64 bits.
const SHORTEST_TOKEN: usize = 16;

/// Bytes of a token at most.
const LONGEST_TOKEN: usize = 1_024;

/// Who may use the Unix socket: root, the daemon's user, and the members of a group.
#[derive(Debug)]
pub struct Members {
    own_uid: u32,
    group: Option<Group>,
    refusals: Seldom,
}

/// The group that `decide.group` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
}

impl Members {
    /// Beside root, the user `own_uid`, and a group if there is one.
    #[must_use]
    pub const fn new(own_uid: u32, group: Option<Group>) -> Self {
        Self {
            own_uid,
            group,
            refusals: Seldom::new(REFUSALS),
        }
    }

    pub(in crate::adapters) fn may_enter(&self, peer: &Peer) -> bool {
        let is_member = |group: &Group| peer.is_in(group.gid);
        peer.uid == 0 || peer.uid == self.own_uid || self.group.as_ref().is_some_and(is_member)
    }

    pub(in crate::adapters) fn refuse(&self, peer: &Peer) -> Refusal {
        if let Some(left_out) = self.refusals.due(Instant::now()) {
            let (uid, pid) = (peer.uid, peer.pid);
            tracing::warn!(uid, pid, left_out, "refused on a socket of decide");
        }
        let help = match &self.group {
            Some(Group { name, .. }) => format!(
                "become a member of group `{name}` (decide.group): `usermod -aG {name} USER`; who \
                 has joined a group logs in again"
            ),
            None => "name a group in decide.group; its members may ask and report".to_owned(),
        };
        let detail = format!("user {} may not ask limiter", peer.uid);
        Refusal::new(StatusCode::FORBIDDEN, detail, help)
    }
}

/// Somebody at the socket.
#[derive(Clone, Debug)]
pub(in crate::adapters) struct Guest {
    pub(in crate::adapters) peer: Peer,
    pub(in crate::adapters) may_enter: bool,
}

/// The socket with those who may use it.
#[derive(Debug)]
pub(in crate::adapters) struct Door {
    pub(in crate::adapters) listener: UnixListener,
    pub(in crate::adapters) members: Arc<Members>,
}

impl Listener for Door {
    type Stream = tokio::net::UnixStream;
    type Peer = Guest;

    async fn accept(&self) -> std::io::Result<(Self::Stream, Guest)> {
        let (stream, _) = self.listener.accept().await?;
        let peer = Peer::of(&stream)?;
        let may_enter = self.members.may_enter(&peer);
        Ok((stream, Guest { peer, may_enter }))
    }

    fn is_stranger(guest: &Guest) -> bool {
        !guest.may_enter
    }
}

/// What must be shown on the TCP port. It is never printed.
pub struct Token {
    bytes: Box<[u8]>,
    refusals: Seldom,
}

/// Why these bytes are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Too few or too many.
    #[error(
        "the token has {0} bytes; {SHORTEST_TOKEN} to {LONGEST_TOKEN} are allowed: \
         `openssl rand -hex 32` makes one"
    )]
    Length(usize),
    /// Not what can stand in a header.
    #[error(
        "the token has a byte that is no printable ASCII, or a space; \
         `openssl rand -hex 32` makes one"
    )]
    Byte,
}

impl Token {
    /// What a token file holds; space and line ends around it are no part of it.
    ///
    /// # Errors
    ///
    /// See [`BadToken`].
    pub fn new(file: &[u8]) -> Result<Self, BadToken> {
        let bytes = file.trim_ascii();
        if !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&bytes.len()) {
            return Err(BadToken::Length(bytes.len()));
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(BadToken::Byte);
        }
        Ok(Self {
            bytes: bytes.into(),
            refusals: Seldom::new(REFUSALS),
        })
    }

    /// Whether it is in a request's one `Authorization: Bearer`. How long that takes
    /// tells at most the token's length.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else {
            return false;
        };
        const SCHEME: &[u8] = b"bearer ";
        let Some((scheme, token)) = shown.as_bytes().split_at_checked(SCHEME.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(token.trim_ascii().ct_eq(&self.bytes))
    }

    pub(super) fn refuse(&self, peer: SocketAddr) -> Refusal {
        if let Some(left_out) = self.refusals.due(Instant::now()) {
            tracing::warn!(%peer, left_out, "refused on the API's port: no token, or a wrong one");
        }
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "no token, or a wrong one",
            "send `Authorization: Bearer` and what decide.api.token_file holds",
        )
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
