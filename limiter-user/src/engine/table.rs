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
use super::words::Words;

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
/// Whether the database has the key, whether that is due for a look, and whether the end of its
/// rungs is waited for.
const STORED: u64 = 8;
const CHANGED: u64 = 16;
const FADING: u64 = 32;
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
    words: Words,
    /// Places that were ever in use: the first ones.
    places: usize,
    index: Index,
    turn: u64,
    /// Each place once at most, with a turn that is not later than its last.
    turns: BinaryHeap<Reverse<(u64, Place)>>,
    free: Vec<Place>,
    makers: Option<Makers>,
    held: usize,
    pinned: usize,
    /// Places with a change that is not stored, each once at most.
    changed: Vec<Place>,
    /// Stored keys that went.
    gone: Vec<Key>,
    pub(super) evictions: Evictions,
}

impl Table {
    /// A table for `capacity` keys of `state_words` each, or fewer if there are not as many
    /// addresses. With a quota, each source may make so many keys.
    pub(super) fn new(capacity: u32, state_words: usize, quota: Option<u32>) -> Self {
        let stride = HEADER + state_words;
        let (capacity, words) = room(capacity as usize, stride);
        let makers = quota.map(|quota| Makers {
            quota,
            links: Links::default(),
            made: vec![(Ends::default(), 0); (capacity / 4).next_power_of_two().clamp(64, 1 << 16)],
        });
        Self {
            stride,
            capacity,
            words,
            places: 0,
            index: Index::new(),
            turn: 0,
            turns: BinaryHeap::new(),
            free: Vec::new(),
            makers,
            held: 0,
            pinned: 0,
            changed: Vec::new(),
            gone: Vec::new(),
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
        self.places * self.stride * size_of::<u64>()
            + self.index.bytes()
            + self.turns.capacity() * size_of::<(u64, Place)>()
            + (self.free.capacity() + self.changed.capacity()) * size_of::<Place>()
            + self.gone.capacity() * size_of::<Key>()
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

    /// As [`insert`](Self::insert), whatever the quota: for what is restored. `last_ns` is when
    /// the key was last active.
    pub(super) fn admit(
        &mut self,
        key: Key,
        maker: u64,
        last_ns: u64,
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
        let listed = self.words[at + MARKS] & (QUEUED | CHANGED);
        self.words[at..at + self.stride].fill(0);
        (self.words[at + KEY_HIGH], self.words[at + KEY_LOW]) = halves(key);
        self.words[at + LAST_NS] = last_ns;
        self.words[at + MARKS] = USED | listed | maker << MAKER_SHIFT;
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
        let key = self.key(place);
        if self.words[at] & STORED != 0 {
            self.gone.push(key);
        }
        self.index.remove(hash(key), place);
        // It may stay in the heap and in the list, for whoever gets the place next.
        self.words[at] &= QUEUED | CHANGED;
        self.free.push(place);
        self.held -= 1;
    }

    /// Notes that what the database should have of a key has changed.
    pub(super) fn change(&mut self, place: Place) {
        let marks = &mut self.words[place as usize * self.stride + MARKS];
        if *marks & CHANGED == 0 {
            *marks |= CHANGED;
            self.changed.push(place);
        }
    }

    /// As [`change`](Self::change), where it may end earlier than it did.
    pub(super) fn shorten(&mut self, place: Place) {
        self.fade(place, false);
        self.change(place);
    }

    pub(super) fn is_stored(&self, place: Place) -> bool {
        self.words[place as usize * self.stride + MARKS] & STORED != 0
    }

    /// Notes whether the database will have a key. Whether it had.
    pub(super) fn store(&mut self, place: Place, is_stored: bool) -> bool {
        self.mark(place, STORED, is_stored)
    }

    /// Notes whether the end of a key's rungs is waited for. Whether it was.
    pub(super) fn fade(&mut self, place: Place, is_waited_for: bool) -> bool {
        self.mark(place, FADING, is_waited_for)
    }

    /// How many changes wait to be stored.
    pub(super) const fn unstored(&self) -> usize {
        self.changed.len() + self.gone.len()
    }

    /// The stored keys that went since this was last asked.
    pub(super) fn take_gone(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.gone)
    }

    /// The places in use with a change since this was last asked.
    pub(super) fn take_changed(&mut self) -> Vec<Place> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.retain(|place| {
            self.mark(*place, CHANGED, false);
            self.words[*place as usize * self.stride + MARKS] & USED != 0
        });
        changed
    }

    fn mark(&mut self, place: Place, mark: u64, is_set: bool) -> bool {
        let marks = &mut self.words[place as usize * self.stride + MARKS];
        let was_set = *marks & mark != 0;
        *marks = *marks & !mark | if is_set { mark } else { 0 };
        was_set
    }

    /// All places in use.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let used = |words: &[u64]| words[MARKS] & USED != 0;
        (0..)
            .zip(self.words.chunks_exact(self.stride))
            .take(self.places)
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

    /// One more place; what goes with it is made an eighth at a time, and never beyond the
    /// cap.
    fn extend(&mut self) -> Place {
        let place = self.places;
        let queued = self.turns.len();
        if self.turns.capacity() <= place {
            let more = (place / 8).clamp(64, 1 << 20);
            let more = more.min(self.capacity - place).max(1);
            self.turns.reserve_exact(place + more - queued);
            if let Some(makers) = &mut self.makers {
                makers.links.resize(self.turns.capacity());
            }
        }
        self.places += 1;
        place as Place
    }
}

/// Room for as many keys as there are addresses for.
fn room(capacity: usize, stride: usize) -> (usize, Words) {
    let mut capacity = capacity.max(1);
    loop {
        let words = capacity.checked_mul(stride).and_then(Words::zeroed);
        match words {
            Some(words) => return (capacity, words),
            None => capacity = (capacity / 2).max(1),
        }
    }
}

fn halves(key: Key) -> (u64, u64) {
    ((key >> 64) as u64, key as u64)
}

fn hash(key: Key) -> u32 {
    key as u32
}

#[cfg(test)]
mod tests;
