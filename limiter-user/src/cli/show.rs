//! `status`, `stats`, `sources`, `detach`.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::args;
use super::output::Output;
use super::words::{bytes, count, counted, duration, or_dash};
use super::{Client, ClientError, Failure, requests};
use crate::control::api::{
    AuditRow, CounterRow, Detached, FloodRow, InterfaceRow, NotifyRow, OutcomeRow, Sources, Stats,
    Status, WorkerRow,
};
use crate::dataplane::{self, Pins};
use crate::keeper::interfaces;
use crate::keeper::shown;
use crate::policy::DEFAULT_PINS;

const WATCH: Duration = Duration::from_secs(1);

/// The lines about rules, each with its name.
fn rules(status: &Status) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if status.rules.is_empty() {
        return lines;
    }
    let rules = status.rules.iter();
    let rules: Vec<String> = rules
        .map(|rule| match status.switched.get(rule) {
            Some(mode) => format!("{rule} ({mode})"),
            None => rule.clone(),
        })
        .collect();
    lines.push(("rules", rules.join(", ")));
    if status.rules_enforce == Some(false) {
        let what = "every rule (decide.enforce = false): what they would do is counted and said";
        lines.push(("simulated", what.to_owned()));
    }
    let switched = status.switched.iter();
    let switched: Vec<String> = switched
        .map(|(rule, mode)| format!("{rule} {mode}"))
        .collect();
    if !switched.is_empty() {
        let number = counted(switched.len(), "rule");
        let names = switched.join(", ");
        let text = format!("{number} by hand, until `limiter rule enable` or a restart: {names}");
        lines.push(("switched", text));
    }
    lines
}

fn worker(worker: &WorkerRow) -> String {
    let mut words = match worker.pid {
        Some(pid) => format!("process {pid}"),
        None => "none just now: events are not heard, packets are judged".to_owned(),
    };
    if worker.restarts > 0 {
        let how = worker.last_end.as_deref().unwrap_or("unknown");
        words.push_str(&format!(
            "; started again {} times, the last one ended with {how}",
            count(worker.restarts)
        ));
    }
    words
}

fn notify(row: &NotifyRow) -> String {
    let mut words = format!("{} sent, {} waiting", count(row.sent), count(row.waiting));
    if row.failed > 0 {
        words.push_str(&format!(", {} given up", count(row.failed)));
    }
    if let Some(error) = &row.last_error {
        words.push_str(&format!("; the last one did not arrive: {error}"));
    }
    words
}

pub(super) fn status(client: &Client, json: bool, output: &mut Output) -> Result<(), Failure> {
    let status: Status = client.get("/v1/status", &[]).map_err(still_at_work)?;
    if json {
        return Ok(output.json(&status)?);
    }
    let line = |name: &str, value: &str| format!("{name:<12}{value}");
    output.line(&line(
        "running",
        &format!(
            "limiter {}, process {}, for {} (since {})",
            status.version,
            status.pid,
            duration(status.uptime_seconds),
            status.started
        ),
    ))?;
    let limits = status.limits.join(", ");
    output.line(&line("policy", &status.config))?;
    output.line(&line("loaded", &status.reload.succeeded))?;
    if let Some(error) = &status.reload.error {
        output.line(&line(
            "warning",
            &format!("the last reload failed and the policy of then is in force: {error}"),
        ))?;
    }
    if let Some(term) = &status.term {
        output.line(&line(&term.term, &super::term::in_words(term)))?;
    } else if !status.enforce {
        output.line(&line(
            "enforce",
            "no: what would be dropped passes and is counted as would_drop",
        ))?;
    }
    output.line(&line(
        "limits",
        if limits.is_empty() { "none" } else { &limits },
    ))?;
    for (name, text) in rules(&status) {
        output.line(&line(name, &text))?;
    }
    let blocks: Vec<String> = status
        .blocks
        .iter()
        .map(|(owner, number)| format!("{} by {owner}", count(*number)))
        .collect();
    let mut blocks = blocks.join(", ");
    if status.blocks_refused > 0 {
        blocks.push_str(&format!("; {} refused", count(status.blocks_refused)));
    }
    output.line(&line("blocks", &blocks))?;
    let lists = format!(
        "{} allowed, {} denied",
        count(status.allow),
        count(status.deny)
    );
    output.line(&line("lists", &lists))?;
    let state = match &status.state.error {
        None => status.state.directory.clone(),
        Some(cause) => format!("what is changed now would not come back after a reboot: {cause}"),
    };
    output.line(&line("state", &state))?;
    if let Some(audit) = audit(&status.audit) {
        output.line(&line("audit", &audit))?;
    }
    list_files(&status, output)?;
    if status.flood.active {
        output.line(&line("flood", &flood(&status.flood)))?;
    }
    if status.captures > 0 {
        output.line(&line("captures", &count(status.captures)))?;
    }
    output.line(&line("metrics", &or_dash(status.metrics.as_deref())))?;
    output.line(&line("pins", &pins(&status)))?;
    output.line(&line("worker", &worker(&status.worker)))?;
    for row in &status.notify {
        output.line(&line(&row.channel, &notify(row)))?;
    }
    for (name, text) in status.requests.iter().flat_map(requests::lines) {
        output.line(&line(name, &text))?;
    }
    for warning in &status.warnings {
        output.line(&line("warning", warning))?;
    }
    output.line("")?;
    interfaces(&status, output)?;
    output.line("")?;
    if let Some(requests) = &status.requests {
        requests::table(requests, output)?;
    }
    let rows: Vec<[String; 3]> = status
        .maps
        .iter()
        .map(|map| {
            let entries = map.entries.map(count);
            [
                map.map.clone(),
                or_dash(entries.as_deref()),
                count(map.capacity),
            ]
        })
        .collect();
    Ok(output.table(["TABLE", "ENTRIES", "CAPACITY"], [false, true, true], &rows)?)
}

/// Adds to the news that no daemon answers that packets are dropped all the same.
fn still_at_work(error: ClientError) -> Failure {
    let interfaces = match &error {
        ClientError::NoDaemon { .. } => Pins::interfaces_at(Path::new(DEFAULT_PINS)),
        _ => Vec::new(),
    };
    if interfaces.is_empty() {
        return error.into();
    }
    let indices: Vec<String> = interfaces.iter().map(u32::to_string).collect();
    Failure::Words(format!(
        "{error}\nthe program of an earlier one is still at work on the interfaces with index {} \
         ({DEFAULT_PINS}/links): `limiter run` takes it over, `limiter detach` takes it off",
        indices.join(", ")
    ))
}

fn pins(status: &Status) -> String {
    match (&status.pins, &status.pins_error) {
        (Some(root), None) => format!("{root}: the program outlasts the daemon"),
        (_, Some(error)) => format!("gone, the program would end with the daemon: {error}"),
        (None, None) => "none, the program ends with the daemon".to_owned(),
    }
}

/// One line for all list files, and one for each with which something is wrong.
fn list_files(status: &Status, output: &mut Output) -> Result<(), Failure> {
    let files = &status.list_files;
    if files.is_empty() {
        return Ok(());
    }
    let skipped: u64 = files.iter().map(|row| row.skipped_lines).sum();
    let mut text = format!("{} followed", count(files.len() as u64));
    if skipped > 0 {
        text.push_str(&format!(", {} lines skipped", count(skipped)));
    }
    output.line(&format!("{:<12}{text}", "list files"))?;
    for row in files {
        if let (Some(since), Some(cause)) = (&row.kept_since, &row.cause) {
            output.line(&format!(
                "{:<12}{} ({}): its {} entries of before {since} stay in force: {cause}",
                "warning",
                row.file,
                row.list,
                count(row.entries)
            ))?;
        }
    }
    Ok(())
}

/// What is wrong with the audit log.
fn audit(row: &AuditRow) -> Option<String> {
    let mut wrong = Vec::new();
    if let Some(error) = &row.error {
        wrong.push(format!("{} rows wait: {error}", count(row.waiting)));
    }
    if row.dropped > 0 {
        let dropped = count(row.dropped);
        wrong.push(format!("{dropped} events since the start found no room"));
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

fn flood(row: &FloodRow) -> String {
    let since = row.since.as_deref().unwrap_or_default();
    let rate = match (row.unknown_per_second, row.unknown_percent) {
        (Some(rate), Some(percent)) => format!(
            ": {} packets a second of unknown sources, {percent} % of all",
            count(rate)
        ),
        _ => String::new(),
    };
    format!("too many new sources, admission on since {since}{rate}")
}

fn interfaces(status: &Status, output: &mut Output) -> Result<(), Failure> {
    if status.interfaces.is_empty() {
        return Ok(output.line("attached nowhere: no packet is looked at")?);
    }
    let rows: Vec<[String; 5]> = status
        .interfaces
        .iter()
        .map(|row| {
            let remark = match &row.fallback {
                Some(cause) => format!("not native: {cause}"),
                None => String::new(),
            };
            let index = match row.index {
                0 => "-".to_owned(),
                index => index.to_string(),
            };
            [
                row.interface.clone(),
                index,
                row.mode.clone(),
                state(row),
                remark,
            ]
        })
        .collect();
    let headings = ["INTERFACE", "INDEX", "MODE", "STATE", ""];
    Ok(output.table(headings, [false, true, false, false, false], &rows)?)
}

/// The state of an interface, and what comes of it.
fn state(row: &InterfaceRow) -> String {
    let since = row.since.as_ref();
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    match (row.state.as_str(), &row.cause) {
        ("missing", _) => {
            format!("missing{since}: it is not there; it is attached to when it is back")
        }
        ("failed", Some(cause)) => {
            format!("failed{since}: {cause}; it is tried again and again")
        }
        ("detached", _) => "detached, until `limiter reload`".to_owned(),
        (state, _) => format!("{state}{since}"),
    }
}

pub(super) fn stats(
    client: &Client,
    arguments: &args::Stats,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut stats: Stats = client.get("/v1/stats", &[])?;
    print_stats(&stats, None, arguments.json.json, output)?;
    if !arguments.watch {
        return Ok(());
    }
    loop {
        output.flush()?;
        std::thread::sleep(WATCH);
        let next: Stats = client.get("/v1/stats", &[])?;
        if !arguments.json.json {
            output.line("")?;
        }
        print_stats(&next, Some(&stats), arguments.json.json, output)?;
        stats = next;
    }
}

type Name<'a> = (Option<&'a str>, Option<&'a str>, &'a OutcomeRow);

fn name(row: &CounterRow) -> Name<'_> {
    (row.interface.as_deref(), row.limit.as_deref(), &row.outcome)
}

/// Prints the counters, and since `before` only what has been added.
fn print_stats(
    stats: &Stats,
    before: Option<&Stats>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let old: HashMap<Name<'_>, (u64, u64)> = before
        .iter()
        .flat_map(|before| &before.counters)
        .map(|row| (name(row), (row.packets, row.bytes)))
        .collect();
    let added: Vec<CounterRow> = stats
        .counters
        .iter()
        .map(|row| {
            let (packets, bytes) = old.get(&name(row)).copied().unwrap_or_default();
            CounterRow {
                packets: row.packets.saturating_sub(packets),
                bytes: row.bytes.saturating_sub(bytes),
                ..row.clone()
            }
        })
        .filter(|row| row.packets > 0)
        .collect();
    if json {
        return Ok(output.json(&Stats { counters: added })?);
    }
    if added.is_empty() {
        return Ok(output.line("no packets")?);
    }
    let rows: Vec<[String; 6]> = added
        .iter()
        .map(|row| {
            [
                or_dash(row.interface.as_deref()),
                or_dash(row.limit.as_deref()),
                row.outcome.verdict.clone(),
                reason(&row.outcome),
                count(row.packets),
                bytes(row.bytes),
            ]
        })
        .collect();
    let headings = [
        "INTERFACE",
        "LIMIT",
        "VERDICT",
        "REASON",
        "PACKETS",
        "BYTES",
    ];
    Ok(output.table(headings, [false, false, false, false, true, true], &rows)?)
}

/// The reason with the budget that ran out.
pub(super) fn reason(outcome: &OutcomeRow) -> String {
    match &outcome.budget {
        Some(budget) => format!("{} ({budget})", outcome.reason),
        None => outcome.reason.clone(),
    }
}

pub(super) fn sources(
    client: &Client,
    arguments: &args::Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    let number = arguments.count.to_string();
    let sources: Sources = client.get("/v1/sources", &[("count", &number)])?;
    if arguments.json.json {
        return Ok(output.json(&sources)?);
    }
    let rows: Vec<[String; 6]> = sources
        .sources
        .iter()
        .map(|row| {
            [
                shown(row.source),
                row.limit.clone(),
                count(row.packets_per_second.unwrap_or_default()),
                count(row.passed),
                count(row.dropped),
                row.last_refusal
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), reason),
            ]
        })
        .collect();
    let headings = [
        "SOURCE",
        "LIMIT",
        "PACKETS/S",
        "PASSED",
        "DROPPED",
        "LAST REFUSAL",
    ];
    output.table(headings, [false, false, true, true, true, false], &rows)?;
    let rest = sources.total.saturating_sub(rows.len() as u64);
    if rest > 0 {
        output.line(&format!("and {} more (--count)", count(rest)))?;
    }
    Ok(())
}

/// Takes off what a daemon left that does not run any more.
fn without_daemon(arguments: &args::Detach, output: &mut Output) -> Result<(), Failure> {
    let words = |error: &dyn std::error::Error| Failure::Words(error.to_string());
    if Pins::are_at(&arguments.pins) {
        let pins = Pins::open_of_anybody(&arguments.pins).map_err(|error| words(&error))?;
        let interface = arguments.interface.as_deref();
        let released = dataplane::release(&pins, interface).map_err(|error| words(&error))?;
        if !released.is_empty() {
            let names = released.join(", ");
            return Ok(output.line(&format!("no daemon runs; detached from {names}"))?);
        }
    }
    nothing_left(arguments.interface.as_deref(), output)
}

/// Says that there is no program on these interfaces, or whose there is.
fn nothing_left(interface: Option<&str>, output: &mut Output) -> Result<(), Failure> {
    let names = match interface {
        Some(name) => vec![name.to_owned()],
        None => interfaces::present()?.into_iter().map(|i| i.name).collect(),
    };
    let found: Vec<String> = names
        .iter()
        .filter_map(|name| dataplane::check_detached(name).err())
        .map(|error| error.to_string())
        .collect();
    if !found.is_empty() {
        return Err(Failure::Words(found.join("\n")));
    }
    let names = names.join(", ");
    Ok(output.line(&format!("no daemon runs, and no XDP program is on {names}"))?)
}

/// Lets the daemon detach; without one, takes off what it left.
pub(super) fn detach(
    client: &Client,
    arguments: &args::Detach,
    output: &mut Output,
) -> Result<(), Failure> {
    let name = arguments.interface.as_deref();
    let parameters: Vec<(&str, &str)> = name.iter().map(|name| ("name", *name)).collect();
    let detached = match client.delete::<Detached>("/v1/interfaces", &parameters) {
        Ok(answer) => answer.detached,
        Err(ClientError::NoDaemon { .. }) => return without_daemon(arguments, output),
        Err(error) => return Err(error.into()),
    };
    if detached.is_empty() {
        return Ok(output.line("limiter was attached nowhere")?);
    }
    Ok(output.line(&format!("detached from {}", detached.join(", ")))?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::keeper::fake::{POLICY, Told, begun, policy};
    use crate::keeper::{By, Now};

    /// Nobody takes rules for real that are not.
    #[test]
    fn rules_that_only_count_are_named() {
        let rule = |name: &str| {
            format!(
                "[[rule]]\nname = '{name}'\ncount = 'requests'\nlimit = 5\nperiod = '1m'\n\
                 action = 'reject'\n"
            )
        };
        let text = format!(
            "{POLICY}\n[decide]\nenforce = false\n{}{}",
            rule("login"),
            rule("search")
        );
        let now = Now::read();
        let (mut keeper, _told) = begun(
            PathBuf::from("limiter.toml"),
            policy(&text),
            Told::default(),
            now,
        );
        let by = By::user(1_000, None);
        let modes = [
            ("login", crate::engine::Mode::Off),
            ("search", crate::engine::Mode::Simulate),
        ];
        for (name, mode) in modes {
            keeper.switch_rule(name, mode, by, now).unwrap();
        }
        let lines = rules(&keeper.status(now).unwrap());
        let [(_, names), (simulated, why), (switched, by_hand)] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(names, "login (off), search (simulate)");
        assert_eq!((*simulated, *switched), ("simulated", "switched"));
        assert!(why.contains("decide.enforce = false"), "{why}");
        assert!(by_hand.starts_with("2 rules by hand"), "{by_hand}");
        assert!(
            by_hand.ends_with(": login off, search simulate"),
            "{by_hand}"
        );
    }
}
