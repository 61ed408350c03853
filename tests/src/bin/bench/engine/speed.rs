//! Events decided and counted a second, and what a key takes.

use super::traffic::{Spread, address, clients};
use crate::report::Row;
use crate::rounds::{Contestant, interleave};
use anyhow::{Result, ensure};
use limiter_user::engine::Engine;
use limiter_user::event::Event;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Instant;

const CLIENTS: u32 = 1_000_000;
/// Events of one round.
const EVENTS: usize = 2_000_000;
/// What no client reaches.
const LIMIT: u64 = 10_000_000;
const START_NS: u64 = 1_700_000_000_000_000_000;
/// From one event to the next.
const STEP_NS: u64 = 1_000;

pub(super) const NOTES: &[&str] = &[
    "events: requests of a million clients, each decided and counted by every rule, all of them sliding \
     windows by source of which every client is known; Zipf: the n-th client a 1/n as often as the first",
    "bytes a key: by what the tables have allocated, on average over the rules",
];

/// An engine, and when it is there.
struct Run {
    engine: Engine,
    now_ns: u64,
}

impl Run {
    /// With so many rules, to which every client is known.
    fn of(rules: usize) -> Result<Self> {
        let mut text = "[decide]\n".to_owned();
        for rule in 0..rules {
            write!(
                text,
                "[[rule]]\nname = 'r{rule}'\ncount = 'requests'\nlimit = {}\nperiod = '{}m'\n\
                 algorithm = 'sliding_window'\naction = 'reject'\ntracked = 1_048_576\n",
                LIMIT,
                rule + 1,
            )?;
        }
        let mut run = Self {
            engine: super::engine(&text)?,
            now_ns: START_NS,
        };
        run.ask(0..CLIENTS);
        Ok(run)
    }

    /// Asks about a request of each of these clients; how many were refused.
    fn ask(&mut self, clients: impl Iterator<Item = u32>) -> u64 {
        let mut event = Event::of(address(0));
        event.method = Some("GET".into());
        event.host = Some("example.com".into());
        event.path = Some("/articles/17?page=2".into());
        let mut refused = 0;
        for client in clients {
            self.now_ns += STEP_NS;
            event.source = address(client);
            refused += u64::from(self.engine.ask(&event, self.now_ns).refuses());
            self.engine.changes();
        }
        refused
    }
}

pub(super) fn rows(rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for rules in [5, 15] {
        let run = RefCell::new(Run::of(rules)?);
        let mut contestants = Vec::new();
        for spread in [Spread::Uniform, Spread::Zipf] {
            let (run, mut seed) = (&run, 0);
            contestants.push(Contestant::new(name(rules, spread), move || {
                seed += 1;
                let clients = clients(spread, CLIENTS, EVENTS, seed);
                let run = &mut *run.borrow_mut();
                let begun = Instant::now();
                let refused = run.ask(clients.into_iter());
                let taken_s = begun.elapsed().as_secs_f64();
                ensure!(refused == 0, "{refused} were refused, which count nowhere");
                let (bytes, keys) = super::held(&run.engine);
                Ok(vec![
                    EVENTS as f64 / taken_s / 1e6,
                    bytes as f64 / keys as f64,
                ])
            }));
        }
        let series = interleave(contestants, rounds)?;
        let of = |series| Row::of(series, 2, vec![None; super::COLUMNS.len() - 2]);
        rows.extend(series.iter().map(of));
    }
    Ok(rows)
}

fn name(rules: usize, spread: Spread) -> String {
    let spread = match spread {
        Spread::Uniform => "uniform",
        Spread::Zipf => "Zipf",
    };
    format!("{rules} rules, {CLIENTS} keys each, {spread}")
}
