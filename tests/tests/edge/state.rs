//! What the state directory brings back after a reboot, and what happens where
//! it cannot be written.

use crate::site::{LATE, Site, limit, udp};
use anyhow::Context as _;
use limiter_tests::{mounts::Mount, netns::PINS, wait};
use rusqlite::Connection;
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

const BLOCKED: &str = "198.51.100.1";
const CONFINED: &str = "198.51.100.2";
const DENIED: &str = "198.51.100.3";
const EXCEEDING: &str = "198.51.100.4";

fn site() -> Site {
    let generous = "packets = { rate = \"10000/s\", burst = 10000 }";
    let strict = "packets = { rate = \"1/h\", burst = 1 }\nexceed = { block = \"10m\" }";
    let limits = [
        limit("one", "udp", 1_000, generous),
        limit("strict", "udp", 2_000, strict),
    ];
    Site::new("native", &limits.concat())
}

/// Packets that were dropped for a reason since the daemon was started.
fn dropped(site: &Site, reason: &str) -> u64 {
    let stats = site.daemon.json(&["stats"]).unwrap();
    let rows = stats["counters"].as_array().unwrap().iter();
    let rows = rows.filter(|row| row["verdict"] == "drop" && row["reason"] == reason);
    rows.map(|row| row["packets"].as_u64().unwrap()).sum()
}

/// Sends a packet that must be dropped for this reason.
#[track_caller]
fn drops(site: &Site, source: &str, port: u16, reason: &str) {
    let before = dropped(site, reason);
    let frame = site.frame(source, udp(port)).build();
    site.sender().send(&frame).unwrap();
    let counted = wait::until("the drop", LATE, || {
        Ok((dropped(site, reason) == before + 1).then_some(()))
    });
    counted.with_context(|| source.to_owned()).unwrap();
}

fn blocks(site: &Site) -> Vec<Value> {
    let blocks = site.daemon.json(&["block", "list"]).unwrap();
    let mut blocks = blocks["blocks"].as_array().unwrap().clone();
    blocks.sort_by_key(|block| block["network"].to_string());
    blocks
}

/// The run-time entries of a list.
fn entries(site: &Site, list: &str) -> Vec<Value> {
    let entries = site.daemon.json(&[list, "list"]).unwrap();
    let mut entries = entries["entries"].as_array().unwrap().clone();
    entries.retain(|entry| entry["origin"] == "runtime");
    entries
}

/// Why nothing is stored, as `status` tells it; nothing if all is well.
fn trouble(site: &Site) -> Option<String> {
    let status = site.daemon.json(&["status"]).unwrap();
    let trouble = status["state"]["error"].as_str().map(str::to_owned);
    assert_eq!(status["state"]["writable"], trouble.is_none(), "{status}");
    trouble
}

fn is_blocked(site: &Site, source: &str) -> bool {
    let network = format!("{source}/32");
    blocks(site)
        .iter()
        .any(|block| block["network"] == network.as_str())
}

/// Lets the machine start again while the daemon is stopped: another boot id,
/// and the machine was off for so long.
fn reboot(site: &Site, off: Duration) {
    lose_the_kernel(site);
    let database = Connection::open(site.daemon.state().join("limiter.db")).unwrap();
    let off = i64::try_from(off.as_nanos()).unwrap();
    let changed = database.execute_batch(&format!(
        "UPDATE meta SET value = 'another' WHERE key = 'boot_id'; \
         UPDATE meta SET value = value - {off} WHERE key = 'written_wall_ns';"
    ));
    changed.unwrap();
}

/// What outlives the daemon goes, as it does in a reboot.
fn lose_the_kernel(site: &Site) {
    site.daemon.ask(&["detach", "--pins", PINS]).unwrap();
}

#[test]
fn a_reboot_brings_blocks_and_entries_back() {
    let site = site();
    let begun = Instant::now();
    let ask = |arguments: &[&str]| site.daemon.ask(arguments).unwrap();
    ask(&[
        "block", "add", BLOCKED, "--for", "10m", "--reason", "scanner",
    ]);
    ask(&["block", "add", CONFINED, "--limit", "one", "--for", "30s"]);
    ask(&[
        "block",
        "add",
        "2001:db8::/32",
        "--for",
        "10m",
        "--limit",
        "one",
    ]);
    ask(&["deny", "add", DENIED, "--for", "10m", "--reason", "ours"]);
    ask(&["allow", "add", "192.0.2.0/24"]);
    let exceeding = site.frame(EXCEEDING, udp(2_000)).build();
    let twice = [exceeding.as_slice(), &exceeding];
    site.sender().send_all(twice).unwrap();
    wait::until("the kernel's block", LATE, || {
        Ok(is_blocked(&site, EXCEEDING).then_some(()))
    })
    .unwrap();
    let before = blocks(&site);
    assert!(site.daemon.stop().unwrap().success());
    // One file has it all, but for what is secret.
    let files = fs::read_dir(site.daemon.state()).unwrap();
    let mut files: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["audit.key", "engine.key", "limiter.db"]);
    reboot(&site, Duration::from_mins(1));
    site.daemon.launch().unwrap();

    // That of 30 s ended while the machine was off.
    let after = blocks(&site);
    let longest = 600 - 60;
    let least = longest - begun.elapsed().as_secs() - 1;
    assert_eq!(after.len(), 3, "{after:?}");
    for block in &after {
        let same = |other: &&Value| other["network"] == block["network"];
        let before = before.iter().find(same).unwrap();
        for key in ["owner", "limit", "dry", "reason", "since", "uid"] {
            assert_eq!(block[key], before[key], "{key}");
        }
        let left = block["remaining_seconds"].as_u64().unwrap();
        assert!((least..=longest).contains(&left), "{block}");
    }
    assert_eq!(after[0]["reason"], "scanner");
    assert_eq!(after[0]["uid"], own_uid());
    assert_eq!(after[1]["owner"], "kernel");
    let denied = entries(&site, "deny");
    assert_eq!(denied[0]["reason"], "ours");
    let left = denied[0]["remaining_seconds"].as_u64().unwrap();
    assert!((least..=longest).contains(&left), "{denied:?}");
    let allowed = entries(&site, "allow");
    assert_eq!(allowed[0]["network"], "192.0.2.0/24");
    assert_eq!(allowed[0]["remaining_seconds"], Value::Null);

    drops(&site, BLOCKED, 1_000, "block");
    drops(&site, EXCEEDING, 9_000, "block");
    drops(&site, DENIED, 1_000, "deny");
    assert_eq!(trouble(&site), None);
}

fn own_uid() -> u32 {
    // SAFETY: it cannot fail, and takes nothing.
    unsafe { libc::geteuid() }
}

/// Whoever has the answer can count on it.
#[test]
fn what_was_answered_is_stored() {
    let site = site();
    for round in 1..=5 {
        let source = format!("198.51.100.{}", 100 + round);
        let denied = format!("203.0.113.{round}");
        site.daemon.ask(&["deny", "add", &denied]).unwrap();
        site.daemon
            .ask(&["block", "add", &source, "--for", "1h"])
            .unwrap();
        site.daemon.kill().unwrap();
        lose_the_kernel(&site);
        site.daemon.launch().unwrap();
        assert!(is_blocked(&site, &source), "{:?}", blocks(&site));
        assert_eq!(entries(&site, "deny").len(), round);
        drops(&site, &source, 1_000, "block");
        // What was taken back does not come back.
        site.daemon.ask(&["block", "del", &source]).unwrap();
        site.daemon.kill().unwrap();
        lose_the_kernel(&site);
        site.daemon.launch().unwrap();
        assert_eq!(blocks(&site).len(), 0);
    }
}

/// Blocks a source, which must hold although it cannot be stored.
#[track_caller]
fn blocks_all_the_same(site: &Site, source: &str, cause: &str) {
    let told = site.daemon.ask(&["block", "add", source]).unwrap();
    assert!(told.contains("made, but not stored"), "{told}");
    assert!(told.contains(cause), "{told}");
    drops(site, source, 1_000, "block");
    let told = site.daemon.ask(&["deny", "add", DENIED]).unwrap();
    assert!(told.contains("made, but not stored"), "{told}");
    drops(site, DENIED, 1_000, "deny");
    site.daemon.ask(&["deny", "del", DENIED]).unwrap();
    let trouble = trouble(site).unwrap();
    assert!(trouble.contains(cause), "{trouble}");
    let words = site.daemon.ask(&["status"]).unwrap();
    assert!(
        words.contains("state       what is changed now would not come back"),
        "{words}"
    );
    assert!(words.contains(cause), "{words}");
}

/// A file system of 64 KiB has no room for it at all.
#[test]
fn a_state_directory_that_is_too_small() {
    let site = site();
    site.daemon.stop().unwrap();
    lose_the_kernel(&site);
    site.daemon.mount(Some(Mount::Small(64)));
    site.daemon.launch().unwrap();
    let mut filler = fs::File::create(site.daemon.state_inside().unwrap().join("filler")).unwrap();
    let full = std::iter::repeat_with(|| filler.write_all(&[0; 512])).find_map(Result::err);
    assert_eq!(full.unwrap().raw_os_error(), Some(libc::ENOSPC));
    blocks_all_the_same(&site, BLOCKED, "");
    assert!(site.daemon.stop().unwrap().success());
}

/// It fills up under the daemon, and later there is room again.
#[test]
fn a_state_directory_that_is_full_for_a_while() {
    let site = site();
    site.daemon.stop().unwrap();
    lose_the_kernel(&site);
    site.daemon.mount(Some(Mount::Small(1_024)));
    site.daemon.launch().unwrap();
    assert_eq!(trouble(&site), None);
    let path = site.daemon.state_inside().unwrap().join("filler");
    let mut filler = fs::File::create(&path).unwrap();
    let full = std::iter::repeat_with(|| filler.write_all(&[0; 512])).find_map(Result::err);
    assert_eq!(full.unwrap().raw_os_error(), Some(libc::ENOSPC));
    // What the library has reserved is used up first.
    let mut imported: Vec<String> = Vec::new();
    wait::until("the disk to be full", LATE, || {
        let network = format!("10.0.{}.0/24", imported.len());
        let told = site.daemon.ask(&["block", "add", &network])?;
        imported.push(network);
        Ok(told.contains("not stored").then_some(()))
    })
    .unwrap();
    blocks_all_the_same(&site, BLOCKED, "full");
    fs::remove_file(&path).unwrap();
    drop(filler);
    wait::until("it to be stored", LATE, || {
        Ok(trouble(&site).is_none().then_some(()))
    })
    .unwrap();
    let log = site.daemon.log().unwrap();
    assert!(log.contains("changes are stored again"), "{log}");
    // All of them, also those that were made meanwhile.
    for name in ["limiter.db", "limiter.db-wal"] {
        let copied = fs::copy(path.with_file_name(name), site.daemon.state().join(name));
        copied.unwrap();
    }
    site.daemon.kill().unwrap();
    lose_the_kernel(&site);
    site.daemon.mount(None);
    site.daemon.launch().unwrap();
    assert_eq!(blocks(&site).len(), imported.len() + 1);
    drops(&site, BLOCKED, 1_000, "block");
}

#[test]
fn a_read_only_state_directory() {
    let site = site();
    site.daemon
        .ask(&["block", "add", CONFINED, "--for", "1h"])
        .unwrap();
    site.daemon.stop().unwrap();
    lose_the_kernel(&site);
    site.daemon.mount(Some(Mount::ReadOnly));
    for round in 0..2 {
        site.daemon.launch().unwrap();
        // It is read.
        drops(&site, CONFINED, 1_000, "block");
        assert!(!is_blocked(&site, BLOCKED), "{round}");
        blocks_all_the_same(&site, BLOCKED, "Read-only");
        site.daemon.kill().unwrap();
        lose_the_kernel(&site);
    }
    site.daemon.mount(None);
    site.daemon.launch().unwrap();
    assert!(is_blocked(&site, CONFINED) && !is_blocked(&site, BLOCKED));
    assert_eq!(trouble(&site), None);
}

#[test]
fn a_damaged_database() {
    let site = site();
    site.daemon.ask(&["block", "add", CONFINED]).unwrap();
    site.daemon.stop().unwrap();
    lose_the_kernel(&site);
    let database = site.daemon.state().join("limiter.db");
    fs::write(&database, "no database").unwrap();
    site.daemon.launch().unwrap();
    let log = site.daemon.log().unwrap();
    assert!(log.contains("limiter.db is damaged: it is now "), "{log}");
    assert_eq!((blocks(&site).len(), trouble(&site)), (0, None));
    site.daemon.ask(&["block", "add", BLOCKED]).unwrap();
    site.daemon.kill().unwrap();
    lose_the_kernel(&site);
    site.daemon.launch().unwrap();
    assert!(is_blocked(&site, BLOCKED));
    drops(&site, BLOCKED, 1_000, "block");
}

#[test]
fn a_database_of_a_later_version() {
    let site = site();
    site.daemon.stop().unwrap();
    lose_the_kernel(&site);
    let path = site.daemon.state().join("limiter.db");
    let mut bytes = fs::read(&path).unwrap();
    // Where the file format has the version of whoever uses it.
    bytes[60..64].copy_from_slice(&2_000_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    site.daemon.launch().unwrap();
    blocks_all_the_same(&site, BLOCKED, "a later version of limiter");
    site.daemon.stop().unwrap();
    lose_the_kernel(&site);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
