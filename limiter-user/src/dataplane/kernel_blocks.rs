//! The blocks that the packet path makes, in its own table.

use super::{
    clock::Clock,
    error::Error,
    filter::{self, Bit},
    lengths::SourcePrefixes,
    model::BlockState,
    sys::Table,
};
use crate::image::{Slots, network, network_parts};
use ipnet::IpNet;
use limiter_common::{
    address::{SourceKey, source_mask},
    block::{BlockKey, KERNEL_DRY, KernelBlock, KernelBlocks as Place, Owner, kernel_place},
    filter::FilterBits,
};
use std::collections::HashSet;

/// The kernel's blocks: it writes them, we read them and may free them.
#[derive(Debug)]
pub(super) struct KernelBlocks {
    table: Table<u32, [u64; 24]>,
    /// A power of two.
    places: u32,
    seed: u64,
}

impl KernelBlocks {
    pub(super) const fn new(table: Table<u32, [u64; 24]>, places: u32, seed: u64) -> Self {
        Self {
            table,
            places,
            seed,
        }
    }

    /// Those in force at `step`.
    pub(super) fn list(
        &self,
        prefixes: SourcePrefixes,
        clock: Clock,
        slots: &Slots,
        step: u64,
    ) -> Result<Vec<BlockState>, Error> {
        let state = |(source, expires, limit): (SourceKey, u64, u64)| {
            let address = source.address();
            let slot = usize::try_from(limit).unwrap_or(usize::MAX);
            let expires_step = expires & !KERNEL_DRY;
            (expires_step > step).then(|| BlockState {
                network: network(address, prefixes.of(address.family)),
                owner: Owner::Kernel,
                limit: slots.name(slot).map(str::to_owned),
                remaining: clock.duration(expires_step - step),
                dry: expires & KERNEL_DRY != 0,
            })
        };
        Ok(self.ways()?.into_iter().filter_map(state).collect())
    }

    /// How many are in force at `step`.
    pub(super) fn count(&self, step: u64) -> Result<u64, Error> {
        let ways = self.ways()?.into_iter();
        let in_force = ways.filter(|(_, expires, _)| expires & !KERNEL_DRY > step);
        Ok(in_force.count() as u64)
    }

    /// The bits of the filter that they need.
    pub(super) fn bits(&self, prefixes: SourcePrefixes) -> Result<HashSet<Bit>, Error> {
        let bits = |source: SourceKey| {
            let address = source.address();
            let block = BlockKey::new(address, prefixes.of(address.family), 0);
            filter::each(FilterBits::of_block(&block, self.seed))
        };
        let ways = self.ways()?.into_iter();
        Ok(ways
            .filter(|(_, expires, _)| *expires != 0)
            .flat_map(|(source, ..)| bits(source))
            .collect())
    }

    /// Frees those that `ends`, by source and expiry.
    pub(super) fn end(&self, ends: impl Fn(SourceKey, u64) -> bool) -> Result<(), Error> {
        for (place, _) in self.used_places()? {
            self.free(place, &ends)?;
        }
        Ok(())
    }

    /// Frees that of a source; false if there was none.
    pub(super) fn remove(&self, of: &IpNet, prefixes: SourcePrefixes) -> Result<bool, Error> {
        let (address, prefix) = network_parts(of);
        let source_prefix = prefixes.of(address.family);
        if prefix < source_prefix {
            return Ok(false);
        }
        let source = address.source(source_mask(source_prefix));
        let place = kernel_place(source, self.seed, self.places);
        self.free(place, |it, expires| it == source && expires != 0)
    }

    /// Blocks a source, as the packet path would, until `expires`: the first
    /// clock step at which it no longer holds, and whether it is dry. False if
    /// all blocks of its place last longer.
    pub(super) fn put(
        &self,
        of: &IpNet,
        slot: u32,
        (expires_step, dry): (u64, bool),
        step: u64,
    ) -> Result<bool, Error> {
        let failed = || Error::system("writing a block of the kernel");
        let (address, prefix) = network_parts(of);
        let source = address.source(source_mask(prefix));
        let place = kernel_place(source, self.seed, self.places);
        let words = self.table.get(&place).map_err(failed())?;
        let blocks = Place::from_words(words.unwrap_or_default());
        let lasts = |way: &KernelBlock| way.expires.load() & !KERNEL_DRY >= expires_step;
        if blocks.find(source, step).is_some() || blocks.ways.iter().all(lasts) {
            return Ok(false);
        }
        blocks.put(source, slot, expires_step, dry);
        self.table.set(&place, &blocks.words()).map_err(failed())?;
        Ok(true)
    }

    /// Source, expiry and limit of every way that was ever used.
    fn ways(&self) -> Result<Vec<(SourceKey, u64, u64)>, Error> {
        let places = self.used_places()?;
        let ways = places.iter().flat_map(|(_, place)| &place.ways);
        let parts = ways.map(|way| {
            let source = SourceKey(way.source.load());
            (source, way.expires.load(), way.limit.load())
        });
        Ok(parts.collect())
    }

    fn used_places(&self) -> Result<Vec<(u32, Place)>, Error> {
        let places = self
            .table
            .read(1, self.places as usize)
            .map_err(Error::system("reading the kernel's blocks"))?;
        Ok(places
            .into_iter()
            .flat_map(|(place, words)| words.into_iter().map(move |words| (place, words)))
            .filter(|(_, words)| words.iter().any(|word| *word != 0))
            .map(|(place, words)| (place, Place::from_words(words)))
            .collect())
    }

    /// Frees the ways of a place for which `ends` holds: source and expiry.
    /// A block that the kernel makes at this place meanwhile may be lost; the
    /// source's next packet makes it again.
    fn free(&self, place: u32, ends: impl Fn(SourceKey, u64) -> bool) -> Result<bool, Error> {
        let failed = || Error::system("deleting a block of the kernel");
        let Some(mut words) = self.table.get(&place).map_err(failed())? else {
            return Ok(false);
        };
        let mut found = false;
        for way in words.chunks_mut(3) {
            if ends(SourceKey(way[0]), way[1]) {
                way.fill(0);
                found = true;
            }
        }
        if found {
            self.table.set(&place, &words).map_err(failed())?;
        }
        Ok(found)
    }
}
