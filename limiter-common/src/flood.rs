//! Floods of new sources: which of them get an entry.
//!
//! A table of sources that makes an entry for whoever sends a packet is lost
//! to a flood of random sources: each packet pushes another source out. So
//! beyond a rate of new sources *admission* comes on:
//!
//! - A source gets an entry only if it was seen before, within seconds
//!   ([`Recent`]), and no faster than those in the table can bear. A spoofed
//!   source is seen once; a client repeats its SYN after a second.
//! - Until then its packets pass as far as a ceiling allows that all such
//!   sources share, of which the sources of one larger network
//!   ([`Aggregate`]) get a part at most.
//!
//! Connection attempts (SYNs) and all other packets are told apart in all of
//! this, so that a flood of the one kind does not shut out the other.

use crate::{
    address::SourceKey,
    atomic::{Word, Word32},
    bucket::Bucket,
    entry::advance,
    tables::Tables,
    time::Time,
};

/// `[edge.flood]`, made ready for the packet path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FloodRules {
    /// How many new sources of a kind get entries without more ado.
    pub new_sources: Bucket,
    /// The ceiling that unknown sources share, by [`Kind`].
    pub unknown: [Bucket; 2],
    /// The part of it that one aggregate may have.
    pub unknown_each: [Bucket; 2],
    /// The entries that are made while admission is on, by [`Kind`].
    pub admitted: [Bucket; 2],
    /// The part of them that one aggregate may have.
    pub admitted_each: [Bucket; 2],
    /// How often [`Recent`] is asked for one kind of packet, if that is limited.
    pub looks: [Bucket; 2],
    /// The bits of a [`SourceKey`] that name its aggregate: IPv4, IPv6.
    pub aggregate_masks: [u64; 2],
    /// How many clock steps admission lasts after new sources were last too
    /// many.
    pub hold_steps: u64,
    /// How many ticks of [`Recent`] a source is remembered.
    pub recent_ticks: u32,
    /// A tick of [`Recent`] in clock steps, as a power of two.
    pub tick_shift: u32,
}
const _: () = assert!(size_of::<FloodRules>() == 472);

/// What sort of packet an unknown source sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A connection attempt.
    Connection = 0,
    /// Any other.
    Other = 1,
}

/// The state of admission for one kind.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Gate {
    /// Arrival time of the bucket by which new sources are measured.
    measured: Word,
    /// The same of the entries made while admission is on.
    admitted: Word,
    /// The same of the shared ceiling.
    unknown: Word,
    /// The clock step up to which admission is on.
    on_until: Word,
    /// Entries made.
    made: Word,
    /// Arrival time of `looks`.
    looked: Word,
    /// The clock step up to which nothing is left to give.
    shut_until: Word,
    reserved: u64,
}
const _: () = assert!(size_of::<Gate>() == 64);

impl Gate {
    /// The gate that these words of a map hold, as user space reads them.
    #[cfg(not(target_arch = "bpf"))]
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self {
            measured: Word::new(words[0]),
            admitted: Word::new(words[1]),
            unknown: Word::new(words[2]),
            on_until: Word::new(words[3]),
            made: Word::new(words[4]),
            looked: Word::new(words[5]),
            shut_until: Word::new(words[6]),
            reserved: words[7],
        }
    }

    /// Whether admission is on at `step`.
    #[inline(always)]
    pub fn is_on(&self, step: u64) -> bool {
        step < self.on_until.load()
    }

    /// Entries made so far.
    #[inline(always)]
    pub fn made(&self) -> u64 {
        self.made.load()
    }

    /// True if nothing is left to give in this clock step.
    #[inline(always)]
    pub fn is_shut(&self, now: Time) -> bool {
        now.step() < self.shut_until.load()
    }

    /// What [`admit`] would say, where nothing is left to give in this clock
    /// step: in a flood that goes for most packets of unknown sources.
    #[inline(always)]
    pub fn refusal(&self, newcomer: Newcomer, now: Time) -> Option<Admission> {
        if !self.is_shut(now) {
            None
        } else if newcomer.exempt {
            Some(Admission::Pass)
        } else {
            Some(Admission::Refuse)
        }
    }

    /// Measures a new source; false where it is one too many.
    #[inline(always)]
    fn measure(&self, rules: &FloodRules, now: Time) -> bool {
        let within = take(&self.measured, &rules.new_sources, now);
        if !within {
            let until = now.step() + rules.hold_steps;
            if self.on_until.load() != until {
                self.on_until.store(until);
            }
        }
        within
    }

    /// Whether to look if a source was seen before: it costs a cache miss in a
    /// large table, several times what the rest of the packet's way does.
    #[inline(always)]
    fn may_look(&self, rules: &FloodRules, index: usize, now: Time) -> bool {
        let looks = &rules.looks[index];
        !looks.exists() || take(&self.looked, looks, now)
    }
}

/// The part of [`Recent`]'s lines where sources of packets that are no
/// connection attempts are noted. They are looked up less often, so it
/// remembers them for as long, and it is that much nearer to the CPU.
const OTHERS_PART: u32 = 8;

/// Notes a source; true if it was noted before, and of late.
#[inline(always)]
fn was_seen<T: Tables>(tables: &T, newcomer: Newcomer, rules: &FloodRules, now: Time) -> bool {
    let hashed = hash(newcomer.source.0, tables.seed());
    let lines = tables.recent_lines();
    let lines = match newcomer.kind {
        Kind::Connection => lines,
        Kind::Other if lines < OTHERS_PART => 1,
        Kind::Other => lines / OTHERS_PART,
    };
    match tables.recent(place(hashed, lines)) {
        Some(recent) => recent.seen(tables, hashed, rules, now),
        None => false,
    }
}

/// Takes a token out of a bucket that all CPUs share. While it is empty, its
/// word is only read.
#[inline(always)]
fn take(arrival: &Word, bucket: &Bucket, now: Time) -> bool {
    let units = bucket.units(1);
    // What a policy of before, or one that was tried, has left.
    let left = arrival.load();
    let bounded = bucket.bounded(left, now);
    if bounded != left {
        let _ = arrival.replace(left, bounded);
    }
    bucket.can_give(arrival.load(), now, units) && advance(arrival, bucket, now, units)
}

/// Sources that a line of [`Recent`] remembers.
pub const RECENT_WAYS: usize = 15;

/// Sources seen of late: one line of the table, 64 bytes. The first word
/// is the place that is written next; the others hold a source's fingerprint
/// (20 bits) and when it was last seen (12 bits of ticks).
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Recent {
    words: [Word32; RECENT_WAYS + 1],
}
const _: () = assert!(size_of::<Recent>() == 64);

const TICKS: u32 = 0xfff;

impl Recent {
    /// Notes a source; true if it was noted before, not longer than
    /// `rules.recent_ticks` ago. The oldest of the line makes room.
    #[inline(always)]
    fn seen<T: Tables>(&self, tables: &T, hash: u64, rules: &FloodRules, now: Time) -> bool {
        let tick = (now.step() >> (rules.tick_shift & 63)) as u32 & TICKS;
        // Never 0, which is a free place.
        let print = (hash as u32 | 1 << 12) & !TICKS;
        let mut found = 0_u32;
        let mut i = 1;
        while i <= RECENT_WAYS {
            if self.words[i].load() & !TICKS == print {
                found = i as u32;
            }
            i += 1;
        }
        let found = tables.opaque(found);
        if found != 0 {
            let place = &self.words[found as usize & RECENT_WAYS];
            let age = tick.wrapping_sub(place.load()) & TICKS;
            place.store(print | tick);
            return age <= rules.recent_ticks;
        }
        let next = self.words[0].load() as usize & RECENT_WAYS;
        let next = if next == 0 { 1 } else { next };
        self.words[next].store(print | tick);
        self.words[0].store(next as u32 + 1);
        false
    }
}

/// A network of unknown sources (those of the same hash share one): its part
/// of what they get, and of the entries that are made.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Aggregate {
    /// Arrival times of `unknown_each`, by [`Kind`].
    unknown: [Word; 2],
    /// Of `admitted_each`.
    admitted: [Word; 2],
}
const _: () = assert!(size_of::<Aggregate>() == 32);

/// Places of the table of aggregates.
pub const AGGREGATES: u32 = 1 << 14;

/// The place of a hash among `places` (a power of two).
#[inline(always)]
const fn place(hash: u64, places: u32) -> u32 {
    (hash >> 32) as u32 & (places - 1)
}

/// A source's hash, which a stranger who does not know the seed cannot aim.
#[inline(always)]
pub(crate) const fn hash(source: u64, seed: u64) -> u64 {
    let mut hash = (source ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(seed | 1);
    hash ^ hash >> 29
}

/// What becomes of a source without an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Admission {
    /// It gets one.
    Enter = 0,
    /// It gets none; this packet is within the shared ceiling.
    Pass = 1,
    /// It gets none, and the ceiling is reached.
    Refuse = 2,
}

/// A packet of a source without an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The source.
    pub source: SourceKey,
    /// What it sent.
    pub kind: Kind,
    /// It passes anyway and shares no ceiling.
    pub exempt: bool,
}

impl Newcomer {
    /// All but the source in one word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.kind as u32 | (self.exempt as u32) << 1
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(source: SourceKey, word: u32) -> Self {
        Self {
            source,
            kind: if word & 1 == 0 {
                Kind::Connection
            } else {
                Kind::Other
            },
            exempt: word & 2 != 0,
        }
    }
}

/// Decides whether a source gets an entry, and otherwise about its packet.
#[inline(always)]
pub fn admit<T: Tables>(
    tables: &T,
    rules: &FloodRules,
    newcomer: Newcomer,
    now: Time,
) -> Admission {
    let Newcomer {
        source,
        kind,
        exempt,
    } = newcomer;
    let index = kind as usize & 1;
    let Some(gate) = tables.gate(kind as u32) else {
        return Admission::Enter;
    };
    if let Some(refusal) = gate.refusal(newcomer, now) {
        return refusal;
    }
    let within = gate.measure(rules, now);
    if within && !gate.is_on(now.step()) {
        gate.made.fetch_add(1);
        return Admission::Enter;
    }
    let may_look = gate.may_look(rules, index, now);
    let seen = may_look && was_seen(tables, newcomer, rules, now);
    let unknown = &rules.unknown[index];
    let otherwise = if exempt || !unknown.exists() {
        Admission::Pass
    } else {
        Admission::Refuse
    };
    let has_room = unknown.can_give(gate.unknown.load(), now, unknown.units(1));
    if !within && !may_look && !has_room && unknown.exists() {
        gate.shut_until.store(now.step() + 1);
    }
    // The aggregate costs a cache miss: not for those it cannot help.
    if !seen && (otherwise == Admission::Pass || !has_room) {
        return otherwise;
    }
    let is_ipv6 = source.0 >> 32 != 4;
    let network = source.0 & rules.aggregate_masks[is_ipv6 as usize];
    let network = hash(network, !tables.seed());
    let Some(aggregate) = tables.aggregate(place(network, AGGREGATES)) else {
        return otherwise;
    };
    if seen
        && take(&aggregate.admitted[index], &rules.admitted_each[index], now)
        && take(&gate.admitted, &rules.admitted[index], now)
    {
        gate.made.fetch_add(1);
        return Admission::Enter;
    }
    if otherwise == Admission::Refuse
        && has_room
        && take(&aggregate.unknown[index], &rules.unknown_each[index], now)
        && take(&gate.unknown, unknown, now)
    {
        return Admission::Pass;
    }
    otherwise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_not_known_without_the_seed() {
        // Sources that share a place under one seed are spread by another.
        let places = 1 << 12;
        let shared: [u64; 16] = {
            let mut found = [0; 16];
            let mut count = 0;
            let mut source = 4_u64 << 32;
            while count < found.len() {
                if place(hash(source, 0x1234_5678_9abc_def1), places) == 7 {
                    found[count] = source;
                    count += 1;
                }
                source += 1;
            }
            found
        };
        let first = place(hash(shared[0], 0x0fed_cba9_8765_4321), places);
        let together = shared
            .iter()
            .filter(|source| place(hash(**source, 0x0fed_cba9_8765_4321), places) == first);
        assert!(together.count() < 3);
    }

    #[test]
    fn random_sources_spread_evenly() {
        const PLACES: usize = 64;
        for seed in [1, 0x5eed_5eed_5eed_5eed, u64::MAX] {
            for step in [1_u64, 256, 1 << 16, 1 << 32] {
                let mut counts = [0_u32; PLACES];
                for source in 0..64 * PLACES as u64 {
                    counts[place(hash(source * step, seed), PLACES as u32) as usize] += 1;
                }
                assert!(counts.iter().all(|count| *count < 200), "{seed:x} {step}");
            }
        }
    }
}
