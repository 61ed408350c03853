//! The control server on a socket of its own, over a fake data plane.

mod audit;

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::api::{Blocks, Changed, Entry, Explanation, List, Status};
use super::client::{Client, ClientError};
use super::{Access, LIMITS, serve, socket::Lock};
use crate::http::Limits;
use crate::keeper::fake::{POLICY, Shared, keeper};
use crate::keeper::{Handle, Keeper, Now};
use crate::policy::{NoFiles, parse};

struct Server {
    _directory: tempfile::TempDir,
    _lock: Lock,
    socket: PathBuf,
    config: PathBuf,
    told: Shared,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(limits: Limits) -> Server {
    start_with(limits, |config| keeper(config, Now::read()))
}

/// With the keeper that is made for a policy file.
fn start_with(limits: Limits, make: impl FnOnce(PathBuf) -> (Keeper, Shared)) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let config = directory.path().join("limiter.toml");
    std::fs::write(&config, POLICY).unwrap();
    let (keeper, told) = make(config.clone());
    let (handle, _ended) = Handle::spawn(keeper).unwrap();
    let mut lock = Lock::take(&socket).unwrap();
    let listener = UnixListener::from_std(lock.listen().unwrap()).unwrap();
    let policy = parse("limiter.toml", POLICY, &NoFiles).unwrap().policy;
    let (access, _warnings) = Access::of(&policy.control).unwrap();
    Server {
        task: tokio::spawn(serve(listener, access, limits, handle)),
        _directory: directory,
        _lock: lock,
        socket,
        config,
        told,
    }
}

/// Asks as the command line does, which blocks.
async fn with<R: Send + 'static>(
    server: &Server,
    ask: impl FnOnce(Client) -> R + Send + 'static,
) -> R {
    let client = Client::new(&server.socket);
    tokio::task::spawn_blocking(move || ask(client))
        .await
        .unwrap()
}

/// Sends bytes and returns all that comes back until the end.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    // The server may have had enough before all is sent.
    let _sent = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn still_works(server: &Server) {
    let status: Status = with(server, |client| client.get("/v1/status", &[]))
        .await
        .unwrap();
    assert_eq!(status.limits, ["https", "admin"]);
}

fn entry(network: &str) -> Entry {
    Entry {
        network: network.to_owned(),
        lasting: Some("10m".to_owned()),
        ..Entry::default()
    }
}

/// It is made all the same, and nobody waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stored_is_answered_with_the_cause() {
    let server = start(LIMITS);
    let notices = || {
        with(&server, |client| {
            let blocked: Changed = client.post("/v1/blocks", &entry("192.0.2.1")).unwrap();
            assert_eq!(blocked.blocks.len(), 1);
            let denied: Changed = client.post("/v1/lists/deny", &entry("192.0.2.2")).unwrap();
            let parameters = [("network", "192.0.2.2")];
            let removed: Changed = client.delete("/v1/lists/deny", &parameters).unwrap();
            [blocked, denied, removed].map(|changed| changed.notices.concat())
        })
    };
    assert_eq!(notices().await, ["", "", ""]);
    server.told.lock().unwrap().trouble = Some("the disk is full");
    for notice in notices().await {
        assert!(notice.contains("not stored"), "{notice}");
        assert!(notice.contains("(the disk is full)"), "{notice}");
    }
    server.told.lock().unwrap().hangs = true;
    for notice in notices().await {
        assert!(
            notice.contains("(the disk takes longer than 2 s)"),
            "{notice}"
        );
    }
    assert_eq!(server.told.lock().unwrap().blocks.len(), 1);
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_questions() {
    let server = start(LIMITS);
    with(&server, |client| {
        let changed: Changed = client
            .post("/v1/blocks", &[entry("192.0.2.1"), entry("2001:db8::/48")])
            .unwrap();
        assert_eq!((changed.changed, changed.blocks.len()), (2, 2));
        let more = [entry("192.0.2.1"), entry("192.0.2.2")];
        let changed: Changed = client.minimal().post("/v1/blocks", &more).unwrap();
        assert_eq!((changed.changed, changed.blocks.len()), (2, 0));
        client
            .delete::<Changed>("/v1/blocks", &[("network", "192.0.2.2")])
            .unwrap();
        let blocks: Blocks = client.get("/v1/blocks", &[]).unwrap();
        assert_eq!(blocks.blocks.len(), 2);
        assert!(blocks.blocks[0].uid.is_some());
        let parameters = [("network", "2001:db8::/48")];
        client.delete::<Changed>("/v1/blocks", &parameters).unwrap();
        let _added: Changed = client
            .post("/v1/lists/deny", &entry("203.0.113.0/24"))
            .unwrap();
        let list: List = client.get("/v1/lists/deny", &[]).unwrap();
        assert_eq!(list.entries.len(), 2);
        let found: Explanation = client
            .get("/v1/explain", &[("source", "203.0.113.5")])
            .unwrap();
        assert_eq!(found.decided_by, "deny");
        let refused = client.post::<Changed>("/v1/lists/deny", &entry("10.0.0.1"));
        match refused.unwrap_err() {
            ClientError::Refused(refusal) => assert!(refusal.detail.contains("10.0.0.0/8")),
            other => panic!("{other}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_returns_every_error() {
    let server = start(LIMITS);
    std::fs::write(&server.config, "[edge]\nmode = 1\nenforce = 2\n").unwrap();
    with(&server, |client| {
        let refused = client.post::<super::api::Reloaded>("/v1/reload", &());
        match refused.unwrap_err() {
            ClientError::Refused(refusal) => assert_eq!(refusal.diagnostics.len(), 2),
            other => panic!("{other}"),
        }
    })
    .await;
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_problem_details() {
    let server = start(LIMITS);
    for (request, status) in [
        ("GET /v1/nothing HTTP/1.1", "404"),
        ("PUT /v1/blocks HTTP/1.1", "405"),
        ("GET /v1/sources?count=x HTTP/1.1", "400"),
    ] {
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(&server, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(
            answer.contains("content-type: application/problem+json"),
            "{answer}"
        );
        assert!(answer.contains("\"help\":"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_or_cut() {
    let server = start(LIMITS);
    for garbage in [
        &b"\x00\x01\x02\xff\xfe\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/blocks HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/blocks HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{]",
    ] {
        let answer = tokio::time::timeout(Duration::from_secs(20), raw(&server, garbage)).await;
        let answer = answer.expect("it ends");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_without_end_is_cut() {
    let server = start(Limits {
        header: Duration::from_millis(300),
        ..LIMITS
    });
    // Too large: refused.
    let mut large = b"GET /v1/status HTTP/1.1\r\nX: ".to_vec();
    large.resize(1 << 20, b'a');
    let answer = raw(&server, &large).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    // Too slow: cut.
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    stream
        .write_all(b"GET /v1/status HTTP/1.1\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
    cut.await.expect("it is cut").unwrap();
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_are_refused() {
    let server = start(LIMITS);
    // Announced.
    let head = b"POST /v1/blocks HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n";
    let mut request = head.to_vec();
    request.resize(request.len() + (1 << 20), b' ');
    let answer = raw(&server, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Not announced: chunks without end.
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    let head = b"POST /v1/blocks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut chunk = b"100000\r\n".to_vec();
    chunk.resize(chunk.len() + (1 << 20), b' ');
    chunk.extend_from_slice(b"\r\n");
    let mut sent = 0;
    while sent < 100 && stream.write_all(&chunk).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 100, "all of it was taken");
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_at_once_are_all_answered() {
    let server = start(LIMITS);
    let mut clients = JoinSet::new();
    for _ in 0..500 {
        let socket = server.socket.clone();
        clients.spawn(async move {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            let request = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room() {
    let server = start(Limits {
        connections: 4,
        idle: Duration::from_millis(50),
        ..LIMITS
    });
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(UnixStream::connect(&server.socket).await.unwrap());
    }
    still_works(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(&directory.path().join("none.sock"));
    let asked = move || {
        client
            .get::<Status>("/v1/status", &[])
            .unwrap_err()
            .to_string()
    };
    let error = tokio::task::spawn_blocking(asked).await.unwrap();
    assert!(error.contains("limiter run"), "{error}");
}

/// Hangs up while somebody else waits for the place of its observation.
async fn take_turns(server: &Server) {
    let long = b"GET /v1/observation?for=1h HTTP/1.1\r\nHost: x\r\n\r\n";
    let short = b"GET /v1/observation?for=2s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let first = loop {
        let mut first = UnixStream::connect(&server.socket).await.unwrap();
        first.write_all(long).await.unwrap();
        // Of two that come at once either may be the one that is refused.
        if raw(server, short).await.contains(" 503 ") {
            break first;
        }
    };
    still_works(server).await;
    drop(first);
    while !raw(server, short).await.contains(" 200 ") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_observes_at_a_time_and_who_hangs_up_makes_room() {
    let server = start(LIMITS);
    let in_time = tokio::time::timeout(Duration::from_secs(60), take_turns(&server)).await;
    assert!(in_time.is_ok(), "nobody made room");
}
