//! A source has one budget over all interfaces and CPUs; and interfaces come
//! and go.

use crate::site::{Counts, LATE, QUIET, Site, limit, row, udp};
use limiter_tests::{
    cpu,
    flood::{self, Bounds, Flood, Sources},
    netns,
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use std::sync::atomic::{AtomicBool, Ordering};

const FRAMES: u64 = 20_000;

/// Floods from the same three sources through `pair`, from one CPU.
fn flood(site: &Site, pair: &Veth, cpu: usize) -> u64 {
    cpu::pin(cpu).unwrap();
    let mut frame = site.frame("198.51.100.1", udp(7_777));
    frame.source_mac = pair.left.mac;
    frame.destination_mac = pair.right.mac;
    let sources = Sources::Listed(vec![0xc633_6401, 0xc633_6402, 0xc633_6403]);
    let bounds = Bounds {
        frames: FRAMES,
        at_most: wait::SOON * 3,
        per_second: flood::GENTLY,
    };
    let flood = Flood::new(&frame.build(), &sources).unwrap();
    flood.send(&pair.left, bounds).unwrap()
}

#[test]
fn two_interfaces_and_cpus_share_one_budget() {
    let options = [1, 2].map(|number| Options {
        number,
        queues: 2,
        ..QUIET
    });
    let bulk = limit(
        "bulk",
        "udp",
        7_777,
        "packets = { rate = \"1/h\", burst = 1000 }",
    );
    let site = Site::with(&options, "native", &bulk);
    let last = cpu::count().unwrap() - 1;
    let shared = &site;
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let floods: Vec<_> = [0, last]
            .into_iter()
            .flat_map(|cpu| site.pairs.iter().map(move |pair| (pair, cpu)))
            .map(|(pair, cpu)| scope.spawn(move || flood(shared, pair, cpu)))
            .collect();
        floods.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let counts = site.counts_by_interface();
    let of = |name| -> Vec<u64> { counts.iter().map(|it: &Counts| row(it, name)).collect() };
    let (passed, dropped) = (of("bulk pass limit -"), of("bulk drop limit packets"));
    assert_eq!(passed.iter().sum::<u64>(), 3_000, "{passed:?}");
    // Two floods went through each interface; some of their frames may have
    // found its ring full.
    for (index, through) in [[0, 2], [1, 3]].into_iter().enumerate() {
        let sent: u64 = through.map(|flood| sent[flood]).iter().sum();
        let arrived = passed[index] + dropped[index];
        assert!((FRAMES..=sent).contains(&arrived), "{arrived} of {sent}");
    }
    let sources = site.daemon.json(&["sources"]).unwrap();
    assert_eq!(sources["total"], 3);
    for source in sources["sources"].as_array().unwrap() {
        assert_eq!(source["passed"], 1_000, "{sources}");
    }
}

const DENIED: &str = "198.51.100.1";

/// A site with two pairs whose server denies [`DENIED`].
fn denying() -> Site {
    let options = [1, 2].map(|number| Options { number, ..QUIET });
    Site::with(&options, "native", &deny())
}

fn deny() -> String {
    let limit = limit("all", "udp", 1_000, "packets = \"1000000/s\"");
    format!("deny = [{DENIED:?}]\n{limit}")
}

/// Waits until the interface is in this state, by `status` and by the metrics.
fn until(site: &Site, name: &str, state: &str) {
    let what = format!("{name} to be {state}");
    wait::until(&what, LATE, || {
        let status = site.daemon.json(&["status"])?;
        let rows = status["interfaces"].as_array().unwrap().iter();
        let found = rows.clone().find(|row| row["interface"] == name);
        Ok(found.is_some_and(|row| row["state"] == state).then_some(()))
    })
    .unwrap();
    let address = site.daemon.json(&["status"]).unwrap();
    let address = format!("http://{}/metrics", address["metrics"].as_str().unwrap());
    let text = site.server().output("curl", &["-sf", &address]).unwrap();
    let value = |metric: &str| {
        let start = format!("{metric}{{interface=\"{name}\"");
        let line = text.lines().find(|line| line.starts_with(&start)).unwrap();
        line.ends_with(" 1")
    };
    let is_attached = matches!(state, "attached" | "down");
    assert_eq!(value("limiter_interface_attached"), is_attached, "{text}");
    assert_eq!(value("limiter_interface_up"), state == "attached", "{text}");
}

/// Packets that were denied at an interface of this name.
fn denied(site: &Site, name: &str) -> u64 {
    let stats = site.daemon.json(&["stats"]).unwrap();
    let rows = stats["counters"].as_array().unwrap().iter();
    rows.filter(|row| row["interface"] == name && row["reason"] == "deny")
        .map(|row| row["packets"].as_u64().unwrap())
        .sum()
}

/// Sends one packet of [`DENIED`] through a pair, which is denied at the
/// interface of this name.
fn assert_guarded(site: &Site, pair: &Veth, name: &str) {
    let before = denied(site, name);
    let mut frame = site.frame(DENIED, udp(1_000));
    frame.source_mac = pair.left.mac;
    frame.destination_mac = pair.right.mac;
    let frame = frame.build();
    let sender = Sender::new(&pair.left).unwrap();
    wait::until("the packet", LATE, || {
        // The carrier may be a moment behind.
        let _lost = sender.send(&frame);
        Ok((denied(site, name) > before).then_some(()))
    })
    .unwrap();
}

fn again(site: &Site) -> Veth {
    Veth::new(site.client(), site.server(), QUIET).unwrap()
}

#[test]
fn an_interface_that_vanishes_is_missed_and_guarded_when_it_is_back() {
    let site = denying();
    let name = site.pairs[0].right.name.clone();
    assert_guarded(&site, &site.pairs[0], &name);
    let before = site.counts_by_interface();
    let before = row(&before[0], "- drop deny -");
    site.server().ip(&format!("link del {name}")).unwrap();
    until(&site, &name, "missing");
    assert_eq!(denied(&site, &name), before, "what was counted stays");
    // The other one is guarded meanwhile, and a reload works.
    let other = &site.pairs[1];
    site.daemon.ask(&["reload"]).unwrap();
    assert_guarded(&site, other, &other.right.name);
    let told = site.daemon.ask(&["status"]).unwrap();
    assert!(told.contains("attached to when it is back"), "{told}");

    let pair = again(&site);
    until(&site, &name, "attached");
    assert_guarded(&site, &pair, &name);
    assert!(denied(&site, &name) > before);
}

#[test]
fn an_interface_that_is_renamed_or_down_keeps_the_program() {
    let site = denying();
    let (pair, other) = (&site.pairs[0], &site.pairs[1]);
    let name = &pair.right.name;
    assert_guarded(&site, pair, name);
    site.server().ip(&format!("link set {name} down")).unwrap();
    until(&site, name, "down");
    site.server()
        .ip(&format!("link set {name} name wan\nlink set wan up"))
        .unwrap();
    until(&site, "wan", "attached");
    assert_guarded(&site, pair, "wan");
    // The policy means one of the old name, which there is none of.
    until(&site, name, "missing");
    // Somebody pulls the cable.
    let client = &other.left;
    client
        .namespace
        .ip(&format!("link set {} down", client.name))
        .unwrap();
    until(&site, &other.right.name, "down");
    client
        .namespace
        .ip(&format!("link set {} up", client.name))
        .unwrap();
    until(&site, &other.right.name, "attached");
    site.server()
        .ip(&format!(
            "link set wan down\nlink set wan name {name}\nlink set {name} up"
        ))
        .unwrap();
    until(&site, name, "attached");
    assert_guarded(&site, pair, name);
}

/// More of them than there are counters for at once, one after the other.
#[test]
fn what_a_glob_means_is_guarded_as_it_comes() {
    let site = Site::new("native", &deny());
    let text = "[edge]\ninterfaces = [\"veth*\"]\nmode = \"native\"\n";
    let text = format!("{text}{}", deny());
    site.daemon.write_policy(&text).unwrap();
    site.daemon.ask(&["reload"]).unwrap();
    for number in 10..30 {
        let options = Options { number, ..QUIET };
        let pair = Veth::new(site.client(), site.server(), options).unwrap();
        let name = &pair.right.name;
        until(&site, name, "attached");
        assert_guarded(&site, &pair, name);
        site.server().ip(&format!("link del {name}")).unwrap();
    }
    let name = &site.pairs[0].right.name;
    site.daemon.ask(&["detach", name]).unwrap();
    let options = Options {
        number: 50,
        ..QUIET
    };
    let pair = Veth::new(site.client(), site.server(), options).unwrap();
    until(&site, &pair.right.name, "attached");
    // The operator's word stands while others come.
    until(&site, name, "detached");
    site.daemon.ask(&["reload"]).unwrap();
    until(&site, name, "attached");
}

/// By the recipe of `docs/rescue.md`.
#[test]
fn what_somebody_else_takes_off_is_told_and_left() {
    let site = Site::new("native", &deny());
    let (pair, name) = (&site.pairs[0], &site.pairs[0].right.name);
    assert_guarded(&site, pair, name);
    let links = format!("{}/links", netns::PINS);
    let pinned = site.server().output("ls", &[&links]).unwrap();
    let link = format!("{links}/{}", pinned.trim());
    let detach = ["link", "detach", "pinned", &link];
    site.server().output("bpftool", &detach).unwrap();
    until(&site, name, "detached");
    let log = site.daemon.log().unwrap();
    assert!(
        log.contains("somebody else has taken the program off"),
        "{log}"
    );
    site.daemon.ask(&["reload"]).unwrap();
    until(&site, name, "attached");
    assert_guarded(&site, pair, name);
}

/// The worst moments for an interface to go, by chance.
#[test]
fn interfaces_come_and_go_during_reloads() {
    let site = denying();
    let (name, other) = (&site.pairs[0].right.name, &site.pairs[1]);
    let policies = [deny(), deny().replace("1000000/s", "500000/s")];
    let texts = policies.map(|edge| site.policy("native", &edge));
    let over = AtomicBool::new(false);
    let mut frame = site.frame(DENIED, udp(1_000));
    frame.source_mac = other.left.mac;
    frame.destination_mac = other.right.mac;
    let frame = frame.build();
    let mut sent = 0;
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let sender = Sender::new(&other.left).unwrap();
            let mut sent = 0_u64;
            while !over.load(Ordering::Relaxed) {
                sender.send(&frame).unwrap();
                sent += 1;
            }
            sent
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::scope(|scope| {
                let changing = scope.spawn(|| {
                    for _ in 0..8 {
                        site.server().ip(&format!("link del {name}")).unwrap();
                        again(&site);
                    }
                });
                let mut reloads = 0;
                while !changing.is_finished() || reloads < 40 {
                    site.daemon.write_policy(&texts[reloads % 2]).unwrap();
                    // Whatever is there: the policy is put in force.
                    site.daemon.ask(&["reload"]).unwrap();
                    reloads += 1;
                }
            });
        }));
        over.store(true, Ordering::Relaxed);
        sent = traffic.join().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
    until(&site, name, "attached");
    assert_guarded(&site, &again_of(&site), name);
    // The interface beside it never was without the program.
    wait::until("all packets", LATE, || {
        Ok((denied(&site, &other.right.name) == sent).then_some(()))
    })
    .unwrap();
}

/// The pair that has the place of the first.
fn again_of(site: &Site) -> Veth {
    let name = &site.pairs[0].right.name;
    site.server().ip(&format!("link del {name}")).unwrap();
    let pair = again(site);
    until(site, name, "attached");
    pair
}
