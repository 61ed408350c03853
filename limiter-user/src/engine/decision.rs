//! What comes out: decisions, orders to the NIC, and what is to be written down.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use super::table::Key;
use crate::policy::Action;

/// Why a request is refused, where it is not for what was counted; in the words of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its source is outside the rule's `from`.
    NotFrom,
}

impl Reason {
    /// All.
    pub const ALL: [Self; 1] = [Self::NotFrom];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFrom => "not_from",
        }
    }
}

/// What is to be done with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// `None`: it passes.
    #[serde(serialize_with = "action_or_pass")]
    pub action: Option<Action>,
    /// The rule that decided, or would have.
    #[serde(serialize_with = "name")]
    pub rule: Option<Arc<str>>,
    /// Why it did, where that is not what was counted; left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Its tier or rung, from 0: for [`Engine::passed`](super::Engine::passed).
    #[serde(skip)]
    pub part: Option<usize>,
    /// Where it is a challenge, what solving it is good for.
    #[serde(skip)]
    pub bound: Option<Bound>,
    /// Which of the solved challenges that came with the request stood in for one: a bit for
    /// each, from the lowest.
    #[serde(skip)]
    pub cleared: u8,
    /// When the action ends if nothing more happens, in nanoseconds since the Unix
    /// epoch; written as Unix seconds, rounded up.
    #[serde(rename = "until", serialize_with = "seconds")]
    pub until_ns: Option<u64>,
    /// How long it is to wait; 0 but for [`Action::Throttle`].
    pub delay_ms: u64,
    /// Seconds until `until_ns`, rounded up, at least 1; only where it is refused, and not at a
    /// gate, which does not open with time.
    pub retry_after_s: Option<u64>,
    /// How many requests the rule with the least left allows; of rules with a source
    /// and no account in the key, and first of those whose response tells it.
    pub limit: Option<u64>,
    /// How many of them are left after this one.
    pub remaining: Option<u64>,
    /// The Unix time at which all are; where it is refused, now and `retry_after_s`.
    #[serde(rename = "reset")]
    pub reset_s: Option<u64>,
    /// The rule that `limit`, `remaining` and `reset_s` are of.
    #[serde(skip)]
    pub shown: Option<Arc<str>>,
    /// What a simulated rule would have done.
    pub simulated: Option<Action>,
}

/// What solving a challenge is good for, beside the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The key that it was posed for; that of the source where it stands for a block.
    pub key: Key,
    /// The host that was asked, in lower case.
    pub host: Option<Arc<str>>,
    /// Whether asking for the path again would not repeat the request: its method is neither
    /// GET nor HEAD.
    pub resend: bool,
}

impl Decision {
    /// The word for its action; without one it is `pass`.
    #[must_use]
    pub fn action_name(&self) -> &'static str {
        self.action.map_or(PASS, Action::name)
    }

    /// Whether the request does not reach the origin: everything but a pass and a
    /// delay.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.action.is_some_and(|action| action > Action::Throttle)
    }
}

/// What is said where nothing is done.
const PASS: &str = "pass";

fn action_or_pass<S: Serializer>(
    action: &Option<Action>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match action {
        Some(action) => action.serialize(serializer),
        None => serializer.serialize_str(PASS),
    }
}

fn name<S: Serializer>(name: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_deref().serialize(serializer)
}

fn seconds<S: Serializer>(time_ns: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    time_ns
        .map(|ns| ns.div_ceil(SECOND_NS))
        .serialize(serializer)
}

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// What the NIC is to do with a source under a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Whom.
    pub source: IpNet,
    /// The rule.
    pub rule: Arc<str>,
    /// The edge limit that its blocks are confined to.
    pub limit: Option<Arc<str>>,
    /// What.
    pub what: Ordered,
}

/// What the NIC is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ordered {
    /// Drop what comes from the source. It is the peer, and no order for it is out.
    Block {
        /// Until when, in nanoseconds since the Unix epoch.
        until_ns: u64,
        /// The tier or rung, from 0.
        part: usize,
        /// The rung of the ladder, from 1; 0: it is no ladder.
        rung: u64,
        /// The event behind it.
        cause: Cause,
    },
    /// Take the rule's block back, if it is there: it was ordered, and ended before its time.
    Withdraw,
}

/// Something for the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, in nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// The rule.
    pub rule: Arc<str>,
    /// The rule's key.
    pub key: Key,
    /// The tier or rung, from 0.
    pub part: usize,
    /// What happened.
    pub what: What,
    /// The event behind it; `None` where time alone did it.
    pub event: Option<Cause>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A failure, a status or a response header was counted.
    Counted,
    /// A request was refused.
    Refused {
        /// With what.
        action: Action,
        /// Why, where it is not for what was counted.
        reason: Option<Reason>,
        /// Whether it would have been.
        simulated: bool,
    },
    /// An action began, or was lengthened.
    Began {
        /// Which.
        action: Action,
        /// When it ends.
        until_ns: u64,
        /// The rung of the ladder that is reached by it, from 1; 0: it is no ladder.
        rung: u64,
        /// Whether it is only counted.
        simulated: bool,
        /// Whether the owner of the account is to be told.
        notify_owner: bool,
    },
    /// All actions of the key, or of the source if it is one of a block, ended.
    Ended,
    /// An action should have begun, and the table of the blocked was full.
    Full {
        /// Which.
        action: Action,
    },
    /// What was held against the key was dropped: by a success elsewhere (`clears`),
    /// by a passed challenge, or by hand.
    Cleared,
}

/// The event behind a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The client.
    pub source: IpAddr,
    /// Whose login, normalised.
    pub account: Option<Box<str>>,
    /// The normalised path.
    pub path: Option<Box<str>>,
    /// The status.
    pub status: Option<u16>,
    /// The mail address of the account's owner, as the origin named it; not looked at.
    pub owner: Option<Box<str>>,
}

/// What a rule has counted since it came into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Since when it counts, in nanoseconds since the Unix epoch; 0: it has just begun.
    pub since_ns: u64,
    /// Events that it selects.
    pub matched: u64,
    /// When it last did, in nanoseconds since the Unix epoch; 0: never.
    pub matched_ns: u64,
    /// Those among them that counted.
    pub counted: u64,
    /// Requests that its action applied to, simulated ones too.
    pub over: u64,
    /// Requests that it selects and whose source is outside its `from`, simulated ones too.
    #[serde(default)]
    pub not_from: u64,
    /// Requests that it decided, by action, from the weakest.
    pub by_action: [u64; 5],
    /// Events that lacked a part of the key.
    pub key_absent: u64,
    /// Actions that found no room.
    pub full: u64,
    /// Keys in the table.
    pub tracked: u64,
    /// Keys with an active action.
    pub active: u64,
    /// Sources that are blocked.
    pub blocked: u64,
    /// Keys that had to make room.
    pub evicted: u64,
    /// Those among them for which something counted.
    pub evicted_under_count: u64,
    /// Keys that found no room.
    pub untracked: u64,
    /// The memory of its tables.
    pub bytes: u64,
}

impl Cause {
    /// Of which nothing but the source is known.
    pub(super) const fn of(source: IpAddr) -> Self {
        Self {
            source,
            account: None,
            path: None,
            status: None,
            owner: None,
        }
    }
}
