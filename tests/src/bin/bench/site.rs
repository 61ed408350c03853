//! A daemon at work: paced packets of sources about whom nothing changes, while
//! something else is ordered.

use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    daemon::Daemon,
    frames::{Frame, Upper},
    netns::Namespace,
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Who sends, and what all packets meet: limit, verdict, reason.
pub(crate) const WATCHED: [(&str, &str); 6] = [
    ("198.18.0.1", "web pass limit"),
    // Between two that are blocked.
    ("11.0.0.2", "web pass limit"),
    ("2001:db8:1::1", "web pass limit"),
    ("198.51.100.1", "- pass allow"),
    ("203.0.113.1", "- drop deny"),
    ("192.0.2.1", "- drop block"),
];
/// Those of them that policies list; the rest of `[edge]` has the large lists.
const LISTED: &str = "allow = [\"198.51.100.1\"]\ndeny = [\"203.0.113.0/24\"]\n";
const BLOCKED: &str = "192.0.2.1";

/// Room for what is ordered, and a limit that none of the watched reaches.
const REST: &str = "\
[edge.tables]
blocks_operator = 131_072
[[edge.limit]]
name = \"web\"
protocol = \"udp\"
ports = [1_000]
packets = { rate = \"1000000/s\", burst = 1_000_000 }
";

/// Between two packets of a source.
const PAUSE: Duration = Duration::from_micros(500);
/// Packets of each source before an order and after it.
const AROUND: u64 = 100;
/// Long enough for anything that will happen.
const LATE: Duration = Duration::from_secs(60);

/// What is ordered of a daemon.
pub(crate) enum Order {
    /// Entries of a list: the words of a command, and what it sends where.
    Entries {
        words: Vec<String>,
        path: String,
        body: String,
    },
    /// Another policy, written before.
    Reload,
}

impl Order {
    /// `limiter LIST import FILE`.
    pub(crate) fn import(list: &str, file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).context("reading a list")?;
        let entries: Vec<Value> = text.lines().map(|line| json!({"network": line})).collect();
        let name = file.to_str().context("a name that is no text")?;
        Ok(Self::entries(list, &["import", name], &entries))
    }

    /// `limiter LIST add NETWORK`.
    pub(crate) fn add(list: &str, network: &str) -> Self {
        Self::entries(list, &["add", network], &[json!({"network": network})])
    }

    fn entries(list: &str, words: &[&str], entries: &[Value]) -> Self {
        let words = [&[list], words].concat();
        Self::Entries {
            words: words.into_iter().map(str::to_owned).collect(),
            path: if list == "block" {
                "/v1/blocks".to_owned()
            } else {
                format!("/v1/lists/{list}")
            },
            body: Value::from(entries).to_string(),
        }
    }
}

/// What came of an order.
pub(crate) struct Measured {
    pub(crate) lasted: Duration,
    /// Packets that came before, during and after it.
    pub(crate) judged: u64,
    /// Those that met what they should not have.
    pub(crate) misjudged: u64,
}

/// A daemon, its interface, and who sends to it.
pub(crate) struct Site {
    daemon: Daemon,
    pair: Veth,
}

impl Site {
    /// Starts one; `edge` are lines of `[edge]`.
    pub(crate) fn new(edge: &str) -> Result<Self> {
        let server = Namespace::new()?;
        let quiet = Options {
            ipv6: false,
            ..Options::default()
        };
        let pair = Veth::new(&Namespace::new()?, &server, quiet)?;
        let daemon = Daemon::start(&server, &policy(&pair, edge))?;
        daemon.ask(&["block", "add", BLOCKED, "--for", "1h"])?;
        Ok(Self { daemon, pair })
    }

    /// Writes another policy's file.
    pub(crate) fn write_policy(&self, edge: &str) -> Result<()> {
        self.daemon.write_policy(&policy(&self.pair, edge))
    }

    /// Orders something by the command line; returns how long that took.
    pub(crate) fn order(&self, order: &Order) -> Result<Duration> {
        let words: Vec<&str> = match order {
            Order::Entries { words, .. } => words.iter().map(String::as_str).collect(),
            Order::Reload => vec!["reload"],
        };
        let mut command = self.daemon.command(&words)?;
        command.stdin(Stdio::null());
        let before = Instant::now();
        let output = command.output().context("running limiter")?;
        let lasted = before.elapsed();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "limiter {words:?}: {errors}");
        Ok(lasted)
    }

    /// The same by a request of one's own.
    fn request(&self, order: &Order) -> Result<Duration> {
        let (path, body) = match order {
            Order::Entries { path, body, .. } => (path.as_str(), body.as_str()),
            Order::Reload => ("/v1/reload", ""),
        };
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let mut answer = Vec::new();
        let before = Instant::now();
        let mut stream = UnixStream::connect(self.daemon.socket())?;
        stream.write_all(text.as_bytes())?;
        stream.read_to_end(&mut answer)?;
        let lasted = before.elapsed();
        let told = String::from_utf8_lossy(&answer);
        ensure!(
            told.starts_with("HTTP/1.1 200 "),
            "POST {path}: {told:.500}"
        );
        Ok(lasted)
    }

    /// Orders something while packets come.
    pub(crate) fn measure(&self, order: &Order, bare: bool) -> Result<Measured> {
        let frames = WATCHED.map(|(source, _)| self.frame(source));
        let frames: Vec<Vec<u8>> = frames.into_iter().collect::<Result<_>>()?;
        let before = self.counts()?;
        let (rounds, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let lasted = thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let sender = Sender::new(&self.pair.left)?;
                while !over.load(Relaxed) {
                    sender.send_all(frames.iter().map(Vec::as_slice))?;
                    rounds.fetch_add(1, Relaxed);
                    thread::sleep(PAUSE);
                }
                Ok::<_, anyhow::Error>(())
            });
            let more = || {
                let enough = rounds.load(Relaxed) + AROUND;
                wait::until("packets", wait::SOON, || {
                    Ok((rounds.load(Relaxed) >= enough).then_some(()))
                })
            };
            let order = || {
                more()?;
                let lasted = if bare {
                    self.request(order)?
                } else {
                    self.order(order)?
                };
                more()?;
                Ok::<_, anyhow::Error>(lasted)
            };
            let lasted = order();
            over.store(true, Relaxed);
            match traffic.join() {
                Ok(sent) => sent?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            lasted
        })?;
        let sent = rounds.into_inner();
        let judged = sent * frames.len() as u64;
        let misjudged = self.misjudged(&before, sent)?;
        Ok(Measured {
            lasted,
            judged,
            misjudged,
        })
    }

    fn frame(&self, source: &str) -> Result<Vec<u8>> {
        let source: IpAddr = source.parse()?;
        let upper = Upper::Udp { from: 9, to: 1_000 };
        let (own, other) = (&self.pair.left, &self.pair.right);
        let frame = Frame::new(source, other.address(source), upper);
        Ok(frame.macs(own.mac, other.mac).build())
    }

    /// Waits until so many packets of each of the watched were counted since;
    /// returns how many of them met what they should not have.
    fn misjudged(&self, before: &Counts, sent: u64) -> Result<u64> {
        let mut expected = before.clone();
        for (_, meets) in WATCHED {
            *expected.entry(meets.to_owned()).or_default() += sent;
        }
        let total = |counts: &Counts| counts.values().sum::<u64>();
        wait::until("every packet to be counted", LATE, || {
            let counts = self.counts()?;
            if total(&counts) < total(&expected) {
                return Ok(None);
            }
            let right = |name: &String| expected.get(name).copied().unwrap_or(0);
            let wrong = counts
                .iter()
                .map(|(name, met)| met.saturating_sub(right(name)));
            Ok(Some(wrong.sum()))
        })
    }

    fn counts(&self) -> Result<Counts> {
        let stats = self.daemon.json(&["stats"])?;
        let rows = stats["counters"].as_array().context("no counters")?;
        let mut counts = Counts::new();
        for row in rows {
            let words =
                ["limit", "verdict", "reason"].map(|part| row[part].as_str().unwrap_or("-"));
            let packets = row["packets"].as_u64().context("no packets")?;
            *counts.entry(words.join(" ")).or_default() += packets;
        }
        Ok(counts)
    }
}

/// Packets by limit, verdict and reason.
type Counts = BTreeMap<String, u64>;

fn policy(pair: &Veth, edge: &str) -> String {
    let name = &pair.right.name;
    format!("[edge]\ninterfaces = [{name:?}]\nmode = \"native\"\n{LISTED}{edge}{REST}")
}
