//! Section `engine`: what the rules cost, how much memory their keys take, and what
//! stands when keys are thrown at them.
//!
//! Each part gives rows of its own, all in the columns below. What is measured of a daemon (a
//! followed log to its decision, a datagram to the first drop, rows of the audit log) is a part of its
//! own beside these.

mod crowding;
mod speed;
mod traffic;

use crate::report::{Column, Row, Table};
use crate::rounds::Figure;
use anyhow::{Context as _, Result};
use limiter_user::engine::{Engine, Prefixes};
use limiter_user::policy::{NoFiles, parse};

/// Measures.
pub(crate) fn run(rounds: usize) -> Result<Table> {
    let mut rows = speed::rows(rounds)?;
    rows.extend(crowding::rows()?);
    let notes = [speed::NOTES, crowding::NOTES].concat();
    Ok(Table {
        section: "engine",
        title: "rules over events, one core".to_owned(),
        columns: COLUMNS
            .map(|(name, decimals)| Column::new(name, decimals))
            .to_vec(),
        rows,
        notes: notes.into_iter().map(ToOwned::to_owned).collect(),
    })
}

/// The columns, of which each row has some.
const COLUMNS: [(&str, usize); 6] = [
    ("M events/s", 3),
    ("bytes a key", 1),
    ("MiB at the cap", 1),
    ("MiB after", 1),
    ("actions kept", 0),
    ("victim's count", 0),
];

/// An engine with the rules of a policy, nothing counted.
fn engine(rules: &str) -> Result<Engine> {
    let policy = parse("bench.toml", rules, &NoFiles)?.policy;
    let decide = policy.decide.as_ref().context("a policy without rules")?;
    let edge = Prefixes {
        ipv4: policy.edge.ipv4_prefix,
        ipv6: policy.edge.ipv6_prefix,
    };
    Ok(Engine::new(decide, edge, b"bench of engines"))
}

/// What all tables of an engine take, in bytes, and the keys in them.
fn held(engine: &Engine) -> (u64, u64) {
    let tallies = engine.tallies().map(|(.., tally)| tally);
    tallies.fold((0, 0), |(bytes, keys), tally| {
        (bytes + tally.bytes, keys + tally.tracked)
    })
}

/// A row of what was measured once.
fn row(name: &str, figures: [Option<f64>; COLUMNS.len()]) -> Row {
    Row {
        name: name.to_owned(),
        figures: figures
            .map(|it| it.and_then(|it| Figure::of(vec![it])))
            .to_vec(),
        fault: None,
    }
}
