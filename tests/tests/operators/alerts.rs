//! The alerts that are shipped: Prometheus takes them, each is raised by what it is for and by
//! nothing less, and the runbook says what to do about it.

use crate::checkout;
use limiter_tests::documented;
use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

const RULES: &str = include_str!("../../../packaging/prometheus/limiter.rules.yml");
const CASES: &str = include_str!("../../../packaging/prometheus/limiter.rules.test.yml");
const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

/// Runs promtool, which must find nothing wrong.
pub(crate) fn promtool(arguments: &[&str]) {
    let directory = checkout("packaging/prometheus");
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(directory);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [said, errors] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{said}{errors}");
}

/// What follows `before` in each line that has it, up to the end of the word.
fn words<'a>(text: &'a str, before: &'a str) -> BTreeSet<&'a str> {
    let is_end = |it: char| !(it.is_ascii_alphanumeric() || it == '_');
    let found = text.lines().filter_map(|line| line.split_once(before));
    let words = found.filter_map(|(_, rest)| rest.split(is_end).next());
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn prometheus_takes_them() {
    promtool(&["check", "rules", "limiter.rules.yml"]);
}

#[test]
fn each_is_raised_by_what_it_is_for() {
    promtool(&["test", "rules", "limiter.rules.test.yml"]);
    let alerts = words(RULES, "- alert: ");
    assert!(!alerts.is_empty());
    assert_eq!(alerts, words(CASES, "        alertname: "), "raised");
    assert_eq!(alerts, words(CASES, ", alertname: "), "not raised");
}

#[test]
fn each_has_its_place_in_the_runbook() {
    assert_eq!(words(RULES, "- alert: "), words(RUNBOOK, "### "));
}

/// Names of metrics, as the parts of expressions. The documented ones are those that a daemon
/// exports: tests/metrics.rs.
#[test]
fn they_rest_on_metrics_that_there_are() {
    let metrics = documented::metrics();
    let is_end = |it: char| !(it.is_ascii_alphanumeric() || it == '_');
    let used: BTreeSet<&str> = RULES
        .split(is_end)
        .filter(|word| word.starts_with("limiter_"))
        .collect();
    assert!(!used.is_empty());
    for sample in used {
        let metric = documented::metric_of(sample, &metrics);
        assert!(metrics.contains_key(metric), "{sample}");
    }
}
