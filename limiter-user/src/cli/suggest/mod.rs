//! `suggest`: limits that would have hurt nobody.

mod advice;

use std::time::Duration;

use serde::Serialize;

use super::args;
use super::output::Output;
use super::words::{bytes, count};
use super::{Client, Failure};
use crate::control::api::{BudgetRow, Observation, ObservedLimit};
use crate::keeper::shown;
use crate::policy::units::duration_text;
use advice::{Advice, MARGIN_PERCENT, advice};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Suggestions<'a> {
    #[serde(flatten)]
    observation: &'a Observation,
    /// What the busiest source may send more than it did, in percent.
    margin_percent: u64,
    suggestions: Vec<Suggestion<'a>>,
    /// What could not be seen, in words.
    unseen: Vec<String>,
}

/// A limit's budget that would have hurt nobody.
#[derive(Debug, Serialize)]
struct Suggestion<'a> {
    limit: &'a str,
    packets: BudgetRow,
    /// The same as a line of the policy.
    toml: String,
}

pub(super) fn suggest(
    client: &Client,
    arguments: &args::Suggest,
    output: &mut Output,
) -> Result<(), Failure> {
    let lasting = arguments.lasting;
    if !arguments.json.json {
        output.line(&format!("observing for {}", duration_text(lasting)))?;
        output.flush()?;
    }
    let text = duration_text(lasting);
    let seen: Observation = client
        .patient(lasting)
        .get("/v1/observation", &[("for", &text)])?;
    if arguments.json.json {
        return Ok(output.json(&suggestions(&seen))?);
    }
    print(&seen, output)
}

fn suggestions(seen: &Observation) -> Suggestions<'_> {
    let suggestion = |limit| {
        let advice = advice(limit)?;
        Some(Suggestion {
            limit: &limit.limit,
            packets: BudgetRow {
                rate: format!("{}/s", advice.rate),
                burst: advice.burst,
            },
            toml: toml(advice),
        })
    };
    Suggestions {
        observation: seen,
        margin_percent: MARGIN_PERCENT,
        suggestions: seen.limits.iter().filter_map(suggestion).collect(),
        unseen: unseen(seen),
    }
}

/// The line of the policy.
fn toml(advice: Advice) -> String {
    format!(
        "packets = {{ rate = \"{}/s\", burst = {} }}",
        advice.rate, advice.burst
    )
}

fn print(seen: &Observation, output: &mut Output) -> Result<(), Failure> {
    let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
    output.line(&format!(
        "watched for {:.1} s in {} readings, at most {:.1} s apart",
        seconds(seen.watched_ms),
        count(seen.readings),
        seconds(seen.longest_interval_ms)
    ))?;
    output.line("")?;
    let headings = [
        "LIMIT", "SOURCES", "P50/S", "P99/S", "MAX/S", "AT ONCE", "BUSIEST", "NOW",
    ];
    let rows: Vec<[String; 8]> = seen.limits.iter().map(row).collect();
    let right = [false, true, true, true, true, true, false, false];
    output.table(headings, right, &rows)?;
    output.line("")?;
    output.verbatim(&explained())?;
    for line in unseen(seen) {
        output.line(&format!("- {line}"))?;
    }
    output.line("")?;
    for limit in &seen.limits {
        print_toml(limit, output)?;
    }
    Ok(())
}

/// What the figures and the lines to paste mean.
fn explained() -> String {
    format!(
        "Packets a second are those of each source's busiest interval: of half of the sources, of\n\
         99 in 100, and of the busiest. The rates below cover the busiest and {MARGIN_PERCENT} % more, rounded\n\
         up. The bursts cover twice the most packets of one interval (AT ONCE), since those of two\n\
         intervals may all have come where they meet, and {MARGIN_PERCENT} % more. An attack meanwhile is in the\n\
         figures: look at BUSIEST.\n\
         What could not be seen:\n"
    )
}

fn row(limit: &ObservedLimit) -> [String; 8] {
    let spread = limit.packets_per_second;
    let budget = limit.budgets.get("packets");
    let now = budget.map(|budget| format!("{}, burst {}", budget.rate, count(budget.burst)));
    [
        limit.limit.clone(),
        count(limit.sources),
        count(spread.p50),
        count(spread.p99),
        count(spread.max),
        count(limit.packets_at_once),
        limit.busiest.map_or_else(|| "-".to_owned(), shown),
        now.unwrap_or_else(|| "no packets".to_owned()),
    ]
}

/// What the figures do not hold, so that nobody takes them for more.
fn unseen(seen: &Observation) -> Vec<String> {
    let mut lines = vec![
        "bytes and connections of a source: the table counts its packets only".to_owned(),
        "what lists, and blocks of sources that no limit had met, decided about; packets that no \
         limit matches; and during a flood (`limiter status`) the sources that got no entry"
            .to_owned(),
        "when within an interval a packet came".to_owned(),
    ];
    if seen.enforce {
        let line = "what sources would send if nothing was dropped: with edge.enforce = false \
                    they do";
        lines.push(line.to_owned());
    }
    if seen.restarted > 0 {
        lines.push(format!(
            "{} times the packets that a source sent before it was pushed out of the table \
             (edge.sources is too small for all of them)",
            count(seen.restarted)
        ));
    }
    if seen.not_followed > 0 {
        let line = format!("{} sources, which were too many", count(seen.not_followed));
        lines.push(line);
    }
    lines
}

/// The lines to paste, and what can be said of the other budgets.
fn print_toml(limit: &ObservedLimit, output: &mut Output) -> Result<(), Failure> {
    output.line(&format!("# limit {}", limit.limit))?;
    match advice(limit) {
        Some(advice) => output.line(&toml(advice))?,
        None => output.line("# no packets were seen: nothing to go by")?,
    }
    for line in others(limit) {
        output.line(&format!("# {line}"))?;
    }
    Ok(())
}

/// Of bytes and connections only the limit's counters tell: whether the budget
/// in force refused anything, and how large packets are.
fn others(limit: &ObservedLimit) -> Vec<String> {
    let mut lines = Vec::new();
    for name in ["bytes", "connections"] {
        let Some(budget) = limit.budgets.get(name) else {
            continue;
        };
        let now = format!("{name}: {}, burst {}", budget.rate, count(budget.burst));
        lines.push(match limit.refused.get(name) {
            None => format!("{now}: refused nothing; keep it"),
            Some(refused) => {
                let refused = count(*refused);
                format!("{now}: refused {refused} packets; raise it and observe again")
            }
        });
    }
    if let Some(mean) = limit.bytes.checked_div(limit.packets) {
        let busiest = bytes(mean.saturating_mul(limit.packets_per_second.max));
        let mean = bytes(mean);
        lines.push(format!(
            "bytes, estimated: the mean frame has {mean}; at that the busiest source sent {busiest}/s"
        ));
    }
    lines
}
