//! Blocks: keys, prefix lengths, and the kernel's own table.

use crate::{
    address::{Address, Family, SourceKey},
    atomic::Word,
    filter::is_wide,
};

/// Key of a block in the control plane's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct BlockKey {
    /// The network's first address, as [`Address`], host order.
    pub hi: u64,
    /// Its lower half.
    pub lo: u64,
    /// The family's number (high half) and the prefix length (low half).
    pub prefix: u32,
    /// The slot plus one of the limit that it is confined to; 0: none.
    pub limit: u32,
}
const _: () = assert!(size_of::<BlockKey>() == 24);

impl BlockKey {
    /// The key of the network of `prefix` bits around `address`.
    #[inline(always)]
    pub const fn new(address: Address, prefix: u32, limit: u32) -> Self {
        let address = address.masked(prefix);
        Self {
            hi: address.hi,
            lo: address.lo,
            prefix: (address.family as u32) << 16 | prefix,
            limit,
        }
    }

    /// The network: its first address and prefix length.
    pub const fn network(&self) -> (Address, u32) {
        let family = if self.prefix >> 16 == Family::Ipv4 as u32 {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        let address = Address {
            family,
            hi: self.hi,
            lo: self.lo,
        };
        (address, self.prefix & 0xffff)
    }
}

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// The first clock step at which it no longer holds.
    pub expires_step: u64,
    /// [`DRY`].
    pub flags: u32,
    /// [`Owner`].
    pub owner: u32,
}
const _: () = assert!(size_of::<Block>() == 16);

/// Made while the policy was not enforced: it only counts, and ends when the
/// policy is.
pub const DRY: u32 = 1;

/// Who made a block. Each has its own quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Owner {
    /// Somebody at the command line or the control socket.
    Operator = 0,
    /// A rule of the policy.
    Rule = 1,
    /// The packet path (`exceed = { block = … }`).
    Kernel = 2,
}

impl Owner {
    /// The word used in answers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Rule => "rule",
            Self::Kernel => "kernel",
        }
    }
}

/// The prefix lengths of the blocks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Lengths {
    /// IPv4, then IPv6.
    pub families: [FamilyLengths; 2],
}

/// The prefix lengths of one family's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FamilyLengths {
    /// How many of `lengths` count.
    pub count: u32,
    /// 1 if one of them is wide ([`crate::filter`]).
    pub wide: u32,
    /// The lengths, in no order.
    pub lengths: [Length; LENGTHS],
}
const _: () = assert!(size_of::<FamilyLengths>() == 8 + 24 * LENGTHS);

/// A prefix length, its mask worked out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Length {
    /// Mask of [`Address::hi`].
    pub hi: u64,
    /// Mask of [`Address::lo`].
    pub lo: u64,
    /// As in [`BlockKey::prefix`].
    pub prefix: u32,
    /// 1 if it is wide ([`crate::filter`]).
    pub wide: u32,
}

/// Different prefix lengths of blocks in each family at most.
pub const LENGTHS: usize = 16;

impl Length {
    /// The length `prefix` of `family`.
    pub const fn new(family: Family, prefix: u32) -> Self {
        let ones = Address {
            family,
            hi: u64::MAX,
            lo: u64::MAX,
        };
        let key = BlockKey::new(ones, prefix, 0);
        Self {
            hi: key.hi,
            lo: key.lo,
            prefix: key.prefix,
            wide: is_wide(family, prefix) as u32,
        }
    }

    /// The key of this length's network around `address`.
    #[inline(always)]
    pub const fn key(&self, address: Address, limit: u32) -> BlockKey {
        BlockKey {
            hi: address.hi & self.hi,
            lo: address.lo & self.lo,
            prefix: self.prefix,
            limit,
        }
    }
}

impl Lengths {
    /// No blocks.
    pub const NONE: Self = Self {
        families: [FamilyLengths {
            count: 0,
            wide: 0,
            lengths: [Length {
                hi: 0,
                lo: 0,
                prefix: 0,
                wide: 0,
            }; LENGTHS],
        }; 2],
    };

    /// Those of `family`.
    #[inline(always)]
    pub const fn of(&self, family: Family) -> &FamilyLengths {
        match family {
            Family::Ipv4 => &self.families[0],
            Family::Ipv6 => &self.families[1],
        }
    }
}

/// Blocks that share a place in the kernel's own table.
pub const WAYS: usize = 8;

/// A place in the kernel's own table. It needs no allocation, cannot fail, and
/// what a new block replaces is the one of its place that expires first.
#[derive(Debug, Default)]
#[repr(C)]
pub struct KernelBlocks {
    /// The blocks; one whose time is over is free.
    pub ways: [KernelBlock; WAYS],
}
const _: () = assert!(size_of::<KernelBlocks>() == 192);

/// A block made by the packet path.
#[derive(Debug, Default)]
#[repr(C)]
pub struct KernelBlock {
    /// [`SourceKey`].
    pub source: Word,
    /// The first clock step at which it no longer holds, [`KERNEL_DRY`] set or
    /// not; 0: free.
    pub expires: Word,
    /// The slot of the limit that was exceeded.
    pub limit: Word,
}

/// The bit of [`KernelBlock::expires`] that makes it [`DRY`].
pub const KERNEL_DRY: u64 = 1 << 63;

/// The place of a source in a kernel table of `places`, a power of two.
#[inline(always)]
pub const fn kernel_place(source: SourceKey, seed: u64, places: u32) -> u32 {
    let hash = (source.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 32) as u32 & (places - 1)
}

impl KernelBlocks {
    /// The place that these words of a map hold, as user space reads them.
    #[cfg(not(target_arch = "bpf"))]
    pub fn from_words(words: [u64; 3 * WAYS]) -> Self {
        Self {
            ways: core::array::from_fn(|way| KernelBlock {
                source: Word::new(words[3 * way]),
                expires: Word::new(words[3 * way + 1]),
                limit: Word::new(words[3 * way + 2]),
            }),
        }
    }

    /// The words of a map for this place, as user space writes them.
    #[cfg(not(target_arch = "bpf"))]
    pub fn words(&self) -> [u64; 3 * WAYS] {
        let mut words = [0; 3 * WAYS];
        for (words, way) in words.chunks_mut(3).zip(&self.ways) {
            words.copy_from_slice(&[way.source.load(), way.expires.load(), way.limit.load()]);
        }
        words
    }

    /// The block of `source` in force at `step`: whether it is dry.
    #[inline(always)]
    pub fn find(&self, source: SourceKey, step: u64) -> Option<bool> {
        let mut i = 0;
        while i < WAYS {
            let way = &self.ways[i];
            if way.source.load() == source.0 {
                let expires = way.expires.load();
                if expires & !KERNEL_DRY > step {
                    return Some(expires & KERNEL_DRY != 0);
                }
            }
            i += 1;
        }
        None
    }

    /// Blocks `source` until `expires_step`, instead of itself, of a block
    /// whose time is over, or of the one that expires first.
    ///
    /// Two CPUs may choose the same way at once; then one of the two blocks is
    /// lost and made again by the source's next packet.
    #[inline(always)]
    pub fn put(&self, source: SourceKey, limit: u32, expires_step: u64, dry: bool) {
        let mut choice = 0;
        let mut earliest = u64::MAX;
        let mut i = 0;
        while i < WAYS {
            let way = &self.ways[i];
            let expires = if way.source.load() == source.0 {
                0
            } else {
                way.expires.load() & !KERNEL_DRY
            };
            if expires < earliest {
                earliest = expires;
                choice = i;
            }
            i += 1;
        }
        let way = &self.ways[choice & (WAYS - 1)];
        way.expires.store(0);
        way.source.store(source.0);
        way.limit.store(limit as u64);
        way.expires
            .store(expires_step | if dry { KERNEL_DRY } else { 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_place_replaces_what_expires_first() {
        let blocks = KernelBlocks::default();
        for i in 0..WAYS as u64 {
            blocks.put(SourceKey(i + 1), 0, 100 + (i * 3) % 8, false);
        }
        blocks.put(SourceKey(99), 3, 500, true);
        assert_eq!(blocks.find(SourceKey(1), 99), None);
        assert_eq!(blocks.find(SourceKey(99), 499), Some(true));
        assert_eq!(blocks.find(SourceKey(99), 500), None);
        for i in 1..WAYS as u64 {
            assert_eq!(blocks.find(SourceKey(i + 1), 100), Some(false), "{i}");
        }
    }

    #[test]
    fn the_same_source_keeps_one_way() {
        let blocks = KernelBlocks::default();
        for expires in 1..50 {
            blocks.put(SourceKey(7), 0, expires, false);
        }
        let used = blocks.ways.iter().filter(|w| w.expires.load() != 0).count();
        assert_eq!(used, 1);
    }
}
