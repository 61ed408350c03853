//! The policy file: TOML text becomes a validated [`Policy`], or every error
//! of the file with its place and what is allowed there.
//!
//! Two stages: `reader` walks the tables as typed, with the place of every
//! key and value; `edge`, `limit` and `services`, `decision`, `rules`, `select`
//! and `course` turn them into the model (`model`, `decide`, `rule`, `steps`),
//! and `checks` and `rule_checks` look at the whole. What each key means stands
//! in `docs/policy.md` and `docs/rules.md`.

mod captcha;
mod challenge;
mod checks;
mod course;
mod decide;
mod decision;
mod describe;
mod describe_rules;
mod diagnostic;
mod edge;
mod flood;
mod gates;
mod limit;
mod lists;
mod model;
mod networks;
mod notify;
mod pages;
mod pattern;
mod penalty;
mod reader;
mod report;
mod rule;
mod rule_checks;
mod rules;
mod schema;
mod select;
mod services;
mod sources;
mod steps;
mod template;
#[cfg(test)]
mod tests;
mod tier_keys;
pub mod units;
mod words;

use std::io;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

pub use captcha::{Captcha, OnFailure, Provider};
pub use challenge::Challenge;
pub use decide::{
    AccountPlace, Accounts, Api, Datagrams, Decide, Feedback, Listen, LogFile, TokenPlace,
};
pub use describe::{Description, Difference, Differences, ListDifference};
pub use diagnostic::{Diagnostic, PolicyError, Position, Severity, escape};
pub use lists::{DiskFiles, ListFiles, MAX_LIST_FILES, NoFiles, read_list};
pub use model::{
    Aggregate, Bucket, Control, ControlTraffic, DEFAULT_PINS, DEFAULT_STATE, Edge, Exceed, Flood,
    Limit, Metrics, Mode, OnExit, Policy, Protocol, Safety, State, Tables, Total, Unknown,
    Unparsed,
};
pub use networks::parse_network;
pub use notify::{Hidden, Language, Notify, Smtp, SmtpTls, TEMPLATE_WORDS, Templates, Webhook};
pub use pages::{MAX_PAGE, Page, PageKind, Pages};
pub use pattern::Pattern;
pub use rule::{
    Absent, Body, Count, HeaderPattern, KeyPart, LimitHeaders, OnSuccess, OutcomePattern,
    RequestPattern, Response, Rule, Shared, Statuses,
};
pub use services::DEFAULT_GROUP;
pub use sources::{ListFile, ListSources, Stamp};
pub use steps::{
    Action, Algorithm, Boruta, Course, Effect, Gauge, Ladder, Rung, Tier, TokenBucket, Window,
};
pub use template::{TemplateError, presets, template};

use reader::Section;
use report::{Place, Read, Report, Source};
use units::Problem;

/// The most limits of a policy.
pub const MAX_LIMITS: usize = 256;
/// The most networks in `to`, and in `from`, of one limit.
pub const MAX_LIMIT_NETWORKS: usize = 1_024;
/// The most ports in `edge.safety.ssh_ports`.
pub const MAX_SSH_PORTS: usize = 16;
/// The most rules of a policy.
pub const MAX_RULES: usize = 256;
/// The most tiers, or rungs, of a rule.
pub const MAX_TIERS: usize = 16;
/// The longest time from empty to full that the limit arithmetic can measure.
pub const MAX_REFILL: Duration = Duration::from_hours(365 * 24);
/// The least burst in bytes: an Ethernet frame of the usual MTU, unchecked.
pub const LARGEST_FRAME_BYTES: u64 = 1_514;
/// The step in which the kernel program measures time.
pub const CLOCK_STEP: Duration = Duration::from_millis(4);

/// A policy without errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// What is legal and probably wrong, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// The text that says so.
    pub text: String,
}

/// Reads and validates a policy file and the list files that it names;
/// relative names of list files start at its directory. Lines of list files
/// that cannot be read are skipped and warned of.
///
/// # Errors
/// The policy or a list file cannot be read, or the policy has errors: all of
/// them, up to 1,000.
pub fn load(path: &Path) -> Result<Loaded, PolicyError> {
    let name = path.to_string_lossy();
    let bytes = lists::read_bounded(path).map_err(|cause| unreadable(&name, &cause))?;
    let files = DiskFiles::beside(path);
    let report = Report::default();
    let text = match lists::utf8(&name, &bytes, 0, &report) {
        Ok(text) => text,
        Err(reported) => return report.finish(Err(reported)).map(|(loaded, _)| loaded),
    };
    parse(&name, text, &files)
}

/// Validates the text of a policy; `name` is what messages call it.
///
/// # Errors
/// The policy has errors, or a list file cannot be read: all of them, up to
/// 1,000. Only errors in TOML's own syntax hide others.
pub fn parse(name: &str, text: &str, files: &dyn ListFiles) -> Result<Loaded, PolicyError> {
    let report = Report::default();
    let source = Source::new(name, text, 0);
    let (table, faults) = DeTable::parse_recoverable(text);
    let mut policy = Ok(());
    for fault in faults {
        let place = Place::new(&source, fault.span().unwrap_or_default());
        let problem = Problem::new(
            fault.message(),
            "not TOML: strings stand in quotes, each key once",
        );
        policy = Err(report.error(&place, problem));
    }
    let policy = policy.and_then(|()| {
        let start = Place::new(&source, 0..0);
        let root = Section::new(&schema::ROOT, Some(table.get_ref()), start, &report);
        validate(&root, files, &report)
    });
    let (policy, warnings) = report.finish(policy)?;
    Ok(Loaded {
        policy,
        warnings,
        text: text.to_owned(),
    })
}

fn validate(root: &Section<'_>, files: &dyn ListFiles, report: &Report) -> Read<Policy> {
    let edge = edge::edge(root, files, report);
    let edge_is_whole = !report.has_errors();
    let metrics = services::metrics(root, report);
    let control = services::control(root);
    let state = services::state(root);
    let notify = notify::notify(root, files, report);
    let whole = edge.as_ref().ok().filter(|_| edge_is_whole);
    let is_told = !matches!(notify, Ok(None));
    let decide = decide(root, whole, is_told, files, report);
    let edge = edge?;
    checks::warnings(&edge, report);
    Ok(Policy {
        edge: edge.into_edge(),
        metrics: metrics?,
        control: control?,
        state: state?,
        decide: decide?,
        notify: notify?,
    })
}

/// `[decide]` and the rules; either may be absent where the other is there.
/// `edge` is there if it is without errors; `is_told`: there is somebody to notify.
fn decide(
    root: &Section<'_>,
    edge: Option<&edge::PlacedEdge>,
    is_told: bool,
    files: &dyn ListFiles,
    report: &Report,
) -> Read<Option<Decide>> {
    let rules = rules::rules(root);
    let has_section = root.read("decide", |_| Ok(()))?.is_some();
    if !has_section && matches!(rules, Ok(None)) {
        return Ok(None);
    }
    let decide = decision::decide(root, files, report);
    let Some(rules) = rules? else {
        let decide = decide?;
        rule_checks::without_rules(&decide, report);
        return Ok(Some(decide.decide));
    };
    rule_checks::errors(&rules, report);
    let pages = pages::read(&rules.good, files, report);
    if let Some(edge) = edge {
        let limits: Vec<&str> = edge.limits.iter().map(|it| &*it.limit.name).collect();
        rule_checks::limits(&rules.good, &limits, report);
    }
    let decide = decide?;
    rule_checks::warnings(&decide, &rules.good, report);
    if !is_told {
        rule_checks::nobody_told(&rules.good, report);
    }
    Ok(Some(Decide {
        pages,
        rules: rules.good.into_iter().map(|placed| placed.rule).collect(),
        ..decide.decide
    }))
}

fn unreadable(name: &str, cause: &io::Error) -> PolicyError {
    let help = match cause.kind() {
        io::ErrorKind::NotFound => "write one with `limiter init`, or name another with --config",
        io::ErrorKind::PermissionDenied => "run as root, or mend the file's permissions",
        _ => "name a readable file of TOML text",
    };
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        file: name.to_owned(),
        position: None,
        message: format!("cannot read the policy: {cause}"),
        help: help.to_owned(),
        excerpt: None,
    };
    PolicyError {
        diagnostics: vec![diagnostic],
    }
}
