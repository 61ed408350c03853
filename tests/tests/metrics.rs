//! Metrics as they are scraped: read by the reference parser and by promtool,
//! and the same as what the daemon says elsewhere.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::Context as _;
use limiter_tests::{
    clients::{self, Answer},
    daemon::Daemon,
    documented,
    frames::{Frame, Upper},
    netns::Namespace,
    process::Scratch,
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const POLICY: &str = r#"
allow = ["192.0.2.0/24"]
deny = ["203.0.113.0/24"]
deny_files = ["*.deny"]
[[edge.limit]]
name = "udp"
protocol = "udp"
ports = [7777]
packets = { rate = "1/h", burst = 5 }
[[edge.limit]]
name = "seen"
protocol = "udp"
ports = [7778]
packets = { rate = "1/h", burst = 1 }
exceed = "observe"
"#;

/// Where events come in, and a rule on them.
const RULES: &str = r#"
[decide]
api = "unix:SOCKETS/api.sock"
feedback = ["unix:SOCKETS/feedback.sock"]
[[rule]]
name = "login"
count = "requests"
key = ["source"]
limit = 5
period = "1m"
action = "reject"
[notify]
webhook = { url = "http://127.0.0.1:9/", secret_file = "SOCKETS/secret" }
"#;

struct Host {
    daemon: Daemon,
    scratch: Scratch,
    namespace: Namespace,
    metrics: SocketAddr,
    sender: Sender,
    pair: Veth,
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
        let scratch = Scratch::new().unwrap();
        std::fs::write(scratch.path("secret"), "sixteen bytes at least").unwrap();
        let sockets = scratch.path(".").display().to_string();
        let rules = RULES.replace("SOCKETS", sockets.trim_end_matches("/."));
        let policy = format!(
            "[edge]\ninterfaces = [{:?}]{POLICY}{rules}",
            pair.right.name
        );
        let daemon = Daemon::start(&right, &policy).unwrap();
        let status = daemon.json(&["status"]).unwrap();
        let metrics = status["metrics"].as_str().unwrap().parse().unwrap();
        Self {
            daemon,
            scratch,
            namespace: right,
            metrics,
            sender: Sender::new(&pair.left).unwrap(),
            pair,
        }
    }

    fn send(&self, source: [u8; 4], port: u16, count: usize) {
        let upper = Upper::Udp { from: 9, to: port };
        let frame = Frame::new(source.into(), self.pair.right.ipv4.into(), upper);
        let frame = frame.macs(self.pair.left.mac, self.pair.right.mac).build();
        for _ in 0..count {
            self.sender.send(&frame).unwrap();
        }
    }

    /// Packets of every verdict, and waits until they are counted.
    fn traffic(&self) {
        self.daemon
            .ask(&["block", "add", "198.51.100.9", "--reason", "scanner"])
            .unwrap();
        self.send([192, 0, 2, 1], 7_777, 9);
        self.send([203, 0, 113, 1], 7_777, 3);
        self.send([198, 51, 100, 9], 7_777, 4);
        self.send([198, 51, 100, 1], 7_777, 7);
        self.send([198, 51, 100, 2], 7_778, 3);
        self.send([198, 51, 100, 3], 7_779, 2);
        wait::until("the counters", wait::SOON, || {
            let stats = self.daemon.json(&["stats"])?;
            let rows = stats["counters"].as_array().cloned().unwrap_or_default();
            let packets = rows.iter().filter_map(|row| row["packets"].as_u64());
            Ok((packets.sum::<u64>() >= 28).then_some(()))
        })
        .unwrap();
    }

    /// An event, and waits until it was heard.
    fn event(&self) {
        let socket = UnixDatagram::unbound().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let event = serde_json::json!({ "source": "198.51.100.7", "at": now.as_secs() });
        let to = self.scratch.path("feedback.sock");
        socket.send_to(event.to_string().as_bytes(), to).unwrap();
        wait::until("the event", wait::SOON, || {
            let rules = self.daemon.json(&["rule", "list"])?;
            Ok((rules["rules"][0]["counted"] == 1).then_some(()))
        })
        .unwrap();
    }

    fn scrape(&self, accept: &str) -> Answer {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        clients::ask(
            &self.namespace,
            self.metrics,
            request.as_bytes(),
            wait::SOON,
        )
        .unwrap()
    }

    fn is_served(&self) {
        let answer = self.scrape("*/*");
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with(b"# HELP limiter_packets_total "));
    }
}

/// Runs a program on `input`; it must succeed.
fn piped(command: &mut Command, input: &[u8]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let errors = text(output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    text(output.stdout)
}

/// Name, labels and value, as the reference parser reads them.
type Sample = (String, BTreeMap<String, String>, f64);

/// The parser of the Python client, which `cargo xtask setup` puts below the
/// target directory, where this test is, too.
fn parsed(text: &[u8], parser: &str) -> Vec<Sample> {
    let test = std::env::current_exe().unwrap();
    let python = |directory: &std::path::Path| directory.join("setup/venv/bin/python");
    let found: Option<PathBuf> = test.ancestors().map(python).find(|path| path.exists());
    let python = found.context("no setup/venv in the target directory: run `cargo xtask setup`");
    let python = python.unwrap();
    let script = format!(
        "import json, sys\n\
         from prometheus_client.{parser} import text_string_to_metric_families as families\n\
         json.dump([[s.name, s.labels, s.value] for f in families(sys.stdin.read())\n\
         for s in f.samples], sys.stdout)"
    );
    let printed = piped(Command::new(python).args(["-c", &script]), text);
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let sample = |sample: &serde_json::Value| {
        let labels = sample[1].as_object().unwrap().iter();
        let labels = labels.map(|(name, it)| (name.clone(), it.as_str().unwrap().to_owned()));
        let name = sample[0].as_str().unwrap().to_owned();
        (name, labels.collect(), sample[2].as_f64().unwrap())
    };
    value.as_array().unwrap().iter().map(sample).collect()
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

#[test]
fn both_formats_are_accepted_and_say_the_same() {
    let host = Host::new(51);
    host.traffic();
    let open = host.scrape(OPEN_METRICS);
    let kind = open.header("content-type").unwrap();
    assert!(kind.starts_with(OPEN_METRICS), "{kind}");
    let classic = host.scrape("text/plain; version=0.0.4");
    let kind = classic.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    piped(
        Command::new("promtool").args(["check", "metrics"]),
        &classic.body,
    );

    // Without the scrapes themselves, which are counted.
    let of = |text: &[u8], parser: &str| -> Vec<Sample> {
        let samples = parsed(text, parser).into_iter();
        samples
            .filter(|it| it.0 != "limiter_http_requests_total")
            .collect()
    };
    let samples = of(&open.body, "openmetrics.parser");
    assert_eq!(samples, of(&classic.body, "parser"));
    assert!(samples.len() > 20, "{samples:?}");
}

#[test]
fn values_are_those_of_the_command_line() {
    let host = Host::new(52);
    host.traffic();
    let samples = parsed(&host.scrape(OPEN_METRICS).body, "openmetrics.parser");
    let stats = host.daemon.json(&["stats"]).unwrap();
    for (metric, field) in [
        ("limiter_packets_total", "packets"),
        ("limiter_bytes_total", "bytes"),
    ] {
        let scraped: BTreeMap<BTreeMap<String, String>, f64> = samples
            .iter()
            .filter(|it| it.0 == metric)
            .map(|it| (it.1.clone(), it.2))
            .collect();
        let labels = ["interface", "limit", "verdict", "reason", "budget"];
        let told: BTreeMap<BTreeMap<String, String>, f64> = stats["counters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                let labels = labels.map(|name| (name.to_owned(), text(name)));
                (labels.into(), row[field].as_f64().unwrap())
            })
            .collect();
        assert_eq!(scraped, told, "{metric}");
    }
    let value = |name: &str, label: Option<(&str, &str)>| {
        let is_it = |it: &&Sample| {
            it.0 == name && label.is_none_or(|(name, value)| it.1.get(name).unwrap() == value)
        };
        samples.iter().find(is_it).unwrap().2 as u64
    };
    let packets = |reason, verdict: &str| {
        let ours = samples.iter().filter(|it| {
            it.0 == "limiter_packets_total"
                && it.1["reason"] == reason
                && it.1["verdict"] == verdict
        });
        ours.map(|it| it.2 as u64).sum::<u64>()
    };
    for (reason, verdict, expected) in [
        ("allow", "pass", 9),
        ("deny", "drop", 3),
        ("block", "drop", 4),
        ("limit", "drop", 2),
        ("limit", "pass", 6),
        ("limit", "would_drop", 2),
        ("no_limit", "pass", 2),
    ] {
        assert_eq!(packets(reason, verdict), expected, "{reason} {verdict}");
    }
    let status = host.daemon.json(&["status"]).unwrap();
    for map in status["maps"].as_array().unwrap() {
        let name = map["map"].as_str().unwrap();
        let capacity = value("limiter_map_capacity", Some(("map", name)));
        assert_eq!(map["capacity"].as_u64(), Some(capacity), "{name}");
        if let Some(entries) = map["entries"].as_u64() {
            assert_eq!(value("limiter_map_entries", Some(("map", name))), entries);
        }
    }
    assert_eq!(
        value("limiter_blocks_active", Some(("owner", "operator"))),
        1
    );
    let interface = Some(("interface", host.pair.right.name.as_str()));
    assert_eq!(value("limiter_interface_attached", interface), 1);
    assert_eq!(value("limiter_config_last_reload_successful", None), 1);

    host.daemon.write_policy("[edges]").unwrap();
    host.daemon.output(&["reload"]).unwrap();
    let text = String::from_utf8(host.scrape("*/*").body).unwrap();
    assert!(
        text.contains("\nlimiter_config_last_reload_successful 0\n"),
        "{text}"
    );
}

#[test]
fn names_and_labels_are_those_documented_and_no_label_is_an_address() {
    let host = Host::new(53);
    let feed = host.daemon.policy().with_file_name("feed.deny");
    std::fs::write(feed, "100.64.0.0/10\n").unwrap();
    host.daemon.ask(&["reload"]).unwrap();
    host.traffic();
    host.event();
    // The requests counted are those before.
    host.is_served();
    let body = host.scrape(OPEN_METRICS).body;
    let documented = documented::metrics();
    let mut scraped: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, labels, _) in parsed(&body, "openmetrics.parser") {
        for value in labels.values() {
            let address = value.split('/').next().unwrap();
            assert!(address.parse::<IpAddr>().is_err(), "{name}: {labels:?}");
        }
        let mut names: BTreeSet<String> = labels.into_keys().collect();
        // The samples of a histogram have the name of it, and one a label of its own.
        let metric = documented::metric_of(&name, &documented).to_owned();
        if metric != name {
            names.remove("le");
        }
        let known = scraped.entry(metric).or_insert_with(|| names.clone());
        assert_eq!(*known, names, "{name}");
    }
    assert_eq!(scraped, documented);
    let text = String::from_utf8(body).unwrap();
    for part in ["198.51.100", "203.0.113", "192.0.2", "scanner"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

/// Whether the server has closed a connection that a client reads from
/// without waiting.
fn is_closed(stream: &mut std::net::TcpStream) -> bool {
    match stream.read(&mut [0; 1024]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn slow_and_huge_clients_are_cut_off_while_others_are_served() {
    let host = Host::new(54);
    let connect = || clients::connect(&host.namespace, host.metrics, wait::SOON).unwrap();

    let mut huge = connect();
    let line = [b"X: ".as_slice(), &[b'a'; 1 << 20]].concat();
    let head = [b"GET /metrics HTTP/1.1\r\n".as_slice(), &line, b"\r\n\r\n"].concat();
    // It need not take all of it.
    let _refused = huge.write_all(&head);
    let mut answer = Vec::new();
    let _reset = huge.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    host.is_served();

    // One byte a second.
    let mut slow = connect();
    slow.set_nonblocking(true).unwrap();
    let begin = Instant::now();
    let mut bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: aaaaaaaaaaaaaaaaaaaaaa".iter();
    let mut next = begin;
    wait::until("the slow client's end", wait::SOON * 2, || {
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            let byte = bytes.next().copied().unwrap_or(b'a');
            let _closed = slow.write_all(&[byte]);
            host.is_served();
        }
        Ok(is_closed(&mut slow).then_some(()))
    })
    .unwrap();
    // By the time for a head, not for want of seats.
    assert!(begin.elapsed() >= Duration::from_secs(4));

    // Clients that say nothing, more than are served at once.
    let idle: Vec<_> = (0..40).map(|_| connect()).collect();
    host.is_served();
    drop(idle);
}
