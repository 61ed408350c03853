//! Section `logs`: lines a second from a log that is followed to a decision, beside fail2ban
//! and CrowdSec.

use crate::{
    crowdsec::CrowdSec,
    fail2ban::{Backend, Dates, Fail2ban, Jail},
    followers::follow,
    report::{Column, Row, Table},
    rounds::{Contestant, Series, interleave},
    watch::{self, Watch},
};
use anyhow::Result;
use std::path::Path;

/// Lines for each, so that a round of it takes some seconds.
const FOR_DETECTING: usize = 20_000;
const FOR_FAIL2BAN: usize = 200_000;
const FOR_CROWDSEC: usize = 20_000;
const FOR_LIMITER: usize = 2_000_000;

/// Measures everybody on a log and processes of their own.
pub(crate) fn run(rounds: usize) -> Result<Table> {
    let fail2ban = |lines, backend, dates| {
        let jail = Jail { backend, dates };
        let start = move |log: &Path| Fail2ban::start(jail, log);
        Contestant::new(jail.name(), move || follow(lines, start))
    };
    let contestants = vec![
        fail2ban(FOR_DETECTING, Backend::Inotify, Dates::Detected),
        fail2ban(FOR_FAIL2BAN, Backend::Inotify, Dates::Placed),
        fail2ban(FOR_FAIL2BAN, Backend::Polling, Dates::Placed),
        Contestant::new("CrowdSec", || follow(FOR_CROWDSEC, CrowdSec::start)),
        Contestant::new("limiter: the daemon follows", || {
            follow(FOR_LIMITER, Watch::start)
        }),
        Contestant::new("limiter explain --events", || watch::explain(FOR_LIMITER)),
    ];
    let series = interleave(contestants, rounds)?;
    let others = [0, 1, 3].map(|place| &series[place]);
    let row = |own: &Series| {
        let ratios = others.map(|other| own.ratio(0, other));
        Row::of(own, 2, ratios.to_vec())
    };
    Ok(Table {
        section: "logs",
        title: "nginx's access log: lines a second, until every offender is banned".to_owned(),
        columns: vec![
            Column::new("lines /s", 0),
            Column::new("lines /s of a CPU", 0),
            Column::new("× the first", 1),
            Column::new("× the second", 1),
            Column::new("× CrowdSec", 1),
        ],
        rows: series.iter().map(row).collect(),
        notes: notes(),
    })
}

fn notes() -> Vec<String> {
    [
        "the log grows at once by 200,000 lines for fail2ban (20,000 where it detects dates), 20,000 \
         for CrowdSec, 2,000,000 for limiter, while it is followed: from the first byte written until the last offender is \
         banned, which is for the last line; of a CPU: by the time of all its processes",
        "1 line of 100 is a 401 for POST /login: one source of 1,000 lines fails six times and is \
         banned for an hour after five, another fails four times and is not; the other lines are \
         200s of 50,000 sources by Zipf's law. In every round those who offend are banned and \
         nobody else, and all lines (of fail2ban, which does not count those: all failures) heard",
        "fail2ban: one jail, `backend = pyinotify` unless said, an action that appends to a file; \
         dates detected: a filter without `datepattern`, as its manual begins; the second as the \
         package's filter of nginx's access log. CrowdSec: the package's parsers of nginx's log, a leaky bucket that overflows at the \
         fifth, decisions in its local API; nothing of either goes out",
        "limiter: the daemon with its block in the tables of an interface; explain: the command \
         from its start to its end, of a file by the file's own clock",
    ]
    .map(str::to_owned)
    .to_vec()
}
