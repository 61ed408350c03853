//! Section `audit`: rows of the audit log written a second, and what questions to ten million
//! of them take.

use crate::{
    dice::Dice,
    interrupt,
    report::{Column, Row, Table},
    rounds::{Contestant, Figure, interleave},
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{process::Scratch, wait};
use limiter_user::{
    engine::{Cause, Change, What},
    keeper::{Now, records::Records as _},
    policy::Action,
    store::{
        Store,
        audit::{Audit, Field, Filter, Kind, Reader},
    },
};
use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

const ROWS: usize = 10_000_000;
/// Rows of which the time is taken.
const PART: usize = 1_000_000;
const DAY: Duration = Duration::from_hours(24);
/// What the rows are spread over, and what is asked about.
const DAYS: u32 = 30;
const ASKED: u32 = 7;
/// Accounts, and as many sources, by Zipf's law.
const MANY: u32 = 1_000_000;
/// Rows handed over at once, and how many may wait then: the log holds 65,536.
const BATCH: usize = 1_024;
const MOST_WAITING: usize = 32_768;
const PAUSE: Duration = Duration::from_micros(200);
/// Long enough for any answer.
const LATE: Duration = Duration::from_secs(60);

/// Writes the rows once, and asks again and again.
pub(crate) fn run(rounds: usize) -> Result<Table> {
    let scratch = Scratch::new()?;
    let directory = scratch.path("state");
    std::fs::create_dir(&directory).context("making a directory")?;
    let now = SystemTime::now();
    let rates = write(&directory, now)?;
    let bytes = std::fs::metadata(directory.join("limiter.db")).map_or(0, |it| it.len());
    let reader = Reader::open(&directory, LATE).context("opening the log")?;
    let log = &RefCell::new(reader);
    let all = log.borrow_mut().count(&Filter::default())?;
    ensure!(
        all.count == ROWS as u64,
        "{} of {ROWS} rows are there",
        all.count
    );

    let since = Some(now - DAY * ASKED);
    let mut contestants = Vec::new();
    for (rank, what) in [
        (1, "the first of all"),
        (100, "the 100th"),
        (10_000, "the 10,000th"),
    ] {
        let filter = Filter {
            account: Some(account(rank - 1)),
            kind: Some(Kind::Counted),
            since,
            ..Filter::default()
        };
        let name = format!("failures of an account in a week: {what}");
        contestants.push(Contestant::new(name, move || {
            timed(|| Ok(log.borrow_mut().count(&filter)?.count))
        }));
    }
    for by in [Field::Source, Field::Path] {
        let filter = Filter {
            action: Some(Action::Reject),
            since,
            ..Filter::default()
        };
        let name = format!("a week's refusals by {}", by.name());
        contestants.push(Contestant::new(name, move || {
            timed(|| Ok(log.borrow_mut().top(&filter, by, 10)?.count))
        }));
    }
    let series = interleave(contestants, rounds)?;
    let mut rows = vec![Row {
        name: "written".to_owned(),
        figures: vec![Figure::of(rates), None, None],
        fault: None,
    }];
    rows.extend(series.iter().map(|own| {
        let mut figures = vec![None];
        figures.extend([own.figure(0), own.figure(1)]);
        Row {
            name: own.name.clone(),
            figures,
            fault: own.fault(),
        }
    }));
    Ok(Table {
        section: "audit",
        title: "the audit log: ten million rows of thirty days".to_owned(),
        columns: vec![
            Column::new("rows /s", 0),
            Column::new("ms", 1),
            Column::new("what they count", 0),
        ],
        rows,
        notes: vec![
            "rows: failures of a million accounts and sources, both by Zipf's law, one of ten a \
             refusal; written one time, and the figure is that of its ten millions, the last with \
             the wait until all are on the disk; every row is found again"
                .to_owned(),
            format!("the file has {} MiB", bytes >> 20),
        ],
    })
}

/// Milliseconds, and what the answer counts.
fn timed(ask: impl FnOnce() -> Result<u64>) -> Result<Vec<f64>> {
    let began = Instant::now();
    let count = ask()?;
    let lasted = began.elapsed();
    ensure!(count > 0, "nothing was found");
    Ok(vec![lasted.as_secs_f64() * 1e3, count as f64])
}

/// Writes every row; returns the rate of each part.
fn write(directory: &Path, now: SystemTime) -> Result<Vec<f64>> {
    let mut store = Store::open(directory, Now::read()).context("opening the store")?;
    // The first look says whether there is a database at all.
    let _saved = store.saved();
    let audit = store.audit();
    let began = now - DAY * DAYS;
    let mut rows = Rows::new(began, now)?;
    let mut rates = Vec::new();
    for part in 0..ROWS / PART {
        eprint!("\r{part} million rows ");
        interrupt::check()?;
        let before = Instant::now();
        let mut left = PART;
        while left > 0 {
            let batch = left.min(BATCH);
            audit.record((0..batch).map(|_| rows.next_row()));
            left -= batch;
            pace(
                &audit,
                if left == 0 && part + 1 == ROWS / PART {
                    0
                } else {
                    MOST_WAITING
                },
            )?;
        }
        rates.push(PART as f64 / before.elapsed().as_secs_f64());
    }
    eprintln!();
    let health = audit.health();
    ensure!(health.dropped == 0, "{} rows found no room", health.dropped);
    drop(store);
    Ok(rates)
}

/// Waits until no more rows wait than that, and they are on the disk if none may.
fn pace(audit: &Audit, most: usize) -> Result<()> {
    if most == 0 {
        let mut written = audit.written();
        return wait::until("the rows on the disk", LATE, || match written.try_recv() {
            Ok(told) => told.map(Some).map_err(anyhow::Error::msg),
            Err(_) => Ok(None),
        });
    }
    loop {
        let health = audit.health();
        if let Some(trouble) = health.trouble {
            anyhow::bail!("the log is not written: {trouble}");
        }
        if health.waiting <= most {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

/// Rows in the order of their times.
struct Rows {
    dice: Dice,
    rule: Arc<str>,
    at_ns: u64,
    step_ns: u64,
    number: u64,
}

impl Rows {
    fn new(began: SystemTime, ends: SystemTime) -> Result<Self> {
        let nanos = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH)?;
            Ok::<_, anyhow::Error>(u64::try_from(since.as_nanos())?)
        };
        Ok(Self {
            dice: Dice::new(),
            rule: "login".into(),
            at_ns: nanos(began)?,
            step_ns: (nanos(ends)? - nanos(began)?) / ROWS as u64,
            number: 0,
        })
    }

    fn next_row(&mut self) -> Change {
        self.number += 1;
        self.at_ns += self.step_ns;
        let (source, of) = (self.dice.zipf(MANY), self.dice.zipf(MANY));
        let what = match self.number % 10 {
            0 => What::Refused {
                reason: None,
                action: Action::Reject,
                simulated: false,
            },
            _ => What::Counted,
        };
        Change {
            at_ns: self.at_ns,
            rule: Arc::clone(&self.rule),
            key: u128::from(of),
            part: 0,
            what,
            event: Some(Cause {
                source: IpAddr::from(Ipv4Addr::from_bits(100 << 24 | source)),
                account: Some(account(of).into()),
                path: Some(format!("/login/{}", self.number % 50).into()),
                status: Some(401),
                owner: None,
            }),
        }
    }
}

fn account(rank: u32) -> String {
    format!("user{rank}@example.com")
}
