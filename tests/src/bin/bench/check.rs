//! Section `check`: what asking limiter about each request costs: nginx, HAProxy, and whoever asks
//! `/check` itself; and what those who are slow, or are refused again and again, do to it.
//!
//! Servers, limiter's processes among them, are on the first CPU; who asks them, and the
//! application behind them, on the last.

mod alone;
mod front;
mod haproxy;
mod policy;
mod refused;
mod slow;
mod tables;

use crate::{
    report::Table,
    rounds::{Contestant, Series, interleave},
};
use alone::{Ceiling, Question};
use anyhow::{Result, ensure};
use front::Front;
use haproxy::Balancer;
use policy::Port;
use std::cell::Cell;

/// The parts, and which of them gives how many series.
const PARTS: [(&str, usize); 5] = [
    ("nginx", 4),
    ("haproxy", 2),
    ("refused", 1),
    ("slow", 1),
    ("alone", 1 + Question::ALL.len()),
];

/// Measures those parts whose names contain `only`; this thread is on the servers' CPU.
pub(crate) fn run(rounds: usize, last: usize, only: &str) -> Result<Vec<Table>> {
    ensure!(last > 0, "two CPUs are needed");
    let parts: Vec<_> = PARTS
        .into_iter()
        .filter(|(name, _)| name.contains(only))
        .collect();
    let rig = &Rig::new(last)?;
    let rates = &Default::default();
    let contestants = parts.iter().flat_map(|(name, _)| match *name {
        "nginx" => rig.nginx(rates),
        "haproxy" => rig.haproxy(),
        "refused" => vec![rig.contestant("refused", |rig| refused::measure(&rig.tcp, rig.last))],
        "slow" => vec![rig.contestant("slow", |rig| slow::measure(&rig.tcp, rig.last))],
        _ => rig.alone(),
    });
    let mut series = interleave(contestants.collect(), rounds)?.into_iter();
    let tables = parts.iter().map(|(name, count)| {
        let own: Vec<Series> = series.by_ref().take(*count).collect();
        match *name {
            "nginx" => tables::nginx(&own[..3], &own[3]),
            "haproxy" => tables::haproxy(&own),
            "refused" => tables::refused(&own),
            "slow" => tables::slow(&own),
            _ => tables::alone(&own),
        }
    });
    Ok(tables.collect())
}

/// All servers.
struct Rig {
    bare: Front,
    tcp: Front,
    unix: Front,
    own: Balancer,
    asking: Balancer,
    ceiling: Ceiling,
    /// The CPU of who asks.
    last: usize,
}

/// What each of the three with nginx reached last.
type Rates = [Cell<f64>; 3];

impl Rig {
    fn new(last: usize) -> Result<Self> {
        Ok(Self {
            bare: Front::bare(last)?,
            tcp: Front::guarded(last, Port::Tcp)?,
            unix: Front::guarded(last, Port::Unix)?,
            own: Balancer::own(last)?,
            asking: Balancer::asking(last)?,
            ceiling: Ceiling::new()?,
            last,
        })
    }

    fn contestant<'a>(
        &'a self,
        name: &str,
        measure: impl Fn(&'a Self) -> Result<Vec<f64>> + 'a,
    ) -> Contestant<'a> {
        Contestant::new(name, move || measure(self))
    }

    fn nginx<'a>(&'a self, rates: &'a Rates) -> Vec<Contestant<'a>> {
        let fronts = [
            ("nginx with limit_req", &self.bare),
            ("nginx asks limiter", &self.tcp),
            ("nginx asks limiter, Unix socket", &self.unix),
        ];
        let saturated = fronts.into_iter().zip(rates).map(|((name, front), rate)| {
            self.contestant(name, move |rig| {
                let measured = front.saturate(rig.last)?;
                rate.set(measured[0]);
                Ok(measured)
            })
        });
        let half = self.contestant("half", move |rig| {
            let slowest = rates.iter().map(Cell::get).fold(f64::INFINITY, f64::min);
            ensure!(slowest > 0.0, "nothing to take the half of");
            let mut figures = vec![slowest / 2.0];
            for (_, front) in fronts {
                figures.extend(front.latencies(slowest / 2.0, rig.last)?);
            }
            Ok(figures)
        });
        saturated.chain([half]).collect()
    }

    fn haproxy(&self) -> Vec<Contestant<'_>> {
        vec![
            self.contestant("HAProxy's stick-table", |rig| rig.own.saturate(rig.last)),
            self.contestant("HAProxy asks limiter", |rig| rig.asking.saturate(rig.last)),
        ]
    }

    fn alone(&self) -> Vec<Contestant<'_>> {
        let questions = Question::ALL.into_iter().map(|question| {
            self.contestant(question.name(), move |rig| {
                alone::measure(&rig.tcp, question, rig.last)
            })
        });
        let ceiling = self.contestant("nginx answers 204 itself", |rig| {
            rig.ceiling.measure(rig.last)
        });
        [ceiling].into_iter().chain(questions).collect()
    }
}
