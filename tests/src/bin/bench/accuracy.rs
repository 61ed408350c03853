//! Section `accuracy`: how many packets of one source are admitted that sends
//! three times its limit over two CPUs.
//!
//! All cases run at once, each with a source of its own, by `BPF_PROG_TEST_RUN`
//! on both CPUs: a millisecond's packets at a time, which is less than a step of
//! the program's clock.

use crate::{
    interrupt,
    limiter::Limiter,
    report::{Column, Row, Table},
    rounds::Series,
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    cpu,
    frames::{Frame, Upper},
    netns::Namespace,
};
use limiter_user::policy::{Mode, NoFiles, Policy, parse};
use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

/// How long a source sends.
const SECONDS: u32 = 10;
/// How many times its limit.
const TIMES: u32 = 3;
/// Limits: packets a second, and at once. Each burst outlasts the pauses of a
/// machine that is not busy.
const LIMITS: [(u32, u32); 3] = [(10, 10), (1_000, 200), (100_000, 10_000)];
/// The port of the first limit.
const PORT: u16 = 2_000;

/// Packets sent with one call, which takes them less than a step of the clock
/// however far behind the sender is.
const AT_ONCE: u32 = 1_000;

/// How a source's packets are spread over two CPUs.
#[derive(Clone, Copy)]
enum Spread {
    One,
    Even,
    NineToOne,
    Moving,
}

/// A source under a limit.
struct Stream {
    limit: usize,
    spread: Spread,
    source: Ipv4Addr,
    frame: Vec<u8>,
}

/// Measures all cases, once a round.
pub(crate) fn run(rounds: usize) -> Result<Table> {
    let cpus = cpu::count()?;
    ensure!(cpus >= 2, "two CPUs are needed");
    let mut limiter = Limiter::new(&policy()?)?;
    // Otherwise each call puts the program into the kernel's dispatcher of XDP
    // programs and takes it out again, which waits for all CPUs.
    let nowhere = Namespace::new()?;
    let attached = nowhere.run(|| limiter.plane.attach("lo", Mode::Generic));
    attached.context("attaching limiter")?;
    let mut all: Vec<Series> = streams(0).iter().map(Stream::series).collect();
    for round in 0..rounds {
        interrupt::check()?;
        eprint!("\rround {} of {rounds} ", round + 1);
        let streams = streams(u8::try_from(round % 256)?);
        let figures = measure(&limiter, &streams, [0, cpus - 1])?;
        for (series, figures) in all.iter_mut().zip(figures) {
            let rounds = series.rounds.as_mut();
            rounds
                .map_err(|fault| anyhow::anyhow!("{fault}"))?
                .push(figures);
        }
    }
    eprintln!();
    Ok(Table {
        section: "accuracy",
        title: format!("packets admitted in {SECONDS} s of {TIMES} times the limit"),
        columns: vec![
            Column::new("admitted", 0),
            Column::new("% over burst + rate × time", 2),
            Column::new("% over a perfect bucket", 2),
            Column::new("longest pause of the sender, ms", 1),
        ],
        rows: all.iter().map(|it| Row::of(it, 4, Vec::new())).collect(),
        notes: vec![
            format!("bursts: {}", bursts()),
            "by BPF_PROG_TEST_RUN on two CPUs, all rows at once, a millisecond's packets at a time; \
             where a sender pauses for longer than a burst lasts, less is admitted, which is no \
             fault of the limiter's: the perfect bucket knows when each packet was sent"
                .to_owned(),
        ],
    })
}

fn bursts() -> String {
    let each = LIMITS.map(|(rate, burst)| format!("{burst} at {rate}/s"));
    each.join(", ")
}

fn policy() -> Result<Policy> {
    let mut text = "[edge]\ninterfaces = [\"none0\"]\n".to_owned();
    for (port, (rate, burst)) in (PORT..).zip(LIMITS) {
        text.push_str(&format!(
            "[[edge.limit]]\nname = \"{rate}\"\nprotocol = \"udp\"\nports = [{port}]\n\
             packets = {{ rate = \"{rate}/s\", burst = {burst} }}\n"
        ));
    }
    Ok(parse("bench.toml", &text, &NoFiles)?.policy)
}

/// Every limit with every spread. The sources of each round are others: their
/// buckets are full.
fn streams(round: u8) -> Vec<Stream> {
    let spreads = [Spread::One, Spread::Even, Spread::NineToOne, Spread::Moving];
    let cases = (0..LIMITS.len()).flat_map(|limit| spreads.map(|spread| (limit, spread)));
    (1..)
        .zip(cases)
        .map(|(number, (limit, spread))| {
            Stream::new(limit, spread, [198, 18, round, number].into())
        })
        .collect()
}

/// Runs all streams at once: of each, packets admitted, by how much of a
/// hundred that differs from the promise and from what a perfect bucket admits
/// of the same packets, and the longest pause.
fn measure(limiter: &Limiter, streams: &[Stream], cpus: [usize; 2]) -> Result<Vec<Vec<f64>>> {
    let start = Instant::now();
    let sender = |place: usize| cpu::on(cpus[place], || send(limiter, streams, place, start));
    let [first, second] = thread::scope(|scope| {
        let senders = [0, 1].map(|place| scope.spawn(move || sender(place)));
        senders.map(|sender| match sender.join() {
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    let (first, second) = (first?, second?);
    let longest = first.longest_pause.max(second.longest_pause);
    let sources = limiter.plane.sources()?;
    let batches = first.batches.iter().zip(&second.batches);
    let figures = streams.iter().zip(batches).map(|(stream, (a, b))| {
        let ours = |address: IpAddr| address == IpAddr::from(stream.source);
        let found = sources.iter().find(|it| ours(it.source.addr()));
        let found = found.context("a source is not tracked")?;
        let (rate, burst) = LIMITS[stream.limit];
        let sent = found.passed + found.dropped;
        ensure!(
            sent == u64::from(rate * TIMES * SECONDS),
            "{sent} were sent"
        );
        let admitted = found.passed as f64;
        let over = |expected: f64| (admitted / expected - 1.0) * 100.0;
        let promised = f64::from(burst + rate * SECONDS);
        let perfect = perfect(stream.limit, [a.as_slice(), b].concat());
        let pause_ms = longest.as_secs_f64() * 1e3;
        Ok(vec![admitted, over(promised), over(perfect), pause_ms])
    });
    figures.collect()
}

/// Packets that were sent together: when, in seconds, and how many.
type Batch = (f64, u32);

/// What one sender did.
struct Sent {
    /// Of each stream.
    batches: Vec<Vec<Batch>>,
    longest_pause: Duration,
}

/// What a bucket admits that knows the exact time.
fn perfect(limit: usize, mut batches: Vec<Batch>) -> f64 {
    batches.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (rate, burst) = LIMITS[limit];
    let (mut tokens, mut before, mut admitted) = (f64::from(burst), 0.0, 0.0);
    for (time, packets) in batches {
        tokens = (tokens + (time - before) * f64::from(rate)).min(burst.into());
        before = time;
        let passed = tokens.min(packets.into()).floor();
        tokens -= passed;
        admitted += passed;
    }
    admitted
}

/// Sends what is due on one of the two CPUs until all is sent.
fn send(limiter: &Limiter, streams: &[Stream], place: usize, start: Instant) -> Result<Sent> {
    cpu::hurry()?;
    let mut sent = vec![0; streams.len()];
    let mut batches = vec![Vec::new(); streams.len()];
    let (mut before, mut longest_pause) = (start, Duration::ZERO);
    loop {
        interrupt::check()?;
        let now = Instant::now();
        longest_pause = longest_pause.max(now - before);
        before = now;
        let elapsed = (now - start).as_secs_f64().min(SECONDS.into());
        for (number, stream) in streams.iter().enumerate() {
            while stream.due(elapsed, place) > sent[number] {
                let packets = (stream.due(elapsed, place) - sent[number]).min(AT_ONCE);
                batches[number].push((start.elapsed().as_secs_f64(), packets));
                limiter.plane.test_run(&stream.frame, packets)?;
                sent[number] += packets;
            }
        }
        if elapsed >= f64::from(SECONDS) {
            return Ok(Sent {
                batches,
                longest_pause,
            });
        }
        thread::sleep(Duration::from_millis(1));
    }
}

impl Stream {
    fn new(limit: usize, spread: Spread, source: Ipv4Addr) -> Self {
        let upper = Upper::Udp {
            from: 9,
            to: PORT + limit as u16,
        };
        let host = Ipv4Addr::new(192, 0, 2, 1);
        Self {
            limit,
            spread,
            source,
            frame: Frame::new(source.into(), host.into(), upper).build(),
        }
    }

    fn series(&self) -> Series {
        let (rate, _) = LIMITS[self.limit];
        Series {
            name: format!("{rate}/s, {}", self.spread.name()),
            rounds: Ok(Vec::new()),
        }
    }

    /// Packets that one of the two CPUs has to have sent by now.
    fn due(&self, elapsed: f64, place: usize) -> u32 {
        let (rate, _) = LIMITS[self.limit];
        let seconds = self.spread.seconds(elapsed)[place];
        // What is left of a packet is sent when it is whole.
        (f64::from(rate * TIMES) * seconds + 1e-6) as u32
    }
}

impl Spread {
    const fn name(self) -> &'static str {
        match self {
            Self::One => "all on one CPU",
            Self::Even => "even",
            Self::NineToOne => "90/10",
            Self::Moving => "moving every 100 ms",
        }
    }

    /// Of so many seconds, those that fall to each CPU.
    fn seconds(self, elapsed: f64) -> [f64; 2] {
        const TURN: f64 = 0.1;
        let first = match self {
            Self::One => elapsed,
            Self::Even => elapsed / 2.0,
            Self::NineToOne => elapsed * 0.9,
            Self::Moving => {
                let turns = (elapsed / (2.0 * TURN)).floor();
                turns * TURN + (elapsed - turns * 2.0 * TURN).min(TURN)
            }
        };
        [first, elapsed - first]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moving_source_spends_every_other_turn_elsewhere() {
        let near = |elapsed: f64, expected: [f64; 2]| {
            let met = Spread::Moving.seconds(elapsed);
            assert!((met[0] - expected[0]).abs() < 1e-9, "{met:?}");
            assert!((met[1] - expected[1]).abs() < 1e-9, "{met:?}");
        };
        near(0.05, [0.05, 0.0]);
        near(0.15, [0.1, 0.05]);
        near(0.25, [0.15, 0.1]);
        near(10.0, [5.0, 5.0]);
    }

    #[test]
    fn a_perfect_bucket_gives_burst_and_rate_and_loses_what_it_cannot_hold() {
        let (rate, burst) = LIMITS[1];
        let all = |batches| perfect(1, batches) as u32;
        assert_eq!(all(vec![(1.0, 3 * rate), (0.0, 3 * rate)]), 2 * burst);
        assert_eq!(
            all(vec![(0.0, burst), (0.1, 50), (0.2, 3 * rate)]),
            burst + 200
        );
    }

    #[test]
    fn in_the_end_everything_is_sent() {
        for stream in streams(0) {
            let all = stream.due(10.0, 0) + stream.due(10.0, 1);
            assert_eq!(all, LIMITS[stream.limit].0 * TIMES * SECONDS);
        }
    }
}
