//! What an application knows of its clients becomes decisions, and drops at the NIC.

use crate::{
    hearing::{Hearing, failure},
    site::{LATE, row, udp},
};
use limiter_tests::clients;
use serde_json::{Value, json};
use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    thread,
};

/// Three failures within a minute block the source for an hour.
const BLOCK: &str = r#"
[[rule]]
name = "login"
requests = ["POST /login"]
count = { statuses = [401] }
key = ["source"]
limit = 3
period = "1m"
action = "block"
for = "1h"
"#;

/// Five failures of an account lock it, longer and longer.
const LOCK: &str = r#"
[[rule]]
name = "lock"
requests = ["POST /login"]
failure = { statuses = [401] }
success = { statuses = [200] }
count = "failures"
key = ["account"]
action = "reject"
ladder = [
  { limit = 5, period = "5m", for = "15m" },
  { limit = 5, period = "1h", for = "1h" },
]
"#;

/// A connection through both stacks: a server listens to both by one socket, as many do.
#[test]
fn the_connections_of_who_is_blocked_are_closed() {
    let hearing = Hearing::new("", "", BLOCK);
    let site = &hearing.site;
    let client = site.pairs[0].left.ipv4;
    let own = IpAddr::V4(site.pairs[0].right.ipv4);
    let mut open = [
        (80, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (81, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        (22, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    ]
    .map(|(port, address)| {
        let listener = site.server().run(|| TcpListener::bind((address, port)));
        let listener = listener.unwrap();
        let at = SocketAddr::new(own, port);
        let near = clients::connect(site.client(), at, LATE).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(LATE)).unwrap();
        (near, far)
    });
    hearing.fail(&client.to_string(), 3);
    hearing.blocked(&client.to_string());
    let [.., (ssh, at_server)] = &mut open;
    ssh.write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    at_server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
    for (near, far) in &mut open[..2] {
        let aborted = far.read(&mut heard).unwrap_err();
        assert_eq!(aborted.kind(), ErrorKind::ConnectionAborted, "{aborted}");
        let reset = near.read(&mut heard).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset, "{reset}");
    }
    let status = hearing.ask(&["status"]);
    let metrics = format!("http://{}/metrics", status["metrics"].as_str().unwrap());
    hearing.until("them to be counted", || {
        let text = site.server().output("curl", &["-sf", &metrics]).unwrap();
        let row = "limiter_connections_closed_total 2\n";
        text.contains(row).then_some(())
    });
}

const OFFENDER: &str = "198.51.100.7";

#[test]
fn who_fails_to_log_in_is_dropped_at_the_nic() {
    let hearing = Hearing::new("", "", BLOCK);
    let site = &hearing.site;
    hearing.fail(OFFENDER, 2);
    hearing.counted("login", 2);
    assert_eq!(hearing.block(OFFENDER), None);
    hearing.fail(OFFENDER, 1);
    let block = hearing.blocked(OFFENDER);
    assert_eq!(block["owner"], "rule", "{block}");
    let left = block["remaining_seconds"].as_u64().unwrap();
    assert!((3_500..=3_600).contains(&left), "{block}");
    let because = json!({
        "rule": "login", "step": 1, "is_ladder": false,
        "sample": { "source": OFFENDER, "path": "/login", "status": 401 },
    });
    assert_eq!(block["rule"], because, "{block}");
    let frame = site.frame(OFFENDER, udp(1_000)).build();
    site.sender().send(&frame).unwrap();
    assert_eq!(row(&site.counts(), "- drop block -"), 1);
    let held = hearing.held(OFFENDER);
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(
        (&held[0]["rule"], &held[0]["action"], &held[0]["place"]),
        (&json!("login"), &json!("block"), &json!("nic"))
    );
    let listed = site.daemon.ask(&["block", "list"]).unwrap();
    assert!(listed.contains("rule login, tier 1"), "{listed}");

    // By hand it ends, also for the rule: one more failure is one.
    let said = site.daemon.ask(&["block", "del", OFFENDER]).unwrap();
    assert!(said.contains("login"), "{said}");
    site.sender().send(&frame).unwrap();
    assert_eq!(row(&site.counts(), "- drop block -"), 1);
    hearing.fail(OFFENDER, 1);
    hearing.counted("login", 4);
    assert_eq!(hearing.block(OFFENDER), None);
    assert_eq!(hearing.held(OFFENDER)[0]["action"], Value::Null);
}

#[test]
fn what_must_not_be_dropped_is_refused_by_its_requests() {
    let edge = "allow = [\"198.51.100.8/32\"]";
    let hearing = Hearing::new(edge, "trusted_proxies = [\"198.51.100.9/32\"]", BLOCK);
    let site = &hearing.site;
    let own = site.pairs[0].right.ipv4.to_string();
    let by_hand = "198.51.100.10";
    site.daemon.ask(&["block", "add", by_hand]).unwrap();
    for (source, why) in [
        ("198.51.100.8", "is allowed"),
        ("198.51.100.9", "is a trusted proxy"),
        (&own, "own addresses"),
        (by_hand, "is blocked by hand"),
    ] {
        hearing.fail(source, 3);
        let place = hearing.until("the refusal of the order", || {
            let held = hearing.held(source);
            let held = held.first().filter(|held| held["action"] == "block")?;
            (held["place"] == "http").then(|| held.clone())
        });
        assert_eq!(place["rule"], "login", "{place}");
        assert!(place["why"].as_str().unwrap().contains(why), "{place}");
        let block = hearing.block(source);
        let owner = block.map(|block| block["owner"].clone());
        let expected = (source == by_hand).then(|| json!("operator"));
        assert_eq!(owner, expected, "{source}");
        let log = site.daemon.log().unwrap();
        assert!(log.contains("not blocked at the NIC"), "{log}");
        // Who is asked about it says so all the same.
        let decided = hearing.post("/v1/check", &failure(source));
        assert_eq!(decided["action"], "block", "{decided}");
    }
    // A client that a header names is not the peer.
    let client = json!({
        "source": "203.0.113.5", "peer": "198.51.100.9", "method": "POST",
        "path": "/login", "status": 401,
    });
    for _ in 0..3 {
        hearing.tell(&client);
    }
    hearing.until("the block by requests", || {
        let held = hearing.held("203.0.113.5");
        let held = held.first().filter(|held| held["place"] == "http")?;
        held["why"].as_str()?.contains("the peer").then_some(())
    });
    assert_eq!(hearing.block("203.0.113.5"), None);
}

#[test]
fn fifty_guesses_at_once_pass_as_many_as_the_limit() {
    let hearing = Hearing::new("", "", LOCK);
    let guess = |number: usize| {
        json!({
            "id": format!("guess-{number}"), "source": format!("203.0.113.{number}"),
            "method": "POST", "path": "/login", "account": " Ann ",
        })
    };
    let actions: Vec<Value> = thread::scope(|scope| {
        let ask = |number| {
            let hearing = &hearing;
            scope.spawn(move || hearing.post("/v1/check", &guess(number)))
        };
        let asked: Vec<_> = (1..=50).map(ask).collect();
        asked.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let passed: Vec<usize> = (1..=50)
        .filter(|number| actions[number - 1]["action"] == "pass")
        .collect();
    assert_eq!(passed.len(), 5, "{actions:?}");
    // They failed: now it is locked, for those who ask later too.
    for number in passed {
        let mut event = guess(number);
        event["status"] = json!(401);
        let heard = hearing.post("/v1/events", &event);
        assert_eq!(heard["understood"], 1, "{heard}");
    }
    let decided = hearing.post("/v1/check", &guess(99));
    assert_eq!(decided["action"], "reject", "{decided}");
    assert_eq!(decided["rule"], "lock", "{decided}");
    let shown = hearing.ask(&["account", "show", "ANN"]);
    assert_eq!(shown["account"], "ann", "{shown}");
    assert_eq!(shown["held"][0]["rungs"], 1, "{shown}");
    assert_eq!(shown["held"][0]["action"], "reject", "{shown}");
    let unlock = ["account", "unlock", "ann", "--reason", "she called"];
    let said = hearing.site.daemon.ask(&unlock).unwrap();
    assert!(said.contains("ann is released"), "{said}");
    let decided = hearing.post("/v1/check", &guess(98));
    assert_eq!(decided["action"], "pass", "{decided}");
    let audited = hearing.until("the unlock in the audit log", || {
        let audited = hearing.ask(&["audit", "--kind", "hand", "--account", "ann"]);
        let text = audited.to_string();
        text.contains("account unlock").then_some(text)
    });
    assert!(audited.contains("she called"), "{audited}");
}

#[test]
fn rules_are_switched_at_run_time() {
    let hearing = Hearing::new("", "", BLOCK);
    let daemon = &hearing.site.daemon;
    daemon.ask(&["rule", "disable", "login"]).unwrap();
    hearing.fail(OFFENDER, 3);
    hearing.until("the events", || {
        let origins = hearing.ask(&["origins"]);
        let rows = origins["origins"].as_array()?;
        let understood = rows.iter().map(|row| row["understood"].as_u64().unwrap());
        (understood.sum::<u64>() == 3).then_some(())
    });
    assert_eq!(hearing.rule("login")["counted"], 0);
    daemon.ask(&["rule", "simulate", "login"]).unwrap();
    let status = daemon.ask(&["status"]).unwrap();
    assert!(status.contains("login (simulate)"), "{status}");
    assert!(status.contains("1 rule by hand"), "{status}");
    hearing.fail(OFFENDER, 3);
    hearing.counted("login", 3);
    let decided = hearing.post("/v1/check", &failure(OFFENDER));
    assert_eq!(decided["action"], "pass", "{decided}");
    assert_eq!(decided["simulated"], "block", "{decided}");
    assert_eq!(hearing.block(OFFENDER), None);
    daemon.ask(&["rule", "enable", "login"]).unwrap();
    hearing.fail("198.51.100.8", 3);
    hearing.blocked("198.51.100.8");
    // A pause lets requests pass too.
    daemon.ask(&["pause", "--for", "1h"]).unwrap();
    hearing.until("the pause", || {
        let decided = hearing.post("/v1/check", &failure("198.51.100.8"));
        (decided["action"] == "pass").then_some(())
    });
    daemon.ask(&["resume"]).unwrap();
    hearing.until("the end of the pause", || {
        let decided = hearing.post("/v1/check", &failure("198.51.100.8"));
        (decided["action"] == "block").then_some(())
    });
    let refused = daemon.output(&["rule", "disable", "nobody"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("there is no rule `nobody`; the policy has: login"),
        "{said}"
    );
}

/// A log that is rotated by renaming it while it is written.
#[test]
fn a_log_is_followed_to_the_nic() {
    let hearing = Hearing::new("", "", BLOCK);
    let site = &hearing.site;
    let log = hearing.path("access.log");
    let decide = format!(
        "logs = [{{ path = {:?}, format = \"nginx\", direct = true }}]",
        log.display().to_string()
    );
    let line = |source: &str| {
        let at = httpdate();
        format!("{source} - - [{at}] \"POST /login HTTP/1.1\" 401 12 \"-\" \"-\"\n")
    };
    let write = |source: &str| {
        let mut file = fs::OpenOptions::new();
        let mut file = file.append(true).create(true).open(&log).unwrap();
        file.write_all(line(source).as_bytes()).unwrap();
    };
    write("192.0.2.99");
    site.daemon
        .write_policy(&hearing.policy("", &decide, BLOCK))
        .unwrap();
    let origin = format!("log:{}", log.display());
    let said = site.daemon.ask(&["reload"]).unwrap();
    assert!(!said.contains("restarted"), "{said}");
    let row = |hearing: &Hearing| {
        let origins = hearing.ask(&["origins"]);
        let rows = origins["origins"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == origin.as_str())
    };
    // What was there before is none of its business; what comes from now on is read. The
    // worker has come to the end of the file when a line is.
    hearing.until("the log to be followed", || {
        write("192.0.2.98");
        (row(&hearing)?["understood"].as_u64()? > 0).then_some(())
    });
    write(OFFENDER);
    write(OFFENDER);
    fs::rename(&log, hearing.path("access.log.1")).unwrap();
    write(OFFENDER);
    let block = hearing.blocked(OFFENDER);
    assert_eq!(block["rule"]["rule"], "login", "{block}");
    // A line that is none is counted, and shown.
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(b"no line of nginx \x1b[31m\n").unwrap();
    let strange = hearing.until("the line that is none", || {
        row(&hearing).filter(|row| row["not_understood"] == 1)
    });
    assert!(
        !strange["sample"].as_str().unwrap().contains('\u{1b}'),
        "{strange}"
    );
}

fn httpdate() -> String {
    let now = std::time::SystemTime::now();
    let text = humantime::format_rfc3339_seconds(now).to_string();
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap();
    let mut parts = date.split('-');
    let (year, month, day) = (
        parts.next().unwrap(),
        parts.next().unwrap().parse::<usize>().unwrap(),
        parts.next().unwrap(),
    );
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    format!("{day}/{}/{year}:{time} +0000", months[month - 1])
}

#[test]
fn what_happened_can_be_asked_for() {
    let hearing = Hearing::new("", "", &format!("{BLOCK}{LOCK}"));
    hearing.fail(OFFENDER, 5);
    hearing.counted("lock", 5);
    let filter = [
        "audit",
        "--account",
        "Ann",
        "--rule",
        "lock",
        "--since",
        "7d",
        "--count",
    ];
    let counted = hearing.until("the rows", || {
        let answer = hearing.ask(&filter);
        answer.to_string().contains("\"began\"").then_some(answer)
    });
    let text = counted.to_string();
    assert!(text.contains("counted"), "{text}");
    let refused = json!({
        "source": "203.0.113.7", "method": "POST", "path": "/login?x=1", "account": "ann",
    });
    for _ in 0..3 {
        assert_eq!(hearing.post("/v1/check", &refused)["action"], "reject");
    }
    let by_path = ["audit", "--action", "reject", "--by", "path"];
    let top = hearing.until("the refusals", || {
        let top = hearing.ask(&by_path);
        top.to_string().contains("\"/login\"").then_some(top)
    });
    assert!(!top.to_string().contains("x=1"), "{top}");
    let by_source = ["audit", "--action", "reject", "--by", "source"];
    hearing.until("the source of the refusals", || {
        let top = hearing.ask(&by_source).to_string();
        top.contains("203.0.113.7").then_some(())
    });
    // Nobody has shown that there is such an account: its name is nowhere in the file.
    let state = hearing.site.daemon.state();
    let has_name = || {
        let files = fs::read_dir(&state).unwrap().flatten();
        let mut files = files.filter_map(|entry| fs::read(entry.path()).ok());
        files.any(|bytes| bytes.windows(9).any(|part| part == b"hunter2!!"))
    };
    let typed = json!({
        "source": "203.0.113.8", "method": "POST", "path": "/login",
        "account": "hunter2!!", "status": 401,
    });
    hearing.tell(&typed);
    hearing.counted("lock", 6);
    hearing.until("its row", || {
        let answer = hearing.ask(&["audit", "--account", "hunter2!!", "--count"]);
        answer.to_string().contains("counted").then_some(())
    });
    assert!(!has_name());
}
