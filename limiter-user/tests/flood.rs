//! Floods of new sources, simulated: the packet path itself over tables in
//! memory, on a clock of the test's own.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test: what goes wrong is to be seen at once"
)]

use limiter_common::{
    packet::Slice,
    time::{Time, UNITS_PER_NS},
    verdict::Action,
};
use limiter_user::{
    image::{Image, Slots},
    policy::{NoFiles, parse},
    replay::MemoryTables,
};

const STEP_NS: u64 = 4_000_000;
const STEPS_PER_SECOND: u64 = 1_000_000_000 / STEP_NS;
const SECONDS: u64 = 20;
/// Packets of the attack in a step: 20,000 a second, 200 times what is let in.
const ATTACK: u64 = 80;

/// A hundredth of the defaults.
const POLICY: &str = r#"
[edge]
sources = 2048
[edge.tables]
recent = 40_000
[edge.flood]
new_sources = "100/s"
unknown = { packets = "2000/s", connections = "200/s" }
[[edge.limit]]
name = "web"
protocol = "tcp"
ports = [443]
packets = "1000/s"
connections = "100/s"
"#;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// xorshift64*, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// Who attacks.
#[derive(Clone, Copy)]
enum Sources {
    /// Any address: none comes twice.
    Spoofed,
    /// So many, more than the table of sources holds.
    Botnet(u32),
    /// All of one /24.
    Neighbours,
}

struct Site {
    tables: MemoryTables,
    step: u64,
}

impl Site {
    fn new() -> Self {
        let policy = parse("limiter.toml", POLICY, &NoFiles);
        let policy = policy.unwrap_or_else(|fault| panic!("{fault}")).policy;
        let image = Image::compile(&policy, &[], &[], &mut Slots::default(), STEP_NS).unwrap();
        Self {
            tables: MemoryTables::new(image, &policy.edge, 1),
            step: 1_000_000,
        }
    }

    /// Whether a packet of `source` passes.
    fn passes(&mut self, source: u32, flags: u8) -> bool {
        let now = Time::new(self.step, STEP_NS * UNITS_PER_NS);
        let frame = frame(source, flags);
        let verdict = self.tables.judge(&mut Slice(&frame), now);
        verdict.outcome.action() == Action::Pass
    }
}

fn frame(source: u32, flags: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(source.to_be_bytes());
    frame.extend([192, 0, 2, 1]);
    frame.extend([0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame
}

/// A client that wants to connect: when it began, and whether it did.
struct Client {
    source: u32,
    began: u64,
    connected: bool,
}

impl Client {
    /// Sends its SYN at once and after one, two and three seconds.
    fn is_due(&self, step: u64) -> bool {
        let age = step - self.began;
        !self.connected && age <= 3 * STEPS_PER_SECOND && age.is_multiple_of(STEPS_PER_SECOND)
    }
}

/// Shares, in percent.
struct Outcome {
    /// Of the packets of known sources, those that passed.
    known: f64,
    /// Of the new clients, those that got in.
    new: f64,
    /// Of the attack, what passed.
    attack: f64,
}

fn simulate(sources: Sources, flags: u8) -> Outcome {
    let mut site = Site::new();
    let mut random = Random(0x5eed);
    let known: Vec<u32> = (0..50).map(|host| 0x0a00_0001 + (host << 8)).collect();
    for source in &known {
        assert!(site.passes(*source, SYN));
    }
    let (mut sent, mut passed) = ([0_u64; 2], [0_u64; 2]);
    let mut clients: Vec<Client> = Vec::new();
    for tick in 0..SECONDS * STEPS_PER_SECOND {
        site.step += 1;
        for _ in 0..ATTACK {
            let source = match sources {
                Sources::Spoofed => random.word(),
                Sources::Botnet(count) => 0x3000_0000 + (random.word() % count) * 64,
                Sources::Neighbours => 0x3000_0000 + (random.word() & 255),
            };
            sent[0] += 1;
            passed[0] += u64::from(site.passes(source, flags));
        }
        // Each known source sends ten packets a second.
        let turn = usize::try_from(tick % 25).unwrap();
        for source in known.iter().skip(turn).step_by(25) {
            sent[1] += 1;
            passed[1] += u64::from(site.passes(*source, ACK));
        }
        // Four new clients a second, but none too late to see how it ends.
        if tick.is_multiple_of(STEPS_PER_SECOND / 4) && tick < (SECONDS - 4) * STEPS_PER_SECOND {
            clients.push(Client {
                source: 0x5000_0000 + u32::try_from(tick).unwrap() * 256,
                began: site.step,
                connected: false,
            });
        }
        let step = site.step;
        for client in clients.iter_mut().filter(|client| client.is_due(step)) {
            client.connected = site.passes(client.source, SYN);
        }
    }
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
    let connected = clients.iter().filter(|client| client.connected).count();
    Outcome {
        known: percent(passed[1], sent[1]),
        new: percent(connected as u64, clients.len() as u64),
        attack: percent(passed[0], sent[0]),
    }
}

/// 200 connections or 2,000 packets and 100 new sources a second, and what was
/// let in before admission came on.
fn is_held(outcome: &Outcome, flags: u8) -> bool {
    let ceiling = if flags == SYN { 1.0 } else { 10.0 };
    outcome.attack < ceiling + 2.5
}

#[test]
fn spoofed_sources() {
    for flags in [ACK, SYN] {
        let outcome = simulate(Sources::Spoofed, flags);
        assert!(outcome.known > 99.9, "{}", outcome.known);
        assert!(outcome.new > 95.0, "{}", outcome.new);
        assert!(is_held(&outcome, flags), "{}", outcome.attack);
    }
}

/// Every bot was seen before, so those that are admitted are a matter of
/// chance; what is already known stays so, and the other kind of packet gets
/// through.
#[test]
fn a_botnet_larger_than_the_table() {
    let outcome = simulate(Sources::Botnet(8_000), ACK);
    assert!(outcome.known > 99.9, "{}", outcome.known);
    assert!(outcome.new > 95.0, "{}", outcome.new);
    let outcome = simulate(Sources::Botnet(8_000), SYN);
    assert!(outcome.known > 99.9, "{}", outcome.known);
}

/// One network cannot use up what all unknown sources share.
#[test]
fn a_flood_out_of_one_network() {
    for flags in [ACK, SYN] {
        let outcome = simulate(Sources::Neighbours, flags);
        assert!(outcome.known > 99.9, "{}", outcome.known);
        assert!(outcome.new > 95.0, "{}", outcome.new);
    }
}

/// A flood of more sources than are remembered makes it forget a client
/// between its two SYNs.
#[test]
fn the_oldest_is_forgotten() {
    const CLIENT: u32 = 0x5000_0001;
    for (between, is_remembered) in [(20_000, true), (400_000, false)] {
        let mut site = Site::new();
        let mut random = Random(0x5eed);
        let mut spoof = |site: &mut Site, count| {
            for _ in 0..count {
                let _passes = site.passes(random.word(), SYN);
            }
        };
        // Until the ceiling is reached.
        spoof(&mut site, 1_000);
        assert!(!site.passes(CLIENT, SYN));
        spoof(&mut site, between);
        assert_eq!(site.passes(CLIENT, SYN), is_remembered, "{between}");
    }
}

/// Once nothing is left to give in a clock step, the table is not even asked for
/// strangers; but it is for who is in it, silent or not, while others come in.
#[test]
fn a_silent_client_is_known_when_strangers_are_not_looked_up() {
    let mut site = Site::new();
    let client = 10 << 24 | 7;
    assert!(site.passes(client, ACK));
    // Half a table of others, as many as get in without more ado.
    for other in 0..1_000 {
        site.step += STEPS_PER_SECOND / 50;
        assert!(site.passes(20 << 24 | other, ACK));
    }
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut count = 20_000;
    for _ in 0..STEPS_PER_SECOND {
        site.step += 1;
        let passed = (0..count).filter(|_| site.passes(random.word() | 1 << 31, ACK));
        assert!(passed.count() < count);
        count = 2_000;
        assert!(!site.passes(random.word() | 1 << 31, ACK));
        assert!(site.passes(client, ACK));
        assert!(site.passes((20 << 24) + random.word() % 1_000, ACK));
    }
}
