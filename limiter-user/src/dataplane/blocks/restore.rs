//! Blocks that were stored, in force again.

use super::{Blocks, slot_of};
use crate::{
    dataplane::{error::Error, lengths::add_length, model::BlockState},
    image::{Slots, network_parts},
};
use limiter_common::block::{Block, BlockKey, DRY, Owner};
use std::collections::HashMap;

impl Blocks {
    /// Makes blocks for the time that remains to them, in this order, whoever
    /// made them first. Returns those that found no room: quotas and prefix
    /// lengths are what they are now.
    pub(in crate::dataplane) fn restore(
        &mut self,
        blocks: &[BlockState],
        slots: &Slots,
        step: u64,
    ) -> Result<Vec<BlockState>, Error> {
        self.expire(step)?;
        let mut lengths = self.lengths;
        let mut used = self.used_lengths();
        let mut operators =
            u64::from(self.quotas.operator).saturating_sub(self.count(Owner::Operator));
        let mut rules = u64::from(self.quotas.rule).saturating_sub(self.count(Owner::Rule));
        let mut new = HashMap::with_capacity(blocks.len());
        let mut refused = Vec::new();
        for state in blocks {
            let expires_step = step.saturating_add(self.clock.steps(state.remaining));
            let room = match state.owner {
                Owner::Operator => &mut operators,
                Owner::Rule => &mut rules,
                Owner::Kernel => {
                    if !self.restore_kernel(state, slots, expires_step, step)? {
                        refused.push(state.clone());
                    }
                    continue;
                }
            };
            let (address, prefix) = network_parts(&state.network);
            let length = (address.family, prefix);
            let Ok(limit) = slot_of(slots, state.limit.as_deref()) else {
                refused.push(state.clone());
                continue;
            };
            let fits = add_length(&mut lengths, &used, length.0, length.1).is_ok();
            let key = BlockKey::new(address, prefix, limit.map_or(0, |slot| slot + 1));
            let is_new = !self.held.contains_key(&key) && !new.contains_key(&key);
            if !fits || *room == 0 || !is_new {
                refused.push(state.clone());
                continue;
            }
            *room -= 1;
            used.insert(length);
            new.insert(
                key,
                Block {
                    expires_step,
                    flags: if state.dry { DRY } else { 0 },
                    owner: state.owner as u32,
                },
            );
        }
        self.write(lengths, &new)?;
        Ok(refused)
    }

    /// One of the kernel's; false if it found no room.
    fn restore_kernel(
        &self,
        state: &BlockState,
        slots: &Slots,
        expires_step: u64,
        step: u64,
    ) -> Result<bool, Error> {
        let slot = slot_of(slots, state.limit.as_deref()).ok().flatten();
        let (address, prefix) = network_parts(&state.network);
        let (Some(slot), true) = (slot, prefix == self.prefixes.of(address.family)) else {
            // Of sources of another length, or of a limit that has gone.
            return Ok(false);
        };
        let kernel = &self.tables.kernel;
        let put = kernel.put(&state.network, slot, (expires_step, state.dry), step)?;
        if put {
            self.filter.set(&BlockKey::new(address, prefix, 0));
        }
        Ok(put)
    }
}
