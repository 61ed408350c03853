//! What the daemon and its worker say to each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::adapters::api::Group;
use crate::challenge::Keys;
use crate::challenge::captcha::Question as CaptchaQuestion;
use crate::courier::Answer as CourierAnswer;
use crate::daemon::logging;
use crate::engine::{Change, HeldBlock, HeldChange, HeldKey, Mode, Order};
use crate::event::follow::Position;
use crate::policy::Pages;

/// Which rules are in force, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The text of the policy.
    pub text: String,
    /// Whether anything is done; else it is only counted.
    pub is_enforced: bool,
    /// Rules that somebody has switched.
    pub modes: BTreeMap<String, Mode>,
    /// The files that refusals are made of, which the worker may not open.
    pub pages: Pages,
    /// What challenges are signed with, which is in a file too.
    pub challenge_keys: Keys,
}

/// The socket of the metrics among those of a [`Start`].
pub const METRICS: &str = "metrics";

pub use crate::adapters::origin::{API, CHECK};

/// What a worker begins with. The sockets come beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// How it writes its log.
    pub log: (logging::Format, logging::Level),
    /// The rules.
    pub rules: Rules,
    /// Those of the policy before: a reload may bring back what they held.
    pub before: Option<Rules>,
    /// What keys are hashed with.
    pub secret: [u8; 16],
    /// What shows that an application may ask over a port.
    pub token: Option<Vec<u8>>,
    /// What the sockets are, in their order: [`METRICS`], [`API`], [`CHECK`], and the names of origins.
    pub sockets: Vec<String>,
    /// The group that may use the API.
    pub group: Option<Group>,
    /// The user whose the daemon is.
    pub uid: u32,
    /// The number of the spawner, without which the worker does not go on.
    pub spawner: u32,
    /// How far log files were read, by their names.
    pub positions: BTreeMap<String, Position>,
}

/// To the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// Begin; the first message.
    Start(Box<Start>),
    /// What was held before, in as many messages as it takes; later what of that was not
    /// known at the beginning.
    Held {
        /// Keys.
        keys: Vec<HeldKey>,
        /// Blocks.
        blocks: Vec<HeldBlock>,
        /// Nothing more comes for now: serve.
        is_all: bool,
    },
    /// Other rules.
    Rules(Rules),
    /// A block that the NIC does not take, and why.
    Refused(Box<Order>, String),
    /// The answer to [`FromWorker::Scrape`]: the daemon's part, in the format of
    /// OpenMetrics; `None`: it cannot be had.
    Scraped {
        /// Of the request.
        id: u64,
        /// The text, without its end mark.
        text: Option<String>,
    },
    /// The answer to [`FromWorker::Open`]; files come beside it.
    Opened {
        /// Of the request.
        id: u64,
        /// How many, or why none.
        files: Result<u32, (i32, String)>,
    },
    /// The answer to [`FromWorker::Verify`], as the provider gave it.
    Verified {
        /// Of the request.
        id: u64,
        /// The answer.
        answer: CourierAnswer,
    },
    /// Something that a person wants to know or have done.
    Ask {
        /// Of the request.
        id: u64,
        /// What.
        question: Question,
    },
}

impl ToWorker {
    /// About as many bytes as it takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        let of_key = |key: &HeldKey| key.rule.len() + key.key.len() + 8 * key.until_ns.len();
        let more = match self {
            Self::Start(start) => start.rules.text.len() + 256 * start.positions.len(),
            Self::Held { keys, blocks, .. } => {
                let keys: usize = keys
                    .iter()
                    .map(|key| size_of::<HeldKey>() + of_key(key))
                    .sum();
                let blocks = blocks.iter();
                let of_block = |block: &HeldBlock| size_of::<HeldBlock>() + block.rule.len();
                keys + blocks.map(of_block).sum::<usize>()
            }
            Self::Rules(rules) => rules.text.len(),
            Self::Refused(order, why) => size_of::<Order>() + order.rule.len() + why.len(),
            Self::Scraped { text, .. } => text.as_ref().map_or(0, String::len),
            Self::Verified { answer, .. } => match answer {
                CourierAnswer::Replied { body, .. } => body.len(),
                CourierAnswer::Accepted(words)
                | CourierAnswer::Refused(words)
                | CourierAnswer::Later(words) => words.len(),
            },
            Self::Opened { .. } | Self::Ask { .. } => 0,
        };
        size_of::<Self>() + more
    }
}

/// What a person wants of the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Whether the worker lives.
    Ping,
    /// The rules at work, with what they counted.
    Rules,
    /// The origins of events.
    Origins,
    /// What comes of requests, and what is probably not meant.
    Standing,
    /// What is held against a source.
    Source(IpAddr),
    /// What is held against an account.
    Account(String),
    /// That be dropped.
    Unlock(String),
    /// Blocks of rules in this network be ended.
    Unblock(IpNet),
}

impl Question {
    /// Whether it is to change something.
    pub(super) const fn changes(&self) -> bool {
        matches!(self, Self::Unlock(_) | Self::Unblock(_))
    }
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// It serves.
    Ready,
    /// What the NIC is to do.
    Orders(Vec<Order>),
    /// For the audit log.
    Changes(Vec<Change>),
    /// Accounts that a success has shown to exist, as the engine calls them.
    Exist(Vec<String>),
    /// What of what is held has changed.
    Held(Vec<HeldChange>),
    /// What it was told later of what was held before is held.
    Recalled,
    /// All that is held, in as many messages as it takes.
    HeldAll {
        /// Nothing came before.
        is_first: bool,
        /// Keys.
        keys: Vec<HeldKey>,
        /// Blocks.
        blocks: Vec<HeldBlock>,
        /// Nothing more comes.
        is_last: bool,
    },
    /// How far log files were read, by their names.
    Positions(BTreeMap<String, Position>),
    /// Somebody scrapes.
    Scrape {
        /// Of the request.
        id: u64,
    },
    /// A log file is needed.
    Open {
        /// Of the request.
        id: u64,
        /// The name of its origin: its place in the policy may be another one's meanwhile.
        log: String,
        /// Not the file that has the name now, but that of this position, if it is beside it.
        renamed: Option<Position>,
    },
    /// The provider of CAPTCHAs is to be asked what an answer is worth.
    Verify {
        /// Of the request.
        id: u64,
        /// What is asked.
        question: CaptchaQuestion,
    },
    /// The answer to [`ToWorker::Ask`], as JSON.
    Answer {
        /// Of the request.
        id: u64,
        /// The answer.
        json: String,
    },
}
