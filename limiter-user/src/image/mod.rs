//! A policy made ready for the packet path: the contents of every table that a
//! generation has.
//!
//! Compiling is pure. The data plane writes an [`Image`] into maps, `explain
//! --pcap` and the tests judge with it in memory.

mod classes;
mod flood;
mod lists;
mod networks;
mod slots;

pub use flood::{known_words, recent_lines};
pub use lists::{ListChange, ListKind};
pub use networks::{Difference, Done, NetworkEntry, Networks, Prefixes};
pub use slots::Slots;

use crate::policy::{
    Bucket as PolicyBucket, ControlTraffic, Edge, Exceed, Limit as PolicyLimit, Policy, Unparsed,
};
use ipnet::IpNet;
use limiter_common::{
    address::{Address, source_mask},
    bucket::Bucket,
    class::Class,
    entry::Tokens,
    layout::{
        self, CONTROL_PASS, ENFORCE, Former, GATED, HAS_LISTS, LIMITS, Limit, LimitSet, OBSERVE,
        TOTAL, UNPARSED_DROP,
    },
};
use std::net::IpAddr;

/// Control traffic that passes ahead of everything, a second, over all sources.
pub const CONTROL_PACKETS_PER_SECOND: u64 = 10_000;

/// Packets in a lease at most.
const LEASE_PACKETS: u32 = 64;
/// Bytes in a lease at most: as many packets of full Ethernet length.
const LEASE_BYTES: u32 = 64 * 1_514;

/// The contents of all per-generation tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The policy's row; its generation is set when it is put in force.
    pub policy: layout::Policy,
    /// One word per class, [`limiter_common::class::CLASSES`] of them.
    pub classes: Vec<Class>,
    /// The candidate sets that classes name.
    pub candidates: Vec<LimitSet>,
    /// By slot.
    pub limits: Vec<Limit>,
    /// By slot.
    pub formers: Vec<Former>,
    /// Sources on lists and destinations in `to`.
    pub networks: Networks,
}

/// Why a policy cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    /// More sets of candidates than the table holds.
    #[error(
        "the limits with `to` differ on too many ports: {needed} combinations, {capacity} fit; \
         use fewer port ranges in limits with `to`"
    )]
    TooManyCandidates {
        /// Sets needed.
        needed: usize,
        /// Sets that fit.
        capacity: u32,
    },
    /// A budget outside of what [`Bucket::new`] can count.
    #[error("limit `{limit}`: the budget for {budget} cannot be counted; lower its burst")]
    Bucket {
        /// The limit's name.
        limit: String,
        /// `packets`, `bytes` or `connections`.
        budget: &'static str,
    },
}

impl Image {
    /// Compiles `policy` for slots that `slots` hands out and a clock of
    /// `step_ns` nanoseconds a step. `allow` and `deny` are the lists in force:
    /// the policy's and what was added at run time.
    ///
    /// # Errors
    ///
    /// See [`ImageError`]; `slots` is then unchanged.
    pub fn compile(
        policy: &Policy,
        allow: &[IpNet],
        deny: &[IpNet],
        slots: &mut Slots,
        step_ns: u64,
    ) -> Result<Self, ImageError> {
        let edge = &policy.edge;
        let mut buckets = Vec::with_capacity(edge.limits.len());
        let mut totals = Vec::with_capacity(edge.limits.len());
        for limit in &edge.limits {
            buckets.push(limit_buckets(limit)?);
            totals.push(total_buckets(limit)?);
        }
        let mut next = slots.clone();
        let assigned = next.assign(
            edge.limits
                .iter()
                .map(|limit| limit.name.as_str())
                .zip(buckets.iter().copied()),
        );
        let (classes, candidates) =
            classes::build(&edge.limits, &assigned, &edge.safety.ssh_ports)?;
        let networks = networks::flatten(edge, allow, deny, &assigned);
        let image = Self {
            policy: policy_row(edge, networks.has_sources(), &assigned, step_ns),
            classes,
            candidates,
            limits: limit_rows(edge, &assigned, &buckets, &totals, &next, step_ns),
            formers: (0..LIMITS).map(|slot| next.former(slot)).collect(),
            networks,
        };
        *slots = next;
        Ok(image)
    }
}

/// The address and prefix length of a network.
pub fn network_parts(network: &IpNet) -> (Address, u32) {
    (address(network.network()), u32::from(network.prefix_len()))
}

/// An address as the packet path writes it.
pub fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            Address::v6((bits >> 64) as u64, bits as u64)
        }
    }
}

/// The network of `prefix` bits around an address of the packet path.
pub fn network(address: Address, prefix: u32) -> IpNet {
    let address: IpAddr = match address.family {
        limiter_common::address::Family::Ipv4 => {
            std::net::Ipv4Addr::from_bits((address.hi >> 32) as u32).into()
        }
        limiter_common::address::Family::Ipv6 => {
            std::net::Ipv6Addr::from_bits(u128::from(address.hi) << 64 | u128::from(address.lo))
                .into()
        }
    };
    let prefix = u8::try_from(prefix).unwrap_or(u8::MAX);
    IpNet::new(address, prefix).unwrap_or_else(|_| IpNet::from(address))
}

fn limit_buckets(limit: &PolicyLimit) -> Result<[Bucket; 3], ImageError> {
    Ok([
        bucket(limit, limit.connections, "connections", LEASE_PACKETS)?,
        bucket(limit, limit.packets, "packets", LEASE_PACKETS)?,
        bucket(limit, limit.bytes, "bytes", LEASE_BYTES)?,
    ])
}

fn total_buckets(limit: &PolicyLimit) -> Result<[Bucket; 3], ImageError> {
    Ok([
        bucket(limit, limit.total.connections, "total connections", 0)?,
        bucket(limit, limit.total.packets, "total packets", 0)?,
        bucket(limit, limit.total.bytes, "total bytes", 0)?,
    ])
}

fn bucket(
    limit: &PolicyLimit,
    budget: Option<PolicyBucket>,
    name: &'static str,
    lease_max_tokens: u32,
) -> Result<Bucket, ImageError> {
    let Some(PolicyBucket { rate, burst }) = budget else {
        return Ok(Bucket::NONE);
    };
    Bucket::new(rate.amount, rate.per_ns, burst, lease_max_tokens).ok_or_else(|| {
        ImageError::Bucket {
            limit: limit.name.clone(),
            budget: name,
        }
    })
}

fn policy_row(edge: &Edge, lists: bool, assigned: &[u8], step_ns: u64) -> layout::Policy {
    let flag = |set, flag| if set { flag } else { 0 };
    let mut anywhere = [0; 4];
    let mut order = [0; LIMITS];
    for (rank, (limit, slot)) in edge.limits.iter().zip(assigned).enumerate() {
        order[rank] = *slot;
        if limit.to.is_empty() {
            anywhere[rank / 64] |= 1 << (rank % 64);
        }
    }
    layout::Policy {
        generation: 0,
        flags: flag(edge.enforce, ENFORCE)
            | flag(edge.unparsed == Unparsed::Drop, UNPARSED_DROP)
            | flag(
                edge.safety.control_traffic == ControlTraffic::Pass,
                CONTROL_PASS,
            )
            | flag(lists, HAS_LISTS),
        ipv4_mask: source_mask(edge.ipv4_prefix.into()),
        ipv6_mask: source_mask(edge.ipv6_prefix.into()),
        ipv4_prefix: edge.ipv4_prefix.into(),
        ipv6_prefix: edge.ipv6_prefix.into(),
        control: Bucket::new(
            CONTROL_PACKETS_PER_SECOND,
            1_000_000_000,
            CONTROL_PACKETS_PER_SECOND,
            0,
        )
        .unwrap_or(Bucket::NONE),
        flood: flood::rules(edge, step_ns),
        anywhere,
        order,
    }
}

fn limit_rows(
    edge: &Edge,
    assigned: &[u8],
    buckets: &[[Bucket; 3]],
    totals: &[[Bucket; 3]],
    slots: &Slots,
    step_ns: u64,
) -> Vec<Limit> {
    // A slot that is free keeps its version: whoever takes it next has a later
    // one, and takes no entry of the limit of before for its own.
    let unused = |slot| {
        let (version, since) = slots.versions(slot);
        Limit {
            version,
            since,
            ..UNUSED
        }
    };
    let mut rows: Vec<Limit> = (0..LIMITS).map(unused).collect();
    let budgets = buckets.iter().zip(totals);
    for ((limit, slot), (buckets, total)) in edge.limits.iter().zip(assigned).zip(budgets) {
        let slot = usize::from(*slot);
        let (version, since) = slots.versions(slot);
        let flag = |set, flag| if set { flag } else { 0 };
        rows[slot] = Limit {
            buckets: *buckets,
            total: *total,
            // What passes a ceiling over all sources is charged there, packet by
            // packet.
            lease: match limit.total.exists() {
                true => 0,
                false => lease(buckets),
            },
            block_steps: match limit.exceed {
                Exceed::Block(duration) => {
                    u64::try_from(duration.as_nanos().div_ceil(step_ns.into())).unwrap_or(u64::MAX)
                }
                Exceed::Drop | Exceed::Observe => 0,
            },
            flags: flag(limit.exceed == Exceed::Observe, OBSERVE)
                | flag(limit.from.is_some(), GATED)
                | flag(limit.total.exists(), TOTAL),
            version,
            since,
        };
    }
    rows
}

const UNUSED: Limit = Limit {
    buckets: [Bucket::NONE; 3],
    total: [Bucket::NONE; 3],
    lease: 0,
    block_steps: 0,
    flags: 0,
    version: 0,
    since: 0,
};

/// What a lease holds: of each budget its share, of a budget that does not
/// exist more than a step can spend. 0 where a share that every packet needs
/// would be too small to be worth it.
fn lease([connections, packets, bytes]: &[Bucket; 3]) -> u64 {
    let share = |bucket: &Bucket, least| match bucket {
        bucket if !bucket.exists() => Some(u32::MAX),
        bucket if bucket.lease_tokens >= least => Some(bucket.lease_tokens),
        _ => None,
    };
    match (
        share(connections, 0),
        share(packets, 2),
        share(bytes, 2 * 1_514),
    ) {
        (Some(connections), Some(packets), Some(bytes)) => {
            Tokens::new(connections, packets, bytes).word()
        }
        _ => 0,
    }
}
