//! Another policy, or other lists, in force: everything is written first, and
//! one write lets packets see it.

use super::{DataPlane, error::Error, ledger::Row, lengths::SourcePrefixes};
use crate::{
    image::{Image, ListChange, Slots},
    policy::{Edge, Policy},
};
use limiter_common::layout::{Active, LIMITS, Limit};

impl DataPlane {
    /// Puts another policy in force: one packet sees the old one or the new
    /// one. Limits keep their buckets by name. Table sizes stay as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Image`], [`Error::ListsFull`], [`Error::TooManyLengths`]; the old
    /// policy is then still in force.
    pub fn apply(&mut self, policy: &Policy) -> Result<(), Error> {
        let mut policy = policy.clone();
        // The maps have the size that they were made with.
        policy.edge.sources = self.policy.edge.sources;
        policy.edge.tables = self.policy.edge.tables.clone();
        let mut slots = self.slots.clone();
        let Edge { allow, deny, .. } = &policy.edge;
        let image = Image::compile(&policy, allow, deny, &mut slots, self.clock.step_ns)?;
        let (needed, capacity) = (image.networks.listed(), policy.edge.tables.lists);
        if needed > capacity as usize {
            return Err(Error::ListsFull { needed, capacity });
        }
        let prefixes = SourcePrefixes {
            ipv4: policy.edge.ipv4_prefix.into(),
            ipv6: policy.edge.ipv6_prefix.into(),
        };
        // While the old policy can still stay in force.
        let step = self.step()?;
        self.blocks.lengths_with(prefixes, step)?;
        let changed = self.changed_totals(&image, &slots)?;
        self.samples
            .read_early(&self.object, &self.slots, &self.interfaces)?;
        let generation = self.rows.write(image)?;
        self.tallies
            .retire(self.interfaces.row_count(), &self.slots, &slots)?;
        self.note(generation, &slots)?;
        let before = std::mem::replace(&mut self.slots, slots);
        let after = &self.slots;
        self.blocks
            .forget_limits(|slot| before.name(slot as usize) != after.name(slot as usize))?;
        self.publish(generation)?;
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
        self.ledger.set_row(generation, &row)
    }

    /// Puts entries on the lists in force or takes them off, all or none.
    ///
    /// # Errors
    ///
    /// [`Error::ListsFull`]; the old lists are then still in force.
    pub fn change_lists(&mut self, changes: &[ListChange]) -> Result<(), Error> {
        let capacity = self.policy.edge.tables.lists;
        let changed = self.rows.change_lists(changes, capacity);
        self.publish(self.rows.next_of_row()).and(changed)
    }

    /// The slots whose ceiling is another than before.
    fn changed_totals(&self, image: &Image, slots: &Slots) -> Result<Vec<u32>, Error> {
        let before = self.rows.limits()?;
        let changed = |slot: &usize| {
            let is_same = self.slots.name(*slot) == slots.name(*slot);
            let total = |limits: &[Limit]| limits.get(*slot).map(|limit| limit.total);
            !is_same || total(&before) != total(&image.limits)
        };
        let slots = (0..LIMITS).filter(changed);
        Ok(slots.map(|slot| slot as u32).collect())
    }

    fn refill_totals(&self, slots: &[u32]) -> Result<(), Error> {
        let refill = |slot| self.totals.set(slot, &[0; 8]);
        slots
            .iter()
            .try_for_each(refill)
            .map_err(Error::system("filling the ceilings of limits"))
    }

    /// The switch: from here on packets see `generation`.
    pub(super) fn publish(&mut self, generation: u32) -> Result<(), Error> {
        let active = Active {
            generation,
            interface_factor: self.interfaces.factor(),
            zero: 0,
            sampled: self.samples.wanted(),
        };
        self.active
            .set(&0, &active)
            .map_err(Error::system("putting the policy in force"))?;
        self.rows.in_force(generation);
        Ok(())
    }
}
