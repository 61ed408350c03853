//! `limiter doctor` on real interfaces: what it says is what `run` then does.

use limiter_tests::{
    daemon::{self, Daemon},
    flood::Sink,
    netns::{Namespace, PINS},
    process::Scratch,
    veth::{Options, Veth},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

fn pair(number: u8, queues: u32) -> Veth {
    let [left, right] = [(); 2].map(|()| Namespace::new().unwrap());
    let options = Options {
        number,
        queues,
        ipv6: false,
        ..Options::default()
    };
    Veth::new(&left, &right, options).unwrap()
}

/// A policy in a directory of this test's, with places in it.
struct Patient {
    scratch: Scratch,
    namespace: Namespace,
}

impl Patient {
    fn new(namespace: &Namespace, policy: &str) -> Self {
        let scratch = Scratch::new().unwrap();
        let places = format!(
            "{policy}\n[metrics]\nlisten = \"127.0.0.1:0\"\n[control]\nsocket = {:?}\n\
             [state]\ndirectory = {:?}\npins = {PINS:?}\n",
            scratch.path("control.sock"),
            scratch.path("state"),
        );
        fs::write(scratch.path("limiter.toml"), places).unwrap();
        Self {
            scratch,
            namespace: namespace.clone(),
        }
    }

    fn policy(&self) -> PathBuf {
        self.scratch.path("limiter.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(daemon::program().unwrap());
        command.args(arguments).arg("--config").arg(self.policy());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What `doctor --json` says, and whether something stops `run`.
    fn findings(&self, arguments: &[&str]) -> (bool, Vec<Value>) {
        let output = self.output(&[&["doctor", "--json"], arguments].concat());
        findings(&output)
    }

    /// `run`, which must fail.
    fn run_fails(&self) -> String {
        let output = self.output(&["run"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    }
}

#[track_caller]
fn findings(output: &Output) -> (bool, Vec<Value>) {
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Option<Value> = serde_json::from_str(&text).ok();
    assert!(told.is_some(), "no JSON: {output:?}");
    let told = told.unwrap();
    let stops = told["stops"].as_u64().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(stops > 0)), "{told}");
    let found = told["findings"].as_array().unwrap().clone();
    let counted = found.iter().filter(|it| it["level"] == "stops").count();
    assert_eq!(counted as u64, stops);
    (stops > 0, found)
}

#[track_caller]
fn says<'a>(found: &'a [Value], level: &str, part: &str) -> &'a Value {
    let said = found
        .iter()
        .find(|it| it["what"].as_str().unwrap().contains(part));
    assert!(said.is_some(), "no {part:?} in {found:#?}");
    let said = said.unwrap();
    assert_eq!(said["level"], level, "{said}");
    said
}

fn program_on(namespace: &Namespace, name: &str) -> Option<u64> {
    let shown = namespace.ip(&format!("link show dev {name}")).unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown[0]["xdp"]["prog"]["id"].as_u64()
}

#[test]
fn a_healthy_interface_before_and_while_the_daemon_runs() {
    let pair = pair(81, 1);
    let (namespace, name) = (&pair.right.namespace, &pair.right.name);
    let policy = format!("[edge]\ninterfaces = [{name:?}]\nmode = \"native\"\n");
    let patient = Patient::new(namespace, &policy);
    let (stops, found) = patient.findings(&[]);
    assert!(!stops, "{found:#?}");
    says(&found, "ok", "helper bpf_map_lookup_percpu_elem (5.19)");
    says(&found, "ok", "the program loads: the verifier followed");
    says(&found, "ok", "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
    says(&found, "ok", "the tables of the policy take");
    says(&found, "ok", "none answers on");
    says(&found, "ok", "veth; MTU 1500");
    says(&found, "ok", "native mode: the driver has it");
    says(&found, "ok", "attaching does not touch the link");
    assert_eq!(program_on(namespace, name), None, "something was attached");

    let output = patient.output(&["doctor", name]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("kernel\n  ok "), "{text}");
    assert!(
        text.contains(&format!("\ninterface {name}\n  ok ")),
        "{text}"
    );
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("nothing would stop `limiter run`; "),
        "{last}"
    );

    let daemon = Daemon::start(namespace, &policy).unwrap();
    let config = daemon.policy().display().to_string();
    let told = daemon.json(&["doctor", "--config", &config]).unwrap();
    let found = told["findings"].as_array().unwrap();
    says(found, "ok", "limiter's program is on it");
    says(found, "ok", "with its program on 1 interfaces");
}

#[test]
fn the_program_of_somebody_else_stops_run() {
    let pair = pair(82, 1);
    let _sink = Sink::attach(&pair.right).unwrap();
    let (namespace, name) = (&pair.right.namespace, &pair.right.name);
    let id = program_on(namespace, name).unwrap();
    let patient = Patient::new(namespace, &format!("[edge]\ninterfaces = [{name:?}]\n"));
    let (stops, found) = patient.findings(&[]);
    assert!(stops);
    let said = says(&found, "stops", &format!("an XDP program `sink` (id {id})"));
    let mend = said["mend"].as_str().unwrap();
    assert!(
        mend.starts_with(&format!("bpftool net show dev {name}")),
        "{mend}"
    );
    let error = patient.run_fails();
    assert!(error.contains(&format!("(id {id})")), "{error}");

    let text = String::from_utf8(patient.output(&["doctor"]).stdout).unwrap();
    assert!(text.contains("\n    mend:  bpftool net show"), "{text}");
    assert!(
        text.contains("\n1 thing would stop `limiter run`; "),
        "{text}"
    );
    // Where nobody named it, it stops nothing.
    let mut command = namespace.command(daemon::program().unwrap());
    let socket = patient.scratch.path("none.sock");
    command.args(["doctor", "--json", "--socket"]).arg(socket);
    let (stops, found) = findings(&command.output().unwrap());
    assert!(!stops, "{found:#?}");
    says(&found, "warning", "an XDP program `sink`");
}

#[test]
fn somebody_without_rights_is_told_what_he_cannot_see() {
    let pair = pair(83, 1);
    let policy = format!("[edge]\ninterfaces = [{:?}]\n", pair.right.name);
    let patient = Patient::new(&pair.right.namespace, &policy);
    // Where the program lies, nobody may come; here, whatever the umask.
    let program = patient.scratch.path("limiter");
    fs::copy(daemon::program().unwrap(), &program).unwrap();
    for path in [&patient.scratch.path("."), &program, &patient.policy()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = pair.right.namespace.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(program).args(["doctor", "--json", "--config"]);
    let (stops, found) = findings(&command.arg(patient.policy()).output().unwrap());
    assert!(stops);
    says(
        &found,
        "stops",
        "without CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
    );
    says(&found, "note", "nothing can be tried without the rights");
    // What everybody may see he is told all the same.
    says(&found, "ok", "veth; MTU 1500");
    says(&found, "ok", "native mode: the driver has it");
}

#[test]
fn what_is_wrong_with_the_question() {
    let namespace = Namespace::new().unwrap();
    let patient = Patient::new(&namespace, "[edge]\ninterfaces = [\"eth7\"]\n");
    let (stops, found) = patient.findings(&[]);
    assert!(stops);
    says(
        &found,
        "stops",
        "there is no interface `eth7`; there are: lo",
    );
    let (stops, found) = patient.findings(&["eth8"]);
    assert!(stops);
    says(&found, "stops", "there is no interface `eth8`");
    fs::write(patient.policy(), "[edges]\n").unwrap();
    let (stops, found) = patient.findings(&[]);
    assert!(stops);
    let said = says(&found, "stops", "unknown key `edges`");
    assert!(said["mend"].as_str().unwrap().starts_with("limiter check "));
    fs::remove_file(patient.policy()).unwrap();
    let (stops, found) = patient.findings(&[]);
    assert!(stops);
    says(&found, "stops", "No such file");
}

/// `doctor` says before what `run` says then.
#[test]
fn a_driver_without_native_mode() {
    let namespace = Namespace::new().unwrap();
    let patient = Patient::new(
        &namespace,
        "[edge]\ninterfaces = [\"lo\"]\nmode = \"native\"\n",
    );
    let (stops, found) = patient.findings(&[]);
    assert!(stops);
    says(&found, "stops", "its driver has no XDP");
    let error = patient.run_fails();
    assert!(
        error.contains("native mode: its driver has no XDP;"),
        "{error}"
    );
}

#[test]
fn a_pair_whose_queues_do_not_suffice_says_so() {
    let pair = pair(84, 2);
    let (namespace, name) = (&pair.right.namespace, &pair.right.name);
    let mut ethtool = namespace.command("ethtool");
    let status = ethtool.args(["-L", name, "rx", "1"]).status().unwrap();
    assert!(status.success(), "{status}");
    let policy = |mode| format!("[edge]\ninterfaces = [{name:?}]\nmode = {mode:?}\n");
    let words = "its peer sends on more queues than it receives on (1)";
    let error = Patient::new(namespace, &policy("native")).run_fails();
    assert!(error.contains(words), "{error}");
    let daemon = Daemon::start(namespace, &policy("auto")).unwrap();
    let status = daemon.json(&["status"]).unwrap();
    let interface = &status["interfaces"][0];
    assert_eq!(interface["mode"], "generic");
    let cause = interface["fallback"].as_str().unwrap();
    assert!(cause.starts_with(words), "{cause}");
}

/// This kernel has bridges, macvlans and tunnels; bonds and VLANs go the same way
/// on composed answers (`nic::place`, `keeper::places`).
#[test]
fn places_where_packets_would_be_judged_twice_or_misread_are_refused() {
    let pair = pair(85, 1);
    let (namespace, name) = (&pair.right.namespace, &pair.right.name);
    namespace
        .ip(&format!(
            "link add mac0 link {name} type macvlan\nlink add br0 type bridge\n\
             tuntap add tun0 mode tun\nlink set mac0 up"
        ))
        .unwrap();
    let policy = |names: &str| format!("[edge]\ninterfaces = [{names}]\n");
    let twice = policy(&format!("{name:?}, \"mac0\""));
    let patient = Patient::new(namespace, &twice);
    let words = format!("gets its packets from `{name}`, which is named too");
    let (stops, found) = patient.findings(&[]);
    assert!(stops);
    says(&found, "stops", &words);
    let error = patient.run_fails();
    assert!(error.contains("interface mac0: it "), "{error}");
    assert!(error.contains(&words), "{error}");
    assert_eq!(program_on(namespace, name), None, "attached half");

    let patient = Patient::new(namespace, &policy("\"tun0\""));
    let error = patient.run_fails();
    assert!(error.contains("(tun) have no Ethernet header"), "{error}");

    // A reload refuses likewise, and warns of what is merely unwise.
    let daemon = Daemon::start(namespace, &policy("\"mac0\"")).unwrap();
    let log = daemon.log().unwrap();
    assert!(log.contains("a macvlan has no native mode"), "{log}");
    daemon.write_policy(&twice).unwrap();
    let output = daemon.output(&["reload"]).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&words), "{error}");
    assert!(error.contains("the old policy stays in force"), "{error}");
    drop(daemon);

    namespace
        .ip(&format!("link del mac0\nlink set {name} master br0"))
        .unwrap();
    let both = policy(&format!("\"br0\", {name:?}"));
    let error = Patient::new(namespace, &both).run_fails();
    assert!(error.contains("interface br0: it "), "{error}");
    assert!(error.contains(&words), "{error}");
}
