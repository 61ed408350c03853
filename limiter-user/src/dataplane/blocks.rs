//! Blocks: the table, the filter before it, the prefix lengths, the quotas.

use super::{
    clock::Clock,
    error::Error,
    model::{BlockRequest, BlockState},
    sys::{Table, Words},
};
use crate::image::{Slots, network, network_parts};
use ipnet::IpNet;
use limiter_common::{
    address::{Family, SourceKey},
    block::{
        Block, BlockKey, DRY, KERNEL_DRY, KernelBlocks, LENGTHS, Length, Lengths, Owner,
        kernel_place,
    },
    filter::{FILTER_WORDS, FilterBits},
};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering::{AcqRel, Acquire},
    time::Duration,
};

/// How long a block lasts where nothing else is said.
pub const DEFAULT_BLOCK: Duration = Duration::from_secs(15 * 60);

/// The tables behind the blocks.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) blocks: Table<BlockKey, Block>,
    pub(super) kernel: Table<u32, [u64; 24]>,
    pub(super) lengths: Table<u32, Lengths>,
}

/// What each owner may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quotas {
    pub(super) operator: u32,
    pub(super) rule: u32,
    /// Places of the kernel's own table, a power of two.
    pub(super) kernel_places: u32,
}

/// Source prefix lengths, at which the kernel blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcePrefixes {
    pub(super) ipv4: u32,
    pub(super) ipv6: u32,
}

/// A bit of the filter: its word, and its place in there.
type Bit = (u32, u32);

/// All blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    tables: Tables,
    filter: Words,
    seed: u64,
    quotas: Quotas,
    clock: Clock,
    /// What the table holds: only this process writes it.
    held: HashMap<BlockKey, Block>,
    /// How many of `held` each set bit of the filter stands for.
    bits: HashMap<Bit, u32>,
    lengths: Lengths,
    prefixes: SourcePrefixes,
}

impl Blocks {
    pub(super) fn new(
        tables: Tables,
        filter: Words,
        seed: u64,
        quotas: Quotas,
        clock: Clock,
    ) -> Self {
        Self {
            tables,
            filter,
            seed,
            quotas,
            clock,
            held: HashMap::new(),
            bits: HashMap::new(),
            lengths: Lengths::NONE,
            prefixes: SourcePrefixes { ipv4: 32, ipv6: 64 },
        }
    }

    /// Takes over the policy's source prefixes, and ends dry blocks if it is
    /// enforced.
    pub(super) fn follow(
        &mut self,
        prefixes: SourcePrefixes,
        enforce: bool,
        step: u64,
    ) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.prefixes, prefixes);
        if before != prefixes {
            // Sources of another length: their keys would name other networks.
            self.end_kernel_blocks(|source, _| {
                let family = source.address().family;
                before.of(family) != prefixes.of(family)
            })?;
        }
        let lengths = self.lengths_with(prefixes, step)?;
        self.write_lengths(lengths)?;
        if enforce {
            self.drop_where(|_, block| block.flags & DRY != 0)?;
            // The program ignores them while the policy is enforced, and would
            // heed them again in the next dry run.
            self.end_kernel_blocks(|_, expires| expires & KERNEL_DRY != 0)?;
        }
        self.expire(step).map(drop)
    }

    /// The prefix lengths with those of `prefixes` among them.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyLengths`].
    pub(super) fn lengths_with(
        &mut self,
        prefixes: SourcePrefixes,
        step: u64,
    ) -> Result<Lengths, Error> {
        self.expire(step)?;
        let sources = prefixes.families();
        let mut used = self.used_lengths();
        used.extend(sources);
        let mut lengths = self.lengths;
        for (family, prefix) in sources {
            add_length(&mut lengths, &used, family, prefix)?;
        }
        Ok(lengths)
    }

    /// Ends blocks confined to limits for which `gone` holds.
    pub(super) fn forget_limits(&mut self, gone: impl Fn(u32) -> bool) -> Result<usize, Error> {
        self.drop_where(|key, _| key.limit != 0 && gone(key.limit - 1))
    }

    /// Makes blocks, all or none. `dry`: they are of a policy not enforced.
    pub(super) fn add(
        &mut self,
        requests: &[BlockRequest],
        slots: &Slots,
        dry: bool,
        step: u64,
    ) -> Result<Vec<BlockState>, Error> {
        let networks: Vec<_> = requests
            .iter()
            .map(|request| network_parts(&request.network))
            .map(|(address, prefix)| (address.family, prefix))
            .collect();
        let mut lengths = self.lengths;
        let mut used = HashSet::new();
        if networks.iter().any(|length| !has_length(&lengths, *length)) {
            self.expire(step)?;
            used = self.used_lengths();
            used.extend(&networks);
        }
        for (family, prefix) in networks {
            add_length(&mut lengths, &used, family, prefix)?;
        }
        let mut new = HashMap::with_capacity(requests.len());
        for request in requests {
            let limit = slot_of(slots, request.limit.as_deref())?;
            let (address, prefix) = network_parts(&request.network);
            let key = BlockKey::new(address, prefix, limit.map_or(0, |slot| slot + 1));
            let old = new.get(&key).or_else(|| self.held.get(&key));
            let block = self.block(request, old, dry, step);
            new.insert(key, block);
        }
        if self.overfull(&new).is_some() {
            self.expire(step)?;
        }
        if let Some(error) = self.overfull(&new) {
            return Err(error);
        }
        self.write(lengths, &new)?;
        Ok(new
            .iter()
            .map(|(key, block)| self.state(key, block, slots, step))
            .collect())
    }

    /// Ends the blocks of a network: those confined to `limit`, or all.
    pub(super) fn remove(
        &mut self,
        network: &IpNet,
        limit: Option<&str>,
        slots: &Slots,
    ) -> Result<bool, Error> {
        let limit = slot_of(slots, limit)?;
        let (address, prefix) = network_parts(network);
        let any = BlockKey::new(address, prefix, 0);
        let ended = self.drop_where(|key, _| {
            (key.hi, key.lo, key.prefix) == (any.hi, any.lo, any.prefix)
                && limit.is_none_or(|slot| key.limit == slot + 1)
        })?;
        let kernel = if limit.is_none() {
            self.remove_kernel(network)?
        } else {
            false
        };
        Ok(ended > 0 || kernel)
    }

    /// All blocks in force at `step`.
    pub(super) fn list(&self, slots: &Slots, step: u64) -> Result<Vec<BlockState>, Error> {
        let mut all: Vec<_> = self
            .held
            .iter()
            .filter(|(_, block)| block.expires_step > step)
            .map(|(key, block)| self.state(key, block, slots, step))
            .collect();
        for (_, blocks) in self.kernel_places()? {
            for way in blocks.ways {
                let expires = way.expires.load();
                if expires & !KERNEL_DRY <= step {
                    continue;
                }
                let source = SourceKey(way.source.load()).address();
                let slot = usize::try_from(way.limit.load()).unwrap_or(usize::MAX);
                all.push(BlockState {
                    network: network(source, self.prefixes.of(source.family)),
                    owner: Owner::Kernel,
                    limit: slots.name(slot).map(str::to_owned),
                    remaining: self.clock.duration((expires & !KERNEL_DRY) - step),
                    dry: expires & KERNEL_DRY != 0,
                });
            }
        }
        Ok(all)
    }

    /// Tidies away what is over at `step`; the program has ignored it since.
    /// Returns how many.
    pub(super) fn expire(&mut self, step: u64) -> Result<usize, Error> {
        self.drop_where(|_, block| block.expires_step <= step)
    }

    /// Blocks held, for one owner; the kernel's own are not counted.
    pub(super) fn count(&self, owner: Owner) -> u64 {
        self.held
            .values()
            .filter(|block| block.owner == owner as u32)
            .count() as u64
    }

    /// The prefix lengths of the blocks held and of sources.
    fn used_lengths(&self) -> HashSet<(Family, u32)> {
        let held = self.held.keys().map(BlockKey::network);
        held.map(|(address, prefix)| (address.family, prefix))
            .chain(self.prefixes.families())
            .collect()
    }

    fn block(&self, request: &BlockRequest, old: Option<&Block>, dry: bool, step: u64) -> Block {
        let until = |lasting| step.saturating_add(self.clock.steps(lasting));
        let expires_step = match request.lasting {
            Some(lasting) => until(lasting),
            None => old
                .map_or(0, |old| old.expires_step)
                .max(until(DEFAULT_BLOCK)),
        };
        // What is in force in earnest does not become a trial by being renewed.
        let earnest = |old: &Block| old.flags & DRY == 0 && old.expires_step > step;
        let dry = dry && !old.is_some_and(earnest);
        Block {
            expires_step,
            flags: if dry { DRY } else { 0 },
            owner: request.owner as u32,
        }
    }

    fn overfull(&self, new: &HashMap<BlockKey, Block>) -> Option<Error> {
        [
            (Owner::Operator, self.quotas.operator),
            (Owner::Rule, self.quotas.rule),
        ]
        .into_iter()
        .find_map(|(owner, capacity)| {
            let is_owners = |block: &Block| block.owner == owner as u32;
            let added = new.values().filter(|block| is_owners(block)).count();
            let replaced = new
                .keys()
                .filter(|key| self.held.get(key).is_some_and(is_owners))
                .count();
            let total = self.count(owner) as usize + added - replaced;
            (added > 0 && total > capacity as usize).then_some(Error::BlocksFull {
                owner: owner.name(),
                capacity,
            })
        })
    }

    /// The table first, then the filter, then the lengths: until all are
    /// written the blocks do not hold, and never half.
    fn write(&mut self, lengths: Lengths, new: &HashMap<BlockKey, Block>) -> Result<(), Error> {
        let (keys, values): (Vec<_>, Vec<_>) = new.iter().unzip();
        self.tables
            .blocks
            .set_many(&keys, &values)
            .map_err(Error::system("writing blocks"))?;
        for (key, block) in new {
            if self.held.insert(*key, *block).is_none() {
                let filter = FilterBits::of_block(key, self.seed);
                for bit in each(filter) {
                    *self.bits.entry(bit).or_default() += 1;
                }
                self.word(filter.word).fetch_or(filter.bits, AcqRel);
            }
        }
        self.write_lengths(lengths)
    }

    fn write_lengths(&mut self, lengths: Lengths) -> Result<(), Error> {
        if lengths != self.lengths {
            self.tables
                .lengths
                .set(&0, &lengths)
                .map_err(Error::system("writing the prefix lengths of blocks"))?;
            self.lengths = lengths;
        }
        Ok(())
    }

    fn drop_where(&mut self, ends: impl Fn(&BlockKey, &Block) -> bool) -> Result<usize, Error> {
        let keys: Vec<_> = self
            .held
            .iter()
            .filter(|(key, block)| ends(key, block))
            .map(|(key, _)| *key)
            .collect();
        if keys.is_empty() {
            return Ok(0);
        }
        self.tables
            .blocks
            .remove_many(&keys)
            .map_err(Error::system("deleting blocks"))?;
        let mut idle = Vec::new();
        for key in &keys {
            self.held.remove(key);
            for bit in each(FilterBits::of_block(key, self.seed)) {
                if let Some(count) = self.bits.get_mut(&bit) {
                    *count -= 1;
                    if *count == 0 {
                        self.bits.remove(&bit);
                        idle.push(bit);
                    }
                }
            }
        }
        self.clear(&idle)?;
        Ok(keys.len())
    }

    /// Clears bits that none of our blocks needs. The kernel's may: those that
    /// are seen are left alone, and one that came about meanwhile is set again.
    fn clear(&self, idle: &[Bit]) -> Result<(), Error> {
        let needed = self.kernel_bits()?;
        for (word, bit) in idle.iter().filter(|bit| !needed.contains(bit)) {
            self.word(*word).fetch_and(!(1 << bit), AcqRel);
        }
        for (word, bit) in self.kernel_bits()? {
            if self.word(word).load(Acquire) >> bit & 1 == 0 {
                self.word(word).fetch_or(1 << bit, AcqRel);
            }
        }
        Ok(())
    }

    fn kernel_bits(&self) -> Result<HashSet<Bit>, Error> {
        let mut bits = HashSet::new();
        for (_, blocks) in self.kernel_places()? {
            for way in blocks.ways {
                if way.expires.load() != 0 {
                    let source = SourceKey(way.source.load()).address();
                    let prefix = self.prefixes.of(source.family);
                    let block = BlockKey::new(source, prefix, 0);
                    bits.extend(each(FilterBits::of_block(&block, self.seed)));
                }
            }
        }
        Ok(bits)
    }

    fn kernel_places(&self) -> Result<Vec<(u32, KernelBlocks)>, Error> {
        let places = self
            .tables
            .kernel
            .read(1, self.quotas.kernel_places as usize)
            .map_err(Error::system("reading the kernel's blocks"))?;
        Ok(places
            .into_iter()
            .flat_map(|(place, words)| words.into_iter().map(move |words| (place, words)))
            .filter(|(_, words)| words.iter().any(|word| *word != 0))
            .map(|(place, words)| (place, KernelBlocks::from_words(words)))
            .collect())
    }

    /// Frees the kernel's blocks that `ends`, by source and expiry.
    fn end_kernel_blocks(&self, ends: impl Fn(SourceKey, u64) -> bool) -> Result<(), Error> {
        for (place, _) in self.kernel_places()? {
            self.free_kernel_ways(place, |way| ends(SourceKey(way[0]), way[1]))?;
        }
        Ok(())
    }

    fn remove_kernel(&self, network: &IpNet) -> Result<bool, Error> {
        let (address, prefix) = network_parts(network);
        if prefix < self.prefixes.of(address.family) {
            return Ok(false);
        }
        let mask = limiter_common::address::source_mask(self.prefixes.of(address.family));
        let source = address.source(mask);
        let place = kernel_place(source, self.seed, self.quotas.kernel_places);
        self.free_kernel_ways(place, |way| way[0] == source.0 && way[1] != 0)
    }

    /// Frees the ways of a place for which `ends` holds: source, expiry, limit.
    /// A block that the kernel makes at this place meanwhile may be lost; the
    /// source's next packet makes it again.
    fn free_kernel_ways(&self, place: u32, ends: impl Fn(&[u64]) -> bool) -> Result<bool, Error> {
        let failed = || Error::system("deleting a block of the kernel");
        let Some(mut words) = self.tables.kernel.get(&place).map_err(failed())? else {
            return Ok(false);
        };
        let mut found = false;
        for way in words.chunks_mut(3) {
            if ends(way) {
                way.fill(0);
                found = true;
            }
        }
        if found {
            self.tables.kernel.set(&place, &words).map_err(failed())?;
        }
        Ok(found)
    }

    fn state(&self, key: &BlockKey, block: &Block, slots: &Slots, step: u64) -> BlockState {
        let (address, prefix) = key.network();
        let slot = (key.limit as usize).checked_sub(1);
        BlockState {
            network: network(address, prefix),
            owner: if block.owner == Owner::Rule as u32 {
                Owner::Rule
            } else {
                Owner::Operator
            },
            limit: slot.and_then(|slot| slots.name(slot)).map(str::to_owned),
            remaining: self.clock.duration(block.expires_step.saturating_sub(step)),
            dry: block.flags & DRY != 0,
        }
    }

    fn word(&self, word: u32) -> &std::sync::atomic::AtomicU64 {
        &self.filter.words()[(word % FILTER_WORDS) as usize]
    }
}

impl SourcePrefixes {
    const fn families(self) -> [(Family, u32); 2] {
        [(Family::Ipv4, self.ipv4), (Family::Ipv6, self.ipv6)]
    }

    const fn of(self, family: Family) -> u32 {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

fn slot_of(slots: &Slots, limit: Option<&str>) -> Result<Option<u32>, Error> {
    let Some(name) = limit else {
        return Ok(None);
    };
    match slots.find(name) {
        Some(slot) => Ok(Some(slot as u32)),
        None => Err(Error::NoLimit {
            limit: name.to_owned(),
        }),
    }
}

/// The bits one by one.
fn each(filter: FilterBits) -> impl Iterator<Item = Bit> {
    let is_set = move |bit: &u32| filter.bits >> bit & 1 == 1;
    (0..u64::BITS)
        .filter(is_set)
        .map(move |bit| (filter.word, bit))
}

const fn lengths_place(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

fn has_length(lengths: &Lengths, (family, prefix): (Family, u32)) -> bool {
    let of = lengths.of(family);
    of.lengths[..of.count as usize].contains(&Length::new(family, prefix))
}

/// Adds a prefix length, in the place of one that is not `used`, if there is
/// one. All others stay where they are: packets read them meanwhile.
fn add_length(
    lengths: &mut Lengths,
    used: &HashSet<(Family, u32)>,
    family: Family,
    prefix: u32,
) -> Result<(), Error> {
    if has_length(lengths, (family, prefix)) {
        return Ok(());
    }
    let of = &mut lengths.families[lengths_place(family)];
    let count = of.count as usize;
    let is_used = |length: &Length| used.contains(&(family, length.prefix & 0xffff));
    let place = of.lengths[..count]
        .iter()
        .position(|length| !is_used(length))
        .unwrap_or(count);
    if place == LENGTHS {
        return Err(Error::TooManyLengths {
            prefix,
            capacity: LENGTHS,
        });
    }
    of.lengths[place] = Length::new(family, prefix);
    of.count = of.count.max(place as u32 + 1);
    let used = &of.lengths[..of.count as usize];
    of.wide = u32::from(used.iter().any(|length| length.wide != 0));
    Ok(())
}
