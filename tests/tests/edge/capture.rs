//! Samples of dropped packets, out of a flood and into a file.

use crate::site::{LATE, Site, limit, row, udp};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    flood::{Bounds, Flood, Sources},
    pcapng::{self, Packet},
    process::{Process, Scratch},
    wait,
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

const FLOODING: &str = "198.51.100.1";
const DENIED: &str = "192.0.2.66";

/// All but five packets of a source are dropped; one source is denied.
fn edge(name: &str) -> String {
    let few = "packets = { rate = \"1/h\", burst = 5 }";
    format!("deny = [{DENIED:?}]\n") + &limit(name, "udp", 7_777, few)
}

fn site() -> Site {
    Site::new("native", &edge("bulk"))
}

/// Two frames: of the flood, and of the denied source, which is longer than
/// what is captured.
fn frames(site: &Site) -> [Vec<u8>; 2] {
    let denied = site.frame(DENIED, udp(53)).padded(700);
    [site.frame(FLOODING, udp(7_777)).build(), denied.build()]
}

/// What `work` does while there are very many packets over the limit, and now
/// and then a denied one.
fn under_flood<T>(site: &Site, work: impl FnOnce() -> T) -> T {
    let [template, denied] = frames(site);
    let bounds = Bounds {
        frames: u64::MAX,
        at_most: LATE,
        per_second: 50_000,
    };
    let over = AtomicBool::new(false);
    let go = || !over.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let flood = Flood::new(&template, &Sources::Listed(vec![0xc633_6401])).unwrap();
        let flood = scope.spawn(move || flood.send_while(&site.pairs[0].left, bounds, go));
        let rare = scope.spawn(|| {
            let sender = site.sender();
            while go() {
                sender.send(&denied).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap().unwrap();
        rare.join().unwrap();
        match worked {
            Ok(worked) => worked,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs `limiter capture` to its end; returns what it said.
fn capture(site: &Site, arguments: &[&str], file: &Path) -> String {
    let file = file.to_str().unwrap();
    let output = site
        .daemon
        .output(&[&["capture"], arguments, &[file]].concat());
    let Output { status, stderr, .. } = output.unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}: {said}");
    said
}

fn read(file: &Path) -> Vec<Packet> {
    let (_, packets) = pcapng::read(&fs::read(file).unwrap()).unwrap();
    packets
}

fn comments(packets: &[Packet]) -> Vec<&str> {
    packets.iter().map(|it| it.comment.as_str()).collect()
}

/// Which refused packets the program takes samples of: the word that each
/// dropped packet looks at.
fn sampled(site: &Site) -> Result<u32> {
    let name = &site.pairs[0].right.name;
    let link = site.server().ip(&format!("link show dev {name}"))?;
    let link: Value = serde_json::from_str(&link)?;
    let program = link[0]["xdp"]["prog"]["id"].to_string();
    let maps = bpftool(&["prog", "show", "id", &program])?;
    let maps = maps["map_ids"].as_array().context("no maps")?.clone();
    for map in maps.iter().map(Value::to_string) {
        if bpftool(&["map", "show", "id", &map])?["name"] == "ACTIVE" {
            let dump = bpftool(&["map", "dump", "id", &map])?;
            let value = dump[0]["value"].as_array().context("no value")?;
            let word = value.get(28..32).context("too short")?.iter();
            return word.rev().try_fold(0, |word, byte| {
                let digits = byte.as_str().context("no byte")?.trim_start_matches("0x");
                Ok(word << 8 | u32::from_str_radix(digits, 16)?)
            });
        }
    }
    anyhow::bail!("the program has no map ACTIVE")
}

fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("-j").args(arguments).output();
    let output = output.context("running bpftool")?;
    ensure!(output.status.success(), "bpftool {arguments:?}: {output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn a_flood_is_captured_with_its_reasons() {
    let (site, scratch) = (site(), Scratch::new().unwrap());
    let file = scratch.path("drops.pcapng");
    let before = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let said = under_flood(&site, || capture(&site, &["--count", "300"], &file));
    let after = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let packets = read(&file);
    assert_eq!(packets.len(), 300);
    let [flood, denied] = frames(&site);
    for packet in &packets {
        let (frame, action) = (&packet.frame[..], packet.action);
        match packet.comment.as_str() {
            "drop: limit (packets) bulk" => assert_eq!((frame, action), (&flood[..], 1)),
            "drop: deny" => assert_eq!((frame, action), (&denied[..256], 1)),
            other => panic!("{other}"),
        }
        let length = if frame.len() == 256 {
            denied.len()
        } else {
            frame.len()
        };
        assert_eq!(packet.length as usize, length);
        assert_eq!(packet.interface, site.pairs[0].right.name);
        assert!((before..=after).contains(&packet.time_ns), "{packet:?}");
    }
    // Packets have payload.
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Not the first 300 of a flood, but over some time: 64 at once, and then
    // one at each tick of the kernel's clock.
    let times: std::collections::BTreeSet<u64> =
        packets.iter().map(|packet| packet.time_ns).collect();
    assert!(times.len() > 64, "{} moments", times.len());
    let dropped = row(&site.counts(), "bulk drop limit packets");
    assert!(dropped > 300, "{dropped}");
    assert!(said.starts_with("300 packets of "), "{said}");
    assert!(
        said.contains(" dropped, in ") && said.contains("--count"),
        "{said}"
    );

    // Others can read it.
    let name = file.to_str().unwrap();
    let listed = site.server().output("tcpdump", &["-nr", name]).unwrap();
    assert_eq!(listed.lines().count(), 300, "{listed}");
    let policy = site.daemon.policy();
    let explained = site
        .daemon
        .output(&[
            "explain",
            "--pcap",
            name,
            "--config",
            policy.to_str().unwrap(),
        ])
        .unwrap();
    assert!(explained.status.success(), "{explained:?}");
    let lines = String::from_utf8(explained.stdout).unwrap();
    assert_eq!(lines.lines().count(), 301, "{lines}");
}

#[test]
fn a_rare_reason_is_found_in_a_flood() {
    let (site, scratch) = (site(), Scratch::new().unwrap());
    let file = scratch.path("denied.pcapng");
    let said = under_flood(&site, || {
        let arguments = ["--reason", "deny", "--count", "5", "--snap-length", "64"];
        capture(&site, &arguments, &file)
    });
    let packets = read(&file);
    assert_eq!(comments(&packets), ["drop: deny"; 5]);
    assert!(
        packets
            .iter()
            .all(|it| it.frame.len() == 64 && it.length == 700)
    );
    // The flood is not what it was asked for.
    let of: u64 = said.split(' ').nth(3).unwrap().parse().unwrap();
    let counts = site.counts();
    assert!((5..=row(&counts, "- drop deny -")).contains(&of), "{said}");
    assert_eq!(sampled(&site).unwrap(), 0);
}

/// Whoever is interrupted leaves a whole file, and whoever is killed no
/// sampling.
#[test]
fn nothing_is_sampled_for_who_has_gone() {
    let (site, scratch) = (site(), Scratch::new().unwrap());
    assert_eq!(sampled(&site).unwrap(), 0);
    let log = scratch.path("log");
    for (signal, is_whole) in [(libc::SIGINT, true), (libc::SIGKILL, false)] {
        let file = scratch.path(&format!("{signal}.pcapng"));
        let arguments = [
            "capture", "--for", "1h", "--count", "10000", "--reason", "deny",
        ];
        let mut command = site.daemon.command(&arguments).unwrap();
        let mut client = Process::start(command.arg(&file), &log).unwrap();
        wait::until("the capture", LATE, || {
            let status = site.daemon.json(&["status"])?;
            Ok((status["captures"] == 1 && sampled(&site)? != 0).then_some(()))
        })
        .unwrap();
        let [_, denied] = frames(&site);
        site.sender().send(&denied).unwrap();
        wait::until("the packet", LATE, || {
            let packets = fs::read(&file).map(|bytes| pcapng::read(&bytes))?;
            // It may be half written.
            Ok(packets
                .is_ok_and(|(_, packets)| packets.len() == 1)
                .then_some(()))
        })
        .unwrap();
        client.signal(signal).unwrap();
        let ended = wait::until("its end", LATE, || client.ended()).unwrap();
        assert_eq!(ended.success(), is_whole, "{ended}");
        wait::until("the end of sampling", LATE, || {
            let status = site.daemon.json(&["status"])?;
            Ok((status["captures"] == 0 && sampled(&site)? == 0).then_some(()))
        })
        .unwrap();
        let said = fs::read_to_string(&log).unwrap();
        let summary = "1 packet of 1 dropped, in ";
        assert_eq!(said.starts_with(summary), is_whole, "{said}");
        assert_eq!(said.contains("; interrupted"), is_whole, "{said}");
        assert_eq!(comments(&read(&file)), ["drop: deny"]);
    }
}

#[test]
fn a_reload_does_not_end_it() {
    let (site, scratch) = (site(), Scratch::new().unwrap());
    let [file, log] = ["drops.pcapng", "log"].map(|name| scratch.path(name));
    let mut command = site
        .daemon
        .command(&["capture", "--for", "1h", "--count", "2"])
        .unwrap();
    let mut client = Process::start(command.arg(&file), &log).unwrap();
    wait::until("the capture", LATE, || {
        Ok((sampled(&site)? != 0).then_some(()))
    })
    .unwrap();
    let sender = site.sender();
    let [over, _] = frames(&site);
    for _ in 0..6 {
        sender.send(&over).unwrap();
    }
    // Counted, and perhaps not yet fetched.
    site.counts();
    let observed = edge("other") + "exceed = \"observe\"\n";
    site.daemon
        .write_policy(&site.policy("native", &observed))
        .unwrap();
    site.daemon.ask(&["reload"]).unwrap();
    for _ in 0..6 {
        sender.send(&over).unwrap();
    }
    let ended = wait::until("its end", LATE, || client.ended()).unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(ended.success(), "{ended}: {said}");
    let packets = read(&file);
    let expected = [
        "drop: limit (packets) bulk",
        "would_drop: limit (packets) other",
    ];
    assert_eq!(comments(&packets), expected);
    assert_eq!([packets[0].action, packets[1].action], [1, 2]);
    let summary = "2 packets of 1 dropped and 1 that would be, in ";
    assert!(said.starts_with(summary), "{said}");
}

#[test]
fn a_capture_goes_down_a_pipe_and_ends_in_time() {
    let site = site();
    let output = site
        .daemon
        .output(&["capture", "--for", "1s", "-"])
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let (interfaces, packets) = pcapng::read(&output.stdout).unwrap();
    assert_eq!(interfaces, [site.pairs[0].right.name.as_str()]);
    assert_eq!(packets, []);
    assert!(said.starts_with("0 packets of 0 dropped, in "), "{said}");
    assert!(said.contains("--for"), "{said}");
}
