//! `audit`: what the audit log says, exported, and accounts that are forgotten.

mod log;
mod table;

use std::io::{Write as _, stderr};

use super::args::{Audit, AuditFilter, AuditVerb};
use super::output::Output;
use super::words::counted;
use super::{Client, Failure};
use crate::control::api::{AuditAnswer, EraseOrder, Erased};
use crate::store::audit::Coverage;
use log::Log;

/// Rows that an export asks for at once.
const PAGE: &str = "5000";

pub(super) fn audit(
    client: &Client,
    arguments: &Audit,
    output: &mut Output,
) -> Result<(), Failure> {
    match &arguments.verb {
        None => question(client, arguments, output),
        Some(AuditVerb::Export(arguments)) => {
            export(client, &arguments.filter, arguments.after, output)
        }
        Some(AuditVerb::Erase(arguments)) => erase(client, &arguments.account, output),
    }
}

fn question(client: &Client, arguments: &Audit, output: &mut Output) -> Result<(), Failure> {
    let limit = arguments.limit.map(|limit| limit.to_string());
    let mut parameters = parameters(&arguments.filter);
    parameters.extend(limit.as_deref().map(|limit| ("limit", limit)));
    parameters.extend(arguments.by.as_deref().map(|by| ("by", by)));
    parameters.extend(arguments.count.then_some(("count", "true")));
    let mut log = Log::new(client, arguments.filter.config.as_deref());
    let answer = log.ask(&parameters)?;
    let filter = &arguments.filter;
    if let Some(name) = &filter.rule
        && let Some(why) = log.rules().and_then(|rules| log::unknown(name, &rules))
    {
        // Whoever closed standard error does not want it.
        let _written = writeln!(stderr(), "limiter: {why}");
    }
    if arguments.json.json {
        return Ok(output.json(&answer)?);
    }
    match &answer {
        AuditAnswer::Rows(rows) => table::rows(rows, output)?,
        AuditAnswer::Counted(counted) => table::counted(counted, output)?,
        AuditAnswer::Top(top) => {
            let by = arguments.by.as_deref().unwrap_or_default();
            table::top(by, top, output)?;
        }
    }
    let (AuditAnswer::Rows(crate::store::audit::Rows { coverage, .. })
    | AuditAnswer::Counted(crate::store::audit::Counted { coverage, .. })
    | AuditAnswer::Top(crate::store::audit::Top { coverage, .. })) = &answer;
    Ok(output.line(&table::reach(coverage))?)
}

/// Every row as a line of JSON, in the order in which they were written.
fn export(
    client: &Client,
    filter: &AuditFilter,
    after: Option<i64>,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut log = Log::new(client, filter.config.as_deref());
    let mut after = after.unwrap_or(-1);
    let mut first: Option<Coverage> = None;
    loop {
        let from = after.to_string();
        let mut parameters = parameters(filter);
        parameters.extend([("after", from.as_str()), ("limit", PAGE)]);
        let AuditAnswer::Rows(rows) = log.ask(&parameters)? else {
            let words = "the daemon gave no rows; is it of this version (`limiter status`)?";
            return Err(Failure::Words(words.to_owned()));
        };
        for record in &rows.records {
            output.json_line(record)?;
        }
        let coverage = first.get_or_insert(rows.coverage);
        match rows.next {
            Some(next) => after = next,
            None => {
                output.flush()?;
                let said = table::reach(coverage);
                // Whoever closed standard error does not want it.
                let _written = writeln!(stderr(), "limiter: {said}");
                return Ok(());
            }
        }
    }
}

fn erase(client: &Client, account: &str, output: &mut Output) -> Result<(), Failure> {
    let order = EraseOrder {
        account: account.to_owned(),
    };
    let erased: Erased = client.post("/v1/audit/erase", &order)?;
    let rows = usize::try_from(erased.rows).unwrap_or(usize::MAX);
    Ok(output.line(&format!("{} erased", counted(rows, "row")))?)
}

/// A filter as the daemon takes it.
fn parameters(filter: &AuditFilter) -> Vec<(&str, &str)> {
    let all = [
        ("account", &filter.account),
        ("source", &filter.source),
        ("rule", &filter.rule),
        ("action", &filter.action),
        ("kind", &filter.kind),
        ("since", &filter.since),
        ("until", &filter.until),
    ];
    let given = all.into_iter();
    given
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
        .collect()
}
