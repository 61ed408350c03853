//! The values that cross the kernel boundary: what the control plane writes
//! and the packet path reads.
//!
//! All are plain integers without implicit padding, and every one's size is
//! asserted beside it. [`LAYOUT_VERSION`] changes with any of them.

use crate::{
    address::{Address, Family, SourceKey},
    bucket::Bucket,
    flood::FloodRules,
    sample::Refusals,
};

/// The version of everything in this crate that lies in a map.
pub const LAYOUT_VERSION: u32 = 5;

/// Limits of a policy at most.
pub const LIMITS: usize = 256;

/// Words of a bitmap over the limits of a policy.
pub const LIMIT_WORDS: usize = LIMITS / 64;

/// A set of limits, by rank: bit 0 is the policy's first.
pub type LimitSet = [u64; LIMIT_WORDS];

/// What all packets of one generation share. Two rows exist; a packet reads
/// the generation once and with it one row ([`row`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Policy {
    /// Counts reloads and changes of the lists; what an entry remembers of the
    /// lists holds for one generation. Packets go by [`Active::in_force`].
    pub generation: u32,
    /// [`ENFORCE`], [`UNPARSED_DROP`], [`CONTROL_PASS`], [`HAS_LISTS`].
    pub flags: u32,
    /// [`crate::address::source_mask`] of `ipv4_prefix`.
    pub ipv4_mask: u64,
    /// The same of `ipv6_prefix`.
    pub ipv6_mask: u64,
    /// `ipv4_prefix`, the length of a kernel block of an IPv4 source.
    pub ipv4_prefix: u32,
    /// `ipv6_prefix`.
    pub ipv6_prefix: u32,
    /// The budget of control traffic, shared by all sources.
    pub control: Bucket,
    /// Who gets an entry when new sources are too many.
    pub flood: FloodRules,
    /// The limits without `to`, by rank: what matches a destination that no
    /// `to` names.
    pub anywhere: LimitSet,
    /// From rank to slot.
    pub order: [u8; LIMITS],
}
const _: () = assert!(size_of::<Policy>() == 832);

/// Drops are carried out; without it they become `would_drop`.
pub const ENFORCE: u32 = 1;
/// Frames whose IP header cannot be read are dropped.
pub const UNPARSED_DROP: u32 = 1 << 1;
/// Control traffic passes ahead of lists and limits.
pub const CONTROL_PASS: u32 = 1 << 2;
/// There is an allow, deny or `from` entry: sources must be looked up.
pub const HAS_LISTS: u32 = 1 << 3;

/// Which of the two rows of every per-generation table `generation` uses.
#[inline(always)]
pub const fn row(generation: u32) -> u32 {
    generation & 1
}

/// One limit. Its place, the *slot*, stays with its name over reloads and is
/// part of the key of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Limit {
    /// Budgets in the order in which they are reported: connections, packets,
    /// bytes.
    pub buckets: [Bucket; 3],
    /// Ceilings over all sources together, in the same order.
    pub total: [Bucket; 3],
    /// What a lease holds, as [`crate::entry::Tokens`]; 0: none is given.
    pub lease: u64,
    /// For how many clock steps the kernel blocks a source that exceeds it; 0:
    /// it does not.
    pub block_steps: u64,
    /// [`OBSERVE`], [`GATED`], [`TOTAL`].
    pub flags: u32,
    /// Changes whenever a rate or burst does; never 0. Serial numbers: compare
    /// by wrapping difference.
    pub version: u16,
    /// The version at which this name took the slot.
    pub since: u16,
}
const _: () = assert!(size_of::<Limit>() == 264);

/// A limit that refuses only on paper.
pub const OBSERVE: u32 = 1;
/// A limit with `from`.
pub const GATED: u32 = 1 << 1;
/// A limit with a ceiling over all sources.
pub const TOTAL: u32 = 1 << 2;

/// The budgets of a limit before its last change, with which buckets that were
/// filled under them are converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Former {
    /// As they were in [`Limit::buckets`].
    pub buckets: [Bucket; 3],
    /// As it was in [`Limit::version`]; 0: there is none.
    pub version: u16,
    /// Zero.
    pub reserved: [u8; 6],
}
const _: () = assert!(size_of::<Former>() == 128);

/// Key of the one trie of networks: sources on lists and destinations in `to`.
///
/// The tag comes first, so that rows, kinds and families are separate subtrees
/// and a prefix never leaks from one into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct NetworkKey {
    /// Row, [`Kind`], family, zeros: a whole word, which is what the trie
    /// compares at a time.
    pub tag: [u8; 8],
    /// The address in network order, left-aligned.
    pub address: [u8; 16],
}
const _: () = assert!(size_of::<NetworkKey>() == 24);

/// What a network in the trie is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The source: allow, deny, `from`.
    Source = 0,
    /// The destination: `to`.
    Destination = 1,
}

impl NetworkKey {
    /// Bits ahead of the address.
    pub const TAG_BITS: u32 = 64;

    /// The key of `address`.
    #[inline(always)]
    pub const fn new(row: u32, kind: Kind, address: Address) -> Self {
        let hi = address.hi.to_be_bytes();
        let lo = address.lo.to_be_bytes();
        Self {
            tag: [row as u8, kind as u8, address.family as u8, 0, 0, 0, 0, 0],
            address: [
                hi[0], hi[1], hi[2], hi[3], hi[4], hi[5], hi[6], hi[7], lo[0], lo[1], lo[2], lo[3],
                lo[4], lo[5], lo[6], lo[7],
            ],
        }
    }

    /// The prefix length in the trie of a network of `prefix` bits.
    #[inline(always)]
    pub const fn bits(prefix: u32) -> u32 {
        Self::TAG_BITS + prefix
    }

    /// The prefix length with which a whole address is looked up.
    #[inline(always)]
    pub const fn host_bits(family: Family) -> u32 {
        Self::bits(family.bits())
    }
}

/// What the trie says of a network, inheritance already worked in: the longest
/// match alone tells all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Network {
    /// For sources: [`ALLOW`], [`DENY`], [`SPLIT`].
    pub flags: u64,
    /// For sources: the limits, by slot, whose `from` names it. For
    /// destinations: the limits, by rank, that it can match.
    pub limits: LimitSet,
}
const _: () = assert!(size_of::<Network>() == 40);

/// On the allow list.
pub const ALLOW: u64 = 1;
/// On the deny list.
pub const DENY: u64 = 1 << 1;
/// Addresses of one source (one `ipv4_prefix` or `ipv6_prefix`) differ here:
/// an entry must not remember the answer.
pub const SPLIT: u64 = 1 << 2;

/// Key of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct EntryKey {
    /// [`crate::address::SourceKey`], its halves in host order.
    pub source: [u32; 2],
    /// The limit's slot.
    pub limit: u32,
}
const _: () = assert!(size_of::<EntryKey>() == 12);

impl EntryKey {
    /// The key of `source` under the limit in slot `limit`.
    #[inline(always)]
    pub const fn new(source: SourceKey, limit: u32) -> Self {
        Self {
            source: [(source.0 >> 32) as u32, source.0 as u32],
            limit,
        }
    }

    /// Whose it is.
    #[inline(always)]
    pub const fn source(&self) -> SourceKey {
        SourceKey((self.source[0] as u64) << 32 | self.source[1] as u64)
    }
}

/// Packets and bytes of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, without padding and checksum.
    pub bytes: u64,
}
const _: () = assert!(size_of::<Tally>() == 16);

/// Where an interface's counters are, and what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// Its index in the kernel.
    pub index: u32,
    /// Its row of counters; row 0 is every interface that is not known.
    pub row: u16,
    /// [`LOOPBACK`].
    pub flags: u16,
}
const _: () = assert!(size_of::<Interface>() == 8);

/// `lo`, on which no source is a martian.
pub const LOOPBACK: u16 = 1;

/// Places of the table from interface index to [`Interface`].
pub const INTERFACE_PLACES: u32 = 256;

/// The place of interface `index` under `factor`, which the control plane
/// chooses so that no two attached interfaces share one.
#[inline(always)]
pub const fn interface_place(index: u32, factor: u32) -> u32 {
    index.wrapping_mul(factor) >> 24
}

/// What is known of the running program beside its policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Active {
    /// The generation in force until `until_step`: the latest that any packet
    /// went by.
    pub generation: u32,
    /// The generation in force from then on, in the other row.
    pub then: u32,
    /// The first clock step at which `then` is in force; [`NEVER`].
    pub until_step: u64,
    /// Why there is an end: [`UNCONFIRMED`], [`PAUSED`], or 0. For whoever takes
    /// over from the process that wrote it.
    pub term: u32,
    /// The factor of [`interface_place`].
    pub interface_factor: u32,
    /// Always 0, which the verifier cannot know ([`crate::tables::Tables::opaque`]).
    pub zero: u32,
    /// The refused packets of which samples are wanted; mostly none.
    pub sampled: Refusals,
}
const _: () = assert!(size_of::<Active>() == 32);

/// A clock step that does not come.
pub const NEVER: u64 = u64::MAX;

/// The policy was put in force to be confirmed.
pub const UNCONFIRMED: u32 = 1;
/// Everything passes for a while.
pub const PAUSED: u32 = 2;

impl Active {
    /// The generation by which a packet of clock step `step` goes.
    #[inline(always)]
    pub const fn in_force(&self, step: u64) -> u32 {
        if step < self.until_step {
            self.generation
        } else {
            self.then
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_an_end_is_followed_at_that_very_step() {
        let active = Active {
            generation: 8,
            then: 7,
            until_step: 1_000,
            ..Active::default()
        };
        assert_eq!(
            [999, 1_000, 1_001].map(|step| active.in_force(step)),
            [8, 7, 7]
        );
    }
}
