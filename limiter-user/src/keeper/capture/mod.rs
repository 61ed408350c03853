//! Captures under way: who wants samples of which refused packets, and what
//! waits to be fetched. The program samples while there is one.

mod order;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use limiter_common::sample::Refusals;
use limiter_common::verdict::Action;

use super::show::outcome_row;
use super::{By, Keeper, Now, refused, unix_nanos, unreadable};
use crate::control::api::{
    CaptureBegun, CaptureOrder, CapturedPackets, PacketRow, Refusal, RefusedRow,
};
use crate::dataplane::model::SampledPacket;

/// Captures at once. Each holds memory, and who looks at packets is a person.
const MOST: usize = 4;

/// Packets of a capture that wait to be fetched; more are lost.
const WAITING: usize = 1_024;

/// Who does not ask for so long has gone, and the capture with it.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// A capture, under way or over and not yet fetched.
#[derive(Debug)]
struct Capture {
    id: u64,
    refusals: Refusals,
    snap_length: usize,
    count: u64,
    until: Instant,
    /// When it was asked for last.
    asked: Instant,
    waiting: VecDeque<SampledPacket>,
    taken: u64,
    lost: u64,
    /// What the counters said when it began.
    before: RefusedRow,
    has_ended: bool,
    /// What was refused meanwhile, once it has ended.
    refused: Option<RefusedRow>,
}

impl Capture {
    fn is_due(&self, now: Now) -> bool {
        !self.has_ended && (self.taken >= self.count || now.instant >= self.until)
    }

    fn is_forsaken(&self, now: Now) -> bool {
        now.instant.saturating_duration_since(self.asked) > ASKED_WITHIN
    }

    fn offer(&mut self, packet: &SampledPacket) {
        if self.has_ended || self.taken >= self.count || !self.refusals.contain(packet.outcome) {
            return;
        }
        if self.waiting.len() >= WAITING {
            self.lost += 1;
            return;
        }
        let mut packet = packet.clone();
        packet.frame.truncate(self.snap_length);
        self.taken += 1;
        self.waiting.push_back(packet);
    }

    fn fetch(&mut self) -> CapturedPackets {
        CapturedPackets {
            packets: self.waiting.drain(..).map(packet_row).collect(),
            under_way: !self.has_ended,
            taken: self.taken,
            lost: self.lost,
            refused: self.refused,
        }
    }
}

/// All captures.
#[derive(Debug, Default)]
pub(super) struct Captures {
    next: u64,
    all: Vec<Capture>,
}

impl Captures {
    /// How many are under way.
    pub(super) fn under_way(&self) -> u64 {
        self.all.iter().filter(|it| !it.has_ended).count() as u64
    }

    fn refusals(&self) -> Refusals {
        let under_way = self.all.iter().filter(|it| !it.has_ended);
        under_way.fold(Refusals::NONE, |all, capture| all.and(capture.refusals))
    }

    fn find(&mut self, id: u64) -> Result<&mut Capture, Refusal> {
        let found = self.all.iter_mut().find(|capture| capture.id == id);
        found.ok_or_else(|| {
            let detail = format!("there is no capture {id}");
            let help = format!(
                "it ends when nobody asks for {} s; begin another",
                ASKED_WITHIN.as_secs()
            );
            Refusal::new(StatusCode::NOT_FOUND, detail, help)
        })
    }
}

impl Keeper {
    /// Begins a capture.
    ///
    /// # Errors
    /// The order asks for what there is not, there are as many captures as there
    /// may be, the program is attached nowhere, or the data plane refuses.
    pub fn begin_capture(
        &mut self,
        order: &CaptureOrder,
        by: By,
        now: Now,
    ) -> Result<CaptureBegun, Refusal> {
        let wanted = order::read(order)?;
        if self.captures.all.len() >= MOST {
            let detail = format!("{MOST} captures are under way already");
            let help = "try again when one of them is done";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail, help));
        }
        let attached = self.plane.attachments().into_iter();
        let interfaces: Vec<String> = attached.map(|it| it.interface).collect();
        if interfaces.is_empty() {
            let detail = "limiter is attached nowhere: there are no packets to capture";
            let help = "name an interface in edge.interfaces and reload";
            return Err(Refusal::new(StatusCode::CONFLICT, detail, help));
        }
        // What others had sampled until now is not of this one.
        self.collect(now);
        let before = self.refused_so_far(wanted.refusals)?;
        let together = self.captures.refusals().and(wanted.refusals);
        self.plane.sample(together).map_err(refused)?;
        self.captures.next += 1;
        let id = self.captures.next;
        self.captures.all.push(Capture {
            id,
            refusals: wanted.refusals,
            snap_length: wanted.snap_length,
            count: wanted.count,
            until: now.after(wanted.lasting).instant,
            asked: now.instant,
            waiting: VecDeque::new(),
            taken: 0,
            lost: 0,
            before,
            has_ended: false,
            refused: None,
        });
        let reason = order.reason.as_deref().unwrap_or("all");
        let (count, bytes) = (wanted.count, wanted.snap_length);
        tracing::info!(
            uid = by.uid,
            pid = by.pid,
            id,
            reason,
            count,
            bytes,
            "capture begun"
        );
        Ok(CaptureBegun { id, interfaces })
    }

    /// What a capture has taken since the last time it was asked.
    ///
    /// # Errors
    /// There is no such capture.
    pub fn captured(&mut self, id: u64, now: Now) -> Result<CapturedPackets, Refusal> {
        self.captures.find(id)?.asked = now.instant;
        self.collect(now);
        Ok(self.captures.find(id)?.fetch())
    }

    /// Ends a capture; the answer has what nobody had fetched yet.
    ///
    /// # Errors
    /// There is no such capture.
    pub fn end_capture(&mut self, id: u64, now: Now) -> Result<CapturedPackets, Refusal> {
        let capture = self.captures.find(id)?;
        (capture.asked, capture.until) = (now.instant, now.instant);
        self.collect(now);
        let all = &mut self.captures.all;
        let place = all.iter().position(|capture| capture.id == id);
        let ended = place.map(|place| all.swap_remove(place).fetch());
        let ended = ended.unwrap_or_default();
        tracing::info!(id, taken = ended.taken, "capture ended");
        Ok(ended)
    }

    /// Whether somebody waits for samples.
    #[must_use]
    pub(super) fn is_capturing(&self) -> bool {
        !self.captures.all.is_empty()
    }

    /// Hands samples to the captures that want them, and ends those that are
    /// full or over. What fails is tried again at the next call.
    pub(super) fn collect(&mut self, now: Now) {
        match self.plane.samples() {
            Ok(packets) => {
                for packet in &packets {
                    for capture in &mut self.captures.all {
                        capture.offer(packet);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "samples of packets cannot be read"),
        }
        for place in 0..self.captures.all.len() {
            self.end_if_due(place, now);
        }
        self.switch_sampling();
    }

    /// Ends captures that nobody asks for. For when no order waits: one of those
    /// may be the question.
    pub(super) fn forsake_captures(&mut self, now: Now) {
        self.captures.all.retain(|capture| {
            let forsaken = capture.is_forsaken(now);
            if forsaken {
                let (id, taken) = (capture.id, capture.taken);
                tracing::info!(id, taken, "capture ended: nobody asks for it any more");
            }
            !forsaken
        });
        self.switch_sampling();
    }

    /// Lets the program sample what captures under way want, and nothing else.
    pub(super) fn switch_sampling(&mut self) {
        if let Err(error) = self.plane.sample(self.captures.refusals()) {
            tracing::warn!(%error, "the sampling of packets stays as it was");
        }
    }

    fn end_if_due(&mut self, place: usize, now: Now) {
        let Some(capture) = self.captures.all.get(place) else {
            return;
        };
        if !capture.is_due(now) {
            return;
        }
        let before = capture.before;
        let refused = self.refused_so_far(capture.refusals);
        let refused = refused.map(|after| RefusedRow {
            drop: after.drop.saturating_sub(before.drop),
            would_drop: after.would_drop.saturating_sub(before.would_drop),
        });
        if let Some(capture) = self.captures.all.get_mut(place) {
            capture.has_ended = true;
            capture.refused = refused.ok();
        }
    }

    /// Packets counted as one of `refusals`.
    fn refused_so_far(&self, refusals: Refusals) -> Result<RefusedRow, Refusal> {
        let counters = self.plane.counters().map_err(unreadable)?;
        let mut sum = RefusedRow::default();
        for counter in counters {
            if refusals.contain(counter.outcome) {
                match counter.outcome.action() {
                    Action::WouldDrop => sum.would_drop += counter.packets,
                    Action::Drop | Action::Pass => sum.drop += counter.packets,
                }
            }
        }
        Ok(sum)
    }
}

fn packet_row(packet: SampledPacket) -> PacketRow {
    PacketRow {
        time_unix_ns: unix_nanos(packet.taken),
        interface: packet.interface,
        index: packet.index,
        outcome: outcome_row(packet.outcome),
        limit: packet.limit,
        length: packet.length,
        frame: hex(&packet.frame),
    }
}

/// Two digits a byte.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)]);
    digits.collect()
}
