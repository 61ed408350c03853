//! The table of keys agrees with the parser and with the documentation.

use super::super::schema::ROOT;
use super::{Diagnostic, parsed};

/// No key of the table is known and yet read by nobody: a date fits nowhere,
/// so each must complain.
#[test]
fn every_known_key_is_read() {
    for path in ROOT.paths() {
        let lists = ["edge.limit", "rule"];
        let within = |list: &&'static str| {
            let key = path.strip_prefix(*list)?.strip_prefix('.')?;
            Some((*list, key.to_owned()))
        };
        let text = match lists.iter().find_map(within) {
            Some((list, key)) => format!("[[{list}]]\n{key} = 1979-05-27\n"),
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
    let policy = include_str!("../../../../docs/policy.md");
    let rules = include_str!("../../../../docs/rules.md");
    for path in ROOT.paths() {
        let is_of_rules = path.starts_with("rule") || path.starts_with("decide");
        let (file, documentation) = match is_of_rules {
            true => ("rules.md", rules),
            false => ("policy.md", policy),
        };
        assert!(
            documentation.contains(&format!("`{path}`")),
            "docs/{file} does not mention `{path}`"
        );
    }
}
