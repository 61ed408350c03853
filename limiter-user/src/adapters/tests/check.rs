use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::api::{Answered, converse};
use super::{Bench, intake};
use crate::adapters::api::Members;
use crate::adapters::check::{Check, LIMITS, serve_tcp, serve_unix};
use crate::adapters::origin::Row;
use crate::adapters::{Intake, wall_ns};
use crate::courier::Answer;

const RULE: &str = "
[[rule]]
name = 'all'
limit = 2
period = '1h'
action = 'reject'
for = '1h'
";

/// A served port.
struct Scene {
    bench: Arc<Bench>,
    intake: Arc<Intake>,
    check: Arc<Check>,
    at: std::net::SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scene {
    async fn new(decide: &str, rules: &str) -> Self {
        let text = format!("[decide]\n{decide}\n{rules}");
        let (bench, intake) = intake(&text);
        let check = Arc::new(Check::new(Arc::clone(&intake), &super::decide(&text)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_tcp(listener, LIMITS, Arc::clone(&check)));
        Self {
            bench,
            intake,
            check,
            at,
            server,
        }
    }

    async fn ask(&self, path: &str, headers: &str) -> Answered {
        self.send("GET", path, headers).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str) -> Answered {
        let stream = TcpStream::connect(self.at).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: limiter\r\nConnection: close\r\n{headers}\r\n"
        );
        converse(stream, request.as_bytes()).await
    }

    fn row(&self) -> Row {
        self.intake.origins().get("check").unwrap().row(wall_ns())
    }
}

/// What nginx tells of a request, each of which has an id of its own.
fn by_nginx(peer: &str, more: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "X-Limiter-Peer: {peer}\r\nX-Limiter-Id: {id}\r\nX-Limiter-Method: POST\r\n\
         X-Limiter-Uri: /login?next=1\r\nX-Limiter-Host: example.com\r\n{more}"
    )
}

fn forwarded(by: &str, more: &str) -> String {
    format!(
        "X-Forwarded-For: {by}\r\nX-Forwarded-Method: POST\r\nX-Forwarded-Uri: /login\r\n\
         X-Forwarded-Host: example.com:8443\r\nX-Forwarded-Proto: https\r\n{more}"
    )
}

#[tokio::test]
async fn nginx_is_told_by_two_statuses_and_fetches_the_answer() {
    let scene = Scene::new("", RULE).await;
    for left in [1, 0] {
        let asked = scene.ask("/check/nginx", &by_nginx("192.0.2.7", "")).await;
        assert_eq!(asked.status, 204, "{asked:?}");
        assert!(asked.has("x-ratelimit-limit: 2"), "{asked:?}");
        assert!(
            asked.has(&format!("x-ratelimit-remaining: {left}")),
            "{asked:?}"
        );
        assert!(!asked.head.contains("x-limiter"), "{asked:?}");
    }
    let asked = scene.ask("/check/nginx", &by_nginx("192.0.2.7", "")).await;
    assert_eq!(asked.status, 403, "{asked:?}");
    assert!(asked.has("x-limiter: reject"), "{asked:?}");
    let verdict = asked.line("x-limiter-verdict: ").unwrap();
    assert!(
        verdict.starts_with("action=reject&source=192.0.2.7&rule=all"),
        "{verdict}"
    );
    let verdict = format!("X-Limiter-Verdict: {verdict}\r\n");
    for method in ["GET", "POST", "HEAD"] {
        let answer = scene.send(method, "/check/nginx/answer", &verdict).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        let retry: u64 = answer.line("retry-after: ").unwrap().parse().unwrap();
        assert!((3_590..=3_600).contains(&retry), "{answer:?}");
        assert!(answer.has("cache-control: no-store"), "{answer:?}");
        assert!(answer.has("x-limiter: reject"), "{answer:?}");
        assert_eq!(answer.json.is_null(), method == "HEAD", "{answer:?}");
    }
    // Another client has a count of its own.
    let asked = scene.ask("/check/nginx", &by_nginx("192.0.2.8", "")).await;
    assert_eq!(asked.status, 204, "{asked:?}");
    assert_eq!((scene.row().read, scene.row().understood), (4, 4));
    let statuses = scene.check.figures().statuses();
    let counts: Vec<(u16, u64)> = statuses
        .iter()
        .map(|row| (row.status, row.answers))
        .collect();
    assert_eq!(counts, [(204, 3), (403, 1), (429, 3)]);
    assert_eq!(scene.check.figures().latency().count, 4);
}

/// As nginx does at internal redirects.
#[tokio::test]
async fn what_is_asked_again_is_answered_as_before_and_counts_once() {
    let scene = Scene::new("", RULE).await;
    let questions = [(); 3].map(|()| by_nginx("192.0.2.7", ""));
    for (question, status) in questions.iter().zip([204, 204, 403]) {
        for _ in 0..3 {
            let asked = scene.ask("/check/nginx", question).await;
            assert_eq!(asked.status, status, "{asked:?}");
        }
    }
    assert_eq!(scene.row().understood, 3);
    // Under the same id, but something else.
    let other = questions[0].replace("/login", "/logon");
    assert_eq!(scene.ask("/check/nginx", &other).await.status, 403);
    assert_eq!(scene.row().understood, 4);
}

/// The headers that Traefik's documentation of ForwardAuth has, beside the client's own.
#[tokio::test]
async fn traefik_is_answered_by_its_documented_request() {
    let rules = RULE.replace("limit = 2", "requests = ['POST /login']\nlimit = 2");
    let scene = Scene::new("", &rules).await;
    let request = "X-Forwarded-Method: POST\r\nX-Forwarded-Proto: https\r\n\
                   X-Forwarded-Host: example.com\r\nX-Forwarded-Uri: /login?next=%2F\r\n\
                   X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Port: 443\r\n\
                   X-Forwarded-Server: edge\r\nX-Real-Ip: 203.0.113.9\r\n\
                   User-Agent: curl/7.88.1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n";
    for _ in 0..2 {
        let asked = scene.ask("/check", request).await;
        assert_eq!(asked.status, 204, "{asked:?}");
    }
    let asked = scene.ask("/check", request).await;
    assert_eq!(asked.status, 429, "{asked:?}");
    assert!(asked.line("retry-after: ").is_some(), "{asked:?}");
    let other = request.replace("192.0.2.7", "192.0.2.8");
    assert_eq!(scene.ask("/check", &other).await.status, 204);
}

#[tokio::test]
async fn forward_authentication_is_answered_with_the_final_answer() {
    let scene = Scene::new("", RULE).await;
    for id in 0..2 {
        let path = format!("/check?id={id}");
        let asked = scene.ask(&path, &forwarded("192.0.2.7", "")).await;
        assert_eq!(asked.status, 204, "{asked:?}");
    }
    for method in ["GET", "POST", "HEAD"] {
        let asked = scene
            .send(method, "/check", &forwarded("192.0.2.7", ""))
            .await;
        assert_eq!(asked.status, 429, "{asked:?}");
        assert!(
            asked.has("content-type: application/problem+json"),
            "{asked:?}"
        );
        assert!(!asked.head.contains("verdict"), "{asked:?}");
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_names_the_client() {
    let scene = Scene::new("trusted_proxies = ['192.0.2.0/24']", RULE).await;
    // The peer is no proxy: what it says of others is counted for itself.
    for n in 0..3 {
        let more = format!("X-Forwarded-For: 203.0.113.{n}\r\n");
        let asked = scene
            .ask("/check/nginx", &by_nginx("198.51.100.7", &more))
            .await;
        assert_eq!(asked.status, if n < 2 { 204 } else { 403 }, "{asked:?}");
    }
    // A proxy is believed, to the right-most address that is none.
    for n in 0..3 {
        let more =
            format!("X-Forwarded-For: 1.2.3.{n}\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n");
        let asked = scene
            .ask("/check/nginx", &by_nginx("192.0.2.2", &more))
            .await;
        assert_eq!(asked.status, if n < 2 { 204 } else { 403 }, "{asked:?}");
    }
    // Likewise in forward authentication, where the peer stands at the right.
    for n in 0..3 {
        let by = format!("1.2.3.{n}, 203.0.113.10, 192.0.2.2");
        let asked = scene.ask("/check", &forwarded(&by, "")).await;
        assert_eq!(asked.status, if n < 2 { 204 } else { 429 }, "{asked:?}");
    }
}

#[tokio::test]
async fn what_is_missing_or_told_twice_is_refused() {
    let scene = Scene::new("", RULE).await;
    let whole = by_nginx("192.0.2.7", "");
    for name in ["Peer", "Id", "Method", "Uri"] {
        let header = format!("X-Limiter-{name}:");
        let mut lines: Vec<&str> = whole.split_inclusive("\r\n").collect();
        lines.retain(|line| !line.starts_with(&header));
        let asked = scene.ask("/check/nginx", &lines.concat()).await;
        assert_eq!(asked.status, 400, "{asked:?}");
        let twice = format!("{whole}{header} 192.0.2.9\r\n");
        let asked = scene.ask("/check/nginx", &twice).await;
        assert_eq!(asked.status, 400, "{asked:?}");
        assert!(
            asked.json["detail"]
                .as_str()
                .unwrap()
                .contains("more than once"),
            "{asked:?}"
        );
    }
    let wrong = [
        ("/check/nginx", by_nginx("unix:", ""), 400),
        (
            "/check/nginx",
            by_nginx("192.0.2.7", "X-Limiter-Host: b\r\n"),
            400,
        ),
        ("/check", forwarded("nobody", ""), 400),
        (
            "/check",
            forwarded("192.0.2.1", "X-Forwarded-For: 192.0.2.2\r\n"),
            400,
        ),
        ("/check?id=", forwarded("192.0.2.1", ""), 400),
        (
            "/check/nginx/answer",
            "X-Limiter-Verdict: action=pass\r\n".to_owned(),
            400,
        ),
        (
            "/check/nginx/answer",
            "X-Limiter-Verdict: nothing\r\n".to_owned(),
            400,
        ),
        ("/check/nginx/answer", String::new(), 403),
        ("/checks", whole.clone(), 404),
    ];
    for (path, headers, status) in wrong {
        let asked = scene.ask(path, &headers).await;
        assert_eq!(asked.status, status, "{path} {asked:?}");
        assert!(!asked.head.contains("x-limiter"), "{asked:?}");
    }
    assert_eq!(
        (scene.row().understood, scene.row().not_understood),
        (0, 13)
    );
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_never_reset() {
    let scene = Scene::new("", RULE).await;
    let lines = |number: usize| -> String {
        let lines = (0..number).map(|n| format!("X-Filler-{n}: 1\r\n"));
        lines.collect()
    };
    let cookie = |bytes: usize| format!("Cookie: {}\r\n", "c".repeat(bytes));
    for (more, status) in [
        (lines(90), 204),
        (cookie(33_000), 204),
        (lines(101), 431),
        (cookie(41_000), 431),
        (cookie(60_000), 431),
        (cookie(900_000), 431),
        (lines(60_000), 431),
    ] {
        let asked = scene
            .ask("/check/nginx", &by_nginx("192.0.2.7", &more))
            .await;
        assert_eq!(asked.status, status, "{asked:?}");
    }
}

/// Who sends a body that nobody reads sees the answer all the same.
#[tokio::test]
async fn a_body_that_nobody_wants_resets_nothing() {
    let scene = Scene::new("", RULE).await;
    let body = "b".repeat(2_000_000);
    let verdict = "X-Limiter-Verdict: action=reject&source=::1&rule=all&retry=5\r\n";
    for path in ["/check/nginx/answer", "/nothing"] {
        let stream = TcpStream::connect(scene.at).await.unwrap();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: limiter\r\nConnection: close\r\n{verdict}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = converse(stream, request.as_bytes()).await;
        let status = if path == "/nothing" { 404 } else { 429 };
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn a_preflight_is_neither_counted_nor_refused() {
    let scene = Scene::new("", RULE).await;
    let preflight = by_nginx("192.0.2.7", "Access-Control-Request-Method: POST\r\n").replace(
        "Method: POST\r\nX-Limiter-Uri",
        "Method: OPTIONS\r\nX-Limiter-Uri",
    );
    for _ in 0..4 {
        let asked = scene.ask("/check/nginx", &preflight).await;
        assert_eq!(asked.status, 204, "{asked:?}");
    }
    for status in [204, 204, 403] {
        let asked = scene.ask("/check/nginx", &by_nginx("192.0.2.7", "")).await;
        assert_eq!(asked.status, status, "{asked:?}");
    }
    let asked = scene.ask("/check/nginx", &preflight).await;
    assert_eq!(asked.status, 204, "{asked:?}");
    // The log tells of it too.
    let mut event = crate::event::Event::of(super::address("192.0.2.9"));
    event.method = Some("OPTIONS".into());
    let header = ("access-control-request-method".into(), "POST".into());
    event.headers = vec![header];
    let log = scene.intake.origins().get("check").unwrap();
    scene.intake.hear(
        &log,
        crate::event::reader::Tally::default(),
        &mut [event],
        wall_ns(),
    );
    assert!(scene.bench.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn headers_that_rules_ask_for_come_along() {
    let rules = RULE.replace(
        "limit",
        "key = ['header:X-Tenant', 'cookie:session']\nlimit",
    );
    let scene = Scene::new("", &rules).await;
    let of = |tenant: &str| {
        let more = format!("X-Tenant: {tenant}\r\nCookie: a=b; session={tenant}\r\nX-Other: 1\r\n");
        by_nginx("192.0.2.7", &more)
    };
    for status in [204, 204, 403] {
        let asked = scene.ask("/check/nginx", &of("one")).await;
        assert_eq!(asked.status, status, "{asked:?}");
    }
    assert_eq!(scene.ask("/check/nginx", &of("two")).await.status, 204);
}

/// As Traefik sends it with `forwardBody`.
#[tokio::test]
async fn an_account_in_a_body_is_found() {
    let rules = RULE.replace("limit", "key = ['account']\nlimit");
    let scene = Scene::new("accounts = { from = ['json:/user', 'form:user'] }", &rules).await;
    let ask = async |kind: &str, body: &str| {
        let stream = TcpStream::connect(scene.at).await.unwrap();
        let more = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        let request = format!(
            "GET /check HTTP/1.1\r\nHost: limiter\r\nConnection: close\r\n{}\r\n{body}",
            forwarded("192.0.2.7", &more)
        );
        converse(stream, request.as_bytes()).await.status
    };
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    assert_eq!(ask(json, r#"{"user":"ann"}"#).await, 204);
    assert_eq!(ask(form, "user=ann").await, 204);
    assert_eq!(ask(json, r#"{"user":"Ann"}"#).await, 429);
    assert_eq!(ask(form, "user=bob").await, 204);
    assert_eq!(ask(form, "").await, 204);
    assert_eq!(ask("text/plain", "user=bob").await, 403);
    let large = format!("user=bob&a={}", "a".repeat(100_000));
    assert_eq!(ask(form, &large).await, 403);
}

#[tokio::test]
async fn who_is_throttled_waits() {
    let rules =
        "[[rule]]\nname = 'slow'\nlimit = 1\nperiod = '1h'\naction = 'throttle'\nwait = 150\n";
    let scene = Scene::new("", rules).await;
    assert_eq!(
        scene
            .ask("/check", &forwarded("192.0.2.7", ""))
            .await
            .status,
        204
    );
    let began = Instant::now();
    let asked = scene.ask("/check", &forwarded("192.0.2.7", "")).await;
    assert_eq!(asked.status, 204, "{asked:?}");
    assert!(began.elapsed().as_millis() >= 150);
    // Who would wait in vain for that is told at once, and waits elsewhere.
    let asked = scene
        .ask("/check?throttle=later", &forwarded("192.0.2.7", ""))
        .await;
    assert_eq!(asked.status, 204, "{asked:?}");
    let verdict = asked.line("x-limiter-verdict: ").unwrap();
    let began = Instant::now();
    let waited = scene
        .ask("/check/wait", &format!("X-Limiter-Verdict: {verdict}\r\n"))
        .await;
    assert_eq!(waited.status, 204, "{waited:?}");
    assert!(began.elapsed().as_millis() >= 150);
    assert_eq!(scene.ask("/check/wait", "").await.status, 400);
    // nginx is told at once, and waits for the answer.
    let asked = scene.ask("/check/nginx", &by_nginx("192.0.2.7", "")).await;
    assert_eq!(asked.status, 403, "{asked:?}");
    let verdict = asked.line("x-limiter-verdict: ").unwrap();
    let began = Instant::now();
    let verdict = format!("X-Limiter-Verdict: {verdict}\r\n");
    let answer = scene.send("POST", "/check/nginx/answer", &verdict).await;
    assert!(began.elapsed().as_millis() >= 150);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.has("x-accel-redirect: @limiter_origin"),
        "{answer:?}"
    );
    assert!(!answer.head.contains("x-limiter"), "{answer:?}");
    // Another policy is followed at once.
    scene.check.reload(&super::decide("[decide]\n[[rule]]\nname = 'slow'\nclears = ['x']\n[[rule]]\nname = 'x'\nlimit = 1\nperiod = '1h'\naction = 'reject'\n"));
    let reject = "X-Limiter-Verdict: action=reject&source=::1&rule=gone&retry=5\r\n";
    let answer = scene.ask("/check/nginx/answer", reject).await;
    assert_eq!(answer.status, 429, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_sleep_beyond_the_bound_is_rejected() {
    let scene = Arc::new(Scene::new("", RULE).await);
    let verdict = |n: u32| {
        format!("X-Limiter-Verdict: action=throttle&source=192.0.2.{n}&rule=all&delay=50000\r\n")
    };
    let mut sleeping = tokio::task::JoinSet::new();
    for n in 0..600 {
        let (scene, verdict) = (Arc::clone(&scene), verdict(n % 20));
        sleeping.spawn(async move { scene.ask("/check/nginx/answer", &verdict).await });
    }
    // Those that find no place are answered at once; the others would sleep for long.
    for _ in 0..600 - 512 {
        let answer = sleeping.join_next().await.unwrap().unwrap();
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!(answer.has("retry-after: 50"), "{answer:?}");
        assert!(answer.has("x-limiter: reject"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_for_its_members() {
    let text = format!("[decide]\n{RULE}");
    let (_bench, intake) = intake(&text);
    let check = Arc::new(Check::new(intake, &super::decide(&text)).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("check");
    let own_uid = nix::unistd::geteuid().as_raw();
    for (own, status) in [
        (own_uid, 204),
        (own_uid + 1, if own_uid == 0 { 204 } else { 503 }),
    ] {
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let members = Members::new(own, None);
        let server = tokio::spawn(serve_unix(listener, members, LIMITS, Arc::clone(&check)));
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = format!(
            "GET /check/nginx HTTP/1.1\r\nHost: limiter\r\nConnection: close\r\n{}\r\n",
            by_nginx("192.0.2.7", "")
        );
        let asked = converse(stream, request.as_bytes()).await;
        assert_eq!(asked.status, status, "{asked:?}");
        server.abort();
        std::fs::remove_file(&path).unwrap();
    }
}

const CHALLENGE: &str = "
[[rule]]
name = 'all'
limit = 1
period = '1h'
action = 'js_challenge'
difficulty = 6
";

/// A request of its own that nginx asks about.
fn fresh(peer: &str, host: &str, more: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(
        "X-Limiter-Peer: {peer}\r\nX-Limiter-Id: fresh-{number}\r\nX-Limiter-Method: POST\r\n\
         X-Limiter-Uri: /login\r\nX-Limiter-Host: {host}\r\n{more}"
    )
}

/// One of the host that the tests' own requests name.
fn on_limiter(more: &str) -> String {
    fresh("192.0.2.7", "limiter", more)
}

#[tokio::test]
async fn a_challenge_is_posed_solved_once_and_then_spared() {
    let scene = Scene::new("", CHALLENGE).await;
    assert_eq!(scene.ask("/check/nginx", &on_limiter("")).await.status, 204);
    let asked = scene.ask("/check/nginx", &on_limiter("")).await;
    assert_eq!(asked.status, 403, "{asked:?}");
    let verdict = asked.line("x-limiter-verdict: ").unwrap();
    assert!(verdict.contains("&host=limiter&resend=1"), "{verdict}");
    let verdict = format!("X-Limiter-Verdict: {verdict}\r\n");
    let browser = format!(
        "{verdict}Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nAccept-Language: de\r\n"
    );
    let page = scene.ask("/check/nginx/answer", &browser).await;
    assert_eq!(page.status, 403, "{page:?}");
    assert!(
        page.has("content-type: text/html; charset=utf-8"),
        "{page:?}"
    );
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'"),
        "{page:?}"
    );
    let posed = scene.ask("/check/nginx/answer", &verdict).await;
    let puzzle = &posed.json["puzzle"];
    let [token, seed] = ["token", "seed"].map(|key| puzzle[key].as_str().unwrap());
    let solution = format!(
        "X-Limiter-Solution: {token}:{}\r\nOrigin: https://limiter\r\nCookie: {}\r\n",
        crate::challenge::solve(seed, 6),
        (0..8)
            .map(|number| format!("limiter-{number:08x}=1; "))
            .collect::<String>()
    );
    let by_get = scene.ask("/check/challenge", &solution).await;
    assert_eq!(by_get.status, 400, "{by_get:?}");
    let solved = scene.send("POST", "/check/challenge", &solution).await;
    assert_eq!(solved.status, 200, "{solved:?}");
    // The head is told in lower case.
    let clearance = solved.json["clearance"].as_str().unwrap();
    let (name, rest) = solved
        .line("set-cookie: ")
        .unwrap()
        .split_once('=')
        .unwrap();
    let attributes = "; max-age=1800; path=/; httponly; samesite=lax; secure";
    assert_eq!(rest, format!("{}{attributes}", clearance.to_lowercase()));
    // The oldest cookie goes.
    assert!(
        solved.has("set-cookie: limiter-00000000=; max-age=0; path=/; secure"),
        "{solved:?}"
    );
    assert!(!solved.head.contains("limiter-00000001="), "{solved:?}");
    let again = scene.send("POST", "/check/challenge", &solution).await;
    assert_eq!(
        (again.status, &again.json["challenge_error"]),
        (409, &serde_json::json!("replayed"))
    );
    // The tier is at zero again: one more passes without anything, and no other.
    let without = || async { scene.ask("/check/nginx", &on_limiter("")).await.status };
    assert_eq!((without().await, without().await), (204, 403));
    let cookie = format!("Cookie: a=b; {name}={clearance}\r\n");
    let by_header = format!("X-Limiter-Clearance: {clearance}\r\n");
    for held in [&cookie, &by_header] {
        for _ in 0..3 {
            let asked = scene.ask("/check/nginx", &on_limiter(held)).await;
            assert_eq!(asked.status, 204, "{asked:?}");
        }
    }
    // Another source has no use for it, and another host neither.
    for expected in [204, 403] {
        let other = fresh("192.0.2.8", "limiter", &cookie);
        let asked = scene.ask("/check/nginx", &other).await;
        assert_eq!(asked.status, expected, "{asked:?}");
    }
    let other = fresh("192.0.2.7", "other.example", &cookie);
    let asked = scene.ask("/check/nginx", &other).await;
    assert_eq!(asked.status, 403, "{asked:?}");
}

#[tokio::test]
async fn a_captcha_is_taken_where_its_provider_says_so() {
    let captcha =
        "challenge = { captcha = { provider = 'turnstile', site_key = 'k', secret_file = '/s' } }";
    let rules = CHALLENGE.replace("'js_challenge'\ndifficulty = 6", "'captcha'");
    let scene = Scene::new(captcha, &rules).await;
    for _ in 0..2 {
        scene.ask("/check/nginx", &on_limiter("")).await;
    }
    let asked = scene.ask("/check/nginx", &on_limiter("")).await;
    assert_eq!(asked.status, 403, "{asked:?}");
    let verdict = asked.line("x-limiter-verdict: ").unwrap();
    let verdict = format!("X-Limiter-Verdict: {verdict}\r\n");
    let posed = scene.ask("/check/nginx/answer", &verdict).await;
    let token = posed.json["captcha"]["token"].as_str().unwrap();
    assert_eq!(posed.json["captcha"]["provider"], "turnstile", "{posed:?}");
    let send = |answer: &str| {
        let solution = format!("X-Limiter-Solution: {token}:{answer}\r\n");
        let scene = &scene;
        async move { scene.send("POST", "/check/challenge", &solution).await }
    };
    let says = |status: u16, body: &str| {
        *scene.bench.verdict.lock().unwrap() = Some(Answer::Replied {
            status,
            body: body.as_bytes().to_vec(),
        });
    };
    // Nobody answers; then there is an error, another site, and what nobody can read.
    let unanswered = send("an-answer").await;
    assert_eq!(unanswered.status, 503, "{unanswered:?}");
    assert_eq!(unanswered.json["challenge_error"], "away");
    for (status, body, expected) in [
        (500, "", "away"),
        (200, "<html>", "away"),
        (
            200,
            "{\"success\":false,\"error-codes\":[\"invalid-input-response\"]}",
            "wrong",
        ),
        (
            200,
            "{\"success\":true,\"hostname\":\"evil.example\",\"action\":\"limiter\"}",
            "wrong",
        ),
    ] {
        says(status, body);
        let refused = send("an-answer").await;
        assert_eq!(refused.json["challenge_error"], expected, "{refused:?}");
    }
    says(
        200,
        "{\"success\":true,\"hostname\":\"limiter\",\"action\":\"limiter\"}",
    );
    let solved = send("an-answer").await;
    assert_eq!(solved.status, 200, "{solved:?}");
    let held = format!(
        "X-Limiter-Clearance: {}\r\n",
        solved.json["clearance"].as_str().unwrap()
    );
    for _ in 0..3 {
        let asked = scene.ask("/check/nginx", &on_limiter(&held)).await;
        assert_eq!(asked.status, 204, "{asked:?}");
    }
    let again = send("another").await;
    assert_eq!(again.status, 409, "{again:?}");
    let figures = scene.intake.challenges().counts();
    for counted in [("away", 3), ("wrong", 2), ("solved", 1), ("replayed", 1)] {
        assert!(figures.contains(&counted), "{figures:?}");
    }
}
