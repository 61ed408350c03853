//! The class table: which limits can match, by protocol and port.

use super::ImageError;
use crate::policy::{Limit, Protocol};
use limiter_common::{
    class::{CANDIDATES, CLASSES, Class, Match, Selector},
    layout::LimitSet,
};
use std::collections::HashMap;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The class table and the candidate sets that it names.
pub(super) fn build(
    limits: &[Limit],
    assigned: &[u8],
    ssh_ports: &[u16],
) -> Result<(Vec<Class>, Vec<LimitSet>), ImageError> {
    let mut sets = Sets::new(limits, assigned);
    let mut classes = vec![Class::NONE; CLASSES as usize];
    for (protocol, selector) in [
        (TCP, Selector::Tcp as fn(u16) -> Selector),
        (UDP, Selector::Udp),
    ] {
        for (port, set) in by_port(limits, protocol).into_iter().enumerate() {
            let port = port as u16;
            let spared = protocol == TCP && ssh_ports.contains(&port);
            classes[selector(port).index() as usize] = Class::new(sets.resolve(set), spared);
        }
    }
    for protocol in 0..=u8::MAX {
        let set = of(limits, |limit| concerns(limit.protocol, protocol));
        let index = Selector::Protocol(protocol).index() as usize;
        classes[index] = Class::new(sets.resolve(set), false);
    }
    let unknown = of(limits, |limit| limit.protocol == Protocol::Any);
    classes[Selector::Unknown.index() as usize] = Class::new(sets.resolve(unknown), false);
    if sets.sets.len() > CANDIDATES as usize {
        return Err(ImageError::TooManyCandidates {
            needed: sets.sets.len(),
            capacity: CANDIDATES,
        });
    }
    Ok((classes, sets.sets))
}

const fn concerns(limit: Protocol, protocol: u8) -> bool {
    match limit {
        Protocol::Tcp => protocol == TCP,
        Protocol::Udp => protocol == UDP,
        Protocol::Icmp => protocol == ICMP || protocol == ICMPV6,
        Protocol::Any => true,
    }
}

/// The limits that match each port of a protocol.
fn by_port(limits: &[Limit], protocol: u8) -> Vec<LimitSet> {
    let mut ports = vec![[0; 4]; 1 << 16];
    for (rank, limit) in limits.iter().enumerate() {
        if !concerns(limit.protocol, protocol) {
            continue;
        }
        let mut add = |range: std::ops::RangeInclusive<u16>| {
            for port in range {
                set_bit(&mut ports[usize::from(port)], rank);
            }
        };
        if limit.ports.is_empty() {
            add(0..=u16::MAX);
        } else {
            limit.ports.iter().cloned().for_each(add);
        }
    }
    ports
}

fn of(limits: &[Limit], matches: impl Fn(&Limit) -> bool) -> LimitSet {
    let mut set = [0; 4];
    for (rank, limit) in limits.iter().enumerate() {
        if matches(limit) {
            set_bit(&mut set, rank);
        }
    }
    set
}

pub(super) fn set_bit(set: &mut LimitSet, bit: usize) {
    set[bit / 64] |= 1 << (bit % 64);
}

fn ranks(set: LimitSet) -> impl Iterator<Item = usize> {
    (0..256).filter(move |rank| set[rank / 64] >> (rank % 64) & 1 == 1)
}

/// Candidate sets, each kept once.
struct Sets<'a> {
    limits: &'a [Limit],
    assigned: &'a [u8],
    sets: Vec<LimitSet>,
    resolved: HashMap<LimitSet, Match>,
}

impl<'a> Sets<'a> {
    fn new(limits: &'a [Limit], assigned: &'a [u8]) -> Self {
        Self {
            limits,
            assigned,
            sets: Vec::new(),
            resolved: HashMap::new(),
        }
    }

    /// What a class says of the limits in `set`: those behind the first one
    /// without `to` can never match.
    fn resolve(&mut self, set: LimitSet) -> Match {
        if let Some(known) = self.resolved.get(&set) {
            return *known;
        }
        let mut candidates = [0; 4];
        let mut certain = None;
        for rank in ranks(set) {
            set_bit(&mut candidates, rank);
            if self.limits[rank].to.is_empty() {
                certain = Some(rank);
                break;
            }
        }
        let matches = match certain {
            _ if candidates == [0; 4] => Match::None,
            Some(rank) if ranks(candidates).count() == 1 => {
                Match::Limit(self.assigned[rank].into())
            }
            _ => Match::Candidates(self.intern(candidates)),
        };
        self.resolved.insert(set, matches);
        matches
    }

    fn intern(&mut self, candidates: LimitSet) -> u32 {
        let place = self
            .sets
            .iter()
            .position(|known| *known == candidates)
            .unwrap_or_else(|| {
                self.sets.push(candidates);
                self.sets.len() - 1
            });
        place as u32
    }
}
