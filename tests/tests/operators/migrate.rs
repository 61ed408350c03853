//! What docs/migrate.md says: its policies are valid, and do what they stand for.

use limiter_tests::{daemon, documented, process::Scratch};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::Command};

const DOCUMENT: &str = include_str!("../../../docs/migrate.md");

fn policies() -> Vec<&'static str> {
    documented::blocks(DOCUMENT, "toml")
}

fn limiter(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(daemon::program().unwrap());
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    (stdout, stderr)
}

/// A rule of the document, with the policy that it stands in.
struct Rule {
    scratch: Scratch,
}

impl Rule {
    fn new(name: &str) -> Self {
        let named = format!("\nname = \"{name}\"\n");
        let found: Vec<&str> = policies()
            .into_iter()
            .filter(|policy| policy.contains(&named))
            .collect();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        let scratch = Scratch::new().unwrap();
        fs::write(scratch.path("limiter.toml"), found[0]).unwrap();
        Self { scratch }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// What it decides about requests of one source: action, delay and time until the end.
    fn decides(&self, events: &[Value]) -> Vec<Decision> {
        let lines = events.iter().map(|event| format!("{event}\n"));
        let file = self.file("events");
        fs::write(&file, lines.collect::<String>()).unwrap();
        let policy = self.file("limiter.toml");
        let arguments = [
            "explain",
            "--events",
            file.to_str().unwrap(),
            "--format",
            "json",
            "--config",
            policy.to_str().unwrap(),
            "--json",
        ];
        let (decisions, _) = limiter(&arguments);
        let decisions: Vec<Decision> = decisions.lines().map(Decision::of).collect();
        assert_eq!(decisions.len(), events.len());
        decisions
    }

    /// What it decides about so many at once.
    fn at_once(&self, count: usize, path: &str) -> Vec<Decision> {
        let event = json!({ "at": NOON, "source": SOURCE, "method": "GET", "path": path });
        self.decides(&vec![event; count])
    }
}

const NOON: u64 = 1_800_014_400;
const SOURCE: &str = "192.0.2.7";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    action: String,
    delay_ms: u64,
    /// How long the refusal lasts, in seconds; 0: it is none.
    lasts: u64,
}

impl Decision {
    fn of(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        Self {
            action: value["action"].as_str().unwrap().to_owned(),
            delay_ms: value["delay_ms"].as_u64().unwrap(),
            lasts: value["retry_after_s"].as_u64().unwrap_or(0),
        }
    }

    fn passes() -> Self {
        Self::waits(0)
    }

    fn waits(delay_ms: u64) -> Self {
        let action = if delay_ms == 0 { "pass" } else { "throttle" };
        Self {
            action: action.to_owned(),
            delay_ms,
            lasts: 0,
        }
    }

    fn refuses(action: &str, lasts: u64) -> Self {
        Self {
            action: action.to_owned(),
            delay_ms: 0,
            lasts,
        }
    }
}

/// Failed logins, so many seconds after noon each.
fn failures(seconds: impl IntoIterator<Item = u64>) -> Vec<Value> {
    let failure = |second| {
        json!({
            "at": NOON + second, "source": SOURCE, "method": "POST", "path": "/login", "status": 401
        })
    };
    seconds.into_iter().map(failure).collect()
}

fn actions(decisions: &[Decision]) -> Vec<&str> {
    decisions.iter().map(|it| it.action.as_str()).collect()
}

#[test]
fn its_policies_are_valid() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path("limiter.toml");
    let policies = policies();
    assert!(policies.len() >= 6);
    for policy in policies {
        fs::write(&file, policy).unwrap();
        let (said, _) = limiter(&["check", file.to_str().unwrap()]);
        assert!(!said.contains("warning"), "{policy}\n{said}");
    }
}

#[test]
fn the_fifth_failure_blocks_for_as_long_as_a_jail_bans() {
    let decisions = Rule::new("jail").decides(&failures([0, 100, 200, 300, 400, 401, 999, 1_000]));
    assert_eq!(decisions[..5], vec![Decision::passes(); 5]);
    // Ten minutes from the fifth on.
    assert_eq!(decisions[5], Decision::refuses("block", 599));
    assert_eq!(actions(&decisions[6..]), ["block", "pass"]);
    // The first is ten minutes old when the fifth comes.
    let slow = failures([0, 150, 300, 450, 600, 601]);
    let decisions = Rule::new("jail").decides(&slow);
    assert_eq!(decisions, vec![Decision::passes(); 6]);
}

#[test]
fn each_ban_is_twice_as_long_as_the_one_before() {
    // Six at once, once the last ban is over; and two days and some hours later.
    let begins = [0, 1_000, 3_000, 6_000, 12_000, 200_000];
    let seconds = begins.into_iter().flat_map(|begin| [begin; 6]);
    let decisions = Rule::new("increment").decides(&failures(seconds));
    let lasting: Vec<u64> = decisions
        .iter()
        .map(|it| it.lasts)
        .filter(|it| *it > 0)
        .collect();
    let minutes: Vec<u64> = lasting.iter().map(|seconds| seconds / 60).collect();
    assert_eq!(minutes, [10, 20, 40, 80, 80, 40]);
}

/// The rows of the table of bursts.
#[test]
fn a_burst_is_nginxs() {
    let refused = Decision::refuses("reject", 1);
    let waits = |times: &[u64]| times.iter().copied().map(Decision::waits).collect();
    let passes = |count| vec![Decision::passes(); count];
    let expected = |passed: usize, waiting: &[u64], refused: &Decision| -> Vec<Decision> {
        let waiting: Vec<Decision> = waits(waiting);
        [passes(passed), waiting, vec![refused.clone(); 2]].concat()
    };
    let no_burst = Rule::new("no-burst").at_once(3, "/export");
    assert_eq!(no_burst, expected(1, &[], &refused));
    let nodelay = Rule::new("nodelay").at_once(8, "/login");
    assert_eq!(nodelay, expected(6, &[], &refused));
    let waiting = Rule::new("waiting").at_once(8, "/search");
    let seconds = [1_000, 2_000, 3_000, 4_000, 5_000];
    assert_eq!(waiting, expected(1, &seconds, &refused));
    let stages = Rule::new("two-stages").at_once(15, "/download/x");
    assert_eq!(stages, expected(9, &[200, 400, 600, 800], &refused));
}

#[test]
fn the_sixth_event_overflows_a_bucket_of_five() {
    let decisions = Rule::new("leaky").decides(&failures([0; 7]));
    assert_eq!(decisions[..5], vec![Decision::passes(); 5]);
    assert_eq!(actions(&decisions[5..]), ["block", "block"]);
    assert_eq!(decisions[6].lasts, 4 * 3_600);
    // One leaks out each ten seconds.
    let slow = failures((0..30).map(|number| 10 * number));
    assert_eq!(
        Rule::new("leaky").decides(&slow),
        vec![Decision::passes(); 30]
    );
}

#[test]
fn forty_one_different_pages_are_a_crawl() {
    let page = |number: usize| {
        let path = format!("/articles/{number}");
        json!({ "at": NOON, "source": SOURCE, "method": "GET", "path": path, "status": 200 })
    };
    let again = (0..200).map(|_| page(0));
    let events: Vec<Value> = again.chain((0..42).map(page)).collect();
    let decisions = Rule::new("crawl").decides(&events);
    assert_eq!(decisions[..241], vec![Decision::passes(); 241]);
    assert_eq!(decisions[241], Decision::refuses("block", 4 * 3_600));
}
