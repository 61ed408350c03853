//! Real proxies in front of an application, configured by `limiter integration`: what a
//! client gets.

use crate::{hearing::Hearing, site::LATE};
use limiter_tests::{
    clients::{self, Answer},
    netns::Namespace,
    origin::{Asked, Origin, Said},
    process::Scratch,
    servers::{Caddy, Nginx},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Where the proxy listens, and the application behind it.
const PORT: u16 = 80;
const BEHIND: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// A site behind a proxy that asks.
struct Guarded {
    hearing: Hearing,
    proxy: Proxy,
    origin: Origin,
}

enum Proxy {
    Nginx(Nginx),
    Caddy(Caddy),
}

impl Guarded {
    fn nginx(decide: &str, rules: &str, more: &[&str]) -> Self {
        Self::new(decide, rules, |hearing, at| {
            let part = |part| configuration(hearing, &[&["nginx", "--part", part], more].concat());
            let configuration = format!(
                "{}\nserver {{\nlisten {at};\n\
                 large_client_header_buffers 8 8k;\nclient_max_body_size 16m;\n{}\nlocation / {{\n\
                 proxy_pass http://127.0.0.1:8080;\nproxy_set_header Host $host;\n}}\n\
                 location /files/ {{ try_files /none /other/none /echo; }}\n\
                 location /broken {{\nproxy_pass http://127.0.0.1:9;\n\
                 error_page 403 = @limiter_answer;\nerror_page 502 /sorry;\n}}\n}}\n",
                part("http"),
                part("server")
            );
            // Who asks this host by an address of its own comes from there.
            let own = format!("server {}:", hearing.site.pairs[0].right.ipv4);
            let configuration = configuration.replace("server 0.0.0.0:", &own);
            let server = hearing.site.server();
            Proxy::Nginx(Nginx::start(server, at, &configuration).unwrap())
        })
    }

    /// Its log has to be one that the policy names.
    fn caddy(decide: &str, rules: &str, more: &[&str]) -> Self {
        Self::new(decide, rules, |hearing, at| {
            let site = configuration(hearing, &[&["caddy"], more].concat());
            Proxy::Caddy(Caddy::start(hearing.site.server(), at, &site).unwrap())
        })
    }

    fn new(decide: &str, rules: &str, start: impl Fn(&Hearing, SocketAddr) -> Proxy) -> Self {
        let hearing = Hearing::new("", decide, rules);
        let origin = Origin::start(hearing.site.server(), SocketAddr::from(BEHIND), say).unwrap();
        let proxy = start(&hearing, SocketAddr::from(([0, 0, 0, 0], PORT)));
        Self {
            hearing,
            proxy,
            origin,
        }
    }

    fn client(&self) -> &Namespace {
        self.hearing.site.client()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.hearing.site.pairs[0].right.ipv4.into(), PORT)
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let to = self.address();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        );
        clients::ask(self.client(), to, request.as_bytes(), LATE).unwrap()
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    /// What the proxy complains of.
    fn errors(&self) -> String {
        match &self.proxy {
            Proxy::Nginx(nginx) => nginx.log("error.log").unwrap(),
            Proxy::Caddy(caddy) => caddy.log().unwrap(),
        }
    }

    #[track_caller]
    fn expect(&self, answer: &Answer, status: u16) {
        let errors = self.errors();
        let log = self.hearing.site.daemon.log().unwrap();
        assert_eq!(answer.status, status, "{answer:?}\n{errors}\n{log}");
    }
}

/// What `limiter integration` writes for the site's policy.
pub(crate) fn configuration(hearing: &Hearing, arguments: &[&str]) -> String {
    hearing.site.integration(arguments)
}

/// `/login` fails; what begins with `/signal` says so to limiter; all else echoes.
fn say(asked: &Asked) -> Said {
    let path = asked.line.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/login") {
        ("401 Unauthorized\r\nX-Limiter: pass", b"no".to_vec())
    } else if path.starts_with("/signal") {
        ("200 OK\r\nX-CF-Block: low", b"yes".to_vec())
    } else {
        ("200 OK", asked.body.clone())
    }
}

const ALL: &str = r#"
[[rule]]
name = "all"
limit = 3
period = "1h"
action = "reject"
for = "1h"
response = { body = "ory-json" }
"#;

#[test]
fn nginx_gives_the_limit_and_the_final_answer() {
    let guarded = Guarded::nginx("", ALL, &[]);
    for left in ["2", "1", "0"] {
        // Who spoofs headers counts as himself.
        let spoofed = format!(
            "X-Forwarded-For: 203.0.113.{left}\r\nX-Limiter-Peer: 203.0.113.{left}\r\n\
             X-Limiter-Verdict: action=throttle\r\nX-Limiter-Method: OPTIONS\r\n"
        );
        let answer = guarded.send("GET", "/page?a=1", &spoofed, "");
        guarded.expect(&answer, 200);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"), "{answer:?}");
        assert_eq!(
            answer.header("x-ratelimit-remaining"),
            Some(left),
            "{answer:?}"
        );
        assert!(
            answer.header("access-control-expose-headers").is_some(),
            "{answer:?}"
        );
    }
    for method in ["GET", "POST", "HEAD"] {
        let answer = guarded.send(method, "/page", "X-Forwarded-For: 203.0.113.9\r\n", "a=b");
        guarded.expect(&answer, 429);
        let retry: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3_500..=3_600).contains(&retry), "{answer:?}");
        assert_eq!(
            answer.header("cache-control"),
            Some("no-store"),
            "{answer:?}"
        );
        assert_eq!(answer.header("x-limiter"), Some("reject"), "{answer:?}");
        assert_eq!(answer.header("x-limiter-verdict"), None, "{answer:?}");
        let limits = answer
            .headers
            .iter()
            .filter(|(name, _)| name == "x-ratelimit-limit");
        assert_eq!(limits.count(), 1, "{answer:?}");
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(
            body.contains("rate_limit_exceeded"),
            method != "HEAD",
            "{body}"
        );
    }
    // Whose body nobody reads sees why.
    let answer = guarded.send("POST", "/page", "", &"b".repeat(1_000_000));
    guarded.expect(&answer, 429);
    // A preflight passes all the same.
    let preflight = "Origin: https://example.org\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = guarded.send("OPTIONS", "/page", preflight, "");
    guarded.expect(&answer, 200);
    let lines: Vec<String> = guarded
        .origin
        .asked()
        .into_iter()
        .map(|it| it.line)
        .collect();
    let page = "GET /page?a=1 HTTP/1.0".to_owned();
    let expected = [
        page.clone(),
        page.clone(),
        page,
        "OPTIONS /page HTTP/1.0".to_owned(),
    ];
    assert_eq!(lines, expected);
    guarded.hearing.counted("all", 3);
}

#[test]
fn failed_logins_are_reported_by_nginx_and_refused_after() {
    let rules = r#"
[[rule]]
name = "login"
requests = ["POST /login"]
count = { statuses = [401, 403, 429] }
limit = 3
period = "1h"
action = "reject"
for = "1h"
[[rule]]
name = "signal"
requests = ["/signal*"]
count = { response_header = { name = "X-CF-Block", value = "low" } }
limit = 2
period = "1h"
action = "block"
for = "1h"
"#;
    let decide = "local_proxy = false";
    let guarded = Guarded::nginx(decide, rules, &[]);
    let login = || guarded.send("POST", "/login", "", "user=ann");
    for _ in 0..3 {
        let answer = login();
        guarded.expect(&answer, 401);
        assert_eq!(answer.header("x-limiter"), None, "{answer:?}");
    }
    guarded.hearing.counted("login", 3);
    for _ in 0..3 {
        guarded.expect(&login(), 429);
    }
    // What limiter has answered itself counts as nothing; other requests pass.
    for _ in 0..2 {
        let answer = guarded.get("/signal");
        guarded.expect(&answer, 200);
        assert_eq!(answer.header("x-cf-block"), None, "{answer:?}");
    }
    guarded.hearing.counted("signal", 2);
    guarded.hearing.counted("login", 3);
    let answer = guarded.get("/elsewhere");
    guarded.expect(&answer, 403);
    assert_eq!(answer.header("x-limiter"), Some("block"), "{answer:?}");
}

/// Neither nginx' own refusals nor what a client makes long hides or makes a failure.
#[test]
fn what_nginx_reports_is_whole_and_the_origins() {
    let rules = r#"
[[rule]]
name = "login"
requests = ["POST /login*"]
count = { statuses = [401, 429] }
reserve = false
limit = 100
period = "1h"
action = "reject"
"#;
    let decide =
        "feedback = [{ udp = '127.0.0.1:4484', from = ['127.0.0.1'], format = 'nginx-json' }]";
    let guarded = Guarded::nginx(decide, rules, &[]);
    // 36 KB of quotes, each of which nginx escapes.
    let quotes = "\"".repeat(8_000);
    let long = format!("X-Forwarded-For: {quotes}\r\n").repeat(3);
    let long = format!(
        "{long}Access-Control-Request-Method: {}\r\n",
        &quotes[..4_000]
    );
    let path = format!("/login?{quotes}");
    for count in 1..=2 {
        guarded.expect(&guarded.send("POST", &path, &long, ""), 401);
        guarded.hearing.counted("login", count);
    }
    // The floor takes 20 at once, and refuses then without asking.
    let refused = (0..60).filter(|_| guarded.send("POST", "/login%0a", "", "").status == 429);
    let refused = refused.count() as u64;
    assert!(refused > 0);
    guarded.hearing.counted("login", 62 - refused);
}

/// A proxy that may not ask is as one without limiter, until a reload lets it.
#[test]
fn who_may_not_ask_is_not_refused() {
    const EVERYWHERE: &str = "listen = '0.0.0.0:4480'";
    let closed = Guarded::nginx(EVERYWHERE, ALL, &["--fail-closed"]);
    closed.expect(&closed.get("/"), 503);
    drop(closed);
    let open = Guarded::nginx(EVERYWHERE, ALL, &["--fail-open"]);
    for _ in 0..5 {
        open.expect(&open.get("/"), 200);
    }
    // What nobody was asked about counts when it is reported.
    open.hearing.counted("all", 5);
    let status = open.hearing.ask(&["status"]).to_string();
    assert!(
        status.contains("somebody has asked within the hour who may not"),
        "{status}"
    );
    let log = open.hearing.site.daemon.log().unwrap();
    assert!(log.contains("no trusted proxy"), "{log}");
    let own = open.hearing.site.pairs[0].right.ipv4;
    let decide = format!("{EVERYWHERE}\ntrusted_proxies = ['{own}/32']");
    let policy = open.hearing.policy("", &decide, ALL);
    open.hearing.site.daemon.write_policy(&policy).unwrap();
    open.hearing.site.daemon.ask(&["reload"]).unwrap();
    open.hearing.until("nginx to be heard", || {
        (open.get("/").status == 429).then_some(())
    });
}

/// nginx asks again where it redirects a request inside.
#[test]
fn what_nginx_redirects_counts_once_and_is_no_failure() {
    let rules = r#"
[[rule]]
name = "login"
requests = ["POST /files/login", "POST /broken"]
count = { statuses = [401] }
limit = 2
period = "1h"
action = "reject"
[[rule]]
name = "all"
limit = 6
period = "1h"
action = "reject"
"#;
    let guarded = Guarded::nginx("", rules, &[]);
    for sent in 1..=6 {
        let path = ["/broken", "/files/login"][sent as usize % 2];
        let answer = guarded.send("POST", path, "", "user=ann");
        let status = if path == "/broken" { 502 } else { 200 };
        guarded.expect(&answer, status);
        assert_eq!(answer.body, b"user=ann", "{answer:?}");
        // Until its report is there, it counts as failed.
        guarded.hearing.until("the report", || {
            let origins = guarded.hearing.ask(&["origins"]);
            let rows = origins["origins"].as_array()?.iter();
            let reports = rows.filter(|row| row["name"] != "check");
            let understood = reports.filter_map(|row| row["understood"].as_u64());
            (understood.sum::<u64>() >= sent).then_some(())
        });
    }
    guarded.hearing.counted("all", 6);
    assert_eq!(guarded.hearing.rule("login")["counted"], 0);
    guarded.expect(&guarded.get("/files/"), 429);
}

const SLOW: &str = r#"
[[rule]]
name = "slow"
limit = 1
period = "1h"
action = "throttle"
wait = 700
"#;

#[test]
fn who_is_throttled_waits_at_nginx_and_keeps_his_body() {
    let scratch = Scratch::new().unwrap();
    waits(&Guarded::nginx(&on_socket(&scratch), SLOW, &[]), "HTTP/1.0");
}

#[test]
fn who_is_throttled_waits_at_caddy_and_keeps_his_body() {
    let scratch = Scratch::new().unwrap();
    waits(&Guarded::caddy(&on_socket(&scratch), SLOW, &[]), "HTTP/1.1");
}

/// That it is asked over a Unix socket.
fn on_socket(scratch: &Scratch) -> String {
    let path = scratch.path("check.sock").display().to_string();
    format!("listen = {:?}", format!("unix:{path}"))
}

fn waits(guarded: &Guarded, version: &str) {
    let post = || {
        let began = Instant::now();
        let forged = "X-Limiter-Verdict: action=throttle&delay=1\r\n";
        let answer = guarded.send("POST", "/echo?a=%2Fb", forged, "the whole body");
        guarded.expect(&answer, 200);
        assert_eq!(answer.body, b"the whole body", "{answer:?}");
        began.elapsed()
    };
    let _first = post();
    assert!(post() >= Duration::from_millis(700));
    let asked = guarded.origin.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for asked in asked {
        assert_eq!(
            asked.line,
            format!("POST /echo?a=%2Fb {version}"),
            "{asked:?}"
        );
        assert_eq!(asked.body, b"the whole body", "{asked:?}");
    }
}

#[test]
fn a_trusted_proxy_before_nginx_names_the_client() {
    let guarded = Guarded::nginx("trusted_proxies = ['10.1.0.1/32']", ALL, &[]);
    let of = |forwarded: &str| {
        let header = format!("X-Forwarded-For: {forwarded}\r\n");
        guarded.send("GET", "/", &header, "")
    };
    for n in 0..3 {
        guarded.expect(&of(&format!("198.51.100.{n}, 203.0.113.7")), 200);
    }
    guarded.expect(&of("203.0.113.7"), 429);
    guarded.expect(&of("203.0.113.7, 203.0.113.8"), 200);
}

#[test]
fn without_limiter_nginx_does_what_was_chosen() {
    let open = Guarded::nginx("", ALL, &["--fail-open"]);
    open.expect(&open.get("/"), 200);
    // Stopped, it does not answer, and within 300 ms nginx goes on.
    let worker = open.hearing.worker().to_string();
    open.hearing.site.daemon.signal(libc::SIGSTOP).unwrap();
    let signal = |word: &str| {
        let server = open.hearing.site.server();
        server.output("kill", &[word, &worker]).map(drop).unwrap();
    };
    signal("-STOP");
    for _ in 0..5 {
        open.expect(&open.get("/"), 200);
    }
    let errors = open.errors();
    assert!(errors.contains("upstream timed out"), "{errors}");
    signal("-CONT");
    open.hearing.site.daemon.signal(libc::SIGCONT).unwrap();
    open.hearing.site.daemon.stop().unwrap();
    for _ in 0..5 {
        open.expect(&open.get("/"), 200);
    }
    drop(open);

    let closed = Guarded::nginx("", ALL, &["--fail-closed"]);
    closed.expect(&closed.get("/"), 200);
    closed.hearing.site.daemon.stop().unwrap();
    let answer = closed.get("/");
    closed.expect(&answer, 503);
    assert_eq!(answer.header("retry-after"), Some("5"), "{answer:?}");
    assert_eq!(answer.header("x-limiter"), Some("away"), "{answer:?}");
    assert_eq!(closed.origin.asked().len(), 1);
}

#[test]
fn caddy_gives_the_final_answer_and_reports() {
    let scratch = Scratch::new().unwrap();
    let log = scratch.path("access.json").display().to_string();
    let decide = format!("logs = [{{ path = {log:?}, format = \"caddy\" }}]");
    let login = r#"
[[rule]]
name = "login"
requests = ["POST /login"]
count = { statuses = [401, 429] }
limit = 2
period = "1h"
action = "reject"
for = "1h"
"#;
    let guarded = Guarded::caddy(&decide, &format!("{login}{ALL}"), &["--fail-closed"]);
    let post = |path: &str| {
        let spoofed = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Method: GET\r\n";
        guarded.send("POST", path, spoofed, "the whole body")
    };
    let answer = post("/echo");
    guarded.expect(&answer, 200);
    assert_eq!(answer.body, b"the whole body", "{answer:?}");
    assert_eq!(answer.header("x-ratelimit-limit"), Some("3"), "{answer:?}");
    let left = answer.header("x-ratelimit-remaining");
    assert_eq!(left, Some("2"), "{answer:?}");
    // The log is read from where it ends when it is first found.
    guarded.hearing.until("the log to be followed", || {
        let origins = guarded.hearing.ask(&["origins"]);
        let rows = origins["origins"].as_array()?;
        let row = rows
            .iter()
            .find(|row| row["name"] == format!("log:{log}"))?;
        row["trouble"].is_null().then_some(())
    });
    for _ in 0..2 {
        guarded.expect(&post("/login"), 401);
    }
    guarded.hearing.counted("login", 2);
    // Asked about and reported, a request counts once.
    assert_eq!(guarded.hearing.rule("all")["counted"], 3);
    for method in ["POST", "HEAD"] {
        let answer = guarded.send(method, "/login", "", "");
        guarded.expect(&answer, 429);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert_eq!(answer.header("x-limiter"), Some("reject"), "{answer:?}");
        assert_eq!(answer.body.is_empty(), method == "HEAD", "{answer:?}");
    }
    assert_eq!(guarded.origin.asked().len(), 3);
    guarded.hearing.site.daemon.stop().unwrap();
    let answer = post("/echo");
    guarded.expect(&answer, 503);
    assert_eq!(answer.header("retry-after"), Some("5"), "{answer:?}");
    assert_eq!(guarded.origin.asked().len(), 3);
}

/// Where requests pass without limiter, none passes because limiter cannot take its head.
#[test]
fn a_large_head_does_not_pass_unseen() {
    let lines = |count| -> String {
        let lines = (0..count).map(|n| format!("X-Filler-{n}: 1\r\n"));
        lines.collect()
    };
    let rules = ALL.replace("limit = 3", "limit = 1");
    let caddy = Guarded::caddy("", &rules, &["--fail-open"]);
    let nginx = Guarded::nginx("", &rules, &["--fail-open"]);
    for guarded in [&caddy, &nginx] {
        guarded.expect(&guarded.get("/"), 200);
        let answer = guarded.send("GET", "/", &lines(80), "");
        guarded.expect(&answer, 429);
    }
    for (guarded, status) in [(&caddy, 431), (&nginx, 500)] {
        guarded.expect(&guarded.send("GET", "/", &lines(300), ""), status);
    }
    for bytes in [45_000, 62_000, 100_000, 900_000] {
        let large = format!("X-Large: {}\r\n", "a".repeat(bytes));
        let answer = caddy.send("GET", "/", &large, "");
        caddy.expect(&answer, 431);
    }
    assert_eq!(caddy.origin.asked().len(), 1);
    assert_eq!(nginx.origin.asked().len(), 1);
}

/// Nobody reads 8 MB of who is refused for what is in them, and he sees why all the same.
#[test]
fn who_is_refused_in_the_middle_of_an_upload_sees_why() {
    let rules = ALL.replace("limit = 3", "limit = 1");
    let nginx = Guarded::nginx("", &rules, &[]);
    let caddy = Guarded::caddy("", &rules, &[]);
    let body = vec![b'b'; 8 << 20];
    for guarded in [&nginx, &caddy] {
        guarded.expect(&guarded.get("/"), 200);
        for connection in ["close", "keep-alive"] {
            let head = format!(
                "POST /login HTTP/1.1\r\nHost: example.com\r\nConnection: {connection}\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            let to = guarded.address();
            let answer = clients::upload(guarded.client(), to, head.as_bytes(), &body, LATE);
            let answer = answer.unwrap();
            guarded.expect(&answer, 429);
            assert_eq!(answer.header("x-limiter"), Some("reject"), "{answer:?}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            let said = String::from_utf8_lossy(&answer.body);
            assert!(said.contains("rate_limit_exceeded"), "{said}");
        }
        assert_eq!(guarded.origin.asked().len(), 1);
    }
    // nginx waits for who sends all before he reads.
    let body = String::from_utf8(body).unwrap();
    nginx.expect(&nginx.send("POST", "/login", "", &body), 429);
    // What is too large for nginx itself is no question.
    let questions = || {
        let origins = nginx.hearing.ask(&["origins"]);
        let mut rows = origins["origins"].as_array().unwrap().iter();
        let row = rows.find(|row| row["name"] == "check").unwrap();
        row["read"].clone()
    };
    let before = questions();
    let huge = "POST /login HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\
                Content-Length: 17000000\r\n\r\n";
    let to = nginx.address();
    let answer = clients::upload(nginx.client(), to, huge.as_bytes(), &[], LATE);
    nginx.expect(&answer.unwrap(), 413);
    assert_eq!(questions(), before);
}

#[test]
fn without_limiter_caddy_lets_requests_pass_once() {
    let guarded = Guarded::caddy("", ALL, &["--fail-open"]);
    guarded.expect(&guarded.get("/"), 200);
    guarded.hearing.site.daemon.stop().unwrap();
    for _ in 0..3 {
        let answer = guarded.send("POST", "/echo", "", "the whole body");
        guarded.expect(&answer, 200);
        assert_eq!(answer.body, b"the whole body", "{answer:?}");
    }
    assert_eq!(guarded.origin.asked().len(), 4);
}
