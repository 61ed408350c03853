//! `rule`, `account`, `origins`.

use super::args::{AccountVerb, Json, RuleVerb};
use super::output::Output;
use super::words::{count, duration, or_dash};
use super::{Client, Failure};
use crate::control::api::{AccountRows, Changed, HeldRow, OriginRows, RuleRows};
use crate::engine::Mode;
use crate::keeper::{shown, timestamp, unix_time};

const RULES: &str = "/v1/rules";
const ACCOUNTS: &str = "/v1/accounts";

pub(super) fn rules(client: &Client, verb: RuleVerb, output: &mut Output) -> Result<(), Failure> {
    let (name, mode) = match verb {
        RuleVerb::List(json) => return list(client, json, output),
        RuleVerb::Enable(rule) => (rule.name, Mode::On),
        RuleVerb::Disable(rule) => (rule.name, Mode::Off),
        RuleVerb::Simulate(rule) => (rule.name, Mode::Simulate),
    };
    let parameters = [("name", name.as_str()), ("mode", mode.name())];
    let changed: Changed = client.post_with(RULES, &parameters, &())?;
    let does = match mode {
        Mode::On => "does what the policy says",
        Mode::Simulate => "counts, and only says what it would do",
        Mode::Off => "does nothing",
    };
    output.line(&format!("{name} {does}"))?;
    for notice in &changed.notices {
        output.line(notice)?;
    }
    Ok(())
}

fn list(client: &Client, json: Json, output: &mut Output) -> Result<(), Failure> {
    let found: RuleRows = client.get(RULES, &[])?;
    if json.json {
        return Ok(output.json(&found)?);
    }
    if found.rules.is_empty() {
        return Ok(output.line("the policy has no rules")?);
    }
    let rows: Vec<[String; 10]> = found
        .rules
        .iter()
        .map(|row| {
            let tally = &row.tally;
            [
                row.name.clone(),
                row.mode.clone(),
                count(tally.matched),
                count(tally.counted),
                count(tally.over),
                count(tally.not_from),
                count(tally.tracked),
                count(tally.active),
                count(tally.blocked),
                since(tally.since_ns),
            ]
        })
        .collect();
    let headings = [
        "RULE",
        "MODE",
        "MATCHED",
        "COUNTED",
        "OVER",
        "NOT FROM",
        "KEYS",
        "ACTIVE",
        "BLOCKED",
        "COUNTS SINCE",
    ];
    let right = [
        false, false, true, true, true, true, true, true, true, false,
    ];
    Ok(output.table(headings, right, &rows)?)
}

/// Since when a rule counts.
fn since(since_ns: u64) -> String {
    match since_ns {
        0 => "just now".to_owned(),
        since_ns => timestamp(unix_time(since_ns)),
    }
}

pub(super) fn accounts(
    client: &Client,
    verb: AccountVerb,
    output: &mut Output,
) -> Result<(), Failure> {
    match verb {
        AccountVerb::Show(show) => {
            let parameters = [("account", show.account.as_str())];
            let rows: AccountRows = client.get(ACCOUNTS, &parameters)?;
            if show.json.json {
                return Ok(output.json(&rows)?);
            }
            if rows.held.is_empty() {
                let account = &rows.account;
                return Ok(output.line(&format!("{account}: no rule holds anything against it"))?);
            }
            output.line(&rows.account)?;
            print(&rows, output)
        }
        AccountVerb::Unlock(unlock) => {
            let parameters = [
                ("account", unlock.account.as_str()),
                ("reason", unlock.reason.as_str()),
            ];
            let rows: AccountRows = client.delete(ACCOUNTS, &parameters)?;
            if unlock.json.json {
                return Ok(output.json(&rows)?);
            }
            let account = &rows.account;
            if rows.held.is_empty() {
                return Ok(output.line(&format!("{account}: no rule held anything against it"))?);
            }
            output.line(&format!("{account} is released; what was held:"))?;
            print(&rows, output)
        }
    }
}

fn print(rows: &AccountRows, output: &mut Output) -> Result<(), Failure> {
    for row in &rows.held {
        output.line(&held(row))?;
    }
    Ok(())
}

/// What a rule holds, in a line.
pub(super) fn held(row: &HeldRow) -> String {
    let mut text = format!("  rule {}", row.rule);
    if let Some(source) = row.source {
        text.push_str(&format!(" on {}", shown(source)));
    }
    match (&row.action, &row.until) {
        (Some(action), Some(until)) => {
            text.push_str(&format!(": {action} until {until}"));
        }
        (Some(action), None) => text.push_str(&format!(": {action}")),
        (None, _) => match &row.idle {
            Some(idle) => text.push_str(&format!(": does nothing, {idle}")),
            None => text.push_str(": counting"),
        },
    }
    if let Some(reason) = &row.reason {
        text.push_str(&format!(", {reason}"));
    }
    match row.place.as_deref() {
        Some("nic") => text.push_str(", at the NIC"),
        Some(_) => text.push_str(", by refusing its requests"),
        None => {}
    }
    if let Some(why) = &row.why {
        text.push_str(&format!(" (not at the NIC: {why})"));
    }
    if row.rungs > 0 {
        text.push_str(&format!(", rung {}", row.rungs));
    }
    if let Some(counted) = row.counted {
        text.push_str(&format!(", {} counted", count(counted)));
    }
    if let Some(remaining) = row.remaining {
        text.push_str(&format!(", {} left", count(remaining)));
    }
    if row.simulated {
        text.push_str(" (simulated: nothing is done)");
    }
    text
}

pub(super) fn origins(client: &Client, json: Json, output: &mut Output) -> Result<(), Failure> {
    let found: OriginRows = client.get("/v1/origins", &[])?;
    if json.json {
        return Ok(output.json(&found)?);
    }
    if found.origins.is_empty() {
        return Ok(output.line("no events are heard: the policy has no [decide]")?);
    }
    let rows: Vec<[String; 8]> = found
        .origins
        .iter()
        .map(|row| {
            [
                row.name.clone(),
                or_dash(row.format.as_deref()),
                count(row.read),
                count(row.understood),
                count(row.other),
                count(row.not_understood),
                count(row.dropped.saturating_add(row.forged)),
                or_dash(row.lag_ns.map(lag).as_deref()),
            ]
        })
        .collect();
    let headings = [
        "ORIGIN",
        "FORMAT",
        "READ",
        "UNDERSTOOD",
        "NO REQUEST",
        "NOT UNDERSTOOD",
        "DROPPED",
        "LAG",
    ];
    let right = [false, false, true, true, true, true, true, true];
    output.table(headings, right, &rows)?;
    for row in &found.origins {
        if let Some(trouble) = &row.trouble {
            output.line(&format!("{}: {trouble}", row.name))?;
        }
        if let Some(missed) = &row.missed {
            let name = &row.name;
            output.line(&format!("{name}: the rest of a rotated file: {missed}"))?;
        }
        if let Some(sample) = &row.sample {
            output.line(&format!("{}: not understood: {sample}", row.name))?;
        }
    }
    Ok(())
}

/// How far behind, as `12 ms`, `1.5 s` or `2m 5s`.
pub(super) fn lag(lag_ns: u64) -> String {
    let lag = std::time::Duration::from_nanos(lag_ns);
    match lag.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", lag.as_secs_f64()),
        _ => duration(lag.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> HeldRow {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_a_rule_holds_in_words() {
        let mut blocked = row(r#"{"rule":"login","source":"192.0.2.7/32","action":"block",
            "until":"2026-11-22T21:15:00Z","place":"http","rungs":0,"simulated":false,
            "why":"10.0.0.0/8 is allowed"}"#);
        assert_eq!(
            held(&blocked),
            "  rule login on 192.0.2.7: block until 2026-11-22T21:15:00Z, by refusing its requests \
             (not at the NIC: 10.0.0.0/8 is allowed)"
        );
        (blocked.action, blocked.place, blocked.why) = (None, None, None);
        blocked.idle = Some("switched off by hand".to_owned());
        assert_eq!(
            held(&blocked),
            "  rule login on 192.0.2.7: does nothing, switched off by hand"
        );
    }

    #[test]
    fn lags_have_a_unit_that_people_read() {
        for (ns, text) in [
            (0, "0 ms"),
            (12_345_678, "12 ms"),
            (1_500_000_000, "1.5 s"),
            (125_000_000_000, "2m 5s"),
        ] {
            assert_eq!(lag(ns), text);
        }
    }
}
