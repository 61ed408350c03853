use std::sync::mpsc::channel;

use super::*;
use crate::control::api::Entry;
use crate::keeper::fake::{self, POLICY};
use crate::keeper::{By, Now};

const LATE: Duration = Duration::from_secs(60);

fn connection(peer: &str, local: &str) -> Connection {
    Connection {
        peer: peer.parse().unwrap(),
        local: local.parse().unwrap(),
    }
}

fn block(network: &str, limit: Option<&str>) -> BlockState {
    BlockState {
        network: network.parse().unwrap(),
        owner: Owner::Rule,
        limit: limit.map(str::to_owned),
        remaining: Duration::from_secs(60),
        dry: false,
    }
}

fn severed(block: &BlockState) -> Option<Severed> {
    let edge = fake::policy(POLICY).edge;
    let spared = edge.safety.ssh_ports.as_slice().into();
    Severed::of(block, &edge, &spared)
}

/// Which of these a block closes: to HTTPS, to another port, and to SSH.
fn closes(blocks: &[BlockState], peer: &str) -> [bool; 3] {
    let mut all = AllSevered::default();
    for severed in blocks.iter().filter_map(severed) {
        all.add(severed);
    }
    let (peer, local) = match peer.contains(':') {
        true => (format!("[{peer}]:9"), "[2001:db8::1]"),
        false => (format!("{peer}:9"), "203.0.113.1"),
    };
    [443, 8080, 22].map(|port| all.covers(&connection(&peer, &format!("{local}:{port}"))))
}

#[test]
fn all_of_a_blocked_source_but_ssh() {
    let all = [true, true, false];
    assert_eq!(closes(&[block("192.0.2.1/32", None)], "192.0.2.1"), all);
    assert_eq!(closes(&[block("192.0.2.0/24", None)], "192.0.2.99"), all);
    assert_eq!(
        closes(&[block("2001:db8:1::/48", None)], "2001:db8:1::5"),
        all
    );
    assert_eq!(
        closes(&[block("192.0.2.1/32", None)], "192.0.2.2"),
        [false; 3]
    );
    assert_eq!(closes(&[block("::/0", None)], "192.0.2.2"), [false; 3]);
    assert_eq!(closes(&[], "192.0.2.1"), [false; 3]);
}

#[test]
fn what_a_block_is_confined_to_and_nothing_else() {
    let confined = block("192.0.2.1/32", Some("https"));
    assert_eq!(
        closes(std::slice::from_ref(&confined), "192.0.2.1"),
        [true, false, false]
    );
    let wider = block("192.0.2.0/24", None);
    assert_eq!(closes(&[confined, wider], "192.0.2.1"), [true, true, false]);
    assert_eq!(severed(&block("192.0.2.1/32", Some("gone"))), None);
}

#[test]
fn what_drops_no_packet_closes_nothing() {
    let dry = BlockState {
        dry: true,
        ..block("192.0.2.1/32", None)
    };
    let over = BlockState {
        remaining: Duration::ZERO,
        ..block("192.0.2.1/32", None)
    };
    let kernels = BlockState {
        owner: Owner::Kernel,
        ..block("192.0.2.1/32", None)
    };
    for block in [dry, over, kernels] {
        assert_eq!(severed(&block), None, "{block:?}");
    }
    let mut all = AllSevered::default();
    all.add(severed(&block("127.0.0.0/8", None)).unwrap());
    assert!(!all.covers(&connection("127.0.0.1:9", "127.0.0.1:443")));
}

#[test]
fn a_block_by_hand_has_connections_closed_and_counted() {
    let (mut keeper, _told) = fake::keeper("limiter.toml".into(), Now::read());
    let (meant, hears) = channel();
    let close = move |is_meant: &dyn Fn(&Connection) -> bool| {
        let peers = ["192.0.2.1:5", "192.0.2.2:5"];
        let found = peers.map(|peer| is_meant(&connection(peer, "203.0.113.1:80")));
        meant.send(found).unwrap();
        Ok(1)
    };
    keeper.set_closer(Closer::start(Box::new(close)).unwrap());
    let entry = Entry {
        network: "192.0.2.1".to_owned(),
        lasting: None,
        reason: None,
        limit: None,
    };
    keeper
        .add_blocks(&[entry], By::user(0, None), Now::read())
        .unwrap();
    assert_eq!(hears.recv_timeout(LATE).unwrap(), [true, false]);
    let begun = Instant::now();
    while keeper.connections_closed() == 0 {
        assert!(begun.elapsed() < LATE);
        thread::yield_now();
    }
    assert_eq!(keeper.connections_closed(), 1);
}

#[test]
fn a_kernel_that_cannot_is_asked_again_for_the_next_block() {
    let (asked, hears) = channel();
    let close = move |_: &dyn Fn(&Connection) -> bool| {
        asked.send(()).unwrap();
        Err(io::ErrorKind::Unsupported.into())
    };
    let closer = Closer::start(Box::new(close)).unwrap();
    for _ in 0..2 {
        let severed = severed(&block("192.0.2.1/32", None)).unwrap();
        closer.waiting.try_send(severed).unwrap();
        hears.recv_timeout(LATE).unwrap();
    }
    assert_eq!(closer.closed(), 0);
}
