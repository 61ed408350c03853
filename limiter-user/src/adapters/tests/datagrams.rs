use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Bench, RULES, address, intake};
use crate::adapters::datagrams::{Manner, Socket, listen};
use crate::adapters::origin::{Origin, Row};
use crate::adapters::{Intake, Running, wall_ns};
use crate::engine::{Order, What};
use crate::event::Event;
use crate::event::formats::Format;
use crate::event::lines::MAX_LINE;

/// A socket that is listened on, and one that sends to it.
struct Scene {
    bench: Arc<Bench>,
    intake: Arc<Intake>,
    origin: Arc<Origin>,
    server: UnixDatagram,
    running: Running,
    _directory: TempDir,
}

const MANNER: Manner = Manner {
    format: Format::Json,
    direct: true,
};

impl Scene {
    fn new() -> Self {
        let (bench, intake) = intake(&format!("[decide]\nfeedback = ['unix:/f']\n{RULES}"));
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let server = UnixDatagram::unbound().unwrap();
        server.connect(path).unwrap();
        let origin = intake.origins().get("feedback:unix:/f").unwrap();
        let running = listen(
            Arc::clone(&intake),
            Arc::clone(&origin),
            Socket::Unix(socket),
            &MANNER,
        );
        Self {
            bench,
            intake,
            origin,
            server,
            running: running.unwrap(),
            _directory: directory,
        }
    }

    fn send(&self, datagram: &[u8]) {
        self.server.send(datagram).unwrap();
    }

    fn row(&self) -> Row {
        self.origin.row(wall_ns())
    }
}

fn login(source: &str) -> String {
    format!(r#"{{"source":"{source}","method":"POST","path":"/login","status":401}}"#)
}

#[test]
fn failed_logins_of_a_server_block_at_the_nic() {
    let (bench, intake) = intake(&format!(
        "[decide]\nfeedback = ['unix:/f']\n{}",
        RULES.replace("reject", "block")
    ));
    let (server, socket) = UnixDatagram::pair().unwrap();
    let origin = intake.origins().get("feedback:unix:/f").unwrap();
    let running = listen(Arc::clone(&intake), origin, Socket::Unix(socket), &MANNER).unwrap();
    for header in [
        "",
        "<134>Nov 22 18:29:28 web nginx: ",
        "<134>1 - - - - - - ",
    ] {
        let line = format!("{header}{}", login("192.0.2.7"));
        server.send(line.as_bytes()).unwrap();
    }
    let heard = bench.heard(3);
    assert!(
        heard
            .iter()
            .all(|event| event.peer == Some(address("192.0.2.7")))
    );
    drop(running);
    let mut engine = bench.engine.lock().unwrap();
    let orders: Vec<Order> = engine.orders().collect();
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].source, "192.0.2.7/32".parse().unwrap());
    let mut changes = engine.changes();
    assert!(changes.any(|change| matches!(change.what, What::Began { .. })));
}

#[test]
fn what_is_not_understood_is_counted_and_shown_escaped() {
    let scene = Scene::new();
    let source = r#""source":"192.0.2.7""#;
    let hostile: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"\x1b[2J\x00\x01".to_vec(),
        b"\xff\xfe{}".to_vec(),
        format!("{{{source},{source}}}").into_bytes(),
        format!(r#"{{{source},"at":253402300799}}"#).into_bytes(),
        format!(r#"{{{source},"at":-1}}"#).into_bytes(),
        format!(r#"{{{source},"at":"9999-12-31T23:59:59Z"}}"#).into_bytes(),
        format!(r#"{{{source},"path":{}}}"#, "[".repeat(10_000)).into_bytes(),
        format!("{}\n{}", login("192.0.2.7"), login("192.0.2.8")).into_bytes(),
        vec![b'['; 100_000],
    ];
    for datagram in &hostile {
        scene.send(datagram);
    }
    scene.send(login("192.0.2.9").as_bytes());
    assert_eq!(scene.bench.heard(1).len(), 1);
    let row = scene.row();
    // The empty one tells of nothing.
    assert_eq!((row.read, row.understood, row.other), (12, 1, 1));
    assert_eq!(row.not_understood, 10);
    let sample = row.sample.unwrap();
    assert!(sample.contains("[[[[") && sample.len() < 1_000, "{sample}");
    scene.send(b"\x1b[2J\x00");
    scene.send(login("192.0.2.9").as_bytes());
    scene.bench.heard(2);
    let sample = scene.row().sample.unwrap();
    assert!(
        !sample.contains(['\x1b', '\0']) && sample.contains("[2J"),
        "{sample}"
    );
    assert!(!scene.running.has_ended());
}

#[test]
fn a_datagram_that_is_too_long_is_counted_as_such() {
    let (bench, intake) = intake(&format!("[decide]\nfeedback = ['unix:/f']\n{RULES}"));
    let (server, socket) = UnixDatagram::pair().unwrap();
    nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::SndBuf, &(4 << 20)).unwrap();
    let origin = intake.origins().get("feedback:unix:/f").unwrap();
    let running = listen(intake, Arc::clone(&origin), Socket::Unix(socket), &MANNER).unwrap();
    // Beyond the buffer, if this machine sends as much at once.
    let sent = server.send(&vec![b'x'; MAX_LINE + 2_000]);
    let sent = u64::from(sent.is_ok());
    server.send(login("192.0.2.7").as_bytes()).unwrap();
    bench.heard(1);
    drop(running);
    let row = origin.row(wall_ns());
    assert_eq!((row.not_understood, row.understood), (sent, 1));
    if sent == 1 {
        let sample = row.sample.unwrap();
        assert!(
            sample.starts_with(&format!("{} bytes", MAX_LINE + 2_000)),
            "{sample}"
        );
    }
}

#[test]
fn what_is_there_already_is_one_report() {
    let (bench, intake) = intake(&format!("[decide]\nfeedback = ['unix:/f']\n{RULES}"));
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.connect(socket.local_addr().unwrap()).unwrap();
    for n in 0..150 {
        server
            .send(login(&format!("192.0.2.{n}")).as_bytes())
            .unwrap();
    }
    let from = vec!["127.0.0.0/8".parse().unwrap()];
    let socket = Socket::Udp { socket, from };
    let origin = intake.origins().get("feedback:unix:/f").unwrap();
    let running = listen(intake, origin, socket, &MANNER).unwrap();
    let heard = bench.heard(150);
    drop(running);
    let in_order: Vec<Event> = (0..150)
        .map(|n| Event {
            method: Some("POST".into()),
            path: Some("/login".into()),
            status: Some(401),
            peer: Some(address(&format!("192.0.2.{n}"))),
            ..Event::of(address(&format!("192.0.2.{n}")))
        })
        .collect();
    assert_eq!(heard, in_order);
    assert_eq!(*bench.reports.lock().unwrap(), [64, 64, 22]);
}

#[test]
fn only_listed_senders_are_heard_on_udp() {
    let (bench, intake) = intake(&format!(
        "[decide]\nfeedback = [{{ udp = '127.0.0.1:1', from = ['127.0.0.2'] }}]\n{RULES}"
    ));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap();
    let listed = UdpSocket::bind("127.0.0.2:0").unwrap();
    let forger = UdpSocket::bind("127.0.0.3:0").unwrap();
    let from = vec!["127.0.0.2/32".parse().unwrap()];
    let origin = intake.origins().get("feedback:udp:127.0.0.1:1").unwrap();
    let socket = Socket::Udp { socket, from };
    let running = listen(intake, Arc::clone(&origin), socket, &MANNER).unwrap();
    for _ in 0..20 {
        forger
            .send_to(login("192.0.2.66").as_bytes(), port)
            .unwrap();
    }
    listed.send_to(login("192.0.2.7").as_bytes(), port).unwrap();
    let heard = bench.heard(1);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].source, address("192.0.2.7"));
    drop(running);
    let row = origin.row(wall_ns());
    assert_eq!((row.forged, row.read, row.understood), (20, 1, 1));
}

#[test]
fn what_the_kernel_had_no_room_for_is_counted() {
    let (bench, intake) = intake(&format!("[decide]\nfeedback = ['unix:/f']\n{RULES}"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.connect(socket.local_addr().unwrap()).unwrap();
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &1).unwrap();
    for _ in 0..200 {
        server.send(login("192.0.2.7").as_bytes()).unwrap();
    }
    let from = vec!["127.0.0.0/8".parse().unwrap()];
    let origin = intake.origins().get("feedback:unix:/f").unwrap();
    let socket = Socket::Udp { socket, from };
    let running = listen(intake, Arc::clone(&origin), socket, &MANNER).unwrap();
    // The kernel tells of it with the next one that finds room.
    bench.heard(1);
    server.send(login("192.0.2.8").as_bytes()).unwrap();
    let mut least = 2;
    while bench.heard(least).last().unwrap().source != address("192.0.2.8") {
        least += 1;
    }
    drop(running);
    let row = origin.row(wall_ns());
    assert_eq!(row.understood + row.dropped, 201, "{row:?}");
    assert!(row.dropped > 0);
}

#[test]
fn a_thread_that_is_dropped_has_ended() {
    let scene = Scene::new();
    scene.send(login("192.0.2.7").as_bytes());
    scene.bench.heard(1);
    drop(scene.running);
    assert_eq!(Arc::strong_count(&scene.intake), 1);
}
