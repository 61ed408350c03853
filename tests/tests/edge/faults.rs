//! What a daemon has to survive, and what is left afterwards.

use crate::site::{LATE, Site, limit, row, rows, udp};
use limiter_tests::wait;
use std::{
    fs,
    time::{Duration, Instant},
};

const DENIED: &str = "203.0.113.7";
const GOOD: &str = "198.51.100.7";

fn policy() -> String {
    let generous = "packets = { rate = \"1000000/s\", burst = 1000000 }";
    format!(
        "deny = [\"{DENIED}\"]\n{}",
        limit("one", "udp", 1_000, generous)
    )
}

fn frames(site: &Site) -> Vec<Vec<u8>> {
    let frame = |source| site.frame(source, udp(1_000)).build();
    [DENIED, GOOD].map(frame).into()
}

/// Memory in use, in KiB, and open descriptors.
fn size(site: &Site) -> (u64, usize) {
    let process = format!("/proc/{}", site.daemon.id().unwrap());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = line.unwrap().trim().trim_end_matches(" kB");
    let descriptors = fs::read_dir(format!("{process}/fd")).unwrap().count();
    (memory.parse().unwrap(), descriptors)
}

/// The daemon hangs for ten seconds of traffic: packets are judged and counted
/// as before, and afterwards it answers, with nothing lost.
#[test]
fn ten_seconds_without_the_daemon() {
    let site = Site::new("native", &policy());
    let block = ["block", "add", "203.0.113.8", "--for", "4s"];
    site.daemon.ask(&block).unwrap();
    let rounds = site.send_while(&frames(&site), || {
        site.daemon.signal(libc::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_secs(10));
        site.daemon.signal(libc::SIGCONT).unwrap();
        site.daemon.ask(&["status"]).unwrap();
    });
    let expected = rows(&[("- drop deny -", rounds), ("one pass limit -", rounds)]);
    assert_eq!(site.packets(), expected);
    // It ended while nobody looked, and is tidied away.
    wait::until("the block to be gone", LATE, || {
        let listed = site.daemon.json(&["block", "list"])?;
        Ok((listed["blocks"] == serde_json::json!([])).then_some(()))
    })
    .unwrap();
}

/// Ten reloads a second for a minute, under traffic.
#[test]
fn a_minute_of_reloads() {
    const EVERY: Duration = Duration::from_millis(100);
    let site = Site::new("native", &policy());
    let more = policy().replace("deny = [", "deny = [\"192.0.2.0/24\", ");
    let texts = [policy(), more].map(|edge| site.policy("native", &edge));
    let reload = |number: usize| {
        site.daemon.write_policy(&texts[number % 2]).unwrap();
        site.daemon.ask(&["reload"]).unwrap();
    };
    (0..20).for_each(reload);
    let before = size(&site);
    let mut reloads = 0;
    let rounds = site.send_while(&frames(&site), || {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            reload(reloads);
            reloads += 1;
            let due = EVERY * u32::try_from(reloads).unwrap();
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    });
    let after = size(&site);
    println!("{reloads} reloads, {rounds} rounds, {before:?} and {after:?}");
    // A loaded machine makes fewer.
    assert!(reloads >= 60, "{reloads} reloads");
    let expected = rows(&[("- drop deny -", rounds), ("one pass limit -", rounds)]);
    assert_eq!(site.packets(), expected);
    assert!(after.0 < before.0 + 16_384, "{before:?} {after:?}");
    assert!(after.1 <= before.1 + 2, "{before:?} {after:?}");
}

/// The kernel fills its own quota of blocks, and nobody else's; lists that are
/// full refuse more, and hold what they have.
#[test]
fn full_tables_refuse_and_hold() {
    let strict = "packets = { rate = \"1/h\", burst = 1 }\nexceed = { block = \"10m\" }";
    let tables =
        "[edge.tables]\nblocks_operator = 4\nblocks_rule = 4\nblocks_kernel = 16\nlists = 10\n";
    let edge = format!(
        "allow = [\"192.0.2.0/28\"]\n{tables}{}",
        limit("strict", "udp", 2_000, strict)
    );
    let site = Site::new("native", &edge);
    let source = |number: u32| format!("10.9.{}.{}", number / 250, number % 250 + 1);
    let flood: Vec<Vec<u8>> = (0..500)
        .flat_map(|number| {
            let frame = site.frame(&source(number), udp(2_000)).build();
            [frame.clone(), frame]
        })
        .collect();
    let frames = flood.iter().map(Vec::as_slice);
    site.sender().send_all(frames).unwrap();
    let owned = |owner: &str| {
        let status = site.daemon.json(&["status"]).unwrap();
        status["blocks"][owner].as_u64().unwrap()
    };
    wait::until("the kernel's quota to be full", LATE, || {
        Ok((owned("kernel") >= 8).then_some(()))
    })
    .unwrap();
    assert!(owned("kernel") <= 16);
    // There is room for the operator's all the same.
    let networks = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];
    for network in networks {
        site.daemon.ask(&["block", "add", network]).unwrap();
    }
    let one_more = site.daemon.output(&["block", "add", "203.0.113.5"]);
    assert_eq!(one_more.unwrap().status.code(), Some(1));
    assert_eq!(owned("operator"), 4);
    for list in ["allow", "deny"] {
        let mut added = 0;
        let refused = (0..20).find(|number| {
            let network = format!("198.18.{number}.0/24");
            let output = site.daemon.output(&[list, "add", &network]).unwrap();
            added += u32::from(output.status.success());
            !output.status.success()
        });
        assert!(refused.is_some(), "{list} has no end");
        let text = site.daemon.ask(&[list, "list"]).unwrap();
        assert_eq!(text.matches("198.18.").count(), added as usize, "{text}");
        // What was there goes on, and what goes makes room.
        if added > 0 {
            site.daemon.ask(&[list, "del", "198.18.0.0/24"]).unwrap();
        }
    }
    let before = site.counts();
    let blocked = site.frame(networks[0], udp(1_000)).build();
    let allowed = site.frame("192.0.2.1", udp(2_000)).build();
    let both = [blocked.as_slice(), &allowed, &allowed];
    site.sender().send_all(both).unwrap();
    let after = site.counts();
    let added = |name: &str| row(&after, name) - row(&before, name);
    assert_eq!([added("- drop block -"), added("- pass allow -")], [1, 2]);
}
