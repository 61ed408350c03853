//! A rule at work: its definition, and all that it has counted.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::blocks::Blocks;
use super::course::Course;
use super::decision::Tally;
use super::key::{Prefixes, Shape};
use super::table::{Key, Place, Table};
use crate::policy::{self, Absent, Action, Count, KeyPart, Rule, Shared};

/// Whether a rule is at work, chosen at run time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// As the policy says.
    #[default]
    On,
    /// Everything is counted and nothing done.
    Simulate,
    /// Nothing is counted.
    Off,
}

impl Mode {
    /// All.
    pub const ALL: [Self; 3] = [Self::On, Self::Simulate, Self::Off];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Simulate => "simulate",
            Self::Off => "off",
        }
    }
}

/// What a key of several parts is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Source,
    Account,
}

/// A rule at work.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: Arc<str>,
    pub(super) rule: Rule,
    pub(super) course: Course,
    pub(super) table: Table,
    pub(super) blocks: Blocks,
    pub(super) mode: Mode,
    pub(super) tally: Tally,
    /// Its key among the engine's shapes, and that of the source alone.
    pub(super) shape: usize,
    pub(super) source_shape: usize,
    pub(super) prefixes: Prefixes,
    pub(super) block_limit: Option<Arc<str>>,
    pub(super) by_source: bool,
    pub(super) by_account: bool,
    /// Whether a shared source is challenged in place of a block.
    pub(super) spares_crowds: bool,
    /// The rules that its counted event clears.
    pub(super) clears: Vec<usize>,
    /// A state of which nothing is known.
    pub(super) blank: Vec<u64>,
}

impl Unit {
    /// The rule with nothing counted; `shape_of` finds or adds a shape.
    pub(super) fn new(
        rule: &Rule,
        edge: Prefixes,
        mut shape_of: impl FnMut(Shape) -> usize,
    ) -> Self {
        let prefixes = prefixes(rule, edge);
        let course = Course::new(rule);
        let has = |part| rule.key.contains(&part);
        let blocks = actions(rule).any(|action| action == Action::Block);
        let by_header = matches!(rule.count, Count::ResponseHeader(_));
        // Keys that are a source alone cannot be made at will. A method can: it is any token.
        let made_at_will = rule
            .key
            .iter()
            .any(|part| !matches!(part, KeyPart::Source | KeyPart::Peer));
        let quota = made_at_will.then_some(rule.keys_per_source);
        Self {
            name: rule.name.as_str().into(),
            table: Table::new(rule.tracked, course.words(), quota),
            blank: vec![0; course.words()],
            course,
            blocks: Blocks::new(rule.blocked),
            mode: Mode::On,
            tally: Tally::default(),
            shape: shape_of(Shape {
                parts: rule.key.clone(),
                absent: rule.absent,
                prefixes,
            }),
            source_shape: shape_of(Shape {
                parts: vec![KeyPart::Source],
                absent: Absent::Skip,
                prefixes,
            }),
            prefixes,
            block_limit: rule.block_limit.as_deref().map(Into::into),
            by_source: has(KeyPart::Source) || has(KeyPart::Peer),
            by_account: has(KeyPart::Account),
            spares_crowds: blocks && rule.shared == Shared::Challenge && !by_header,
            clears: Vec::new(),
            rule: rule.clone(),
        }
    }

    /// Whether the rule has a say about a source, beyond its gate.
    pub(super) fn covers(&self, source: IpAddr, is_exempt: bool) -> bool {
        self.mode != Mode::Off
            && !(is_exempt && self.by_source)
            && !holds(&self.rule.except, source)
    }

    /// Whether its gate does not let a source in, exempt or not.
    pub(super) fn shuts_out(&self, source: IpAddr) -> bool {
        self.mode != Mode::Off && !self.rule.admits(source)
    }

    /// Whether it keeps its hands off, for a tier that says `simulate` or not.
    pub(super) fn simulates(&self, enforce: bool, part: usize) -> bool {
        let by_part = |part: &super::course::Part| part.effect.simulate;
        self.only_simulates(enforce) || self.course.parts.get(part).is_some_and(by_part)
    }

    /// Whether it keeps its hands off altogether.
    pub(super) fn only_simulates(&self, enforce: bool) -> bool {
        !enforce || self.mode == Mode::Simulate || self.rule.simulate
    }

    /// Whether what it counts is known when a request is asked about.
    pub(super) const fn counts_questions(&self) -> bool {
        matches!(
            self.rule.count,
            Count::Requests | Count::Attempts | Count::Distinct(_)
        )
    }

    /// Whether one more key may have an active action.
    pub(super) fn has_room(&self) -> bool {
        self.table.may_pin() && self.table.pinned() < self.rule.blocked as usize
    }

    /// Whether an attempt that it lets through counts as failed until it hears of it.
    pub(super) const fn awaits(&self) -> bool {
        self.rule.reserve && matches!(self.rule.count, Count::Failures | Count::Statuses(_))
    }

    /// The key of the source that a key is made of, if that is blocked or the key itself.
    pub(super) fn source_of(&self, key: Key, state: &[u64]) -> Option<Key> {
        if self.rule.key == [KeyPart::Source] {
            return Some(key);
        }
        let [source, _] = self.course.tags(state)?;
        let mut blocked = self.blocks.all().map(|(_, key, _)| key);
        blocked.find(|key| *key as u64 == source)
    }

    /// The keys that are made of a source, or of an account, and of more. It looks at all keys.
    pub(super) fn tagged(&self, tag: Tag, hash: Key) -> Vec<Key> {
        let is_of = |place: &Place| {
            let tags = self.course.tags(self.table.state(*place));
            tags.is_some_and(|tags| tags[tag as usize] == hash as u64)
        };
        let places = self.table.places().filter(is_of);
        places.map(|place| self.table.key(place)).collect()
    }

    pub(super) fn tally(&self) -> Tally {
        let evictions = self.table.evictions;
        Tally {
            tracked: self.table.held() as u64,
            active: self.table.pinned() as u64,
            blocked: self.blocks.held() as u64,
            evicted: evictions.evicted,
            evicted_under_count: evictions.under_count,
            untracked: evictions.untracked,
            bytes: (self.table.bytes() + self.blocks.bytes()) as u64,
            ..self.tally
        }
    }
}

/// Whether any of the networks holds an address.
pub(super) fn holds(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Those of a rule, which may name none.
pub(super) fn prefixes(rule: &Rule, edge: Prefixes) -> Prefixes {
    Prefixes {
        ipv4: rule.ipv4_prefix.unwrap_or(edge.ipv4),
        ipv6: rule.ipv6_prefix.unwrap_or(edge.ipv6),
    }
}

/// What a rule may do.
pub(super) fn actions(rule: &Rule) -> impl Iterator<Item = Action> + '_ {
    let (tiers, rungs): (&[policy::Tier], &[policy::Rung]) = match &rule.course {
        policy::Course::Tiers(tiers) => (tiers, &[]),
        policy::Course::Ladder(ladder) => (&[], &ladder.rungs),
        policy::Course::Boruta(_) => (&[], &[]),
    };
    let of_tiers = tiers.iter().map(|tier| tier.effect.action);
    of_tiers.chain(rungs.iter().map(|rung| rung.effect.action))
}
