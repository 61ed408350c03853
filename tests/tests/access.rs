//! Least privilege: what the daemon needs, what it keeps, and who may tell it
//! what to do.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use limiter_tests::{
    daemon::{self, Daemon, Terms},
    frames::{Frame, Upper},
    netns::{Namespace, PINS},
    sender::Sender,
    veth::{Options, Veth},
    wait,
};
use nix::unistd::Group;
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixStream,
    },
    path::Path,
    process::{Command, Output},
    time::Duration,
};

const THREE: [&str; 3] = ["+bpf", "+net_admin", "+perfmon"];

/// The same as the kernel writes them: 12, 38 and 39.
const THREE_BITS: &str = "000000c000001000";
const NO_BITS: &str = "0000000000000000";

fn pair(number: u8) -> Veth {
    let [left, right] = [(); 2].map(|()| Namespace::new().unwrap());
    let options = Options {
        number,
        ipv6: false,
        ..Options::default()
    };
    Veth::new(&left, &right, options).unwrap()
}

fn denying(pair: &Veth, denied: &str) -> String {
    format!(
        "[edge]\ninterfaces = [{:?}]\ndeny = [{denied:?}]\n",
        pair.right.name
    )
}

/// Packets dropped because their sources are denied.
fn denied(daemon: &Daemon) -> u64 {
    let stats = daemon.json(&["stats"]).unwrap();
    let rows = stats["counters"].as_array().unwrap();
    let ours = rows
        .iter()
        .filter(|row| row["reason"] == "deny" && row["verdict"] == "drop");
    ours.filter_map(|row| row["packets"].as_u64()).sum()
}

/// One more packet of a denied source is dropped.
#[track_caller]
fn drops(daemon: &Daemon, pair: &Veth, source: [u8; 4]) {
    let before = denied(daemon);
    let upper = Upper::Udp { from: 9, to: 7_777 };
    let frame = Frame::new(source.into(), pair.right.ipv4.into(), upper);
    let frame = frame.macs(pair.left.mac, pair.right.mac).build();
    Sender::new(&pair.left).unwrap().send(&frame).unwrap();
    wait::until("the dropped packet", wait::SOON, || {
        Ok((denied(daemon) > before).then_some(()))
    })
    .unwrap();
}

/// A line of what the kernel says of a process or thread.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

/// Every thread has the three capabilities and no way to others.
#[track_caller]
fn has_three(daemon: &Daemon) {
    let tasks = format!("/proc/{}/task", daemon.id().unwrap());
    let mut names = Vec::new();
    for task in fs::read_dir(tasks).unwrap() {
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
            continue; // It has ended.
        };
        let name = field(&status, "Name");
        for (set, bits) in [
            ("CapPrm", THREE_BITS),
            ("CapEff", THREE_BITS),
            ("CapBnd", THREE_BITS),
            ("CapInh", NO_BITS),
            ("CapAmb", NO_BITS),
            ("NoNewPrivs", "1"),
        ] {
            assert_eq!(field(&status, set), bits, "{set} of {name}");
        }
        names.push(name);
    }
    assert!(names.iter().any(|name| name == "keeper"), "{names:?}");
    assert!(names.len() >= 4, "{names:?}");
}

#[test]
fn three_capabilities_are_enough() {
    let pair = pair(71);
    let policy = |denied: &str| denying(&pair, denied);
    let terms = Terms::unprivileged(&THREE);
    let daemon =
        Daemon::start_on(&pair.right.namespace, &policy("198.51.100.0/24"), terms).unwrap();
    has_three(&daemon);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id().unwrap())).unwrap();
    let uid = daemon::NOBODY_KNOWN;
    assert_eq!(field(&status, "Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
    drops(&daemon, &pair, [198, 51, 100, 1]);
    daemon.write_policy(&policy("203.0.113.0/24")).unwrap();
    daemon.ask(&["reload"]).unwrap();
    drops(&daemon, &pair, [203, 0, 113, 1]);
    daemon.ask(&["deny", "add", "192.0.2.0/24"]).unwrap();
    drops(&daemon, &pair, [192, 0, 2, 1]);
    daemon.ask(&["block", "add", "192.0.2.9"]).unwrap();
    daemon.ask(&["sources"]).unwrap();
    has_three(&daemon);
    // What is pinned there is for nobody else.
    let mut list = daemon::as_user(&pair.right.namespace, uid + 1, &[], &[], Path::new("ls"));
    let listed = list.arg(PINS).output().unwrap();
    assert!(!listed.status.success(), "{listed:?}");
    daemon.kill().unwrap();
    daemon.launch().unwrap();
    assert!(daemon.log().unwrap().contains("took over"));
    drops(&daemon, &pair, [203, 0, 113, 9]);
    has_three(&daemon);
    daemon.ask(&["detach"]).unwrap();
    let shown = pair.right.namespace.ip("link show").unwrap();
    assert!(!shown.contains("xdp"), "{shown}");
    assert!(daemon.stop().unwrap().success());
    assert!(!daemon.socket().exists());
}

#[test]
fn each_missing_capability_is_named() {
    let pair = pair(72);
    let names = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"];
    for missing in 0..THREE.len() {
        let mut given = THREE.to_vec();
        given.remove(missing);
        let terms = Terms::unprivileged(&given);
        let daemon = Daemon::prepare(
            &pair.right.namespace,
            &denying(&pair, "198.51.100.1"),
            terms,
        );
        let daemon = daemon.unwrap();
        let output = daemon.run().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        let (what, remedy) = text.split_once("; run as root").unwrap();
        for (number, name) in names.into_iter().enumerate() {
            assert_eq!(what.contains(name), number == missing, "{name}: {text}");
        }
        assert!(remedy.contains("AmbientCapabilities="), "{text}");
        assert!(!daemon.socket().exists(), "something was begun");
    }
}

#[test]
fn root_keeps_no_more() {
    let pair = pair(73);
    let daemon = Daemon::start(&pair.right.namespace, &denying(&pair, "198.51.100.0/24")).unwrap();
    has_three(&daemon);
    drops(&daemon, &pair, [198, 51, 100, 1]);
}

/// What no reload could read is not read at the start either.
#[test]
fn root_reads_only_what_it_may() {
    let pair = pair(78);
    let terms = Terms::default();
    let daemon = Daemon::prepare(&pair.right.namespace, &denying(&pair, "192.0.2.1"), terms);
    let daemon = daemon.unwrap();
    let somebody = Some(daemon::NOBODY_KNOWN);
    chown(daemon.policy(), somebody, somebody).unwrap();
    fs::set_permissions(daemon.policy(), fs::Permissions::from_mode(0o600)).unwrap();
    let output = daemon.run().unwrap();
    let parts = [
        "limiter.toml",
        "ermission denied",
        "CAP_DAC_OVERRIDE",
        "ls -l",
    ];
    refused(&output, &parts);
}

/// The command line in somebody else's hands.
fn ask(daemon: &Daemon, uid: u32, groups: &[u32], arguments: &[&str]) -> Output {
    let namespace = Namespace::new().unwrap();
    let program = daemon.shared_program();
    let mut command: Command = daemon::as_user(&namespace, uid, groups, &[], &program);
    command.arg("--socket").arg(daemon.socket()).args(arguments);
    command.output().unwrap()
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

/// What no group lets in, what one lets look, and what one lets change.
#[test]
fn strangers_are_refused_and_readers_look() {
    let pair = pair(74);
    let terms = Terms {
        control: "group = \"adm\"\nread_group = \"daemon\"".to_owned(),
        ..Terms::unprivileged(&THREE)
    };
    let policy = denying(&pair, "198.51.100.0/24");
    let daemon = Daemon::start_on(&pair.right.namespace, &policy, terms).unwrap();
    let gid = |name: &str| Group::from_name(name).unwrap().unwrap().gid.as_raw();
    let (adm, readers) = (gid("adm"), gid("daemon"));
    const SOMEBODY: u32 = 64_000;
    const OTHERS: u32 = 64_001;
    let add = &["block", "add", "192.0.2.1"][..];
    for arguments in [&["status"][..], &["block", "list"], add, &["detach"]] {
        let output = ask(&daemon, SOMEBODY, &[OTHERS], arguments);
        let words = [
            "user 64000 may not use",
            "`adm`",
            "control.group",
            "`daemon`",
            "usermod",
        ];
        refused(&output, &words);
        assert!(output.stdout.is_empty());
    }
    // The group of a process counts, and so do its others.
    for groups in [&[readers][..], &[OTHERS, 64_002, readers]] {
        let output = ask(&daemon, SOMEBODY, groups, &["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        for change in [add, &["deny", "add", "192.0.2.1"], &["reload"], &["detach"]] {
            let output = ask(&daemon, SOMEBODY, groups, change);
            refused(
                &output,
                &["may look, and not change", "`adm`", "log", "again"],
            );
        }
        let file = daemon
            .socket()
            .with_extension("pcapng")
            .display()
            .to_string();
        refused(&ask(&daemon, SOMEBODY, groups, &["capture", &file]), &[]);
    }
    let blocks = |daemon: &Daemon| daemon.json(&["block", "list"]).unwrap()["blocks"].clone();
    assert_eq!(blocks(&daemon), serde_json::json!([]));
    for groups in [&[adm][..], &[OTHERS, adm]] {
        let output = ask(&daemon, SOMEBODY, groups, add);
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(blocks(&daemon)[0]["uid"], SOMEBODY);
    // And the user that the daemon runs as.
    let output = ask(
        &daemon,
        daemon::NOBODY_KNOWN,
        &[],
        &["block", "del", "192.0.2.1"],
    );
    assert!(output.status.success(), "{output:?}");
    let log = daemon.log().unwrap();
    assert!(
        log.contains("refused on the control socket") && log.contains("64000"),
        "{log}"
    );
}

/// More connections than a daemon has places for.
fn crowd(socket: &Path) -> Vec<UnixStream> {
    (0..200)
        .map(|_| UnixStream::connect(socket).unwrap())
        .collect()
}

/// Whether the other side has closed.
fn is_closed(stream: &mut UnixStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn strangers_take_nobodys_place() {
    let pair = pair(75);
    let policy = denying(&pair, "198.51.100.0/24");
    let daemon =
        Daemon::start_on(&pair.right.namespace, &policy, Terms::unprivileged(&THREE)).unwrap();
    // What a process may do is settled when it connects: the connections are a
    // stranger's, though this test holds them.
    let strangers = std::thread::scope(|scope| {
        let connect = || {
            // Of this thread alone.
            // SAFETY: system calls on integers; the thread ends with them.
            let left = unsafe { libc::syscall(libc::SYS_setresgid, 64_000, 64_000, 64_000) };
            assert_eq!(left, 0);
            // SAFETY: as above.
            let left = unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) };
            assert_eq!(left, 0);
            // SAFETY: as above.
            let left = unsafe { libc::syscall(libc::SYS_setresuid, 64_000, 64_000, 64_000) };
            assert_eq!(left, 0);
            crowd(&daemon.socket())
        };
        scope.spawn(connect).join().unwrap()
    });
    daemon.ask(&["status"]).unwrap();
    // All but eight were closed at once; those are told, once each.
    let (mut open, mut closed) = (Vec::new(), 0);
    for mut stream in strangers {
        match is_closed(&mut stream) {
            true => closed += 1,
            false => open.push(stream),
        }
    }
    assert!(closed >= 192, "{closed} closed");
    for mut stream in open {
        stream.set_read_timeout(Some(wait::SOON)).unwrap();
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
        if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        }
    }
    daemon.ask(&["status"]).unwrap();
}

#[test]
fn a_group_that_was_chosen_must_exist() {
    let pair = pair(76);
    let terms = Terms {
        control: "group = \"no-such-group\"".to_owned(),
        ..Terms::default()
    };
    let daemon = Daemon::prepare(&pair.right.namespace, &denying(&pair, "192.0.2.1"), terms);
    let output = daemon.unwrap().run().unwrap();
    refused(
        &output,
        &["no group `no-such-group`", "control.group", "groupadd"],
    );
}

/// The flag's file and the kernel's command line, in a mount namespace whose
/// /etc and /proc/cmdline are the test's.
#[test]
fn a_flag_keeps_it_from_attaching() {
    let pair = pair(77);
    let terms = Terms::default();
    let daemon = Daemon::prepare(&pair.right.namespace, &denying(&pair, "192.0.2.1"), terms);
    let daemon = daemon.unwrap();
    let beside = |name: &str| daemon.policy().with_file_name(name);
    fs::create_dir_all(beside("etc/limiter")).unwrap();
    fs::write(beside("etc/limiter/disabled"), "").unwrap();
    fs::write(beside("cmdline"), "root=/dev/vda1 limiter=off quiet\n").unwrap();
    for (mine, over, word) in [
        ("etc", "/etc", "/etc/limiter/disabled"),
        ("cmdline", "/proc/cmdline", "limiter=off"),
    ] {
        let mut command = pair.right.namespace.command("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"");
        command.arg("sh").arg(beside(mine)).arg(over);
        command.arg(daemon::program().unwrap());
        command.arg("run").arg("--config").arg(daemon.policy());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains("nothing is attached") && text.contains(word),
            "{text}"
        );
    }
    let shown = pair.right.namespace.ip("link show").unwrap();
    assert!(!shown.contains("xdp"), "{shown}");
}
