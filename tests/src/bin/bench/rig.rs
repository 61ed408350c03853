//! The rig of section `flood`: a pair of interfaces, a sender on the last CPU
//! and a receiver on the first, and what one attack does to one contestant.

use crate::policies::WEB;
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    counter,
    cpu::{self, Receiver},
    flood::{Bounds, Flood, Sources},
    frames::{ACK, Frame, Upper},
    netns::Namespace,
    veth::{End, Options, Veth},
    wait,
};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// How long each attack lasts.
pub(crate) const SECONDS: u64 = 2;
/// The one source, and the first of many: from what RFC 2544 sets aside.
pub(crate) const FIRST: u32 = 198 << 24 | 18 << 16;

/// Two namespaces and what joins them.
pub(crate) struct Rig {
    pair: Veth,
    _receiver: Receiver,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// One source.
    One,
    /// All that IPv4 has, at random: each is seen about once.
    Spoofed,
    /// A million, at random.
    Botnet,
}

/// Somebody who stands at the receiving end.
pub(crate) trait Guard {
    /// Takes up its place.
    fn stand(&mut self, end: &End, attack: Attack) -> Result<()>;
    /// Packets passed and dropped since it is there.
    fn counts(&self, end: &End) -> Result<[u64; 2]>;
    /// Leaves, as if it had never been there.
    fn leave(&mut self, end: &End) -> Result<()>;
}

impl Attack {
    pub(crate) const ALL: [Self; 3] = [Self::One, Self::Spoofed, Self::Botnet];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "1 source",
            Self::Spoofed => "2³² at random",
            Self::Botnet => "1 M at random",
        }
    }

    /// How many sources a table must hold that is to know all; of those seen
    /// once, as many as of the million.
    pub(crate) const fn table_size(self) -> u32 {
        match self {
            Self::One => 65_536,
            Self::Spoofed | Self::Botnet => 1 << 20,
        }
    }

    const fn sources(self) -> Sources {
        match self {
            Self::One => Sources::Range {
                first: FIRST,
                count: 1,
            },
            Self::Spoofed => Sources::Random { first: 0, count: 0 },
            Self::Botnet => Sources::Random {
                first: 64 << 24,
                count: 1_000_000,
            },
        }
    }
}

impl Rig {
    pub(crate) fn build() -> Result<Self> {
        let [left, right] = [Namespace::new()?, Namespace::new()?];
        let quiet = Options {
            ipv6: false,
            ..Options::default()
        };
        let pair = Veth::new(&left, &right, quiet)?;
        let end = &pair.right;
        // Without it the frames reach only XDP programs.
        right.output("ethtool", &["-K", &end.name, "gro", "on"])?;
        // The host takes every source.
        for name in ["all", &end.name] {
            right.set(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
        }
        right.ip(&format!(
            "route add default via {} dev {}",
            pair.left.ipv4, end.name
        ))?;
        // Behind all guards: to answer would cost more than any of them.
        let priority = "type filter hook prerouting priority -150;";
        let host = format!("table ip host {{ chain in {{ {priority} tcp dport {WEB} drop; }}; }}");
        right.output("nft", &[&host])?;
        let receiver = Receiver::on(end, 0)?;
        Ok(Self {
            pair,
            _receiver: receiver,
        })
    }

    /// The receiving end.
    pub(crate) fn end(&self) -> &End {
        &self.pair.right
    }

    /// One attack on one guard: packets a second that came in, that were dropped
    /// and that were passed.
    ///
    /// # Errors
    ///
    /// If the guard has not counted what the interface has received.
    pub(crate) fn attack(&self, guard: &mut dyn Guard, attack: Attack) -> Result<Vec<f64>> {
        guard.stand(self.end(), attack)?;
        let measured = self.measure(guard, attack);
        guard.leave(self.end())?;
        measured
    }

    fn measure(&self, guard: &dyn Guard, attack: Attack) -> Result<Vec<f64>> {
        let before = self.received()?;
        let counted_before = guard.counts(self.end())?;
        let (sent, lasted) = thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(attack));
            let began = self.wait_for_the_first(before);
            let sent = match sender.join() {
                Ok(sent) => sent,
                Err(panic) => std::panic::resume_unwind(panic),
            }?;
            anyhow::Ok((sent, began?.elapsed()))
        })?;
        let mut last = None;
        let [passed, dropped] = wait::until("the guard's counters", wait::SOON, || {
            let received = counter::traffic(self.end())?.received - before;
            let after = guard.counts(self.end())?;
            let counted = [0, 1].map(|way| after[way] - counted_before[way]);
            last = Some((counted, received));
            Ok((received > 0 && counted[0] + counted[1] == received).then_some(counted))
        })
        .with_context(|| format!("{last:?} passed and dropped, and received"))?;
        ensure!(passed + dropped <= sent, "more came in than was sent");
        let rate = |packets: u64| packets as f64 / lasted.as_secs_f64();
        Ok([passed + dropped, dropped, passed].map(rate).to_vec())
    }

    /// Setting the sender up takes its time, which is not the attack's.
    fn wait_for_the_first(&self, before: u64) -> Result<Instant> {
        wait::until("the flood", wait::SOON, || {
            Ok((self.received()? > before).then(Instant::now))
        })
    }

    fn send(&self, attack: Attack) -> Result<u64> {
        cpu::pin(cpu::count()? - 1)?;
        let bounds = Bounds {
            frames: u64::MAX >> 1,
            at_most: Duration::from_secs(SECONDS),
            per_second: 0,
        };
        Flood::new(&self.frame(), &attack.sources())?.send(&self.pair.left, bounds)
    }

    /// A TCP packet of no connection.
    fn frame(&self) -> Vec<u8> {
        let (left, right) = (&self.pair.left, &self.pair.right);
        let upper = Upper::Tcp {
            from: 40_000,
            to: WEB,
            flags: ACK,
        };
        let source = std::net::Ipv4Addr::from(FIRST);
        let frame = Frame::new(source.into(), right.ipv4.into(), upper);
        frame.macs(left.mac, right.mac).padded(60).build()
    }

    /// Packets that the interface has received, without starting a program.
    fn received(&self) -> Result<u64> {
        let end = self.end();
        // Names the namespace of the thread that reads.
        let path = "/proc/thread-self/net/dev";
        let text = end.namespace.run(|| fs::read_to_string(path));
        let text = text.with_context(|| format!("reading {path}"))?;
        let line = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(&end.name)?.strip_prefix(':'));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        packets.with_context(|| format!("no {} in {path}", end.name))
    }
}
