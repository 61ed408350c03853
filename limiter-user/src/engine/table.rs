//! The bounded table of a rule's keys.
//!
//! A place is a stretch of words: the key, when it was last active, whether it is
//! pinned, and the counters' state. Places are reused; at its cap the table no longer
//! grows. Then the least recently active key goes, unless it is pinned, that is has an active
//! action. An eighth of the places is never pinned, so that there is always one for a new key.
//! Where a source can make keys at will, it has a quota, beyond which its own least recently
//! active key goes, if it holds little; if none does, the source gets no further key: else it
//! could wipe out by junk what is held against it.
//!
//! Who that is, is found out when it is asked for: a key that is active notes its turn in its
//! own place alone, and a heap that knows an earlier turn of each puts it right when
//! that one comes up. So the path of an event touches one place and nothing beside it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::hint::black_box;

use super::index::Index;
use super::links::{Ends, Links};

/// A key, hashed with the engine's secret.
pub type Key = u128;

/// A place of a table.
pub(super) type Place = u32;

const KEY_HIGH: usize = 0;
const KEY_LOW: usize = 1;
const LAST_NS: usize = 2;
/// The turn in which the key was last active.
const TURN: usize = 3;
/// Whether the place is in use, pinned, and in the heap, and who made the key.
const MARKS: usize = 4;
const HEADER: usize = 5;

const USED: u64 = 1;
const PINNED: u64 = 2;
const QUEUED: u64 = 4;
const MAKER_SHIFT: u32 = 32;

/// What had to go, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evictions {
    /// Keys that had to make room.
    pub evicted: u64,
    /// Those among them for which something counted.
    pub under_count: u64,
    /// Keys that found no room, because their source's quota was full of keys that may not
    /// go, or all others had an active action.
    pub untracked: u64,
}

/// What a state is worth keeping for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Nothing counts any more.
    Nothing,
    /// A single event.
    Little,
    /// More than one event, a rung, or an action.
    Much,
}

/// Keys of a full quota that are looked at for one that may go.
const LOOKS: usize = 8;

/// Quotas: which keys a source has made. Sources share `2^n` quotas by a keyed hash.
#[derive(Debug)]
struct Makers {
    quota: u32,
    links: Links,
    /// Those that are not pinned, and how many there are with those that are.
    made: Vec<(Ends, u32)>,
}

/// The keys of a rule.
#[derive(Debug)]
pub(super) struct Table {
    stride: usize,
    capacity: usize,
    words: Vec<u64>,
    index: Index,
    turn: u64,
    /// Each place once at most, with a turn that is not later than its last.
    turns: BinaryHeap<Reverse<(u64, Place)>>,
    free: Vec<Place>,
    makers: Option<Makers>,
    held: usize,
    pinned: usize,
    pub(super) evictions: Evictions,
}

impl Table {
    /// A table for `capacity` keys of `state_words` each. With a quota, each source may make
    /// so many keys.
    pub(super) fn new(capacity: u32, state_words: usize, quota: Option<u32>) -> Self {
        let makers = quota.map(|quota| Makers {
            quota,
            links: Links::default(),
            made: vec![
                (Ends::default(), 0);
                (capacity as usize / 4)
                    .next_power_of_two()
                    .clamp(64, 1 << 16)
            ],
        });
        Self {
            stride: HEADER + state_words,
            capacity: capacity as usize,
            words: Vec::new(),
            index: Index::new(),
            turn: 0,
            turns: BinaryHeap::new(),
            free: Vec::new(),
            makers,
            held: 0,
            pinned: 0,
            evictions: Evictions::default(),
        }
    }

    pub(super) const fn held(&self) -> usize {
        self.held
    }

    pub(super) const fn pinned(&self) -> usize {
        self.pinned
    }

    pub(super) const fn has_quota(&self) -> bool {
        self.makers.is_some()
    }

    /// The memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let makers = self.makers.as_ref().map_or(0, |makers| {
            makers.links.bytes() + size_of_val(makers.made.as_slice())
        });
        self.words.capacity() * size_of::<u64>()
            + self.index.bytes()
            + self.turns.capacity() * size_of::<(u64, Place)>()
            + self.free.capacity() * size_of::<Place>()
            + makers
    }

    pub(super) fn find(&self, key: Key) -> Option<Place> {
        let (high, low) = halves(key);
        self.index.find(hash(key), |place| {
            let at = place as usize * self.stride;
            self.words[at + KEY_LOW] == low && self.words[at + KEY_HIGH] == high
        })
    }

    /// Where the key most likely is, without a look at the place.
    pub(super) fn likely(&self, key: Key) -> Option<Place> {
        self.index.likely(hash(key))
    }

    /// Has a place come from memory, for what comes next: both ends of it.
    pub(super) fn fetch(&self, place: Place) {
        let at = place as usize * self.stride;
        black_box(self.words[at] ^ self.words[at + self.stride - 1]);
    }

    pub(super) fn key(&self, place: Place) -> Key {
        let at = place as usize * self.stride;
        Key::from(self.words[at + KEY_HIGH]) << 64 | Key::from(self.words[at + KEY_LOW])
    }

    /// Whether `place` still is `key`'s.
    pub(super) fn is_at(&self, place: Place, key: Key) -> bool {
        let at = place as usize * self.stride;
        self.words
            .get(at + MARKS)
            .is_some_and(|marks| marks & USED != 0)
            && self.key(place) == key
    }

    pub(super) fn state(&self, place: Place) -> &[u64] {
        let at = place as usize * self.stride;
        &self.words[at + HEADER..at + self.stride]
    }

    pub(super) fn state_mut(&mut self, place: Place) -> &mut [u64] {
        let at = place as usize * self.stride;
        &mut self.words[at + HEADER..at + self.stride]
    }

    /// When the key was last active; a key's time does not run backwards.
    pub(super) fn last_ns(&self, place: Place) -> u64 {
        self.words[place as usize * self.stride + LAST_NS]
    }

    /// Notes that the key is active.
    pub(super) fn touch(&mut self, place: Place, now_ns: u64) {
        let at = place as usize * self.stride;
        self.words[at + LAST_NS] = self.words[at + LAST_NS].max(now_ns);
        self.turn += 1;
        self.words[at + TURN] = self.turn;
        let marks = self.words[at + MARKS];
        if marks & PINNED == 0
            && let Some(makers) = &mut self.makers
        {
            let (ends, _) = &mut makers.made[(marks >> MAKER_SHIFT) as usize];
            makers.links.touch(ends, place);
        }
    }

    /// A place for a key that has none, its state all zero; `maker` is a keyed hash of
    /// the source, `worth` says what a state is worth. `None`: the source may have no more,
    /// or all others are pinned.
    pub(super) fn insert(
        &mut self,
        key: Key,
        maker: u64,
        now_ns: u64,
        worth: impl Fn(&[u64]) -> Worth,
    ) -> Option<Place> {
        self.expire(&worth);
        if self.is_quota_full(maker) {
            let Some(own) = self.dispensable_of(maker, &worth) else {
                self.evictions.untracked += 1;
                return None;
            };
            self.evict(own, &worth);
        }
        self.admit(key, maker, now_ns, worth)
    }

    /// As [`insert`](Self::insert), whatever the quota: for what is restored.
    pub(super) fn admit(
        &mut self,
        key: Key,
        maker: u64,
        now_ns: u64,
        worth: impl Fn(&[u64]) -> Worth,
    ) -> Option<Place> {
        let maker = self.quota_of(maker);
        if self.held >= self.capacity {
            match self.least_recent() {
                Some(last) => self.evict(last, &worth),
                None => {
                    self.evictions.untracked += 1;
                    return None;
                }
            }
        }
        let place = self.free.pop().unwrap_or_else(|| self.extend());
        let at = place as usize * self.stride;
        let queued = self.words[at + MARKS] & QUEUED;
        self.words[at..at + self.stride].fill(0);
        (self.words[at + KEY_HIGH], self.words[at + KEY_LOW]) = halves(key);
        self.words[at + LAST_NS] = now_ns;
        self.words[at + MARKS] = USED | queued | maker << MAKER_SHIFT;
        self.index.insert(hash(key), place);
        self.held += 1;
        if let Some(makers) = &mut self.makers {
            makers.made[maker as usize].1 += 1;
        }
        self.link(place);
        Some(place)
    }

    /// Whether a source would get a place for a new key.
    pub(super) fn has_room_for(&mut self, maker: u64, worth: impl Fn(&[u64]) -> Worth) -> bool {
        !self.is_quota_full(maker) || self.dispensable_of(maker, &worth).is_some()
    }

    /// Whether one more key may be pinned.
    pub(super) fn may_pin(&self) -> bool {
        self.pinned < (self.capacity - self.capacity.div_ceil(8)).max(1)
    }

    /// Keeps the key whatever comes, until it is unpinned.
    pub(super) fn pin(&mut self, place: Place) {
        let at = place as usize * self.stride + MARKS;
        if self.words[at] & PINNED == 0 {
            self.unlink(place);
            self.words[at] |= PINNED;
            self.pinned += 1;
        }
    }

    pub(super) fn is_pinned(&self, place: Place) -> bool {
        self.words[place as usize * self.stride + MARKS] & PINNED != 0
    }

    pub(super) fn unpin(&mut self, place: Place) {
        let at = place as usize * self.stride + MARKS;
        if self.words[at] & PINNED != 0 {
            self.words[at] &= !PINNED;
            self.pinned -= 1;
            self.link(place);
        }
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.unpin(place);
        self.unlink(place);
        let at = place as usize * self.stride + MARKS;
        if let Some(makers) = &mut self.makers {
            makers.made[(self.words[at] >> MAKER_SHIFT) as usize].1 -= 1;
        }
        self.index.remove(hash(self.key(place)), place);
        // It may stay in the heap, for whoever gets the place next.
        self.words[at] &= QUEUED;
        self.free.push(place);
        self.held -= 1;
    }

    /// All places in use.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let used = |words: &[u64]| words[MARKS] & USED != 0;
        (0..)
            .zip(self.words.chunks_exact(self.stride))
            .filter(move |(_, words)| used(words))
            .map(|(place, _)| place)
    }

    /// Lets go of the least recently active keys for which nothing counts any more:
    /// two for each that comes, so that they become fewer.
    fn expire(&mut self, worth: &impl Fn(&[u64]) -> Worth) {
        for _ in 0..2 {
            match self.least_recent() {
                Some(last) if worth(self.state(last)) == Worth::Nothing => self.remove(last),
                _ => return,
            }
        }
    }

    fn evict(&mut self, place: Place, worth: &impl Fn(&[u64]) -> Worth) {
        self.evictions.evicted += 1;
        let counts = worth(self.state(place)) > Worth::Nothing;
        self.evictions.under_count += u64::from(counts);
        self.remove(place);
    }

    /// The quota that a source has a share in.
    fn quota_of(&self, maker: u64) -> u64 {
        self.makers
            .as_ref()
            .map_or(0, |makers| maker & (makers.made.len() as u64 - 1))
    }

    fn is_quota_full(&self, maker: u64) -> bool {
        let quota = self.quota_of(maker) as usize;
        self.makers
            .as_ref()
            .is_some_and(|makers| makers.made[quota].1 >= makers.quota)
    }

    /// What a source with a full quota can give up. Few are looked at; those that may not go
    /// come to the front, so that others are looked at next time.
    fn dispensable_of(&mut self, maker: u64, worth: &impl Fn(&[u64]) -> Worth) -> Option<Place> {
        let quota = self.quota_of(maker) as usize;
        for _ in 0..LOOKS {
            let last = self.makers.as_ref()?.made[quota].0.last()?;
            if worth(self.state(last)) < Worth::Much {
                return Some(last);
            }
            let Makers { links, made, .. } = self.makers.as_mut()?;
            links.touch(&mut made[quota].0, last);
        }
        None
    }

    /// The least recently active key that is not pinned.
    fn least_recent(&mut self) -> Option<Place> {
        loop {
            let mut first = self.turns.peek_mut()?;
            let Reverse((turn, place)) = *first;
            let at = place as usize * self.stride;
            let marks = self.words[at + MARKS];
            if marks & (USED | PINNED) != USED {
                PeekMut::pop(first);
                self.words[at + MARKS] &= !QUEUED;
            } else if self.words[at + TURN] > turn {
                *first = Reverse((self.words[at + TURN], place));
            } else {
                return Some(place);
            }
        }
    }

    fn link(&mut self, place: Place) {
        let at = place as usize * self.stride;
        self.turn += 1;
        self.words[at + TURN] = self.turn;
        let marks = self.words[at + MARKS];
        if marks & QUEUED == 0 {
            self.words[at + MARKS] |= QUEUED;
            self.turns.push(Reverse((self.turn, place)));
        }
        if let Some(makers) = &mut self.makers {
            let (ends, _) = &mut makers.made[(marks >> MAKER_SHIFT) as usize];
            makers.links.push(ends, place);
        }
    }

    fn unlink(&mut self, place: Place) {
        let marks = self.words[place as usize * self.stride + MARKS];
        if let Some(makers) = &mut self.makers {
            let (ends, _) = &mut makers.made[(marks >> MAKER_SHIFT) as usize];
            makers.links.unlink(ends, place);
        }
    }

    /// One more place; room is made an eighth at a time, and never beyond the cap.
    fn extend(&mut self) -> Place {
        let places = self.words.len() / self.stride;
        if self.words.len() == self.words.capacity() {
            let more = (places / 8)
                .clamp(64, 1 << 20)
                .min(self.capacity - places)
                .max(1);
            self.words.reserve_exact(more * self.stride);
            let queued = self.turns.len();
            self.turns.reserve_exact(places + more - queued);
            if let Some(makers) = &mut self.makers {
                makers.links.resize(places + more);
            }
        }
        self.words.resize(self.words.len() + self.stride, 0);
        places as Place
    }
}

fn halves(key: Key) -> (u64, u64) {
    ((key >> 64) as u64, key as u64)
}

fn hash(key: Key) -> u32 {
    key as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys spread as hashes are.
    fn key(number: u64) -> Key {
        Key::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn insert(table: &mut Table, number: u64, maker: u64) -> Option<Place> {
        let worth = |state: &[u64]| match state[0] {
            0 => Worth::Nothing,
            1 => Worth::Little,
            _ => Worth::Much,
        };
        table.insert(key(number), maker, number, worth)
    }

    #[test]
    fn the_least_recently_active_key_goes() {
        let mut table = Table::new(3, 1, None);
        for number in 0..3 {
            let place = insert(&mut table, number, 0).unwrap();
            table.state_mut(place)[0] = 1;
        }
        table.touch(table.find(key(0)).unwrap(), 9);
        insert(&mut table, 3, 0).unwrap();
        assert_eq!(table.find(key(1)), None);
        assert!(table.find(key(0)).is_some());
        let expected = Evictions {
            evicted: 1,
            under_count: 1,
            untracked: 0,
        };
        assert_eq!(table.evictions, expected);
    }

    #[test]
    fn a_pinned_key_never_goes() {
        let mut table = Table::new(2, 1, None);
        for number in 0..2 {
            let place = insert(&mut table, number, 0).unwrap();
            table.state_mut(place)[0] = 1;
            table.pin(place);
        }
        assert_eq!(insert(&mut table, 2, 0), None);
        assert_eq!(table.evictions.untracked, 1);
        table.unpin(table.find(key(0)).unwrap());
        assert!(insert(&mut table, 2, 0).is_some());
        assert!(table.find(key(1)).is_some());
    }

    #[test]
    fn what_no_longer_counts_makes_room_unnoticed() {
        let mut table = Table::new(2, 1, None);
        for number in 0..50 {
            insert(&mut table, number, 0).unwrap();
        }
        assert_eq!(table.evictions, Evictions::default());
    }

    #[test]
    fn a_source_with_a_full_quota_gives_up_its_own_keys() {
        let mut table = Table::new(100, 1, Some(10));
        let victim = insert(&mut table, 1_000, 7).unwrap();
        table.state_mut(victim)[0] = 4;
        for number in 0..500 {
            let place = insert(&mut table, number, 8).unwrap();
            table.state_mut(place)[0] = 1;
        }
        assert_eq!(table.held(), 11);
        assert_eq!(table.state(table.find(key(1_000)).unwrap()), [4]);
    }

    #[test]
    fn a_source_cannot_push_out_by_junk_what_its_keys_hold() {
        let mut table = Table::new(100, 1, Some(20));
        for number in 0..10 {
            let place = insert(&mut table, number, 8).unwrap();
            table.state_mut(place)[0] = 4;
        }
        for number in 10..500 {
            if let Some(place) = insert(&mut table, number, 8) {
                table.state_mut(place)[0] = 1;
            }
        }
        assert!((0..10).all(|number| table.find(key(number)).is_some()));
        assert_eq!(table.held(), 20);
    }

    #[test]
    fn pinned_keys_count_in_the_quota() {
        let mut table = Table::new(100, 1, Some(10));
        for number in 0..50 {
            if let Some(place) = insert(&mut table, number, 8) {
                table.state_mut(place)[0] = 4;
                table.pin(place);
            }
        }
        assert_eq!((table.held(), table.pinned()), (10, 10));
        assert!(insert(&mut table, 50, 9).is_some());
    }

    #[test]
    fn memory_is_flat_at_the_cap() {
        let mut table = Table::new(1_000, 3, Some(1_000));
        let mut fill = |range: std::ops::Range<u64>| {
            for number in range {
                let place = insert(&mut table, number, number).unwrap();
                table.state_mut(place)[0] = 1;
            }
            (table.held(), table.bytes())
        };
        let full = fill(0..1_000);
        assert_eq!(fill(1_000..50_000).0, 1_000);
        let later = fill(50_000..60_000);
        // The free list holds a place or two.
        assert!(later.1 - full.1 <= 64, "{full:?} {later:?}");
    }

    proptest! {
           #[test]
           fn like_a_list_in_the_order_of_activity(
               capacity in 1_u32..9,
               quota in proptest::option::of(1_u32..4),
               steps in proptest::collection::vec((0_u64..14, 0_u64..3, 0_u8..10), 1..200),
           ) {
               let mut table = Table::new(capacity, 1, quota);
               // Key, maker, pinned; the least recently active first.
               let mut model: Vec<(u64, u64, bool)> = Vec::new();
               for (number, maker, what) in steps {
                   let at = model.iter().position(|it| it.0 == number);
                   let place = table.find(key(number));
                   prop_assert_eq!(at.is_some(), place.is_some());
                   match (at.zip(place), what) {
                       (Some((at, place)), 0) => {
                           table.remove(place);
                           model.remove(at);
                       }
                       (Some((at, place)), 1) => {
                           table.pin(place);
                           model[at].2 = true;
                       }
                       (Some((at, place)), 2) if model[at].2 => {
                           table.unpin(place);
                           let (number, maker, _) = model.remove(at);
                           model.push((number, maker, false));
                       }
                       (Some((at, place)), _) => {
                           table.touch(place, 0);
                           let held = model.remove(at);
                           model.push(held);
                       }
                       (None, _) => {
                           let inserted = insert(&mut table, number, maker);
                           let own = model.iter().filter(|it| it.1 == maker).count();
                           if quota.is_some_and(|quota| own >= quota as usize) {
                               let own = model.iter().position(|it| it.1 == maker && !it.2);
                               prop_assert_eq!(inserted.is_some(), own.is_some());
                               let Some(own) = own else { continue };
                               model.remove(own);
                           }
                           if model.len() >= capacity as usize && let Some(at) = model.iter().position(|it| !it.2) {
    model.remove(at);
    }
                           prop_assert_eq!(inserted.is_some(), model.len() < capacity as usize);
                           if let Some(place) = inserted {
                               table.state_mut(place)[0] = 1;
                               model.push((number, maker, false));
                           }
                       }
                   }
                   prop_assert_eq!(table.held(), model.len());
                   prop_assert_eq!(table.pinned(), model.iter().filter(|it| it.2).count());
                   prop_assert_eq!(table.places().count(), model.len());
               }
           }
       }
}
