//! Clients of the decision port that take their time, and what others get meanwhile.

use super::front::Front;
use crate::{rounds::percentile_ms, usage::most_resident_below};
use anyhow::{Result, ensure};
use limiter_tests::{
    clients,
    cpu::{self, Awake},
    crowd,
    netns::Namespace,
    pace::{self, Pace},
    ready::{Ready, Way},
};
use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Slow clients at once.
pub(super) const COUNT: usize = 10_000;
/// Those of them that must be connected by then: as many as there are places.
const ENOUGH: usize = 1_024;
/// Between two lines of a head of theirs.
const LINE: Duration = Duration::from_secs(1);
/// Between two looks at all of them.
const SWEEP: Duration = Duration::from_millis(20);
/// Connections opened in a look at most.
const OPENED: usize = 500;
/// Whoever asks over connections that stay open, and for how long before the slow ones come.
pub(super) const KEPT: Pace = Pace {
    per_second: 200.0,
    lasts: Duration::from_secs(5),
    connections: 4,
};
const ALONE: Duration = Duration::from_secs(1);
/// From when on there are enough of the slow ones, the first of them for longer than a connection
/// may idle.
pub(super) const CROWDED: Duration = Duration::from_secs(3);
/// Whoever asks over a connection of its own: how many, how often, and how long they wait.
pub(super) const NEW: u32 = 20;
pub(super) const NEW_EACH: Duration = Duration::from_millis(50);
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

const CHECK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4_480);
const QUESTION: &str = "GET /check HTTP/1.1\r\nHost: limiter\r\nX-Forwarded-Method: GET\r\n\
                        X-Forwarded-Uri: /\r\nX-Forwarded-For: 198.51.100.1\r\n";

/// p99 in ms over kept connections without slow clients and with them; of new connections the
/// median and the longest in ms, and percent answered; slow clients connected; the worker's
/// memory before and while they are there, in MiB.
pub(super) fn measure(front: &Front, last: usize) -> Result<Vec<f64>> {
    let daemon = front.limiter()?;
    let server = &front.pairs[0].right.namespace;
    let resident = || Ok::<_, anyhow::Error>(most_resident_below(daemon.id()?)? as f64 / MIB);
    let request = format!("{QUESTION}\r\n");
    let before = resident()?;
    let (over, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    let _awake = [Awake::on(0), Awake::on(last)];
    thread::scope(|scope| {
        let kept = scope.spawn(|| {
            cpu::on(last, || {
                cpu::hurry()?;
                pace::ask(server, CHECK, request.as_bytes(), KEPT)
            })
        });
        let slow = scope.spawn(|| {
            thread::sleep(ALONE);
            cpu::on(last, || crowd_in(server, &over, &connected))
        });
        thread::sleep(CROWDED);
        let there = connected.load(Relaxed);
        let new = cpu::on(last, || new(server));
        let during = resident();
        let kept = join(kept);
        over.store(true, Relaxed);
        join(slow)?;
        let (mut new, kept) = (new?, kept?);
        ensure!(there >= ENOUGH, "{there} slow clients are connected");
        let p99 = |is_in: fn(Duration) -> bool| {
            let those = kept.iter().filter(|it| is_in(it.due));
            percentile_ms(&mut those.map(|it| it.took).collect::<Vec<_>>(), 99)
        };
        let answered = new.iter().filter(|it| **it < PATIENCE).count() as f64;
        let share = answered / f64::from(NEW) * 1e2;
        let [median, most] = [50, 100].map(|share| percentile_ms(&mut new, share));
        Ok(vec![
            p99(|due| due < ALONE),
            p99(|due| due >= CROWDED),
            median,
            most,
            share,
            there as f64,
            before,
            during?,
        ])
    })
}

const MIB: f64 = (1_u64 << 20) as f64;

fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match handle.join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What each of some clients took that open a connection for one question; who has no answer
/// took all its patience.
fn new(server: &Namespace) -> Result<Vec<Duration>> {
    let request = format!("{QUESTION}Connection: close\r\n\r\n");
    thread::scope(|scope| {
        let each = (0..NEW).map(|number| {
            let request = &request;
            scope.spawn(move || {
                thread::sleep(NEW_EACH * number);
                let began = Instant::now();
                let answer = clients::ask(server, CHECK, request.as_bytes(), PATIENCE);
                let is_answer = answer.is_ok_and(|it| it.status == 204);
                Ok(if is_answer {
                    began.elapsed().min(PATIENCE)
                } else {
                    PATIENCE
                })
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().map(join).collect()
    })
}

/// Somebody who begins a request and never ends it.
struct Slow {
    stream: TcpStream,
    /// When it sends its next line; `None`: it is not connected yet.
    next: Option<Instant>,
}

/// Keeps so many slow clients at the port until it is over: who is sent away comes again.
fn crowd_in(server: &Namespace, over: &AtomicBool, connected: &AtomicUsize) -> Result<()> {
    server.run(|| {
        let (ready, mut last) = (Ready::new()?, 0_u64);
        let mut all: HashMap<u64, Slow> = HashMap::new();
        while !over.load(Relaxed) {
            let missing = COUNT - all.len();
            for _ in 0..missing.min(OPENED) {
                last += 1;
                // Ports of one address would be too few for all that come and go.
                let source = Ipv4Addr::new(127, 0, 1, (last % 200) as u8 + 1);
                let stream = crowd::begin(source.into(), CHECK)?;
                ready.add(&stream, Way::Connected, last)?;
                all.insert(last, Slow { stream, next: None });
            }
            let swept = Instant::now();
            while let happened = ready.wait(swept)?
                && !happened.is_empty()
            {
                for number in happened {
                    if all.get_mut(&number).is_some_and(|it| !it.is_there()) {
                        all.remove(&number);
                    }
                }
            }
            all.retain(|_, it| it.next.is_none_or(|next| next > swept) || it.say("X-More: 1\r\n"));
            let there = all.values().filter(|it| it.next.is_some()).count();
            connected.store(there, Relaxed);
            thread::sleep(SWEEP);
        }
        Ok(())
    })
}

impl Slow {
    /// Something has happened: it is connected, and begins, or it was sent away.
    fn is_there(&mut self) -> bool {
        if self.next.is_none() {
            return self.say(QUESTION);
        }
        match self.stream.read(&mut [0; 512]) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn say(&mut self, text: &str) -> bool {
        self.next = Some(Instant::now() + LINE);
        self.stream.write_all(text.as_bytes()).is_ok()
    }
}
