//! `cargo xtask demo`: a web server behind a pair of virtual interfaces,
//! visitors that behave, and a flood; first without limiter, then with it.
//!
//! Everything happens in two network namespaces without a name, which end with
//! this process.

use anyhow::{Context as _, Result};
use limiter_tests::{
    clients, counter,
    cpu::{self, Receiver},
    daemon::Daemon,
    flood::{Bounds, Flood, Sources},
    frames::{Frame, Upper},
    netns::Namespace,
    servers::Nginx,
    veth::{End, Options, Veth},
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const POLICY: &str = r#"
[edge]
interfaces = ["veth1-2"]
mode = "native"

[[edge.limit]]
name = "web"
protocol = "tcp"
ports = [80]
packets = { rate = "500/s", burst = 1000 }
connections = { rate = "100/s", burst = 200 }
"#;

/// How long each act lasts.
const ACT: Duration = Duration::from_secs(4);
/// Sources of the flood, from what RFC 2544 sets aside for tests. So few that
/// each is over the limit on a slow machine too.
const SOURCES: u32 = 8;
const FIRST_SOURCE: u32 = 198 << 24 | 18 << 16;
/// Frames a second.
const RATE: u32 = 1_200_000;
/// More than can be sent in an act.
const FRAMES: u64 = 100_000_000;
/// Visitors behind the client's address, each on a connection of its own for
/// each page.
const VISITORS: usize = 10;
/// How long each looks at a page.
const READING: Duration = Duration::from_millis(200);
/// What a visitor waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> std::process::ExitCode {
    on_interrupt();
    match demo() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) if INTERRUPTED.load(Relaxed) => {
            eprintln!("interrupted; nothing is left behind");
            std::process::ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let stage = Stage::build()?;
    println!(
        "A web server (nginx) behind a pair of virtual interfaces, {VISITORS} visitors at one\n\
         address that ask for pages, and a flood of TCP packets from {SOURCES} other sources, sent by\n\
         one processor core. Two network namespaces, no other machine involved.\n"
    );
    let calm = stage.act("no flood", None)?;
    let bare = stage.act("flood, without limiter", Some(&stage.flood_frame()?))?;
    let daemon = Daemon::start(&stage.server, POLICY).context("starting limiter")?;
    let guarded = stage.act("flood, with limiter", Some(&stage.flood_frame()?))?;
    picture(&[calm, bare, guarded]);
    println!("What limiter saw (limiter status, limiter stats, limiter sources):\n");
    for command in [&["status"][..], &["stats"], &["sources", "--count", "5"]] {
        println!("{}", indent(&daemon.ask(command)?));
    }
    daemon.stop()?;
    println!("{CLOSING}");
    Ok(())
}

const CLOSING: &str = "\
The same on a real interface, as root:

    limiter init --set edge.interfaces='[\"eth0\"]' > /etc/limiter/limiter.toml
    limiter check /etc/limiter/limiter.toml
    limiter run                     # another terminal:
    limiter stats --watch

Two cores and virtual interfaces say little about a real NIC; cargo xtask demo leaves nothing behind.";

/// The server, the client's side, and what joins them.
struct Stage {
    server: Namespace,
    client: Namespace,
    wire: Veth,
    web: SocketAddr,
    _nginx: Nginx,
    _receiver: Receiver,
}

/// What the visitors got in one act.
struct Act {
    name: &'static str,
    answers: Vec<Duration>,
    failures: u32,
    sent_per_second: f64,
    delivered: u64,
}

impl Stage {
    fn build() -> Result<Self> {
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        let wire = Veth::new(&client, &server, Options::default())?;
        // Frames of the generator are received only where the receiving end
        // polls; with an XDP program it does by itself.
        server.output("ethtool", &["-K", &wire.right.name, "gro", "on"])?;
        // Without this the client's packets would not share the receive ring
        // with the flood's until a program is attached.
        client.output("ethtool", &["-K", &wire.left.name, "tso", "off"])?;
        let receiver = Receiver::on(&wire.right, 0)?;
        server.ip(&format!(
            "route add default via {} dev {}",
            wire.left.ipv4, wire.right.name
        ))?;
        let web = SocketAddr::new(wire.right.ipv4.into(), 80);
        let nginx = Nginx::plain(&server, web)?;
        Ok(Self {
            server,
            client,
            wire,
            web,
            _nginx: nginx,
            _receiver: receiver,
        })
    }

    /// A TCP packet to the web server, of no connection.
    fn flood_frame(&self) -> Result<Vec<u8>> {
        let End { mac, .. } = self.wire.left;
        let frame = Frame::new(
            std::net::Ipv4Addr::from(FIRST_SOURCE).into(),
            self.web.ip(),
            Upper::Tcp {
                from: 40_000,
                to: self.web.port(),
                flags: limiter_tests::frames::ACK,
            },
        );
        Ok(frame.macs(mac, self.wire.right.mac).build())
    }

    fn act(&self, name: &'static str, flood: Option<&[u8]>) -> Result<Act> {
        eprintln!("{name} …");
        let end = Instant::now() + ACT;
        let before = counter::traffic(&self.wire.right)?.received;
        let (sent, (answers, failures)) = thread::scope(|scope| -> Result<_> {
            let sender = flood.map(|frame| scope.spawn(move || self.send(frame)));
            let asked = self.visit_until(end)?;
            let sent = match sender.map(thread::ScopedJoinHandle::join) {
                Some(Ok(sent)) => sent?,
                Some(Err(_)) => anyhow::bail!("the generator failed"),
                None => 0,
            };
            Ok((sent, asked))
        })?;
        let delivered = counter::traffic(&self.wire.right)?.received - before;
        Ok(Act {
            name,
            answers,
            failures,
            sent_per_second: sent as f64 / ACT.as_secs_f64(),
            delivered,
        })
    }

    fn send(&self, frame: &[u8]) -> Result<u64> {
        let sources = Sources::Range {
            first: FIRST_SOURCE,
            count: SOURCES,
        };
        let bounds = Bounds {
            frames: FRAMES,
            at_most: ACT,
            per_second: RATE,
        };
        // Not where the server receives.
        cpu::pin(cpu::count()? - 1)?;
        let go = || !INTERRUPTED.load(Relaxed);
        Flood::new(frame, &sources)?.send_while(&self.wire.left, bounds, go)
    }

    /// Has all visitors ask for pages until the act is over: how long each
    /// answer took, and how many did not come.
    fn visit_until(&self, end: Instant) -> Result<(Vec<Duration>, u32)> {
        let (mut answers, mut failures) = (Vec::new(), 0);
        thread::scope(|scope| {
            let visitors = [(); VISITORS].map(|()| scope.spawn(|| self.visit(end)));
            for visitor in visitors {
                let (answered, failed) = match visitor.join() {
                    Ok(visit) => visit?,
                    Err(_) => anyhow::bail!("a visitor failed"),
                };
                answers.extend(answered);
                failures += failed;
            }
            Ok(())
        })?;
        answers.sort();
        Ok((answers, failures))
    }

    fn visit(&self, end: Instant) -> Result<(Vec<Duration>, u32)> {
        let (mut answers, mut failures) = (Vec::new(), 0);
        while Instant::now() < end {
            anyhow::ensure!(!INTERRUPTED.load(Relaxed), "interrupted");
            let start = Instant::now();
            match clients::get(&self.client, self.web, "/", PATIENCE) {
                Ok(answer) if answer.status == 200 => answers.push(start.elapsed()),
                _ => failures += 1,
            }
            thread::sleep(READING);
        }
        Ok((answers, failures))
    }
}

impl Act {
    fn per_second(&self) -> f64 {
        self.answers.len() as f64 / ACT.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> String {
        let place = (self.answers.len() * percent / 100).min(self.answers.len().saturating_sub(1));
        match self.answers.get(place) {
            Some(time) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
            None => "–".to_owned(),
        }
    }
}

fn picture(acts: &[Act]) {
    const WIDTH: f64 = 40.0;
    let most = acts.iter().map(Act::per_second).fold(1.0, f64::max);
    println!("\nPages that the visitors got, a second:\n");
    for act in acts {
        let filled = (act.per_second() / most * WIDTH).round() as usize;
        println!(
            "  {:<24} {}{} {:>5.1}/s   p50 {:>9}   p99 {:>9}   failed {}",
            act.name,
            "█".repeat(filled),
            "·".repeat(WIDTH as usize - filled),
            act.per_second(),
            act.percentile(50),
            act.percentile(99),
            act.failures
        );
    }
    println!();
    for act in acts.iter().filter(|act| act.sent_per_second > 0.0) {
        println!(
            "  {:<24} {:.2} million packets a second sent, {:.1} million in all reached the server's interface",
            act.name,
            act.sent_per_second / 1e6,
            act.delivered as f64 / 1e6
        );
    }
    println!();
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Ctrl-C ends the demo between two requests, so that everything is taken down
/// in order.
fn on_interrupt() {
    extern "C" fn note(_signal: i32) {
        INTERRUPTED.store(true, Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler: extern "C" fn(i32) = note;
        // SAFETY: the handler only stores to an atomic.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
