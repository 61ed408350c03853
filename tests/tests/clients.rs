//! Clients that take what they can get: what is left for others, and
//! afterwards.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::Result;
use limiter_tests::{
    clients,
    daemon::Daemon,
    frames::{Frame, Upper},
    netns::Namespace,
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const STATUS: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A daemon on a pair of interfaces that denies 198.51.100.0/24.
struct Host {
    pair: Veth,
    daemon: Daemon,
    sender: Sender,
}

impl Host {
    fn new(number: u8) -> Self {
        let [left, right] = [(); 2].map(|()| Namespace::new().unwrap());
        let options = Options {
            number,
            ipv6: false,
            ..Options::default()
        };
        let pair = Veth::new(&left, &right, options).unwrap();
        let name = &pair.right.name;
        let policy = format!("[edge]\ninterfaces = [{name:?}]\ndeny = [\"198.51.100.0/24\"]\n");
        Self {
            daemon: Daemon::start(&right, &policy).unwrap(),
            sender: Sender::new(&pair.left).unwrap(),
            pair,
        }
    }

    fn send_denied(&self) {
        let upper = Upper::Udp { from: 9, to: 7_777 };
        let source = Ipv4Addr::new(198, 51, 100, 1);
        let frame = Frame::new(source.into(), self.pair.right.ipv4.into(), upper);
        let frame = frame.macs(self.pair.left.mac, self.pair.right.mac).build();
        self.sender.send(&frame).unwrap();
    }

    /// What Prometheus gets; `None`: it is refused.
    fn scrape(&self) -> Result<Option<String>> {
        let to = SocketAddr::from(([127, 0, 0, 1], 9_477));
        let namespace = &self.pair.right.namespace;
        let answer = clients::get(namespace, to, "/metrics", wait::SOON)?;
        let text = String::from_utf8(answer.body)?;
        // 500: there was one for the answer, and none to ask the kernel with.
        assert!(matches!(answer.status, 200 | 500 | 503), "{text}");
        Ok((answer.status == 200).then_some(text))
    }

    /// The denied packets that metrics count.
    fn denied(text: &str) -> u64 {
        let ours = |line: &&str| {
            line.starts_with("limiter_packets_total{")
                && line.contains("reason=\"deny\"")
                && line.contains("verdict=\"drop\"")
        };
        let count = |line: &str| line.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok());
        text.lines().filter(ours).filter_map(count).sum()
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.daemon.id().unwrap());
        fs::read_dir(path).unwrap().count()
    }

    /// A figure of the kernel on the process, in KiB.
    fn kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.daemon.id().unwrap());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    /// How many descriptors it may have from now on.
    fn allow(&self, descriptors: &str) {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &self.daemon.id().unwrap().to_string()]);
        let status = prlimit.arg(format!("--nofile={descriptors}:")).status();
        assert!(status.unwrap().success());
    }

    fn has_again(&self, descriptors: usize) {
        wait::until("the descriptors", wait::SOON * 2, || {
            Ok((self.descriptors() <= descriptors).then_some(()))
        })
        .unwrap();
    }
}

/// Sends bytes, and reads until the daemon closes.
fn exchange(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(wait::SOON * 6)).unwrap();
    stream.set_write_timeout(Some(wait::SOON * 6)).unwrap();
    let _sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn hold(socket: &Path, number: usize) -> Vec<UnixStream> {
    let connect = |_| UnixStream::connect(socket).unwrap();
    (0..number).map(connect).collect()
}

/// Clients hold all descriptors that are for clients: one more is refused in
/// words, and the rest of the daemon has some.
#[test]
fn descriptors_that_clients_hold() {
    const ROOM: usize = 40;
    let host = Host::new(81);
    let socket = host.daemon.socket();
    host.daemon.ask(&["status"]).unwrap();
    host.scrape().unwrap();
    // Connections of before are closed a moment after their answers.
    let few = host.descriptors() - 2;
    host.has_again(few + 2);
    let most = host.descriptors() + ROOM;
    host.allow(&most.to_string());
    let of_clients = ROOM - most / 64 * 8;
    // Who is idle for a second makes room: on a slow machine, all at once.
    let refusal = wait::until("a refusal", wait::SOON * 3, || {
        // A few more than that: they are refused, and do not ask to be told.
        let held = hold(&socket, of_clients + 4);
        let answer = exchange(&socket, STATUS);
        if answer.starts_with("HTTP/1.1 503") {
            let text = host.scrape()?.expect("metrics are served");
            host.send_denied();
            wait::until("a denied packet", wait::SOON, || {
                let now = host.scrape()?.expect("metrics are served");
                Ok((Host::denied(&now) > Host::denied(&text)).then_some(()))
            })?;
            // Those that hold them are idle, and go.
            wait::until("room", wait::SOON, || {
                Ok(host
                    .daemon
                    .output(&["status"])?
                    .status
                    .success()
                    .then_some(()))
            })?;
            return Ok(Some(answer));
        }
        drop(held);
        Ok(None)
    })
    .unwrap();
    for part in ["no file descriptors left", "try again", "LimitNOFILE"] {
        assert!(refusal.contains(part), "no {part:?} in: {refusal}");
    }
    host.allow("1024");
    host.daemon.ask(&["reload"]).unwrap();
    host.has_again(few + 4);
}

/// None are left, for nobody: packets are dropped and counted all the while,
/// who comes is told, and once there are some all is well.
#[test]
fn no_descriptors_at_all() {
    let host = Host::new(82);
    let socket = host.daemon.socket();
    host.daemon.ask(&["status"]).unwrap();
    let before = Host::denied(&host.scrape().unwrap().unwrap());
    let used = host.descriptors();
    host.allow(&(used - 1).to_string());
    wait::until("a refusal", wait::SOON, || {
        let answer = exchange(&socket, STATUS);
        Ok(answer.starts_with("HTTP/1.1 503").then_some(()))
    })
    .unwrap();
    // Who scrapes is answered by another process, which has its own.
    host.scrape().unwrap();
    for _ in 0..3 {
        host.send_denied();
    }
    host.allow("1024");
    host.daemon.ask(&["status"]).unwrap();
    host.daemon.ask(&["reload"]).unwrap();
    wait::until("the packets of before", wait::SOON, || {
        let text = host.scrape()?.unwrap_or_default();
        Ok((Host::denied(&text) == before + 3).then_some(()))
    })
    .unwrap();
    host.has_again(used + 2);
    let log = host.daemon.log().unwrap();
    assert!(log.contains("cannot accept connections"), "{log}");
}

/// What a client does that does not behave, until `over`.
fn misbehave(number: usize, socket: &Path, over: &AtomicBool) {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return;
    };
    let pause = Duration::from_millis(50);
    stream.set_write_timeout(Some(pause)).unwrap();
    let head = b"POST /v1/blocks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (begin, rest): (&[u8], Vec<u8>) = match number % 3 {
        // A head, a byte at a time.
        0 => (b"GET /v1/status HTTP/1.1\r\nX: ", b"a".to_vec()),
        // No HTTP at all.
        1 => (b"\0\xff\x16\x03", vec![0xa5; 4_096]),
        // A body that does not end.
        _ => (
            head,
            [&b"10000\r\n"[..], &[b' '; 1 << 16], b"\r\n"].concat(),
        ),
    };
    let _cut = stream.write_all(begin);
    while !over.load(Ordering::Relaxed) {
        if stream.write_all(&rest).is_err() && number % 3 != 2 {
            // It was cut, and comes again.
            match UnixStream::connect(socket) {
                Ok(again) => stream = again,
                Err(_) => return,
            }
            let _cut = stream.write_all(begin);
        }
        std::thread::sleep(pause);
    }
}

#[test]
fn five_hundred_at_once_half_of_them_bad() {
    const EACH: usize = 250;
    let host = Host::new(83);
    let socket = host.daemon.socket();
    host.daemon.ask(&["status"]).unwrap();
    let (descriptors, memory) = (host.descriptors(), host.kib("VmRSS"));
    let (start, over) = (&Barrier::new(2 * EACH), &AtomicBool::new(false));
    let small = || std::thread::Builder::new().stack_size(256 << 10);
    let (slowest, during) = std::thread::scope(|scope| {
        for number in 0..EACH {
            let socket = &socket;
            let bad = move || {
                start.wait();
                misbehave(number, socket, over);
            };
            small().spawn_scoped(scope, bad).unwrap();
        }
        let good = || {
            start.wait();
            let begin = Instant::now();
            let answer = exchange(&socket, STATUS);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            begin.elapsed()
        };
        let good: Vec<_> = (0..EACH)
            .map(|_| small().spawn_scoped(scope, good).unwrap())
            .collect();
        let taken = good.into_iter().map(|it| it.join().unwrap());
        let slowest = taken.max().unwrap();
        // The bad ones are still at it.
        let begin = Instant::now();
        host.daemon.ask(&["status"]).unwrap();
        over.store(true, Ordering::Relaxed);
        (slowest, begin.elapsed())
    });
    host.has_again(descriptors + 2);
    let begin = Instant::now();
    host.daemon.ask(&["status"]).unwrap();
    let (peak, left) = (host.kib("VmHWM"), host.kib("VmRSS"));
    println!(
        "slowest of {EACH} good ones {slowest:?}, one more {during:?}, afterwards {:?}; \
         memory {memory} KiB before, {peak} at most, {left} afterwards",
        begin.elapsed()
    );
    assert!(peak < memory + (192 << 10), "{peak} KiB, {memory} before");
    let blocks = host.daemon.json(&["block", "list"]).unwrap();
    assert_eq!(blocks["blocks"], serde_json::json!([]));
    let before = Host::denied(&host.scrape().unwrap().unwrap());
    host.send_denied();
    wait::until("a denied packet", wait::SOON, || {
        let text = host.scrape()?.unwrap_or_default();
        Ok((Host::denied(&text) > before).then_some(()))
    })
    .unwrap();
}
