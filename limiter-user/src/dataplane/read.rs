//! What the program has counted and remembers.

use super::{
    DataPlane,
    error::Error,
    model::{Counter, FloodState, MapUse, SourceState},
};
use crate::image::network;
use limiter_common::{
    address::SourceKey,
    block::Owner,
    entry::Entry,
    flood::Gate,
    layout::{EntryKey, LIMITS},
    verdict::Outcome,
};

impl DataPlane {
    /// The counters that are not zero.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn counters(&self) -> Result<Vec<Counter>, Error> {
        self.tallies
            .read(self.interfaces.row_count(), &self.slots, |row| {
                self.interfaces.name(row as usize)
            })
    }

    /// The sources that are tracked, in no order.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn sources(&self) -> Result<Vec<SourceState>, Error> {
        let entries = self
            .entries
            .read(self.cpus, usize::MAX)
            .map_err(Error::system("reading sources"))?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, copies)| self.source(key, &copies))
            .collect())
    }

    /// Whether new sources are too many, and how many got entries.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn flood(&self) -> Result<FloodState, Error> {
        let step = self.step()?;
        let gate = |kind| {
            let words = self.gates.get(&kind);
            let words = words.map_err(Error::system("reading the gates of new sources"))?;
            Ok::<_, Error>(Gate::from_words(words.unwrap_or_default()))
        };
        let gates = [gate(0)?, gate(1)?];
        Ok(FloodState {
            is_active: gates.iter().any(|gate| gate.is_on(step)),
            admitted: gates.iter().map(Gate::made).sum(),
        })
    }

    /// How full the tables are.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn capacities(&self) -> Result<Vec<MapUse>, Error> {
        let edge = &self.policy.edge;
        let kernel = self.blocks.count_kernel(self.step()?)?;
        let row = |map, capacity, entries| MapUse {
            map,
            capacity: u64::from(capacity),
            entries,
        };
        Ok(vec![
            row("sources", edge.sources, None),
            row("lists", edge.tables.lists, Some(self.rows.listed() as u64)),
            row(
                "blocks_operator",
                edge.tables.blocks_operator,
                Some(self.blocks.count(Owner::Operator)),
            ),
            row(
                "blocks_rule",
                edge.tables.blocks_rule,
                Some(self.blocks.count(Owner::Rule)),
            ),
            row("blocks_kernel", edge.tables.blocks_kernel, Some(kernel)),
            row("limits", LIMITS as u32, Some(edge.limits.len() as u64)),
        ])
    }

    fn source(&self, key: EntryKey, copies: &[[u64; 8]]) -> Option<SourceState> {
        let address =
            SourceKey(u64::from(key.source[0]) << 32 | u64::from(key.source[1])).address();
        let prefix = match address.family {
            limiter_common::address::Family::Ipv4 => self.policy.edge.ipv4_prefix,
            limiter_common::address::Family::Ipv6 => self.policy.edge.ipv6_prefix,
        };
        let entries: Vec<Entry> = copies.iter().copied().map(Entry::from_words).collect();
        let (passed, dropped) = entries
            .iter()
            .map(Entry::counts)
            .fold((0, 0), |sum, copy| (sum.0 + copy.0, sum.1 + copy.1));
        let refusal = entries
            .iter()
            .filter(|entry| entry.last_refusal() != 0)
            .max_by_key(|entry| entry.counts().1)
            .map(Entry::last_refusal);
        Some(SourceState {
            source: network(address, prefix.into()),
            limit: self.slots.name(key.limit as usize)?.to_owned(),
            passed,
            dropped,
            last_refusal: refusal.and_then(Outcome::from_index),
        })
    }
}
