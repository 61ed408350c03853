//! The loaded program, run by the kernel on frames of the harness.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use limiter_tests::{
    counter, cpu,
    flood::{self, Bounds, Flood, Sources},
    frames::{Extension, Frame, Upper},
    netns::Namespace,
    process::Scratch,
    veth::{self, Veth},
    wait,
};
use limiter_user::{
    dataplane::{DataPlane, Options},
    policy::{self, Mode},
};
use std::{net::IpAddr, time::Duration};

const UDP: Upper = Upper::Udp { from: 9, to: 7_777 };

fn load(text: &str, options: Options) -> DataPlane {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path("limiter.toml");
    std::fs::write(&file, text).unwrap();
    let loaded = policy::load(&file).unwrap();
    DataPlane::load(&loaded.policy, options).unwrap()
}

fn frame(source: &str, upper: Upper) -> Frame {
    let destination = if source.contains(':') {
        "2001:db8::1"
    } else {
        "192.0.2.1"
    };
    let parse = |text: &str| -> IpAddr { text.parse().unwrap() };
    Frame::new(parse(source), parse(destination), upper)
}

/// Packets counted for a reason, by action.
fn counted(plane: &DataPlane, reason: &str) -> [u64; 2] {
    let counters = plane.counters().unwrap();
    ["pass", "drop"].map(|action| {
        let ours = |outcome: limiter_common::verdict::Outcome| {
            outcome.reason().name() == reason && outcome.action().name() == action
        };
        let matching = counters.iter().filter(|counter| ours(counter.outcome));
        matching.map(|counter| counter.packets).sum()
    })
}

const LIMIT: &str = "[edge]\ninterfaces = [\"none0\"]\n[[edge.limit]]\nname = \"udp\"\n\
                     protocol = \"udp\"\npackets = { rate = \"1000/s\", burst = 100 }\n";

#[test]
fn a_burst_passes_and_then_the_rate() {
    let options = Options {
        test_clock: true,
        ..Options::default()
    };
    let mut plane = load(LIMIT, options);
    plane.set_test_step(1_000_000).unwrap();
    for source in ["198.51.100.1", "2001:db8:5::1"] {
        let bytes = frame(source, UDP).build();
        let before = counted(&plane, "limit");
        plane.test_run(&bytes, 150).unwrap();
        let after = counted(&plane, "limit");
        assert_eq!([after[0] - before[0], after[1] - before[1]], [100, 50]);
    }
}

/// A fragment whose second fragment header is atomic is no neighbour
/// discovery.
#[test]
fn a_fragment_is_not_taken_for_neighbour_discovery() {
    let plane = load(LIMIT, Options::default());
    let solicitation = Frame {
        hop_limit: 255,
        ..frame("2001:db8:5::1", Upper::Icmp(135, 0))
    };
    plane.test_run(&solicitation.build(), 1).unwrap();
    assert_eq!(counted(&plane, "neighbour"), [1, 0]);
    let mended = solicitation
        .extension(Extension::Fragment(0, true))
        .extension(Extension::Fragment(0, false));
    plane.test_run(&mended.build(), 1).unwrap();
    assert_eq!(counted(&plane, "neighbour"), [1, 0]);
    assert_eq!(counted(&plane, "no_limit"), [1, 0]);
}

/// Attached natively: of a flood from three sources each has its burst, and
/// every frame is counted once.
#[test]
fn a_flood_is_limited_by_source() {
    let [left, right] = [(); 2].map(|()| Namespace::new().unwrap());
    let options = veth::Options {
        number: 9,
        ipv6: false,
        ..veth::Options::default()
    };
    let pair = Veth::new(&left, &right, options).unwrap();
    let slow = LIMIT.replace("1000/s", "1/h");
    let mut plane = load(&slow, Options::default());
    right
        .run(|| plane.attach(&pair.right.name, Mode::Native))
        .unwrap();
    let template = Frame::new(pair.left.ipv4.into(), pair.right.ipv4.into(), UDP)
        .macs(pair.left.mac, pair.right.mac)
        .build();
    let sources = Sources::Range {
        first: 0xc633_6401,
        count: 3,
    };
    let bounds = Bounds {
        frames: 30_000,
        at_most: Duration::from_secs(20),
        per_second: flood::GENTLY,
    };
    let sent = Flood::new(&template, &sources)
        .unwrap()
        .send(&pair.left, bounds)
        .unwrap();
    assert_eq!(limited(&plane, &pair.right, sent), 300);
}

/// Waits until everything that the interface received is counted, as passed or
/// dropped by the limit; returns how much passed. On a loaded machine a flood
/// can find the pair's ring full: what is lost there nobody counts.
fn limited(plane: &DataPlane, end: &veth::End, sent: u64) -> u64 {
    let [passed, dropped] = wait::until("the counters", wait::SOON, || {
        let counts = counted(plane, "limit");
        let received = counter::traffic(end)?.received;
        Ok((received > 0 && counts[0] + counts[1] == received).then_some(counts))
    })
    .unwrap();
    assert!(passed + dropped <= sent && passed + dropped > sent / 4);
    passed
}

/// One source on two CPUs at once, each with a queue of its own.
#[test]
fn a_source_on_two_cpus_has_one_budget() {
    let [left, right] = [(); 2].map(|()| Namespace::new().unwrap());
    let options = veth::Options {
        number: 10,
        queues: 2,
        ipv6: false,
        ..veth::Options::default()
    };
    let pair = Veth::new(&left, &right, options).unwrap();
    let slow = LIMIT.replace("1000/s", "1/h").replace("100 }", "5000 }");
    let mut plane = load(&slow, Options::default());
    right
        .run(|| plane.attach(&pair.right.name, Mode::Native))
        .unwrap();
    let template = Frame::new(pair.left.ipv4.into(), pair.right.ipv4.into(), UDP)
        .macs(pair.left.mac, pair.right.mac)
        .build();
    let flood = |cpu| {
        cpu::pin(cpu).unwrap();
        let one = Sources::Listed(vec![0xc633_6401]);
        let bounds = Bounds {
            frames: 20_000,
            at_most: Duration::from_secs(20),
            per_second: flood::GENTLY,
        };
        Flood::new(&template, &one)
            .unwrap()
            .send(&pair.left, bounds)
            .unwrap()
    };
    let flood = &flood;
    let last = cpu::count().unwrap() - 1;
    let sent: u64 = std::thread::scope(|scope| {
        let floods = [0, last].map(|cpu| scope.spawn(move || flood(cpu)));
        floods.map(|flood| flood.join().unwrap()).iter().sum()
    });
    assert_eq!(limited(&plane, &pair.right, sent), 5_000);
    let driver = counter::driver(&pair.right).unwrap();
    let queues = [0, last % 2].map(|queue| driver[&format!("rx_queue_{queue}_xdp_packets")]);
    assert!(
        queues.iter().all(|&packets| packets >= 20_000),
        "{queues:?}"
    );
}
