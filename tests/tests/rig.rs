//! The rig by itself: what is sent arrives, and nothing stays behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use limiter_tests::{
    clients, counter,
    delay::Delayed,
    flood::{self, Bounds, Flood, Sink, Sources},
    frames::{Extension, Frame, Tag, Upper},
    netns::Namespace,
    pace::{self, Pace},
    process::{Process, Scratch},
    sender::Sender,
    servers::Nginx,
    veth::{Options, Veth},
    wait,
};
use std::{
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

fn pair(options: Options) -> Veth {
    let [left, right] = [(); 2].map(|()| Namespace::new().unwrap());
    Veth::new(&left, &right, options).unwrap()
}

const QUIET: Options = Options {
    number: 7,
    queues: 1,
    mtu: 1500,
    ipv6: false,
};

fn frame(pair: &Veth, ipv6: bool, upper: Upper) -> Frame {
    let family: IpAddr = if ipv6 {
        pair.left.ipv6.into()
    } else {
        pair.left.ipv4.into()
    };
    Frame::new(pair.left.address(family), pair.right.address(family), upper)
        .macs(pair.left.mac, pair.right.mac)
}

const UDP: Upper = Upper::Udp { from: 9, to: 7_777 };

#[test]
fn both_families_reach_a_server_and_back() {
    let pair = pair(Options::default());
    let answers = |address: IpAddr| {
        let address = SocketAddr::new(address, 80);
        let nginx = Nginx::plain(&pair.right.namespace, address).unwrap();
        let answer = clients::get(&pair.left.namespace, address, "/a", wait::SOON).unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, b"ok\n".as_slice())
        );
        assert!(answer.header("content-length").is_some());
        let logged = || Ok(nginx.log("access.log")?.contains("GET /a").then_some(()));
        wait::until("the access log", wait::SOON, logged).unwrap();
    };
    answers(pair.right.ipv4.into());
    answers(pair.right.ipv6.into());
}

#[test]
fn single_frames_arrive_as_they_were_sent() {
    let pair = pair(QUIET);
    let sink = Sink::attach(&pair.right).unwrap();
    let sender = Sender::new(&pair.left).unwrap();
    let plain = frame(&pair, false, UDP);
    let frames = [
        plain.build(),
        plain
            .clone()
            .tag(Tag::Service(5))
            .tag(Tag::Customer(6))
            .build(),
        plain
            .clone()
            .extension(Extension::Fragment(100, true))
            .payload(&[1; 64])
            .build(),
        frame(&pair, true, UDP)
            .extension(Extension::HopByHop(0))
            .build(),
        plain.padded(1514).build(),
    ];
    let before = counter::traffic(&pair.right).unwrap();
    let sent = sender.send_all(frames.iter().map(Vec::as_slice)).unwrap();
    wait::until("the frames", wait::SOON, || {
        Ok((sink.received()? >= sent).then_some(()))
    })
    .unwrap();
    assert_eq!(sink.received().unwrap(), 5);
    let after = counter::traffic(&pair.right).unwrap();
    assert_eq!(after.received - before.received, 5);
    assert_eq!(counter::driver_sum(&pair.right, "xdp_drops").unwrap(), 5);
}

#[test]
fn a_flood_arrives() {
    let pair = pair(QUIET);
    let sink = Sink::attach(&pair.right).unwrap();
    let bounds = Bounds {
        frames: 100_000,
        at_most: Duration::from_secs(20),
        per_second: flood::GENTLY,
    };
    let mut all = 0;
    for (ipv6, sources) in [
        (false, Sources::Random { first: 0, count: 0 }),
        (
            true,
            Sources::Range {
                first: 1,
                count: 1_000,
            },
        ),
        (false, Sources::Listed(vec![0x0a00_0001, 0x0a00_0002])),
    ] {
        let template = frame(&pair, ipv6, UDP).build();
        let flood = Flood::new(&template, &sources).unwrap();
        let sent = flood.send(&pair.left, bounds).unwrap();
        assert_eq!(sent, bounds.frames);
        all += sent;
        // On a loaded machine a flood can find the pair's ring full.
        let arrived = || {
            let received = counter::traffic(&pair.right)?.received;
            Ok((received > all / 4 && sink.received()? == received).then_some(received))
        };
        let received = wait::until("the flood", wait::SOON, arrived).unwrap();
        assert!(received <= all);
    }
}

/// The stack of the receiver sees right checksums: it counts neither header
/// nor UDP errors.
#[test]
fn a_flood_has_right_checksums() {
    let pair = pair(QUIET);
    let receiver = &pair.right;
    // NAPI without a program, so that the stack gets the frames.
    receiver
        .namespace
        .output("ethtool", &["-K", &receiver.name, "gro", "on"])
        .unwrap();
    receiver
        .namespace
        .set("ipv4/conf/all/rp_filter", "0")
        .unwrap();
    receiver
        .namespace
        .set(&format!("ipv4/conf/{}/rp_filter", receiver.name), "0")
        .unwrap();
    let socket = receiver
        .namespace
        .run(|| std::net::UdpSocket::bind((receiver.ipv4, 7_777)));
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(wait::SOON)).unwrap();
    let base = u32::from(pair.left.ipv4) & 0xffff_ff00;
    let sources = Sources::Range {
        first: base + 10,
        count: 40,
    };
    let template = frame(&pair, false, UDP).payload(b"hello").build();
    let bounds = Bounds {
        frames: 40,
        at_most: wait::SOON,
        per_second: flood::GENTLY,
    };
    Flood::new(&template, &sources)
        .unwrap()
        .send(&pair.left, bounds)
        .unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 40 {
        let (length, from) = socket.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(length, 5);
        seen.insert(from.ip());
    }
}

/// How many processes or descriptors still hold a namespace.
fn holders(inode: u64) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let held = |process: &std::fs::DirEntry| {
        let meta = std::fs::metadata(process.path().join("ns/net"));
        meta.is_ok_and(|meta| meta.ino() == inode)
    };
    processes.flatten().filter(held).count()
}

#[test]
fn a_panicking_test_leaves_nothing() {
    let seen = std::sync::Mutex::new(None);
    let test = || {
        let namespace = Namespace::new().unwrap();
        let scratch = Scratch::new().unwrap();
        let mut command = namespace.command("sleep");
        let sleeper = Process::start(command.arg("1000"), &scratch.path("log")).unwrap();
        let inode = std::fs::metadata(namespace.path()).unwrap().ino();
        *seen.lock().unwrap() = Some((inode, scratch.path("log"), sleeper.id()));
        namespace.run(|| panic!("on purpose"));
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).unwrap_err();
    let (inode, log, sleeper) = seen.lock().unwrap().take().unwrap();
    assert!(!log.exists() && !log.parent().unwrap().exists());
    assert!(!std::path::Path::new(&format!("/proc/{sleeper}")).exists());
    assert_eq!(holders(inode), 0);
}

/// Who waits for one answer is late with the next request, and that is seen.
#[test]
fn what_a_request_takes_counts_from_when_it_was_due() {
    let namespace = Namespace::new().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 8_080));
    let delay = Duration::from_millis(20);
    let application = Delayed::start(&namespace, address, delay, 0).unwrap();
    let pace = Pace {
        per_second: 200.0,
        lasts: Duration::from_millis(200),
        connections: 1,
    };
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let taken = pace::ask(&namespace, address, request, pace).unwrap();
    assert_eq!((taken.len(), application.answered()), (40, 40));
    assert!(taken.iter().all(|it| it.took >= delay), "{taken:?}");
    // The last was due after 195 ms, and 39 went before it.
    let last = taken.iter().map(|it| it.took).max().unwrap();
    assert!(last >= delay * 40 - pace.lasts, "{taken:?}");
}
