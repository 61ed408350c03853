//! Another policy, or other lists, in force: everything is written first, and
//! one write lets packets see it.

use super::{DataPlane, error::Error, ledger::Row, lengths::SourcePrefixes, term::InForce};
use crate::{
    image::{Image, ListChange, Slots},
    policy::{Edge, Policy},
};
use limiter_common::layout::{Active, LIMITS, Limit};

impl DataPlane {
    /// Puts another policy in force: one packet sees the old one or the new
    /// one. Limits keep their buckets by name. Table sizes stay as they are. What was
    /// in force for a time is over.
    ///
    /// # Errors
    ///
    /// [`Error::Image`], [`Error::ListsFull`], [`Error::TooManyLengths`]; the old
    /// policy is then still in force.
    pub fn apply(&mut self, policy: &Policy) -> Result<(), Error> {
        self.end_term()?;
        let policy = self.with_sizes(policy);
        let mut slots = self.slots.clone();
        let image = self.compile(&policy, &mut slots)?;
        let prefixes = prefixes(&policy.edge);
        // While the old policy can still stay in force.
        let step = self.step()?;
        self.blocks.lengths_with(prefixes, step)?;
        let changed = self.changed_totals(&image, &slots)?;
        let generation = self.rows.write(image)?;
        self.settle_names(generation, slots)?;
        self.publish(InForce::lasting(generation))?;
        self.refill_totals(&changed)?;
        let enforce = policy.edge.enforce;
        self.policy = policy;
        let followed = self.blocks.prefixes();
        self.blocks.follow(prefixes, enforce, step)?;
        if followed != prefixes {
            self.note(generation, &self.slots)?;
        }
        Ok(())
    }

    /// A policy with the sizes that the maps were made with.
    pub(super) fn with_sizes(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        policy.edge.sources = self.policy.edge.sources;
        policy.edge.tables = self.policy.edge.tables.clone();
        policy
    }

    /// The tables of a policy.
    ///
    /// # Errors
    ///
    /// [`Error::Image`], [`Error::ListsFull`].
    pub(super) fn compile(&self, policy: &Policy, slots: &mut Slots) -> Result<Image, Error> {
        let Edge { allow, deny, .. } = &policy.edge;
        let image = Image::compile(policy, allow, deny, slots, self.clock.step_ns)?;
        let (needed, capacity) = (image.networks.listed(), policy.edge.tables.lists);
        if needed > capacity as usize {
            return Err(Error::ListsFull { needed, capacity });
        }
        Ok(image)
    }

    /// Lets slots have these names from `generation` on: what was counted under
    /// others is put aside, and blocks confined to them end.
    pub(super) fn settle_names(&mut self, generation: u32, slots: Slots) -> Result<(), Error> {
        self.samples
            .read_early(&self.object, &self.slots, &self.interfaces)?;
        self.tallies
            .retire(self.interfaces.row_count(), &self.slots, &slots)?;
        self.note(generation, &slots)?;
        let before = std::mem::replace(&mut self.slots, slots);
        let after = &self.slots;
        self.blocks
            .forget_limits(|slot| before.name(slot as usize) != after.name(slot as usize))
            .map(drop)
    }

    /// Writes down what the maps mean under `generation`, where `slots` are those of
    /// its policy.
    pub(super) fn note(&self, generation: u32, slots: &Slots) -> Result<(), Error> {
        let mut row = Row {
            slots: slots
                .names()
                .map(|(slot, name)| (slot, name.to_owned()))
                .collect(),
            prefixes: self.blocks.prefixes(),
            interfaces: self.interfaces.rows(),
            ..Row::default()
        };
        self.tallies.note(&mut row);
        self.ledger.set_row(generation, &row)?;
        // Whatever is in force next, the next process finds the names of now.
        let InForce { term, then, .. } = self.rows.in_force();
        match term {
            Some(_) => self.ledger.set_row(then, &row),
            None => Ok(()),
        }
    }

    /// Puts entries on the lists in force or takes them off, all or none.
    ///
    /// # Errors
    ///
    /// [`Error::ListsFull`]; the old lists are then still in force.
    pub fn change_lists(&mut self, changes: &[ListChange]) -> Result<(), Error> {
        let capacity = self.policy.edge.tables.lists;
        if let Some(before) = &mut self.before {
            // They are to fit in the lists of before, too.
            let added = changes.iter().filter(|change| change.listed).count();
            let needed = before.listed + added;
            if needed > capacity as usize {
                return Err(Error::ListsFull { needed, capacity });
            }
            before.listed = needed;
        }
        let changed = self.rows.change_lists(changes, capacity);
        let in_force = self.rows.in_force();
        self.publish(in_force.renewed(in_force.next(true)))
            .and(changed)
    }

    /// The slots whose ceiling is another than before.
    pub(super) fn changed_totals(&self, image: &Image, slots: &Slots) -> Result<Vec<u32>, Error> {
        let before = self.rows.limits()?;
        let changed = |slot: &usize| {
            let is_same = self.slots.name(*slot) == slots.name(*slot);
            let total = |limits: &[Limit]| limits.get(*slot).map(|limit| limit.total);
            !is_same || total(&before) != total(&image.limits)
        };
        let slots = (0..LIMITS).filter(changed);
        Ok(slots.map(|slot| slot as u32).collect())
    }

    pub(super) fn refill_totals(&self, slots: &[u32]) -> Result<(), Error> {
        let refill = |slot| self.totals.set(slot, &[0; 8]);
        slots
            .iter()
            .try_for_each(refill)
            .map_err(Error::system("filling the ceilings of limits"))
    }

    /// The switch: from here on packets see this.
    pub(super) fn publish(&mut self, in_force: InForce) -> Result<(), Error> {
        let active = Active {
            interface_factor: self.interfaces.factor(),
            sampled: self.samples.wanted(),
            ..in_force.active()
        };
        self.active
            .set(&0, &active)
            .map_err(Error::system("putting the policy in force"))?;
        self.rows.switched(in_force);
        Ok(())
    }
}

pub(super) fn prefixes(edge: &Edge) -> SourcePrefixes {
    SourcePrefixes {
        ipv4: edge.ipv4_prefix.into(),
        ipv6: edge.ipv6_prefix.into(),
    }
}
