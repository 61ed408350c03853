//! Rules, what they hold and what they ordered.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::adapters::origin::Row;
use crate::engine::{Cause, Tally};
use crate::notify::Tried;

/// The process that hears events and serves the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number; `None`: there is none just now.
    pub pid: Option<u32>,
    /// How often it had to be started again.
    pub restarts: u64,
    /// How the last one ended.
    pub last_end: Option<String>,
}

/// A way to tell what happens (`[notify]`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyRow {
    /// `mail` or `webhook`.
    pub channel: String,
    /// Notifications that wait, or are tried again.
    pub waiting: u64,
    /// Those that arrived since the start.
    pub sent: u64,
    /// Those that were refused or given up since the start.
    pub failed: u64,
    /// Why the last one did not arrive; `None`: it did.
    pub last_error: Option<String>,
}

/// `POST /v1/notify/test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyTested {
    /// What each way made of it.
    pub tried: Vec<Tried>,
}

/// `GET /v1/rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRows {
    /// In the order of the policy.
    pub rules: Vec<RuleRow>,
}

/// A rule at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// Its name.
    pub name: String,
    /// `on`, `simulate` or `off`, as switched at run time.
    pub mode: String,
    /// What it has counted since it came into force.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A block of a source is carried out at the NIC.
pub const NIC: &str = "nic";
/// It is carried out by refusing the requests of the source.
pub const HTTP: &str = "http";

/// What rules hold against a source or an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRows {
    /// One for each rule that holds something.
    pub held: Vec<HeldRow>,
}

/// `GET` and `DELETE /v1/accounts`: what rules hold against an account, or did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRows {
    /// The account as the rules compare it.
    pub account: String,
    /// One for each rule that holds something.
    pub held: Vec<HeldRow>,
}

/// What a rule holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// The rule.
    pub rule: String,
    /// The source as the rule sees it.
    pub source: Option<IpNet>,
    /// What it does; `None`: it only counts so far.
    pub action: Option<String>,
    /// Until when (RFC 3339), if nothing more happens.
    pub until: Option<String>,
    /// Where a block of the whole source is carried out: [`NIC`] or [`HTTP`]; `None` too
    /// where nothing is done.
    pub place: Option<String>,
    /// Why not at the NIC.
    #[serde(default)]
    pub why: Option<String>,
    /// How many events count.
    pub counted: Option<u64>,
    /// How many more pass.
    pub remaining: Option<u64>,
    /// The rungs reached, where it is a ladder.
    pub rungs: u64,
    /// Why it refuses requests, where that is not for what was counted.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether nothing of it is done.
    pub simulated: bool,
    /// Why the rule does nothing about the source, whatever it has counted: it is switched off,
    /// or the source is exempt.
    #[serde(default)]
    pub idle: Option<String>,
}

/// `GET /v1/origins`: where events come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginRows {
    /// One for each.
    pub origins: Vec<Row>,
}

/// The rules whose blocks were ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unblocked {
    /// Their names.
    pub rules: Vec<String>,
}

/// The rule behind a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleBlockRow {
    /// Its name.
    pub rule: String,
    /// Its tier, from 1; of a ladder the rung.
    pub step: u64,
    /// Whether it is a ladder.
    pub is_ladder: bool,
    /// The event that reached the limit.
    pub sample: SampleRow,
}

/// What is told of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// The client.
    pub source: IpAddr,
    /// The normalised path.
    pub path: Option<String>,
    /// The status.
    pub status: Option<u16>,
}

/// Characters of a path that are told.
const PATH: usize = 256;

fn short(path: &str) -> String {
    path.chars().take(PATH).collect()
}

impl RuleBlockRow {
    /// The rule behind a block; `part` from 0, `rung` from 1, or 0 where it is no ladder.
    #[must_use]
    pub fn new(rule: &str, part: usize, rung: u64, cause: &Cause) -> Self {
        let tier = u64::try_from(part).unwrap_or(u64::MAX).saturating_add(1);
        Self {
            rule: rule.to_owned(),
            step: if rung > 0 { rung } else { tier },
            is_ladder: rung > 0,
            sample: SampleRow {
                source: cause.source,
                path: cause.path.as_deref().map(short),
                status: cause.status,
            },
        }
    }

    /// In a line.
    #[must_use]
    pub fn in_words(&self) -> String {
        let step = if self.is_ladder { "rung" } else { "tier" };
        let mut words = format!("rule {}, {step} {}", self.rule, self.step);
        if let Some(path) = &self.sample.path {
            words.push_str(&format!(", as {}", path));
        }
        if let Some(status) = self.sample.status {
            words.push_str(&format!(" with status {status}"));
        }
        words
    }
}
