//! Who comes up most, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

/// Values that are counted at once.
const MOST: usize = 1_024;

/// Counts of values: exact for up to [`MOST`] different ones. Beyond that, after Misra
/// and Gries (1982, "Finding repeated elements"), no count is too large, and each is
/// too small by `short` at most.
#[derive(Debug)]
pub(super) struct Busiest<K> {
    counts: HashMap<K, u64>,
    short: u64,
}

impl<K> Default for Busiest<K> {
    fn default() -> Self {
        Self {
            counts: HashMap::new(),
            short: 0,
        }
    }
}

impl<K: Eq + Hash + Ord> Busiest<K> {
    pub(super) fn add(&mut self, value: K) {
        if let Some(count) = self.counts.get_mut(&value) {
            *count += 1;
        } else if self.counts.len() < MOST {
            self.counts.insert(value, 1);
        } else {
            // Each one taken off was put on before, so this costs no more than that did.
            self.short += 1;
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The only value there was.
    pub(super) fn only(&self) -> Option<&K> {
        let is_one = self.counts.len() == 1 && self.short == 0;
        self.counts.keys().next().filter(|_| is_one)
    }

    /// The first `number`, the most first, in words; `None`: there are none.
    pub(super) fn in_words(&self, number: usize, name: impl Fn(&K) -> String) -> Option<String> {
        let mut all: Vec<(&K, u64)> = self.counts.iter().map(|(key, n)| (key, *n)).collect();
        all.sort_unstable_by(|(a, most), (b, least)| least.cmp(most).then(a.cmp(b)));
        let more = if self.short > 0 { "at least " } else { "" };
        let shown = all.iter().take(number);
        let shown: Vec<String> = shown
            .map(|(key, count)| format!("{} ({more}{count})", name(key)))
            .collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_counted_exactly() {
        let mut busiest = Busiest::default();
        assert_eq!(busiest.in_words(3, i32::to_string), None);
        busiest.add(7);
        assert_eq!(busiest.only(), Some(&7));
        for value in [3, 3, 1, 3, 7] {
            busiest.add(value);
        }
        assert_eq!(busiest.only(), None);
        let words = busiest.in_words(2, i32::to_string);
        assert_eq!(words.as_deref(), Some("3 (3), 7 (2)"));
    }

    #[test]
    fn a_flood_hides_nobody_who_is_busy() {
        let mut busiest = Busiest::default();
        for value in 0..100_000_u64 {
            busiest.add(value + 10);
            if value % 100 == 0 {
                busiest.add(1);
            }
        }
        assert!(busiest.counts.len() <= MOST);
        let held = busiest.counts[&1];
        assert!(held <= 1_000 && held + busiest.short >= 1_000, "{held}");
        let words = busiest.in_words(1, u64::to_string).unwrap();
        assert_eq!(words, format!("1 (at least {held})"));
    }
}
