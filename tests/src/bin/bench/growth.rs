//! Section `growth`: what a packet costs as lists, limits and tables grow, by
//! `BPF_PROG_TEST_RUN`.

use crate::{
    frames::{self, Case},
    limiter::{Limiter, PASS},
    others::Other,
    policies::Shape,
    report::{Column, Row, Table},
    rounds::{Contestant, interleave},
};
use anyhow::Result;

/// The first of the sources that fill tables; none of them is listed.
const FIRST: u32 = 64 << 24;
/// Room for a million sources: an LRU map evicts before it is quite full.
const MILLION: u32 = 1_200_000;

/// Measures; `packets` in each round and row.
pub(crate) fn run(rounds: usize, packets: u32) -> Result<Table> {
    let frame = frames::passing();
    let mut notes = vec![
        "the first row of section `cost` unless said otherwise; all packets passed".to_owned(),
    ];
    let hot = hot(&mut notes)?;
    let rotating = rotating()?;
    let mut contestants: Vec<Contestant<'_>> = hot
        .iter()
        .map(|(name, limiter)| {
            let frame = &frame;
            Contestant::new(*name, move || {
                Ok(vec![limiter.time(frame, packets, EXPECTED)?])
            })
        })
        .collect();
    contestants.extend(rotating.iter().map(|one| {
        let frame = &frame;
        Contestant::new(one.name, move || Ok(vec![one.time(frame, packets)?]))
    }));
    let series = interleave(contestants, rounds)?;
    notes.push(
        "rotating: a program gives each packet the next source and hands it on, which the rows of \
         the floor and of the bare program contain too"
            .to_owned(),
    );
    let first = &series[0];
    Ok(Table {
        section: "growth",
        title: format!("nanoseconds a packet, mean of {packets}"),
        columns: vec![Column::new("ns", 0), Column::new("× first row", 2)],
        rows: series
            .iter()
            .map(|own| Row::of(own, 1, vec![own.ratio(0, first)]))
            .collect(),
        notes,
    })
}

const EXPECTED: &str = "pass limit web";

/// Programs that see one source, a known one.
fn hot(notes: &mut Vec<String>) -> Result<Vec<(&'static str, Limiter)>> {
    let usual = Shape::USUAL;
    let lists = |allow, deny| Shape {
        allow,
        deny,
        ..usual
    };
    let limits = |limits| Shape { limits, ..usual };
    let shapes = [
        ("11,000 networks, 16 limits, 1 source", usual, 0),
        ("10 networks", lists(1, 9), 0),
        ("1,000 networks", lists(100, 900), 0),
        ("100,000 networks", lists(10_000, 90_000), 0),
        ("1 limit", limits(1), 0),
        ("256 limits", limits(256), 0),
        ("1,000 sources tracked", usual, 1_000),
        (
            "1,000,000 sources tracked",
            Shape {
                sources: MILLION,
                ..usual
            },
            1_000_000,
        ),
    ];
    let mut all = Vec::new();
    for (name, shape, tracked) in shapes {
        crate::interrupt::check()?;
        let limiter = Limiter::of(&shape)?;
        if tracked > 0 {
            let id = limiter.plane.program_id()?;
            Other::rotating(FIRST, tracked, false, id)?.run(&frames::passing(), tracked)?;
            let found = limiter.plane.sources()?.len();
            notes.push(format!("{name}: {found} in the table"));
        }
        first_case(&shape)?.warm(&limiter)?;
        all.push((name, limiter));
    }
    Ok(all)
}

fn first_case(shape: &Shape) -> Result<Case> {
    Ok(frames::cases(shape)?.swap_remove(0))
}

/// A program that sees many sources.
struct Rotation {
    name: &'static str,
    rotate: Other,
    target: Target,
}

enum Target {
    Limiter(Box<Limiter>),
    Other(Other),
}

impl Rotation {
    fn new(name: &'static str, count: u32, random: bool, mut target: Target) -> Result<Self> {
        let id = match &mut target {
            Target::Limiter(limiter) => limiter.plane.program_id()?,
            Target::Other(other) => other.id()?,
        };
        let rotate = Other::rotating(FIRST, count, random, id)?;
        // Known as far as the table reaches.
        rotate.run(&frames::passing(), count.min(1 << 20))?;
        Ok(Self {
            name,
            rotate,
            target,
        })
    }

    fn time(&self, frame: &[u8], packets: u32) -> Result<f64> {
        match &self.target {
            Target::Limiter(limiter) => {
                limiter.check(packets, EXPECTED, || self.rotate.run(frame, packets))
            }
            Target::Other(_) => self.rotate.time(frame, packets, PASS),
        }
    }
}

fn rotating() -> Result<Vec<Rotation>> {
    let own = |name| Other::own(name).map(Target::Other);
    let limiter = |sources| -> Result<Target> {
        let shape = Shape {
            sources,
            ..Shape::USUAL
        };
        Ok(Target::Limiter(Box::new(Limiter::of(&shape)?)))
    };
    let usual = Shape::USUAL.sources;
    let new = Rotation::new;
    Ok(vec![
        new("rotating: floor", 1_000, false, own("floor")?)?,
        new("rotating: bare, 1,000 sources", 1_000, false, own("bare")?)?,
        new(
            "rotating: bare, 50,000 sources",
            50_000,
            false,
            own("bare")?,
        )?,
        new("rotating: bare, 2³⁰ at random", 1 << 30, true, own("bare")?)?,
        new("rotating: 1,000 sources", 1_000, false, limiter(usual)?)?,
        new("rotating: 50,000 sources", 50_000, false, limiter(usual)?)?,
        new(
            "rotating: 1,000,000 sources, room for all",
            1_000_000,
            false,
            limiter(MILLION)?,
        )?,
        new(
            "rotating: 1,000,000 sources, room for 65,536",
            1_000_000,
            false,
            limiter(usual)?,
        )?,
        new(
            "rotating: 2³⁰ at random, room for 65,536",
            1 << 30,
            true,
            limiter(usual)?,
        )?,
    ])
}
