//! `check`, `init`, `diff`.

use super::args::{Check, Diff, Init};
use super::output::Output;
use super::words::counted;
use super::{Client, Failure};
use crate::control::api::DiagnosticRow;
use crate::keeper::reload::diagnostic_row;
use crate::policy::{self, Description, Difference, Differences, ListDifference, Policy};

/// Validates a policy and prints what is wrong with it.
pub(super) fn check(check: &Check, output: &mut Output) -> Result<(), Failure> {
    let (diagnostics, parts) = match policy::load(&check.file) {
        Ok(loaded) => (loaded.warnings, Some(parts(&loaded.policy))),
        Err(error) => (error.diagnostics, None),
    };
    if check.json.json {
        let rows: Vec<DiagnosticRow> = diagnostics.iter().map(diagnostic_row).collect();
        let valid = parts.is_some();
        output.json(&serde_json::json!({ "valid": valid, "diagnostics": rows }))?;
    } else {
        for diagnostic in &diagnostics {
            // It escapes itself.
            output.verbatim(&format!("{diagnostic}\n"))?;
        }
        if let Some(parts) = &parts {
            let file = check.file.display();
            let warnings = match diagnostics.len() {
                0 => String::new(),
                count => format!(", {}", counted(count, "warning")),
            };
            output.line(&format!("{file}: valid: {parts}{warnings}"))?;
        }
    }
    match parts {
        Some(_) => Ok(()),
        None => Err(Failure::Said),
    }
}

/// What a policy consists of; of rules only where requests are decided on.
fn parts(policy: &Policy) -> String {
    let limits = counted(policy.edge.limits.len(), "limit");
    match &policy.decide {
        Some(decide) => format!("{limits}, {}", counted(decide.rules.len(), "rule")),
        None => limits,
    }
}

/// Prints a policy to start from.
pub(super) fn init(init: &Init, output: &mut Output) -> Result<(), Failure> {
    if init.list {
        let presets = policy::presets();
        if init.json {
            let named = |(name, purpose): &(&str, &str)| serde_json::json!({ "name": name, "purpose": purpose });
            let rows: Vec<serde_json::Value> = presets.iter().map(named).collect();
            return Ok(output.json(&rows)?);
        }
        let rows: Vec<[String; 2]> = presets
            .iter()
            .map(|(name, purpose)| [(*name).to_owned(), (*purpose).to_owned()])
            .collect();
        return Ok(output.table(["PRESET", "FOR"], [false; 2], &rows)?);
    }
    let text = policy::template(init.preset.as_deref(), &init.set)
        .map_err(|error| Failure::Words(error.to_string()))?;
    Ok(output.verbatim(&text)?)
}

/// Networks of a list that are named one by one.
const NAMED: usize = 20;

/// Compares a file with the policy in force.
pub(super) fn diff(client: &Client, diff: &Diff, output: &mut Output) -> Result<(), Failure> {
    let loaded = policy::load(&diff.file).map_err(|error| Failure::Words(error.to_string()))?;
    let old: Description = client.get("/v1/policy", &[])?;
    let differences = Differences::between(&old, &Description::of(&loaded.policy));
    if diff.json.json {
        return Ok(output.json(&differences)?);
    }
    if differences.is_empty() {
        let file = diff.file.display();
        return Ok(output.line(&format!("{file} says what is in force"))?);
    }
    for it in differences.values.iter().filter(|it| !it.is_default) {
        output.line(&in_words(it))?;
    }
    if let Some(names) = &differences.order {
        output.line(&format!(
            "limits match in another order: {}",
            names.join(", ")
        ))?;
    }
    for (name, list) in [("allow", &differences.allow), ("deny", &differences.deny)] {
        networks(name, list, output)?;
    }
    Ok(())
}

fn in_words(Difference { key, old, new, .. }: &Difference) -> String {
    let restart = match key.as_str() {
        "edge.sources" | "metrics.listen" | "state.directory" => true,
        key => key.starts_with("edge.tables.") || key.starts_with("control."),
    };
    let when = match restart {
        true => " (when the daemon is restarted)",
        false => "",
    };
    match (old, new) {
        (Some(old), Some(new)) => format!("~ {key}: {old} -> {new}{when}"),
        (None, Some(new)) => format!("+ {key}: {new}{when}"),
        (Some(old), None) => format!("- {key}: {old}{when}"),
        (None, None) => String::new(),
    }
}

fn networks(name: &str, list: &ListDifference, output: &mut Output) -> Result<(), Failure> {
    for (sign, networks) in [("+", &list.added), ("-", &list.removed)] {
        for network in networks.iter().take(NAMED) {
            output.line(&format!("{sign} edge.{name}: {network}"))?;
        }
        let more = networks.len().saturating_sub(NAMED);
        if more > 0 {
            output.line(&format!(
                "{sign} edge.{name}: and {}",
                counted(more, "other")
            ))?;
        }
    }
    Ok(())
}
