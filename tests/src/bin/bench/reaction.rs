//! Section `reaction`: from the datagram that tells of a source's last failure until the first
//! packet of that source is dropped at the interface.

use crate::{
    access_log::LIMIT,
    interrupt,
    report::{Column, Row, Table},
    rounds::{Contestant, interleave, percentile_ms},
    watch::{blocked, rule},
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    cpu,
    daemon::Daemon,
    frames::{Frame, Upper},
    netns::Namespace,
    process::Scratch,
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::unix::net::UnixDatagram,
    thread,
    time::{Duration, Instant},
};

/// Sources that offend in each round, one after the other.
const OFFENDERS: u32 = 1_000;
const FIRST: u32 = 198 << 24 | 18 << 16;
const PORT: u16 = 1_000;
/// Between two packets of the source.
const PROBE: Duration = Duration::from_micros(50);
/// So many in a row that do not arrive are dropped, and not under way.
const GONE: usize = 20;
/// For what was told before the last failure.
const PAUSE: Duration = Duration::from_millis(2);
const LATE: Duration = Duration::from_secs(2);
/// Where a probe's number is: behind Ethernet, IPv4 and UDP.
const NUMBER: std::ops::Range<usize> = 42..46;
const CHECKSUM: std::ops::Range<usize> = 40..42;

/// Measures with the prober alone on the last CPU.
pub(crate) fn run(rounds: usize, last: usize) -> Result<Table> {
    ensure!(last > 0, "two CPUs are needed");
    // It spins, and goes before all others: whoever was waked on its CPU would wait for it.
    let site = cpu::off(last, Site::new)?;
    let mut next = FIRST;
    let measure = || {
        let sources = next..next + OFFENDERS;
        next = sources.end;
        cpu::on(last, || {
            cpu::hurry()?;
            site.round(sources)
        })
    };
    let name = "limiter, feedback by Unix datagram";
    let series = interleave(vec![Contestant::new(name, measure)], rounds)?;
    Ok(Table {
        section: "reaction",
        title: "ms from the last failure told to the first packet dropped".to_owned(),
        columns: vec![
            Column::new("p50", 2),
            Column::new("p99", 2),
            Column::new("most", 2),
            Column::new("between probes, p99", 2),
        ],
        rows: series
            .iter()
            .map(|own| Row::of(own, 4, Vec::new()))
            .collect(),
        notes: notes(),
    })
}

fn notes() -> Vec<String> {
    vec![
        format!(
            "{OFFENDERS} sources in each round; each is told of as failing {LIMIT} times, the last \
             time right before the clock starts, while it sends a UDP packet every {} µs; the clock \
             stops when the first that did not arrive was sent, so the figure is too great by up to \
             the time between two",
            PROBE.as_micros()
        ),
        "the prober has a CPU alone; the daemon has the others".to_owned(),
        "all packets before it arrived and none after it did; those that did not are what limiter \
         counts as dropped for a block, and every source is in its list"
            .to_owned(),
    ]
}

/// A daemon that is told of failures, and the clients behind its interface.
struct Site {
    daemon: Daemon,
    pair: Veth,
    /// What the clients ask.
    server: UdpSocket,
    feedback: UnixDatagram,
    _scratch: Scratch,
}

/// What was seen of one source.
struct Reaction {
    after: Duration,
    /// Between the last packet that arrived and the first that did not.
    gap: Duration,
    dropped: usize,
}

impl Site {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let quiet = Options {
            ipv6: false,
            ..Options::default()
        };
        let pair = Veth::new(&Namespace::new()?, &Namespace::new()?, quiet)?;
        let (end, clients) = (&pair.right, &pair.left);
        // The host takes every source.
        for name in ["all", &end.name] {
            end.namespace
                .set(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
        }
        let route = format!("route add default via {} dev {}", clients.ipv4, end.name);
        end.namespace.ip(&route)?;
        let server = end.namespace.run(|| UdpSocket::bind((end.ipv4, PORT)))?;
        server.set_nonblocking(true)?;
        let path = scratch.path("feedback.sock");
        let policy = format!(
            "[edge]\ninterfaces = [{:?}]\nmode = \"native\"\n\
             [decide]\napi = \"unix:{}\"\nfeedback = [\"unix:{}\"]\n{}",
            end.name,
            scratch.path("api.sock").display(),
            path.display(),
            rule()
        );
        let daemon = Daemon::start(&end.namespace, &policy)?;
        let feedback = UnixDatagram::unbound()?;
        wait::until("the socket of feedback", wait::SOON, || {
            Ok(feedback.connect(&path).ok())
        })?;
        Ok(Self {
            daemon,
            pair,
            server,
            feedback,
            _scratch: scratch,
        })
    }

    /// p50, p99 and maximum of these sources, and p99 of the time between two probes, in ms.
    fn round(&self, sources: std::ops::Range<u32>) -> Result<Vec<f64>> {
        let sender = Sender::new(&self.pair.left)?;
        let before = self.dropped()?;
        let mut after = Vec::new();
        let mut gaps = Vec::new();
        let mut dropped = 0;
        for bits in sources.clone() {
            interrupt::check()?;
            let source = Ipv4Addr::from_bits(bits);
            let reaction = self.react(&sender, source);
            let reaction = reaction.with_context(|| format!("with {source}"))?;
            after.push(reaction.after);
            gaps.push(reaction.gap);
            dropped += reaction.dropped as u64;
        }
        let counted = self.dropped()? - before;
        ensure!(
            counted == dropped,
            "{dropped} did not arrive, {counted} counted as dropped"
        );
        let blocked = blocked(&self.daemon)?;
        for bits in sources {
            let source = IpAddr::from(Ipv4Addr::from_bits(bits));
            ensure!(blocked.contains(&source), "{source} is not in the list");
        }
        let [p50, p99, most] = [50, 99, 100].map(|share| percentile_ms(&mut after, share));
        Ok(vec![p50, p99, most, percentile_ms(&mut gaps, 99)])
    }

    fn react(&self, sender: &Sender, source: Ipv4Addr) -> Result<Reaction> {
        let event = format!(
            "{{\"source\":\"{source}\",\"peer\":\"{source}\",\"method\":\"POST\",\
             \"path\":\"/login\",\"status\":401}}"
        );
        for _ in 1..LIMIT {
            self.feedback.send(event.as_bytes()).context("telling")?;
        }
        thread::sleep(PAUSE);
        let mut probes = Probes::new(self.frame(source));
        probes.send(sender)?;
        probes.receive(&self.server)?;
        ensure!(probes.arrived == 1, "dropped before its last failure");

        let began = Instant::now();
        self.feedback.send(event.as_bytes()).context("telling")?;
        while probes.sent.len() < probes.arrived + GONE {
            ensure!(began.elapsed() < LATE, "not dropped after {LATE:?}");
            probes.send(sender)?;
            probes.receive(&self.server)?;
            while probes
                .sent
                .last()
                .is_some_and(|last| last.elapsed() < PROBE)
            {
                std::hint::spin_loop();
            }
        }
        let [passed, first] = [probes.arrived - 1, probes.arrived].map(|place| probes.sent[place]);
        Ok(Reaction {
            after: first - began,
            gap: first - passed,
            dropped: probes.sent.len() - probes.arrived,
        })
    }

    fn frame(&self, source: Ipv4Addr) -> Vec<u8> {
        let (own, other) = (&self.pair.left, &self.pair.right);
        let upper = Upper::Udp { from: 9, to: PORT };
        let frame = Frame::new(source.into(), other.ipv4.into(), upper);
        let mut frame = frame.macs(own.mac, other.mac).payload(&[0; 4]).build();
        // None: the number changes.
        frame[CHECKSUM].fill(0);
        frame
    }

    /// Packets that met a block.
    fn dropped(&self) -> Result<u64> {
        let stats = self.daemon.json(&["stats"])?;
        let rows = stats["counters"].as_array().context("no counters")?;
        let blocked = rows
            .iter()
            .filter(|row| row["verdict"] == "drop" && row["reason"] == "block");
        Ok(blocked.filter_map(|row| row["packets"].as_u64()).sum())
    }
}

/// Packets of a source, numbered from 0.
struct Probes {
    frame: Vec<u8>,
    /// When each was sent.
    sent: Vec<Instant>,
    /// How many came, the first ones.
    arrived: usize,
}

impl Probes {
    const fn new(frame: Vec<u8>) -> Self {
        Self {
            frame,
            sent: Vec::new(),
            arrived: 0,
        }
    }

    fn send(&mut self, sender: &Sender) -> Result<()> {
        let number = u32::try_from(self.sent.len())?;
        self.frame[NUMBER].copy_from_slice(&number.to_be_bytes());
        self.sent.push(Instant::now());
        sender.send(&self.frame)
    }

    /// Takes what has come.
    fn receive(&mut self, server: &UdpSocket) -> Result<()> {
        let mut number = [0; 4];
        loop {
            match server.recv(&mut number) {
                Ok(_) => {
                    let number = u32::from_be_bytes(number) as usize;
                    ensure!(
                        number == self.arrived,
                        "{number} arrived, {} not",
                        self.arrived
                    );
                    self.arrived += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }
}
