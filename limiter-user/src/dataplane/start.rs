//! How a data plane comes to be: anew, or in the place of the one that the daemon
//! before left at work.
//!
//! Every start loads its own program, so that a restart is an upgrade to the same
//! version. Maps that look alike are taken over with all that is in them, and one
//! system call per interface puts the new program in the place of the old one: no
//! packet passes unseen. Where they differ, others are made beside them, filled,
//! and put in force the same way.

use super::{
    DataPlane, Error, Options, Pins,
    attach::Interfaces,
    blocks::{self, Blocks, Quotas},
    capture::Samples,
    clock::Clock,
    filter::Filter,
    kept::Kept,
    kernel_blocks::KernelBlocks,
    ledger::{Ledger, Meta, Row},
    machine,
    object::{Object, Shape, Sizes},
    pins::Set,
    predecessor::{Carried, Predecessor},
    sys::{self, Table},
    tables::{self, Rows},
    tally::Tallies,
    term::InForce,
};
use crate::{
    image::{Slots, known_words, recent_lines},
    policy::Policy,
};
use limiter_common::{block::WAYS, filter::FILTER_WORDS, time::UNITS_PER_NS};
use serde::Serialize;
use std::os::fd::{AsFd as _, OwnedFd};

/// What a data plane began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// With nothing: there was no other.
    Fresh,
    /// With the maps of the one before, and all that was in them.
    Inherited,
    /// With new maps in the place of others that look different.
    Rebuilt {
        /// What differs.
        because: String,
        /// What could not be taken over.
        lost: &'static str,
    },
}

impl DataPlane {
    /// Loads the program with tables for `policy` and puts the policy in
    /// force. Nothing is attached yet, and nothing outlives the process.
    ///
    /// # Errors
    ///
    /// [`Error::OldKernel`], [`Error::Permission`], [`Error::Memory`],
    /// [`Error::Load`] and those of [`DataPlane::apply`].
    pub fn load(policy: &Policy, options: Options) -> Result<Self, Error> {
        let start = Start::prepare(policy, options)?;
        start.fill(policy, None, Origin::Fresh, Carried::default())
    }

    /// The same in the place of what another process left in `pins`, and to be left
    /// there. Where the program sat it stays until [`DataPlane::take_over`].
    ///
    /// Maps that look as these would ([`Origin::Inherited`]) keep what is in them,
    /// the policy in force too: `policy` is not applied. Otherwise it is, in maps that
    /// no packet meets yet.
    ///
    /// # Errors
    ///
    /// Those of [`DataPlane::load`], and [`Error::Pins`].
    pub fn open(policy: &Policy, options: Options, pins: Pins) -> Result<Self, Error> {
        let start = Start::prepare(policy, options)?;
        let before = Predecessor::latest(&pins)?;
        // What a start that was killed has left takes memory that this one needs.
        pins.keep_only(before.as_ref().map(|before| &before.set))?;
        match before {
            None => start.fill(policy, Some(pins), Origin::Fresh, Carried::default()),
            Some(before) => match before.differs(&start.shape) {
                None => start.inherit(policy, before, pins),
                Some(because) => start.rebuild(policy, before, pins, because),
            },
        }
    }

    /// Puts this program on the interfaces where the one before sat, takes over what
    /// that did until then in tables of its own, and removes those.
    ///
    /// # Errors
    ///
    /// [`Error::Replace`], [`Error::Pins`].
    pub fn take_over(&mut self) -> Result<(), Error> {
        let Some(kept) = &mut self.kept else {
            return Ok(());
        };
        kept.meta.is_complete = true;
        self.ledger.set_meta(&kept.meta)?;
        let before = kept.before.take();
        self.interfaces.replace_program(&self.object)?;
        if let Some(before) = before
            && before.meta.lineage == self.lineage
        {
            self.rows.wait()?;
            let mut carried = before.carried(self.cpus, self.step()?)?;
            carried.fit(&self.policy);
            self.tallies.carry(carried.counters);
            // Those that are there already are refused.
            self.restore(&carried.blocks)?;
            self.note(self.rows.generation(), &self.slots)?;
        }
        match &self.kept {
            Some(kept) => Ok(kept.pins.keep_only(Some(&kept.set))?),
            None => Ok(()),
        }
    }

    /// What it began with.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// A random number that stays as long as the blocks and counters in the maps do.
    pub const fn lineage(&self) -> u64 {
        self.lineage
    }
}

/// What every start needs.
struct Start {
    options: Options,
    cpus: usize,
    sizes: Sizes,
    shape: Shape,
    /// Small, to ask it for the time.
    small: Object,
}

impl Start {
    fn prepare(policy: &Policy, options: Options) -> Result<Self, Error> {
        machine::check_kernel(&machine::kernel_release()?)?;
        let edge = &policy.edge;
        let sizes = Sizes {
            entries: edge.sources,
            networks: tables::trie_capacity(policy),
            recent_lines: recent_lines(edge),
            known_words: known_words(edge),
            blocks: edge.tables.blocks_operator + edge.tables.blocks_rule,
            kernel_places: edge
                .tables
                .blocks_kernel
                .div_ceil(WAYS as u32)
                .next_power_of_two(),
            interfaces: edge.tables.interfaces + 1,
            test_clock: options.test_clock,
            trace: options.trace,
            ..Sizes::SMALLEST
        };
        let small = Object::load(&Sizes::SMALLEST, &["clock"], None)?;
        Ok(Self {
            options,
            cpus: machine::possible_cpus()?,
            shape: small.shape(&sizes)?,
            sizes,
            small,
        })
    }

    /// With maps of its own, and the policy in force.
    fn fill(
        self,
        policy: &Policy,
        pins: Option<Pins>,
        origin: Origin,
        carried: Carried,
    ) -> Result<DataPlane, Error> {
        tables::check_memory(policy, self.cpus)?;
        let place = match pins {
            Some(pins) => {
                let set = pins.new_set()?;
                Some((pins, set))
            }
            None => None,
        };
        let set = place.as_ref().map(|(_, set)| set.clone());
        let filled = self.try_fill(policy, place, origin, carried);
        if let (Err(_), Some(set)) = (&filled, set) {
            set.remove()?;
        }
        filled
    }

    fn try_fill(
        self,
        policy: &Policy,
        place: Option<(Pins, Set)>,
        origin: Origin,
        mut carried: Carried,
    ) -> Result<DataPlane, Error> {
        let seed = match self.options.test_seed {
            Some(seed) => seed,
            None => machine::random()?,
        };
        let meta = Meta {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shape: self.shape.clone(),
            seed,
            step_ns: Clock::calibrate(&self.small)?.step_ns,
            lineage: match carried.lineage {
                Some(lineage) => lineage,
                None => machine::random()?,
            },
            is_complete: false,
        };
        let ledger = Ledger::create()?;
        ledger.set_meta(&meta)?;
        let kept = match place {
            Some((pins, set)) => {
                ledger.pin(&set)?;
                let (meta, before) = (meta.clone(), None);
                Some(Kept {
                    pins,
                    set,
                    meta,
                    before,
                })
            }
            None => None,
        };
        let mut plane = self.plane(policy, &meta, ledger, kept, origin)?;
        carried.fit(policy);
        plane.tallies.carry(carried.counters);
        plane.interfaces.adopt(carried.interfaces, 1)?;
        plane.apply(policy)?;
        let refused = plane.restore(&carried.blocks)?;
        if !refused.is_empty() {
            tracing::warn!(
                blocks = refused.len(),
                "blocks found no room in the new tables"
            );
        }
        Ok(plane)
    }

    /// With maps of its own in the place of those of the one before.
    fn rebuild(
        self,
        policy: &Policy,
        before: Predecessor,
        pins: Pins,
        because: String,
    ) -> Result<DataPlane, Error> {
        let carried = if before.meta.shape.layout == self.shape.layout {
            self.small
                .read_clock()
                .and_then(|now| before.carried(self.cpus, now.step))
        } else {
            // What their bytes mean is not known.
            Ok(Carried::default())
        };
        let carried = carried.unwrap_or_else(|error| {
            tracing::warn!(%error, "the tables of the program at work cannot be read");
            Carried::default()
        });
        let lost = match carried.lineage {
            Some(_) => "nothing else",
            None => "counters, and blocks but for those in the state directory",
        };
        let origin = Origin::Rebuilt { because, lost };
        let term_before = carried.term;
        let mut plane = self.fill(policy, Some(pins), origin, carried)?;
        plane.term_before = term_before;
        if let Some(kept) = &mut plane.kept {
            kept.before = Some(before);
        }
        Ok(plane)
    }

    /// With the maps of the one before.
    fn inherit(self, policy: &Policy, before: Predecessor, pins: Pins) -> Result<DataPlane, Error> {
        let Predecessor { set, ledger, meta } = before;
        let kept = Some(Kept {
            pins,
            set,
            meta: meta.clone(),
            before: None,
        });
        let mut plane = self.plane(policy, &meta, ledger, kept, Origin::Inherited)?;
        let failed = Error::system("reading what is in force");
        let active = plane.active.get(&0).map_err(failed)?.unwrap_or_default();
        let step = plane.step()?;
        let in_force = InForce::of(&active, step);
        plane.term_before = in_force.left(step, plane.clock);
        plane.rows.adopt(in_force)?;
        let row = plane.ledger.row(in_force.current())?.unwrap_or_default();
        plane.slots = row.slots();
        for (limits, formers) in plane.rows.both()? {
            plane.slots.adopt(&limits, &formers);
        }
        plane.tallies.adopt(&row);
        plane.blocks.adopt(row.prefixes, &plane.slots)?;
        let Row { interfaces, .. } = row;
        plane
            .interfaces
            .adopt(interfaces, active.interface_factor)?;
        // What the one before wanted sampled nobody reads any more.
        plane.publish(in_force)?;
        Ok(plane)
    }

    /// Loads the program and opens its maps.
    fn plane(
        self,
        policy: &Policy,
        meta: &Meta,
        ledger: Ledger,
        kept: Option<Kept>,
        origin: Origin,
    ) -> Result<DataPlane, Error> {
        // Its descriptors are those of the large one then.
        drop(self.small);
        let clock = Clock {
            step_ns: meta.step_ns,
        };
        let sizes = Sizes {
            step_units: clock.step_ns * UNITS_PER_NS,
            seed: meta.seed,
            ..self.sizes
        };
        let set = kept.as_ref().map(|kept| &kept.set);
        let mut object = Object::load(&sizes, &["clock", "limiter"], set)?;
        let edge = &policy.edge;
        let links = kept.as_ref().map(|kept| kept.pins.links());
        let maps = BlockMaps {
            open: &|name| object.descriptor(name),
            kernel_places: sizes.kernel_places,
            seed: sizes.seed,
        };
        let quotas = Quotas {
            operator: edge.tables.blocks_operator,
            rule: edge.tables.blocks_rule,
        };
        Ok(DataPlane {
            ledger,
            lineage: meta.lineage,
            origin,
            rows: Rows::new(&object)?,
            blocks: blocks(&maps, quotas, clock)?,
            interfaces: Interfaces::new(object.table("INTERFACES")?, edge.tables.interfaces, links),
            entries: object.table("ENTRIES")?,
            standings: object.table("STANDING")?,
            gates: object.table("GATES")?,
            totals: object.table("TOTALS")?,
            tallies: Tallies::new(object.table("TALLY")?, self.cpus),
            active: object.table("ACTIVE")?,
            samples: Samples::new(&mut object)?,
            before: None,
            term_before: None,
            object,
            kept,
            clock,
            slots: Slots::default(),
            policy: policy.clone(),
            cpus: self.cpus,
            test_clock: self.options.test_clock,
            test_step: 0,
        })
    }
}

/// The maps of blocks, in whosever set they are.
pub(super) struct BlockMaps<'a> {
    pub(super) open: &'a dyn Fn(&str) -> Result<OwnedFd, Error>,
    pub(super) kernel_places: u32,
    pub(super) seed: u64,
}

pub(super) fn blocks(maps: &BlockMaps<'_>, quotas: Quotas, clock: Clock) -> Result<Blocks, Error> {
    let seed = maps.seed;
    let filter = (maps.open)("FILTER")?;
    let filter = sys::Words::map(filter.as_fd(), FILTER_WORDS as usize)
        .map_err(Error::system("mapping the filter of blocks"))?;
    let kernel = Table::new((maps.open)("KERNEL_BLOCKS")?);
    let tables = blocks::Tables {
        blocks: Table::new((maps.open)("BLOCKS")?),
        kernel: KernelBlocks::new(kernel, maps.kernel_places, seed),
        lengths: Table::new((maps.open)("LENGTHS")?),
    };
    Ok(Blocks::new(
        tables,
        Filter::new(filter, seed),
        quotas,
        clock,
    ))
}
