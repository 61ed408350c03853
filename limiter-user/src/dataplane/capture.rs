//! Samples of refused packets.

use super::{attach::Interfaces, error::Error, object::Object};
use crate::{dataplane::model::SampledPacket, image::Slots};
use aya::maps::{MapData, RingBuf};
use limiter_common::{
    sample::{RING_BYTES, Refusals, Sample, SampleHead},
    verdict::Outcome,
};
use std::{
    mem::{offset_of, size_of},
    time::{Duration, SystemTime},
};

/// Samples read at a time: as many as fit the ring, so that a program that
/// writes all the while does not keep the reader for ever.
const MOST: usize = RING_BYTES / size_of::<Sample>();

/// The ring that the program writes samples to, and which it is to write.
pub(super) struct Samples {
    ring: RingBuf<MapData>,
    wanted: Refusals,
    /// Read already, because the names of limits were about to change.
    early: Vec<SampledPacket>,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples")
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl Samples {
    pub(super) fn new(object: &mut Object) -> Result<Self, Error> {
        Ok(Self {
            ring: object.ring("SAMPLES")?,
            wanted: Refusals::NONE,
            early: Vec::new(),
        })
    }

    /// Which the program is to write.
    pub(super) const fn wanted(&self) -> Refusals {
        self.wanted
    }

    /// Notes which it is to write from now on. What is left of an earlier time
    /// goes when sampling begins.
    pub(super) fn want(&mut self, wanted: Refusals) {
        if self.wanted == Refusals::NONE {
            self.early.clear();
            for _ in 0..MOST {
                if self.ring.next().is_none() {
                    break;
                }
            }
        }
        self.wanted = wanted;
    }

    /// Reads what there is under the names that limits have now.
    pub(super) fn read_early(
        &mut self,
        object: &Object,
        slots: &Slots,
        interfaces: &Interfaces,
    ) -> Result<(), Error> {
        if self.wanted != Refusals::NONE {
            self.early = self.read(object, slots, interfaces)?;
        }
        Ok(())
    }

    /// What was sampled since the last time.
    pub(super) fn read(
        &mut self,
        object: &Object,
        slots: &Slots,
        interfaces: &Interfaces,
    ) -> Result<Vec<SampledPacket>, Error> {
        let mut packets = std::mem::take(&mut self.early);
        let mut clocks = None;
        for _ in 0..MOST {
            let Some(item) = self.ring.next() else {
                break;
            };
            let (now, wall) = match clocks {
                Some(both) => both,
                None => *clocks.insert((object.read_clock()?.ns, SystemTime::now())),
            };
            let Some((head, outcome, frame)) = parse(&item) else {
                continue;
            };
            let age = Duration::from_nanos(now.saturating_sub(head.ns));
            let index = head.interface;
            let attached = interfaces.attachments().find(|it| it.index == index);
            packets.push(SampledPacket {
                taken: wall.checked_sub(age).unwrap_or(wall),
                interface: attached.map(|it| it.interface.clone()),
                index,
                outcome,
                limit: slots.name(head.limit as usize).map(str::to_owned),
                length: head.length,
                frame: frame.to_vec(),
            });
        }
        Ok(packets)
    }
}

/// The parts of a [`Sample`].
fn parse(item: &[u8]) -> Option<(SampleHead, Outcome, &[u8])> {
    let (bytes, frame) = item.split_first_chunk::<{ offset_of!(Sample, frame) }>()?;
    let word = |at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*word))
    };
    let head = SampleHead {
        ns: u64::from_ne_bytes(*bytes.first_chunk()?),
        interface: word(offset_of!(SampleHead, interface))?,
        limit: word(offset_of!(SampleHead, limit))?,
        outcome: word(offset_of!(SampleHead, outcome))?,
        length: word(offset_of!(SampleHead, length))?,
        captured: word(offset_of!(SampleHead, captured))?,
        reserved: 0,
    };
    let frame = frame.get(..head.captured as usize)?;
    Some((head, Outcome::from_index(head.outcome)?, frame))
}
