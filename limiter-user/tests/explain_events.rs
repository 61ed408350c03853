//! `limiter explain --events` as a process: what is printed where, and the exit
//! status.

#![cfg(test)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const POLICY: &str = "[edge]\ninterfaces = ['eth0']\n\
    [[rule]]\nname = 'per-minute'\nlimit = 60\nperiod = '1m'\naction = 'reject'\n\
    [[rule]]\nname = 'login'\nrequests = ['POST /login']\nfailure = { statuses = [401] }\n\
    count = 'failures'\nlimit = 5\nperiod = '5m'\naction = 'reject'\nfor = '15m'\n";

struct Explain {
    directory: tempfile::TempDir,
}

/// Status, standard output, standard error.
type Said = (Option<i32>, String, String);

impl Explain {
    fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("limiter.toml"), policy).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn of(&self, events: &str, arguments: &[&str]) -> Said {
        fs::write(self.path("events"), events).unwrap();
        self.run(self.path("events").to_str().unwrap(), "", arguments)
    }

    fn run(&self, file: &str, stdin: &str, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limiter"));
        command.args(["explain", "--events", file, "--config"]);
        command.arg(self.path("limiter.toml")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // Whoever does not read it has closed it.
        let _written = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        println!("{stdout}{stderr}");
        assert!(!stderr.contains("panicked"));
        (output.status.code(), stdout, stderr)
    }
}

/// nginx's `combined`, in one second of a minute.
fn combined(number: usize, method: &str, status: u16) -> String {
    let line = format!(
        "192.0.2.7 - - [15/Jan/2027:08:00:30 +0000] \"{method} /login HTTP/1.1\" {status} 2 \"-\" \"x\"\n"
    );
    line.repeat(number)
}

fn actions(stdout: &str) -> Vec<String> {
    let decisions = stdout.lines().map(|line| {
        let decision: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in [
            "action",
            "rule",
            "until",
            "delay_ms",
            "retry_after_s",
            "limit",
            "remaining",
            "reset",
            "simulated",
        ] {
            assert!(decision.get(key).is_some(), "no {key}: {line}");
        }
        decision["action"].as_str().unwrap().to_owned()
    });
    decisions.collect()
}

#[test]
fn an_access_log_under_a_policy() {
    let explain = Explain::new(POLICY);
    let log = combined(61, "GET", 200);
    let (status, stdout, stderr) = explain.of(&log, &["--format", "nginx", "--json"]);
    assert_eq!(status, Some(0));
    let found = actions(&stdout);
    assert_eq!(found.len(), 61);
    assert!(found[..60].iter().all(|action| action == "pass"));
    assert_eq!(found[60], "reject");
    assert!(stderr.contains("rule per-minute\n"));
    assert!(stderr.contains("warning: rule login has not matched"));

    let log = combined(6, "POST", 401);
    let (_, stdout, _) = explain.of(&log, &["--format", "nginx", "--json"]);
    assert_eq!(actions(&stdout)[4..], ["pass", "reject"]);
    let (status, stdout, stderr) = explain.of(&log, &["--format", "nginx"]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains("begins reject") && stdout.contains("rule login\n"));
    assert_eq!(stderr, "");
}

#[test]
fn standard_input_and_bad_lines() {
    let explain = Explain::new(POLICY);
    let events = "{\"at\":1800000000,\"source\":\"192.0.2.7\"}\nno\u{1b}[2J\n\
                  {\"at\":\"2027-01-15T08:00:01Z\",\"source\":\"192.0.2.8\",\"status\":\"x\"}\n\
                  {\"source\":\"192.0.2.7\"}";
    let (status, stdout, stderr) = explain.run("-", events, &["--json"]);
    assert_eq!(status, Some(0));
    assert_eq!(actions(&stdout).len(), 3);
    assert!(stderr.contains("line 2: ") && stderr.contains("no\\u{1b}[2J"));
    assert!(!stderr.contains('\u{1b}'));
}

#[test]
fn refusals_name_the_file_and_what_to_do() {
    let explain = Explain::new(POLICY);
    let (status, stdout, stderr) = explain.of(&combined(3, "GET", 200), &["--json"]);
    assert_eq!((status, &*stdout), (Some(1), ""));
    let file = explain.path("events").display().to_string();
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with(&format!("limiter: {file}: no event of format json")));
    assert!(last.ends_with("add --format nginx"), "{last}");

    let (status, _, stderr) = explain.run(&format!("{file}-not-there"), "", &[]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("cannot open") && stderr.contains("-not-there"));
    let (status, _, stderr) = explain.of("", &["--format", "fields"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("limiter.toml: --format fields needs a field map"));
    assert_eq!(explain.of("", &["--format", "apache"]).0, Some(2));

    let none = Explain::new("[edge]\ninterfaces = ['eth0']\n");
    let (status, _, stderr) = none.of("{\"source\":\"192.0.2.7\"}\n", &["--json"]);
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("limiter.toml: the policy has no [[rule]]"),
        "{stderr}"
    );
}
