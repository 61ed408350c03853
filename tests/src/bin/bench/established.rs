//! Section `established`: what becomes of sources that were known before an
//! attack, and of clients that come during it.

use crate::{
    assaults::Assault,
    limiter::{Counts, Limiter, passed_and_dropped},
    policies::WEB,
    report::{Column, Row, Table},
    rounds::{Contestant, interleave},
    siege::{EACH_PER_SECOND, NEWCOMERS, REGULARS, Siege, need_two_cpus, newcomer, regular},
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    cpu, crowd,
    flood::{Bounds, Flood},
    wait,
};
use limiter_user::policy::{NoFiles, Policy, parse};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Sources that the table holds.
const SOURCES: u32 = 65_536;
/// How long the attack's sources fill the table beforehand, and at what rate: less
/// than `new_sources`, so that all of them get in.
const FILLING: Duration = Duration::from_secs(7);
const FILL_PER_SECOND: u32 = 9_300;
/// How far an attack has come when the first client comes, and how long clients
/// come.
const HEAD_START: Duration = Duration::from_secs(1);
const COMING: Duration = Duration::from_secs(5);
/// A client that has no connection by then has none.
const PATIENCE: Duration = Duration::from_millis(3_500);

/// Packets of a kind of sender by what became of them, in all rounds of a row.
type Fates = BTreeMap<(String, &'static str), Counts>;

/// Measures all attacks whose names contain `only`, each at least `seconds`
/// long.
pub(crate) fn run(rounds: usize, seconds: u64, only: &str) -> Result<Table> {
    need_two_cpus()?;
    let lasting = Duration::from_secs(seconds).max(HEAD_START + COMING + PATIENCE);
    let siege = &Siege::build()?;
    let fates = &RefCell::new(Fates::new());
    let all = std::iter::once(None).chain(Assault::ALL.map(Some));
    let wanted = all.filter(|assault| name(*assault).contains(only));
    let contestants = wanted.map(|assault| {
        Contestant::new(name(assault), move || {
            Trial::new(siege, assault)?.run(lasting, fates)
        })
    });
    let contestants: Vec<_> = contestants.collect();
    ensure!(!contestants.is_empty(), "no attack is named {only}");
    let series = interleave(contestants, rounds)?;
    let mut notes = notes(lasting);
    notes.extend(fates.borrow().iter().map(|((row, who), counts)| {
        let words = counts
            .iter()
            .map(|(words, packets)| format!("{words} {packets}"));
        format!("{row}: {who}: {}", words.collect::<Vec<_>>().join(", "))
    }));
    Ok(Table {
        section: "established",
        title: format!(
            "{REGULARS} known sources and {NEWCOMERS} new clients in an attack of {} s",
            lasting.as_secs_f64()
        ),
        columns: COLUMNS
            .map(|(name, decimals)| Column::new(name, decimals))
            .to_vec(),
        rows: series
            .iter()
            .map(|own| Row::of(own, COLUMNS.len(), vec![]))
            .collect(),
        notes,
    })
}

const COLUMNS: [(&str, usize); 8] = [
    ("attack: disposed of /s", 0),
    ("passed /s", 0),
    ("known sources: passed %", 2),
    ("in the last second %", 2),
    ("lost by the rig %", 2),
    ("in the table after %", 1),
    ("new clients: connected %", 1),
    ("half of them in, ms", 1),
];

fn notes(lasting: Duration) -> Vec<String> {
    vec![
        format!(
            "policy: {SOURCES} sources tracked, `[edge.flood]` as it is by default, one limit on the \
             port: 100 packets a second, 10 connections a second for each source; known sources send \
             {EACH_PER_SECOND} packets a second each, each from a network of its own"
        ),
        format!(
            "before the attack its own sources fill the table (before that of one /48 those of any): \
             {} s at {FILL_PER_SECOND} packets a second, fewer than bring admission on; so an entry \
             made in the {} s of the attack pushes another out",
            FILLING.as_secs(),
            lasting.as_secs_f64()
        ),
        "attack: 60-byte frames with right checksums, unpaced, from one CPU, received by the other \
         (threaded NAPI); what is passed of the ACKs is dropped in prerouting, SYNs go on to the \
         listener (SYN cookies as by default)"
            .to_owned(),
        "known and new sources come in over pairs of interfaces of their own, with the same limiter \
         attached: on the attack's, most frames are lost in its ring, whoever sent them; every \
         interface's packets were all counted by limiter"
            .to_owned(),
        format!(
            "a new client connects as the kernel does (SYN at once, then after each second), from an \
             address and a network of its own, and must have the server's first byte within {} s",
            PATIENCE.as_secs_f64()
        ),
    ]
}

fn name(assault: Option<Assault>) -> String {
    assault.map_or_else(|| "no attack".to_owned(), Assault::name)
}

fn policy() -> Result<Policy> {
    let text = format!(
        "[edge]\ninterfaces = [\"none0\"]\nsources = {SOURCES}\n\
         [[edge.limit]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [{WEB}]\n\
         packets = {{ rate = \"100/s\", burst = 200 }}\n\
         connections = {{ rate = \"10/s\", burst = 20 }}\n"
    );
    Ok(parse("bench.toml", &text, &NoFiles)?.policy)
}

/// One attack on a limiter that has just been loaded.
struct Trial<'a> {
    siege: &'a Siege,
    limiter: Limiter,
    assault: Option<Assault>,
    /// What the known sources have sent.
    sent: AtomicU64,
    /// What interfaces had received before.
    before: [u64; 3],
}

/// What had happened by some moment.
struct Moment {
    at: Instant,
    counts: [Counts; 3],
}

impl<'a> Trial<'a> {
    fn new(siege: &'a Siege, assault: Option<Assault>) -> Result<Self> {
        let mut limiter = Limiter::new(&policy()?)?;
        let before = siege.received()?;
        siege.guard(&mut limiter)?;
        Ok(Self {
            siege,
            limiter,
            assault,
            sent: AtomicU64::new(0),
            before,
        })
    }

    fn is_ipv6(&self) -> bool {
        self.assault.is_some_and(Assault::is_ipv6)
    }

    fn run(&self, lasting: Duration, fates: &RefCell<Fates>) -> Result<Vec<f64>> {
        let over = AtomicBool::new(false);
        let is_ipv6 = self.is_ipv6();
        let outcome = thread::scope(|scope| {
            let regulars = scope.spawn(|| self.siege.send_regulars(is_ipv6, &self.sent, &over));
            let outcome = self.attack(lasting);
            over.store(true, Relaxed);
            let sent = match regulars.join() {
                Ok(sent) => sent,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            sent?;
            outcome
        });
        let (moments, connected) = outcome?;
        self.siege.check(&self.limiter, self.before)?;
        self.figures(&moments, &connected, fates)
    }

    /// Three moments: the attack's beginning, a second before its end, its end;
    /// and what became of the clients.
    fn attack(&self, lasting: Duration) -> Result<([Moment; 3], Vec<Option<Duration>>)> {
        wait::until("all sources to be known", wait::SOON, || {
            Ok((self.known()? == 1.0).then_some(()))
        })?;
        let Some(assault) = self.assault else {
            return self.watch(lasting);
        };
        self.flood(
            assault.vanguard(),
            FILLING,
            FILL_PER_SECOND,
            &AtomicBool::new(false),
        )?;
        let over = &AtomicBool::new(false);
        thread::scope(|scope| {
            let attack = scope.spawn(move || self.flood(assault, Duration::from_hours(1), 0, over));
            let watched = self
                .wait_for_the_attack()
                .and_then(|()| self.watch(lasting));
            over.store(true, Relaxed);
            match attack.join() {
                Ok(sent) => sent?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            watched
        })
    }

    fn wait_for_the_attack(&self) -> Result<()> {
        let before = self.siege.received()?[0];
        wait::until("the flood", wait::SOON, || {
            let received = self.siege.received()?[0];
            Ok((received > before + 10_000).then_some(()))
        })
    }

    fn flood(
        &self,
        assault: Assault,
        at_most: Duration,
        per_second: u32,
        over: &AtomicBool,
    ) -> Result<()> {
        let bounds = Bounds {
            frames: u64::MAX >> 1,
            at_most,
            per_second,
        };
        let pair = &self.siege.attack;
        let flood = Flood::new(&assault.frame(pair), &assault.sources())?;
        // On a thread of its own: this one is to stay where it is.
        cpu::on(cpu::count()? - 1, || {
            flood.send_while(&pair.left, bounds, || !over.load(Relaxed))?;
            Ok(())
        })
    }

    fn watch(&self, lasting: Duration) -> Result<([Moment; 3], Vec<Option<Duration>>)> {
        let first = self.moment()?;
        let until = |elapsed: Duration| {
            thread::sleep((first.at + elapsed).saturating_duration_since(Instant::now()));
        };
        until(HEAD_START);
        let is_ipv6 = self.is_ipv6();
        let sources: Vec<IpAddr> = (0..NEWCOMERS).map(|it| newcomer(it, is_ipv6)).collect();
        let clients = cpu::on(cpu::count()? - 1, || {
            cpu::hurry()?;
            let namespace = &self.siege.newcomers.left.namespace;
            let to = self.siege.server(is_ipv6);
            crowd::connect(namespace, &sources, to, COMING / NEWCOMERS, PATIENCE)
        })?;
        until(lasting.saturating_sub(Duration::from_secs(1)));
        let late = self.moment()?;
        until(lasting.max(late.at + Duration::from_secs(1) - first.at));
        Ok(([first, late, self.moment()?], clients))
    }

    fn moment(&self) -> Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            counts: self.siege.counts(&self.limiter)?,
        })
    }

    /// The part of the known sources that is in the table.
    fn known(&self) -> Result<f64> {
        let is_ipv6 = self.is_ipv6();
        let all: BTreeSet<IpAddr> = (0..REGULARS).map(|it| regular(it, is_ipv6)).collect();
        let sources = self.limiter.plane.sources()?;
        // An IPv6 source is named by its network.
        let found = sources.iter().filter(|it| {
            let range = it.source.network()..=it.source.broadcast();
            all.range(range).next().is_some()
        });
        Ok(found.count() as f64 / f64::from(REGULARS))
    }

    fn figures(
        &self,
        [first, late, last]: &[Moment; 3],
        clients: &[Option<Duration>],
        fates: &RefCell<Fates>,
    ) -> Result<Vec<f64>> {
        let row = name(self.assault);
        let of = |from: &Moment, place: usize| -> Counts {
            let mut moved = last.counts[place].clone();
            for (words, packets) in &from.counts[place] {
                *moved.entry(words.clone()).or_default() -= packets;
            }
            moved.retain(|_, packets| *packets != 0);
            moved
        };
        let mut fates = fates.borrow_mut();
        for (place, who) in ["attack", "known sources", "new clients"]
            .into_iter()
            .enumerate()
        {
            let sum = fates.entry((row.clone(), who)).or_default();
            for (words, packets) in of(first, place) {
                *sum.entry(words).or_default() += packets;
            }
        }
        let seconds = (last.at - first.at).as_secs_f64();
        let [passed, dropped] = passed_and_dropped(&of(first, 0));
        let share = |from: &Moment| {
            let [passed, dropped] = passed_and_dropped(&of(from, 1));
            let seen = passed + dropped;
            ensure!(seen > 0, "known sources sent nothing");
            Ok(passed as f64 * 100.0 / seen as f64)
        };
        // Over the whole time, since only then all has arrived.
        let arrived = self.siege.received()?[1] - self.before[1];
        let sent = self.sent.load(Relaxed);
        let mut took: Vec<Duration> = clients.iter().flatten().copied().collect();
        took.sort();
        let half = took.get(clients.len() / 2);
        Ok(vec![
            (passed + dropped) as f64 / seconds,
            passed as f64 / seconds,
            share(first)?,
            share(late)?,
            (1.0 - arrived as f64 / sent as f64) * 100.0,
            self.known().context("reading the table")? * 100.0,
            took.len() as f64 * 100.0 / clients.len() as f64,
            half.map_or(f64::INFINITY, |took| took.as_secs_f64() * 1e3),
        ])
    }
}
