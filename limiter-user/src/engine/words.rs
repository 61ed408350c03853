//! Memory for tables: words that are zero until they are written, and take room only then.

use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut, MmapOptions};

/// From here on pages of its own, in bytes; as large as a huge page, of which the first one stays
/// in small pages, since most tables hold little.
const LARGE: usize = 2 << 20;

/// A stretch of words, a large one in huge pages where the kernel has them: a look-up then does not
/// wait for the address of the page too. Its rows of a cache line are one line each.
#[derive(Debug)]
pub(super) enum Words {
    Heap(Vec<u64>),
    Pages(MmapMut),
}

impl Words {
    /// So many words. `None`: there are not as many addresses left.
    pub(super) fn zeroed(count: usize) -> Option<Self> {
        let bytes = count.checked_mul(size_of::<u64>())?;
        if bytes < LARGE {
            return Some(Self::Heap(vec![0; count]));
        }
        let mut options = MmapOptions::new();
        let map = options.len(bytes).no_reserve_swap().map_anon().ok()?;
        // Without it pages are small, and all works as well.
        let _advised = map.advise_range(Advice::HugePage, LARGE, bytes - LARGE);
        Some(Self::Pages(map))
    }
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match self {
            Self::Heap(words) => words,
            // Pages are aligned, and hold whole words.
            Self::Pages(map) => bytemuck::cast_slice(map),
        }
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Heap(words) => words,
            Self::Pages(map) => bytemuck::cast_slice_mut(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_ones_are_zero_and_can_be_written() {
        for count in [0, 1, LARGE / 8 - 1, LARGE / 8, LARGE / 8 + 1, 1 << 22] {
            let mut words = Words::zeroed(count).unwrap();
            assert_eq!(words.len(), count);
            assert_eq!(words.iter().map(|word| word & 1).sum::<u64>(), 0);
            if let Some(last) = words.last_mut() {
                *last = 7;
                assert_eq!(words[count - 1], 7);
            }
        }
    }

    #[test]
    fn more_than_there_are_addresses_is_refused() {
        assert!(Words::zeroed(usize::MAX).is_none());
        assert!(Words::zeroed(1 << 56).is_none());
    }
}
