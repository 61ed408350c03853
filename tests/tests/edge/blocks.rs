//! Blocks: at once, on time, and no further than they say.

use crate::site::{LATE, Site, limit, rows, udp};
use limiter_tests::{
    clients,
    frames::{SYN, Upper},
    wait,
};
use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

fn limits() -> String {
    let generous = "packets = { rate = \"10000/s\", burst = 10000 }";
    [
        limit("one", "udp", 1_000, generous),
        limit("two", "udp", 2_000, generous),
    ]
    .concat()
}

/// The next packet after each command.
#[test]
fn a_block_holds_from_the_next_packet_on() {
    for mode in ["native", "generic"] {
        let site = Site::new(mode, &limits());
        let sender = site.sender();
        for (source, block) in [
            ("198.51.100.1", "198.51.100.1"),
            ("2001:db8:1::5", "2001:db8:1::/48"),
        ] {
            let frame = site.frame(source, udp(1_000)).build();
            sender.send(&frame).unwrap();
            site.counts();
            for _ in 0..5 {
                site.daemon.ask(&["block", "add", block]).unwrap();
                sender.send(&frame).unwrap();
                site.counts();
                site.daemon.ask(&["block", "del", block]).unwrap();
                sender.send(&frame).unwrap();
                site.counts();
            }
            let again = site.daemon.output(&["block", "del", block]).unwrap();
            assert_eq!(again.status.code(), Some(1));
        }
        let expected = rows(&[("- drop block -", 10), ("one pass limit -", 12)]);
        assert_eq!(site.packets(), expected);
    }
}

/// A block that is confined to a limit leaves the others alone.
#[test]
fn a_block_can_be_confined_to_a_limit() {
    let site = Site::new("native", &limits());
    let sender = site.sender();
    let add = ["block", "add", "198.51.100.1", "--limit"];
    let unknown = site.daemon.output(&[&add[..], &["three"]].concat());
    assert_eq!(unknown.unwrap().status.code(), Some(1));
    site.daemon.ask(&[&add[..], &["one"]].concat()).unwrap();
    for port in [1_000, 2_000, 3_000] {
        let frame = site.frame("198.51.100.1", udp(port)).build();
        sender.send(&frame).unwrap();
    }
    let expected = rows(&[
        ("one drop block -", 1),
        ("two pass limit -", 1),
        ("- pass no_limit -", 1),
    ]);
    assert_eq!(site.packets(), expected);
}

/// Sends packets until one arrives; returns how long after `started`.
fn arrives(site: &Site, receiver: &UdpSocket, started: Instant) -> Duration {
    let sender = site.sender();
    let source = site.pairs[0].left.ipv4.to_string();
    let frame = site.frame(&source, udp(1_000)).payload(b"here").build();
    wait::until("a packet to arrive", LATE, || {
        sender.send(&frame)?;
        let arrived = receiver.recv_from(&mut [0; 16]).is_ok();
        Ok(arrived.then(|| started.elapsed()))
    })
    .unwrap()
}

/// Whether or not the daemon runs when it is time.
#[test]
fn a_block_ends_on_time() {
    let site = Site::new("native", &limits());
    let address = SocketAddr::new(site.pairs[0].right.ipv4.into(), 1_000);
    let receiver = site.server().run(|| UdpSocket::bind(address)).unwrap();
    let often = Duration::from_millis(5);
    receiver.set_read_timeout(Some(often)).unwrap();
    arrives(&site, &receiver, Instant::now());
    let client = site.pairs[0].left.ipv4.to_string();
    let block = ["block", "add", &client, "--for", "1s"];
    for stopped in [false, true] {
        // Nothing of the last round is on its way.
        while receiver.recv_from(&mut [0; 16]).is_ok() {}
        let before = Instant::now();
        site.daemon.ask(&block).unwrap();
        if stopped {
            site.daemon.signal(libc::SIGSTOP).unwrap();
        }
        let after = Instant::now();
        let lasted = arrives(&site, &receiver, before);
        if stopped {
            site.daemon.signal(libc::SIGCONT).unwrap();
        }
        // The clock steps every 4 ms at most.
        assert!(lasted >= Duration::from_millis(990), "{lasted:?}");
        assert!(after.elapsed() < LATE / 2, "{lasted:?}");
    }
    assert!(site.counts()["- drop block -"].0 >= 2);
    assert_eq!(
        site.daemon.ask(&["block", "list"]).unwrap(),
        "nothing is blocked\n"
    );
}

/// Whoever blocks himself can still mend it.
#[test]
fn a_block_spares_ssh() {
    let site = Site::new("native", &limits());
    let address = |port| SocketAddr::new(site.pairs[0].right.ipv4.into(), port);
    let _listeners = [22, 80].map(|port| {
        let bound = site.server().run(|| TcpListener::bind(address(port)));
        bound.unwrap()
    });
    let patience = Duration::from_millis(500);
    drop(clients::connect(site.client(), address(80), LATE).unwrap());
    let client = site.pairs[0].left.ipv4.to_string();
    site.daemon.ask(&["block", "add", &client]).unwrap();
    drop(clients::connect(site.client(), address(22), LATE).unwrap());
    clients::connect(site.client(), address(80), patience).unwrap_err();
    site.daemon.ask(&["block", "del", &client]).unwrap();
    drop(clients::connect(site.client(), address(80), LATE).unwrap());
    let counts = site.counts();
    assert!(counts["- drop block -"].0 >= 1, "{counts:?}");
    // UDP port 22 is nobody's way in, and what is denied is denied.
    site.daemon.ask(&["block", "add", "198.51.100.7"]).unwrap();
    site.daemon.ask(&["deny", "add", "198.51.100.8"]).unwrap();
    let before = site.counts();
    let syn = Upper::Tcp {
        from: 40_000,
        to: 22,
        flags: SYN,
    };
    let sender = site.sender();
    for (source, upper) in [
        ("198.51.100.7", udp(22)),
        ("198.51.100.7", syn),
        ("198.51.100.8", syn),
    ] {
        sender.send(&site.frame(source, upper).build()).unwrap();
    }
    let after = site.counts();
    let added = |name: &str| after[name].0 - before.get(name).map_or(0, |it| it.0);
    let names = ["- drop block -", "- pass no_limit -", "- drop deny -"];
    assert_eq!(names.map(added), [1; 3], "{after:?}");
}
