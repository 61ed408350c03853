//! The table of keys agrees with the parser and with the documentation.

use super::super::schema::ROOT;
use super::{Diagnostic, parsed};

/// No key of the table is known and yet read by nobody: a date fits nowhere,
/// so each must complain.
#[test]
fn every_known_key_is_read() {
    for path in ROOT.paths() {
        let text = match path.strip_prefix("edge.limit.") {
            Some(key) => format!("[[edge.limit]]\n{key} = 1979-05-27\n"),
            None => format!("\n{path} = 1979-05-27\n"),
        };
        let fault = parsed(&text).expect_err(&text);
        let here = |d: &&Diagnostic| d.position.is_some_and(|p| p.line == 2);
        let found = fault.diagnostics.iter().find(here).expect(&text);
        assert!(!found.message.contains("unknown key"), "{found}");
    }
}

/// Who adds a key writes it down.
#[test]
fn every_known_key_is_documented() {
    let documentation = include_str!("../../../../docs/policy.md");
    for path in ROOT.paths() {
        assert!(
            documentation.contains(&format!("`{path}`")),
            "docs/policy.md does not mention `{path}`"
        );
    }
}
