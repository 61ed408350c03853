//! The program that CrowdSec's custom bouncer calls: CrowdSec decides, and limiter blocks.

use crate::{checkout, daemon, entries, until_listed};
use limiter_tests::{
    clients,
    crowdsec::{API, CrowdSec},
    daemon::{self, Daemon},
    peers,
    process::{Process, Scratch},
    wait,
};
use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

const BOUNCER: &str = "packaging/crowdsec/limiter-bouncer";
const BAN: &str = r#"{"scope":"Ip","type":"ban","value":"192.0.2.7"}"#;

/// Has a command find the program and this daemon.
fn ordered<'a>(command: &'a mut Command, daemon: &Daemon) -> &'a mut Command {
    let program = daemon::program().unwrap();
    let directories = [program.parent().unwrap().to_owned()];
    let others = env::var_os("PATH").unwrap();
    let path = env::join_paths(directories.into_iter().chain(env::split_paths(&others)));
    command.env("PATH", path.unwrap());
    command.env("LIMITER_SOCKET", daemon.socket())
}

/// CrowdSec with nothing but its local API, and Debian's bouncer for it.
struct Host {
    daemon: Daemon,
    crowdsec: CrowdSec,
    bouncer: Process,
    scratch: Scratch,
}

impl Host {
    fn new() -> Self {
        let daemon = daemon("allow = [\"203.0.113.0/24\"]");
        let crowdsec = CrowdSec::start(&[], &[], &["-no-cs"]).unwrap();
        wait::until("CrowdSec's API", wait::SOON * 3, || {
            crowdsec.log()?;
            let second = Duration::from_secs(1);
            Ok(clients::connect(crowdsec.namespace(), API, second).ok())
        })
        .unwrap();
        let key = crowdsec.ask(&["-o", "raw", "bouncers", "add", "limiter"]);
        let scratch = Scratch::new().unwrap();
        let configuration = format!(
            "bin_path: {}\napi_url: http://{API}/\napi_key: {}\nupdate_frequency: 1s\n\
             cache_retention_duration: 1s\npiddir: {}\ndaemonize: false\nlog_mode: stdout\n\
             log_level: info\nprometheus: {{enabled: false}}\n",
            checkout(BOUNCER).display(),
            key.unwrap().trim(),
            scratch.path(".").display(),
        );
        fs::write(scratch.path("bouncer.yaml"), configuration).unwrap();
        let program: PathBuf = peers::file("usr/bin/crowdsec-custom-bouncer").unwrap();
        let mut bouncer = crowdsec.namespace().command(program);
        bouncer.arg("-c").arg(scratch.path("bouncer.yaml"));
        let log = scratch.path("log");
        let bouncer = Process::start(ordered(&mut bouncer, &daemon), &log).unwrap();
        Self {
            daemon,
            crowdsec,
            bouncer,
            scratch,
        }
    }

    fn decides(&self, words: &[&str]) {
        let arguments = [&["decisions"][..], words].concat();
        self.crowdsec.ask(&arguments).unwrap();
    }

    fn log(&mut self) -> String {
        let log = self.scratch.path("log");
        peers::ensure_runs(&mut self.bouncer, &log).unwrap();
        fs::read_to_string(log).unwrap()
    }
}

#[test]
fn bans_of_crowdsec_are_blocks_until_they_are_deleted() {
    let mut host = Host::new();
    let reason = "it's \"bad\" $(echo)";
    host.decides(&[
        "add",
        "--ip",
        "192.0.2.7",
        "--duration",
        "1h",
        "--reason",
        reason,
    ]);
    host.decides(&["add", "--range", "198.51.100.0/24", "--duration", "30m"]);
    host.decides(&["add", "--ip", "192.0.2.8", "--type", "captcha"]);
    host.decides(&["add", "--ip", "203.0.113.7"]);
    host.decides(&["add", "--ip", "2001:db8::7"]);
    let banned = ["192.0.2.7", "198.51.100.0/24", "2001:db8::7"];
    let blocks = until_listed(&host.daemon, "block", &banned);
    let (said, seconds) = &blocks["192.0.2.7"];
    assert_eq!(*said, format!("crowdsec: {reason}"));
    assert!((3_500..=3_600).contains(seconds), "{seconds}");
    let (_, seconds) = blocks["198.51.100.0/24"];
    assert!((1_700..=1_800).contains(&seconds), "{seconds}");

    host.decides(&["delete", "--ip", "192.0.2.7"]);
    host.decides(&["delete", "--range", "198.51.100.0/24"]);
    until_listed(&host.daemon, "block", &["2001:db8::7"]);
    let log = host.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("=error")).collect();
    let [error] = errors[..] else {
        panic!("{log}");
    };
    assert!(error.contains("which is allowed"), "{error}");
}

/// As the bouncer calls it.
fn call(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = Command::new(checkout(BOUNCER));
    let command = ordered(command.args(arguments), daemon);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn what_is_no_ban_of_a_source_blocks_nobody() {
    let daemon = daemon("");
    let done = |arguments: &[&str]| {
        let output = call(&daemon, arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
    };
    let captcha = r#"{"scenario":"\"type\":\"ban\"","scope":"Ip","type":"captcha"}"#;
    done(&["add", "192.0.2.7", "60", "x", captcha]);
    let country = r#"{"scope":"Country","type":"ban","value":"DE"}"#;
    done(&["add", "DE", "60", "x", country]);
    // It is over.
    done(&["add", "192.0.2.7", "0", "x", BAN]);
    assert!(entries(&daemon, "block").is_empty());
    // It was none.
    done(&["del", "192.0.2.7", "-3", "x", BAN]);

    for (status, arguments) in [
        (2, &["add", "192.0.2.7", "60", "x"][..]),
        (2, &["list", "192.0.2.7", "60", "x", BAN]),
        (1, &["add", "--help", "60", "x", BAN]),
        (1, &["add", "", "60", "x", BAN]),
        (1, &["add", "192.0.2.7/33", "60", "x", BAN]),
        (1, &["add", "192.0.2.7", "1h", "x", BAN]),
        (1, &["add", "192.0.2.7", "-3", "x", BAN]),
    ] {
        let output = call(&daemon, arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert!(entries(&daemon, "block").is_empty());
}

#[test]
fn what_is_too_long_is_cut() {
    let daemon = daemon("");
    let scenario = format!("bös\n{}", "x".repeat(300));
    let seconds = "99999999999999999999";
    let output = call(&daemon, &["add", "192.0.2.7", seconds, &scenario, BAN]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let blocks = entries(&daemon, "block");
    let (reason, seconds) = &blocks["192.0.2.7"];
    assert!(reason.starts_with("crowdsec: bsxxx"), "{reason}");
    assert_eq!(reason.len(), 200);
    assert!(*seconds > 3_649 * 86_400, "{seconds}");
}
