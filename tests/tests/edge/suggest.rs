//! Limits suggested from real traffic of known rates.

use crate::site::{Site, limit, row, udp};
use serde_json::Value;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Between two packets of the busy source; the others send every tenth time.
const PACE: Duration = Duration::from_millis(5);
const MOST_PER_SECOND: u64 = 200;
const OTHERS: u32 = 9;

/// Sends at known rates while `work` is done; returns what it returns and the
/// packets a second that the busy source really sent.
fn under_traffic<T>(site: &Site, work: impl FnOnce() -> T) -> (T, f64) {
    let busy = site.frame("198.51.100.7", udp(1_000)).build();
    let others: Vec<Vec<u8>> = (1..=OTHERS)
        .map(|host| site.frame(&format!("192.0.2.{host}"), udp(1_000)).build())
        .collect();
    // On the allow list: no limit holds it.
    let allowed = site.frame("203.0.113.5", udp(1_000)).build();
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let sender = site.sender();
            while !over.load(Ordering::Relaxed) {
                let turn = sent.fetch_add(1, Ordering::Relaxed);
                sender.send(&busy).unwrap();
                for _ in 0..5 {
                    sender.send(&allowed).unwrap();
                }
                if turn.is_multiple_of(10) {
                    sender.send_all(others.iter().map(Vec::as_slice)).unwrap();
                }
                std::thread::sleep(PACE);
            }
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
        let rate = sent.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
        match worked {
            Ok(worked) => (worked, rate),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn edge(enforce: bool, name: &str, packets: &str) -> String {
    let lists = format!("enforce = {enforce}\nallow = [\"203.0.113.0/24\"]\n");
    lists + &limit(name, "udp", 1_000, packets)
}

#[test]
fn what_is_suggested_would_have_hurt_nobody() {
    let tight = "packets = { rate = \"1/s\", burst = 1 }";
    let site = Site::new("native", &edge(false, "tight", tight));
    let observe = || site.daemon.json(&["suggest", "--for", "4s"]).unwrap();
    let (seen, rate) = under_traffic(&site, observe);
    let tight = &seen["limits"][0];
    let figure = |value: &Value| value.as_u64().unwrap();
    assert_eq!(figure(&tight["sources"]), 1 + u64::from(OTHERS), "{seen}");
    assert_eq!(tight["busiest"], "198.51.100.7/32", "{seen}");
    // The sender never catches up: no interval holds more, but for the moment
    // between the daemon's look at the clock and that at the table.
    let max = figure(&tight["packets_per_second"]["max"]);
    let p50 = figure(&tight["packets_per_second"]["p50"]);
    assert!(max <= MOST_PER_SECOND * 3 / 2, "{seen}");
    assert!(max as f64 >= rate / 2.0, "{rate}/s: {seen}");
    assert!(p50 >= 1 && p50 <= max / 4, "{seen}");
    assert!(figure(&tight["refused"]["packets"]) > 0, "{seen}");
    assert!(figure(&seen["watched_ms"]) >= 4_000, "{seen}");
    assert!(figure(&seen["readings"]) >= 2, "{seen}");

    // Put in force, it refuses none of the same traffic. Under the old name the
    // buckets would begin as empty as the tight limit left them.
    let line = seen["suggestions"][0]["toml"].as_str().unwrap();
    let policy = site.policy("native", &edge(true, "fitting", line));
    site.daemon.write_policy(&policy).unwrap();
    site.daemon.ask(&["reload"]).unwrap();
    let dropped = || row(&site.counts(), "fitting drop limit packets");
    assert_eq!(dropped(), 0);
    let again = || site.daemon.ask(&["suggest", "--for", "2s"]).unwrap();
    let (text, _) = under_traffic(&site, again);
    assert_eq!(dropped(), 0, "{line}: {:?}", site.counts());
    for words in [
        "P99/S",
        "# limit fitting\npackets = { rate = ",
        "198.51.100.7",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn what_cannot_be_observed_is_refused() {
    let site = Site::new("native", "");
    for (arguments, status, words) in [
        (["suggest", "--for", "1s"], 1, "2s to 1h"),
        (
            ["suggest", "--for", "soon"],
            2,
            "does not start with a number",
        ),
    ] {
        let output = site.daemon.output(&arguments).unwrap();
        assert_eq!(output.status.code(), Some(status));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(words), "{errors}");
    }
}
