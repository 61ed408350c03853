//! The real data plane behind the keeper's seam.

use std::time::Duration;

use ipnet::IpNet;
use limiter_common::sample::Refusals;

use super::plane::{Plane, PlaneError};
use crate::dataplane::DataPlane;
use crate::dataplane::model::{
    Attachment, BlockRequest, BlockState, Counter, FloodState, MapUse, SampledPacket, SourceCount,
    SourceState, Term,
};
use crate::image::ListChange;
use crate::nic::{self, Link};
use crate::policy::{Mode, Policy};

impl Plane for DataPlane {
    fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attachment, PlaneError> {
        Ok(Self::attach(self, interface, mode)?)
    }

    fn detach(&mut self, interface: &str) -> Result<(), PlaneError> {
        // Not being attached is what was asked for.
        let _was_attached = Self::detach(self, interface)?;
        Ok(())
    }

    fn take_over(&mut self) -> Result<(), PlaneError> {
        Ok(Self::take_over(self)?)
    }

    fn leave(&mut self) -> Result<(), PlaneError> {
        Ok(Self::leave(self)?)
    }

    fn mend(&mut self) -> Result<usize, PlaneError> {
        Ok(self.mend_pins()?)
    }

    fn rename(&mut self, index: u32, interface: &str) -> Result<(), PlaneError> {
        Ok(Self::rename(self, index, interface)?)
    }

    fn forget_detached(&mut self) -> Result<Vec<Attachment>, PlaneError> {
        Ok(Self::forget_detached(self)?)
    }

    fn knows(&self, interface: &str) -> bool {
        Self::knows(self, interface)
    }

    fn attachments(&self) -> Vec<Attachment> {
        Self::attachments(self)
    }

    fn mtu(&self, interface: &str) -> Result<u32, PlaneError> {
        Ok(crate::dataplane::mtu(interface)?)
    }

    fn links(&self) -> Result<Vec<Link>, PlaneError> {
        Ok(nic::links()?)
    }

    fn apply(&mut self, policy: &Policy) -> Result<(), PlaneError> {
        Ok(Self::apply(self, policy)?)
    }

    fn apply_for(
        &mut self,
        policy: &Policy,
        lasting: Duration,
        term: Term,
    ) -> Result<(), PlaneError> {
        Ok(Self::apply_for(self, policy, lasting, term)?)
    }

    fn keep(&mut self) -> Result<bool, PlaneError> {
        Ok(Self::keep(self)?)
    }

    fn prolong(&mut self, lasting: Duration) -> Result<bool, PlaneError> {
        Ok(Self::prolong(self, lasting)?)
    }

    fn term_left(&self) -> Result<Option<(Term, Duration)>, PlaneError> {
        Ok(Self::term_left(self)?)
    }

    fn term_before(&self) -> Option<(Term, Duration)> {
        Self::term_before(self)
    }

    fn change_lists(&mut self, changes: &[ListChange]) -> Result<(), PlaneError> {
        Ok(Self::change_lists(self, changes)?)
    }

    fn block_many(&mut self, requests: &[BlockRequest]) -> Result<Vec<BlockState>, PlaneError> {
        Ok(Self::block_many(self, requests)?)
    }

    fn block_of(
        &self,
        network: IpNet,
        limit: Option<&str>,
    ) -> Result<Option<BlockState>, PlaneError> {
        Ok(Self::block_of(self, network, limit)?)
    }

    fn unblock(&mut self, network: IpNet, limit: Option<&str>) -> Result<bool, PlaneError> {
        Ok(Self::unblock(self, network, limit)?)
    }

    fn restore(&mut self, blocks: &[BlockState]) -> Result<Vec<BlockState>, PlaneError> {
        Ok(Self::restore(self, blocks)?)
    }

    fn lineage(&self) -> u64 {
        Self::lineage(self)
    }

    fn blocks(&self) -> Result<Vec<BlockState>, PlaneError> {
        Ok(Self::blocks(self)?)
    }

    fn expire_blocks(&mut self) -> Result<usize, PlaneError> {
        Ok(Self::expire_blocks(self)?)
    }

    fn counters(&self) -> Result<Vec<Counter>, PlaneError> {
        Ok(Self::counters(self)?)
    }

    fn flood(&self) -> Result<FloodState, PlaneError> {
        Ok(Self::flood(self)?)
    }

    fn sources(&self) -> Result<Vec<SourceState>, PlaneError> {
        Ok(Self::sources(self)?)
    }

    fn sample(&mut self, wanted: Refusals) -> Result<(), PlaneError> {
        Ok(Self::sample(self, wanted)?)
    }

    fn samples(&mut self) -> Result<Vec<SampledPacket>, PlaneError> {
        Ok(Self::samples(self)?)
    }

    fn source_counts(&self) -> Result<Vec<SourceCount>, PlaneError> {
        Ok(Self::source_counts(self)?)
    }

    fn source(&self, count: &SourceCount) -> Option<SourceState> {
        Self::source(self, count)
    }

    fn capacities(&self) -> Result<Vec<MapUse>, PlaneError> {
        Ok(Self::capacities(self)?)
    }
}
