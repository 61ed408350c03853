//! What HAProxy would send, byte by byte, and what it would hear.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use spop::FrameType;
use tokio::io::DuplexStream;

use super::*;
use crate::adapters::sleepers::LONGEST_SLEEP;
use crate::adapters::tests::{Bench, RULES, decide, intake};

/// A frame of HAProxy's: its type, stream and payload.
fn frame(kind: FrameType, stream: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind.to_u8(), 0, 0, 0, 1];
    spop::encode_varint_into(stream, &mut frame);
    spop::encode_varint_into(1, &mut frame);
    frame.extend_from_slice(payload);
    let mut whole = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    whole.append(&mut frame);
    whole
}

fn put(text: &str, bytes: &mut Vec<u8>) {
    spop::encode_varint_into(text.len() as u64, bytes);
    bytes.extend_from_slice(text.as_bytes());
}

fn pairs(pairs: &[(&str, TypedData)], bytes: &mut Vec<u8>) {
    for (name, value) in pairs {
        put(name, bytes);
        value.to_bytes(bytes);
    }
}

fn hello(items: &[(&str, TypedData)]) -> Vec<u8> {
    let mut payload = Vec::new();
    pairs(items, &mut payload);
    frame(FrameType::HaproxyHello, 0, &payload)
}

fn notify(stream: u64, name: &str, args: &[(&str, TypedData)]) -> Vec<u8> {
    let mut payload = Vec::new();
    put(name, &mut payload);
    payload.push(u8::try_from(args.len()).unwrap());
    pairs(args, &mut payload);
    frame(FrameType::Notify, stream, &payload)
}

fn greeting() -> Vec<u8> {
    hello(&[
        ("supported-versions", "2.0".to_owned().into()),
        ("max-frame-size", 16_380_u32.into()),
        ("capabilities", "pipelining,async".to_owned().into()),
    ])
}

fn binary(headers: &[(&str, &str)]) -> TypedData {
    let mut bytes = Vec::new();
    for (name, value) in headers.iter().chain(&[("", "")]) {
        put(name, &mut bytes);
        put(value, &mut bytes);
    }
    TypedData::Binary(bytes)
}

fn peer(address: &str) -> (&'static str, TypedData) {
    ("peer", TypedData::IPv4(address.parse().unwrap()))
}

fn login(address: &str) -> Vec<(&'static str, TypedData)> {
    vec![
        peer(address),
        ("method", "POST".to_owned().into()),
        ("path", "/login?next=/".to_owned().into()),
        ("host", "example.com:443".to_owned().into()),
        ("headers", binary(&[("x-forwarded-for", "203.0.113.9")])),
    ]
}

/// A peer that has greeted.
struct Peer {
    stream: DuplexStream,
    bytes: BytesMut,
    _serving: tokio::task::JoinHandle<()>,
}

impl Peer {
    fn new(spoe: &Arc<Spoe>) -> Self {
        let (stream, far) = tokio::io::duplex(1 << 20);
        let spoe = Arc::clone(spoe);
        let serving = tokio::spawn(async move {
            let seat = Arc::new(Seats::default()).take();
            tokio::select! {
                () = converse(far, &seat, || true, &spoe) => {}
                () = seat.cut(IDLE) => {}
            }
        });
        Self {
            stream,
            bytes: BytesMut::new(),
            _serving: serving,
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame: its type, its stream, and the rest of it; `None`: it was closed.
    async fn frame(&mut self) -> Option<(u8, u64, Vec<u8>)> {
        loop {
            if let Some(length) = self.bytes.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.bytes.len() >= 4 + length {
                    let frame = self.bytes.split_to(4 + length);
                    let (rest, stream) = spop::decode_varint(&frame[9..]).unwrap();
                    let (rest, _frame) = spop::decode_varint(rest).unwrap();
                    return Some((frame[4], stream, rest.to_vec()));
                }
            }
            if self.stream.read_buf(&mut self.bytes).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// The variables that a stream is answered.
    async fn variables(&mut self) -> (u64, HashMap<String, TypedData>) {
        let (kind, stream, actions) = self.frame().await.unwrap();
        assert_eq!(kind, FrameType::Ack.to_u8());
        let mut rest = &actions[..];
        let mut variables = HashMap::new();
        while let [1, 3, scope, more @ ..] = rest {
            assert_eq!(*scope, VarScope::Transaction.to_u8());
            let (more, length) = spop::decode_varint(more).unwrap();
            let (name, more) = more.split_at(length as usize);
            let (more, value) = spop::types::typed_data(more).unwrap();
            variables.insert(String::from_utf8(name.to_vec()).unwrap(), value);
            rest = more;
        }
        assert!(rest.is_empty());
        (stream, variables)
    }
}

fn spoe() -> (Arc<Bench>, Arc<Spoe>) {
    let policy =
        format!("[decide]\nspoe = '127.0.0.1:1'\ntrusted_proxies = ['192.0.2.250/32']\n{RULES}");
    let (bench, intake) = intake(&policy);
    let spoe = Spoe::new(intake, &decide(&policy), || Some(7)).unwrap();
    (bench, Arc::new(spoe))
}

fn text(text: &str) -> TypedData {
    text.to_owned().into()
}

#[tokio::test]
async fn failures_are_reported_and_the_next_attempt_is_refused() {
    let (bench, spoe) = spoe();
    let mut peer = Peer::new(&spoe);
    peer.send(&greeting()).await;
    assert_eq!(peer.frame().await.unwrap().0, FrameType::AgentHello.to_u8());
    for stream in 1..=3 {
        peer.send(&notify(stream, message::CHECK, &login("192.0.2.1")))
            .await;
        let (of, variables) = peer.variables().await;
        assert_eq!((of, &variables["action"]), (stream, &text("pass")));
        assert_eq!(variables["x_ratelimit_limit"], text("3"));
        assert!(!variables.contains_key("verdict"));
        let mut report = login("192.0.2.1");
        report.truncate(4);
        report.extend([
            ("id", variables["id"].clone()),
            ("status", TypedData::Int64(401)),
            ("headers", binary(&[("x-cf-block", "low")])),
        ]);
        peer.send(&notify(stream, message::REPORT, &report)).await;
        assert_eq!(peer.variables().await, (stream, HashMap::new()));
    }
    let heard = bench.heard(3);
    let headers = [("x-cf-block".into(), "low".into())];
    assert_eq!(heard[0].response_headers, headers);
    assert_eq!(heard[0].host.as_deref(), Some("example.com"));
    peer.send(&notify(4, message::CHECK, &login("192.0.2.1")))
        .await;
    let (_, variables) = peer.variables().await;
    assert_eq!(variables["action"], text("reject"));
    let TypedData::String(verdict) = &variables["verdict"] else {
        panic!("{variables:?}")
    };
    let Verdict { decision, source } = verdict::read(verdict).unwrap();
    assert_eq!(source.to_string(), "192.0.2.1");
    assert!(decision.refuses() && decision.rule.as_deref() == Some("login"));
    // Who is no trusted proxy names nobody else.
    peer.send(&notify(5, message::CHECK, &login("203.0.113.9")))
        .await;
    assert_eq!(peer.variables().await.1["action"], text("pass"));
    assert_eq!(spoe.origin.row(wall_ns()).understood, 8);
}

/// Has somebody wait.
fn wait(stream: u64, delay_ms: u32, source: &str) -> Vec<u8> {
    let verdict = format!("action=throttle&source={source}&rule=login&delay={delay_ms}");
    notify(stream, message::WAIT, &[("wait", text(&verdict))])
}

#[tokio::test(start_paused = true)]
async fn a_wait_holds_up_nobody_else() {
    let (_bench, spoe) = spoe();
    let mut peer = Peer::new(&spoe);
    peer.send(&greeting()).await;
    peer.frame().await.unwrap();
    let begin = tokio::time::Instant::now();
    peer.send(&wait(1, 100_000, "192.0.2.1")).await;
    peer.send(&wait(2, 10, "192.0.2.1")).await;
    assert_eq!(peer.variables().await, (2, HashMap::new()));
    assert_eq!(peer.variables().await, (1, HashMap::new()));
    let took = begin.elapsed();
    assert!(took >= LONGEST_SLEEP && took < LONGEST_SLEEP + Duration::from_secs(1));
    // Where too many of a source wait, one more is rejected at once. Others wait.
    let begin = tokio::time::Instant::now();
    let share = SLEEPERS as u64 / 16;
    for stream in 1..=share + 1 {
        peer.send(&wait(stream, 5_000, "192.0.2.1")).await;
    }
    let (stream, variables) = peer.variables().await;
    assert_eq!(stream, share + 1);
    let TypedData::String(verdict) = &variables["verdict"] else {
        panic!("{variables:?}")
    };
    let decision = verdict::read(verdict).unwrap().decision;
    assert!(decision.refuses());
    assert_eq!(decision.retry_after_s, Some(5));
    assert!(begin.elapsed() < Duration::from_secs(5));
    peer.send(&wait(9_999, 10, "192.0.2.2")).await;
    assert_eq!(peer.variables().await, (9_999, HashMap::new()));
}

#[tokio::test]
async fn a_report_of_single_headers_is_heard_and_the_origin_marks_nothing() {
    let (bench, spoe) = spoe();
    let mut peer = Peer::new(&spoe);
    peer.send(&greeting()).await;
    peer.frame().await.unwrap();
    let mut report = login("192.0.2.1");
    report.truncate(4);
    report.extend([
        ("status", TypedData::Int64(401)),
        ("headers", binary(&[("X-Limiter", "pass")])),
        ("header:X-CF-Block", text("low")),
        ("header:Location", TypedData::Null),
    ]);
    peer.send(&notify(1, message::REPORT, &report)).await;
    peer.variables().await;
    let heard = bench.heard(1);
    let headers = [("X-CF-Block".into(), "low".into())];
    assert_eq!(heard[0].response_headers, headers);
}

#[tokio::test]
async fn who_is_trusted_no_more_is_not_heard_further() {
    let (_bench, spoe) = spoe();
    let trusted = Arc::new(AtomicBool::new(true));
    let (mut stream, far) = tokio::io::duplex(1 << 20);
    let (serving, is_trusted) = (Arc::clone(&spoe), Arc::clone(&trusted));
    let conversation = tokio::spawn(async move {
        let seat = Arc::new(Seats::default()).take();
        let may_ask = || is_trusted.load(Ordering::Relaxed);
        converse(far, &seat, may_ask, &serving).await;
    });
    stream.write_all(&greeting()).await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[4], FrameType::AgentHello.to_u8());
    trusted.store(false, Ordering::Relaxed);
    let question = notify(1, message::CHECK, &login("192.0.2.1"));
    stream.write_all(&question).await.unwrap();
    conversation.await.unwrap();
    let row = spoe.origin.row(wall_ns());
    assert_eq!((row.read, row.forged), (0, 1));
}

/// Who keeps all seats and says nothing makes place for one more.
#[tokio::test]
async fn who_is_idle_makes_place() {
    let (_bench, spoe) = spoe();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let server = tokio::spawn(serve_tcp(listener, spoe));
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        stream.write_all(&greeting()).await.unwrap();
        silent.push(stream);
    }
    let mut one_more = tokio::net::TcpStream::connect(at).await.unwrap();
    one_more.write_all(&greeting()).await.unwrap();
    let mut answer = [0; 5];
    one_more.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[4], FrameType::AgentHello.to_u8());
    server.abort();
}

#[tokio::test]
async fn what_is_wrong_is_counted_and_acknowledged() {
    let (_bench, spoe) = spoe();
    let mut peer = Peer::new(&spoe);
    peer.send(&greeting()).await;
    peer.frame().await.unwrap();
    let mut broken = login("192.0.2.1");
    broken[4].1 = TypedData::Binary(vec![9, b'x']);
    let wrong = [
        ("limiter-chekc", vec![], "limiter-check, limiter-report and"),
        (message::CHECK, vec![], "`source` is missing"),
        (
            message::CHECK,
            vec![("peer", text("192.0.2.1"))],
            "`peer` is",
        ),
        (message::CHECK, broken, "`headers` is"),
    ];
    for (stream, (name, args, why)) in (1..).zip(wrong) {
        peer.send(&notify(stream, name, &args)).await;
        assert_eq!(peer.variables().await, (stream, HashMap::new()));
        let row = spoe.origin.row(wall_ns());
        assert_eq!(row.not_understood, stream);
        let sample = row.sample.unwrap();
        assert!(sample.contains(why), "{sample}");
    }
}

#[tokio::test]
async fn a_peer_that_is_no_haproxy_is_told_so_and_closed() {
    let (_bench, spoe) = spoe();
    let old = [
        ("supported-versions", text("1.0")),
        ("max-frame-size", 16_380_u32.into()),
        ("capabilities", text("")),
    ];
    let mut small = old.clone();
    small[0].1 = text("2.0");
    small[1].1 = 16_u32.into();
    let large = u32::MAX.to_be_bytes();
    let all: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &large,
        &notify(1, message::CHECK, &login("192.0.2.1")),
        &hello(&old),
        &hello(&small),
    ];
    for bytes in all {
        let mut peer = Peer::new(&spoe);
        peer.send(bytes).await;
        let (kind, ..) = peer.frame().await.unwrap();
        assert_eq!(kind, FrameType::AgentDisconnect.to_u8());
        assert!(peer.frame().await.is_none());
    }
    assert_eq!(spoe.origin.row(wall_ns()).read, 0);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_keeps_no_seat() {
    let (_bench, spoe) = spoe();
    let begin = tokio::time::Instant::now();
    let mut peer = Peer::new(&spoe);
    peer.send(&greeting()[..5]).await;
    assert!(peer.frame().await.is_none());
    assert!(begin.elapsed() < 2 * GREETING);
    let mut peer = Peer::new(&spoe);
    peer.send(&greeting()).await;
    peer.frame().await.unwrap();
    assert!(peer.frame().await.is_none());
    assert!(begin.elapsed() < 2 * GREETING + 2 * IDLE);
}

#[tokio::test]
async fn a_health_check_is_answered_and_over() {
    let (_bench, spoe) = spoe();
    let mut peer = Peer::new(&spoe);
    let mut check = vec![
        ("supported-versions", text("2.0")),
        ("max-frame-size", 16_380_u32.into()),
        ("capabilities", text("")),
    ];
    check.push(("healthcheck", true.into()));
    peer.send(&hello(&check)).await;
    assert_eq!(peer.frame().await.unwrap().0, FrameType::AgentHello.to_u8());
    assert!(peer.frame().await.is_none());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_heard_without_a_panic(bytes in proptest::collection::vec(0_u8.., 0..300)) {
        let mut conversation = Conversation::new();
        let mut greeted = BytesMut::from(&greeting()[..]);
        greeted.extend_from_slice(&bytes);
        while let Ok(Some(heard)) = conversation.hear(&mut greeted) {
            if let Heard::Notify(notified) = heard {
                let events = notified.messages();
                events.iter().for_each(|it| drop(message::event(it)));
            }
        }
    }
}
