//! Section `goodput`: what a client gets of nginx while its port is flooded.

use crate::{
    assaults::packet,
    many,
    policies::WEB,
    report::{Column, Row, Table},
    rig::FIRST,
    rounds::{Contestant, Series, interleave},
    shields::{BURST, LOW, PER_SECOND, Shield},
    wrk::{self, CONNECTIONS},
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    counter,
    cpu::{self, Receiver},
    flood::{Bounds, Flood, Sources},
    frames::ACK,
    netns::Namespace,
    servers::Nginx,
    veth::{Options, Veth},
    wait,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// How long wrk asks.
const SECONDS: u64 = 2;

/// Who sends the flood, each source far more than its limit, or each once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    None,
    One,
    Spoofed,
}

/// Whose CPU receives the flood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// That of nginx and wrk.
    Server,
    /// That of the sender.
    Sender,
}

/// A row: who guards, and against what.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Case {
    shield: Shield,
    attack: Attack,
    place: Place,
    /// Frames a second; 0: as many as one core can send.
    per_second: u32,
}

/// Measures; this thread's CPU is nginx's and wrk's, `last` the sender's.
pub(crate) fn run(rounds: usize, last: usize) -> Result<Table> {
    ensure!(last > 0, "two CPUs are needed");
    let site = &Site::new(last)?;
    let cases = cases();
    let contestants = cases
        .iter()
        .map(|&case| Contestant::new(case.name(), move || site.measure(case)));
    let series = interleave(contestants.collect(), rounds)?;
    Ok(Table {
        section: "goodput",
        title: format!("nginx under flood, {SECONDS} s each"),
        columns: vec![
            Column::new("requests/s", 0),
            Column::new("p99, ms", 1),
            Column::new("flood: received /s", 0),
            Column::new("× sink", 2),
            Column::new("× sink p99", 2),
        ],
        rows: rows(&series, &cases),
        notes: notes(),
    })
}

fn cases() -> Vec<Case> {
    let shields = [
        Shield::Sink,
        Shield::Limiter,
        Shield::LowCeiling,
        Shield::Nothing,
        Shield::Nftables,
    ];
    let mut all = Vec::new();
    let mut each = |attack, place, per_second| {
        // Only sources that nobody knows meet that ceiling.
        let wanted = |shield: &Shield| *shield != Shield::LowCeiling || attack == Attack::Spoofed;
        let wanted = shields.into_iter().filter(wanted);
        all.extend(wanted.map(|shield| Case {
            shield,
            attack,
            place,
            per_second,
        }));
    };
    each(Attack::None, Place::Server, 0);
    for attack in [Attack::One, Attack::Spoofed] {
        for per_second in [100_000, 250_000, 500_000, 1_000_000] {
            each(attack, Place::Server, per_second);
        }
        each(attack, Place::Sender, 0);
    }
    all
}

/// With the ratio to the sink under the same flood.
fn rows(series: &[Series], cases: &[Case]) -> Vec<Row> {
    let rows = series.iter().zip(cases);
    rows.map(|(own, case)| {
        let sink = Case {
            shield: Shield::Sink,
            ..*case
        };
        let place = cases.iter().position(|it| *it == sink);
        let base = place.and_then(|place| series.get(place));
        let ratio = |column| base.and_then(|base| own.ratio(column, base));
        Row::of(own, 3, vec![ratio(0), ratio(1)])
    })
    .collect()
}

fn notes() -> Vec<String> {
    [
        format!(
            "wrk: {CONNECTIONS} connections that stay open, each from an address of its own (by NAT), to \
             nginx's port {WEB}, over a pair of interfaces of their own; nginx is one process, and both \
             are on the first CPU"
        ),
        "flood: 60-byte TCP ACKs of no connection to the same port, sent by the other CPU; received on \
         nginx's: by the first CPU in a kernel thread that goes before nginx and wrk (threaded NAPI), as \
         an interrupt does; received on the sender's: by the CPU that sends"
            .to_owned(),
        "what nginx's kernel answers (a reset for each ACK that reaches it) is dropped on its way out"
            .to_owned(),
        format!(
            "limiter and nftables (netdev ingress, dynamic set of 65,536, on both interfaces): {PER_SECOND} \
             packets a second for each source, {BURST} at once; limiter also 50 connections a second, \
             and `[edge.flood]` as it is by default ({LOW} packets a second of unknown sources where \
             `unknown` is lower); sink: every frame of the flood is dropped by the \
             shortest XDP program, nothing guards nginx"
        ),
        "limiter and the sink counted what the flood's interface received; the others do not count"
            .to_owned(),
    ]
    .to_vec()
}

impl Case {
    fn name(self) -> String {
        let shield = self.shield.name();
        let attack = match self.attack {
            Attack::None => return format!("no flood: {shield}"),
            Attack::One => "1 source",
            Attack::Spoofed => "2³² sources",
        };
        let rate = match self.per_second {
            0 => "full".to_owned(),
            rate => format!("{} M/s", f64::from(rate) / 1e6),
        };
        let place = match self.place {
            Place::Server => "nginx's CPU",
            Place::Sender => "sender's CPU",
        };
        format!("{attack}, {rate}, {place}: {shield}")
    }

    const fn sources(self) -> Sources {
        match self.attack {
            Attack::None | Attack::One => Sources::Range {
                first: FIRST,
                count: 1,
            },
            Attack::Spoofed => Sources::Random { first: 0, count: 0 },
        }
    }
}

/// A server, its client, and the ways by which a flood can come.
struct Site {
    client: Veth,
    /// By [`Place`].
    floods: [Veth; 2],
    server: SocketAddr,
    /// The sender's CPU.
    last: usize,
    _receiver: Receiver,
    _nginx: Nginx,
}

impl Site {
    fn new(last: usize) -> Result<Self> {
        let server = Namespace::new()?;
        let pair = |number| {
            let options = Options {
                number,
                ipv6: false,
                ..Options::default()
            };
            Veth::new(&Namespace::new()?, &server, options)
        };
        let (client, floods) = (pair(1)?, [pair(2)?, pair(3)?]);
        for end in floods.iter().map(|pair| &pair.right) {
            // Without it the frames reach only XDP programs.
            server.output("ethtool", &["-K", &end.name, "gro", "on"])?;
            server.set(&format!("ipv4/conf/{}/rp_filter", end.name), "0")?;
        }
        server.set("ipv4/conf/all/rp_filter", "0")?;
        let [near, _] = &floods;
        server.ip(&format!(
            "route add default via {} dev {}",
            near.left.ipv4, near.right.name
        ))?;
        many::addresses(&client)?;
        let answers = format!(
            "table ip host {{ chain out {{ type filter hook output priority 0; \
             oifname {} drop; }}; }}",
            near.right.name
        );
        server.output("nft", &[&answers])?;
        let receiver = Receiver::on(&near.right, 0)?;
        let address = SocketAddr::new(client.right.ipv4.into(), WEB);
        let page = format!(
            "server {{ listen {WEB}; access_log off; keepalive_requests 100000000; \
             return 200 \"ok\\n\"; }}"
        );
        Ok(Self {
            _nginx: Nginx::start(&server, address, &page)?,
            _receiver: receiver,
            client,
            floods,
            server: address,
            last,
        })
    }

    fn measure(&self, case: Case) -> Result<Vec<f64>> {
        let pair = &self.floods[case.place as usize];
        let before = counter::traffic(&pair.right)?.received;
        let standing = case.shield.stand(&pair.right, &self.client.right)?;
        let over = &AtomicBool::new(false);
        let received = || anyhow::Ok(counter::traffic(&pair.right)?.received - before);
        let figures = thread::scope(|scope| {
            let flood = scope.spawn(move || cpu::on(self.last, || self.flood(case, over)));
            let asked = || -> Result<Vec<f64>> {
                if case.attack != Attack::None {
                    wait::until("the flood", wait::SOON, || {
                        Ok((received()? > 10_000).then_some(()))
                    })?;
                }
                let (flooded, began) = (received()?, Instant::now());
                let seen = wrk::run(&self.client.left.namespace, self.server, SECONDS)?;
                let flooded = (received()? - flooded) as f64 / began.elapsed().as_secs_f64();
                Ok(vec![seen.per_second, seen.p99_ms, flooded])
            };
            let figures = asked();
            over.store(true, Relaxed);
            match flood.join() {
                Ok(sent) => sent?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            figures
        })?;
        let mut last = None;
        wait::until("the counters", wait::SOON, || {
            let counted = standing.counted(&pair.right)?;
            let received = received()?;
            last = Some((counted, received));
            Ok(counted
                .is_none_or(|counted| counted == received)
                .then_some(()))
        })
        .with_context(|| format!("{last:?} counted and received"))?;
        Ok(figures)
    }

    fn flood(&self, case: Case, over: &AtomicBool) -> Result<()> {
        if case.attack == Attack::None {
            return Ok(());
        }
        let pair = &self.floods[case.place as usize];
        let bounds = Bounds {
            frames: u64::MAX >> 1,
            at_most: Duration::from_mins(10),
            per_second: case.per_second,
        };
        let frame = packet(pair, Ipv4Addr::from(FIRST).into(), ACK);
        let flood = Flood::new(&frame, &case.sources())?;
        flood.send_while(&pair.left, bounds, || !over.load(Relaxed))?;
        Ok(())
    }
}
