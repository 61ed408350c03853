//! Blocks of operators and rules: the table, the filter before it, the prefix
//! lengths, the quotas.

mod restore;

use super::{
    clock::Clock,
    error::Error,
    filter::Filter,
    kernel_blocks::KernelBlocks,
    lengths::{SourcePrefixes, add_length, has_length, note_wide},
    model::{BlockRequest, BlockState},
    sys::Table,
};
use crate::image::{Slots, network, network_parts};
use ipnet::IpNet;
use limiter_common::{
    address::Family,
    block::{Block, BlockKey, DRY, KERNEL_DRY, Lengths, Owner},
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// How long a block lasts where nothing else is said.
pub const DEFAULT_BLOCK: Duration = Duration::from_secs(15 * 60);

/// The tables behind the blocks.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) blocks: Table<BlockKey, Block>,
    pub(super) kernel: KernelBlocks,
    pub(super) lengths: Table<u32, Lengths>,
}

/// What each owner may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quotas {
    pub(super) operator: u32,
    pub(super) rule: u32,
}

/// All blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    tables: Tables,
    filter: Filter,
    quotas: Quotas,
    clock: Clock,
    /// What the table holds: only this process writes it.
    held: HashMap<BlockKey, Block>,
    /// Of them, those that rules have made.
    held_of_rules: usize,
    lengths: Lengths,
    prefixes: SourcePrefixes,
}

impl Blocks {
    pub(super) fn new(tables: Tables, filter: Filter, quotas: Quotas, clock: Clock) -> Self {
        Self {
            tables,
            filter,
            quotas,
            clock,
            held: HashMap::new(),
            held_of_rules: 0,
            lengths: Lengths::NONE,
            prefixes: SourcePrefixes::default(),
        }
    }

    /// Takes over what another process left in the tables: `prefixes` are those of
    /// the kernel's own blocks, `slots` the limits that blocks are confined to.
    pub(super) fn adopt(&mut self, prefixes: SourcePrefixes, slots: &Slots) -> Result<(), Error> {
        let failed = || Error::system("reading blocks");
        let held = self.tables.blocks.read(1, usize::MAX).map_err(failed())?;
        let pairs = |(key, blocks): (BlockKey, Vec<Block>)| {
            blocks.into_iter().map(move |block| (key, block))
        };
        self.held = held.into_iter().flat_map(pairs).collect();
        self.held_of_rules = self.held.values().filter(is_of_rule).count();
        let lengths = self.tables.lengths.get(&0).map_err(failed())?;
        self.lengths = lengths.unwrap_or(Lengths::NONE);
        self.prefixes = prefixes;
        let idle = self.filter.adopt(self.held.keys());
        let kernel = &self.tables.kernel;
        self.filter.clear(&idle, || kernel.bits(self.prefixes))?;
        // It was killed between writing a block and the length that packets find it
        // by, or between putting another policy in force and what follows.
        let mut lengths = self.lengths;
        let used = self.used_lengths();
        for (family, prefix) in &used {
            add_length(&mut lengths, &used, *family, *prefix)?;
        }
        self.write_lengths(lengths)?;
        self.forget_limits(|slot| slots.name(slot as usize).is_none())
            .map(drop)
    }

    /// The source prefixes of the kernel's own blocks.
    pub(super) const fn prefixes(&self) -> SourcePrefixes {
        self.prefixes
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
            self.tables.kernel.end(|source, _| {
                let family = source.address().family;
                before.of(family) != prefixes.of(family)
            })?;
        }
        let lengths = self.lengths_with(prefixes, step)?;
        self.write_lengths(lengths)?;
        self.narrow()?;
        if enforce {
            self.drop_where(|_, block| block.flags & DRY != 0)?;
            // The program ignores them while the policy is enforced, and would
            // heed them again in the next dry run.
            self.tables
                .kernel
                .end(|_, expires| expires & KERNEL_DRY != 0)?;
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
            self.tables.kernel.remove(network, self.prefixes)?
        } else {
            false
        };
        Ok(ended > 0 || kernel)
    }

    /// The block of exactly this network and limit in force at `step`, unless it is the
    /// kernel's own.
    pub(super) fn find(
        &self,
        network: &IpNet,
        limit: Option<&str>,
        slots: &Slots,
        step: u64,
    ) -> Result<Option<BlockState>, Error> {
        let limit = slot_of(slots, limit)?;
        let (address, prefix) = network_parts(network);
        let key = BlockKey::new(address, prefix, limit.map_or(0, |slot| slot + 1));
        let held = self.held.get(&key);
        let held = held.filter(|block| block.expires_step > step);
        Ok(held.map(|block| self.state(&key, block, slots, step)))
    }

    /// All blocks in force at `step`.
    pub(super) fn list(&self, slots: &Slots, step: u64) -> Result<Vec<BlockState>, Error> {
        let mut all: Vec<_> = self
            .held
            .iter()
            .filter(|(_, block)| block.expires_step > step)
            .map(|(key, block)| self.state(key, block, slots, step))
            .collect();
        let kernel = &self.tables.kernel;
        all.extend(kernel.list(self.prefixes, self.clock, slots, step)?);
        Ok(all)
    }

    /// Tidies away what is over at `step`; the program has ignored it since.
    /// Returns how many.
    pub(super) fn expire(&mut self, step: u64) -> Result<usize, Error> {
        self.drop_where(|_, block| block.expires_step <= step)
    }

    /// The kernel's own blocks in force at `step`.
    pub(super) fn count_kernel(&self, step: u64) -> Result<u64, Error> {
        self.tables.kernel.count(step)
    }

    /// Blocks held, for one owner; the kernel's own are not counted.
    pub(super) fn count(&self, owner: Owner) -> u64 {
        let count = match owner {
            Owner::Rule => self.held_of_rules,
            Owner::Operator => self.held.len() - self.held_of_rules,
            Owner::Kernel => 0,
        };
        count as u64
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
            let before = self.held.insert(*key, *block);
            self.held_of_rules += usize::from(is_of_rule(&block));
            match before {
                Some(before) => self.held_of_rules -= usize::from(is_of_rule(&&before)),
                None => self.filter.add(key),
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

    /// Spares packets the question for wide blocks where there is none any more.
    fn narrow(&mut self) -> Result<(), Error> {
        let mut lengths = self.lengths;
        if lengths.families.iter().any(|family| family.wide != 0) {
            note_wide(&mut lengths, &self.used_lengths());
        }
        self.write_lengths(lengths)
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
        for key in &keys {
            let gone = self.held.remove(key);
            self.held_of_rules -= usize::from(gone.as_ref().is_some_and(|it| is_of_rule(&it)));
        }
        let idle = self.filter.remove(&keys);
        let kernel = &self.tables.kernel;
        self.filter.clear(&idle, || kernel.bits(self.prefixes))?;
        self.narrow()?;
        Ok(keys.len())
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
}

fn is_of_rule(block: &&Block) -> bool {
    block.owner == Owner::Rule as u32
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
