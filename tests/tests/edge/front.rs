//! A preset as it is shipped, at work before an origin: what a client gets of the proxy between
//! them, and whether its packets arrive.

use crate::site::{LATE, QUIET, Site};
use anyhow::Context as _;
use limiter_tests::{
    clients::{self, Answer},
    daemon,
    origin::{Asked, Origin, Said},
    process::Scratch,
    servers::{Caddy, Haproxy, Nginx},
    veth::Veth,
    wait,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const PORT: u16 = 80;
/// Who is dropped gets no answer, however long they wait.
pub(crate) const DROPPED: Duration = Duration::from_millis(300);

/// What stands before the origin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Caddy,
    Haproxy,
}

/// It ends with the test.
#[expect(dead_code, reason = "they are held, and nobody asks them")]
enum Proxy {
    Nginx(Nginx),
    Caddy(Caddy),
    Haproxy(Haproxy),
}

/// A preset at work on a server, and strangers before it.
pub(crate) struct Front {
    pub(crate) site: Site,
    kind: Kind,
    _proxy: Proxy,
    _origin: Origin,
    _scratch: Scratch,
    /// What the proxy will have reported, once all has come.
    reports: AtomicU64,
    /// What its client has solved.
    cookies: Mutex<String>,
}

impl Front {
    /// Behind nginx; `sets`: what its operator changes of the preset.
    pub(crate) fn new(preset: &str, sets: &[&str], say: fn(&Asked) -> Said) -> Self {
        Self::behind(Kind::Nginx, preset, sets, say)
    }

    pub(crate) fn behind(kind: Kind, preset: &str, sets: &[&str], say: fn(&Asked) -> Said) -> Self {
        let scratch = Scratch::new().unwrap();
        let policy = |pairs: &[Veth]| policy(kind, preset, sets, &pairs[0].right.name, &scratch);
        let site = Site::governed(&[QUIET], policy);
        let (own, near) = (&site.pairs[0].right, &site.pairs[0].left);
        let strangers = format!(
            "route add 198.51.100.0/24 via {} dev {}",
            near.ipv4, own.name
        );
        own.namespace.ip(&strangers).unwrap();
        let behind = SocketAddr::from(([127, 0, 0, 1], 8080));
        let origin = Origin::start(site.server(), behind, say).unwrap();
        let proxy = match kind {
            Kind::Nginx => Proxy::Nginx(nginx(&site)),
            Kind::Caddy => Proxy::Caddy(caddy(&site)),
            Kind::Haproxy => Proxy::Haproxy(haproxy(&site)),
        };
        let front = Self {
            site,
            kind,
            _proxy: proxy,
            _origin: origin,
            _scratch: scratch,
            reports: AtomicU64::new(0),
            cookies: Mutex::default(),
        };
        if kind == Kind::Caddy {
            front.is_followed();
        }
        front
    }

    /// Waits until its log is followed, which is there from the first request on: what was written
    /// before is not read.
    fn is_followed(&self) {
        self.raw("GET /", "", "");
        wait::until("the log to be followed", LATE, || {
            let origins = self.site.daemon.json(&["origins"])?;
            let mut rows = origins["origins"].as_array().unwrap().iter();
            let log = rows.find(|row| row["name"].as_str().unwrap().starts_with("log:"));
            let is_read = log.is_some_and(|row| row["trouble"].is_null());
            Ok(is_read.then_some(()))
        })
        .unwrap();
    }

    /// Has the client be a stranger with this address.
    pub(crate) fn come_from(&self, source: Ipv4Addr) {
        let (near, far) = (&self.site.pairs[0].left, &self.site.pairs[0].right);
        let address = format!("address replace {source}/32 dev {}", near.name);
        near.namespace.ip(&address).unwrap();
        let route = format!(
            "route replace {}/32 dev {} src {source}",
            far.ipv4, near.name
        );
        near.namespace.ip(&route).unwrap();
        self.cookies.lock().unwrap().clear();
    }

    pub(crate) fn to(&self) -> SocketAddr {
        SocketAddr::new(self.site.pairs[0].right.ipv4.into(), PORT)
    }

    fn raw(&self, request: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let host = if headers.contains("Host: ") {
            ""
        } else {
            "Host: example.com\r\n"
        };
        let request = format!(
            "{request} HTTP/1.1\r\n{host}Connection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        );
        clients::ask(self.site.client(), self.to(), request.as_bytes(), LATE).unwrap()
    }

    pub(crate) fn send(&self, request: &str, headers: &str, body: &str) -> Answer {
        let cookies = self.cookies.lock().unwrap().clone();
        let answer = self.raw(request, &format!("{cookies}{headers}"), body);
        let is_own = answer.header("x-limiter").is_some();
        // Over SPOE the question is one too, and what limiter answers is no report.
        let reports = match self.kind {
            Kind::Haproxy => 1 + u64::from(!is_own),
            Kind::Nginx | Kind::Caddy => 1,
        };
        self.reports.fetch_add(reports, Ordering::Relaxed);
        answer
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "", "")
    }

    /// Asks until limiter refuses; how many answers of the origin there were before.
    pub(crate) fn until_refused(&self, request: &str) -> (usize, Answer) {
        self.until_refused_with(request, "")
    }

    /// The same with headers.
    pub(crate) fn until_refused_with(&self, request: &str, headers: &str) -> (usize, Answer) {
        let mut passed = 0;
        wait::until("a refusal", LATE, || {
            let answer = self.send(request, headers, "");
            if answer.header("x-limiter").is_some() {
                return Ok(Some((passed, answer)));
            }
            passed += 1;
            Ok(None)
        })
        .unwrap()
    }

    /// Asks so often that the origin has answered so many times, and solves every challenge in
    /// between: after how many answers which was posed.
    pub(crate) fn climb(&self, request: &str, headers: &str, times: usize) -> Vec<(usize, String)> {
        let (mut passed, mut posed) = (0, Vec::new());
        while passed < times {
            let answer = self.send(request, headers, "");
            let challenge = answer.header("x-limiter");
            passed += usize::from(challenge.is_none());
            // A few that are not reported yet count as failed, and reach no limit.
            if challenge.is_some() || passed % 3 == 0 || passed == times {
                self.settle();
            }
            if let Some(challenge) = challenge {
                posed.push((passed, challenge.to_owned()));
                self.solve(&answer);
            }
        }
        posed
    }

    /// Solves a challenge, and has the client bring the clearance from now on.
    pub(crate) fn solve(&self, posed: &Answer) {
        let said: Value = serde_json::from_slice(&posed.body)
            .with_context(|| format!("{posed:?}"))
            .unwrap();
        let puzzle = &said["puzzle"];
        let text = |key: &str| puzzle[key].as_str().unwrap().to_owned();
        let (seed, bits) = (text("seed"), puzzle["zero_bits"].as_u64().unwrap());
        let solves = |number: &u64| {
            let hash = Sha256::digest(format!("{seed}:{number}"));
            let first = u64::from_be_bytes(hash[..8].try_into().unwrap());
            u64::from(first.leading_zeros()) >= bits
        };
        let number = (0..).find(solves).unwrap();
        let solution = format!("{}: {}:{number}\r\n", text("header"), text("token"));
        let answer = self.raw(&format!("POST {}", text("path")), &solution, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        if self.kind != Kind::Haproxy {
            self.reports.fetch_add(1, Ordering::Relaxed);
        }
        let set = answer
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie");
        let mut cookies = self.cookies.lock().unwrap();
        for (_, cookie) in set {
            let (pair, _) = cookie.split_once(';').unwrap();
            cookies.push_str(&format!("Cookie: {pair}\r\n"));
        }
    }

    /// Waits until the proxy has reported all: before that each request counts as failed, where
    /// rules reserve.
    pub(crate) fn settle(&self) {
        wait::until("the reports", LATE, || {
            Ok((self.reported() >= self.reports.load(Ordering::Relaxed)).then_some(()))
        })
        .unwrap();
    }

    fn reported(&self) -> u64 {
        let origins = self.site.daemon.json(&["origins"]).unwrap();
        let rows = origins["origins"].as_array().unwrap().iter();
        let reports = rows.filter(|row| row["name"] != "check");
        let understood = reports.filter_map(|row| row["understood"].as_u64());
        understood.sum()
    }

    /// Waits until the source is blocked at the NIC; for how many seconds more.
    pub(crate) fn blocked(&self, source: Ipv4Addr) -> u64 {
        let network = format!("{source}/32");
        wait::until("the block", LATE, || {
            let blocks = self.site.daemon.json(&["block", "list"])?;
            let mut rows = blocks["blocks"].as_array().unwrap().iter();
            let row = rows.find(|row| row["network"] == network.as_str());
            Ok(row.and_then(|row| row["remaining_seconds"].as_u64()))
        })
        .unwrap()
    }

    /// That the source is blocked at the NIC for so long from now, can no longer connect, and is
    /// counted as dropped.
    #[track_caller]
    pub(crate) fn expect_blocked(&self, source: Ipv4Addr, minutes: u64) {
        let (left, full) = (self.blocked(source), minutes * 60);
        assert!((full - 60..=full).contains(&left), "{left} s");
        let before = self.dropped();
        clients::connect(self.site.client(), self.to(), DROPPED).unwrap_err();
        assert!(self.dropped() > before);
    }

    fn dropped(&self) -> u64 {
        let counts = self.site.counts();
        counts
            .get("- drop block -")
            .map_or(0, |(packets, _)| *packets)
    }

    /// Ends a block; after that it comes through again.
    #[track_caller]
    pub(crate) fn let_in(&self, source: Ipv4Addr) {
        let network = source.to_string();
        self.site.daemon.ask(&["block", "del", &network]).unwrap();
        drop(clients::connect(self.site.client(), self.to(), LATE).unwrap());
    }
}

pub(crate) fn stranger(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

/// What `limiter init` prints, at work on `interface`; the daemon of a test has its sockets
/// elsewhere.
fn policy(kind: Kind, preset: &str, sets: &[&str], interface: &str, scratch: &Scratch) -> String {
    let file = |name: &str| scratch.path(name).display().to_string();
    let reports = match kind {
        Kind::Nginx => format!(
            "decide.feedback=[{{ unix = {:?}, format = \"nginx-json\" }}]",
            file("nginx.sock")
        ),
        Kind::Caddy => format!(
            "decide.logs=[{{ path = {:?}, format = \"caddy\" }}]",
            file("caddy.json")
        ),
        Kind::Haproxy => "decide.spoe=127.0.0.1:4482".to_owned(),
    };
    let own = [
        format!("edge.interfaces=[{interface:?}]"),
        format!("decide.api=unix:{}", file("api.sock")),
        reports,
    ];
    let mut command = Command::new(daemon::program().unwrap());
    command.args(["init", "--preset", preset]);
    for set in own.iter().map(String::as_str).chain(sets.iter().copied()) {
        command.args(["--set", set]);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut section = "";
    let lines = text.lines().filter(|line| {
        if line.starts_with('[') {
            section = line;
        }
        !matches!(section, "[control]" | "[state]")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// nginx as `limiter integration` writes it, in front of the origin; its own floor under guesses
/// is another test's.
fn nginx(site: &Site) -> Nginx {
    let part = |part| site.integration(&["nginx", "--part", part]);
    let at = SocketAddr::from(([0, 0, 0, 0], PORT));
    let configuration = format!(
        "{}\nserver {{\nlisten {at};\n{}\nlocation / {{\nproxy_pass http://127.0.0.1:8080;\n\
         proxy_set_header Host $host;\n}}\n}}\n",
        part("http"),
        part("server").replace("burst=20 nodelay", "burst=1000 nodelay")
    );
    Nginx::start(site.server(), at, &configuration).unwrap()
}

fn caddy(site: &Site) -> Caddy {
    let at = SocketAddr::from(([0, 0, 0, 0], PORT));
    Caddy::start(site.server(), at, &site.integration(&["caddy"])).unwrap()
}

fn haproxy(site: &Site) -> Haproxy {
    let at = SocketAddr::new(site.pairs[0].right.ipv4.into(), PORT);
    let part = |part| site.integration(&["haproxy", "--part", part]);
    Haproxy::start(site.server(), at, &part("frontend"), &part("filter")).unwrap()
}

#[track_caller]
pub(crate) fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header);
    let value = value.and_then(|value| value.parse().ok());
    value
        .with_context(|| format!("{header} in {answer:?}"))
        .unwrap()
}
