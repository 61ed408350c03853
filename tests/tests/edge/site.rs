//! What the tests share: a server behind limiter, and what limiter counted.

use anyhow::Context as _;
use limiter_tests::{
    counter,
    daemon::Daemon,
    frames::{Frame, Upper},
    netns::Namespace,
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// Long enough for what happens at once, on a machine that does other things.
pub(crate) const LATE: Duration = Duration::from_secs(60);

/// Packets and bytes by `LIMIT VERDICT REASON BUDGET`; `-` where there is none.
pub(crate) type Counts = BTreeMap<String, (u64, u64)>;

/// A server whose interfaces limiter guards, and a client behind each.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) pairs: Vec<Veth>,
    /// What each interface of the server had received before.
    received: Vec<u64>,
}

/// Nothing is sent that a test did not send.
pub(crate) const QUIET: Options = Options {
    number: 1,
    queues: 1,
    mtu: 1500,
    ipv6: false,
};

impl Site {
    /// One pair; `policy` without `[edge]`'s first lines.
    pub(crate) fn new(mode: &str, edge: &str) -> Self {
        Self::with(&[QUIET], mode, edge)
    }

    /// A pair for each of `options`; see [`Site::edge`].
    pub(crate) fn with(options: &[Options], mode: &str, edge: &str) -> Self {
        let site = Self::governed(options, |pairs| policy(pairs, mode, edge));
        let status = site.daemon.json(&["status"]).unwrap();
        for row in status["interfaces"].as_array().unwrap() {
            assert_eq!(row["mode"], mode, "{status}");
        }
        site
    }

    /// The same under a policy that is made for the interfaces.
    pub(crate) fn governed(options: &[Options], policy: impl Fn(&[Veth]) -> String) -> Self {
        let server = Namespace::new().unwrap();
        let pairs: Vec<Veth> = options
            .iter()
            .map(|options| Veth::new(&Namespace::new().unwrap(), &server, *options).unwrap())
            .collect();
        let received = pairs.iter().map(received).collect();
        let daemon = Daemon::start(&server, &policy(&pairs)).unwrap();
        let status = daemon.json(&["status"]).unwrap();
        for (row, pair) in status["interfaces"].as_array().unwrap().iter().zip(&pairs) {
            assert_eq!(row["interface"], pair.right.name.as_str(), "{status}");
        }
        Self {
            daemon,
            pairs,
            received,
        }
    }

    /// The file of a policy for this site, with other limits and lists.
    pub(crate) fn policy(&self, mode: &str, edge: &str) -> String {
        policy(&self.pairs, mode, edge)
    }

    /// What `limiter integration` writes for its policy.
    pub(crate) fn integration(&self, arguments: &[&str]) -> String {
        let policy = self.daemon.policy().display().to_string();
        let asked = [&["integration"], arguments, &["--config", &policy]].concat();
        self.daemon.ask(&asked).unwrap()
    }

    pub(crate) fn server(&self) -> &Namespace {
        &self.pairs[0].right.namespace
    }

    pub(crate) fn client(&self) -> &Namespace {
        &self.pairs[0].left.namespace
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender::new(&self.pairs[0].left).unwrap()
    }

    /// A frame from anywhere to the server, through the first pair.
    pub(crate) fn frame(&self, source: &str, upper: Upper) -> Frame {
        let pair = &self.pairs[0];
        let source: IpAddr = source.parse().unwrap();
        Frame::new(source, pair.right.address(source), upper).macs(pair.left.mac, pair.right.mac)
    }

    /// Sends these frames in turn while `work` is done, at least once before it
    /// begins and once after it has ended; returns how often.
    pub(crate) fn send_while(&self, frames: &[Vec<u8>], work: impl FnOnce()) -> u64 {
        let over = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let sender = self.sender();
                loop {
                    let last = over.load(Ordering::Relaxed);
                    sender.send_all(frames.iter().map(Vec::as_slice)).unwrap();
                    let rounds = sent.fetch_add(1, Ordering::Relaxed) + 1;
                    if last {
                        return rounds;
                    }
                }
            });
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                wait::until("packets", LATE, || {
                    Ok((sent.load(Ordering::Relaxed) > 0).then_some(()))
                })
                .unwrap();
                work();
            }));
            over.store(true, Ordering::Relaxed);
            let rounds = traffic.join().unwrap();
            if let Err(panic) = worked {
                std::panic::resume_unwind(panic);
            }
            rounds
        })
    }

    /// Waits until every packet that the kernel counted at an interface was
    /// counted by limiter, and none besides; returns what was counted at each.
    pub(crate) fn counts_by_interface(&self) -> Vec<Counts> {
        let mut last = String::new();
        let settled = wait::until("limiter to have counted every packet", LATE, || {
            let stats = self.daemon.json(&["stats"])?;
            let mut all = Vec::new();
            for (pair, before) in self.pairs.iter().zip(&self.received) {
                let counts = counts(&stats, &pair.right.name);
                let counted: u64 = counts.values().map(|(packets, _)| packets).sum();
                let there = received(pair) - before;
                last = format!("{}: {there} received, {counts:?}", pair.right.name);
                if counted != there {
                    return Ok(None);
                }
                all.push(counts);
            }
            Ok(Some(all))
        });
        settled.context(last).unwrap()
    }

    /// The same of the first interface.
    pub(crate) fn counts(&self) -> Counts {
        self.counts_by_interface().swap_remove(0)
    }

    /// The same without bytes.
    pub(crate) fn packets(&self) -> Vec<(String, u64)> {
        let counts = self.counts().into_iter();
        counts.map(|(name, (packets, _))| (name, packets)).collect()
    }
}

/// Rows of [`Site::packets`], as written.
pub(crate) fn rows(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
    let rows: BTreeMap<String, u64> = rows
        .iter()
        .map(|(name, packets)| ((*name).to_owned(), *packets))
        .collect();
    rows.into_iter().collect()
}

/// Packets of one row; 0 without it.
pub(crate) fn row(counts: &Counts, name: &str) -> u64 {
    counts.get(name).map_or(0, |(packets, _)| *packets)
}

fn policy(pairs: &[Veth], mode: &str, edge: &str) -> String {
    let names: Vec<&str> = pairs.iter().map(|pair| pair.right.name.as_str()).collect();
    format!("[edge]\ninterfaces = {names:?}\nmode = {mode:?}\n{edge}")
}

fn received(pair: &Veth) -> u64 {
    counter::traffic(&pair.right).unwrap().received
}

fn counts(stats: &Value, interface: &str) -> Counts {
    let mut counts = Counts::new();
    for row in stats["counters"].as_array().unwrap() {
        if row["interface"] != interface {
            continue;
        }
        let name = ["limit", "verdict", "reason", "budget"]
            .map(|part| row[part].as_str().unwrap_or("-"))
            .join(" ");
        let number = |part: &str| row[part].as_u64().unwrap();
        // No outcome has two rows.
        let before = counts.insert(name, (number("packets"), number("bytes")));
        assert_eq!(before, None, "{stats}");
    }
    counts
}

/// A limit in words: name, protocol, ports, and the rest of its table.
pub(crate) fn limit(name: &str, protocol: &str, port: u16, rest: &str) -> String {
    format!("[[edge.limit]]\nname = {name:?}\nprotocol = {protocol:?}\nports = [{port}]\n{rest}\n")
}

pub(crate) const fn udp(to: u16) -> Upper {
    Upper::Udp { from: 9, to }
}
