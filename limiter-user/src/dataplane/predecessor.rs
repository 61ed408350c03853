//! What the daemon before left at work, and what of it goes into tables of another
//! shape.

use super::{
    Error, Pins,
    blocks::{Blocks, Quotas},
    clock::Clock,
    ledger::{Ledger, Meta},
    model::{Attachment, BlockState, Term},
    object::{KEPT, Shape},
    pins::Set,
    start::{BlockMaps, blocks},
    sys::Table,
    tally::{Tallies, Totals, add},
    term::InForce,
};
use crate::policy::Policy;
use limiter_common::layout::Active;
use std::{cmp::Reverse, time::Duration};

/// What is there before a start.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) set: Set,
    pub(super) ledger: Ledger,
    pub(super) meta: Meta,
}

/// What goes from one set of maps to another.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) lineage: Option<u64>,
    pub(super) interfaces: Vec<Option<Attachment>>,
    pub(super) counters: Totals,
    pub(super) blocks: Vec<BlockState>,
    /// What was in force for a time, and for how long still.
    pub(super) term: Option<(Term, Duration)>,
}

impl Carried {
    /// Makes it fit in tables for `policy`. Where there is no room for all blocks,
    /// those that end last are kept.
    pub(super) fn fit(&mut self, policy: &Policy) {
        let rows = policy.edge.tables.interfaces as usize;
        self.interfaces.truncate(rows);
        for ((row, name, outcome), tally) in std::mem::take(&mut self.counters) {
            let row = if row as usize > rows { 0 } else { row };
            add(
                self.counters.entry((row, name, outcome)).or_default(),
                tally,
            );
        }
        if policy.edge.enforce {
            self.blocks.retain(|block| !block.dry);
        }
        self.blocks.sort_by_key(|block| Reverse(block.remaining));
    }
}

impl Predecessor {
    /// The latest set that was filled.
    pub(super) fn latest(pins: &Pins) -> Result<Option<Self>, Error> {
        for set in pins.sets()? {
            if !Ledger::is_in(&set) {
                continue;
            }
            let ledger = Ledger::open(&set)?;
            if let Some(meta) = ledger.meta()?
                && meta.is_complete
            {
                return Ok(Some(Self { set, ledger, meta }));
            }
        }
        Ok(None)
    }

    /// What keeps a program of this shape from using the maps of the one before;
    /// `None`: nothing.
    pub(super) fn differs(&self, shape: &Shape) -> Option<String> {
        let there = &self.meta.shape;
        if there.layout != shape.layout {
            return Some(format!(
                "limiter {} wrote them in layout {}, and this is layout {}",
                self.meta.version, there.layout, shape.layout
            ));
        }
        if there != shape {
            let names = shape.maps.iter();
            let names = names.filter(|(name, shape)| there.maps.get(*name) != Some(shape));
            let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
            return Some(format!("other sizes of {}", names.join(", ")));
        }
        let missing: Vec<&str> = KEPT
            .into_iter()
            .filter(|name| !self.set.has(name))
            .collect();
        (!missing.is_empty()).then(|| format!("the pins of {} are missing", missing.join(", ")))
    }

    /// What the maps before hold at `step` that goes into others.
    pub(super) fn carried(&self, cpus: usize, step: u64) -> Result<Carried, Error> {
        let set = &self.set;
        let active: Table<u32, Active> = Table::new(set.get("ACTIVE")?);
        let failed = Error::system("reading what is in force");
        let active = active.get(&0).map_err(failed)?.unwrap_or_default();
        let in_force = InForce::of(&active, step);
        let row = self.ledger.row(in_force.current())?.unwrap_or_default();
        let mut tallies = Tallies::new(Table::new(set.get("TALLY")?), cpus);
        tallies.adopt(&row);
        let rows = row.interfaces.len() as u32 + 1;
        let slots = row.slots();
        let mut blocks = self.blocks()?;
        blocks.adopt(row.prefixes, &slots)?;
        Ok(Carried {
            lineage: Some(self.meta.lineage),
            counters: tallies.totals(rows, &slots)?,
            blocks: blocks.list(&slots, step)?,
            interfaces: row.interfaces,
            term: in_force.left(step, self.clock()),
        })
    }

    /// The blocks of the one before, in its maps.
    fn blocks(&self) -> Result<Blocks, Error> {
        let meta = &self.meta;
        let places = meta.shape.maps.get("KERNEL_BLOCKS");
        let maps = BlockMaps {
            open: &|name| Ok(self.set.get(name)?),
            kernel_places: places.map_or(1, |shape| shape[3]),
            seed: meta.seed,
        };
        // Of those there are none is refused.
        let quotas = Quotas {
            operator: u32::MAX,
            rule: u32::MAX,
        };
        blocks(&maps, quotas, self.clock())
    }

    const fn clock(&self) -> Clock {
        Clock {
            step_ns: self.meta.step_ns,
        }
    }
}
