//! Which sources the table of sources may hold: asked before the table while
//! a flood of new ones is on, since a look-up that finds nothing is two or
//! three cache misses.
//!
//! A source has a *stamp*, an eighth of a word at a place of its hash: the
//! *epoch* in which it was last seen. An epoch ends when as many entries were
//! made as a quarter of the table holds; a source that was not seen for sixteen of
//! them has most likely gone from it. So nothing has to be taken out, and while no
//! entries are made nobody is forgotten.
//!
//! Four tables full and not one, because the kernel's LRU map keeps a source that
//! was seen again for longer than one that was seen once.
//!
//! It errs towards a look-up in vain: strangers who share a place with a known
//! source, and stamps that are as old as all the epochs that a byte can number.

use crate::{address::SourceKey, flood, tables::Tables};

/// Stamps in a word.
const STAMPS: u32 = 8;
/// Epochs that end while as many entries are made as the table holds, as a power
/// of two.
const EPOCHS_SHIFT: u32 = 2;
/// Epochs for which a source is known, beside the one in which it was seen.
const KNOWN_EPOCHS: u8 = 16;
/// The first epoch: a stamp never set is too old.
const FIRST_EPOCH: u64 = 2 * KNOWN_EPOCHS as u64;

/// Where a source's stamp is.
struct Place {
    word: u32,
    /// Its first bit.
    bit: u32,
}

#[inline(always)]
const fn place(source: SourceKey, seed: u64, words_shift: u32) -> Place {
    let hash = flood::hash(source.0, seed);
    Place {
        word: (hash >> 32) as u32 & ((1 << (words_shift & 31)) - 1),
        bit: hash as u32 % STAMPS * 8,
    }
}

/// The epoch, its low byte. The table has as many words as sources at least.
#[inline(always)]
fn epoch<T: Tables>(tables: &T, words_shift: u32) -> u8 {
    let made = |kind| tables.gate(kind).map_or(0, |gate| gate.made());
    let made = made(0).wrapping_add(made(1));
    ((made << EPOCHS_SHIFT >> (words_shift & 31)) + FIRST_EPOCH) as u8
}

/// False if the table of sources does not hold `source` under any limit, or the
/// source was not seen for so long that it most likely does not.
#[inline(always)]
pub fn may_be_known<T: Tables>(tables: &T, source: SourceKey) -> bool {
    let shift = tables.known_words_shift();
    let place = place(source, tables.seed(), shift);
    let Some(word) = tables.known(place.word) else {
        return true;
    };
    let stamp = (word.load() >> place.bit) as u8;
    is_fresh(stamp, epoch(tables, shift))
}

/// True if a source last seen in epoch `stamp` is known in `epoch`. A CPU may see
/// the stamp of an epoch before it sees it begin: that is fresh too.
#[inline(always)]
const fn is_fresh(stamp: u8, epoch: u8) -> bool {
    epoch.wrapping_sub(stamp).wrapping_add(1) <= KNOWN_EPOCHS + 1
}

/// Notes that a source is in the table and was seen.
#[inline(always)]
pub fn note<T: Tables>(tables: &T, source: SourceKey) {
    let shift = tables.known_words_shift();
    let place = place(source, tables.seed(), shift);
    let Some(word) = tables.known(place.word) else {
        return;
    };
    let (old, stamp) = (word.load(), epoch(tables, shift));
    if (old >> place.bit) as u8 != stamp {
        let others = old & !(0xff << place.bit);
        // Should another CPU be faster, the next packet does it.
        let _ = word.replace(old, others | u64::from(stamp) << place.bit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_epochs_are_fresh_and_the_next() {
        for epoch in [FIRST_EPOCH as u8, 100, 255, 0, 3] {
            for age in 0..=255 {
                let is_expected = age <= KNOWN_EPOCHS || age == 255;
                let stamp = epoch.wrapping_sub(age);
                assert_eq!(is_fresh(stamp, epoch), is_expected, "{epoch} {age}");
            }
        }
        assert!(!is_fresh(0, FIRST_EPOCH as u8), "a stamp never set");
    }

    #[test]
    fn stamps_are_spread_over_words_and_bytes() {
        let mut bytes = [0_u32; 8];
        for source in 0..8_000 {
            let place = place(SourceKey(4 << 32 | source), 0x5eed_5eed, 10);
            assert!(place.word < 1 << 10 && place.bit.is_multiple_of(8));
            bytes[place.bit as usize / 8] += 1;
        }
        assert!(bytes.iter().all(|count| *count > 700), "{bytes:?}");
    }
}
