//! A flood, and a client that behaves.

use crate::site::{LATE, Site, limit, row, udp};
use limiter_tests::{
    clients,
    flood::{self, Bounds, Flood, Sources},
    frames::{SYN, Upper},
    servers::Nginx,
    wait,
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

const SOURCES: u32 = 300;
const FRAMES: u64 = 150_000;
/// So many must arrive.
const MANY: u64 = 100_000;
const BURST: u64 = 50;
const RATE: u64 = 10;

#[test]
fn a_flood_is_held_and_a_client_is_served() {
    let bulk = limit(
        "bulk",
        "udp",
        7_777,
        &format!("packets = {{ rate = \"{RATE}/s\", burst = {BURST} }}"),
    );
    let web = limit(
        "web",
        "tcp",
        80,
        "connections = { rate = \"100000/s\", burst = 100000 }",
    );
    let site = Site::new("native", &[bulk, web].concat());
    let pair = &site.pairs[0];
    let server = SocketAddr::new(pair.right.ipv4.into(), 80);
    let _nginx = Nginx::plain(site.server(), server).unwrap();
    let template = site.frame("198.51.100.1", udp(7_777)).build();
    let sources = Sources::Range {
        first: 0xc612_0001,
        count: SOURCES,
    };
    let bounds = Bounds {
        frames: FRAMES,
        at_most: LATE,
        per_second: flood::GENTLY,
    };
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let (sent, answered) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answered = 0_u64;
            while !over.load(Ordering::Relaxed) || answered < 20 {
                let answer = clients::get(site.client(), server, "/", LATE).unwrap();
                assert_eq!(answer.status, 200);
                answered += 1;
            }
            answered
        });
        let flood = Flood::new(&template, &sources).unwrap();
        let sent = flood.send(&pair.left, bounds);
        over.store(true, Ordering::Relaxed);
        (sent.unwrap(), client.join().unwrap())
    });
    assert_eq!(sent, FRAMES);
    let counts = site.counts();
    let elapsed = started.elapsed().as_secs() + 1;
    let passed = row(&counts, "bulk pass limit -");
    let dropped = row(&counts, "bulk drop limit packets");
    // Some find the receiver's ring full; what arrived was counted.
    assert!((MANY..=sent).contains(&(passed + dropped)), "{counts:?}");
    assert_eq!(row(&counts, "web drop limit connections"), 0, "{counts:?}");
    assert!(row(&counts, "web pass limit -") > 3 * answered);

    let shown = site.daemon.json(&["sources", "--count", "1000"]).unwrap();
    let tracked = shown["sources"].as_array().unwrap().iter();
    let flooding: Vec<[u64; 2]> = tracked
        .filter(|source| source["limit"] == "bulk")
        .map(|source| ["passed", "dropped"].map(|part| source[part].as_u64().unwrap()))
        .collect();
    assert_eq!(flooding.len(), SOURCES as usize);
    for [passed, dropped] in &flooding {
        assert!(passed + dropped <= FRAMES / u64::from(SOURCES));
        let held = BURST..=BURST + RATE * elapsed;
        assert!(held.contains(passed), "{passed} in {elapsed} s");
    }
    let sum = |part: usize| flooding.iter().map(|it| it[part]).sum::<u64>();
    assert_eq!([sum(0), sum(1)], [passed, dropped]);
}

/// Any address sends SYNs, more of them than may become known; somebody who
/// was known goes on as before, and somebody new gets in.
#[test]
fn a_flood_of_random_sources_shuts_nobody_out() {
    let web = limit("web", "tcp", 80, "connections = \"1000/s\"");
    let flood = "[edge.flood]\nnew_sources = \"200/s\"\n\
        unknown = { packets = \"1000/s\", connections = \"100/s\" }\n";
    let site = Site::new("native", &[flood, &web].concat());
    let pair = &site.pairs[0];
    let server = SocketAddr::new(pair.right.ipv4.into(), 80);
    let _nginx = Nginx::plain(site.server(), server).unwrap();
    let page = || {
        clients::get(site.client(), server, "/", LATE)
            .unwrap()
            .status
    };
    assert_eq!(page(), 200);
    let syn = Upper::Tcp {
        from: 40_000,
        to: 80,
        flags: SYN,
    };
    let template = site.frame("198.51.100.1", syn).build();
    let everybody = Sources::Random { first: 0, count: 0 };
    let bounds = Bounds {
        frames: u64::MAX,
        at_most: LATE,
        per_second: 50_000,
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attack = Flood::new(&template, &everybody).unwrap();
        let go = || !over.load(Ordering::Relaxed);
        let attack = scope.spawn(move || attack.send_while(&pair.left, bounds, go));
        let status = wait::until("admission", LATE, || {
            let status = site.daemon.json(&["status"])?;
            let told = status["flood"]["unknown_percent"].is_u64();
            Ok(told.then_some(status))
        });
        let status = status.unwrap();
        assert_eq!(status["flood"]["active"], true, "{status}");
        for _ in 0..20 {
            assert_eq!(page(), 200);
        }
        let (new, left) = ("10.1.0.77", &pair.left);
        let route = format!(
            "addr add {new}/24 dev {0}\nroute add {1} dev {0} src {new}",
            left.name, pair.right.ipv4
        );
        site.client().ip(&route).unwrap();
        assert_eq!(page(), 200);
        let shown = site.daemon.json(&["sources", "--count", "100000"]).unwrap();
        over.store(true, Ordering::Relaxed);
        attack.join().unwrap().unwrap();
        let known = shown["sources"].as_array().unwrap().iter();
        let mut known = known.filter_map(|source| source["source"].as_str());
        assert!(known.any(|source| source == "10.1.0.77/32"), "not known");
    });
    let counts = site.counts();
    assert!(
        row(&counts, "web drop unknown_source -") > 10_000,
        "{counts:?}"
    );
    assert_eq!(row(&counts, "web drop limit connections"), 0, "{counts:?}");
    wait::until("the end of admission", LATE, || {
        let status = site.daemon.json(&["status"])?;
        Ok((status["flood"]["active"] == false).then_some(()))
    })
    .unwrap();
    let log = site.daemon.log().unwrap();
    for line in ["admission is on", "admission is off"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}
