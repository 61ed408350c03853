//! HAProxy asks limiter about every request, and tells it what became of each.

use crate::{
    hearing::Hearing,
    site::{LATE, row},
};
use anyhow::Context as _;
use limiter_tests::{
    clients::{self, Answer},
    servers::{Haproxy, Nginx},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// What HAProxy's clients are held to.
const RULES: &str = r#"
[[rule]]
name = "login"
requests = ["POST /login", "POST /hidden"]
count = { statuses = [401] }
key = ["source"]
tiers = [
  { limit = 3, period = "1h", action = "reject", for = "1h" },
]

[[rule]]
name = "slow"
requests = ["/slow"]
count = "requests"
key = ["source"]
limit = 1
period = "1h"
action = "throttle"
wait = 700

[[rule]]
name = "brief"
requests = ["/brief"]
count = "requests"
key = ["source"]
limit = 1
period = "2s"
algorithm = "sliding_log"
action = "reject"

[[rule]]
name = "posed"
requests = ["/posed"]
key = ["source"]
limit = 1
period = "1h"
action = "js_challenge"
difficulty = 10

[[rule]]
name = "odd"
count = { statuses = ["4xx"] }
key = ["source"]
limit = 1000
period = "1h"
action = "reject"
response = { headers = "none" }

[[rule]]
name = "marked"
count = { response_header = { name = "X-CF-Block" } }
key = ["source"]
limit = 2
period = "1h"
action = "block"
for = "1h"
"#;

const ORIGIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// An origin that refuses logins and marks who misbehaves.
const SERVER: &str = r#"
server {
  listen 127.0.0.1:8080;
  large_client_header_buffers 4 16k;
  location = /login { return 401 "no\n"; }
  location = /hidden { add_header X-Limiter pass always; return 401 "no\n"; }
  location = /bad { add_header X-CF-Block low; return 200 "bad\n"; }
  location / { return 200 "$http_x_seen ok\n"; }
}"#;

/// A site with HAProxy before an origin.
struct Proxied {
    hearing: Hearing,
    address: SocketAddr,
    haproxy: Haproxy,
    _origin: Nginx,
}

impl Proxied {
    fn new() -> Self {
        Self::start("", RULES, &[])
    }

    /// `decide`: more of that section; `more`: what else `limiter integration` is told.
    fn start(decide: &str, rules: &str, more: &[&str]) -> Self {
        let decide = format!("spoe = '127.0.0.1:4482'\n{decide}");
        let hearing = Hearing::new("", &decide, rules);
        let server = hearing.site.server();
        let origin = Nginx::start(server, ORIGIN, SERVER).unwrap();
        let address = SocketAddr::new(hearing.site.pairs[0].right.ipv4.into(), 80);
        let part = |part| {
            let asked = [&["haproxy", "--part", part], more].concat();
            hearing.site.integration(&asked)
        };
        let (sections, filter) = (part("frontend"), part("filter"));
        let haproxy = Haproxy::start(server, address, &sections, &filter).unwrap();
        Self {
            hearing,
            address,
            haproxy,
            _origin: origin,
        }
    }

    fn ask(&self, line: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.send(&request)
    }

    fn send(&self, request: &str) -> Answer {
        let client = self.hearing.site.client();
        let answer = clients::ask(client, self.address, request.as_bytes(), LATE);
        answer
            .with_context(|| self.haproxy.output().unwrap_or_default())
            .unwrap()
    }

    fn login(&self) -> u16 {
        self.ask("POST /login", "", "user=ann").status
    }
}

#[test]
fn failed_logins_are_counted_and_refused() {
    let proxied = Proxied::new();
    for count in 1..=3 {
        let answer = proxied.ask("POST /login", "", "user=ann");
        assert_eq!(answer.status, 401);
        let left = (3 - count).to_string();
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left.as_str()));
        proxied.hearing.counted("login", count);
    }
    let refused = proxied.ask("POST /login", "", "user=ann");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-limiter"), Some("reject"));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&retry), "{retry}");
    let problem: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(problem["status"], 429, "{problem}");
    // Who is refused is not counted for that, and may read on.
    assert_eq!(proxied.ask("GET /", "", "").status, 200);
    assert_eq!(proxied.hearing.rule("login")["counted"], 3);
    // Who claims to be somebody else is not believed.
    let forged = proxied.ask("POST /login", "X-Forwarded-For: 192.0.2.77\r\n", "");
    assert_eq!(forged.status, 429);
}

/// Neither a long URI nor a header of the origin's hides a failed login.
#[test]
fn no_failed_login_is_hidden() {
    let proxied = Proxied::new();
    let long = format!("POST /login?{}", "a".repeat(12_000));
    assert_eq!(proxied.ask(&long, "", "user=ann").status, 401);
    proxied.hearing.counted("login", 1);
    for count in 2..=3 {
        let answer = proxied.ask("POST /hidden", "", "user=ann");
        assert_eq!((answer.status, answer.header("x-limiter")), (401, None));
        proxied.hearing.counted("login", count);
    }
    // Whose body nobody reads sees why, and is no failure for that.
    for _ in 0..3 {
        let refused = proxied.ask("POST /login", "", &"b".repeat(1_000_000));
        assert_eq!(refused.status, 429);
        assert_eq!(refused.header("x-limiter"), Some("reject"));
    }
    assert_eq!(proxied.hearing.rule("login")["counted"], 3);
}

/// An account in a form is locked wherever the attempts come from; a body that may be read
/// otherwise is no way around that.
#[test]
fn accounts_in_bodies_are_counted() {
    let rules = r#"
[[rule]]
name = "lockout"
requests = ["POST /login"]
failure = { statuses = [401] }
count = "failures"
key = ["account"]
limit = 2
period = "1h"
action = "reject"
for = "1h"
"#;
    let decide = "accounts = { from = ['form:user'] }";
    let proxied = Proxied::start(decide, rules, &[]);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login = |user: &str| {
        let body = format!("password=x&user={user}");
        proxied.ask("POST /login", form, &body).status
    };
    for count in 1..=2 {
        assert_eq!(login("ann"), 401);
        proxied.hearing.counted("lockout", count);
    }
    assert_eq!((login("ANN"), login("bob")), (429, 401));
    let gzip = format!("{form}Content-Encoding: gzip\r\n");
    let long = format!("a={}&user=cid", "a".repeat(5_000));
    let json = "Content-Type: application/json\r\n";
    for (headers, body) in [
        ("", "user=cid"),
        (&gzip, "user=cid"),
        (json, "{\"user\":\"cid\"}"),
        (form, "user=cid&user=dan"),
        (form, &long),
    ] {
        let answer = proxied.ask("POST /login", headers, body);
        let challenged = (403, Some("js_challenge"));
        let got = (answer.status, answer.header("x-limiter"));
        assert_eq!(got, challenged, "{headers} {answer:?}");
    }
    // In chunks nobody knows whether it was all.
    let chunked = format!(
        "POST /login HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{form}\
         Transfer-Encoding: chunked\r\n\r\n8\r\nuser=cid\r\n0\r\n\r\n"
    );
    assert_eq!(proxied.send(&chunked).status, 403);
    // Other requests need not say whose they are, and large ones pass.
    let upload = proxied.ask("POST /upload", "", &"b".repeat(500_000));
    assert_eq!(upload.status, 200);
}

#[test]
fn a_throttled_request_waits_and_comes_through_whole() {
    let proxied = Proxied::new();
    assert_eq!(proxied.ask("GET /slow", "", "").status, 200);
    let begin = Instant::now();
    let answer = proxied.ask("POST /slow", "X-Seen: it\r\n", "user=ann");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, b"it ok\n");
    assert!(begin.elapsed() >= Duration::from_millis(700));
}

#[test]
fn what_the_origin_marks_is_blocked_at_the_nic_and_not_shown() {
    let proxied = Proxied::new();
    for count in 1..=2 {
        let answer = proxied.ask("GET /bad", "", "");
        assert_eq!((answer.status, answer.header("x-cf-block")), (200, None));
        proxied.hearing.counted("marked", count);
    }
    let site = &proxied.hearing.site;
    let client = site.pairs[0].left.ipv4.to_string();
    let block = proxied.hearing.blocked(&client);
    assert_eq!(block["rule"]["rule"], "marked", "{block}");
    let at_most = Duration::from_millis(500);
    assert!(clients::connect(site.client(), proxied.address, at_most).is_err());
    assert!(row(&site.counts(), "- drop block -") >= 1);
}

#[test]
fn failing_closed_refuses_what_limiter_has_not_looked_at() {
    let proxied = Proxied::start("", RULES, &["--fail-closed"]);
    assert_eq!(proxied.ask("GET /", "", "").status, 200);
    let worker = Pid::from_raw(proxied.hearing.worker().cast_signed());
    kill(worker, Signal::SIGSTOP).unwrap();
    let refused = proxied.ask("GET /", "", "");
    kill(worker, Signal::SIGCONT).unwrap();
    assert_eq!(refused.status, 503);
    proxied.hearing.until("limiter to answer again", || {
        (proxied.ask("GET /", "", "").status == 200).then_some(())
    });
}

#[test]
fn who_is_asked_no_more_lets_everybody_pass() {
    let proxied = Proxied::new();
    for count in 1..=3 {
        assert_eq!(proxied.login(), 401);
        proxied.hearing.counted("login", count);
    }
    assert_eq!(proxied.login(), 429);
    let worker = Pid::from_raw(proxied.hearing.worker().cast_signed());
    // One that hangs holds a request up no longer than HAProxy was told.
    kill(worker, Signal::SIGSTOP).unwrap();
    let begin = Instant::now();
    let passed = proxied.login();
    let took = begin.elapsed();
    kill(worker, Signal::SIGCONT).unwrap();
    assert_eq!(passed, 401);
    assert!(
        took >= Duration::from_millis(300) && took < LATE,
        "{took:?}"
    );
    // What does not fit into a frame is not let through unseen: the host is in it twice.
    let (host, rest) = ("a".repeat(7_500), "b".repeat(3_000));
    let large =
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Rest: {rest}\r\nConnection: close\r\n\r\n");
    assert_eq!(proxied.send(&large).status, 431);
    let origins = proxied.hearing.ask(&["origins"]);
    let rows = origins["origins"].as_array().unwrap();
    assert!(
        rows.iter().any(|row| row["name"] == json!("spoe")),
        "{origins}"
    );
    // One that is stopped holds nobody up.
    proxied.hearing.site.daemon.stop().unwrap();
    let times = [(); 5].map(|()| {
        let begin = Instant::now();
        assert_eq!(proxied.login(), 401);
        begin.elapsed()
    });
    assert!(
        times.iter().all(|it| *it < Duration::from_secs(2)),
        "{times:?}"
    );
    proxied.hearing.until("HAProxy to ask no more", || {
        let begin = Instant::now();
        assert_eq!(proxied.login(), 401);
        (begin.elapsed() < Duration::from_millis(300)).then_some(())
    });
}

/// The example of the clients' guide, under the real runtime.
#[test]
fn a_polite_client_waits_and_is_let_through() {
    let proxied = Proxied::new();
    let script = format!(
        "const told = (value) => waitSeconds(new Response('', {{ headers: value }}), 0);\n\
         const answers = [told({{}}), told({{ 'retry-after': '7' }}),\n\
           told({{ 'retry-after': 'Thu, 01 Jan 1970 00:00:09 GMT' }}), told({{ 'retry-after': 'x' }})];\n\
         const url = 'http://{}/brief';\n\
         const first = await fetch(url);\n\
         const refused = await politely(url, {{}}, {{ longestSeconds: 0 }});\n\
         const polite = await politely(url, {{ method: 'POST', body: 'a=b' }});\n\
         console.log(JSON.stringify([answers, first.status, refused.status, polite.status]));\n",
        proxied.address
    );
    let names = "politely, waitSeconds";
    let said = proxied.hearing.program(names, "polite.mjs", &script);
    let said = said.unwrap();
    assert_eq!(said, json!([[null, 7, 9, null], 200, 429, 200]));
}

#[test]
fn a_challenge_is_solved_behind_haproxy() {
    let proxied = Proxied::new();
    let script = format!(
        "const url = 'http://{}/posed';\n\
         const said = [];\n\
         for (const ask of [fetch, fetch, patiently, fetch]) said.push((await ask(url)).status);\n\
         console.log(JSON.stringify(said));\n",
        proxied.address
    );
    let said = proxied.hearing.program("patiently", "solve.mjs", &script);
    assert_eq!(said.unwrap(), json!([200, 403, 200, 403]));
    // What limiter answers itself is not the origin's.
    let solution = "X-Limiter-Solution: a:b\r\n";
    let answer = proxied.ask("POST /.limiter/challenge", solution, "");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.header("x-limiter"), Some("unsolved"), "{answer:?}");
    assert_eq!(proxied.ask("POST /login", "", "").status, 401);
    proxied.hearing.counted("login", 1);
    assert_eq!(proxied.hearing.rule("odd")["counted"], 1);
}
