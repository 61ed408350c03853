//! Section `reading`: how long it takes to read a table of a million sources
//! under full flood, and what the flood feels of it.

use crate::{
    assaults::packet,
    policies::WEB,
    report::{Column, Row, Table},
    rounds::{Contestant, interleave},
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    clients, counter, cpu,
    daemon::Daemon,
    flood::{Bounds, Flood, Sources},
    frames::ACK,
    netns::Namespace,
    veth::{Options, Veth},
    wait,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Sources that are tracked, and room for all: an LRU map evicts before it is
/// quite full.
const TRACKED: u32 = 1_000_000;
const ROOM: u32 = 1_200_000;
const FIRST: Ipv4Addr = Ipv4Addr::new(64, 0, 0, 0);
/// For how long the flood is watched at least.
const WATCHED: Duration = Duration::from_secs(1);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures on two CPUs: this thread's, which is the first, and the last.
pub(crate) fn run(rounds: usize, last: usize) -> Result<Table> {
    ensure!(last > 0, "two CPUs are needed");
    let site = &Site::new()?;
    let over = &AtomicBool::new(false);
    cpu::on(last, || site.fill())?;
    let tracked = site.tracked()?;
    ensure!(
        tracked * 100 > u64::from(TRACKED) * 99,
        "only {tracked} sources tracked"
    );
    let series = thread::scope(|scope| {
        let flood = scope.spawn(move || cpu::on(last, || site.flood(over)));
        let series = interleave(contestants(site), rounds);
        over.store(true, Relaxed);
        match flood.join() {
            Ok(sent) => sent?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        series
    })?;
    let counted = site.counted()?;
    let first = &series[0];
    Ok(Table {
        section: "reading",
        title: format!("{tracked} tracked sources, all of them flooding"),
        columns: vec![
            Column::new("seconds", 3),
            Column::new("flood: disposed of /s", 0),
            Column::new("× nothing read", 2),
        ],
        rows: series
            .iter()
            .map(|own| Row::of(own, 2, vec![own.ratio(1, first)]))
            .collect(),
        notes: vec![
            "the daemon and its command line on one CPU; the flood (60-byte TCP ACKs, each of a \
             source drawn out of the million, over their limit) is sent and received by the other"
                .to_owned(),
            "`sources` watches for a second to tell packets a second, which its seconds contain; \
             the scrape is repeated for a second, and the seconds are those of one"
                .to_owned(),
            format!("{counted} packets were received, and all of them counted by limiter"),
        ],
    })
}

fn contestants(site: &Site) -> Vec<Contestant<'_>> {
    let asked = |name, arguments: &'static [&'static str]| {
        Contestant::new(name, move || {
            site.watch(|| site.daemon.json(arguments).map(drop))
        })
    };
    vec![
        Contestant::new("nothing read", || {
            site.watch(|| {
                thread::sleep(WATCHED);
                Ok(())
            })
        }),
        asked("limiter sources --json", &["sources"]),
        asked(
            "limiter sources --count 100000 --json",
            &["sources", "--count", "100000"],
        ),
        Contestant::new("a scrape of the metrics", || site.watch(|| site.scrape())),
    ]
}

/// A daemon that guards an interface, and who floods it.
struct Site {
    pair: Veth,
    daemon: Daemon,
    metrics: SocketAddr,
    /// What the interface had received before.
    before: u64,
}

impl Site {
    fn new() -> Result<Self> {
        let options = Options {
            ipv6: false,
            ..Options::default()
        };
        let pair = Veth::new(&Namespace::new()?, &Namespace::new()?, options)?;
        let before = counter::traffic(&pair.right)?.received;
        let policy = format!(
            "[edge]\ninterfaces = [\"{}\"]\nmode = \"native\"\nsources = {ROOM}\n\
             [edge.flood]\nnew_sources = \"100000000/s\"\n\
             [[edge.limit]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [{WEB}]\n\
             packets = {{ rate = \"1/min\", burst = 1 }}\n\
             [metrics]\nlisten = \"127.0.0.1:0\"\n",
            pair.right.name
        );
        let daemon = Daemon::start(&pair.right.namespace, &policy)?;
        let status = daemon.json(&["status"])?;
        let metrics = status["metrics"].as_str().context("no metrics in status")?;
        let metrics = metrics
            .trim_start_matches("http://")
            .trim_end_matches("/metrics");
        Ok(Self {
            metrics: metrics
                .parse()
                .with_context(|| format!("no address: {metrics}"))?,
            pair,
            daemon,
            before,
        })
    }

    fn send(&self, sources: &Sources, bounds: Bounds, over: &AtomicBool) -> Result<()> {
        let frame = packet(&self.pair, FIRST.into(), ACK);
        let flood = Flood::new(&frame, sources)?;
        flood.send_while(&self.pair.left, bounds, || !over.load(Relaxed))?;
        Ok(())
    }

    /// Each source sends a packet, and some of them two.
    fn fill(&self) -> Result<()> {
        let sources = Sources::Range {
            first: FIRST.into(),
            count: TRACKED,
        };
        let bounds = Bounds {
            frames: u64::from(TRACKED) * 5 / 4,
            at_most: PATIENCE,
            per_second: 500_000,
        };
        self.send(&sources, bounds, &AtomicBool::new(false))
    }

    fn flood(&self, over: &AtomicBool) -> Result<()> {
        let sources = Sources::Random {
            first: FIRST.into(),
            count: TRACKED,
        };
        let bounds = Bounds {
            frames: u64::MAX >> 1,
            at_most: Duration::from_hours(1),
            per_second: 0,
        };
        self.send(&sources, bounds, over)
    }

    fn tracked(&self) -> Result<u64> {
        let sources = self.daemon.json(&["sources"])?;
        sources["total"]
            .as_u64()
            .context("`sources` tells no total")
    }

    /// Does something for a second at least: seconds each time, and packets
    /// received a second meanwhile.
    fn watch(&self, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
        let received = || anyhow::Ok(counter::traffic(&self.pair.right)?.received);
        let (before, began) = (received()?, Instant::now());
        let mut times = 0.0;
        while began.elapsed() < WATCHED {
            work()?;
            times += 1.0;
        }
        let worked = began.elapsed().as_secs_f64();
        let packets = received()? - before;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(packets > 0, "the flood has ended");
        Ok(vec![worked / times, packets as f64 / seconds])
    }

    fn scrape(&self) -> Result<()> {
        let namespace = &self.pair.right.namespace;
        let answer = clients::get(namespace, self.metrics, "/metrics", PATIENCE)?;
        ensure!(
            answer.status == 200,
            "the scrape was answered with {}",
            answer.status
        );
        Ok(())
    }

    /// Packets that limiter counted, which must be all that were received.
    fn counted(&self) -> Result<u64> {
        let mut last = None;
        // The last packets may be on their way still.
        wait::until("limiter's counters", wait::SOON, || {
            let received = counter::traffic(&self.pair.right)?.received - self.before;
            let stats = self.daemon.json(&["stats"])?;
            let rows = stats["counters"]
                .as_array()
                .context("`stats` tells no counters")?;
            let counted: u64 = rows.iter().filter_map(|row| row["packets"].as_u64()).sum();
            last = Some((counted, received));
            Ok((counted == received).then_some(counted))
        })
        .with_context(|| format!("{last:?} counted and received"))
    }
}
