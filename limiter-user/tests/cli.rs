//! The command as a process: exit status, and what is printed where.

#![cfg(test)]

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};

fn limiter(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limiter"));
    command.args(arguments).env("RUST_BACKTRACE", "full");
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = limiter(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn usage_errors_are_2_and_refusals_1() {
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["block", "add"]).0, Some(2));
    assert_eq!(run(&["--help"]).0, Some(0));
    let (status, stdout, stderr) = run(&["--socket", "/nonexistent/sock", "status"]);
    assert_eq!((status, &*stdout), (Some(1), ""));
    assert!(stderr.contains("is the daemon running"), "{stderr}");
    let (status, _, stderr) = run(&["run", "--config", "/nonexistent/limiter.toml"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("limiter init"), "{stderr}");
    assert!(!stderr.contains("backtrace"), "{stderr}");
}

#[test]
fn what_init_prints_check_accepts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("limiter.toml");
    let name = file.to_str().unwrap();
    let (status, text, _) = run(&["init", "--set", "edge.enforce=false"]);
    assert_eq!(status, Some(0));
    std::fs::write(&file, &text).unwrap();
    let (status, stdout, _) = run(&["check", name]);
    assert_eq!(status, Some(0), "{stdout}");
    std::fs::write(
        &file,
        text.replace("enforce = false", "enforce = \"\u{1b}[2J\""),
    )
    .unwrap();
    let (status, stdout, stderr) = run(&["check", name]);
    assert_eq!((status, &*stderr), (Some(1), ""));
    assert!(stdout.starts_with(&format!("{name}:")), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "{stdout}");
    let (status, stdout, _) = run(&["check", "--json", name]);
    assert_eq!(status, Some(1));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["valid"], false);
    assert_eq!(json["diagnostics"][0]["severity"], "error");
}

#[test]
fn an_import_with_errors_imports_nothing() {
    let mut command = limiter(&["--socket", "/nonexistent/sock", "deny", "import", "-"]);
    let command = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"192.0.2.1\n192.0.2.9/24\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("standard input:2: "), "{stderr}");
}

#[test]
fn whoever_stops_reading_is_no_error() {
    let mut child = limiter(&["init"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1]).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// As `cargo xtask man` writes them.
#[test]
fn every_command_has_a_manual_page_and_completions() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = limiter_user::cli::command();
    clap_mangen::generate_to(command.clone(), directory.path()).unwrap();
    for verb in command.get_subcommands() {
        let page = directory
            .path()
            .join(format!("limiter-{}.1", verb.get_name()));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{}", verb.get_name());
    }
    for shell in [
        clap_complete::Shell::Bash,
        clap_complete::Shell::Zsh,
        clap_complete::Shell::Fish,
    ] {
        let mut completions = Vec::new();
        clap_complete::generate(shell, &mut command, "limiter", &mut completions);
        let completions = String::from_utf8(completions).unwrap();
        for word in ["explain", "reload", "socket"] {
            assert!(completions.contains(word), "{shell}: {word}");
        }
    }
}
