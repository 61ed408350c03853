//! What the data plane is asked and what it answers, in plain types.

use ipnet::IpNet;
use limiter_common::{block::Owner, verdict::Outcome};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// How the program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachedMode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the network stack: any driver, slower.
    Generic,
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name when it was attached.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// How.
    pub mode: AttachedMode,
    /// Why not natively, where that was tried first.
    pub fallback: Option<String>,
}

/// Why a policy is in force for a time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// It is to be confirmed.
    Unconfirmed,
    /// Everything passes.
    Paused,
}

/// Packets of one interface, limit and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The interface's name; `None`: one that is not attached any more, or a
    /// test run.
    pub interface: Option<String>,
    /// The limit's name, for outcomes that a limit took part in.
    pub limit: Option<String>,
    /// What became of them, and why.
    pub outcome: Outcome,
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, without padding and checksum.
    pub bytes: u64,
}

/// A source under a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// The source's network (an address with `ipv4_prefix` 32).
    pub source: IpNet,
    /// The limit's name.
    pub limit: String,
    /// Packets passed.
    pub passed: u64,
    /// Packets dropped, or that would have been.
    pub dropped: u64,
    /// How many of these the entry does not know of yet: what two readings show
    /// may go back by as many.
    pub unsettled: u64,
    /// The last refusal, if there was one.
    pub last_refusal: Option<Outcome>,
}

/// The same in few bytes and without names: there can be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCount {
    /// The key of the source and the slot of the limit, which say no more than
    /// that two of them are the same.
    pub key: (u64, u32),
    /// Packets passed.
    pub passed: u64,
    /// Packets dropped, or that would have been.
    pub dropped: u64,
    /// How many of these the entry does not know of yet: what two readings show
    /// may go back by as many.
    pub unsettled: u64,
    /// The index of the last refusal's outcome; 0: there was none.
    pub refusal: u32,
}

/// A block to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Whom.
    pub network: IpNet,
    /// For how long; `None`: the later of what there is and the default.
    pub lasting: Option<Duration>,
    /// Who wants it: counts against whose quota.
    pub owner: Owner,
    /// The limit that it is confined to.
    pub limit: Option<String>,
}

/// A block in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockState {
    /// Whom.
    pub network: IpNet,
    /// Who made it.
    pub owner: Owner,
    /// The limit that it is confined to, or, for the kernel's, that was
    /// exceeded.
    pub limit: Option<String>,
    /// How long it will still hold.
    pub remaining: Duration,
    /// Made while the policy was not enforced; ends when it is.
    pub dry: bool,
}

/// How new sources are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodState {
    /// Admission is on.
    pub is_active: bool,
    /// Sources that got an entry so far.
    pub admitted: u64,
}

/// The first bytes of a refused packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledPacket {
    /// When it came.
    pub taken: SystemTime,
    /// The interface's name; `None`: one that is not attached any more, or a
    /// test run.
    pub interface: Option<String>,
    /// The interface's index.
    pub index: u32,
    /// What became of it, and why.
    pub outcome: Outcome,
    /// The limit's name, if one took part.
    pub limit: Option<String>,
    /// Bytes of the frame.
    pub length: u32,
    /// The first of them.
    pub frame: Vec<u8>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapUse {
    /// The map's name in metrics and documents.
    pub map: &'static str,
    /// Entries at most.
    pub capacity: u64,
    /// Entries now, where counting them is cheap.
    pub entries: Option<u64>,
}
