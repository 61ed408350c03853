//! The validated policy: what the rest of the program may rely on.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::decide::Decide;
use super::notify::Notify;
use super::sources::ListSources;
use super::units::Rate;

/// A policy without errors. Every value is inside its documented range.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// What happens to packets.
    pub edge: Edge,
    /// Where counters are served.
    pub metrics: Metrics,
    /// Who may give orders, and where.
    pub control: Control,
    /// What is kept on disk.
    pub state: State,
    /// What decides on requests and logins; `None`: nothing does.
    pub decide: Option<Decide>,
    /// Who is told what happens; `None`: nobody.
    pub notify: Option<Notify>,
}

/// `[edge]`: the packet level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    /// Interface names or globs, without exact duplicates; may be empty.
    pub interfaces: Vec<String>,
    /// How the program is attached.
    pub mode: Mode,
    /// `false`: every drop becomes would_drop.
    pub enforce: bool,
    /// What becomes of the program when the daemon ends.
    pub on_exit: OnExit,
    /// Bits of an IPv4 address that make a source, 8 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make a source, 16 to 64.
    pub ipv6_prefix: u8,
    /// Tracked (source, limit) entries, 1,024 to 16,777,216.
    pub sources: u32,
    /// What becomes of frames whose IP header cannot be read.
    pub unparsed: Unparsed,
    /// Never limited, denied or blocked; sorted, list files merged in, no
    /// duplicates.
    pub allow: Vec<IpNet>,
    /// Always dropped; sorted, list files merged in, no duplicates. Of what the
    /// policy file itself names nothing lies inside what it allows; an entry of
    /// a list file may, and has no effect then.
    pub deny: Vec<IpNet>,
    /// What `allow` was made of.
    #[serde(skip)]
    pub allow_from: Arc<ListSources>,
    /// What `deny` was made of.
    #[serde(skip)]
    pub deny_from: Arc<ListSources>,
    /// What happens when more new sources come than can be tracked.
    pub flood: Flood,
    /// What limiter never does, lest it harm its own host.
    pub safety: Safety,
    /// Capacities of the kernel tables.
    pub tables: Tables,
    /// The limits in the order of the file: the first that matches applies.
    /// At most [`MAX_LIMITS`](super::MAX_LIMITS), with distinct names.
    pub limits: Vec<Limit>,
}

/// `edge.mode`: how the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Native, else generic with the cause said.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the network stack, on any interface.
    Generic,
}

/// `edge.on_exit`: what becomes of the program when the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// The program stays at work, for the next daemon to take over.
    Keep,
    /// The program is taken off the interfaces.
    Detach,
}

/// `edge.unparsed`: what becomes of frames whose IP header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unparsed {
    /// They pass, counted.
    Pass,
    /// They are dropped, counted.
    Drop,
}

/// `[edge.safety]`: what limiter never does, lest it harm its own host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Safety {
    /// TCP ports to which no block applies; sorted, no duplicates, at most
    /// [`MAX_SSH_PORTS`](super::MAX_SSH_PORTS).
    pub ssh_ports: Vec<u16>,
    /// What becomes of ARP, neighbour discovery, DHCP and path-MTU errors.
    pub control_traffic: ControlTraffic,
}

/// `edge.safety.control_traffic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlTraffic {
    /// Passed, within a generous limit of its own.
    Pass,
    /// Treated as any other packet.
    Limit,
}

/// `[edge.tables]`: capacities, in entries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tables {
    /// Blocks set by operators.
    pub blocks_operator: u32,
    /// Blocks set by rules.
    pub blocks_rule: u32,
    /// Blocks set by the kernel program (`exceed = { block = … }`).
    pub blocks_kernel: u32,
    /// Entries of allow and deny together.
    pub lists: u32,
    /// Interfaces attached at once.
    pub interfaces: u32,
    /// Sources remembered as seen of late during a flood.
    pub recent: u32,
}

/// `[edge.flood]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flood {
    /// New sources beyond this rate turn admission on.
    pub new_sources: Rate,
    /// What sources that are not admitted share.
    pub unknown: Unknown,
    /// Which networks get only a part of that.
    pub aggregate: Aggregate,
}

/// `edge.flood.unknown`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unknown {
    /// All packets but connection attempts.
    pub packets: Bucket,
    /// TCP SYNs without ACK.
    pub connections: Bucket,
}

/// `edge.flood.aggregate`: prefix lengths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Aggregate {
    /// 8 to 32.
    pub ipv4: u8,
    /// 16 to 64.
    pub ipv6: u8,
}

/// `[[edge.limit]]`: token buckets per source for the packets it matches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// 1 to 63 of `A-Z a-z 0-9 _ . -`, unique in the policy.
    pub name: String,
    /// Which packets match, by protocol.
    pub protocol: Protocol,
    /// Destination ports, sorted, merged where they touch; empty: all. Only
    /// with [`Protocol::Tcp`] and [`Protocol::Udp`]; never port 0.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Destination networks; empty: all.
    pub to: Vec<IpNet>,
    /// Budget in packets.
    pub packets: Option<Bucket>,
    /// Budget in bytes of whole frames.
    pub bytes: Option<Bucket>,
    /// Budget in TCP SYNs without ACK; only with [`Protocol::Tcp`] and
    /// [`Protocol::Any`].
    pub connections: Option<Bucket>,
    /// What becomes of packets over the budget.
    pub exceed: Exceed,
    /// Ceilings over all sources.
    pub total: Total,
    /// A gate: packets of sources outside are dropped. `Some` is never empty.
    pub from: Option<Vec<IpNet>>,
}

/// `edge.limit.total`: ceilings over all sources together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    /// In packets.
    pub packets: Option<Bucket>,
    /// In bytes of whole frames.
    pub bytes: Option<Bucket>,
    /// In TCP SYNs without ACK.
    pub connections: Option<Bucket>,
}

impl Total {
    /// Whether there is any ceiling.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.packets.is_some() || self.bytes.is_some() || self.connections.is_some()
    }
}

/// `edge.limit.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// Every IP protocol.
    Any,
}

/// A token bucket. It refills from empty in at most
/// [`MAX_REFILL`](super::MAX_REFILL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// How fast it refills.
    pub rate: Rate,
    /// How many tokens (packets, connections or bytes) it holds; at least one
    /// packet, or [`LARGEST_FRAME_BYTES`](super::LARGEST_FRAME_BYTES).
    pub burst: u64,
}

/// `edge.limit.exceed`: what becomes of packets over the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Exceed {
    /// They are dropped.
    Drop,
    /// They pass and count as would_drop.
    Observe,
    /// They are dropped and the source is blocked for so long, 1 s to 30 d.
    Block(Duration),
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// A loopback address and port; port 0 leaves the choice to the kernel.
    pub listen: SocketAddr,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Control {
    /// Absolute path, at most 107 bytes.
    pub socket: PathBuf,
    /// The group that may change things.
    pub group: String,
    /// The group that may look.
    pub read_group: Option<String>,
}

/// `state.pins` where the policy does not say: beside, not inside the directory of
/// the control socket, which service managers empty at a stop.
pub const DEFAULT_PINS: &str = "/run/limiter-bpf";

/// `state.directory` where the policy does not say.
pub const DEFAULT_STATE: &str = "/var/lib/limiter";

/// `[state]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// Absolute path.
    pub directory: PathBuf,
    /// Where maps and links outlive the daemon: a BPF file system, absolute path.
    pub pins: PathBuf,
    /// How long rows of the audit log are kept, 1 h to 3,650 d.
    pub retention: Duration,
    /// How large the database may become before the oldest of them go, in bytes; 16 MiB
    /// to 1,000 GiB.
    pub audit_size: u64,
}
