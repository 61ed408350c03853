//! What is written down: a row of the log before it is stored.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::engine::{self, Cause, Reason, What};
use crate::policy::Action;

/// Bytes of an account, a path or a word of an operator that are kept.
const LONGEST_TEXT: usize = 512;

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A failure, a status or a response header was counted.
    Counted,
    /// A request was refused.
    Refused,
    /// An action began, or was lengthened.
    Began,
    /// All actions of a key ended, or the block of a source.
    Ended,
    /// An action found no room.
    Full,
    /// What was held against a key was dropped.
    Cleared,
    /// Somebody changed something by hand.
    Hand,
}

/// Every kind; the place of each is its number in the database.
pub const KINDS: [Kind; 7] = [
    Kind::Counted,
    Kind::Refused,
    Kind::Began,
    Kind::Ended,
    Kind::Full,
    Kind::Cleared,
    Kind::Hand,
];

/// The kind of a number; `None`: a later version's.
pub(super) fn kind(number: i64) -> Option<Kind> {
    let place = usize::try_from(number).ok()?;
    KINDS.get(place).copied()
}

/// Every action; the place of each, from 1, is its number in the database, where 0 is
/// none.
pub const ACTIONS: [Action; 5] = [
    Action::Throttle,
    Action::JsChallenge,
    Action::Captcha,
    Action::Reject,
    Action::Block,
];

impl Kind {
    /// Its name in queries and exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Refused => "refused",
            Self::Began => "began",
            Self::Ended => "ended",
            Self::Full => "full",
            Self::Cleared => "cleared",
            Self::Hand => "hand",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }
}

pub(super) const fn action_number(action: Option<Action>) -> i64 {
    match action {
        Some(action) => action as i64 + 1,
        None => 0,
    }
}

/// Something that a person changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// When.
    pub at: SystemTime,
    /// Who.
    pub uid: u32,
    /// What was done, as the command that does it: `block add`, `account unlock`.
    pub order: &'static str,
    /// To what, unless that is an account: a network, a rule, an interface.
    pub subject: Option<String>,
    /// How: for how long, and what else was said.
    pub detail: Option<String>,
    /// To which account, normalised as the engine does.
    pub account: Option<String>,
    /// Under which rule.
    pub rule: Option<String>,
    /// Why, where somebody said.
    pub reason: Option<String>,
    /// How many entries were changed.
    pub count: u64,
}

impl ByHand {
    /// Somebody's order, and nothing known about it.
    #[must_use]
    pub const fn new(at: SystemTime, uid: u32, order: &'static str) -> Self {
        Self {
            at,
            uid,
            order,
            subject: None,
            detail: None,
            account: None,
            rule: None,
            reason: None,
            count: 1,
        }
    }
}

/// A row before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Row {
    /// Milliseconds since 1970.
    pub(super) at_ms: i64,
    pub(super) kind: Kind,
    pub(super) action: Option<Action>,
    pub(super) simulated: bool,
    pub(super) rule: Option<Arc<str>>,
    pub(super) key: Option<u128>,
    pub(super) source: Option<IpAddr>,
    pub(super) account: Option<Box<str>>,
    pub(super) path: Option<Box<str>>,
    pub(super) status: Option<u16>,
    /// From 1.
    pub(super) tier: Option<u32>,
    pub(super) rung: Option<u32>,
    pub(super) until_ms: Option<i64>,
    pub(super) notify_owner: bool,
    /// Why a request was refused, where it was not for what was counted.
    pub(super) refused_for: Option<Reason>,
    pub(super) hand: Option<Box<Hand>>,
    pub(super) count: u64,
}

/// What only rows of [`Kind::Hand`] have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hand {
    pub(super) uid: u32,
    pub(super) order: &'static str,
    pub(super) subject: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) reason: Option<String>,
}

impl Row {
    fn at(at_ms: i64, kind: Kind) -> Self {
        Self {
            at_ms,
            kind,
            action: None,
            simulated: false,
            rule: None,
            key: None,
            source: None,
            account: None,
            path: None,
            status: None,
            tier: None,
            rung: None,
            until_ms: None,
            notify_owner: false,
            refused_for: None,
            hand: None,
            count: 1,
        }
    }

    /// What the engine says.
    pub(super) fn of_change(change: engine::Change) -> Self {
        let mut row = Self::at(ns_to_ms(change.at_ns), Kind::Counted);
        row.rule = Some(change.rule);
        row.key = Some(change.key);
        let tier = u32::try_from(change.part + 1).ok();
        match change.what {
            What::Counted => {}
            What::Refused {
                action,
                reason,
                simulated,
            } => {
                row.kind = Kind::Refused;
                row.action = Some(action);
                row.simulated = simulated;
                row.tier = tier.filter(|_| reason.is_none());
                row.refused_for = reason;
            }
            What::Began {
                action,
                until_ns,
                rung,
                simulated,
                notify_owner,
            } => {
                row.kind = Kind::Began;
                row.action = Some(action);
                row.simulated = simulated;
                row.tier = tier;
                row.until_ms = Some(ns_to_ms(until_ns));
                row.rung = u32::try_from(rung).ok().filter(|rung| *rung > 0);
                row.notify_owner = notify_owner;
            }
            What::Ended => row.kind = Kind::Ended,
            What::Full { action } => {
                row.kind = Kind::Full;
                row.action = Some(action);
                row.tier = tier;
            }
            What::Cleared => row.kind = Kind::Cleared,
        }
        if let Some(event) = change.event {
            row.caused_by(event);
        }
        row
    }

    fn caused_by(&mut self, event: Cause) {
        self.source = Some(event.source.to_canonical());
        self.account = event.account.map(short);
        self.path = event.path.map(|path| {
            let bare = path.split(['?', '#']).next().unwrap_or_default();
            if bare.len() == path.len() {
                short(path)
            } else {
                short(bare.into())
            }
        });
        self.status = event.status;
    }

    /// What a person did.
    pub(super) fn of_hand(by_hand: ByHand) -> Self {
        let mut row = Self::at(time_to_ms(by_hand.at), Kind::Hand);
        row.rule = by_hand.rule.map(Into::into);
        row.account = by_hand.account.map(|account| short(account.into()));
        let kept = |text: Option<String>| text.map(|text| short(text.into()).into_string());
        let subject = kept(by_hand.subject);
        row.source = subject.as_deref().and_then(host);
        row.count = by_hand.count;
        row.hand = Some(Box::new(Hand {
            uid: by_hand.uid,
            order: by_hand.order,
            subject,
            detail: kept(by_hand.detail),
            reason: kept(by_hand.reason),
        }));
        row
    }
}

/// An address, or a network of one.
fn host(text: &str) -> Option<IpAddr> {
    let network = crate::policy::parse_network(text).ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr().to_canonical())
}

/// The last and the first address of a network, as bytes.
pub(super) fn ends(network: IpNet) -> (Vec<u8>, Vec<u8>) {
    (octets(network.network()), octets(network.broadcast()))
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A text that is cut where it is too long.
pub(super) fn short(text: Box<str>) -> Box<str> {
    if text.len() <= LONGEST_TEXT {
        return text;
    }
    text[..text.floor_char_boundary(LONGEST_TEXT)].into()
}

pub(super) fn ns_to_ms(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970; earlier times count as 1970.
pub(in crate::store) fn time_to_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
