//! The program outlasts the daemon: what one leaves the next takes over, and no
//! packet passes unseen.

use crate::site::{LATE, Site, limit, row, rows, udp};
use limiter_common::layout::LAYOUT_VERSION;
use limiter_tests::{netns::PINS, wait};
use std::time::Duration;

const DENIED: &str = "203.0.113.7";
const BLOCKED: &str = "203.0.113.8";
const LIMITED: &str = "203.0.113.9";

/// Denies one source, and lets each of the others have five packets an hour.
fn policy() -> String {
    let five = "packets = { rate = \"1/h\", burst = 5 }";
    format!(
        "deny = [\"{DENIED}\"]\n{}",
        limit("one", "udp", 1_000, five)
    )
}

fn frames(site: &Site) -> Vec<Vec<u8>> {
    let frame = |source| site.frame(source, udp(1_000)).build();
    [DENIED, BLOCKED, LIMITED].map(frame).into()
}

/// The XDP program on the server's interface, if there is one.
fn program(site: &Site) -> Option<u64> {
    let end = &site.pairs[0].right;
    let shown = site.server().ip(&format!("link show dev {}", end.name));
    let shown: serde_json::Value = serde_json::from_str(&shown.unwrap()).unwrap();
    shown[0]["xdp"]["prog"]["id"].as_u64()
}

/// Runs a command in the server's namespaces.
fn inside(site: &Site, program: &str, arguments: &[&str]) -> String {
    site.server().output(program, arguments).unwrap()
}

/// Every packet that the interface received was counted by limiter, so that none
/// came while no program was there; and each met what it would have met without
/// any restart.
#[test]
fn restarts_under_traffic_lose_no_packet_and_no_block() {
    for mode in ["native", "generic"] {
        let site = Site::new(mode, &policy());
        let add = ["block", "add", BLOCKED, "--for", "1h", "--reason", "tests"];
        site.daemon.ask(&add).unwrap();
        let frames = frames(&site);
        let first = program(&site).unwrap();
        let daemon = &site.daemon;
        let rounds = site.send_while(&frames, || {
            for round in 0..10 {
                if round % 2 == 0 {
                    daemon.kill().unwrap();
                } else {
                    assert!(daemon.stop().unwrap().success());
                }
                daemon.launch().unwrap();
                assert!(daemon.log().unwrap().contains("took over"));
            }
        });
        assert_ne!(program(&site).unwrap(), first, "the program is not another");
        let expected = rows(&[
            ("- drop deny -", rounds),
            ("- drop block -", rounds),
            ("one pass limit -", 5),
            ("one drop limit packets", rounds - 5),
        ]);
        assert_eq!(site.packets(), expected, "{mode}");
        let blocks = site.daemon.json(&["block", "list"]).unwrap();
        let left = blocks["blocks"][0]["remaining_seconds"].as_u64().unwrap();
        assert!((3_000..=3_600).contains(&left), "{blocks}");
    }
}

/// Killed at any point of a start, a reload and a stop: what is at work stays at
/// work, and the next daemon finds everything.
#[test]
fn kills_at_random_points_change_nothing() {
    let site = Site::new("native", &policy());
    let daemon = &site.daemon;
    let add = ["block", "add", BLOCKED, "--for", "1h", "--reason", "tests"];
    daemon.ask(&add).unwrap();
    daemon.ask(&["deny", "add", "198.18.0.0/15"]).unwrap();
    // Other lists, the same limits.
    let more = policy().replace("deny = [", "deny = [\"192.0.2.0/24\", ");
    let policies = [policy(), more].map(|edge| site.policy("native", &edge));
    let mut random = Random(0x2026_1122);
    let rounds = site.send_while(&frames(&site), || {
        for round in 0..21 {
            let policy = &policies[round / 3 % 2];
            match round % 3 {
                0 => {
                    daemon.kill().unwrap();
                    daemon.begin().unwrap();
                    random.pause(Duration::from_millis(1_500));
                    daemon.kill().unwrap();
                    assert!(program(&site).is_some(), "round {round}: detached");
                    daemon.launch().unwrap();
                }
                1 => {
                    daemon.write_policy(policy).unwrap();
                    daemon.signal(libc::SIGHUP).unwrap();
                    random.pause(Duration::from_millis(40));
                    daemon.kill().unwrap();
                    daemon.launch().unwrap();
                }
                _ => {
                    daemon.signal(libc::SIGTERM).unwrap();
                    random.pause(Duration::from_millis(250));
                    daemon.kill().unwrap();
                    daemon.launch().unwrap();
                }
            }
        }
    });
    let expected = rows(&[
        ("- drop deny -", rounds),
        ("- drop block -", rounds),
        ("one pass limit -", 5),
        ("one drop limit packets", rounds - 5),
    ]);
    assert_eq!(site.packets(), expected);
    let blocks = daemon.json(&["block", "list"]).unwrap();
    assert_eq!(blocks["blocks"][0]["reason"], "tests", "{blocks}");
    let denied = daemon.ask(&["deny", "list"]).unwrap();
    assert!(denied.contains("198.18.0.0/15"), "{denied}");
    // One set, one link.
    let found = inside(
        &site,
        "find",
        &[PINS, "-mindepth", "1", "-maxdepth", "1", "-type", "d"],
    );
    assert_eq!(found.lines().count(), 2, "{found}");
}

/// Numbers that are the same in each run (Marsaglia, "Xorshift RNGs").
struct Random(u64);

impl Random {
    /// Lets up to so much time go by.
    fn pause(&mut self, most: Duration) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let part = self.0 % 1_000;
        std::thread::sleep(most.mul_f64(part as f64 / 1_000.0));
    }
}

/// Tables of another size take over what goes into them.
#[test]
fn other_sizes_keep_blocks_and_counters() {
    let site = Site::new("native", &policy());
    let daemon = &site.daemon;
    let add = ["block", "add", BLOCKED, "--for", "1h", "--reason", "tests"];
    daemon.ask(&add).unwrap();
    let larger = format!("sources = 4096\n{}", policy());
    let rounds = site.send_while(&frames(&site), || {
        for edge in [&larger, &policy()] {
            let text = site.policy("native", edge);
            daemon.write_policy(&text).unwrap();
            daemon.kill().unwrap();
            daemon.launch().unwrap();
            let log = daemon.log().unwrap();
            assert!(
                log.contains("made anew") && log.contains("ENTRIES"),
                "{log}"
            );
        }
    });
    let counts = site.counts();
    assert_eq!(row(&counts, "- drop deny -"), rounds);
    assert_eq!(row(&counts, "- drop block -"), rounds);
    // The buckets are full, twice.
    let passed = row(&counts, "one pass limit -");
    assert!((5..=15).contains(&passed), "{counts:?}");
    let blocks = daemon.json(&["block", "list"]).unwrap();
    assert_eq!(blocks["blocks"][0]["reason"], "tests", "{blocks}");
    let sets = inside(&site, "find", &[PINS, "-maxdepth", "1", "-name", "set_*"]);
    assert_eq!(sets.trim(), format!("{PINS}/set_3"));
}

/// Changes the layout version that is written down for the tables of a site.
fn change_layout(site: &Site) {
    let map = ["map", "lookup", "pinned", &format!("{PINS}/set_1/META")].map(str::to_owned);
    let key = ["key", "0", "0", "0", "0"].map(str::to_owned);
    let bpftool = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        inside(site, "bpftool", &arguments)
    };
    let shown = bpftool(&[&["--json".to_owned()][..], &map, &key].concat());
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let bytes = shown["value"].as_array().unwrap().iter();
    let byte = |it: &serde_json::Value| {
        u8::from_str_radix(it.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    let text = String::from_utf8(bytes.map(byte).collect()).unwrap();
    let now = format!("\"layout\":{LAYOUT_VERSION}");
    assert!(text.contains(&now), "{text}");
    let other = text.replace(&now, &format!("\"layout\":{}", LAYOUT_VERSION + 1));
    let value = other.bytes().map(|byte| byte.to_string());
    let mut update = [&map[..], &key, &["value".to_owned()]].concat();
    update[1] = "update".to_owned();
    update.extend(value);
    bpftool(&update);
}

/// Tables of another layout, as after a downgrade: they are made anew, blocks come
/// from the state directory, and no packet comes in between.
#[test]
fn tables_of_another_layout_are_made_anew() {
    let site = Site::new("native", &policy());
    let daemon = &site.daemon;
    let add = ["block", "add", BLOCKED, "--for", "1h", "--reason", "tests"];
    daemon.ask(&add).unwrap();
    let denied = [site.frame(DENIED, udp(1_000)).build()];
    site.send_while(&denied, || {
        daemon.kill().unwrap();
        change_layout(&site);
        daemon.launch().unwrap();
    });
    let log = daemon.log().unwrap();
    let words = format!(
        "in layout {}, and this is layout {LAYOUT_VERSION}",
        LAYOUT_VERSION + 1
    );
    assert!(log.contains(&words), "{log}");
    // None of them got to the port that nobody listens on.
    assert_eq!(arrived(&site), 0);
    let blocks = daemon.json(&["block", "list"]).unwrap();
    assert_eq!(blocks["blocks"][0]["reason"], "tests", "{blocks}");
    let blocked = site.frame(BLOCKED, udp(1_000)).build();
    site.sender().send(&blocked).unwrap();
    let limited = site.frame(LIMITED, udp(1_000)).build();
    site.sender().send(&limited).unwrap();
    wait::until("the one that may to arrive", LATE, || {
        Ok((arrived(&site) == 1).then_some(()))
    })
    .unwrap();
}

/// Datagrams that came to a port that nobody listens on.
fn arrived(site: &Site) -> u64 {
    let shown = inside(site, "nstat", &["-asz", "UdpNoPorts"]);
    let line = shown.lines().find(|line| line.starts_with("UdpNoPorts"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// With nobody there the program goes on: it denies, its blocks end on time, and
/// `detach` takes it off.
#[test]
fn a_killed_daemon_leaves_its_program_at_work() {
    let site = Site::new("native", &policy());
    let add = ["block", "add", BLOCKED, "--for", "2s"];
    site.daemon.ask(&add).unwrap();
    site.daemon.kill().unwrap();
    let denied = site.frame(DENIED, udp(1_000)).build();
    let blocked = site.frame(BLOCKED, udp(1_000)).build();
    let sender = site.sender();
    let end = &site.pairs[0].right;
    sender.send(&blocked).unwrap();
    wait::until("the block to end", LATE, || {
        sender.send(&denied)?;
        sender.send(&blocked)?;
        Ok((arrived(&site) > 0).then_some(()))
    })
    .unwrap();
    let socket = site.daemon.socket();
    let detach = [
        "--socket",
        socket.to_str().unwrap(),
        "detach",
        "--pins",
        PINS,
    ];
    let other = [&detach[..], &["eth77"]].concat();
    let other = site.daemon.output(&other[2..]).unwrap();
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(program(&site).is_some());
    let said = site.daemon.ask(&detach[2..]).unwrap();
    assert_eq!(
        said.trim(),
        format!("no daemon runs; detached from {}", end.name)
    );
    assert_eq!(program(&site), None);
    assert_eq!(inside(&site, "find", &[PINS, "-mindepth", "2"]), "");
    let before = arrived(&site);
    wait::until("the denied source to arrive", LATE, || {
        sender.send(&denied)?;
        Ok((arrived(&site) > before).then_some(()))
    })
    .unwrap();
    // And all begins anew.
    site.daemon.launch().unwrap();
    assert!(!site.daemon.log().unwrap().contains("took over"));
    assert!(program(&site).is_some());
}

/// A policy that says so takes the program along, and leaves nothing.
#[test]
fn detach_on_exit_leaves_nothing() {
    let site = Site::new("native", "on_exit = \"detach\"\n");
    assert!(program(&site).is_some());
    assert!(site.daemon.stop().unwrap().success());
    assert_eq!(program(&site), None);
    assert_eq!(inside(&site, "find", &[PINS, "-mindepth", "2"]), "");
    site.daemon.launch().unwrap();
    // A daemon that is killed has not ended: the program stays.
    site.daemon.kill().unwrap();
    assert!(program(&site).is_some());
}

/// Pins that somebody removes, one or all, are made again, also where the file
/// system is gone.
#[test]
fn pins_that_go_come_back() {
    let site = Site::new("native", &policy());
    let is_back = || {
        wait::until("the pins to be back", LATE, || {
            let status = site.daemon.json(&["status"])?;
            let found = site
                .server()
                .output("find", &[PINS, "-mindepth", "2", "-type", "f"])?;
            let is_well = status["pins_error"].is_null() && status["pins"] == PINS;
            // 21 maps, two of the ledger, one link.
            Ok((is_well && found.lines().count() == 24).then_some(()))
        })
        .unwrap();
    };
    is_back();
    for script in [
        format!("rm {PINS}/set_1/TALLY"),
        format!("rm {PINS}/links/*"),
        format!("rm -r {PINS}/set_1"),
    ] {
        inside(&site, "sh", &["-c", &script]);
        is_back();
    }
    let log = site.daemon.log().unwrap();
    assert!(log.contains("somebody removed pins"), "{log}");
    // It has given up the right to mount.
    inside(&site, "umount", &["-l", PINS]);
    wait::until("it to be said", LATE, || {
        let status = site.daemon.json(&["status"])?;
        let error = status["pins_error"].as_str().unwrap_or_default().to_owned();
        Ok(error.contains("mount -t bpf").then_some(()))
    })
    .unwrap();
    assert!(program(&site).is_some());
    inside(
        &site,
        "mount",
        &["-t", "bpf", "-o", "mode=0700", "bpf", PINS],
    );
    is_back();
    site.daemon.kill().unwrap();
    site.daemon.launch().unwrap();
    assert!(site.daemon.log().unwrap().contains("took over"));
}

/// Of two daemons the second one leaves everything as it was.
#[test]
fn a_second_daemon_is_refused() {
    let site = Site::new("native", &policy());
    let before = program(&site);
    let text = std::fs::read_to_string(site.daemon.policy()).unwrap();
    let policy = site.daemon.socket().with_file_name("other.toml");
    std::fs::write(
        &policy,
        format!("{text}[metrics]\nlisten = \"127.0.0.1:9478\"\n"),
    )
    .unwrap();
    let policy = policy.to_str().unwrap();
    for (socket, words) in [
        (site.daemon.socket(), "another limiter"),
        (
            site.daemon.socket().with_file_name("other.sock"),
            "another limiter keeps its program",
        ),
    ] {
        let run = ["run", "--config", policy];
        let socket = ["--socket", socket.to_str().unwrap()];
        let output = site
            .server()
            .command(limiter_tests::daemon::program().unwrap())
            .args(socket)
            .args(run)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(program(&site), before);
    site.daemon.ask(&["status"]).unwrap();
}
