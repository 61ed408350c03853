//! Lists, gates and destinations as one set of networks, each of which says
//! all by itself.
//!
//! A packet makes one look-up and gets the longest match. So what shorter
//! networks say is worked into the longer ones here, and a source whose
//! addresses differ is marked, so that no entry remembers for all of them what
//! holds for one.

use super::{classes::set_bit, network_parts};
use crate::policy::Edge;
use ipnet::IpNet;
use limiter_common::{
    address::{Address, Family},
    layout::{ALLOW, DENY, Kind, LIMITS, Network, SPLIT},
};
use std::collections::{BTreeMap, HashMap};

/// Source prefix lengths: how many bits of an address an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// `ipv4_prefix`.
    pub ipv4: u32,
    /// `ipv6_prefix`.
    pub ipv6: u32,
}

/// A network of the trie: what it is matched against, its first address, its
/// prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkEntry {
    /// Source or destination.
    pub kind: Kind,
    /// The first address.
    pub address: Address,
    /// Its length in bits, the tag not counted.
    pub prefix: u32,
}

/// All networks of a policy.
pub type Networks = HashMap<NetworkEntry, Network>;

/// Flattens the lists, the gates of limits (by slot) and the destinations of
/// limits (by rank).
pub(super) fn flatten(edge: &Edge, allow: &[IpNet], deny: &[IpNet], assigned: &[u8]) -> Networks {
    let prefixes = Prefixes {
        ipv4: edge.ipv4_prefix.into(),
        ipv6: edge.ipv6_prefix.into(),
    };
    let mut sources = Level::new(Kind::Source);
    for network in allow {
        sources.at(network).flags |= ALLOW;
    }
    for network in deny {
        sources.at(network).flags |= DENY;
    }
    let mut destinations = Level::new(Kind::Destination);
    let mut anywhere = [0; LIMITS / 64];
    for (rank, (limit, slot)) in edge.limits.iter().zip(assigned).enumerate() {
        for network in limit.from.iter().flatten() {
            set_bit(&mut sources.at(network).limits, usize::from(*slot));
        }
        for network in &limit.to {
            set_bit(&mut destinations.at(network).limits, rank);
        }
        if limit.to.is_empty() {
            set_bit(&mut anywhere, rank);
        }
    }
    sources.mark_split(prefixes);
    let top = Network {
        flags: 0,
        limits: anywhere,
    };
    let mut all = sources.inherit(Network::default());
    all.extend(destinations.inherit(top));
    all
}

/// Networks of one kind, in the order in which a network comes just before
/// those inside it.
struct Level {
    kind: Kind,
    networks: BTreeMap<(Address, u32), Network>,
}

impl Level {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            networks: BTreeMap::new(),
        }
    }

    fn at(&mut self, network: &IpNet) -> &mut Network {
        self.networks.entry(network_parts(network)).or_default()
    }

    /// Marks what is longer than a source, and the source around it.
    fn mark_split(&mut self, prefixes: Prefixes) {
        let longer: Vec<_> = self
            .networks
            .keys()
            .copied()
            .filter(|(address, prefix)| *prefix > prefixes.of(address.family))
            .collect();
        for (address, prefix) in longer {
            let source = prefixes.of(address.family);
            self.networks.entry((address, prefix)).or_default().flags |= SPLIT;
            let around = (address.masked(source), source);
            self.networks.entry(around).or_default().flags |= SPLIT;
        }
    }

    /// Works what each network's surroundings say into it.
    fn inherit(self, top: Network) -> Networks {
        let mut around: Vec<(Address, u32, Network)> = Vec::new();
        let mut all = HashMap::with_capacity(self.networks.len());
        for ((address, prefix), own) in self.networks {
            while let Some((outer, outer_prefix, _)) = around.last() {
                if address.masked(*outer_prefix) == *outer {
                    break;
                }
                around.pop();
            }
            let inherited = around.last().map_or(top, |(_, _, network)| *network);
            let network = merge(own, inherited);
            around.push((address, prefix, network));
            let entry = NetworkEntry {
                kind: self.kind,
                address,
                prefix,
            };
            all.insert(entry, network);
        }
        all
    }
}

fn merge(own: Network, inherited: Network) -> Network {
    let mut limits = own.limits;
    for (word, outer) in limits.iter_mut().zip(inherited.limits) {
        *word |= outer;
    }
    Network {
        // What is split inside a network says nothing about a part of it.
        flags: own.flags | inherited.flags & !SPLIT,
        limits,
    }
}

impl Prefixes {
    /// That of `family`.
    pub const fn of(self, family: Family) -> u32 {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}
