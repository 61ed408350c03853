//! Who may do what on the control socket.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use nix::unistd::{Group, Uid};
use tokio::net::UnixListener;

use super::api::Refusal;
use crate::http::{Listener, Peer};
use crate::policy::{Control, DEFAULT_GROUP};
use crate::seldom::Seldom;

/// How often the log names somebody who was refused.
const REFUSALS: Duration = Duration::from_secs(1);

/// What somebody may do; the greater includes the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// Not even look.
    Nothing,
    /// Ask, and change nothing.
    Look,
    /// Everything.
    Change,
}

/// The policy names a group that there is not.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no group `{group}` (control.{key}); `groupadd --system {group}` makes it, or name another"
)]
pub struct NoGroup {
    key: &'static str,
    group: String,
}

/// A group that the policy names.
#[derive(Clone, Debug)]
struct Named {
    key: &'static str,
    name: String,
    /// `None`: there was none of this name.
    gid: Option<u32>,
}

/// Who may do what: root and the daemon's own user everything, members of
/// `control.group` too, members of `control.read_group` look.
#[derive(Debug)]
pub struct Access {
    own_uid: u32,
    group: Named,
    readers: Option<Named>,
    refusals: Seldom,
}

impl Access {
    /// Looks the groups of a policy up. The second value are warnings.
    ///
    /// # Errors
    /// A group that the policy chose does not exist. The default one need not.
    pub fn of(control: &Control) -> Result<(Self, Vec<String>), NoGroup> {
        let mut warnings = Vec::new();
        let mut find = |key, name: &str| look_up(key, name, &mut warnings);
        let group = find("group", &control.group)?;
        let readers = control.read_group.as_deref();
        let readers = readers.map(|name| find("read_group", name)).transpose()?;
        let access = Self {
            own_uid: Uid::effective().as_raw(),
            group,
            readers,
            refusals: Seldom::new(REFUSALS),
        };
        Ok((access, warnings))
    }

    fn right(&self, peer: &Peer) -> Right {
        let is_in = |named: &Named| named.gid.is_some_and(|gid| peer.is_in(gid));
        if peer.uid == 0 || peer.uid == self.own_uid || is_in(&self.group) {
            Right::Change
        } else if self.readers.as_ref().is_some_and(is_in) {
            Right::Look
        } else {
            Right::Nothing
        }
    }

    /// The answer to somebody who may not do as asked; `asked` is for the log.
    pub(super) fn refuse(&self, guest: &Guest, asked: &str) -> Refusal {
        let peer = &guest.peer;
        if let Some(left_out) = self.refusals.due(Instant::now()) {
            tracing::warn!(
                uid = peer.uid,
                pid = peer.pid,
                asked,
                left_out,
                "refused on the control socket"
            );
        }
        let what = match guest.right {
            Right::Nothing => "may not use limiter's control socket",
            Right::Look | Right::Change => "may look, and not change anything",
        };
        let mut help = format!("become root{}", self.group.way_in("may change things"));
        if let Some(readers) = self.readers.as_ref().filter(|_| guest.right < Right::Look) {
            help.push_str(&readers.way_in("may look"));
        }
        help.push_str("; who has joined a group logs in again");
        Refusal::new(
            StatusCode::FORBIDDEN,
            format!("user {} {what}", peer.uid),
            help,
        )
    }
}

impl Named {
    fn way_in(&self, what: &str) -> String {
        let Self { key, name, gid } = self;
        match gid {
            Some(_) => format!(
                ", or a member of group `{name}` (control.{key}), which {what}: `usermod -aG {name} USER`"
            ),
            None => format!(
                " (there is no group `{name}`, control.{key}; `groupadd --system {name}` makes it, and \
                 limiter sees it when it is started again)"
            ),
        }
    }
}

fn look_up(key: &'static str, name: &str, warnings: &mut Vec<String>) -> Result<Named, NoGroup> {
    let without = match key {
        "group" => "only root may change things",
        _ => "nobody is let in by it",
    };
    let gid = match Group::from_name(name) {
        Ok(Some(found)) => Some(found.gid.as_raw()),
        Ok(None) if key == "group" && name == DEFAULT_GROUP => {
            warnings.push(format!(
                "there is no group `{name}` (control.{key}): {without}; `groupadd --system {name}` makes it"
            ));
            None
        }
        Ok(None) => {
            let group = name.to_owned();
            return Err(NoGroup { key, group });
        }
        // A directory service that is away must not keep the NIC unprotected.
        Err(cause) => {
            warnings.push(format!(
                "cannot look up group `{name}` (control.{key}): {cause}; {without} until limiter is started again"
            ));
            None
        }
    };
    Ok(Named {
        key,
        name: name.to_owned(),
        gid,
    })
}

/// Somebody at the socket, and what he may do.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) peer: Peer,
    pub(super) right: Right,
}

/// The socket with those who may use it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: UnixListener,
    pub(super) access: std::sync::Arc<Access>,
}

impl Listener for Door {
    type Stream = tokio::net::UnixStream;
    type Peer = Guest;

    async fn accept(&self) -> std::io::Result<(Self::Stream, Guest)> {
        let (stream, _) = self.listener.accept().await?;
        let peer = Peer::of(&stream)?;
        let right = self.access.right(&peer);
        Ok((stream, Guest { peer, right }))
    }

    fn is_stranger(guest: &Guest) -> bool {
        guest.right == Right::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups that every system has: `root` with the number 0, which serves as
    /// the one that may change things here, and another.
    fn access(group: &str, read_group: Option<&str>) -> Result<(Access, Vec<String>), NoGroup> {
        Access::of(&Control {
            socket: "/none".into(),
            group: group.to_owned(),
            read_group: read_group.map(str::to_owned),
        })
    }

    fn guest(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            uid,
            gid,
            groups: groups.into(),
            pid: None,
        }
    }

    #[test]
    fn groups_count_as_first_and_as_further_ones() {
        let readers = Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
        let (mut access, warnings) = access("root", Some("daemon")).unwrap();
        assert_eq!(warnings, [] as [&str; 0]);
        access.own_uid = 77;
        for (peer, right) in [
            (guest(0, 9_999, &[]), Right::Change),
            (guest(77, 9_999, &[]), Right::Change),
            (guest(1_000, 0, &[]), Right::Change),
            (guest(1_000, 9_999, &[5_555, 0]), Right::Change),
            (guest(1_000, readers, &[]), Right::Look),
            (guest(1_000, 9_999, &[readers]), Right::Look),
            (guest(1_000, readers, &[0]), Right::Change),
            (guest(1_000, 9_999, &[5_555]), Right::Nothing),
        ] {
            assert_eq!(access.right(&peer), right, "{peer:?}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_lets_nobody_in() {
        let (mut access, warnings) = access(DEFAULT_GROUP, None).unwrap();
        access.own_uid = 77;
        access.group.gid = None;
        // Where the machine has the default group, nothing is to be said of it.
        for warning in warnings {
            assert!(warning.contains("groupadd"), "{warning}");
        }
        let peer = guest(1_000, 1_000, &[]);
        assert_eq!(access.right(&peer), Right::Nothing);
        let right = Right::Nothing;
        let refusal = access.refuse(&Guest { peer, right }, "a test");
        assert_eq!(refusal.status, 403);
        assert!(refusal.help.contains("groupadd"), "{}", refusal.help);
    }

    #[test]
    fn a_chosen_group_must_exist() {
        for refused in [
            access("no-such-group", None).unwrap_err(),
            access("root", Some("no-such-group")).unwrap_err(),
        ] {
            let error = refused.to_string();
            for part in ["no-such-group", "control.", "groupadd --system"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
