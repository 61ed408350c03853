//! Lists, gates and destinations as one set of networks, each of which says
//! all by itself.
//!
//! A packet makes one look-up and gets the longest match. So what shorter
//! networks say is worked into the longer ones here, and a source whose
//! addresses differ is marked, so that no entry remembers for all of them what
//! holds for one.
//!
//! The set follows the lists entry by entry: what an entry changes are the
//! networks inside it, which are neighbours in the set's order.

use super::{
    classes::set_bit,
    lists::{ListChange, ListKind},
    network_parts,
};
use crate::policy::Edge;
use ipnet::IpNet;
use limiter_common::{
    address::{Address, Family},
    layout::{ALLOW, DENY, Kind, LimitSet, Network, SPLIT},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

/// Source prefix lengths: how many bits of an address an entry stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// `ipv4_prefix`.
    pub ipv4: u32,
    /// `ipv6_prefix`.
    pub ipv6: u32,
}

/// A network of the trie: what it is matched against, its first address, its
/// prefix length. In order, a network comes just before those inside it.
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Networks {
    nodes: BTreeMap<NetworkEntry, Node>,
    prefixes: Prefixes,
    /// The limits, by rank, of destinations that are in no network.
    anywhere: LimitSet,
    /// Entries of the lists.
    listed: usize,
}

/// A network. It is there because it says something of its own, or because
/// the addresses of this source differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Node {
    own: Network,
    /// With what surrounds it; all zero until that was worked out.
    all: Network,
}

/// What tells one set of networks from another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// New, or changed.
    pub set: Vec<(NetworkEntry, Network)>,
    /// No longer there.
    pub gone: Vec<NetworkEntry>,
}

/// What [`Networks::change`] did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// To the networks.
    pub difference: Difference,
    /// The changes that take it back.
    pub undo: Vec<ListChange>,
}

/// Flattens the lists, the gates of limits (by slot) and the destinations of
/// limits (by rank).
pub(super) fn flatten(edge: &Edge, allow: &[IpNet], deny: &[IpNet], assigned: &[u8]) -> Networks {
    let mut networks = Networks {
        prefixes: Prefixes {
            ipv4: edge.ipv4_prefix.into(),
            ipv6: edge.ipv6_prefix.into(),
        },
        ..Networks::default()
    };
    for (list, entries) in [(ListKind::Allow, allow), (ListKind::Deny, deny)] {
        for network in entries {
            let change = ListChange {
                list,
                network: *network,
                listed: true,
            };
            networks.list(&change);
        }
    }
    for (rank, (limit, slot)) in edge.limits.iter().zip(assigned).enumerate() {
        for network in limit.from.iter().flatten() {
            let entry = NetworkEntry::new(Kind::Source, network);
            set_bit(&mut networks.own(entry).limits, usize::from(*slot));
        }
        for network in &limit.to {
            let entry = NetworkEntry::new(Kind::Destination, network);
            set_bit(&mut networks.own(entry).limits, rank);
        }
        if limit.to.is_empty() {
            set_bit(&mut networks.anywhere, rank);
        }
    }
    networks.settle_all();
    networks
}

impl Networks {
    /// What somebody wrote into the trie: networks and what they say, that of
    /// those around them worked in. It can be told from another set
    /// ([`Networks::difference`]), and not be changed: what each says of its own is
    /// not known.
    pub fn of_entries(entries: impl IntoIterator<Item = (NetworkEntry, Network)>) -> Self {
        let node = |(entry, all)| {
            let own = Network::default();
            (entry, Node { own, all })
        };
        Self {
            nodes: entries.into_iter().map(node).collect(),
            ..Self::default()
        }
    }

    /// What is said of a network that is in the set.
    pub fn get(&self, entry: &NetworkEntry) -> Option<&Network> {
        self.nodes.get(entry).map(|node| &node.all)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&NetworkEntry, &Network)> {
        self.nodes.iter().map(|(entry, node)| (entry, &node.all))
    }

    /// Entries of both lists.
    pub const fn listed(&self) -> usize {
        self.listed
    }

    /// Whether any is matched against sources.
    pub fn has_sources(&self) -> bool {
        let first = self.nodes.first_key_value();
        first.is_some_and(|(entry, _)| entry.kind == Kind::Source)
    }

    /// Puts entries on the lists or takes them off.
    pub fn change(&mut self, changes: &[ListChange]) -> Done {
        let mut done = Done::default();
        let mut touched = BTreeSet::new();
        for change in changes {
            if !self.list(change) {
                continue;
            }
            done.undo.push(ListChange {
                listed: !change.listed,
                ..*change
            });
            let entry = NetworkEntry::new(Kind::Source, &change.network);
            touched.extend([entry]);
            touched.extend(self.source_around(&entry));
        }
        // In the reverse order, so that of a change and its undoing the last
        // one undone is the first one done.
        done.undo.reverse();
        // Longer ones first: a source is there as long as one inside it is.
        for entry in touched.iter().rev() {
            if self.is_idle(entry)
                && let Some(node) = self.nodes.remove(entry)
                && node.all != Network::default()
            {
                done.difference.gone.push(*entry);
            }
        }
        let mut settled: Option<NetworkEntry> = None;
        for entry in touched {
            if settled.is_some_and(|outer| outer.contains(&entry)) {
                continue;
            }
            self.settle(&entry, &mut done.difference.set);
            settled = Some(entry);
        }
        done
    }

    /// What makes `self` of `before`.
    pub fn difference(&self, before: &Self) -> Difference {
        let mut difference = Difference::default();
        let mut old = before.iter().peekable();
        for (entry, network) in self.iter() {
            while let Some((gone, _)) = old.next_if(|(it, _)| *it < entry) {
                difference.gone.push(*gone);
            }
            let same = old.next_if(|(it, _)| *it == entry);
            if same.is_none_or(|(_, held)| held != network) {
                difference.set.push((*entry, *network));
            }
        }
        difference.gone.extend(old.map(|(gone, _)| *gone));
        difference
    }

    /// Notes what a list says; false if it said so before.
    fn list(&mut self, change: &ListChange) -> bool {
        let flag = match change.list {
            ListKind::Allow => ALLOW,
            ListKind::Deny => DENY,
        };
        let entry = NetworkEntry::new(Kind::Source, &change.network);
        let said = self.nodes.get(&entry);
        if said.is_some_and(|node| node.own.flags & flag != 0) == change.listed {
            return false;
        }
        if change.listed {
            self.own(entry).flags |= flag;
            self.listed += 1;
        } else {
            self.own(entry).flags &= !flag;
            self.listed -= 1;
        }
        true
    }

    /// What a network says of its own, which makes it one of the set, and the
    /// source around it another.
    fn own(&mut self, entry: NetworkEntry) -> &mut Network {
        if let Some(around) = self.source_around(&entry) {
            self.nodes.entry(around).or_default();
        }
        &mut self.nodes.entry(entry).or_default().own
    }

    /// The source that a network is a part of.
    fn source_around(&self, entry: &NetworkEntry) -> Option<NetworkEntry> {
        let prefix = self.prefixes.of(entry.address.family);
        (entry.kind == Kind::Source && entry.prefix > prefix).then(|| NetworkEntry {
            address: entry.address.masked(prefix),
            prefix,
            ..*entry
        })
    }

    /// Whether a network need not be in the set: it says nothing, and is no
    /// source with parts that do.
    fn is_idle(&self, entry: &NetworkEntry) -> bool {
        let said = self.nodes.get(entry);
        if said.is_none_or(|node| node.own != Network::default()) {
            return false;
        }
        let is_source =
            entry.kind == Kind::Source && entry.prefix == self.prefixes.of(entry.address.family);
        let mut next = self.nodes.range((Excluded(entry), Unbounded));
        !(is_source && next.next().is_some_and(|(next, _)| entry.contains(next)))
    }

    /// Works what surrounds them into all networks.
    fn settle_all(&mut self) {
        let tops = self.tops();
        settle(self.nodes.iter_mut(), Vec::new(), tops, &mut Vec::new());
    }

    /// Works what surrounds them into `root` and the networks inside it, and
    /// tells those of which another thing is said than before.
    fn settle(&mut self, root: &NetworkEntry, changed: &mut Vec<(NetworkEntry, Network)>) {
        let tops = self.tops();
        let around = self.above(root).into_iter().collect();
        let inside = self.nodes.range_mut(*root..);
        let inside = inside.take_while(|(entry, _)| root.contains(entry));
        settle(inside, around, tops, changed);
    }

    const fn tops(&self) -> Tops {
        Tops {
            prefixes: self.prefixes,
            anywhere: self.anywhere,
        }
    }

    /// The longest network around one.
    fn above(&self, entry: &NetworkEntry) -> Option<(NetworkEntry, Network)> {
        let mut bound = *entry;
        loop {
            let (near, node) = self.nodes.range(..bound).next_back()?;
            if near.contains(entry) {
                return Some((*near, node.all));
            }
            // What surrounds both is not longer than what they share.
            let common = near.common_bits(entry)?;
            bound = NetworkEntry {
                address: entry.address.masked(common),
                prefix: common + 1,
                ..*entry
            };
        }
    }
}

/// What holds around all networks.
#[derive(Clone, Copy)]
struct Tops {
    prefixes: Prefixes,
    anywhere: LimitSet,
}

/// Works what each network's surroundings say into it: `nodes` are in order,
/// `around` is what surrounds the first.
fn settle<'a>(
    nodes: impl Iterator<Item = (&'a NetworkEntry, &'a mut Node)>,
    mut around: Vec<(NetworkEntry, Network)>,
    tops: Tops,
    changed: &mut Vec<(NetworkEntry, Network)>,
) {
    let mut nodes = nodes.peekable();
    while let Some((entry, node)) = nodes.next() {
        while around
            .last()
            .is_some_and(|(outer, _)| !outer.contains(entry))
        {
            around.pop();
        }
        let inherited = match (around.last(), entry.kind) {
            (Some((_, network)), _) => *network,
            (None, Kind::Source) => Network::default(),
            (None, Kind::Destination) => Network {
                flags: 0,
                limits: tops.anywhere,
            },
        };
        let mut all = merge(node.own, inherited);
        let prefix = tops.prefixes.of(entry.address.family);
        let next = nodes.peek().map(|(next, _)| *next);
        let has_parts = entry.prefix == prefix && next.is_some_and(|next| entry.contains(next));
        if entry.kind == Kind::Source && (entry.prefix > prefix || has_parts) {
            all.flags |= SPLIT;
        }
        if all != node.all {
            node.all = all;
            changed.push((*entry, all));
        }
        around.push((*entry, all));
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

impl NetworkEntry {
    fn new(kind: Kind, network: &IpNet) -> Self {
        let (address, prefix) = network_parts(network);
        Self {
            kind,
            address,
            prefix,
        }
    }

    /// Whether all of `other` is in it.
    fn contains(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.prefix <= other.prefix
            && self.address == other.address.masked(self.prefix)
    }

    /// How many bits of their prefixes are the same; `None`: they are not of a
    /// kind or family.
    fn common_bits(&self, other: &Self) -> Option<u32> {
        if (self.kind, self.address.family) != (other.kind, other.address.family) {
            return None;
        }
        let hi = self.address.hi ^ other.address.hi;
        let lo = self.address.lo ^ other.address.lo;
        let same = match hi {
            0 => 64 + lo.leading_zeros(),
            _ => hi.leading_zeros(),
        };
        Some(same.min(self.prefix).min(other.prefix))
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

#[cfg(test)]
mod tests;
