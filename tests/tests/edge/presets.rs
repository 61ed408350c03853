//! The presets as they are shipped, in front of small origins that behave as the systems do that
//! they are modelled on: what a client gets of nginx, and whether its packets arrive.

use crate::site::{LATE, QUIET, Site};
use anyhow::Context as _;
use limiter_tests::{
    clients::{self, Answer},
    daemon,
    origin::{Asked, Origin, Said},
    process::Scratch,
    servers::Nginx,
    veth::Veth,
    wait,
};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 80;
/// Who is dropped gets no answer, however long they wait.
const DROPPED: Duration = Duration::from_millis(300);

/// A preset at work on a server, and strangers before it.
struct Front {
    site: Site,
    _nginx: Nginx,
    _origin: Origin,
    _scratch: Scratch,
}

impl Front {
    /// `sets`: what its operator changes of the preset.
    fn new(preset: &str, sets: &[&str], say: fn(&Asked) -> Said) -> Self {
        let scratch = Scratch::new().unwrap();
        let policy = |pairs: &[Veth]| policy(preset, sets, &pairs[0].right.name, &scratch);
        let site = Site::governed(&[QUIET], policy);
        let (own, near) = (&site.pairs[0].right, &site.pairs[0].left);
        let strangers = format!(
            "route add 198.51.100.0/24 via {} dev {}",
            near.ipv4, own.name
        );
        own.namespace.ip(&strangers).unwrap();
        let behind = SocketAddr::from(([127, 0, 0, 1], 8080));
        let origin = Origin::start(site.server(), behind, say).unwrap();
        let nginx = nginx(&site);
        Self {
            site,
            _nginx: nginx,
            _origin: origin,
            _scratch: scratch,
        }
    }

    /// Has the client be a stranger with this address.
    fn come_from(&self, source: Ipv4Addr) {
        let (near, far) = (&self.site.pairs[0].left, &self.site.pairs[0].right);
        let address = format!("address replace {source}/32 dev {}", near.name);
        near.namespace.ip(&address).unwrap();
        let route = format!(
            "route replace {}/32 dev {} src {source}",
            far.ipv4, near.name
        );
        near.namespace.ip(&route).unwrap();
    }

    fn to(&self) -> SocketAddr {
        SocketAddr::new(self.site.pairs[0].right.ipv4.into(), PORT)
    }

    fn send(&self, request: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        );
        clients::ask(self.site.client(), self.to(), request.as_bytes(), LATE).unwrap()
    }

    fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "", "")
    }

    /// Asks until limiter refuses; how many answers of the origin there were before.
    fn until_refused(&self, request: &str) -> (usize, Answer) {
        let mut passed = 0;
        wait::until("a refusal", LATE, || {
            let answer = self.send(request, "", "");
            if answer.header("x-limiter").is_some() {
                return Ok(Some((passed, answer)));
            }
            passed += 1;
            Ok(None)
        })
        .unwrap()
    }

    /// Waits until nginx has reported so many requests: before that each counts as failed, where
    /// rules reserve.
    fn reported(&self, requests: u64) {
        wait::until("the reports", LATE, || {
            let origins = self.site.daemon.json(&["origins"])?;
            let rows = origins["origins"].as_array().unwrap().iter();
            let reports = rows.filter(|row| row["origin"] != "check");
            let understood = reports.filter_map(|row| row["understood"].as_u64());
            Ok((understood.sum::<u64>() >= requests).then_some(()))
        })
        .unwrap();
    }

    /// Waits until the source is blocked at the NIC; for how many seconds more.
    fn blocked(&self, source: Ipv4Addr) -> u64 {
        let network = format!("{source}/32");
        wait::until("the block", LATE, || {
            let blocks = self.site.daemon.json(&["block", "list"])?;
            let mut rows = blocks["blocks"].as_array().unwrap().iter();
            let row = rows.find(|row| row["network"] == network.as_str());
            Ok(row.and_then(|row| row["remaining_seconds"].as_u64()))
        })
        .unwrap()
    }

    /// Whether it can no longer connect, and is counted as dropped.
    #[track_caller]
    fn expect_dropped(&self) {
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
    fn let_in(&self, source: Ipv4Addr) {
        let network = source.to_string();
        self.site.daemon.ask(&["block", "del", &network]).unwrap();
        drop(clients::connect(self.site.client(), self.to(), LATE).unwrap());
    }
}

fn stranger(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

/// What `limiter init` prints, at work on `interface`; the daemon of a test has its sockets
/// elsewhere.
fn policy(preset: &str, sets: &[&str], interface: &str, scratch: &Scratch) -> String {
    let own = [
        format!("edge.interfaces=[{interface:?}]"),
        format!("decide.api=unix:{}", scratch.path("api.sock").display()),
        format!(
            "decide.feedback=[{{ unix = {:?}, format = \"nginx-json\" }}]",
            scratch.path("nginx.sock")
        ),
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

/// nginx as `limiter integration` writes it, in front of the origin.
fn nginx(site: &Site) -> Nginx {
    let part = |part| site.integration(&["nginx", "--part", part]);
    let at = SocketAddr::from(([0, 0, 0, 0], PORT));
    let configuration = format!(
        "{}\nserver {{\nlisten {at};\n{}\nlocation / {{\nproxy_pass http://127.0.0.1:8080;\n\
         proxy_set_header Host $host;\n}}\n}}\n",
        part("http"),
        part("server")
    );
    Nginx::start(site.server(), at, &configuration).unwrap()
}

#[track_caller]
fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header);
    let value = value.and_then(|value| value.parse().ok());
    value
        .with_context(|| format!("{header} in {answer:?}"))
        .unwrap()
}

/// Kratos: pages of flows are redirects, a wrong password in an API flow is a 400.
fn kratos(asked: &Asked) -> Said {
    let (request, _) = asked.line.rsplit_once(' ').unwrap_or_default();
    match request {
        "GET /self-service/login/browser" => ("303 See Other\r\nLocation: /login?flow=1", vec![]),
        "POST /self-service/login" if asked.body == b"password=right" => ("200 OK", b"{}".to_vec()),
        "POST /self-service/login" => ("400 Bad Request", b"{\"ui\":{}}".to_vec()),
        _ => ("200 OK", b"{}".to_vec()),
    }
}

/// The rate of a proxy before it is another test's.
const NO_RATE: &str = "rule.kratos-public-rate.burst=1000";

#[test]
fn kratos_lets_pass_by_how_sensitive_an_endpoint_is() {
    let front = Front::new("kratos", &[NO_RATE], kratos);
    for (request, limit, address) in [
        ("GET /sessions/whoami", 60, 1),
        ("GET /self-service/login/browser", 30, 2),
    ] {
        front.come_from(stranger(address));
        let first = front.send(request, "", "");
        assert_eq!(number(&first, "x-ratelimit-limit"), limit, "{first:?}");
        assert_eq!(number(&first, "x-ratelimit-remaining"), limit - 1);
        let (passed, refused) = front.until_refused(request);
        assert_eq!(passed as u64 + 1, limit, "{request}");
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(number(&refused, "x-ratelimit-limit"), limit);
        assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
        assert!(
            (1..=60).contains(&number(&refused, "retry-after")),
            "{refused:?}"
        );
        let body: Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!(body["error"]["code"], 429, "{body}");
        // Whoever came in their place is not concerned.
        front.come_from(stranger(100 + address));
        let other = front.send(request, "", "");
        assert_eq!(number(&other, "x-ratelimit-remaining"), limit - 1);
    }
}

#[test]
fn kratos_exempts_the_internal_network() {
    let front = Front::new("kratos", &[], kratos);
    // From 10.0.0.0/8.
    for _ in 0..70 {
        let answer = front.get("/sessions/whoami");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    front.come_from(stranger(1));
    let (passed, _) = front.until_refused("GET /sessions/whoami");
    assert!(passed < 60, "the rate of a proxy holds strangers: {passed}");
}

#[test]
fn kratos_admin_is_stricter_and_its_port_internal() {
    let front = Front::new("kratos", &["rule.kratos-admin-rate.burst=1000"], kratos);
    let (passed, refused) = front.until_refused("GET /admin/identities");
    assert_eq!(passed, 10);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(number(&refused, "x-ratelimit-limit"), 10);
    // Its own port, for those inside and for strangers.
    let address = SocketAddr::new(front.to().ip(), 4434);
    let listening = front
        .site
        .server()
        .run(|| std::net::TcpListener::bind(address));
    let _listening = listening.unwrap();
    drop(clients::connect(front.site.client(), address, LATE).unwrap());
    front.come_from(stranger(1));
    clients::connect(front.site.client(), address, DROPPED).unwrap_err();
    let counts = front.site.counts();
    assert!(counts["kratos-admin drop not_from -"].0 > 0, "{counts:?}");
}

#[test]
fn kratos_asks_for_a_captcha_after_more_than_three_failures() {
    let front = Front::new("kratos", &[NO_RATE], kratos);
    front.come_from(stranger(1));
    let (failed, challenged) = front.until_refused("POST /self-service/login");
    assert_eq!(failed, 4);
    assert_eq!(challenged.status, 403, "{challenged:?}");
    assert_eq!(challenged.header("x-limiter"), Some("captcha"));
    // Nobody else is asked, and nothing else.
    assert_eq!(front.get("/sessions/whoami").status, 200);
    front.come_from(stranger(2));
    let other = front.send("POST /self-service/login", "", "password=right");
    assert_eq!(other.status, 200, "{other:?}");
}

/// The origin names who is to be blocked.
fn signals(asked: &Asked) -> Said {
    let path = asked.line.split(' ').nth(1).unwrap_or_default();
    match path {
        "/low" => ("200 OK\r\nX-CF-Block: low", vec![]),
        "/medium" => ("200 OK\r\nX-CF-Block: Medium", vec![]),
        "/high" => ("200 OK\r\nx-cf-block: HIGH", vec![]),
        _ => ("200 OK", b"welcome".to_vec()),
    }
}

#[test]
fn an_origin_that_says_so_has_sources_dropped() {
    let front = Front::new("cloudflare-headers", &[], signals);
    for (path, minutes, source) in [
        ("/low", 5, stranger(1)),
        ("/medium", 15, stranger(2)),
        ("/high", 60, stranger(3)),
    ] {
        front.come_from(source);
        assert_eq!(front.get("/").body, b"welcome");
        let answer = front.get(path);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-cf-block"), None, "{answer:?}");
        let left = front.blocked(source);
        let full = minutes * 60;
        assert!((full - 60..=full).contains(&left), "{path}: {left} s");
        front.expect_dropped();
    }
    // The others go on, and who is let in again too.
    front.come_from(stranger(4));
    assert_eq!(front.get("/").status, 200);
    front.come_from(stranger(1));
    front.let_in(stranger(1));
    assert_eq!(front.get("/").status, 200);
}

/// OpenSearch: 401 unless the password is right.
fn opensearch(asked: &Asked) -> Said {
    // admin:right
    let right = (
        "authorization".to_owned(),
        "Basic YWRtaW46cmlnaHQ=".to_owned(),
    );
    if asked.headers.contains(&right) {
        ("200 OK", b"{\"cluster_name\":\"logs\"}".to_vec())
    } else {
        let head = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"OpenSearch Security\"";
        (head, b"Unauthorized".to_vec())
    }
}

#[test]
fn opensearch_blocks_an_address_after_one_failure() {
    let front = Front::new("opensearch", &[], opensearch);
    let [right, wrong] =
        ["YWRtaW46cmlnaHQ=", "YWRtaW46d3Jvbmc="].map(|it| format!("Authorization: Basic {it}\r\n"));
    let source = stranger(1);
    front.come_from(source);
    assert_eq!(front.send("GET /_cluster/health", &right, "").status, 200);
    front.reported(1);
    // What a browser asks first has no credentials, and is no failed login.
    for before in 1..=5 {
        let answer = front.get("/_cluster/health");
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.body, b"Unauthorized", "{answer:?}");
        front.reported(before + 1);
    }
    assert_eq!(front.send("GET /_cluster/health", &wrong, "").status, 401);
    let left = front.blocked(source);
    assert!((120..=180).contains(&left), "{left} s");
    front.expect_dropped();
    front.come_from(stranger(2));
    assert_eq!(front.send("GET /_cluster/health", &right, "").status, 200);
}

/// With the listener by address only counting, and that by name as the preset says where only
/// a proxy reports.
#[test]
fn opensearch_refuses_a_name_after_three_failures() {
    let listener = "internal_authentication_backend_limiting";
    let backends = format!("rule.{listener}.backends=[]");
    let sets = ["rule.ip_rate_limiting.simulate=true", &backends];
    let front = Front::new("opensearch", &sets, opensearch);
    // admin:wrong, bob:wrong
    let [admin, bob] =
        ["YWRtaW46d3Jvbmc=", "Ym9iOndyb25n"].map(|it| format!("Authorization: Basic {it}\r\n"));
    let login = |name: &str| front.send("GET /_cluster/health", name, "");
    for _ in 0..3 {
        assert_eq!(login(&admin).body, b"Unauthorized");
    }
    // It looks like a wrong password, to whoever comes.
    front.come_from(stranger(1));
    let refused = login(&admin);
    assert_eq!((refused.status, &refused.body[..]), (401, &b""[..]));
    assert_eq!(login(&bob).body, b"Unauthorized");
}

/// A page that takes passwords and answers 200 to all, as the seed's does.
fn page(_: &Asked) -> Said {
    ("200 OK", b"<form>".to_vec())
}

#[test]
fn a_login_page_takes_five_attempts_and_drops_after_the_sixth() {
    let front = Front::new("protect-login", &["path=/signin"], page);
    let source = stranger(1);
    front.come_from(source);
    for _ in 0..6 {
        let answer = front.send("POST /signin", "", "user=ann&password=x");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let left = front.blocked(source);
    assert!((840..=900).contains(&left), "{left} s");
    front.expect_dropped();
    front.come_from(stranger(2));
    assert_eq!(front.get("/signin").status, 200);
}

#[test]
fn boruta_passes_ten_has_clients_wait_and_refuses_from_five_seconds_on() {
    let front = Front::new("boruta", &[], page);
    front.come_from(stranger(1));
    // Whoever asks for one after the other is slowed down and never refused.
    let slowed = (0..30).any(|_| {
        let asked = Instant::now();
        let answer = front.get("/oauth/authorize");
        assert_eq!(answer.status, 200, "{answer:?}");
        asked.elapsed() >= Duration::from_millis(400)
    });
    assert!(slowed);
    // Whoever asks for many at once is, since what waits does not count before it has waited.
    let refused = wait::until("a refusal", LATE, || {
        let answers = thread::scope(|scope| {
            let asking = [(); 16].map(|()| scope.spawn(|| front.get("/oauth/authorize")));
            asking.map(|thread| thread.join().unwrap())
        });
        Ok(answers.into_iter().find(|answer| answer.status == 429))
    });
    let refused = refused.unwrap();
    assert_eq!(refused.header("x-limiter"), Some("reject"), "{refused:?}");
    assert_eq!(refused.body, b"", "{refused:?}");
}
