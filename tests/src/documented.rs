//! What the documents for operators list, read as tests compare it with what there is.

use std::collections::{BTreeMap, BTreeSet};

/// docs/metrics.md.
pub const METRICS: &str = include_str!("../../docs/metrics.md");

/// Each metric of its table, with its labels.
pub fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::new();
    let mut before = BTreeSet::new();
    for line in METRICS.lines().filter(|it| it.starts_with("| `limiter_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, labels, ..] = cells[..] else {
            continue;
        };
        // `owner`: `operator`, … names the label and then its values.
        let labels = match labels {
            "the same" => before.clone(),
            "`interface`, `mode`: `native`, `generic`" => names("`interface`, `mode`"),
            cell => names(cell.split(':').next().unwrap_or_default()),
        };
        before.clone_from(&labels);
        metrics.insert(name.trim_matches('`').to_owned(), labels);
    }
    metrics
}

/// The metric that a sample is of: a histogram has samples with names of their own.
pub fn metric_of<'a>(sample: &'a str, metrics: &BTreeMap<String, BTreeSet<String>>) -> &'a str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| sample.strip_suffix(suffix))
        .filter(|base| metrics.contains_key(*base))
        .unwrap_or(sample)
}

/// Names in backquotes of a cell.
fn names(cell: &str) -> BTreeSet<String> {
    let named = cell.split(';').flat_map(|part| part.split(','));
    named
        .filter_map(|part| part.trim().strip_prefix('`')?.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// What stands in the blocks of a document that are marked with this language.
pub fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    let after = document.split(&begin).skip(1);
    after
        .filter_map(|rest| rest.split_once("\n```"))
        .map(|(block, _)| block)
        .collect()
}
