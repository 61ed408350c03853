//! What the program has counted and remembers.

use super::{
    DataPlane,
    error::Error,
    model::{Counter, FloodState, MapUse, SampledPacket, SourceCount, SourceState},
};
use crate::image::network;
use limiter_common::{
    address::SourceKey,
    block::Owner,
    entry::Entry,
    flood::Gate,
    layout::{EntryKey, LIMITS},
    sample::Refusals,
    standing::Standing,
    verdict::Outcome,
};
use std::collections::HashMap;

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
        let counts = self.source_counts()?;
        Ok(counts.iter().filter_map(|it| self.source(it)).collect())
    }

    /// The same without names, to be counted and compared.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn source_counts(&self) -> Result<Vec<SourceCount>, Error> {
        let mut counts = Vec::new();
        self.entries
            .for_each(self.cpus, usize::MAX, |key, copies| {
                // Its limit may have gone meanwhile.
                if self.slots.name(key.limit as usize).is_some() {
                    counts.push(count(key, copies));
                }
            })
            .map_err(Error::system("reading sources"))?;
        self.add_standings(&mut counts)?;
        Ok(counts)
    }

    /// Adds what entries do not know of yet: packets of this clock step, and the
    /// last ones of sources that send no more.
    fn add_standings(&self, counts: &mut [SourceCount]) -> Result<(), Error> {
        let mut standings = HashMap::<_, Vec<Standing>>::new();
        self.standings
            .for_each(self.cpus, usize::MAX, |_, copies| {
                for standing in copies.iter().map(|copy| Standing::from_words(*copy)) {
                    let (passed, dropped, _) = standing.counts();
                    if passed + dropped != 0 {
                        let key = standing.key();
                        let of_key = standings.entry((key.source().0, key.limit));
                        of_key.or_default().push(standing);
                    }
                }
            })
            .map_err(Error::system("reading sources"))?;
        if standings.is_empty() {
            return Ok(());
        }
        for count in counts {
            for standing in standings.get(&count.key).into_iter().flatten() {
                let (passed, dropped, outcome) = standing.counts();
                count.passed += passed;
                count.dropped += dropped;
                count.unsettled += passed + dropped;
                // The latest.
                if dropped != 0 && outcome != 0 {
                    count.refusal = outcome;
                }
            }
        }
        Ok(())
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

    /// Lets the program lay samples of these refused packets aside, from now on
    /// and over changes of the policy; of each reason up to 64 at once and then one
    /// a clock step.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn sample(&mut self, wanted: Refusals) -> Result<(), Error> {
        let before = self.samples.wanted();
        if wanted == before {
            return Ok(());
        }
        self.samples.want(wanted);
        let published = self.publish(self.rows.in_force());
        if published.is_err() {
            self.samples.want(before);
        }
        published
    }

    /// The samples taken since the last time. Those that found no room are lost:
    /// the ring holds some 330.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn samples(&mut self) -> Result<Vec<SampledPacket>, Error> {
        self.samples
            .read(&self.object, &self.slots, &self.interfaces)
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

    /// What a count is of; `None`: its limit has gone meanwhile.
    pub fn source(&self, count: &SourceCount) -> Option<SourceState> {
        let address = SourceKey(count.key.0).address();
        let prefix = match address.family {
            limiter_common::address::Family::Ipv4 => self.policy.edge.ipv4_prefix,
            limiter_common::address::Family::Ipv6 => self.policy.edge.ipv6_prefix,
        };
        let refusal = (count.refusal != 0).then(|| Outcome::from_index(count.refusal));
        Some(SourceState {
            source: network(address, prefix.into()),
            limit: self.slots.name(count.key.1 as usize)?.to_owned(),
            passed: count.passed,
            dropped: count.dropped,
            unsettled: count.unsettled,
            last_refusal: refusal.flatten(),
        })
    }
}

/// Adds up an entry's copies.
fn count(key: EntryKey, copies: &[[u64; 8]]) -> SourceCount {
    let mut sum = SourceCount {
        key: (key.source().0, key.limit),
        passed: 0,
        dropped: 0,
        unsettled: 0,
        refusal: 0,
    };
    let mut most_dropped = 0;
    for copy in copies {
        let entry = Entry::from_words(*copy);
        let (passed, dropped) = entry.counts();
        sum.passed += passed;
        sum.dropped += dropped;
        // The one that most packets met.
        if entry.last_refusal() != 0 && dropped >= most_dropped {
            most_dropped = dropped;
            sum.refusal = entry.last_refusal();
        }
    }
    sum
}
