//! Floods: millions of frames a second out of one end of a pair, each with
//! another source.
//!
//! The frames never pass a socket. The kernel runs an XDP program on copies of
//! one frame (`BPF_PROG_TEST_RUN` with live frames) as if they had come in on
//! the sending end; the program gives each its source and sends it back out,
//! to the other end, or drops it where that would be ahead of the pace. The
//! other end must run NAPI: an XDP program is attached to it, as
//! [`Sink::attach`] or limiter does.

use crate::{
    netns::Namespace,
    programs::{OBJECT, program},
    veth::End,
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, PerCpuArray},
    programs::{Xdp, XdpMode},
};
use limiter_common::packet::{Parsed, Slice, parse};
use std::time::{Duration, Instant};

/// Frames that the kernel handles at a time.
const BATCH: u32 = 64;
/// Runs of the program between two looks at the clock.
const RUNS: u32 = 1 << 17;
/// Frames a second with which a receiver keeps up that shares its core with
/// the sender and others.
pub const GENTLY: u32 = 200_000;

/// Where a flood's frames claim to come from: words that replace an IPv4
/// source, or the second 32 bits of an IPv6 source (so that each is a /64 of
/// its own).
#[derive(Clone, Debug)]
pub enum Sources {
    /// `count` words from `first` on, one after the other; 0: all there are.
    Range {
        /// The first.
        first: u32,
        /// How many.
        count: u32,
    },
    /// The same, drawn at random.
    Random {
        /// The first.
        first: u32,
        /// How many.
        count: u32,
    },
    /// These, in turn; 4,096 at most.
    Listed(Vec<u32>),
    /// IPv6: any /64 of 2000::/3, drawn at random.
    AnyGlobal,
}

/// The bounds of a flood; whichever is reached first ends it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Frames.
    pub frames: u64,
    /// Time.
    pub at_most: Duration,
    /// Frames a second; 0: as many as the core can send.
    pub per_second: u32,
}

/// A loaded flood.
#[derive(Debug)]
pub struct Flood {
    ebpf: Ebpf,
    frame: Vec<u8>,
}

impl Flood {
    /// Prepares copies of `frame` (without VLAN tags) with other sources. Its
    /// checksums must be right; they are kept so.
    pub fn new(frame: &[u8], sources: &Sources) -> Result<Self> {
        let (first, count, random, listed) = match sources {
            Sources::Range { first, count } => (*first, *count, 0_u32, [].as_slice()),
            Sources::Random { first, count } => (*first, *count, 1, [].as_slice()),
            Sources::Listed(words) => (0, u32::try_from(words.len())?, 0, words.as_slice()),
            Sources::AnyGlobal => (0, 0, 1, [].as_slice()),
        };
        let any_global = u32::from(matches!(sources, Sources::AnyGlobal));
        let use_listed = u32::from(!listed.is_empty());
        let mut ebpf = EbpfLoader::new()
            .override_global("FIRST", &first, true)
            .override_global("SOURCES", &count, true)
            .override_global("RANDOM", &random, true)
            .override_global("USE_LISTED", &use_listed, true)
            .override_global("ANY_GLOBAL", &any_global, true)
            .override_global("TRANSPORT_CHECKSUM", &checksum_at(frame), true)
            .load(OBJECT)
            .context("loading the flood")?;
        let map = ebpf.map_mut("LISTED").context("no map LISTED")?;
        let mut map = Array::<_, u32>::try_from(map)?;
        for (index, word) in (0..).zip(listed) {
            map.set(index, word, 0).context("listing a source")?;
        }
        program(&mut ebpf, "flood")?
            .load()
            .context("loading the flood")?;
        Ok(Self {
            ebpf,
            frame: frame.to_vec(),
        })
    }

    /// Sends from `end`, on one of this thread's CPUs; returns how many frames
    /// were sent.
    pub fn send(self, end: &End, bounds: Bounds) -> Result<u64> {
        self.send_while(end, bounds, || true)
    }

    /// The same, as long as `go` says so; it is asked every few milliseconds.
    pub fn send_while(
        mut self,
        end: &End,
        bounds: Bounds,
        go: impl Fn() -> bool + Sync,
    ) -> Result<u64> {
        let deadline = Instant::now() + bounds.at_most;
        let interval_ns = 1_000_000_000_u64.checked_div(bounds.per_second.into());
        let orders = self.ebpf.take_map("ORDERS").context("no map ORDERS")?;
        let mut orders = Array::<_, [u64; 4]>::try_from(orders)?;
        orders.set(0, [bounds.frames, interval_ns.unwrap_or(0), 0, 0], 0)?;
        let program = program(&mut self.ebpf, "flood")?;
        let frame = &self.frame;
        // Each call puts the program into the kernel's dispatcher of XDP
        // programs and takes it out again, which waits for all CPUs (some
        // 45 ms), unless it is there because it is attached somewhere: here,
        // where no packet is.
        let nowhere = Namespace::new()?;
        let held = nowhere.run(|| program.attach("lo", XdpMode::Skb));
        held.context("attaching the flood")?;
        let program: &Xdp = program;
        end.namespace.run(|| {
            let rest = loop {
                let [rest, ..] = orders.get(&0, 0)?;
                if rest == 0 || Instant::now() >= deadline || !go() {
                    break rest;
                }
                run(program, frame, end.index)?;
            };
            Ok(bounds.frames - rest)
        })
    }
}

/// Runs the program [`RUNS`] times on copies of the frame that come in at
/// `ingress`.
fn run(program: &Xdp, frame: &[u8], ingress: u32) -> Result<()> {
    // `struct xdp_md`: data, data_end, data_meta, ingress, queue, egress.
    let length = u32::try_from(frame.len())?;
    let context = [0, length, 0, ingress, 0, 0].map(u32::to_ne_bytes).concat();
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        repeat: RUNS,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    };
    program.test_run(options).context("sending live frames")?;
    Ok(())
}

/// Where the checksum that covers the source address is; 0: nowhere.
fn checksum_at(frame: &[u8]) -> u32 {
    let Parsed::Ip(_) = parse(&mut Slice(frame)) else {
        return 0;
    };
    let (protocol, upper) = match frame[12] {
        0x08 => (frame[23], 34),
        _ => (frame[20], 54),
    };
    match protocol {
        6 => upper + 16,
        17 => upper + 6,
        _ => 0,
    }
}

/// An XDP program that counts what arrives and drops it; it is taken off when
/// dropped.
#[derive(Debug)]
pub struct Sink(Ebpf);

impl Sink {
    /// Attaches it natively to an end.
    pub fn attach(end: &End) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("loading the sink")?;
        end.namespace.run(|| {
            let sink = program(&mut ebpf, "sink")?;
            sink.load().context("loading the sink")?;
            sink.attach(&end.name, XdpMode::Driver)
                .with_context(|| format!("attaching the sink to {}", end.name))
        })?;
        Ok(Self(ebpf))
    }

    /// Frames that arrived so far.
    pub fn received(&self) -> Result<u64> {
        let map = self.0.map("SUNK").context("no map SUNK")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?;
        Ok(counts.iter().sum())
    }
}
