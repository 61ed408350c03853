//! What a policy's text comes to: errors, warnings, values.

mod describe;
mod errors;
mod files;
mod keys;
mod many;
mod notify;
mod pages;
mod presets;
mod random;
mod rule_errors;
mod rule_warnings;
mod rules;
mod template;
mod values;
mod warnings;

use super::{Diagnostic, Loaded, NoFiles, PolicyError, Severity, parse};

/// A policy with nothing wrong in it, which the cases below add to.
const CLEAN: &str = r#"[edge]
interfaces = ["eth0"]
"#;

/// A limit with nothing wrong in it, for cases to complete.
const LIMIT: &str = r#"[edge]
interfaces = ["eth0"]
[[edge.limit]]
name = "https"
protocol = "tcp"
ports = [443]
"#;

fn parsed(text: &str) -> Result<Loaded, PolicyError> {
    parse("limiter.toml", text, &NoFiles)
}

fn loaded(text: &str) -> Loaded {
    parsed(text).unwrap_or_else(|fault| panic!("{text}\n{fault}"))
}

/// `line:column: message; help`, as the tables below state it.
fn brief(diagnostic: &Diagnostic) -> String {
    let position = diagnostic.position.unwrap();
    format!(
        "{}:{}: {}; {}",
        position.line, position.column, diagnostic.message, diagnostic.help
    )
}

/// The only error of `text`, whatever it is warned of.
fn error(text: &str) -> String {
    let fault = parsed(text).expect_err(text);
    let is_error = |d: &&Diagnostic| d.severity == Severity::Error;
    let errors: Vec<&Diagnostic> = fault.diagnostics.iter().filter(is_error).collect();
    assert_eq!(errors.len(), 1, "{text}\n{fault}");
    brief(errors[0])
}
