//! The filter before the tables of blocks, as the control plane keeps it.

use super::sys::Words;
use limiter_common::{
    block::BlockKey,
    filter::{FILTER_WORDS, FilterBits},
};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
};

/// A bit of the filter: its word, and its place in there.
pub(super) type Bit = (u32, u32);

/// The filter. The program sets bits for its own blocks; only we clear any.
#[derive(Debug)]
pub(super) struct Filter {
    words: Words,
    seed: u64,
    /// For how many of our blocks each bit stands.
    held: HashMap<Bit, u32>,
}

impl Filter {
    pub(super) fn new(words: Words, seed: u64) -> Self {
        Self {
            words,
            seed,
            held: HashMap::new(),
        }
    }

    /// Takes over what another process made of these blocks: bits that it did not
    /// come to set are set now. Returns those that none of them needs.
    pub(super) fn adopt<'a>(&mut self, blocks: impl Iterator<Item = &'a BlockKey>) -> Vec<Bit> {
        for block in blocks {
            self.add(block);
        }
        let set = (0..FILTER_WORDS).flat_map(|word| {
            let bits = self.word(word).load(Acquire);
            each(FilterBits { word, bits })
        });
        set.filter(|bit| !self.held.contains_key(bit)).collect()
    }

    /// Lets packets find a block of the kernel's.
    pub(super) fn set(&self, block: &BlockKey) {
        let filter = FilterBits::of_block(block, self.seed);
        self.word(filter.word).fetch_or(filter.bits, AcqRel);
    }

    /// Lets packets find a block.
    pub(super) fn add(&mut self, block: &BlockKey) {
        let filter = FilterBits::of_block(block, self.seed);
        for bit in each(filter) {
            *self.held.entry(bit).or_default() += 1;
        }
        self.word(filter.word).fetch_or(filter.bits, AcqRel);
    }

    /// Forgets blocks; returns the bits that none of ours needs any more.
    pub(super) fn remove(&mut self, blocks: &[BlockKey]) -> Vec<Bit> {
        let mut idle = Vec::new();
        for block in blocks {
            for bit in each(FilterBits::of_block(block, self.seed)) {
                if let Some(count) = self.held.get_mut(&bit) {
                    *count -= 1;
                    if *count == 0 {
                        self.held.remove(&bit);
                        idle.push(bit);
                    }
                }
            }
        }
        idle
    }

    /// Clears bits, but for those that the kernel's blocks need: what `needed`
    /// tells is left alone, and what it tells anew afterwards is set again.
    pub(super) fn clear<E>(
        &self,
        idle: &[Bit],
        needed: impl Fn() -> Result<HashSet<Bit>, E>,
    ) -> Result<(), E> {
        let before = needed()?;
        for (word, bit) in idle.iter().filter(|bit| !before.contains(bit)) {
            self.word(*word).fetch_and(!(1 << bit), AcqRel);
        }
        for (word, bit) in needed()? {
            if self.word(word).load(Acquire) >> bit & 1 == 0 {
                self.word(word).fetch_or(1 << bit, AcqRel);
            }
        }
        Ok(())
    }

    fn word(&self, word: u32) -> &AtomicU64 {
        &self.words.words()[(word % FILTER_WORDS) as usize]
    }
}

/// Bits one by one.
pub(super) fn each(filter: FilterBits) -> impl Iterator<Item = Bit> {
    let is_set = move |bit: &u32| filter.bits >> bit & 1 == 1;
    let bits = (0..u64::BITS).filter(is_set);
    bits.map(move |bit| (filter.word, bit))
}
