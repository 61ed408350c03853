//! Section `flood`: packets a second that are disposed of on a pair of virtual
//! interfaces, by limiter and its peers.

use crate::{
    guards::{DropAll, Filter, Hashlimit, Nftables},
    limiter::Limiter,
    others::XdpFilter,
    policies::Shape,
    report::{Column, Row, Table},
    rig::{Attack, Guard, Rig, SECONDS},
    rounds::{Contestant, Series, interleave},
};
use anyhow::Result;
use std::cell::RefCell;

/// A guard with the attacks that it is measured under.
struct Entrant {
    name: &'static str,
    guard: RefCell<Box<dyn Guard>>,
    attacks: &'static [Attack],
}

/// Measures every guard under each of its attacks.
pub(crate) fn run(rounds: usize) -> Result<Table> {
    let rig = Rig::build()?;
    let rig = &rig;
    let entrants = entrants()?;
    let mut names = Vec::new();
    let mut contestants = Vec::new();
    for entrant in &entrants {
        for &attack in entrant.attacks {
            names.push((entrant.name, attack));
            let name = format!("{}: {}", entrant.name, attack.name());
            let guard = &entrant.guard;
            contestants.push(Contestant::new(name, move || {
                rig.attack(&mut **guard.borrow_mut(), attack)
            }));
        }
    }
    let series = interleave(contestants, rounds)?;
    Ok(Table {
        section: "flood",
        title: format!("packets a second, {SECONDS} s for each attack"),
        columns: vec![
            Column::new("disposed of", 0),
            Column::new("dropped", 0),
            Column::new("passed", 0),
            Column::new("× its 1 source", 2),
        ],
        rows: rows(&series, &names),
        notes: notes(),
    })
}

fn entrants() -> Result<Vec<Entrant>> {
    let entrant = |name, guard, attacks| Entrant {
        name,
        guard: RefCell::new(guard),
        attacks,
    };
    let mut limiter = Vec::new();
    let large = Shape {
        strict: true,
        ..Shape::USUAL
    };
    for (name, shape) in [
        ("limiter, 1 limit", Shape::STRICT),
        ("limiter, large policy", large),
    ] {
        let guard: Box<dyn Guard> = Box::new(Limiter::of(&shape)?);
        limiter.push(entrant(name, guard, &Attack::ALL[..]));
    }
    let one = &Attack::ALL[..1];
    let sink = Box::new(DropAll::default());
    let mut all = vec![entrant("all dropped", sink, &Attack::ALL)];
    all.extend(limiter);
    for (name, object) in [
        ("xdp-filter -f ipv4", XdpFilter::IPV4),
        ("xdp-filter", XdpFilter::FULL),
    ] {
        all.push(entrant(name, Box::new(Filter::new(object)?), one));
    }
    all.push(entrant("nftables", Box::new(Nftables), &Attack::ALL));
    all.push(entrant(
        "iptables hashlimit",
        Box::new(Hashlimit),
        &Attack::ALL,
    ));
    Ok(all)
}

/// With the ratio of each attack to the same guard's single source.
fn rows(series: &[Series], names: &[(&str, Attack)]) -> Vec<Row> {
    let base = |guard: &str| {
        let place = names
            .iter()
            .position(|name| *name == (guard, Attack::One))?;
        series.get(place)
    };
    let rows = series.iter().zip(names);
    rows.map(|(own, (guard, _))| {
        let ratio = base(guard).and_then(|base| own.ratio(0, base));
        Row::of(own, 3, vec![ratio])
    })
    .collect()
}

fn notes() -> Vec<String> {
    [
        "60-byte TCP ACKs of no connection, right checksums, unpaced, from one core; the receiver \
         has another (threaded NAPI); every row's guard counted what the driver received",
        "what passes goes on to the host's stack and is dropped there, in prerouting: to answer it with \
         a reset would cost more than any guard; 2³² at random: all that IPv4 has",
        "limiter: natively attached, 65,536 sources tracked, a packet a minute for each; large \
         policy: the networks, blocks and limits of section `cost`",
        "xdp-filter: as in section `cost`, the source filtered; it knows no limits",
        "nftables: netdev ingress, dynamic set; hashlimit: raw PREROUTING; both a packet a minute \
         for each source, room for 65,536 sources or, for many, 1,048,576, made anew each time",
    ]
    .map(str::to_owned)
    .to_vec()
}
