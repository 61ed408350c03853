//! From keys to places in a table: open addressing with linear probing.
//!
//! A bucket holds 32 bits of the key's hash beside the place, so that a look-up
//! costs one cache line of the index, and growing looks at no key.

use super::words::Words;

/// Where a key's place is found by its hash.
#[derive(Debug)]
pub(super) struct Index {
    /// Hash in the upper half; place + 1 in the lower, 0 where the bucket is free.
    buckets: Words,
    bits: u32,
    held: usize,
}

const LEAST_BITS: u32 = 4;

impl Index {
    pub(super) fn new() -> Self {
        Self {
            buckets: buckets(LEAST_BITS),
            bits: LEAST_BITS,
            held: 0,
        }
    }

    /// The place with this hash of which `is_it` says that it is the one.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let (held, place) = split(self.buckets[at])?;
            if held == hash && is_it(place) {
                return Some(place);
            }
            at = self.next(at);
        }
    }

    /// Where a look-up will most likely end: the first place with this hash.
    pub(super) fn likely(&self, hash: u32) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Takes in a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        // Linear probing stays short up to two thirds.
        if (self.held + 1) * 3 > self.buckets.len() * 2 {
            self.grow();
        }
        self.held += 1;
        self.put(hash, place);
    }

    /// Takes out a place that is there.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let mut at = self.home(hash);
        while let Some(held) = split(self.buckets[at]) {
            if held == (hash, place) {
                self.held -= 1;
                self.close_gap(at);
                return;
            }
            at = self.next(at);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<u64>()
    }

    /// Moves up what would no longer be found behind a free bucket.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.buckets.len() - 1;
        let mut at = gap;
        loop {
            at = self.next(at);
            let Some((hash, _)) = split(self.buckets[at]) else {
                break;
            };
            let home = self.home(hash);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.buckets[gap] = self.buckets[at];
                gap = at;
            }
        }
        self.buckets[gap] = 0;
    }

    fn grow(&mut self) {
        self.bits += 1;
        let old = std::mem::replace(&mut self.buckets, buckets(self.bits));
        for (hash, place) in old.iter().copied().filter_map(split) {
            self.put(hash, place);
        }
    }

    fn put(&mut self, hash: u32, place: u32) {
        let mut at = self.home(hash);
        while self.buckets[at] != 0 {
            at = self.next(at);
        }
        self.buckets[at] = u64::from(hash) << 32 | u64::from(place + 1);
    }

    fn home(&self, hash: u32) -> usize {
        (hash >> (32 - self.bits)) as usize
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }
}

/// Free ones, twice as many for each bit.
fn buckets(bits: u32) -> Words {
    Words::zeroed(1 << bits).unwrap_or_else(|| Words::Heap(vec![0; 1 << bits]))
}

fn split(bucket: u64) -> Option<(u32, u32)> {
    let place = (bucket as u32).checked_sub(1)?;
    Some(((bucket >> 32) as u32, place))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn like_a_map(steps in proptest::collection::vec((0_u32..60, any::<bool>()), 1..300)) {
            // Few hashes, the last among them, so that runs wrap and collide.
            let hash = |key: u32| u32::MAX - (key % 7) * 0x0800_0000;
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            for (key, inserts) in steps {
                if inserts && !model.contains_key(&key) {
                    index.insert(hash(key), key);
                    model.insert(key, ());
                } else if !inserts && model.remove(&key).is_some() {
                    index.remove(hash(key), key);
                }
                for key in 0..60 {
                    let found = index.find(hash(key), |place| place == key);
                    prop_assert_eq!(found, model.contains_key(&key).then_some(key));
                }
            }
        }
    }
}
