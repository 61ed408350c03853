//! The keeper: the one owner of the data plane, the policy in force and the
//! run-time entries. Whoever wants something asks it through a [`Handle`];
//! all it does is short, and one thing at a time.

mod auditing;
mod capture;
mod changes;
mod clock;
mod closing;
mod explain;
#[cfg(test)]
pub(crate) mod fake;
mod flood;
mod handle;
mod holds;
pub mod interfaces;
mod kernel;
mod links;
mod list_files;
mod lists;
mod lockout;
mod notifying;
mod observe;
mod orders;
mod pins;
mod places;
mod plane;
mod recording;
pub mod records;
pub(crate) mod reload;
mod restore;
mod rules;
mod sessions;
mod show;
mod term;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

pub use crate::image::ListKind;
pub use clock::{Now, seconds_left, timestamp, unix_nanos, unix_seconds, unix_time};
pub use closing::{Close, Closer};
pub use explain::shown;
pub use handle::{Handle, Stopped};
pub use list_files::{Kept, Lists, News};
pub(crate) use lists::Cover;
pub use observe::Ruling;
pub use orders::Refused;
pub use plane::{Plane, PlaneError};
pub use restore::Recalled;
pub use sessions::Sessions;
pub use show::Snapshot;

use crate::control::api::Refusal;
use crate::image::ListChange;
use crate::nic::sockets::Connection;
use crate::policy::Policy;
use interfaces::Present;
use lists::{Listed, NetworkList};

/// Whose order a change is, and how it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct By {
    /// The user.
    pub uid: u32,
    /// The process; `None`: the daemon itself, or one the kernel cannot name.
    pub pid: Option<i32>,
    /// The SSH connection by which they are logged in, if they say so.
    pub login: Option<Connection>,
    /// Whether it is to be done although it cuts SSH connections off.
    pub is_forced: bool,
}

impl By {
    /// A user's order, not forced; `pid`: as in [`By`].
    #[must_use]
    pub const fn user(uid: u32, pid: Option<i32>) -> Self {
        Self {
            uid,
            pid,
            login: None,
            is_forced: false,
        }
    }
}

/// What is remembered of a block beside what the data plane knows.
#[derive(Clone, Debug)]
struct Note {
    since: std::time::SystemTime,
    reason: Option<String>,
    /// `None`: nobody knows.
    uid: Option<u32>,
    /// The rules that made it.
    rules: Vec<orders::RuleHold>,
}

/// A block's network and the limit that it is confined to.
type BlockName = (IpNet, Option<String>);

/// How the last attempt to load the policy ended.
#[derive(Clone, Debug)]
struct LastLoad {
    succeeded: std::time::SystemTime,
    error: Option<String>,
}

/// A part of what is due with time, about once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chore {
    /// Blocks that end.
    Blocks,
    /// Floods that begin and end.
    Flood,
    /// Sampling that nobody wants any more.
    Sampling,
    /// Where somebody has taken the program off.
    Attached,
    /// Pins that somebody has removed.
    Pins,
    /// Interfaces that come.
    Interfaces,
    /// Entries of a list that end.
    Entries(ListKind),
    /// What is to be stored.
    Records,
    /// What the process of the rules is to know: keys of challenges are rotated, by this node or
    /// another one.
    Rules,
}

impl Chore {
    /// In their order.
    const ALL: &'static [Self] = &[
        Self::Blocks,
        Self::Flood,
        Self::Sampling,
        Self::Attached,
        Self::Pins,
        Self::Interfaces,
        Self::Entries(ListKind::Allow),
        Self::Entries(ListKind::Deny),
        Self::Records,
        Self::Rules,
    ];
}

/// Lists the interfaces that there are.
pub type Interfaces = Box<dyn Fn() -> io::Result<Vec<Present>> + Send>;

/// The owner of all that can change. See the [module](self).
pub struct Keeper {
    plane: Box<dyn Plane>,
    interfaces: Interfaces,
    sessions: Sessions,
    config: PathBuf,
    policy: Policy,
    /// What it was read from.
    text: String,
    /// What was tried last and not confirmed.
    rejected: Option<String>,
    /// It is in force for a time, or does nothing for a time.
    temporary: Option<term::Temporary>,
    allow: NetworkList,
    deny: NetworkList,
    kept_files: list_files::KeptFiles,
    links: links::Links,
    notes: HashMap<BlockName, Note>,
    /// Blocks that found no room.
    blocks_refused: u64,
    watch: flood::Watch,
    captures: capture::Captures,
    recording: recording::Recording,
    /// What was found stored, until it is restored.
    saved: Option<records::Saved>,
    started: Now,
    load: LastLoad,
    /// Where metrics are served, once they are.
    metrics: Option<String>,
    /// Where maps and links outlast the daemon, and why they do not.
    pins: pins::Watch,
    rules: rules::AtWork,
    /// Closes connections of who is blocked, if anybody does.
    closer: Option<Closer>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Takes over a data plane into which the [effective](Recalled::effective)
    /// `policy` was loaded.
    #[must_use]
    pub fn new(
        plane: Box<dyn Plane>,
        interfaces: Interfaces,
        sessions: Sessions,
        config: PathBuf,
        policy: Policy,
        recalled: Recalled,
        now: Now,
    ) -> Self {
        Self {
            plane,
            interfaces,
            sessions,
            config,
            allow: recalled.allow,
            deny: recalled.deny,
            policy,
            text: String::new(),
            rejected: None,
            temporary: None,
            kept_files: list_files::KeptFiles::default(),
            links: links::Links::default(),
            notes: HashMap::new(),
            blocks_refused: 0,
            watch: flood::Watch::default(),
            captures: capture::Captures::default(),
            recording: recording::Recording::new(recalled.records, now),
            saved: recalled.saved,
            started: now,
            load: LastLoad {
                succeeded: now.wall,
                error: None,
            },
            metrics: None,
            pins: pins::Watch::default(),
            rules: rules::AtWork::default(),
            closer: None,
        }
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy file.
    #[must_use]
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// Says where metrics are served.
    pub fn set_metrics(&mut self, address: String) {
        self.metrics = Some(address);
    }

    /// All that is due with time, as [`Handle`] has it done chore by chore.
    #[cfg(test)]
    fn tick(&mut self, now: Now) {
        self.note_end_of_term(now);
        for chore in Chore::ALL {
            self.do_chore(*chore, now);
        }
    }

    /// Does a chore; what fails is tried again the next time.
    fn do_chore(&mut self, chore: Chore, now: Now) {
        match chore {
            Chore::Blocks => {
                if let Err(error) = self.plane.expire_blocks() {
                    tracing::warn!(%error, "blocks whose time is over keep their places");
                }
            }
            Chore::Flood => {
                if let Err(error) = self.watch_flood(now) {
                    tracing::warn!(%error, "whether new sources are too many cannot be told");
                }
            }
            Chore::Sampling => self.switch_sampling(),
            Chore::Attached => self.note_taken_off(),
            Chore::Pins => self.mend_pins(),
            Chore::Interfaces => self.retry_interfaces(now),
            Chore::Entries(kind) => self.end_entries(kind, now),
            Chore::Records => self.keep_records(now),
            Chore::Rules => self.tell_rules(),
        }
    }

    /// Takes off a list what was to be on it until now.
    fn end_entries(&mut self, kind: ListKind, now: Now) {
        let over = self.list(kind).over(now);
        let ended = over.iter().map(|network| (*network, None));
        if let Err(error) = self.change_list(kind, ended.collect(), now) {
            tracing::warn!(%error, "list entries whose time is over stay in force");
            return;
        }
        for network in over {
            tracing::info!(list = kind.name(), %network, "list entry ended");
        }
    }

    /// Makes each of these the run-time entry of its network, or takes that
    /// off, and hands what differs then to the data plane, all or nothing, and
    /// then to the records.
    fn change_list(
        &mut self,
        kind: ListKind,
        mut entries: Vec<(IpNet, Option<Listed>)>,
        now: Now,
    ) -> Result<(), PlaneError> {
        // All that follows keeps them in this order: neighbours then come
        // together. What is named twice stays in turn.
        entries.sort_by_key(|(network, _)| *network);
        let stored = entries.clone();
        let list = self.list(kind);
        let mut changes = Vec::new();
        let mut before = Vec::with_capacity(entries.len());
        for (network, entry) in entries {
            let was_listed = list.contains(network);
            before.push((network, list.replace(network, entry)));
            let listed = list.contains(network);
            if listed != was_listed {
                changes.push(ListChange {
                    list: kind,
                    network,
                    listed,
                });
            }
        }
        if !changes.is_empty()
            && let Err(error) = self.plane.change_lists(&changes)
        {
            // Backwards: a network that was named twice gets what it first had.
            let list = self.list(kind);
            for (network, entry) in before.into_iter().rev() {
                list.replace(network, entry);
            }
            return Err(error);
        }
        self.record_entries(kind, &stored, now);
        Ok(())
    }

    fn list(&mut self, kind: ListKind) -> &mut NetworkList {
        match kind {
            ListKind::Allow => &mut self.allow,
            ListKind::Deny => &mut self.deny,
        }
    }
}

/// What the data plane did not do, as an answer.
fn refused(error: PlaneError) -> Refusal {
    // A quota or a table that is full: what was asked for is well-formed, and
    // the state of things does not allow it.
    Refusal::new(hyper::StatusCode::CONFLICT, in_full(&*error), "")
}

/// What the data plane could not tell, as an answer.
fn unreadable(error: PlaneError) -> Refusal {
    let status = hyper::StatusCode::INTERNAL_SERVER_ERROR;
    let help = "see the daemon's log; `limiter status` shows what works";
    Refusal::new(status, in_full(&*error), help)
}

/// An error with its causes.
#[must_use]
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many errors already name their cause.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
