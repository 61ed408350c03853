//! What goes wrong is said (what, where, what to do), with exit status 1 and
//! no backtrace, and nothing is lost by it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::Result;
use limiter_tests::{
    daemon::{self, Daemon},
    flood::Sink,
    frames::{Frame, Upper},
    netns::{Namespace, PINS},
    process::{Process, Scratch},
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
};

const LIMIT: &str = "[[edge.limit]]\nname = \"udp\"\nprotocol = \"udp\"\nports = [7777]\n\
                     packets = { rate = \"1/h\", burst = 5 }\n";

fn pair(number: u8, mtu: u32) -> Veth {
    let [left, right] = [(); 2].map(|()| Namespace::new().unwrap());
    let options = Options {
        number,
        queues: 1,
        mtu,
        ipv6: false,
    };
    Veth::new(&left, &right, options).unwrap()
}

fn edge(pair: &Veth, more: &str) -> String {
    format!("[edge]\ninterfaces = [{:?}]\n{more}\n", pair.right.name)
}

/// A policy's file and the places that it names.
struct Attempt {
    scratch: Scratch,
}

impl Attempt {
    fn new(policy: &str) -> Self {
        let attempt = Self {
            scratch: Scratch::new().unwrap(),
        };
        let places = format!(
            "{policy}\n[control]\nsocket = {:?}\n[state]\ndirectory = {:?}\npins = {PINS:?}\n",
            attempt.scratch.path("control.sock"),
            attempt.scratch.path("state"),
        );
        fs::write(attempt.policy(), places).unwrap();
        attempt
    }

    fn policy(&self) -> PathBuf {
        self.scratch.path("limiter.toml")
    }

    /// `limiter run`, which must fail; returns the error.
    fn run(&self, namespace: &Namespace) -> String {
        let mut command = namespace.command(daemon::program().unwrap());
        command.arg("run").arg("--config").arg(self.policy());
        self.fails(&mut command)
    }

    /// Runs a command that must end with status 1; returns its error.
    fn fails(&self, command: &mut Command) -> String {
        self.ends_with(1, command)
    }

    fn ends_with(&self, expected: i32, command: &mut Command) -> String {
        command.env("RUST_BACKTRACE", "1");
        let log = self.scratch.path("log");
        let mut process = Process::start(command, &log).unwrap();
        let ended = wait::until("its end", wait::SOON * 3, || process.ended()).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(ended.code(), Some(expected), "{text}");
        clean(&text)
    }
}

/// What was said from the error on, once it is known to be no backtrace. Shown
/// for whoever runs the tests with `--nocapture`.
fn clean(text: &str) -> String {
    for word in ["panicked", "backtrace", "::main", ".rs:"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    let error = text.find("limiter: ").map_or(text, |at| &text[at..]);
    let error = error.trim_end().to_owned();
    println!("{error}");
    error
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

/// Asks the daemon for something that it must refuse; returns the error.
#[track_caller]
fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.output(arguments).unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} said something");
    clean(&text)
}

/// The id of the XDP program on an interface.
fn program_on(end: &limiter_tests::veth::End) -> Option<u64> {
    let shown = end.namespace.ip(&format!("link show dev {}", end.name));
    let shown: serde_json::Value = serde_json::from_str(&shown.unwrap()).unwrap();
    shown[0]["xdp"]["prog"]["id"].as_u64()
}

fn udp(pair: &Veth, source: [u8; 4]) -> Vec<u8> {
    let upper = Upper::Udp { from: 9, to: 7_777 };
    let frame = Frame::new(source.into(), pair.right.ipv4.into(), upper);
    frame.macs(pair.left.mac, pair.right.mac).build()
}

/// Packets that the daemon counted for a reason with a verdict.
fn counted(daemon: &Daemon, reason: &str, verdict: &str) -> Result<u64> {
    let stats = daemon.json(&["stats"])?;
    let rows = stats["counters"].as_array().cloned().unwrap_or_default();
    let ours = rows
        .iter()
        .filter(|row| row["reason"] == reason && row["verdict"] == verdict);
    Ok(ours.filter_map(|row| row["packets"].as_u64()).sum())
}

fn await_count(daemon: &Daemon, reason: &str, verdict: &str, expected: u64) {
    let what = format!("{expected} packets: {verdict} for {reason}");
    wait::until(&what, wait::SOON, || {
        Ok((counted(daemon, reason, verdict)? == expected).then_some(()))
    })
    .unwrap();
}

/// A daemon on a pair whose limit of five packets is in force, to be changed
/// for the worse. The source 198.51.100.N has never sent anything.
struct Host {
    pair: Veth,
    daemon: Daemon,
    sender: Sender,
    next: u8,
    dropped: u64,
}

impl Host {
    fn new(number: u8, more: &str) -> Self {
        let pair = pair(number, 1500);
        let daemon = Daemon::start(&pair.right.namespace, &(edge(&pair, more) + LIMIT)).unwrap();
        // It answers before it has attached.
        daemon.ask(&["status"]).unwrap();
        let sender = Sender::new(&pair.left).unwrap();
        Self {
            pair,
            daemon,
            sender,
            next: 1,
            dropped: 0,
        }
    }

    /// Another source is limited as it always was.
    #[track_caller]
    fn is_in_force(&mut self) {
        let frame = udp(&self.pair, [198, 51, 100, self.next]);
        for _ in 0..7 {
            self.sender.send(&frame).unwrap();
        }
        self.next += 1;
        self.dropped += 2;
        await_count(&self.daemon, "limit", "drop", self.dropped);
    }
}

#[test]
fn a_policy_file_that_is_missing_or_unreadable() {
    let namespace = Namespace::new().unwrap();
    let attempt = Attempt::new("");
    let file = attempt.policy();
    let name = file.display().to_string();
    fs::remove_file(&file).unwrap();
    says(&attempt.run(&namespace), &[&name, "No such file"]);
    fs::create_dir(&file).unwrap();
    says(&attempt.run(&namespace), &[&name, "irectory"]);
    fs::remove_dir(&file).unwrap();
    fs::write(&file, b"[edge]\n\xff\n").unwrap();
    says(&attempt.run(&namespace), &[&name, "UTF-8"]);

    // Root may read everything, so somebody else tries.
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    says(&as_nobody(&attempt), &[&name, "ermission denied"]);
}

/// `limiter run` without any right, in a directory of its own.
fn as_nobody(attempt: &Attempt) -> String {
    const NOBODY: u32 = 65_534;
    let directory = attempt.scratch.path("mine");
    if !directory.exists() {
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // Where the program lies, nobody may come; here, whatever the umask.
    let program = attempt.scratch.path("limiter");
    fs::copy(daemon::program().unwrap(), &program).unwrap();
    for path in [&attempt.scratch.path("."), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let namespace = Namespace::new().unwrap();
    let mut command = namespace.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg("--").arg(program).arg("run").arg("--config");
    command.arg(attempt.policy()).arg("--socket");
    attempt.fails(command.arg(directory.join("control.sock")))
}

#[test]
fn no_permission_names_the_capabilities() {
    let attempt = Attempt::new("[edge]\ninterfaces = [\"lo\"]\n");
    fs::set_permissions(attempt.policy(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = as_nobody(&attempt);
    says(&error, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "root"]);
}

/// `check`, `run` and `reload` say the same, and the old policy stays.
#[test]
fn a_wrong_policy_changes_nothing() {
    let mut host = Host::new(31, "");
    host.is_in_force();
    let limit = |line: &str| {
        format!("[[edge.limit]]\nname = \"x\"\nprotocol = \"tcp\"\nports = [80]\n{line}\n")
    };
    let cases: &[(String, &[&str])] = &[
        ("[edge\n".to_owned(), &[":1:", "[edge"]),
        (
            "[edge]\ninterface = []\n".to_owned(),
            &[
                ":2:1:",
                "unknown key `interface`",
                "did you mean `interfaces`?",
            ],
        ),
        (
            "[edges]\n".to_owned(),
            &[":1:", "unknown key `edges`", "did you mean `edge`?"],
        ),
        (limit("packets = \"0/s\""), &[":5:", "0/s", "allowed"]),
        (
            limit("packets = \"100000001/s\""),
            &[":5:", "100000001/s", "allowed"],
        ),
        (limit("bytes = \"101GB/s\""), &[":5:", "101GB/s", "allowed"]),
        (
            limit("packets = { rate = \"1/s\", burst = 0 }"),
            &[":5:", "one packet", "1 and more"],
        ),
        (
            limit("bytes = { rate = \"1MB/s\", burst = 1513 }"),
            &[":5:", "1513", "1514 and more"],
        ),
        (
            "[edge]\nallow = [\"10.0.0.1/8\"]\n".to_owned(),
            &[":2:", "10.0.0.1/8", "write `10.0.0.0/8`"],
        ),
    ];
    for (text, parts) in cases {
        let attempt = Attempt::new(text);
        let file = attempt.policy().display().to_string();
        let error = attempt.run(&host.pair.right.namespace);
        says(&error, &[&file]);
        says(&error, parts);
        let checked = host.daemon.output(&["check", &file]).unwrap();
        assert_eq!(checked.status.code(), Some(1));
        says(&String::from_utf8(checked.stdout).unwrap(), parts);
        // Behind these, the harness puts the places.
        host.daemon.write_policy(text).unwrap();
        let error = refused(&host.daemon, &["reload"]);
        says(&error, &["the old policy stays in force", "limiter.toml"]);
        says(&error, parts);
    }
    let status = host.daemon.json(&["status"]).unwrap();
    assert_eq!(status["reload"]["successful"], false);
    assert_eq!(status["limits"], serde_json::json!(["udp"]));
    host.is_in_force();
    fs::remove_file(host.daemon.policy()).unwrap();
    let error = refused(&host.daemon, &["reload"]);
    says(&error, &["limiter.toml", "No such file", "stays in force"]);
    host.is_in_force();
}

#[test]
fn an_unknown_interface_is_named_with_those_there_are() {
    let mut host = Host::new(32, "");
    let names = format!("interfaces = [{:?}, \"eth7\"]", host.pair.right.name);
    let own = &pair(33, 1500);
    let attempt = Attempt::new(&edge(own, "").replace(
        &format!("interfaces = [{:?}]", own.right.name),
        &format!("interfaces = [{:?}, \"eth7\"]", own.right.name),
    ));
    let error = attempt.run(&own.right.namespace);
    says(&error, &["no interface `eth7`", "there are: lo, veth33-2"]);
    assert_eq!(program_on(&own.right), None, "nothing is attached half");

    let before = program_on(&host.pair.right).unwrap();
    let text = format!("[edge]\n{names}\n");
    host.daemon.write_policy(&text).unwrap();
    let error = refused(&host.daemon, &["reload"]);
    says(&error, &["no interface `eth7`", "there are: lo, veth32-2"]);
    says(&error, &["the old policy stays in force"]);
    assert_eq!(program_on(&host.pair.right), Some(before));
    host.is_in_force();
}

#[test]
fn a_vanished_interface_is_said_until_it_is_back() {
    let host = Host::new(34, "");
    let namespace = &host.pair.right.namespace;
    namespace
        .ip(&format!("link del {}", host.pair.right.name))
        .unwrap();
    let status = host.daemon.json(&["status"]).unwrap();
    assert_eq!(status["interfaces"][0]["present"], false, "{status}");
    says(
        &host.daemon.ask(&["status"]).unwrap(),
        &["veth34-2", "missing", "attached to when it is back"],
    );
    // It was there once: no error of the policy.
    let reloaded = host.daemon.ask(&["reload"]).unwrap();
    says(&reloaded, &["veth34-2 is missing"]);
    let status = host.daemon.json(&["status"]).unwrap();
    assert_eq!(status["limits"], serde_json::json!(["udp"]));

    let options = Options {
        number: 34,
        ipv6: false,
        ..Options::default()
    };
    let again = Veth::new(&host.pair.left.namespace, namespace, options).unwrap();
    host.daemon.ask(&["reload"]).unwrap();
    let status = host.daemon.json(&["status"]).unwrap();
    assert_eq!(status["interfaces"][0]["present"], true, "{status}");
    let mut host = Host {
        sender: Sender::new(&again.left).unwrap(),
        pair: again,
        ..host
    };
    host.is_in_force();
}

#[test]
fn a_burst_below_the_frames_of_an_interface() {
    let pair = pair(35, 9000);
    let with = |burst: u32| {
        let budget = format!("bytes = {{ rate = \"1MB/s\", burst = {burst} }}\n");
        edge(&pair, "") + LIMIT + &budget
    };
    let parts = ["`udp`", "`veth35-2`", "9013", "9014", "9000"];
    let attempt = Attempt::new(&with(9013));
    says(&attempt.run(&pair.right.namespace), &parts);
    assert_eq!(program_on(&pair.right), None);

    let daemon = Daemon::start(&pair.right.namespace, &with(9014)).unwrap();
    daemon.ask(&["status"]).unwrap();
    daemon.write_policy(&with(9013)).unwrap();
    let error = refused(&daemon, &["reload"]);
    says(&error, &parts);
    says(&error, &["the old policy stays in force"]);
    daemon.write_policy(&with(9014)).unwrap();
    daemon.ask(&["reload"]).unwrap();
}

#[test]
fn the_program_of_somebody_else_stays() {
    let taken = pair(37, 1500);
    let namespace = &taken.right.namespace;
    let options = Options {
        number: 36,
        ..Options::default()
    };
    let free = Veth::new(&taken.left.namespace, namespace, options).unwrap();
    let sink = Sink::attach(&taken.right).unwrap();
    let id = program_on(&taken.right).unwrap();
    for mode in ["auto", "native", "generic"] {
        // The first is free, and is free again afterwards.
        let (first, second) = (&free.right.name, &taken.right.name);
        let policy = format!("[edge]\ninterfaces = [{first:?}, {second:?}]\nmode = {mode:?}\n");
        let error = Attempt::new(&policy).run(namespace);
        let named = format!("(id {id})");
        says(
            &error,
            &[
                "`veth37-2`",
                &named,
                "bpftool net show dev veth37-2",
                "does not replace",
            ],
        );
        assert_eq!(program_on(&free.right), None, "attached half");
    }
    assert_eq!(program_on(&taken.right), Some(id));
    let before = sink.received().unwrap();
    let sender = Sender::new(&taken.left).unwrap();
    sender.send(&udp(&taken, [198, 51, 100, 1])).unwrap();
    wait::until("the frame", wait::SOON, || {
        Ok((sink.received()? > before).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_driver_without_xdp_is_said_with_the_way_round() {
    let namespace = Namespace::new().unwrap();
    let policy = |mode: &str| format!("[edge]\ninterfaces = [\"lo\"]\nmode = {mode:?}\n");
    let error = Attempt::new(&policy("native")).run(&namespace);
    says(
        &error,
        &[
            "`lo`",
            "native mode",
            "driver has no XDP",
            "edge.mode = \"auto\"",
        ],
    );
    let daemon = Daemon::start(&namespace, &policy("auto")).unwrap();
    let status = daemon.ask(&["status"]).unwrap();
    says(&status, &["generic", "not native: its driver has no XDP"]);
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let mut host = Host::new(38, "");
    let pid = host.daemon.json(&["status"]).unwrap()["pid"]
        .as_u64()
        .unwrap();
    let namespace = host.pair.right.namespace.clone();
    let attempt = Attempt::new(
        &edge(&host.pair, "").replace("[edge]", "[metrics]\nlisten = \"127.0.0.1:0\"\n[edge]"),
    );
    let run = |socket: &Path| {
        let mut command = namespace.command(daemon::program().unwrap());
        command.arg("run").arg("--config").arg(attempt.policy());
        attempt.fails(command.arg("--socket").arg(socket))
    };
    let socket = host.daemon.socket();
    let process = format!("(process {pid})");
    says(
        &run(&socket),
        &[&process, &socket.display().to_string(), "--socket"],
    );
    let error = run(&attempt.scratch.path("other.sock"));
    says(&error, &["another limiter", PINS, "state.pins"]);
    assert!(!attempt.scratch.path("other.sock").exists());
    // The same port for metrics.
    let attempt = Attempt::new(&edge(&host.pair, ""));
    says(
        &attempt.run(&namespace),
        &["127.0.0.1:9477", "metrics.listen", "in use"],
    );
    host.is_in_force();
}

#[test]
fn a_full_table_of_blocks_keeps_those_it_has() {
    let host = Host::new(39, "tables.blocks_operator = 4");
    let daemon = &host.daemon;
    for last in 1..=4 {
        let source = format!("203.0.113.{last}");
        daemon
            .ask(&["block", "add", &source, "--for", "1h"])
            .unwrap();
    }
    let error = refused(daemon, &["block", "add", "203.0.113.5"]);
    says(
        &error,
        &[
            "operator quota of 4 blocks is full",
            "block list",
            "edge.tables.blocks_operator",
        ],
    );
    let listed = daemon.json(&["block", "list"]).unwrap();
    assert_eq!(listed["blocks"].as_array().unwrap().len(), 4);
    let status = daemon.json(&["status"]).unwrap();
    assert_eq!(status["blocks_refused"], 1);
    let maps = status["maps"].as_array().unwrap();
    let quota = maps
        .iter()
        .find(|map| map["map"] == "blocks_operator")
        .unwrap();
    assert_eq!(
        (&quota["entries"], &quota["capacity"]),
        (&4.into(), &4.into())
    );
    // One that is there may be made anew.
    daemon
        .ask(&["block", "add", "203.0.113.4", "--for", "2h"])
        .unwrap();
    for last in 1..=5 {
        host.sender
            .send(&udp(&host.pair, [203, 0, 113, last]))
            .unwrap();
    }
    await_count(daemon, "block", "drop", 4);
    await_count(daemon, "limit", "pass", 1);
    // Many at once: all or none.
    daemon.ask(&["block", "del", "203.0.113.1"]).unwrap();
    let file = Attempt::new("");
    fs::write(file.policy(), "203.0.113.5\n203.0.113.6\n").unwrap();
    let name = file.policy().display().to_string();
    says(
        &refused(daemon, &["block", "import", &name]),
        &["quota of 4 blocks"],
    );
    let listed = daemon.json(&["block", "list"]).unwrap();
    assert_eq!(listed["blocks"].as_array().unwrap().len(), 3);
}

/// The figure is compared with what is free before anything is allocated; a
/// mount namespace makes the host a small one.
#[test]
fn a_policy_that_does_not_fit_in_memory() {
    let pair = pair(40, 1500);
    let attempt = Attempt::new(&edge(&pair, "sources = 16777216"));
    let small = attempt.scratch.path("meminfo");
    fs::write(&small, "MemTotal: 2000000 kB\nMemAvailable: 1048576 kB\n").unwrap();
    let mut command = pair.right.namespace.command("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg("mount --bind \"$1\" /proc/meminfo && shift && exec \"$@\"");
    command
        .arg("sh")
        .arg(&small)
        .arg(daemon::program().unwrap());
    command.arg("run").arg("--config").arg(attempt.policy());
    let error = attempt.fails(&mut command);
    says(
        &error,
        &["1024 MiB are free", "lower edge.sources (16777216)"],
    );
    let needed = error.split("policy take ").nth(1).unwrap();
    let needed: u64 = needed.split(' ').next().unwrap().parse().unwrap();
    // At least 16 + 8 + 64 + 48 bytes each.
    assert!(needed > (16_777_216 * 136) >> 20, "{error}");
    assert_eq!(program_on(&pair.right), None);
}

#[test]
fn wrong_usage_ends_with_2() {
    let namespace = Namespace::new().unwrap();
    let attempt = Attempt::new("");
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["block", "add"],
        &["run", "--nothing"],
        &["explain"],
        &["sources", "--count", "many"],
        &["init", "--set", "novalue"],
    ] {
        let mut command = namespace.command(daemon::program().unwrap());
        // clap names what is wrong and where to read on.
        let error = attempt.ends_with(2, command.args(arguments));
        let reads_on = error.contains("Usage: limiter") || error.contains("try '--help'");
        assert!(reads_on, "{error}");
    }
    // Nobody is there.
    let socket = attempt.scratch.path("nobody.sock");
    let mut command = namespace.command(daemon::program().unwrap());
    let command = command.arg("--socket").arg(&socket).arg("status");
    let error = attempt.fails(command);
    says(
        &error,
        &[
            "no limiter answers",
            &socket.display().to_string(),
            "limiter run",
        ],
    );
}

/// Sends bytes and reads what comes back until the daemon closes.
fn exchange(socket: &Path, chunks: impl Iterator<Item = Vec<u8>>) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(wait::SOON * 6)).unwrap();
    stream.set_write_timeout(Some(wait::SOON * 6)).unwrap();
    for chunk in chunks {
        // It need not take what it refuses.
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    // What was not read resets the connection after the answer.
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.get(..12).unwrap_or(answer)
}

const STATUS: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn wild_requests_do_not_disturb_others() {
    let mut host = Host::new(41, "");
    let socket = host.daemon.socket();
    let head = |more: &str| {
        format!("POST /v1/blocks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n\r\n")
    };
    let head = |more: &str| head(more).into_bytes();
    let megabyte = || vec![b' '; 1 << 20];

    // A hundred megabytes, announced and not.
    let announced = std::iter::once(head("Content-Length: 104857600"));
    let answer = exchange(&socket, announced);
    assert_eq!(status(&answer), "HTTP/1.1 413", "{answer}");
    says(&answer, &["16777216 bytes", "several requests"]);
    let chunk = || [b"100000\r\n".as_slice(), &megabyte(), b"\r\n"].concat();
    let chunked = std::iter::once(head("Transfer-Encoding: chunked"));
    let answer = exchange(&socket, chunked.chain((0..100).map(|_| chunk())));
    assert!(
        answer.is_empty() || status(&answer) == "HTTP/1.1 413",
        "{answer}"
    );

    // Garbage.
    for garbage in [b"\0\xff\x16\x03\x01garbage\r\n\r\n".to_vec(), megabyte()] {
        let answer = exchange(&socket, std::iter::once(garbage));
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    let body = b"{\"network\": 7";
    let garbage = [
        head(&format!("Content-Length: {}", body.len())),
        body.to_vec(),
    ]
    .concat();
    let answer = exchange(&socket, std::iter::once(garbage));
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    says(&answer, &["\"detail\"", "\"help\""]);

    // Heads and bodies that never end, of more clients than there are seats.
    let endless: Vec<UnixStream> = (0..100)
        .map(|number| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let begin = match number % 2 {
                0 => b"GET /v1/sta".to_vec(),
                _ => [head("Content-Length: 1000"), b"{".to_vec()].concat(),
            };
            let _pushed_out = stream.write_all(&begin);
            stream
        })
        .collect();
    let answers: Vec<String> = std::thread::scope(|scope| {
        let ask = || exchange(&socket, std::iter::once(STATUS.to_vec()));
        let clients: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for answer in answers {
        assert_eq!(status(&answer), "HTTP/1.1 200", "{answer}");
    }
    // Heads that never end have their time.
    let mut slow = endless.into_iter().next().unwrap();
    slow.set_read_timeout(Some(wait::SOON * 6)).unwrap();
    match slow.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert_eq!(
        host.daemon.json(&["block", "list"]).unwrap()["blocks"],
        serde_json::json!([])
    );
    host.is_in_force();
}

/// What cannot be captured is said before anything is sampled or written.
#[test]
fn a_capture_that_cannot_be() {
    let host = Host::new(32, "");
    let scratch = Scratch::new().unwrap();
    let file = scratch.path("drops.pcapng");
    let name = file.to_str().unwrap().to_owned();
    for (reason, parts) in [
        (
            "allow",
            ["--reason", "possible values: martian, unparsed, deny"],
        ),
        ("nonsense", ["'nonsense'", "limit, total, unknown_source"]),
    ] {
        let output = host.daemon.output(&["capture", "--reason", reason, &name]);
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2));
        says(&String::from_utf8(output.stderr).unwrap(), &parts);
    }
    let nowhere = scratch.path("none/drops.pcapng").display().to_string();
    let error = refused(&host.daemon, &["capture", &nowhere]);
    says(&error, &["cannot write", &nowhere, "No such file"]);
    let error = refused(&host.daemon, &["capture", "--for", "2h", &name]);
    says(&error, &["2h", "allowed: 1s to 1h"]);
    assert!(!file.exists(), "an empty file is left");

    fs::write(&file, "precious").unwrap();
    let socket = scratch.path("none.sock");
    let mut command = host
        .pair
        .right
        .namespace
        .command(daemon::program().unwrap());
    command
        .arg("--socket")
        .arg(&socket)
        .args(["capture", &name]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = clean(&String::from_utf8(output.stderr).unwrap());
    says(&error, &["no limiter answers", "limiter run", "--socket"]);
    host.daemon.ask(&["detach"]).unwrap();
    let error = refused(&host.daemon, &["capture", &name]);
    says(&error, &["attached nowhere", "reload"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}
