//! What is installed beside the program: systemd's own tools look at it. It is
//! not started here.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use limiter_tests::{daemon, process::Scratch};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SERVICE: &str = "limiter.service";
const MOUNT: &str = "run-limiter\\x2dbpf.mount";

/// What `systemd-analyze security` may find, in tenths: the figure of
/// docs/access.md.
const EXPOSURE_TENTHS: u32 = 18;

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The units, the service with the program that is tested: systemd looks
/// whether there is one.
fn units() -> (Scratch, [PathBuf; 2]) {
    let scratch = Scratch::new().unwrap();
    let program = daemon::program().unwrap().display().to_string();
    let paths = [SERVICE, MOUNT].map(|name| {
        let text = fs::read_to_string(checkout("packaging/systemd").join(name)).unwrap();
        let path = scratch.path(name);
        fs::write(&path, text.replace("/usr/bin/limiter", &program)).unwrap();
        path
    });
    (scratch, paths)
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    output
}

#[test]
fn systemd_finds_nothing_wrong() {
    let (_scratch, paths) = units();
    let mut analyze = Command::new("systemd-analyze");
    // The manual pages are made, not installed, here.
    let output = succeeds(analyze.args(["verify", "--man=no"]).args(paths));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("limiter"), "{text}");
}

#[test]
fn the_exposure_is_what_the_documents_say() {
    let (_scratch, [service, _]) = units();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--no-pager", "--offline=true"]);
    analyze.arg(format!("--threshold={EXPOSURE_TENTHS}"));
    let output = succeeds(analyze.arg(service));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("Overall exposure"));
    println!("{}", line.unwrap());
    let documents = fs::read_to_string(checkout("docs/access.md")).unwrap();
    let figure = format!("**{}.{}**", EXPOSURE_TENTHS / 10, EXPOSURE_TENTHS % 10);
    assert!(
        documents.contains(&figure),
        "docs/access.md does not say {figure}"
    );
}

/// A word of the unit that is wrong would not be found by systemd.
#[test]
fn the_unit_says_what_the_daemon_needs() {
    let text = fs::read_to_string(checkout("packaging/systemd").join(SERVICE)).unwrap();
    let given = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_SETGID CAP_SETUID";
    for line in [
        "Type=notify".to_owned(),
        "WatchdogSec=30s".to_owned(),
        "ExecReload=/usr/bin/limiter reload".to_owned(),
        format!("AmbientCapabilities={given}"),
        format!("CapabilityBoundingSet={given}"),
        format!(
            "ConditionPathExists=!{}",
            limiter_user::daemon::rescue::FLAG
        ),
        format!(
            "ConditionKernelCommandLine=!{}",
            limiter_user::daemon::rescue::WORD
        ),
    ] {
        assert!(text.lines().any(|it| it == line), "no {line}");
    }
}

#[test]
fn the_user_and_the_directory_are_made() {
    let scratch = Scratch::new().unwrap();
    let root = format!("--root={}", scratch.path(".").display());
    fs::create_dir(scratch.path("etc")).unwrap();
    let users = checkout("packaging/sysusers.d/limiter.conf");
    succeeds(
        Command::new("systemd-sysusers")
            .arg(&root)
            .arg(users.canonicalize().unwrap()),
    );
    let made = fs::read_to_string(scratch.path("etc/group")).unwrap();
    assert!(
        made.lines().any(|line| line.starts_with("limiter:")),
        "{made}"
    );
    let made = fs::read_to_string(scratch.path("etc/passwd")).unwrap();
    assert!(made.contains("nologin"), "{made}");
    assert!(made.contains("limiter-worker:"), "{made}");
    let files = checkout("packaging/tmpfiles.d/limiter.conf")
        .canonicalize()
        .unwrap();
    succeeds(
        Command::new("systemd-tmpfiles")
            .arg("--create")
            .arg(&root)
            .arg(files),
    );
    assert!(scratch.path("etc/limiter").is_dir());
}
