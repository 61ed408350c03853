//! One random trace through `judge` over tables in memory and through the
//! loaded program: the same verdicts, counters and sources.
//!
//! Needs root (it loads the program; nothing is attached).
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test: what goes wrong is to be seen at once"
)]

mod frames;

use frames::{Random, Senders, frame};
use limiter_common::{
    block::{Block, BlockKey, DRY, Owner},
    packet::Slice,
    time::{Time, UNITS_PER_NS},
    verdict::{Action, NO_LIMIT, Outcome, Reason},
};
use limiter_user::{
    dataplane::{DataPlane, Options, model::BlockRequest},
    image::{Image, Slots, network, network_parts},
    policy::{NoFiles, Policy, parse},
    replay::{MemoryTables, SEED},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

const FRAMES: u32 = 100_000;

/// How often counters are compared: they tell reasons apart, which the
/// program's answer does not.
const CHECK_EVERY: u32 = 1_000;

/// The kernel's own clock starts 300 s before it passes 32 bits.
const START_STEP: u64 = (1 << 32) - 10_000;

const ENFORCED: &str = r#"
[edge]
interfaces = ["eth0"]
sources = 262_144
unparsed = "drop"
allow = ["10.9.0.0/16", "2001:db8:a::/48"]
deny = ["198.51.100.0/24", "2001:db8:d::/48", "203.0.113.77/32"]
[edge.tables]
blocks_kernel = 65_536
[edge.flood]
new_sources = "40/s"
unknown = { packets = "100/s", connections = "20/s" }
[[edge.limit]]
name = "ssh"
protocol = "tcp"
ports = [22]
from = ["10.0.0.0/8", "172.16.0.0/12", "2001:db8:1::/48", "2001:db8:8000::/36"]
connections = { rate = "10/min", burst = 3 }
[[edge.limit]]
name = "https"
protocol = "tcp"
ports = [443]
packets = { rate = "20/s", burst = 30 }
exceed = { block = "2s" }
[[edge.limit]]
name = "api"
protocol = "tcp"
ports = ["8000-8100"]
to = ["192.0.2.10/32", "2001:db8:ff::/64"]
from = ["172.16.0.0/13", "2001:db8:8000::/35"]
packets = { rate = "200/s", burst = 1_000 }
bytes = { rate = "300kB/s", burst = "1MB" }
[[edge.limit]]
name = "web"
protocol = "tcp"
ports = ["8000-8999"]
packets = { rate = "7/s", burst = 40 }
bytes = { rate = "3000B/s", burst = "20kB" }
connections = { rate = "2/s", burst = 9 }
[[edge.limit]]
name = "dns"
protocol = "udp"
ports = [53]
packets = { rate = "11/s", burst = 16 }
exceed = "observe"
[[edge.limit]]
name = "udp"
protocol = "udp"
to = ["192.0.2.0/24", "2001:db8::/32"]
bytes = { rate = "1MB/s", burst = "2MB" }
[[edge.limit]]
name = "icmp"
protocol = "icmp"
packets = { rate = "3/s", burst = 5 }
[[edge.limit]]
name = "rest"
protocol = "any"
to = ["192.0.2.0/25", "2001:db8:ff::/48"]
packets = { rate = "1000/s", burst = 100 }
connections = { rate = "1/s", burst = 1 }
total = { packets = "60/s", bytes = "5kB/s", connections = { rate = "3/s", burst = 20 } }
"#;

/// [`ENFORCED`] after a reload: other budgets and another order.
fn reloaded() -> String {
    ENFORCED
        .replace("\"20/s\", burst = 30", "\"60/s\", burst = 10")
        .replace("\"200/s\", burst = 1_000", "\"100/s\", burst = 2_000")
        .replace(
            "\"300kB/s\", burst = \"1MB\"",
            "\"200kB/s\", burst = \"500kB\"",
        )
        .replace("10.9.0.0/16", "10.9.0.0/25")
        .replace("deny = [", "deny = [\"10.9.0.129/32\", ")
        .replace("exceed = \"observe\"", "exceed = { block = \"1s\" }")
}

/// Dry run, wide sources with list entries inside them, control traffic
/// limited as any other.
const DRY_RUN: &str = r#"
[edge]
interfaces = ["eth0"]
sources = 262_144
enforce = false
ipv4_prefix = 24
ipv6_prefix = 48
allow = ["10.9.0.0/29", "172.16.0.4/32", "2001:db8:a::/64", "2001:db8:8000:1::1/128"]
deny = ["198.51.100.128/25", "172.16.0.0/30", "2001:db8:d::/127", "2001:db8:8000:2::/64"]
[edge.safety]
control_traffic = "limit"
[[edge.limit]]
name = "https"
protocol = "tcp"
ports = [22, 443]
packets = { rate = "20/s", burst = 30 }
exceed = { block = "1s" }
from = ["172.16.0.0/29", "2001:db8:8000:3::/64", "2001:db8:8000::2/127"]
[[edge.limit]]
name = "all"
protocol = "any"
packets = { rate = "50/s", burst = 200 }
bytes = { rate = "20kB/s", burst = "100kB" }
connections = { rate = "3/s", burst = 8 }
"#;

fn policy(text: &str) -> Policy {
    let loaded = parse("limiter.toml", text, &NoFiles);
    loaded.unwrap_or_else(|fault| panic!("{fault}")).policy
}

/// Both sides, in step.
struct Pair {
    plane: DataPlane,
    tables: MemoryTables,
    slots: Slots,
    policy: Policy,
    /// Every block that was made.
    held: HashMap<BlockKey, Block>,
    step: u64,
}

impl Pair {
    fn new(text: &str, cpus: &[u32]) -> Self {
        let policy = policy(text);
        let places = cpus.iter().max().unwrap() + 1;
        let options = Options {
            test_clock: true,
            test_seed: Some(SEED),
            ..Options::default()
        };
        let plane = DataPlane::load(&policy, options).unwrap();
        let mut slots = Slots::default();
        let image = compile(&policy, &mut slots, &plane);
        let mut pair = Self {
            tables: MemoryTables::new(image, &policy.edge, places),
            plane,
            slots,
            policy,
            held: HashMap::new(),
            step: 0,
        };
        pair.set_step(START_STEP);
        pair
    }

    fn set_step(&mut self, step: u64) {
        self.step = step;
        self.plane.set_test_step(step).unwrap();
    }

    fn reload(&mut self, text: &str) {
        self.policy = policy(text);
        self.plane.apply(&self.policy).unwrap();
        let image = compile(&self.policy, &mut self.slots, &self.plane);
        self.tables.put_in_force(image);
    }

    /// The packets of this thread run on `cpu` from now on.
    fn run_on(&mut self, cpu: u32) {
        pin(cpu);
        self.tables.cpu = cpu;
    }

    fn block(&mut self, requests: &[BlockRequest]) {
        self.plane.block_many(requests).unwrap();
        let step_ns = u128::from(self.plane.clock().step_ns);
        for request in requests {
            let lasting = request.lasting.unwrap().as_nanos();
            let limit = request.limit.as_deref();
            let slot = limit.map_or(0, |name| self.slots.find(name).unwrap() as u32 + 1);
            let (address, prefix) = network_parts(&request.network);
            let key = BlockKey::new(address, prefix, slot);
            // A dry run does not turn what is in force into a trial.
            let earnest = (self.held.get(&key))
                .is_some_and(|old| old.flags & DRY == 0 && old.expires_step > self.step);
            let dry = !self.policy.edge.enforce && !earnest;
            let block = Block {
                expires_step: self.step + lasting.div_ceil(step_ns) as u64,
                flags: if dry { DRY } else { 0 },
                owner: request.owner as u32,
            };
            self.held.insert(key, block);
            assert!(self.tables.block(key, block));
        }
    }

    /// One frame through both.
    fn judge(&mut self, number: u32, frame: &[u8]) {
        let now = Time::new(self.step, self.plane.clock().step_ns * UNITS_PER_NS);
        let verdict = self.tables.judge(&mut Slice(frame), now);
        let (action, reason) = (verdict.outcome.action(), verdict.outcome.reason());
        let expected = match action {
            Action::Pass | Action::WouldDrop => 2,
            Action::Drop => 1,
        };
        let met = self.plane.test_run(frame, 1).unwrap().action;
        assert_eq!(
            met, expected,
            "frame {number} at step {}: {action:?} {reason:?}, limit {}\n{frame:02x?}",
            self.step, verdict.limit
        );
    }

    /// Counters and sources are the same on both sides.
    fn compare(&self, frames: u32) {
        let mut kernel: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for counter in self.plane.counters().unwrap() {
            let key = (counter.limit, outcome(counter.outcome));
            assert!(
                kernel
                    .insert(key, (counter.packets, counter.bytes))
                    .is_none()
            );
        }
        let memory = self.tables.tallies().iter().map(|((limit, out), tally)| {
            let name = self.slots.name(*limit as usize);
            assert!(name.is_some() || *limit == NO_LIMIT);
            let key = (name.map(str::to_owned), outcome(*out));
            (key, (tally.packets, tally.bytes))
        });
        assert_eq!(kernel, memory.collect(), "after {frames} frames");
    }

    fn compare_sources(&self) {
        let kernel: BTreeSet<_> = (self.plane.sources().unwrap().into_iter())
            .map(|source| (source.source, source.limit, source.passed, source.dropped))
            .collect();
        let edge = &self.policy.edge;
        let memory: BTreeSet<_> = (self.tables.sources().into_iter())
            .map(|count| {
                let address = count.source.address();
                let prefix = match address.family {
                    limiter_common::address::Family::Ipv4 => edge.ipv4_prefix,
                    limiter_common::address::Family::Ipv6 => edge.ipv6_prefix,
                };
                let source = network(address, prefix.into());
                let name = self.slots.name(count.limit as usize).unwrap();
                (source, name.to_owned(), count.passed, count.dropped)
            })
            .collect();
        let only = |a: &BTreeSet<_>, b| a.difference(b).take(5).cloned().collect::<Vec<_>>();
        assert_eq!(only(&kernel, &memory), only(&memory, &kernel));
    }

    /// Fails unless every reason there can be came up.
    fn assert_covered(&self, absent: &[Reason]) {
        let seen: BTreeSet<_> = (self.tables.tallies().keys())
            .map(|(_, outcome)| outcome.reason())
            .collect();
        for reason in Reason::ALL {
            let expected = !absent.contains(&reason);
            assert_eq!(seen.contains(&reason), expected, "{reason:?}");
        }
    }
}

fn compile(policy: &Policy, slots: &mut Slots, plane: &DataPlane) -> Image {
    let edge = &policy.edge;
    Image::compile(
        policy,
        &edge.allow,
        &edge.deny,
        slots,
        plane.clock().step_ns,
    )
    .unwrap()
}

fn outcome(outcome: Outcome) -> (&'static str, Reason) {
    (outcome.action().name(), outcome.reason())
}

/// What the trace is like for a while.
struct Weather {
    senders: Senders,
    /// Time moves once in so many packets, and by up to so many steps.
    moves: (u64, u64),
    /// All packets of the same few frames, as a flood is.
    flood: Option<Vec<Vec<u8>>>,
}

impl Weather {
    fn new(random: &mut Random) -> Self {
        let senders = Senders {
            hosts: random.of(&[3, 8, 8, 50, 20_000]),
            special: random.of(&[4, 10, 10, 100]),
        };
        let flood = random
            .once_in(4)
            .then(|| (0..3).map(|_| frame(random, senders)).collect());
        Self {
            senders,
            moves: random.of(&[(4, 3), (20, 10), (200, 2), (50, 500), (1_000, 20_000)]),
            flood,
        }
    }

    fn frame(&self, random: &mut Random) -> Vec<u8> {
        match &self.flood {
            Some(frames) if !random.once_in(8) => {
                frames[random.below(frames.len() as u64) as usize].clone()
            }
            _ => frame(random, self.senders),
        }
    }
}

/// Blocks of networks and sources, plain and confined, short and long.
fn blocks(random: &mut Random, limits: &[&str]) -> Vec<BlockRequest> {
    const NETWORKS: [&str; 8] = [
        "172.16.0.1/32",
        "172.16.0.0/31",
        "172.16.12.0/22",
        "10.9.0.7/32",
        "2001:db8:8000:1::/64",
        "2001:db8:8000:2::1/128",
        "2001:db8:8000:8::/61",
        "2001:db8:b::/48",
    ];
    (0..1 + random.below(4))
        .map(|_| BlockRequest {
            network: random.of(&NETWORKS).parse().unwrap(),
            lasting: Some(Duration::from_millis({
                let longest = random.of(&[40, 40, 40, 3_000]);
                1 + random.below(longest)
            })),
            owner: random.of(&[Owner::Operator, Owner::Rule]),
            limit: random.once_in(2).then(|| random.of(limits).to_owned()),
        })
        .collect()
}

/// One trace. `cpus`: on which packets arrive; `reloads`: policies that take
/// turns.
fn trace(seed: u64, cpus: &[u32], first: &str, reloads: &[&str], limits: &[&str]) -> Pair {
    let mut random = Random(seed);
    let mut pair = Pair::new(first, cpus);
    pair.run_on(cpus[0]);
    let mut weather = Weather::new(&mut random);
    for number in 0..FRAMES {
        if random.once_in(1_500) {
            weather = Weather::new(&mut random);
        }
        if random.once_in(weather.moves.0) {
            let steps = 1 + random.below(weather.moves.1);
            pair.set_step(pair.step + steps);
        }
        if random.once_in(100) {
            pair.block(&blocks(&mut random, limits));
        }
        if cpus.len() > 1 && random.once_in(5) {
            pair.run_on(random.of(cpus));
        }
        if !reloads.is_empty() && random.once_in(2_000) {
            pair.reload(random.of(reloads));
        }
        pair.judge(number, &weather.frame(&mut random));
        if number % CHECK_EVERY == 0 {
            pair.compare(number + 1);
        }
    }
    pair.compare(FRAMES);
    pair.compare_sources();
    pair
}

const LIMITS: [&str; 4] = ["https", "web", "dns", "rest"];

#[test]
fn an_enforced_policy_on_one_cpu() {
    let pair = trace(1, &allowed_cpus()[..1], ENFORCED, &[], &LIMITS);
    pair.assert_covered(&[]);
}

#[test]
fn reloads_and_packets_on_all_cpus() {
    let reloaded = reloaded();
    let dry = ENFORCED.replace("unparsed = ", "enforce = false\nunparsed = ");
    let reloads = [ENFORCED, &reloaded, &dry];
    let pair = trace(2, &allowed_cpus(), ENFORCED, &reloads, &LIMITS);
    pair.assert_covered(&[]);
}

#[test]
fn a_dry_run_with_wide_sources() {
    let pair = trace(3, &allowed_cpus(), DRY_RUN, &[], &["https", "all"]);
    // Control traffic is limited, and the limit `all` matches everything.
    // No ceiling, and new sources are few.
    pair.assert_covered(&[
        Reason::Neighbour,
        Reason::Control,
        Reason::Total,
        Reason::UnknownSource,
        Reason::NoLimit,
    ]);
}

/// The CPUs that this thread may run on.
fn allowed_cpus() -> Vec<u32> {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of the size given.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    (0..1_024)
        // SAFETY: below the 1,024 CPUs of a set.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu as usize, &set) })
        .collect()
}

/// Runs this thread on `cpu` from now on.
fn pin(cpu: u32) {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: below the 1,024 CPUs of a set.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: a set of the size given.
    let status = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}
