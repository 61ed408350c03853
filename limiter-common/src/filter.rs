//! The filter before the tables of blocks: a bitmap that says of most sources
//! that no block can name them.
//!
//! A packet asks it once. The word is that of its *neighbourhood* (an IPv4
//! /24, an IPv6 /56) and the bit that of its address in there, so that a block
//! of any length down to the neighbourhood sets bits of one word, and one load
//! answers for all of these lengths. Longer networks ("wide" blocks) have bits
//! elsewhere, for which a packet asks once for each wide length, where there
//! is one at all.

use crate::{
    address::{Address, Family},
    block::BlockKey,
};

/// Words of the filter.
pub const FILTER_WORDS: u32 = 1 << 15;

/// Some bits of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterBits {
    /// The word, below [`FILTER_WORDS`].
    pub word: u32,
    /// The bits.
    pub bits: u64,
}

/// Address bits inside of a neighbourhood.
const NEAR_BITS: u32 = 8;
/// Addresses in it that share a bit, as a power of two: 256 on 64.
const SHARED_BITS: u32 = 2;

/// True if blocks of this length are wider than a neighbourhood.
#[inline(always)]
pub const fn is_wide(family: Family, prefix: u32) -> bool {
    prefix < key_bits(family) - NEAR_BITS
}

impl FilterBits {
    /// The bit that tells of a packet from `address` whether a block that is
    /// not wide may hold for it.
    #[inline(always)]
    pub const fn of_address(address: Address, seed: u64) -> Self {
        let key = address.source(u64::MAX).0;
        let place = key as u32 & ((1 << NEAR_BITS) - 1);
        Self {
            word: near_word(key, seed),
            bits: 1 << (place >> SHARED_BITS),
        }
    }

    /// The bits of a block.
    #[inline(always)]
    pub const fn of_block(block: &BlockKey, seed: u64) -> Self {
        let (address, prefix) = block.network();
        if is_wide(address.family, prefix) {
            return Self::of_wide(block, seed);
        }
        let first = Self::of_address(address, seed);
        let host_bits = key_bits(address.family).saturating_sub(prefix);
        let count = 1 << host_bits.saturating_sub(SHARED_BITS);
        // 64 of them are all: no shift by the width of the word.
        let ones = u64::MAX >> (64 - count);
        Self {
            word: first.word,
            bits: first.bits.wrapping_mul(ones),
        }
    }

    /// The bit of a wide block.
    #[inline(always)]
    pub const fn of_wide(block: &BlockKey, seed: u64) -> Self {
        let network = block.hi ^ (block.prefix as u64) << 1 ^ 1;
        let hash = network.wrapping_mul(seed | 1);
        Self {
            word: (hash >> 49) as u32 & (FILTER_WORDS - 1),
            bits: 1 << (hash >> 43 & 63),
        }
    }
}

/// Multiplication by a secret odd number, of which the upper bits are taken
/// (Dietzfelbinger et al., "A reliable randomized algorithm for the
/// closest-pair problem", 1997): two neighbourhoods share a word with a
/// probability of at most 2 / [`FILTER_WORDS`], whoever chose them.
#[inline(always)]
const fn near_word(key: u64, seed: u64) -> u32 {
    ((key >> NEAR_BITS).wrapping_mul(seed | 1) >> 49) as u32 & (FILTER_WORDS - 1)
}

/// Bits of a source's key that are of the address.
#[inline(always)]
const fn key_bits(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SEED: u64 = 0xd6e8_feb8_6659_fd93;

    #[test]
    fn a_neighbourhood_has_a_word() {
        let address = Address::v4(0xc000_0200);
        let bits = |prefix| FilterBits::of_block(&BlockKey::new(address, prefix, 0), SEED);
        for (prefix, count) in [(32, 1), (30, 1), (29, 2), (25, 32), (24, 64)] {
            let found = bits(prefix);
            assert_eq!(found.bits.count_ones(), count, "{prefix}");
            assert_eq!(found.word, bits(32).word, "{prefix}");
        }
        assert_eq!(bits(23).bits.count_ones(), 1);
    }

    #[test]
    fn neighbourhoods_are_spread() {
        for step in [1 << 8, 1 << 16, 3 << 8] {
            let word = |i: u32| {
                let address = Address::v4(i.wrapping_mul(step));
                FilterBits::of_address(address, SEED).word
            };
            // A third of the words stays empty where as many are drawn.
            let words: HashSet<u32> = (0..FILTER_WORDS).map(word).collect();
            assert!(words.len() > FILTER_WORDS as usize / 3, "{step:x}");
        }
    }
}
