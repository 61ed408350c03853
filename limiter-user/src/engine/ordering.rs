//! Blocks of sources: which stand, and what the NIC is told of them.

use super::blocks::Block;
use super::decision::{Order, Ordered};
use super::table::{Key, Place};
use super::unit::{Mode, Unit, holds};
use super::view::View;
use super::{Engine, MOST_CHANGES};
use crate::policy::Action;
use std::sync::Arc;

impl Engine {
    /// Orders at the NIC what the rules hold against the source of an event.
    pub(super) fn order_blocks(&mut self, view: &View<'_>, now_ns: u64) {
        for index in 0..self.units.len() {
            self.block_of(index, view, now_ns);
        }
    }

    /// The block that a rule holds against the source of an event. Orders it at the NIC if no order
    /// is out.
    pub(super) fn block_of(
        &mut self,
        index: usize,
        view: &View<'_>,
        now_ns: u64,
    ) -> Option<(Key, Block)> {
        let unit = &self.units[index];
        if unit.blocks.held() == 0
            || unit.mode == Mode::Off
            || holds(&unit.rule.except, view.source)
        {
            return None;
        }
        if holds(&self.exempt, view.source) {
            return None;
        }
        let shape = &self.shapes[unit.source_shape];
        let key = self.keys[unit.source_shape].get_or_insert_with(|| self.hasher.key(shape, view));
        let key = (*key)?;
        let (place, block) = unit.blocks.find(key, now_ns)?;
        self.order(index, place, block, view, now_ns);
        Some((key, block))
    }

    /// Orders a block at the NIC, if the source is the peer and no order is out.
    pub(super) fn order(
        &mut self,
        index: usize,
        place: Place,
        block: Block,
        view: &View<'_>,
        now_ns: u64,
    ) {
        let unit = &mut self.units[index];
        // Not its neighbour either: that may be the proxy.
        let is_peer = view.peer == Some(view.source);
        let is_real = block.action == Action::Block
            && !block.simulate
            && !unit.simulates(self.enforce, block.part);
        // What happened long ago may have led to what is over.
        let is_over = block.until_ns <= self.latest_ns;
        let is_out = block.ordered_ns > now_ns;
        if !is_peer || !is_real || is_over || is_out || self.orders.len() >= MOST_CHANGES {
            return;
        }
        // Nobody takes an order for longer than the rule blocks by now: the next one follows when
        // that has run out.
        let most_ns = unit.course.longest_ns(block.part);
        let until_ns = block.until_ns.min(self.latest_ns.saturating_add(most_ns));
        unit.blocks.ordered(place, until_ns);
        self.orders.push(unit.order(
            block,
            Ordered::Block {
                until_ns,
                part: block.part,
                rung: unit.course.rung_of(block.part),
                cause: view.cause(),
            },
        ));
    }

    /// Ends a block before its time, at the NIC too.
    pub(super) fn lift_block(&mut self, index: usize, place: Place, now_ns: u64) {
        let unit = &mut self.units[index];
        let block = unit.blocks.get(place);
        if block.may_be_ordered(now_ns) {
            self.orders.push(unit.order(block, Ordered::Withdraw));
        }
        unit.blocks.remove(place);
    }

    /// After a rule was switched: takes back at the NIC what is no longer done, and forgets what
    /// began in a dry run that is over.
    pub(super) fn switch(&mut self, index: usize) {
        let (enforce, exempt) = (self.enforce, &self.exempt);
        let unit = &mut self.units[index];
        let is_off = unit.mode == Mode::Off;
        let simulated: Vec<_> = (0..unit.course.parts.len())
            .map(|part| unit.simulates(enforce, part))
            .collect();
        let is_void = |block: Block| {
            let simulates = simulated.get(block.part).copied().unwrap_or(true);
            is_off || simulates || holds(exempt, block.source.addr())
        };
        unit.withdraw(self.latest_ns, is_void, &mut self.orders);
        if !is_off {
            unit.wake(&simulated, self.latest_ns);
        }
    }
}

impl Unit {
    pub(super) fn order(&self, block: Block, what: Ordered) -> Order {
        Order {
            source: block.source,
            rule: Arc::clone(&self.name),
            limit: self.block_limit.clone(),
            what,
        }
    }

    /// Takes back the orders for those blocks of which `is_void` says that they are void now.
    pub(super) fn withdraw(
        &mut self,
        now_ns: u64,
        is_void: impl Fn(Block) -> bool,
        orders: &mut Vec<Order>,
    ) {
        let out = |(_, _, block): &(Place, Key, Block)| block.may_be_ordered(now_ns);
        let out: Vec<_> = self.blocks.all().filter(out).collect();
        for (place, _, block) in out {
            if is_void(block) {
                orders.push(self.order(block, Ordered::Withdraw));
                self.blocks.ordered(place, 0);
            }
        }
    }

    /// Forgets what began in a dry run, for the parts that are no longer `simulated`.
    fn wake(&mut self, simulated: &[bool], now_ns: u64) {
        let awake = |part: usize| !simulated.get(part).copied().unwrap_or(true);
        let dry = |(_, _, block): &(Place, Key, Block)| block.simulate && awake(block.part);
        let blocks: Vec<_> = self.blocks.all().filter(dry).collect();
        for (place, ..) in blocks {
            self.blocks.remove(place);
        }
        let places: Vec<_> = self.table.places().collect();
        for place in places {
            let (course, state) = (&self.course, self.table.state_mut(place));
            let mut woken = false;
            for part in (0..simulated.len()).filter(|part| awake(*part)) {
                woken |= course.wake(part, state);
            }
            if woken {
                self.table.shorten(place);
                let state = self.table.state(place);
                if self.course.active_until_ns(state, now_ns) <= now_ns {
                    self.table.unpin(place);
                }
            }
        }
    }
}
