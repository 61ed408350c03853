//! `explain --pcap`: what a policy makes of each packet of a capture, by the
//! capture's own clock. No NIC, no root.
//!
//! Packets are judged by the very function that the kernel program calls, over
//! [`MemoryTables`]. Every packet counts as one that came in, on an interface
//! other than `lo`, on one CPU; a capture should therefore hold one direction
//! (`tcpdump -Q in`). Blocks and list entries made at run time are not known
//! here, only what the policy says. Requests and logins are replayed by [`events`].

mod clock;
pub mod events;
mod frame;
mod pcap;
mod pcapng;
mod report;
mod tables;
#[cfg(test)]
mod tests;

pub use frame::CutFrame;
pub use pcap::{Capture, CaptureError, Captured};
pub use report::{Summary, SummaryRow};
pub use tables::{MemoryTables, SEED, SourceCount};

use crate::{
    image::{Image, ImageError, Slots},
    policy::Policy,
};
use clock::{CaptureClock, STEP_NS};
use limiter_common::packet::{Parsed, parse};
use report::{Decided, source, write_heading};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

/// Why a capture was not explained to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such file, or it may not be read.
    #[error("cannot open the capture {path}: {cause}")]
    Open {
        /// The name given.
        path: String,
        /// The system's word.
        cause: io::Error,
    },
    /// The capture cannot be read on.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The policy cannot be compiled.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A time that cannot be right.
    #[error(
        "packet {packet} is more than 16 years after the first; one of the two times is wrong: \
         mend them with `editcap -t` or leave the packet out"
    )]
    Span {
        /// Counted from 1.
        packet: u64,
    },
    /// The reader of the answer went away, or the disk is full.
    #[error("writing the answer: {0}")]
    Write(#[from] io::Error),
}

/// Explains the capture in the file `pcap` under `config`: a decision for each
/// packet on `out`, as JSON lines or text, the sums on `err`.
///
/// # Errors
///
/// See [`ReplayError`]; the packets before it were explained.
pub fn explain(
    config: &Policy,
    pcap: &Path,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), ReplayError> {
    let file = File::open(pcap).map_err(|cause| ReplayError::Open {
        path: pcap.display().to_string(),
        cause,
    })?;
    let mut capture = Capture::open(BufReader::new(file))?;
    let mut replay = Replay::new(config)?;
    let mut out = BufWriter::new(out);
    let result = replay.run(&mut capture, &mut out, json);
    out.flush()?;
    replay.finish().write(err)?;
    result
}

/// [`explain`] for an open capture; the caller writes the [`Summary`].
///
/// # Errors
///
/// See [`ReplayError`]; the packets before it were explained.
pub fn explain_pcap(
    policy: &Policy,
    reader: impl Read,
    out: &mut dyn Write,
    json: bool,
) -> Result<Summary, ReplayError> {
    let mut capture = Capture::open(reader)?;
    let mut replay = Replay::new(policy)?;
    replay.run(&mut capture, out, json)?;
    Ok(replay.finish())
}

/// A policy, in force over a capture.
#[derive(Debug)]
struct Replay {
    tables: MemoryTables,
    /// The policy's row, for its source prefixes.
    policy: limiter_common::layout::Policy,
    slots: Slots,
    clock: CaptureClock,
    summary: Summary,
}

impl Replay {
    fn new(policy: &Policy) -> Result<Self, ImageError> {
        let edge = &policy.edge;
        let mut slots = Slots::default();
        let image = Image::compile(policy, &edge.allow, &edge.deny, &mut slots, STEP_NS)?;
        Ok(Self {
            policy: image.policy,
            tables: MemoryTables::new(image, edge, 1),
            slots,
            clock: CaptureClock::default(),
            summary: Summary::default(),
        })
    }

    fn run<R: Read>(
        &mut self,
        capture: &mut Capture<R>,
        out: &mut dyn Write,
        json: bool,
    ) -> Result<(), ReplayError> {
        if !json {
            write_heading(out)?;
        }
        while let Some(packet) = capture.next_packet()? {
            let decided = self.judge(packet)?;
            if json {
                decided.write_json(out)?;
            } else {
                decided.write_text(out)?;
            }
        }
        Ok(())
    }

    fn judge(&mut self, packet: Captured<'_>) -> Result<Decided<'_>, ReplayError> {
        self.summary.packets += 1;
        self.summary.cut += u64::from(packet.bytes.len() < packet.length as usize);
        self.summary.timeless += u64::from(packet.at_ns.is_none());
        let now = self.clock.now(packet.at_ns).ok_or(ReplayError::Span {
            packet: self.summary.packets,
        })?;
        let mut frame = CutFrame::new(packet.bytes, packet.length as usize);
        let verdict = self.tables.judge(&mut frame, now);
        let source = match parse(&mut frame) {
            Parsed::Ip(packet) => Some(source(&self.policy, packet.source)),
            Parsed::NotIp | Parsed::Unparsed => None,
        };
        Ok(Decided {
            at_ns: packet.at_ns,
            source,
            verdict,
            limit: self.slots.name(verdict.limit as usize),
        })
    }

    fn finish(mut self) -> Summary {
        self.summary.late = self.clock.late;
        self.summary.count(&self.tables, &self.slots);
        self.summary
    }
}
