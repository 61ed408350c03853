//! Section `cost`: nanoseconds a packet, by `BPF_PROG_TEST_RUN`.

use crate::{
    frames::{self, Case},
    limiter::{DROP, Limiter, PASS},
    others::{Other, XdpFilter},
    policies::Shape,
    report::{Column, Row, Table},
    rounds::{Contestant, Series, interleave},
    verifier,
};
use anyhow::Result;

// What limiter is compared with; of xdp-filter the row that passes comes first.
const FLOOR: &str = "floor: Ethernet and IPv4 read";
const BARE: &str = "bare: and one per-CPU LRU entry counted";
const FILTER: [&str; 2] = ["xdp-filter -f ipv4: passes", "xdp-filter -f ipv4: drops"];
const FULL: [&str; 2] = ["xdp-filter: passes", "xdp-filter: drops"];

/// Measures; `packets` in each round and row.
pub(crate) fn run(rounds: usize, packets: u32) -> Result<Table> {
    let shape = Shape::USUAL;
    let mut limiter = Limiter::of(&shape)?;
    let verified = verifier::note(&mut limiter)?;
    let cases = frames::cases(&shape)?;
    for case in &cases {
        case.warm(&limiter)?;
    }
    let frame = frames::passing();
    let [floor, bare] = [Other::own("floor")?, Other::own("bare")?];
    let filters = Filters::load()?;
    let mut contestants = vec![
        Contestant::new(FLOOR, || Ok(vec![floor.time(&frame, packets, PASS)?])),
        Contestant::new(BARE, || Ok(vec![bare.time(&frame, packets, PASS)?])),
    ];
    contestants.extend(filters.contestants(&frame, packets));
    let limiter = &limiter;
    contestants.extend(cases.iter().map(|case| {
        Contestant::new(format!("limiter: {}", case.name), move || {
            Ok(vec![limiter.time(&case.frame, packets, case.expected)?])
        })
    }));
    let beside = contestants.len() - cases.len();
    let series = interleave(contestants, rounds)?;
    Ok(Table {
        section: "cost",
        title: format!("nanoseconds a packet, mean of {packets}"),
        columns: vec![
            Column::new("ns", 0),
            Column::new("× xdp-filter -f ipv4", 2),
            Column::new("× bare", 2),
            Column::new("× first of limiter", 2),
        ],
        rows: rows(&series, beside, &cases),
        notes: notes(&shape, verified),
    })
}

/// xdp-filter in two sizes, each with another source filtered and with the
/// frame's own.
struct Filters([[XdpFilter; 2]; 2]);

impl Filters {
    fn load() -> Result<Self> {
        let both = |name| -> Result<_> {
            Ok([
                XdpFilter::new(name, frames::STRANGER)?,
                XdpFilter::new(name, frames::SOURCE)?,
            ])
        };
        Ok(Self([both(XdpFilter::IPV4)?, both(XdpFilter::FULL)?]))
    }

    fn contestants<'a>(&'a self, frame: &'a [u8], packets: u32) -> Vec<Contestant<'a>> {
        let names = [FILTER, FULL].into_iter().flatten();
        let filters = self
            .0
            .iter()
            .flatten()
            .zip([PASS, DROP].into_iter().cycle());
        let one = |(name, (filter, action)): (&str, (&'a XdpFilter, u32))| {
            Contestant::new(name, move || Ok(vec![filter.time(frame, packets, action)?]))
        };
        names.zip(filters).map(one).collect()
    }
}

/// With ratios for limiter's rows: to xdp-filter where it gives the same
/// verdict.
fn rows(series: &[Series], beside: usize, cases: &[Case]) -> Vec<Row> {
    let named = |name: &str| series.iter().find(|it| it.name == name);
    let (others, ours) = series.split_at(beside);
    let ratio = |own: &Series, other: Option<&Series>| own.ratio(0, other?);
    let mut rows: Vec<Row> = others
        .iter()
        .map(|it| Row::of(it, 1, vec![None; 3]))
        .collect();
    rows.extend(ours.iter().zip(cases).map(|(own, case)| {
        let same_verdict = FILTER[usize::from(case.expected.starts_with("drop"))];
        let more = vec![
            ratio(own, named(same_verdict)),
            ratio(own, named(BARE)),
            ratio(own, ours.first()),
        ];
        Row::of(own, 1, more)
    }));
    rows
}

fn notes(shape: &Shape, verified: String) -> Vec<String> {
    vec![
        format!(
            "limiter: {} allowed and {} denied networks, {} blocks, {} limits, {} sources tracked \
             at most; limits on packets, bytes and connections",
            shape.allow, shape.deny, shape.blocks, shape.limits, shape.sources
        ),
        "60-byte frames, TCP ACK where nothing else is said, from one source, on one CPU; every \
         packet met the row's verdict and reason, or the row is an error"
            .to_owned(),
        "the budgets' bursts are less than a run spends: passing shows that the clock ticked"
            .to_owned(),
        "xdp-filter: Debian's objects with one source filtered, loaded without its dispatcher"
            .to_owned(),
        "the kernel tells whole nanoseconds".to_owned(),
        verified,
    ]
}
