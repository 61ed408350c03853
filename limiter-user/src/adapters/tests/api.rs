use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{Bench, DEADLINE, RULES, address, decide, intake};
use crate::adapters::api::{
    Api, BadToken, Group, LIMITS, MAX_REPORT_BYTES, Members, Token, serve_tcp, serve_unix,
};
use crate::adapters::origin::Row;
use crate::adapters::{Intake, Judge, wall_ns};
use crate::engine::Decision;
use crate::event::Event;
use crate::http::{Limits, Peer};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A served Unix socket.
struct Scene {
    bench: Arc<Bench>,
    intake: Arc<Intake>,
    api: Arc<Api>,
    directory: TempDir,
    server: JoinHandle<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

impl Scene {
    fn new(text: &str) -> Self {
        Self::limited(text, LIMITS)
    }

    fn limited(text: &str, limits: Limits) -> Self {
        let (bench, intake) = intake(&format!("[decide]\n{text}{RULES}"));
        let api = Arc::new(Api::new(Arc::clone(&intake), || Some(0xabc)).unwrap());
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("api")).unwrap();
        let members = Members::new(own_uid(), None);
        let server = tokio::spawn(serve_unix(listener, members, limits, Arc::clone(&api)));
        Self {
            bench,
            intake,
            api,
            directory,
            server,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("api")
    }

    async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answered {
        self.send("POST", path, "", body.as_ref()).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answered {
        let stream = UnixStream::connect(self.path()).await.unwrap();
        converse(stream, &request(method, path, headers, body)).await
    }

    fn row(&self) -> Row {
        self.intake.origins().get("api").unwrap().row(wall_ns())
    }
}

#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) json: Value,
}

impl Answered {
    /// Whether the head has this line.
    pub(super) fn has(&self, line: &str) -> bool {
        self.line(line) == Some("")
    }

    /// What follows this beginning of a line of the head.
    pub(super) fn line(&self, begins: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(begins))
    }
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    let length = body.len();
    write!(
        request,
        "{method} {path} HTTP/1.1\r\nHost: limiter\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    )
    .unwrap();
    request.extend_from_slice(body);
    request
}

pub(super) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Answered {
    let conversation = async {
        // A server that has answered reads no further.
        let _written = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        answer
    };
    let answer = timeout(DEADLINE, conversation).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answered {
        status: status.unwrap_or_else(|| panic!("{answer:?}")),
        head: head.to_ascii_lowercase(),
        json: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

fn login(source: &str, more: &str) -> String {
    format!(r#"{{"source":"{source}","method":"POST","path":"/login"{more}}}"#)
}

#[tokio::test]
async fn a_question_and_its_report_are_joined_by_an_id() {
    let scene = Scene::new("");
    for n in 0..3 {
        let id = format!(r#","id":{n}"#);
        let asked = scene.post("/v1/check", login("192.0.2.7", &id)).await;
        assert_eq!(asked.status, 200, "{asked:?}");
        assert_eq!(asked.json["action"], "pass");
        assert_eq!(asked.json["limit_rule"], "login");
        assert_eq!(asked.json["id"], n.to_string());
        let report = format!(r#"{{"source":"192.0.2.7","id":{n},"status":401}}"#);
        let heard = scene.post("/v1/events", report).await;
        assert_eq!(heard.status, 200, "{heard:?}");
        assert_eq!(heard.json["understood"], 1);
    }
    let refused = scene.post("/v1/check", login("192.0.2.7", "")).await;
    assert_eq!(refused.status, 200);
    let json = &refused.json;
    assert_eq!(json["action"], "reject");
    assert_eq!(json["rule"], "login");
    assert_eq!(json["id"], "00000000000000000000000000000abc");
    let retry = json["retry_after_s"].as_u64().unwrap();
    assert!((3_590..=3_600).contains(&retry), "{json}");
    for key in [
        "until",
        "delay_ms",
        "limit",
        "remaining",
        "reset",
        "simulated",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json.get("limit_rule"), None, "it is the one that decided");
    assert!(refused.head.contains("content-type: application/json"));
    assert!(refused.head.contains("cache-control: no-store"));
    assert!(!refused.head.contains("access-control"), "{}", refused.head);
    let row = scene.row();
    assert_eq!((row.read, row.understood, row.not_understood), (7, 7, 0));
    let figures = scene.api.figures();
    let statuses = figures.statuses();
    assert_eq!(
        statuses
            .iter()
            .map(|row| (row.status, row.answers))
            .collect::<Vec<_>>(),
        [(200, 7)]
    );
    let latency = figures.latency();
    assert_eq!(latency.count, 4);
    assert!(latency.sum_ns > 0);
    assert!(latency.buckets.iter().map(|(_, count)| count).sum::<u64>() <= 4);
    assert!(latency.buckets.is_sorted());
}

#[tokio::test]
async fn what_an_application_says_is_taken_and_a_trusted_proxy_names_the_client() {
    let scene = Scene::new("trusted_proxies = ['10.0.0.1']\n");
    let header = r#","headers":{"X-Forwarded-For":"6.6.6.6, 192.0.2.7"}"#;
    let body = [
        login("10.0.0.1", header),
        login("198.51.100.7", header),
        login("198.51.100.7", r#","peer":"10.0.0.9""#),
    ];
    let heard = scene.post("/v1/events", body.join("\n")).await;
    assert_eq!(heard.status, 200, "{heard:?}");
    let events = scene.bench.heard(3);
    let sources: Vec<_> = events
        .iter()
        .map(|event| (event.source, event.peer))
        .collect();
    assert_eq!(
        sources,
        [
            (address("192.0.2.7"), None),
            (address("198.51.100.7"), None),
            (address("198.51.100.7"), Some(address("10.0.0.9"))),
        ]
    );
}

#[tokio::test]
async fn several_events_are_read_each_on_its_own() {
    let scene = Scene::new("");
    let source = r#""source":"192.0.2.7""#;
    let body = format!(
        "{}\r\n\n{{{source},{source}}}\n{{\"source\":\"nowhere\"}}\n[]\n\x1b[2J\n{}\n",
        login("192.0.2.7", ""),
        login("192.0.2.8", "")
    );
    let heard = scene.post("/v1/events", body).await;
    assert_eq!(heard.status, 422, "{heard:?}");
    assert_eq!(
        (
            heard.json["understood"].as_u64(),
            heard.json["not_understood"].as_u64()
        ),
        (Some(2), Some(4))
    );
    let errors = heard.json["errors"].as_array().unwrap();
    let told: Vec<(u64, &str)> = errors
        .iter()
        .map(|error| {
            (
                error["line"].as_u64().unwrap(),
                error["error"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told[0], (3, "`source` twice in one object"));
    assert_eq!(told[1], (4, "`source` is `nowhere`: not an IP address"));
    assert_eq!(told[2], (5, "an array where an object was expected"));
    assert_eq!(told[3].0, 6);
    assert!(!heard.json.to_string().contains('\x1b'));
    assert_eq!(scene.bench.heard(2).len(), 2);
    // One event may go over several lines.
    let pretty = "{\n  \"source\": \"192.0.2.9\",\n  \"status\": 401\n}\n";
    let heard = scene.post("/v1/events", pretty).await;
    assert_eq!(
        (heard.status, heard.json["understood"].as_u64()),
        (200, Some(1))
    );
    // Many wrong ones are counted, and a few told.
    let heard = scene.post("/v1/events", "x\n".repeat(1_000)).await;
    assert_eq!(heard.json["not_understood"], 1_000);
    assert_eq!(heard.json["errors"].as_array().unwrap().len(), 10);
    // Many are reported 512 at a time.
    let heard = scene
        .post("/v1/events", "{\"source\":\"192.0.2.7\"}\n".repeat(2_000))
        .await;
    assert_eq!(heard.json["understood"], 2_000);
    let reports = scene.bench.reports.lock().unwrap();
    assert_eq!(reports[2..], [512, 512, 512, 464]);
}

#[tokio::test]
async fn what_cannot_be_answered_is_told_with_what_to_do() {
    let scene = Scene::new("");
    let long = vec![b'['; MAX_REPORT_BYTES];
    let absurd = login("192.0.2.7", r#","at":"9999-12-31T23:59:59Z""#);
    let negative = login("192.0.2.7", r#","at":-1"#);
    let nul = b"{\"source\":\"192.0.2.7\",\"path\":\"\x00\"}".as_slice();
    let huge = vec![b'x'; 10_000_000];
    let two = format!("{}\n{{\n", login("192.0.2.7", ""));
    for (method, path, body, status, says) in [
        ("GET", "/v1/check", b"".as_slice(), 405, "only POST"),
        ("OPTIONS", "/v1/events", b"", 405, "only POST"),
        ("POST", "/", b"", 404, "/v1/check"),
        ("POST", "/v1/check/", b"{}", 404, "/v1/events"),
        ("POST", "/v1/check", b"", 400, "nothing in the body"),
        ("POST", "/v1/events", b" \r\n ", 400, "nothing in the body"),
        ("POST", "/v1/check", b"{", 400, "byte 1"),
        ("POST", "/v1/check", b"\xff{}", 400, "UTF-8"),
        (
            "POST",
            "/v1/check",
            two.as_bytes(),
            400,
            "several to /v1/events",
        ),
        ("POST", "/v1/check", b"{}", 422, "`source` is missing"),
        ("POST", "/v1/check", b"{\"id\":1.5}", 422, "docs/events.md"),
        (
            "POST",
            "/v1/check",
            b"{\"source\":1}",
            422,
            "a string was expected",
        ),
        ("POST", "/v1/check", absurd.as_bytes(), 422, "1970 and 2100"),
        (
            "POST",
            "/v1/check",
            negative.as_bytes(),
            422,
            "1970 and 2100",
        ),
        ("POST", "/v1/check", nul, 400, "control character"),
        ("POST", "/v1/check", &long, 413, "larger than 262144"),
        ("POST", "/v1/events", &huge, 413, "larger than 1048576"),
        ("POST", "/v1/check", &huge, 413, "larger than 262144"),
    ] {
        let answer = scene.send(method, path, "", body).await;
        let what = format!(
            "{method} {path} {}",
            String::from_utf8_lossy(&body[..body.len().min(50)])
        );
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        let text = answer.json.to_string();
        assert!(text.contains(says), "{what}: {text}");
        assert!(!answer.json["help"].as_str().unwrap().is_empty(), "{what}");
        assert!(
            answer.head.contains("application/problem+json"),
            "{}",
            answer.head
        );
        if status == 405 {
            assert!(answer.head.contains("allow: post"), "{}", answer.head);
        }
    }
    // A line that is too long is one of many.
    let body = format!("{}\n{}\n", "x".repeat(300_000), login("192.0.2.7", ""));
    let heard = scene.post("/v1/events", body).await;
    assert_eq!(
        (heard.status, heard.json["understood"].as_u64()),
        (422, Some(1))
    );
    // Whatever the body is said to be.
    for kind in ["text/plain", "application/x-ndjson", "\u{1}"] {
        let header = format!("Content-Type: {kind}\r\n");
        let body = login("192.0.2.7", "");
        let answer = scene
            .send("POST", "/v1/check", &header, body.as_bytes())
            .await;
        let expected = if kind == "\u{1}" { 400 } else { 200 };
        assert_eq!(answer.status, expected, "{kind:?}");
    }
}

#[tokio::test]
async fn who_may_use_the_socket() {
    let peer = |uid, gid, groups: &[u32]| Peer {
        uid,
        gid,
        groups: groups.into(),
        pid: Some(1),
    };
    let group = || Group {
        name: "apps".to_owned(),
        gid: 500,
    };
    let members = Members::new(77, Some(group()));
    for (peer, may) in [
        (peer(0, 9, &[]), true),
        (peer(77, 9, &[]), true),
        (peer(1_000, 500, &[]), true),
        (peer(1_000, 9, &[8, 500]), true),
        (peer(1_000, 9, &[8]), false),
    ] {
        assert_eq!(members.may_enter(&peer), may, "{peer:?}");
    }
    let stranger = peer(1_000, 9, &[]);
    assert!(!Members::new(77, None).may_enter(&peer(1_000, 500, &[500])));
    let refusal = members.refuse(&stranger);
    assert_eq!(refusal.status, 403);
    assert!(
        refusal.help.contains("usermod -aG apps"),
        "{}",
        refusal.help
    );
    let refusal = Members::new(77, None).refuse(&stranger);
    assert!(refusal.help.contains("decide.group"), "{}", refusal.help);
}

#[test]
fn tokens() {
    assert_eq!(Token::new(b"").unwrap_err(), BadToken::Length(0));
    assert_eq!(Token::new(b" short \n").unwrap_err(), BadToken::Length(5));
    assert_eq!(
        Token::new(&[b'x'; 1_025]).unwrap_err(),
        BadToken::Length(1_025)
    );
    assert_eq!(
        Token::new(b"0123456789abcdef\xff").unwrap_err(),
        BadToken::Byte
    );
    assert_eq!(
        Token::new(b"0123456789 abcdef").unwrap_err(),
        BadToken::Byte
    );
    let token = Token::new(format!("{TOKEN}\n").as_bytes()).unwrap();
    assert_eq!(format!("{token:?}"), "Token(…)");
}

#[tokio::test]
async fn a_port_wants_the_token() {
    let (bench, intake) = intake(&format!("[decide]\n{RULES}"));
    let api = Arc::new(Api::new(intake, || Some(1)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap();
    let token = Token::new(TOKEN.as_bytes()).unwrap();
    let server = tokio::spawn(serve_tcp(listener, token, LIMITS, Arc::clone(&api)));
    let ask = |headers: String| async move {
        let stream = TcpStream::connect(port).await.unwrap();
        let body = login("192.0.2.7", "");
        converse(
            stream,
            &request("POST", "/v1/events", &headers, body.as_bytes()),
        )
        .await
    };
    let wrong = TOKEN.replace('0', "1");
    for headers in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {wrong}\r\n"),
        format!("Authorization: Bearer {TOKEN}0\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {wrong}\r\n"),
        format!("X-Token: {TOKEN}\r\n"),
    ] {
        let answer = ask(headers.clone()).await;
        assert_eq!(answer.status, 401, "{headers}");
        assert!(answer.head.contains("www-authenticate: bearer"));
        let text = answer.json.to_string();
        assert!(
            text.contains("decide.api.token_file") && !text.contains(TOKEN),
            "{text}"
        );
    }
    assert!(bench.heard.lock().unwrap().is_empty());
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let answer = ask(format!("Authorization: {scheme} {TOKEN}\r\n")).await;
        assert_eq!(answer.status, 200, "{scheme}");
    }
    assert_eq!(bench.heard(3).len(), 3);
    server.abort();
}

#[tokio::test]
async fn five_hundred_clients_at_once_are_all_answered() {
    let limits = Limits {
        connections: 64,
        ..LIMITS
    };
    let scene = Arc::new(Scene::limited("", limits));
    let mut clients = JoinSet::new();
    for n in 0..500 {
        let scene = Arc::clone(&scene);
        clients.spawn(async move {
            let body = login(&format!("2001:db8::{n:x}"), "");
            scene.post("/v1/check", body).await.status
        });
    }
    let statuses = clients.join_all().await;
    assert_eq!(statuses, [200; 500]);
    assert_eq!(scene.row().understood, 500);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_cut() {
    let scene = Scene::new("");
    let mut stream = UnixStream::connect(scene.path()).await.unwrap();
    let whole = request("POST", "/v1/events", "", login("192.0.2.7", "").as_bytes());
    stream.write_all(&whole[..whole.len() - 5]).await.unwrap();
    let answer = converse(stream, b"").await;
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(
        answer.json["detail"]
            .as_str()
            .unwrap()
            .contains("within 10 s")
    );
    assert_eq!(scene.row().read, 0);
}

/// A judge that answers nobody until it is let.
#[derive(Debug, Default)]
struct Stuck {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Stuck {
    fn wait(&self) {
        let guard = self.is_open.lock().unwrap();
        let opened = self.opened.wait_while(guard, |is_open| !*is_open);
        drop(opened.unwrap());
    }
}

impl Judge for Stuck {
    fn passed(&self, _solved: &crate::challenge::Solved) {}

    fn verify(
        &self,
        _question: crate::challenge::captcha::Question,
    ) -> tokio::sync::oneshot::Receiver<crate::courier::Answer> {
        tokio::sync::oneshot::channel().1
    }

    fn ask(&self, _event: &Event, _cleared: &[crate::engine::Cleared]) -> Decision {
        self.wait();
        Decision::default()
    }

    fn report(&self, _events: &[Event]) {
        self.wait();
    }

    fn report_past(&self, _events: &[Event]) {
        self.wait();
    }
}

#[tokio::test]
async fn nothing_piles_up_before_a_judge_that_is_busy() {
    let stuck = Arc::new(Stuck::default());
    let judge: Arc<dyn Judge> = Arc::clone(&stuck) as _;
    let intake = Arc::new(Intake::new(judge, &decide("[decide]\n")));
    let api = Arc::new(Api::new(Arc::clone(&intake), || Some(1)).unwrap());
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("api");
    let listener = UnixListener::bind(&path).unwrap();
    let members = Members::new(own_uid(), None);
    let server = tokio::spawn(serve_unix(listener, members, LIMITS, api));
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let path = path.clone();
        clients.spawn(async move {
            let stream = UnixStream::connect(path).await.unwrap();
            let body = login("192.0.2.7", "");
            let answer = converse(stream, &request("POST", "/v1/check", "", body.as_bytes())).await;
            (answer.status, answer.head.contains("retry-after: 1"))
        });
    }
    // Those who found no place are told; the others wait for the judge.
    for _ in 0..18 {
        let told = clients.join_next().await.unwrap().unwrap();
        assert_eq!(told, (503, true));
    }
    *stuck.is_open.lock().unwrap() = true;
    stuck.opened.notify_all();
    let rest = clients.join_all().await;
    assert_eq!(rest, [(200, false); 32]);
    server.abort();
}
