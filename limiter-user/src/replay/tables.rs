//! The kernel's tables, in memory.
//!
//! [`MemoryTables`] answers `judge` from an [`Image`] as the kernel program's
//! maps would. Where it differs:
//! - One thread uses it. The CPU on which a packet arrives is what
//!   [`MemoryTables::cpu`] says.
//! - A full table of sources gives the place of one not used lately to the new
//!   one (second chance, one queue). The kernel does it in batches and from
//!   queues per CPU, so there another source may go, and earlier.
//! - The generation has one row: nothing judges while a policy is put in force.

use crate::{
    image::{Image, NetworkEntry, known_words, recent_lines},
    policy::Edge,
};
use limiter_common::{
    address::{Address, Family, SourceKey},
    atomic::Word,
    block::{
        Block, BlockKey, DRY, KERNEL_DRY, KernelBlocks, LENGTHS, Length, Lengths, WAYS,
        kernel_place,
    },
    blocked::search_blocks,
    class::Class,
    entry::{Entry, Tokens},
    filter::{FILTER_WORDS, FilterBits},
    flood::{self, AGGREGATES, Admission, Aggregate, Gate, Newcomer, Recent},
    judge::judge,
    layout::{ENFORCE, EntryKey, Former, Kind, LIMITS, Limit, LimitSet, Network, Policy, Tally},
    packet::Frame,
    standing::{STANDINGS, Standing, standing_place},
    tables::Tables,
    time::Time,
    total::Total,
    verdict::{Outcome, Verdict},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Deref,
    rc::Rc,
};

/// The kernel draws one when the program is loaded. It decides only which
/// sources share a place.
pub const SEED: u64 = 0x1b87_3593_cc9e_2d51;

/// All that `judge` asks, and what it counts.
#[derive(Debug)]
pub struct MemoryTables {
    /// The CPU on which the next packet arrives.
    pub cpu: u32,
    /// The next packet arrives on `lo`.
    pub loopback: bool,
    image: Image,
    prefixes: Prefixes,
    entries: RefCell<Entries>,
    standings: Vec<Standing>,
    lengths: Lengths,
    filter: Vec<Word>,
    blocks: HashMap<BlockKey, Block>,
    kernel_blocks: Vec<KernelBlocks>,
    control: Word,
    gates: [Gate; 2],
    known: Vec<Word>,
    recent: Vec<Recent>,
    aggregates: Vec<Aggregate>,
    totals: Vec<Total>,
    tallies: BTreeMap<(u32, Outcome), Tally>,
}

/// A source under a limit: what its entry counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCount {
    /// The source.
    pub source: SourceKey,
    /// The limit's slot.
    pub limit: u32,
    /// Packets passed.
    pub passed: u64,
    /// Packets dropped, or that would have been.
    pub dropped: u64,
}

impl MemoryTables {
    /// Tables of the sizes in `edge`, on a machine of `cpus` CPUs, with
    /// `image` in force.
    pub fn new(image: Image, edge: &Edge, cpus: u32) -> Self {
        let places = (edge.tables.blocks_kernel)
            .div_ceil(WAYS as u32)
            .next_power_of_two();
        let mut tables = Self {
            cpu: 0,
            loopback: false,
            prefixes: Prefixes::default(),
            entries: RefCell::new(Entries::new(edge.sources as usize, cpus)),
            standings: (0..cpus * STANDINGS).map(|_| Standing::default()).collect(),
            lengths: Lengths::NONE,
            filter: (0..FILTER_WORDS).map(|_| Word::default()).collect(),
            blocks: HashMap::new(),
            kernel_blocks: (0..places).map(|_| KernelBlocks::default()).collect(),
            control: Word::default(),
            gates: Default::default(),
            known: (0..known_words(edge)).map(|_| Word::default()).collect(),
            recent: (0..recent_lines(edge)).map(|_| Recent::default()).collect(),
            aggregates: (0..AGGREGATES).map(|_| Aggregate::default()).collect(),
            totals: (0..LIMITS).map(|_| Total::default()).collect(),
            tallies: BTreeMap::new(),
            image: image.clone(),
        };
        tables.put_in_force(image);
        tables
    }

    /// Replaces the policy, as a reload does: limits keep their buckets by
    /// slot, and dry blocks end where the new policy is enforced.
    pub fn put_in_force(&mut self, image: Image) {
        let generation = self.image.policy.generation.wrapping_add(1);
        self.prefixes = Prefixes::of(&image);
        self.image = image;
        self.image.policy.generation = generation;
        if self.image.policy.flags & ENFORCE != 0 {
            self.blocks.retain(|_, block| block.flags & DRY == 0);
            (self.kernel_blocks.iter()).for_each(end_dry);
        }
        // The kernel's own blocks are of sources: their lengths are always
        // looked for.
        self.add_length(Family::Ipv4, self.image.policy.ipv4_prefix);
        self.add_length(Family::Ipv6, self.image.policy.ipv6_prefix);
    }

    /// Makes or replaces a block; false if there are already [`LENGTHS`]
    /// prefix lengths.
    #[must_use]
    pub fn block(&mut self, key: BlockKey, block: Block) -> bool {
        let (address, prefix) = key.network();
        if !self.add_length(address.family, prefix) {
            return false;
        }
        let filter = FilterBits::of_block(&key, SEED);
        if let Some(word) = self.filter(filter.word) {
            word.set_bits(filter.bits);
        }
        self.blocks.insert(key, block);
        true
    }

    /// Judges a frame and counts it.
    pub fn judge<F: Frame>(&mut self, frame: &mut F, now: Time) -> Verdict {
        let verdict = judge(frame, now, self);
        let key = (verdict.limit, verdict.outcome);
        let tally = self.tallies.entry(key).or_default();
        tally.packets += 1;
        tally.bytes += u64::from(verdict.bytes);
        verdict
    }

    /// What was counted, by the slot of the limit that took part
    /// ([`limiter_common::verdict::NO_LIMIT`]: none) and the outcome.
    pub const fn tallies(&self) -> &BTreeMap<(u32, Outcome), Tally> {
        &self.tallies
    }

    /// The sources that are tracked, in no order.
    pub fn sources(&self) -> Vec<SourceCount> {
        let entries = self.entries.borrow();
        let held = entries.held.iter();
        held.map(|(key, held)| self.source_count(key, held))
            .collect()
    }

    fn source_count(&self, key: &EntryKey, held: &Held) -> SourceCount {
        let mut count = SourceCount {
            source: key.source(),
            limit: key.limit,
            passed: 0,
            dropped: 0,
        };
        for (cpu, copy) in (0..).zip(&held.copies) {
            let (passed, dropped) = copy.counts();
            count.passed += passed;
            count.dropped += dropped;
            if let Some(standing) = self.standing_of(key, cpu)
                && standing.is_of(key)
            {
                let (passed, dropped, _) = standing.counts();
                count.passed += passed;
                count.dropped += dropped;
            }
        }
        count
    }

    fn add_length(&mut self, family: Family, prefix: u32) -> bool {
        let of_family = match family {
            Family::Ipv4 => &mut self.lengths.families[0],
            Family::Ipv6 => &mut self.lengths.families[1],
        };
        let length = Length::new(family, prefix);
        let count = of_family.count as usize;
        if of_family.lengths[..count].contains(&length) {
            return true;
        }
        if count == LENGTHS {
            return false;
        }
        of_family.lengths[count] = length;
        of_family.count += 1;
        of_family.wide |= length.wide;
        true
    }
}

/// Frees the dry blocks of a place.
fn end_dry(place: &KernelBlocks) {
    for way in &place.ways {
        if way.expires.load() & KERNEL_DRY != 0 {
            way.expires.store(0);
            way.source.store(0);
            way.limit.store(0);
        }
    }
}

/// A look-up's answer. Entries are shared: one may be pushed out of the table
/// while it is still in hand.
#[derive(Debug)]
pub enum Ref<'a, T> {
    /// In a table that does not change meanwhile.
    Borrowed(&'a T),
    /// In the table of sources.
    Shared(Rc<T>),
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(value) => value,
            Self::Shared(value) => value,
        }
    }
}

impl Tables for MemoryTables {
    type Ref<'a, T: 'a> = Ref<'a, T>;

    fn generation(&self) -> u32 {
        self.image.policy.generation
    }

    fn policy(&self) -> Option<Ref<'_, Policy>> {
        Some(Ref::Borrowed(&self.image.policy))
    }

    fn class(&self, _row: u32, index: u32) -> Class {
        let class = self.image.classes.get(index as usize);
        class.copied().unwrap_or(Class::NONE)
    }

    fn candidates(&self, _row: u32, set: u32) -> Option<Ref<'_, LimitSet>> {
        self.image.candidates.get(set as usize).map(Ref::Borrowed)
    }

    fn limit(&self, _row: u32, slot: u32) -> Option<Ref<'_, Limit>> {
        self.image.limits.get(slot as usize).map(Ref::Borrowed)
    }

    fn former(&self, _row: u32, slot: u32) -> Option<Ref<'_, Former>> {
        self.image.formers.get(slot as usize).map(Ref::Borrowed)
    }

    fn network(&self, kind: Kind, address: Address) -> Option<Ref<'_, Network>> {
        let lengths = self.prefixes.get(kind, address.family);
        lengths
            .iter()
            .find_map(|prefix| {
                self.image.networks.get(&NetworkEntry {
                    kind,
                    address: address.masked(*prefix),
                    prefix: *prefix,
                })
            })
            .map(Ref::Borrowed)
    }

    fn entry(&self, key: &EntryKey) -> Option<Ref<'_, Entry>> {
        self.entry_of(key, self.cpu)
    }

    fn create_entry(&self, key: &EntryKey) -> Option<Ref<'_, Entry>> {
        self.entries.borrow_mut().create(*key);
        self.entry(key)
    }

    fn entry_of(&self, key: &EntryKey, cpu: u32) -> Option<Ref<'_, Entry>> {
        self.entries.borrow().find(key, cpu).map(Ref::Shared)
    }

    fn cpu(&self) -> u32 {
        self.cpu
    }

    fn standing(&self, key: &EntryKey) -> Option<Ref<'_, Standing>> {
        self.standing_of(key, self.cpu)
    }

    fn standing_of(&self, key: &EntryKey, cpu: u32) -> Option<Ref<'_, Standing>> {
        let place = cpu * STANDINGS + standing_place(key, SEED);
        self.standings.get(place as usize).map(Ref::Borrowed)
    }

    fn gate(&self, kind: u32) -> Option<Ref<'_, Gate>> {
        self.gates.get(kind as usize).map(Ref::Borrowed)
    }

    fn known(&self, word: u32) -> Option<Ref<'_, Word>> {
        self.known.get(word as usize).map(Ref::Borrowed)
    }

    fn known_words_shift(&self) -> u32 {
        self.known.len().ilog2()
    }

    fn recent_lines(&self) -> u32 {
        self.recent.len() as u32
    }

    fn recent(&self, line: u32) -> Option<Ref<'_, Recent>> {
        self.recent.get(line as usize).map(Ref::Borrowed)
    }

    fn aggregate(&self, place: u32) -> Option<Ref<'_, Aggregate>> {
        self.aggregates.get(place as usize).map(Ref::Borrowed)
    }

    fn admission(&self, newcomer: Newcomer, now: Time) -> Admission {
        flood::admit(self, &self.image.policy.flood, newcomer, now)
    }

    fn charge_total(&self, limit: &Limit, slot: u32, now: Time, cost: Tokens) -> bool {
        let total = self.totals.get(slot as usize);
        total.is_none_or(|total| total.charge(&limit.total, now, cost))
    }

    fn refund_total(&self, limit: &Limit, slot: u32, _now: Time, cost: Tokens) {
        if let Some(total) = self.totals.get(slot as usize) {
            total.refund(&limit.total, cost);
        }
    }

    fn lengths(&self) -> Option<Ref<'_, Lengths>> {
        Some(Ref::Borrowed(&self.lengths))
    }

    fn filter(&self, word: u32) -> Option<Ref<'_, Word>> {
        self.filter.get(word as usize).map(Ref::Borrowed)
    }

    fn block(&self, key: &BlockKey) -> Option<Ref<'_, Block>> {
        self.blocks.get(key).map(Ref::Borrowed)
    }

    fn kernel_blocks(&self, source: SourceKey) -> Option<Ref<'_, KernelBlocks>> {
        let place = kernel_place(source, SEED, self.kernel_blocks.len() as u32);
        self.kernel_blocks.get(place as usize).map(Ref::Borrowed)
    }

    fn seed(&self) -> u64 {
        SEED
    }

    fn control(&self) -> Option<Ref<'_, Word>> {
        Some(Ref::Borrowed(&self.control))
    }

    fn blocked(&self, source: Address, now: Time, slot: u32) -> Option<u32> {
        search_blocks(self, source, now, slot)
    }

    fn is_loopback(&self) -> bool {
        self.loopback
    }
}

/// The prefix lengths of an image's networks, by kind and family, longest
/// first: each costs a look-up.
#[derive(Debug, Default)]
struct Prefixes {
    lengths: [Vec<u32>; 4],
}

impl Prefixes {
    fn of(image: &Image) -> Self {
        let mut prefixes = Self::default();
        for (entry, _) in image.networks.iter() {
            prefixes.lengths[Self::place(entry.kind, entry.address.family)].push(entry.prefix);
        }
        for lengths in &mut prefixes.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        prefixes
    }

    fn get(&self, kind: Kind, family: Family) -> &[u32] {
        &self.lengths[Self::place(kind, family)]
    }

    const fn place(kind: Kind, family: Family) -> usize {
        let family = match family {
            Family::Ipv4 => 0,
            Family::Ipv6 => 1,
        };
        2 * kind as usize + family
    }
}

/// The table of sources.
#[derive(Debug)]
struct Entries {
    held: HashMap<EntryKey, Held>,
    /// Every key of `held` once, the next to go in front.
    queue: VecDeque<EntryKey>,
    capacity: usize,
    cpus: u32,
}

#[derive(Debug)]
struct Held {
    /// By CPU.
    copies: Vec<Rc<Entry>>,
    /// Looked up since it was last up for eviction.
    used: Cell<bool>,
}

impl Entries {
    fn new(capacity: usize, cpus: u32) -> Self {
        Self {
            held: HashMap::new(),
            queue: VecDeque::new(),
            capacity: capacity.max(1),
            cpus,
        }
    }

    fn find(&self, key: &EntryKey, cpu: u32) -> Option<Rc<Entry>> {
        let held = self.held.get(key)?;
        held.used.set(true);
        held.copies.get(cpu as usize).cloned()
    }

    fn create(&mut self, key: EntryKey) {
        if self.held.contains_key(&key) {
            return;
        }
        if self.held.len() >= self.capacity {
            self.evict();
        }
        let held = Held {
            copies: (0..self.cpus).map(|_| Rc::default()).collect(),
            used: Cell::new(false),
        };
        self.held.insert(key, held);
        self.queue.push_back(key);
    }

    /// Takes out the first that was not used; each that was loses its mark, so
    /// that a second round finds one.
    fn evict(&mut self) {
        while let Some(key) = self.queue.pop_front() {
            let used = (self.held.get(&key)).is_some_and(|held| held.used.replace(false));
            if !used {
                self.held.remove(&key);
                return;
            }
            self.queue.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(source: u32) -> EntryKey {
        EntryKey {
            source: [4, source],
            limit: 0,
        }
    }

    #[test]
    fn a_full_table_lets_go_what_was_not_used() {
        let mut entries = Entries::new(3, 2);
        for source in 0..3 {
            entries.create(key(source));
        }
        let kept = entries.find(&key(0), 1).unwrap();
        entries.create(key(3));
        assert!(Rc::ptr_eq(&kept, &entries.find(&key(0), 1).unwrap()));
        assert!(entries.find(&key(1), 0).is_none());
        assert!(entries.find(&key(0), 2).is_none(), "no such CPU");
        for source in 4..100 {
            entries.create(key(source));
            assert_eq!((entries.held.len(), entries.queue.len()), (3, 3));
        }
    }

    #[test]
    fn an_entry_pushed_out_is_still_in_hand() {
        let mut entries = Entries::new(1, 1);
        entries.create(key(0));
        let entry = entries.find(&key(0), 0).unwrap();
        entries.create(key(1));
        entries.create(key(2));
        entry.count(1, 0, 0);
        assert_eq!(entry.counts(), (1, 0));
    }
}
