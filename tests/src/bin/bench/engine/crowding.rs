//! What stands when ten million keys are thrown at a table of 100,000.

use super::traffic::address;
use crate::interrupt;
use crate::report::Row;
use anyhow::Result;
use limiter_user::engine::Engine;
use limiter_user::event::{Event, Outcome};
use std::time::Instant;

const THROWN: u32 = 10_000_000;
/// Accounts that are locked before.
const LOCKED: u32 = 1_000;
const NOW_NS: u64 = 1_700_000_000_000_000_000;

/// The lock-out of an account, as the presets have it.
const RULES: &str = "[decide]
[[rule]]
name = 'lock'
requests = ['POST /login']
count = 'failures'
failure = { statuses = [401] }
key = ['account']
action = 'reject'
ladder = [
  { limit = 5, period = '5m', for = '15m' },
  { limit = 5, period = '1h', for = '1h' },
]
tracked = 100_000
";

pub(super) const NOTES: &[&str] = &[
    "thrown: one failed login each of ten million accounts, from one source or from a million, at a rule that \
     tracks 100,000; MiB: by what its tables have allocated when 200,000 were thrown and at the end; \
     actions kept: of 1,000 accounts that were locked before; victim's count: of 4 failures of an account \
     from a source of its own, counted again by how many more it takes to lock it",
];

pub(super) fn rows() -> Result<Vec<Row>> {
    let ways = [("one source", 1), ("a million sources", 1_000_000)];
    ways.into_iter()
        .map(|(name, sources)| crowd(name, sources))
        .collect()
}

fn crowd(name: &str, sources: u32) -> Result<Row> {
    let mut engine = super::engine(RULES)?;
    // None of them throws.
    let (owner, judge) = (0x0100_0000, 0x0100_0001);
    for account in 0..LOCKED {
        fail(
            &mut engine,
            &format!("locked {account}"),
            owner - account,
            5,
        );
    }
    fail(&mut engine, "victim", owner, 4);
    let mut at_the_cap = 0;
    let mut account = String::new();
    let begun = Instant::now();
    for number in 0..THROWN {
        if number % 100_000 == 0 {
            interrupt::check()?;
        }
        if number == 200_000 {
            at_the_cap = super::held(&engine).0;
        }
        account.clear();
        account.push_str("thrown ");
        account.push_str(&number.to_string());
        fail(&mut engine, &account, number % sources, 1);
    }
    let taken_s = begun.elapsed().as_secs_f64();
    let (after, _) = super::held(&engine);
    let kept = (0..LOCKED).filter(|account| {
        let login = login(&format!("locked {account}"), judge);
        engine.ask(&login, NOW_NS).refuses()
    });
    let kept = kept.count() as f64;
    let needed = (1..=5).find(|_| {
        fail(&mut engine, "victim", judge, 1);
        engine.ask(&login("victim", judge), NOW_NS).refuses()
    });
    let counted = needed.map_or(0, |needed| 5 - needed);
    let mib = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
    Ok(super::row(
        &format!("10 M accounts thrown from {name}"),
        [
            Some(f64::from(THROWN) / taken_s / 1e6),
            None,
            mib(at_the_cap),
            mib(after),
            Some(kept),
            Some(f64::from(counted)),
        ],
    ))
}

/// Reports failed logins of an account, and takes what is to be written down.
fn fail(engine: &mut Engine, account: &str, client: u32, count: usize) {
    let mut event = login(account, client);
    event.outcome = Some(Outcome::Failure);
    for _ in 0..count {
        engine.report(&event, NOW_NS);
        engine.changes();
    }
}

fn login(account: &str, client: u32) -> Event {
    let mut event = Event::of(address(client));
    event.method = Some("POST".into());
    event.path = Some("/login".into());
    event.account = Some(account.into());
    event
}
