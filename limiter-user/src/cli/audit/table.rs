//! Answers for people.

use crate::cli::output::Output;
use crate::cli::words::{count, or_dash};
use crate::cli::{Failure, words};
use crate::store::audit::{Counted, Coverage, Kind, Record, Rows, Top};

/// Rows, as they come.
pub(super) fn rows(rows: &Rows, output: &mut Output) -> Result<(), Failure> {
    if rows.records.is_empty() {
        return Ok(output.line("no rows")?);
    }
    let cells: Vec<[String; 7]> = rows.records.iter().map(row).collect();
    let headings = [
        "AT", "WHAT", "COUNT", "RULE", "SOURCE", "ACCOUNT", "DETAILS",
    ];
    let right = [false, false, true, false, false, false, false];
    output.table(headings, right, &cells)?;
    if rows.next.is_some() {
        let shown = words::counted(rows.records.len(), "row");
        let more = "there may be more: --limit shows more, `limiter audit export` all";
        output.line(&format!("the latest {shown}; {more}"))?;
    }
    Ok(())
}

fn row(record: &Record) -> [String; 7] {
    let account = match (&record.account, &record.account_hash) {
        (Some(name), _) => name.clone(),
        (None, Some(hash)) => format!("#{hash}"),
        (None, None) => "-".to_owned(),
    };
    [
        record.at.clone(),
        record.kind.name().to_owned(),
        count(record.count),
        or_dash(record.rule.as_deref()),
        or_dash(record.source.map(|source| source.to_string()).as_deref()),
        account,
        what(record),
    ]
}

/// The rest of a row in words.
fn what(record: &Record) -> String {
    if record.kind == Kind::Hand {
        return by_hand(record);
    }
    let mut parts = Vec::new();
    if let Some(action) = record.action {
        let dry = if record.simulated { " (simulated)" } else { "" };
        parts.push(format!("{}{dry}", action.name()));
    }
    parts.extend(record.until.as_ref().map(|until| format!("until {until}")));
    parts.extend(record.rung.map(|rung| format!("rung {rung}")));
    parts.extend(record.status.map(|status| status.to_string()));
    parts.extend(record.path.clone());
    parts.join(" ")
}

fn by_hand(record: &Record) -> String {
    let mut text = format!("uid {}:", record.uid.unwrap_or_default());
    for part in [&record.order, &record.subject, &record.detail]
        .into_iter()
        .flatten()
    {
        text.push(' ');
        text.push_str(part);
    }
    if let Some(reason) = &record.reason {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

/// How many, by kind.
pub(super) fn counted(counted: &Counted, output: &mut Output) -> Result<(), Failure> {
    if counted.kinds.is_empty() {
        return Ok(output.line("none")?);
    }
    let kinds = counted.kinds.iter();
    let rows: Vec<[String; 2]> = kinds
        .map(|(kind, number)| [kind.name().to_owned(), count(*number)])
        .collect();
    Ok(output.table(["WHAT", "COUNT"], [false, true], &rows)?)
}

/// The most frequent values of a field.
pub(super) fn top(by: &str, top: &Top, output: &mut Output) -> Result<(), Failure> {
    if top.shares.is_empty() {
        return Ok(output.line("none")?);
    }
    let shares = top.shares.iter();
    let rows: Vec<[String; 2]> = shares
        .map(|share| [or_dash(share.value.as_deref()), count(share.count)])
        .collect();
    let heading = by.to_uppercase();
    output.table([heading.as_str(), "COUNT"], [false, true], &rows)?;
    let shown: u64 = top.shares.iter().map(|share| share.count).sum();
    if shown < top.count {
        let (shown, all) = (count(shown), count(top.count));
        output.line(&format!("{shown} of {all} in all"))?;
    }
    if top.may_lack > 0 {
        let lack = count(top.may_lack);
        let why = "there are too many values to tell all apart";
        output.line(&format!("each may be {lack} more: {why}"))?;
    }
    Ok(())
}

/// How far an answer can be relied on.
pub(super) fn reach(coverage: &Coverage) -> String {
    let mut text = format!("complete since {}", coverage.complete_from);
    if coverage.lost > 0 {
        let lost = count(coverage.lost);
        text.push_str(&format!("; {lost} before are known to be missing"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> Record {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rows_in_words() {
        let began = record(
            r#"{"id":1,"at":"2026-11-22T21:00:00.000Z","kind":"began","count":1,"rule":"lockout",
            "source":"192.0.2.7","account_hash":"00000000000000ab","path":"/login","status":401,
            "action":"reject","simulated":true,"until":"2026-11-22T21:15:00.000Z","rung":2}"#,
        );
        assert_eq!(
            row(&began)[1..],
            [
                "began",
                "1",
                "lockout",
                "192.0.2.7",
                "#00000000000000ab",
                "reject (simulated) until 2026-11-22T21:15:00.000Z rung 2 401 /login",
            ]
        );
        let hand = record(
            r#"{"id":2,"at":"2026-11-22T21:00:00.000Z","kind":"hand","count":1,
            "source":"192.0.2.7","uid":1000,"order":"block add","subject":"192.0.2.7/32",
            "detail":"for 15min","reason":"scanner"}"#,
        );
        assert_eq!(
            row(&hand)[3..],
            [
                "-",
                "192.0.2.7",
                "-",
                "uid 1000: block add 192.0.2.7/32 for 15min (scanner)",
            ]
        );
    }

    #[test]
    fn how_far_an_answer_reaches() {
        let mut coverage = Coverage {
            complete_from: "2026-11-15T00:00:00.000Z".to_owned(),
            is_complete: true,
            lost: 0,
        };
        assert_eq!(reach(&coverage), "complete since 2026-11-15T00:00:00.000Z");
        coverage.lost = 1_200;
        assert!(reach(&coverage).ends_with("; 1,200 before are known to be missing"));
    }
}
