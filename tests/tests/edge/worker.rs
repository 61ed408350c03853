//! The process that hears events: what it may do, and what becomes of what it knew when
//! it or the daemon is killed.

use crate::{
    hearing::{Hearing, failure},
    site::LATE,
};
use limiter_tests::wait;
use limiter_user::store::audit::Reader;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A block of the source after three failures, and a lock of the account after four.
const RULES: &str = r#"
[[rule]]
name = "login"
requests = ["POST /login"]
count = { statuses = [401] }
key = ["source"]
limit = 3
period = "1m"
action = "block"
for = "1h"

[[rule]]
name = "lock"
requests = ["POST /login"]
failure = { statuses = [401] }
count = "failures"
key = ["account"]
action = "reject"
ladder = [{ limit = 4, period = "5m", for = "15m" }, { limit = 4, period = "1h", for = "1h" }]
"#;

/// How long a worker does nothing.
const STOPPED: Duration = Duration::from_secs(10);

const OFFENDER: &str = "198.51.100.7";

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(process(pid).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

fn gone(pid: u32) {
    wait::until("the end of a process", LATE, || {
        Ok((!process(pid).exists()).then_some(()))
    })
    .unwrap();
}

fn slay(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
}

/// The source is blocked, the account locked.
fn hold(hearing: &Hearing) {
    hearing.fail(OFFENDER, 4);
    hearing.blocked(OFFENDER);
    hearing.until("the lock", || is_locked(hearing).then_some(()));
}

fn is_locked(hearing: &Hearing) -> bool {
    let shown = hearing.ask(&["account", "show", "ann"]);
    let held = &shown["held"][0];
    held["rule"] == "lock" && held["rungs"] == 1 && held["action"] == "reject"
}

#[test]
fn it_may_do_nothing() {
    let hearing = Hearing::new("", "", RULES);
    let worker = hearing.worker();
    let spawner: u32 = field(worker, "PPid").parse().unwrap();
    assert_eq!(
        field(spawner, "PPid"),
        hearing.site.daemon.id().unwrap().to_string()
    );
    for (pid, name) in [(worker, "limiter-worker"), (spawner, "limiter-spawner")] {
        let line = fs::read_to_string(process(pid).join("cmdline")).unwrap();
        assert_eq!(line.trim_end_matches('\0'), name);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(pid, set), "0000000000000000", "{set} of {name}");
        }
        assert_eq!(field(pid, "NoNewPrivs"), "1");
        assert_eq!(field(pid, "Groups"), "", "{name}");
        for id in ["Uid", "Gid"] {
            let ids = field(pid, id);
            assert!(ids.split_whitespace().all(|id| id != "0"), "{name}: {ids}");
        }
        for entry in fs::read_dir(process(pid).join("fd")).unwrap() {
            let target = fs::read_link(entry.unwrap().path()).unwrap();
            let target = target.display().to_string();
            assert!(!target.contains("bpf"), "{name} has {target}");
            assert!(!target.contains("limiter.db"), "{name} has {target}");
        }
    }
}

#[test]
fn another_one_takes_its_place_and_knows_what_was_held() {
    let hearing = Hearing::new("", "", RULES);
    hold(&hearing);
    let first = hearing.worker();
    slay(first);
    let status = hearing.until("another worker", || {
        let status = hearing.ask(&["status"]);
        let pid = status["worker"]["pid"].as_u64()?;
        (pid != u64::from(first)).then_some(status)
    });
    assert_eq!(status["worker"]["restarts"], 1, "{status}");
    assert_eq!(status["worker"]["last_end"], "SIGKILL", "{status}");
    hearing.until("what was held", || is_locked(&hearing).then_some(()));
    assert!(hearing.block(OFFENDER).is_some());
    let decided = hearing.post("/v1/check", &failure("203.0.113.5"));
    assert_eq!(decided["action"], "reject", "{decided}");
    let decided = hearing.post("/v1/check", &failure(OFFENDER));
    assert_eq!(decided["action"], "block", "{decided}");
    // It hears as the one before did.
    hearing.fail("198.51.100.8", 3);
    hearing.blocked("198.51.100.8");
}

#[test]
fn blocks_and_ladders_outlive_the_daemon() {
    let hearing = Hearing::new("", "", RULES);
    let daemon = &hearing.site.daemon;
    hold(&hearing);
    let state = daemon.state();
    wait::until("the database to have it", LATE, || {
        let held = Reader::open(&state, LATE)?.held()?;
        Ok((held.keys.iter().any(|key| key.rungs == 1) && !held.blocks.is_empty()).then_some(()))
    })
    .unwrap();
    let worker = hearing.worker();
    let spawner: u32 = field(worker, "PPid").parse().unwrap();
    daemon.kill().unwrap();
    gone(worker);
    gone(spawner);
    daemon.launch().unwrap();
    hearing.until("what was held", || is_locked(&hearing).then_some(()));
    let block = hearing.blocked(OFFENDER);
    assert_eq!(block["rule"]["rule"], "login", "{block}");
    assert_eq!(block["rule"]["sample"]["path"], "/login", "{block}");
    let decided = hearing.post("/v1/check", &failure(OFFENDER));
    assert_eq!(decided["action"], "block", "{decided}");
    // What the rule takes back is off the NIC, though another daemon ordered it.
    daemon.ask(&["block", "del", OFFENDER]).unwrap();
    assert_eq!(hearing.block(OFFENDER), None);

    let worker = hearing.worker();
    let spawner: u32 = field(worker, "PPid").parse().unwrap();
    assert!(daemon.stop().unwrap().success());
    assert!(!process(worker).exists() && !process(spawner).exists());
    assert!(!hearing.path("api.sock").exists() && !hearing.path("feedback.sock").exists());
}

/// It hears nothing for a while, and the daemon does all that is its own; then it goes on.
#[test]
fn one_that_is_stopped_holds_up_nobody() {
    let hearing = Hearing::new("", "", RULES);
    let daemon = &hearing.site.daemon;
    hold(&hearing);
    let worker = hearing.worker();
    let pid = Pid::from_raw(i32::try_from(worker).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let events = UnixDatagram::unbound().unwrap();
    events.set_nonblocking(true).unwrap();
    let event = failure("198.51.100.9").to_string();
    let begin = Instant::now();
    let mut rounds = 0;
    while begin.elapsed() < STOPPED {
        // What finds no room is lost.
        let _full = events.send_to(event.as_bytes(), hearing.path("feedback.sock"));
        let asked = Instant::now();
        daemon.ask(&["block", "add", "203.0.113.9"]).unwrap();
        assert!(hearing.block("203.0.113.9").is_some());
        assert!(hearing.block(OFFENDER).is_some());
        daemon.ask(&["stats"]).unwrap();
        assert!(asked.elapsed() < STOPPED / 2, "{:?}", asked.elapsed());
        rounds += 1;
    }
    assert!(rounds > 1);
    kill(pid, Signal::SIGCONT).unwrap();
    hearing.fail("198.51.100.8", 3);
    hearing.blocked("198.51.100.8");
    assert_eq!(hearing.worker(), worker, "it was given up");
}

/// Nobody else can make a worker, so that the daemon ends for the service manager to start
/// it again; what is blocked stays so meanwhile.
#[test]
fn a_daemon_without_its_spawner_ends() {
    let hearing = Hearing::new("", "", RULES);
    let daemon = &hearing.site.daemon;
    hold(&hearing);
    let worker = hearing.worker();
    let spawner: u32 = field(worker, "PPid").parse().unwrap();
    slay(spawner);
    gone(worker);
    let status = wait::until("the end of the daemon", LATE, || daemon.ended()).unwrap();
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    let log = daemon.log().unwrap();
    assert!(log.contains("limiter-spawner has ended (SIGKILL)"), "{log}");
    daemon.launch().unwrap();
    hearing.until("what was held", || is_locked(&hearing).then_some(()));
    hearing.blocked(OFFENDER);
    hearing.fail("198.51.100.8", 3);
    hearing.blocked("198.51.100.8");
}

/// Counts go on over a reload for rules that did not change, and a rule that is gone lets
/// its sources go.
#[test]
fn a_reload_keeps_what_did_not_change() {
    let hearing = Hearing::new("", "", RULES);
    let daemon = &hearing.site.daemon;
    hearing.fail(OFFENDER, 2);
    hearing.counted("login", 2);
    let other = RULES.replace("for = \"15m\"", "for = \"16m\"");
    daemon
        .write_policy(&hearing.policy("", "", &other))
        .unwrap();
    daemon.ask(&["reload"]).unwrap();
    hearing.fail(OFFENDER, 1);
    hearing.blocked(OFFENDER);
    let without = other.replace("\"login\"", "\"signin\"");
    daemon
        .write_policy(&hearing.policy("", "", &without))
        .unwrap();
    daemon.ask(&["reload"]).unwrap();
    hearing.until("the rule to be another", || {
        let rules = hearing.ask(&["rule", "list"]);
        (rules["rules"][0]["name"] == "signin").then_some(())
    });
    hearing.until("the block of a rule that is gone to end", || {
        hearing.block(OFFENDER).is_none().then_some(())
    });
    let decided = hearing.post(
        "/v1/check",
        &json!({ "source": OFFENDER, "path": "/login" }),
    );
    assert_eq!(decided["action"], "pass", "{decided}");
}

/// What rules held that a policy on trial does not have comes back with them, whoever heard
/// events meanwhile.
#[test]
fn a_roll_back_brings_back_what_another_worker_held() {
    let hearing = Hearing::new("", "", RULES);
    let daemon = &hearing.site.daemon;
    hold(&hearing);
    let others = RULES
        .replace("\"login\"", "\"signin\"")
        .replace("\"lock\"", "\"other\"");
    daemon
        .write_policy(&hearing.policy("", "", &others))
        .unwrap();
    daemon.ask(&["reload", "--confirm", "5m"]).unwrap();
    hearing.until("the block of a rule that is gone to end", || {
        hearing.block(OFFENDER).is_none().then_some(())
    });
    let first = hearing.worker();
    slay(first);
    hearing.until("another worker", || {
        let pid = hearing.ask(&["status"])["worker"]["pid"].as_u64()?;
        (pid != u64::from(first)).then_some(())
    });
    assert!(!is_locked(&hearing));
    daemon.ask(&["resume"]).unwrap();
    hearing.until("what was held", || is_locked(&hearing).then_some(()));
    let decided = hearing.post("/v1/check", &failure(OFFENDER));
    assert_eq!(decided["action"], "block", "{decided}");
}
