//! What goes over the control socket, as JSON. `docs/control.md` describes it
//! for other programs.

mod requests;
mod rules;

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use requests::{AnswerRow, Requests, Standing};
pub use rules::{
    AccountRows, HTTP, HeldRow, HeldRows, NIC, NotifyRow, NotifyTested, OriginRows, RuleBlockRow,
    RuleRow, RuleRows, SampleRow, Unblocked, WorkerRow,
};

/// Why a request was not carried out: problem details (RFC 9457) with the
/// place and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The status in words.
    pub title: Box<str>,
    /// What is wrong.
    pub detail: String,
    /// Where: the entry, the parameter, the interface; may be empty.
    #[serde(rename = "where", default)]
    pub place: String,
    /// What to do; may be empty.
    #[serde(default)]
    pub help: String,
    /// For an invalid policy: every error and warning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<DiagnosticRow>,
}

impl Refusal {
    /// A refusal with its status.
    pub fn new(
        status: hyper::StatusCode,
        detail: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            detail: detail.into(),
            place: String::new(),
            help: help.into(),
            diagnostics: Vec::new(),
        }
    }

    /// The same, with the place.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }
}

/// An error or warning of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticRow {
    /// `error` or `warning`.
    pub severity: String,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The character in the line, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What is allowed.
    pub help: String,
    /// All of it with the offending line, escaped, as `check` prints it.
    pub text: String,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started (RFC 3339).
    pub started: String,
    /// For how long it runs.
    pub uptime_seconds: u64,
    /// The policy file.
    pub config: String,
    /// Whether drops are drops: not in a pause.
    pub enforce: bool,
    /// What is in force for a time.
    pub term: Option<TermRow>,
    /// How the last attempt to load the policy ended.
    pub reload: ReloadState,
    /// Where the program sits.
    pub interfaces: Vec<InterfaceRow>,
    /// The limits of the policy, in order.
    pub limits: Vec<String>,
    /// Blocks in force, by owner.
    pub blocks: BTreeMap<String, u64>,
    /// Blocks that found no room, ever.
    pub blocks_refused: u64,
    /// How new sources are treated.
    pub flood: FloodRow,
    /// Captures under way.
    pub captures: u64,
    /// Whether blocks and run-time entries are stored.
    pub state: StateRow,
    /// How the audit log fares.
    pub audit: AuditRow,
    /// Entries of the allow list, file and run time.
    pub allow: u64,
    /// Entries of the deny list.
    pub deny: u64,
    /// The list files of both.
    pub list_files: Vec<ListFileRow>,
    /// How full the tables are.
    pub maps: Vec<MapRow>,
    /// Where metrics are served; `None`: they are not.
    pub metrics: Option<String>,
    /// Where program and maps outlast the daemon; `None`: they end with it.
    pub pins: Option<String>,
    /// Why they would end with it all the same.
    pub pins_error: Option<String>,
    /// The rules of the policy, in order.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Whether the policy lets rules act (`decide.enforce`); else all are simulated. `None`:
    /// it has no `[decide]`.
    #[serde(default)]
    pub rules_enforce: Option<bool>,
    /// Rules switched at run time: `off` or `simulate`.
    #[serde(default)]
    pub switched: BTreeMap<String, String>,
    /// The process that hears events.
    #[serde(default)]
    pub worker: WorkerRow,
    /// The ways to tell what happens.
    #[serde(default)]
    pub notify: Vec<NotifyRow>,
    /// What is probably not meant, of rules and of where events come from.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What comes of requests; `None`: the policy has no rules, or the process that hears
    /// events does not answer.
    #[serde(default)]
    pub requests: Option<Requests>,
}

/// Whether blocks and run-time entries are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRow {
    /// Where.
    pub directory: String,
    /// `false`: what is changed now would not come back after a reboot.
    pub writable: bool,
    /// Why not, and what to do.
    pub error: Option<String>,
}

/// How the audit log fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Rows that wait to be written.
    pub waiting: u64,
    /// Events since the start that found no room and are in no row.
    pub dropped: u64,
    /// Why nothing is written at present, and what to do.
    pub error: Option<String>,
}

/// How new sources are treated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloodRow {
    /// They are too many: only those seen before get an entry.
    pub active: bool,
    /// Since when (RFC 3339).
    pub since: Option<String>,
    /// Packets of unknown sources in the last second.
    pub unknown_per_second: Option<u64>,
    /// Their share of all packets.
    pub unknown_percent: Option<u64>,
    /// Entries made since the program was loaded.
    pub admitted: u64,
}

/// What is in force for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermRow {
    /// `unconfirmed`: a policy that is rolled back then. `paused`: everything passes.
    pub term: String,
    /// Until when (RFC 3339).
    pub until: String,
    /// How long that is.
    pub remaining_seconds: u64,
    /// Who ordered it; `None`: a daemon before did.
    pub uid: Option<u32>,
}

/// How the last attempt to load the policy ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadState {
    /// Whether it worked.
    pub successful: bool,
    /// When a policy was loaded successfully for the last time (RFC 3339).
    pub succeeded: String,
    /// The same in seconds since 1970.
    pub succeeded_unix: u64,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// An interface that the program sits on, or should sit on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRow {
    /// Its name.
    pub interface: String,
    /// Its index; 0 where the program does not sit on it.
    pub index: u32,
    /// `native` or `generic`: how the program sits there, did, or will be tried
    /// first.
    pub mode: String,
    /// Why not natively, where that was tried first.
    pub fallback: Option<String>,
    /// `false`: it has vanished, and with it the program.
    pub present: bool,
    /// `attached`, `down` (attached, and without a carrier or switched off),
    /// `missing`, `failed` (it is there, and cannot be attached to), `detached`
    /// (by the operator, until the next reload).
    pub state: String,
    /// Since when it is down, missing or failed (RFC 3339).
    pub since: Option<String>,
    /// Why it failed.
    pub cause: Option<String>,
}

/// A file of `allow_files` or `deny_files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFileRow {
    /// `allow` or `deny`.
    pub list: String,
    /// Its path.
    pub file: String,
    /// Entries in force from it.
    pub entries: u64,
    /// Lines that could not be read when these were.
    pub skipped_lines: u64,
    /// Since when it is not in force as it is (RFC 3339).
    pub kept_since: Option<String>,
    /// Why.
    pub cause: Option<String>,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRow {
    /// Its name.
    pub map: String,
    /// Entries at most.
    pub capacity: u64,
    /// Entries now, where counting them is cheap.
    pub entries: Option<u64>,
}

/// `GET /v1/stats`: a row per interface, limit and outcome that has packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The rows.
    pub counters: Vec<CounterRow>,
}

/// Packets of one interface, limit and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// The interface; `None`: one that is not attached any more.
    pub interface: Option<String>,
    /// The limit, if one took part.
    pub limit: Option<String>,
    /// What became of them, and why.
    #[serde(flatten)]
    pub outcome: OutcomeRow,
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What became of a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OutcomeRow {
    /// `pass`, `drop` or `would_drop`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// For reason `limit`: the budget that ran out.
    pub budget: Option<String>,
}

/// `GET /v1/sources`: the busiest first. Measured over a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// How many there are in all.
    pub total: u64,
    /// As many as were asked for.
    pub sources: Vec<SourceRow>,
}

/// A source under a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// The source.
    pub source: IpNet,
    /// The limit.
    pub limit: String,
    /// Packets a second just now, passed and dropped; absent where it was not
    /// measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_per_second: Option<u64>,
    /// Packets passed.
    pub passed: u64,
    /// Packets dropped, or that would have been.
    pub dropped: u64,
    /// The last refusal.
    pub last_refusal: Option<OutcomeRow>,
}

/// `GET /v1/observation`: what sources sent while they were watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// For how long, in milliseconds.
    pub watched_ms: u64,
    /// How often the sources were read meanwhile.
    pub readings: u64,
    /// The longest time between two readings, in milliseconds.
    pub longest_interval_ms: u64,
    /// Whether drops are drops.
    pub enforce: bool,
    /// How often a source's count began anew, because the source had been
    /// pushed out of the table: what it sent before is not in the figures.
    pub restarted: u64,
    /// Sources that were too many to be followed.
    pub not_followed: u64,
    /// The limits of the policy, in order.
    pub limits: Vec<ObservedLimit>,
}

/// What sources sent under a limit. Sources on the allow and deny lists are
/// left out, but not of the limit's totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedLimit {
    /// The limit.
    pub limit: String,
    /// Sources that sent anything meanwhile.
    pub sources: u64,
    /// Packets a second over sources, each with its busiest interval.
    pub packets_per_second: Spread,
    /// The most packets of one source in one interval.
    pub packets_at_once: u64,
    /// The source with the most packets a second.
    pub busiest: Option<IpNet>,
    /// Packets of all sources, within the limit and over it.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Packets over the limit, dropped or not, by the budget that ran out.
    pub refused: BTreeMap<String, u64>,
    /// The budgets in force, by name: `packets`, `bytes`, `connections`.
    pub budgets: BTreeMap<String, BudgetRow>,
}

/// The distribution of a figure over sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the sources are at or below.
    pub p50: u64,
    /// 99 in 100 are at or below.
    pub p99: u64,
    /// All are at or below.
    pub max: u64,
}

/// A budget of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRow {
    /// As in the policy, as `5000/s`.
    pub rate: String,
    /// Packets, bytes or connections.
    pub burst: u64,
}

/// A capture to begin: `POST /v1/captures`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureOrder {
    /// Only packets refused for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Packets at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// For how long at most, as `1m`.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
    /// Bytes of a packet at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snap_length: Option<u32>,
}

/// The answer: a capture has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureBegun {
    /// Its number.
    pub id: u64,
    /// The interfaces that the program is on.
    pub interfaces: Vec<String>,
}

/// `GET /v1/captures` and `DELETE /v1/captures`: what was captured since the
/// last time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPackets {
    /// The packets, the earliest first.
    pub packets: Vec<PacketRow>,
    /// `false`: it has ended, and there will be no more.
    pub under_way: bool,
    /// Packets captured since it began.
    pub taken: u64,
    /// Packets sampled and lost, because they were not fetched in time.
    pub lost: u64,
    /// All packets that were refused for the reason asked for meanwhile; known
    /// once it has ended.
    pub refused: Option<RefusedRow>,
}

/// Packets refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// Dropped.
    pub drop: u64,
    /// Passed because of a dry run.
    pub would_drop: u64,
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketRow {
    /// When it came, in nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// The interface; `None`: one that is not attached any more.
    pub interface: Option<String>,
    /// The interface's index.
    pub index: u32,
    /// What became of it, and why.
    #[serde(flatten)]
    pub outcome: OutcomeRow,
    /// The limit, if one took part.
    pub limit: Option<String>,
    /// Bytes of the frame.
    pub length: u32,
    /// The first of them, in hexadecimal digits.
    pub frame: String,
}

/// An entry to add: `POST /v1/blocks`, `POST /v1/lists/…`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The network or address.
    pub network: String,
    /// For how long, as `15m`.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
    /// Why, for whoever lists it later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For blocks: the limit that it is confined to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

/// `GET /v1/blocks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// The blocks in force, the one that ends last first.
    pub blocks: Vec<BlockRow>,
}

/// A block in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRow {
    /// Whom.
    pub network: IpNet,
    /// `operator`, `rule` or `kernel`.
    pub owner: String,
    /// The limit that it is confined to, or, for the kernel's, that was
    /// exceeded.
    pub limit: Option<String>,
    /// How long it will still hold.
    pub remaining_seconds: u64,
    /// Until when (RFC 3339).
    pub expires: String,
    /// Whether it only counts, because the policy was not enforced.
    pub dry: bool,
    /// Why, where somebody said.
    pub reason: Option<String>,
    /// Since when (RFC 3339), where this daemon made it.
    pub since: Option<String>,
    /// The user who made it.
    pub uid: Option<u32>,
    /// The rule that made it.
    pub rule: Option<RuleBlockRow>,
}

/// `GET /v1/lists/allow` and `/v1/lists/deny`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The entries, by network.
    pub entries: Vec<ListRow>,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRow {
    /// Whom.
    pub network: IpNet,
    /// `file` or `runtime`.
    pub origin: String,
    /// Since when it holds (RFC 3339); for the file: since it was loaded.
    pub since: String,
    /// How long it will still hold; `None`: for good.
    pub remaining_seconds: Option<u64>,
    /// Until when (RFC 3339).
    pub expires: Option<String>,
    /// Why, where somebody said.
    pub reason: Option<String>,
    /// The user who added it.
    pub uid: Option<u32>,
    /// For deny: the allow that takes its effect away.
    pub overruled_by: Option<IpNet>,
}

/// The answer to a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// How many entries were added or removed.
    pub changed: u64,
    /// What the one who asked should know.
    pub notices: Vec<String>,
    /// The blocks as they are now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRow>,
}

/// `POST /v1/reload`, `confirm`, `pause` and `resume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The limits now in force.
    pub limits: u64,
    /// The rules now in force.
    #[serde(default)]
    pub rules: u64,
    /// Interfaces that the program was put on.
    pub attached: Vec<String>,
    /// Interfaces that it was taken off.
    pub detached: Vec<String>,
    /// What was not carried out, or is probably not meant.
    pub notices: Vec<String>,
    /// The warnings of the policy.
    pub warnings: Vec<DiagnosticRow>,
    /// What is in force for a time.
    pub term: Option<TermRow>,
}

/// `DELETE /v1/interfaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// The interfaces that the program was taken off.
    pub detached: Vec<String>,
}

/// `GET /v1/audit`: what was asked for.
pub use crate::store::audit::Answer as AuditAnswer;

/// An account that is to be forgotten: `POST /v1/audit/erase`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseOrder {
    /// Whose name and rows; as it is typed.
    pub account: String,
}

/// The answer: it is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Rows that were deleted.
    pub rows: u64,
}

/// `GET /v1/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who was asked for.
    pub source: IpNet,
    /// What decides: `martian`, `allow`, `deny`, `block` or `limit`; the words
    /// of the reasons.
    pub decided_by: String,
    /// The same in words.
    pub summary: String,
    /// Whether drops are drops.
    pub enforce: bool,
    /// Entries of the allow list that contain it.
    pub allow: Vec<ListRow>,
    /// Entries of the deny list that contain it.
    pub deny: Vec<ListRow>,
    /// Blocks that contain it.
    pub blocks: Vec<BlockRow>,
    /// Its traffic under each limit that it has met.
    pub limits: Vec<SourceRow>,
    /// Limits whose `from` does not name it: there, its packets are dropped.
    pub not_from: Vec<String>,
    /// How many entries and blocks lie inside it, if it is a network.
    pub inside: u64,
    /// What rules hold against it.
    #[serde(default)]
    pub held: Vec<HeldRow>,
}
