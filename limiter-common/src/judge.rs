//! The way of a packet, top to bottom: parse, martian, control, allow, deny,
//! block, limit.
//!
//! [`judge`] is the only place where a verdict is made. The kernel program
//! calls it with its maps, user space with tables in memory.

use crate::{
    address::{Address, Family, SourceKey},
    block::BlockKey,
    blocked::may_be_blocked,
    class::{Class, Match, first_common},
    entry::{Charge, Entry, LISTED_ALLOW, LISTED_FROM, REMEMBERED, Tokens, advance},
    filter::FilterBits,
    flood::{Admission, Kind as NewKind, Newcomer},
    known,
    layout::{
        ALLOW, CONTROL_PASS, DENY, ENFORCE, EntryKey, GATED, HAS_LISTS, Kind, Limit, LimitSet,
        Network, OBSERVE, Policy, SPLIT, TOTAL, UNPARSED_DROP, row,
    },
    packet::{Frame, Packet, Parsed, Transport, parse},
    standing::{Scope, Standing},
    tables::Tables,
    time::Time,
    verdict::{Action, Budget, NO_LIMIT, Outcome, Reason, Verdict},
};

/// Decides about one frame. Counting it is the caller's next and last step.
#[inline(always)]
pub fn judge<F: Frame, T: Tables>(frame: &mut F, now: Time, tables: &T) -> Verdict {
    match parse(frame) {
        Parsed::NotIp => of_frame(frame, Outcome::new(Action::Pass, Reason::NotIp)),
        Parsed::Unparsed => of_frame(frame, unparsed(tables)),
        Parsed::Ip(mut packet) => {
            packet.transport = Transport(tables.opaque(packet.transport.0));
            let (outcome, limit) = of_packet(&packet, now, tables);
            Verdict {
                outcome,
                limit,
                bytes: packet.bytes,
            }
        }
    }
}

/// The verdict on a frame of which nothing else is known.
#[inline(always)]
fn of_frame<F: Frame>(frame: &F, outcome: Outcome) -> Verdict {
    Verdict {
        outcome,
        limit: NO_LIMIT,
        bytes: frame.length() as u32,
    }
}

/// What becomes of a frame whose IP header cannot be read.
#[inline(always)]
fn unparsed<T: Tables>(tables: &T) -> Outcome {
    let action = match tables.policy() {
        Some(policy) if policy.flags & UNPARSED_DROP != 0 => refusal(&policy),
        _ => Action::Pass,
    };
    Outcome::new(action, Reason::Unparsed)
}

/// What becomes of a packet. Not earlier than here is the policy looked at: it
/// need not be kept while the frame is read.
#[inline(always)]
fn of_packet<T: Tables>(packet: &Packet, now: Time, tables: &T) -> Decision {
    let Some(policy) = tables.policy() else {
        return (Outcome::new(Action::Pass, Reason::NoLimit), NO_LIMIT);
    };
    let judge = Judge {
        tables,
        policy: &policy,
        generation: tables.generation(),
        row: row(tables.generation()),
        now,
    };
    judge.packet(packet)
}

/// What a refusal does under this policy.
#[inline(always)]
const fn refusal(policy: &Policy) -> Action {
    if policy.flags & ENFORCE != 0 {
        Action::Drop
    } else {
        Action::WouldDrop
    }
}

/// What became of a packet.
struct Answer<E> {
    /// The source's entry, if it has one.
    entry: Option<E>,
    outcome: Outcome,
    /// The slot of the limit that took part.
    limit: u32,
    /// Which packets it holds for, in this clock step.
    scope: Scope,
}

impl<E> Answer<E> {
    #[inline(always)]
    const fn new(entry: Option<E>, outcome: Outcome, limit: u32, scope: Scope) -> Self {
        Self {
            entry,
            outcome,
            limit,
            scope,
        }
    }
}

struct Judge<'a, T> {
    tables: &'a T,
    policy: &'a Policy,
    generation: u32,
    row: u32,
    now: Time,
}

/// An outcome and the slot of the limit that took part.
type Decision = (Outcome, u32);

/// A packet on its way, and what is known of it.
struct Way<'a> {
    packet: &'a Packet,
    /// Its source under its limit, or under [`NO_LIMIT`].
    key: &'a EntryKey,
    cost: Tokens,
    /// The place of its source's standing.
    standing: &'a Standing,
    may_be_blocked: bool,
}

impl<T: Tables> Judge<'_, T> {
    #[inline(always)]
    fn refusal(&self) -> Action {
        refusal(self.policy)
    }

    #[inline(always)]
    fn packet(&self, packet: &Packet) -> Decision {
        if packet.source.is_martian()
            && !(packet.source.is_unspecified() && packet.transport.is_neighbour())
            && !self.tables.is_loopback()
        {
            return (Outcome::new(self.refusal(), Reason::Martian), NO_LIMIT);
        }
        if let Some(reason) = self.control(packet.transport) {
            return (Outcome::new(Action::Pass, reason), NO_LIMIT);
        }
        let class = self.tables.class(self.row, packet.transport.class());
        let slot = self.slot(class, packet.destination).unwrap_or(NO_LIMIT);
        let may_be_blocked = self
            .tables
            .opaque(may_be_blocked(self.tables, packet.source, class))
            != 0;
        if slot == NO_LIMIT && !may_be_blocked {
            return self.unlimited(packet);
        }
        let key = EntryKey::new(self.source(packet.source), slot);
        let Some(standing) = self.tables.standing(&key) else {
            return (Outcome::new(Action::Pass, Reason::NoLimit), NO_LIMIT);
        };
        let connections = u32::from(packet.transport.is_connection());
        let way = Way {
            packet,
            key: &key,
            cost: Tokens::new(connections, 1, packet.bytes),
            standing: &standing,
            may_be_blocked,
        };
        match self.as_before(&way) {
            Some(decision) => decision,
            None => self.anew(&way),
        }
    }

    /// Control traffic within its budget; beyond it, it is judged like any
    /// other.
    #[inline(always)]
    fn control(&self, transport: Transport) -> Option<Reason> {
        if !transport.is_control() {
            return None;
        }
        let reason = if transport.is_neighbour() {
            Reason::Neighbour
        } else {
            Reason::Control
        };
        if self.policy.flags & CONTROL_PASS == 0 {
            return None;
        }
        let arrival = self.tables.control()?;
        let bucket = &self.policy.control;
        advance(&arrival, bucket, self.now, bucket.units(1)).then_some(reason)
    }

    /// The slot of the first limit that matches.
    #[inline(always)]
    fn slot(&self, class: Class, destination: Address) -> Option<u32> {
        match class.matches() {
            Match::None => None,
            Match::Limit(slot) => Some(slot),
            Match::Candidates(set) => self.first_to(set, destination),
        }
    }

    #[inline(always)]
    fn first_to(&self, set: u32, destination: Address) -> Option<u32> {
        let candidates = self.tables.candidates(self.row, set)?;
        let network = self.tables.network(Kind::Destination, destination);
        let rank = match network {
            Some(network) => first_common(&candidates, &network.limits),
            None => first_common(&candidates, &self.policy.anywhere),
        }?;
        Some(u32::from(self.policy.order[rank as usize & 255]))
    }

    /// What the source met before in this clock step.
    #[inline(always)]
    fn as_before(&self, way: &Way<'_>) -> Option<Decision> {
        let standing = way.standing;
        if !standing.is_of(way.key) {
            return None;
        }
        if !standing.is_current(self.generation, self.now) {
            self.tables.release(standing, self.generation, self.now);
            return None;
        }
        if !way.may_be_blocked && standing.spend(way.cost) {
            standing.count_passed();
            let reason = Reason::Limit(Budget::Within);
            return Some((Outcome::new(Action::Pass, reason), way.key.limit));
        }
        standing.ruled(way.packet.source, way.cost, way.may_be_blocked)
    }

    /// The whole way through lists, blocks and limits. Where the answer holds
    /// for more packets of this clock step, it is left as the source's standing.
    #[inline(always)]
    fn anew(&self, way: &Way<'_>) -> Decision {
        let Answer {
            entry,
            outcome,
            limit,
            scope,
        } = if way.key.limit == NO_LIMIT {
            self.unlimited_and_blocked(way)
        } else {
            self.limited(way)
        };
        if scope != Scope::Packet && self.occupy(way) {
            (way.standing).rule(scope, way.packet.source, way.cost, (outcome, limit));
        }
        if let Some(entry) = entry {
            entry.count_one(outcome);
        }
        (outcome, limit)
    }

    /// Has the place of the source's standing, if nobody else does in this clock
    /// step.
    #[inline(always)]
    fn occupy(&self, way: &Way<'_>) -> bool {
        (self.tables).occupy(way.standing, way.key, self.generation, self.now)
    }

    /// A packet that no limit matches, as far as the lists say.
    #[inline(always)]
    fn unlimited(&self, packet: &Packet) -> Decision {
        let listed = (self.listed(packet.source)).map_or(0, |network| network.flags);
        let outcome = if listed & ALLOW != 0 {
            Outcome::new(Action::Pass, Reason::Allow)
        } else if listed & DENY != 0 {
            Outcome::new(self.refusal(), Reason::Deny)
        } else {
            Outcome::new(Action::Pass, Reason::NoLimit)
        };
        (outcome, NO_LIMIT)
    }

    /// The same where a block may hold.
    #[inline(always)]
    fn unlimited_and_blocked(&self, way: &Way<'_>) -> Answer<T::Ref<'_, Entry>> {
        let (outcome, _) = self.unlimited(way.packet);
        if outcome == Outcome::new(Action::Pass, Reason::NoLimit)
            && let Some(limit) = self.blocked(way)
        {
            let outcome = Outcome::new(self.refusal(), Reason::Block);
            return Answer::new(None, outcome, limit, Scope::Blocked);
        }
        Answer::new(None, outcome, NO_LIMIT, Scope::Packet)
    }

    /// A packet that a limit matches. What the source's entry remembers of the
    /// lists spares the look-up in the trie.
    #[inline(always)]
    fn limited(&self, way: &Way<'_>) -> Answer<T::Ref<'_, Entry>> {
        let packet = way.packet;
        let slot = way.key.limit;
        let Some(limit) = self.tables.limit(self.row, slot) else {
            let outcome = Outcome::new(Action::Pass, Reason::NoLimit);
            return Answer::new(None, outcome, NO_LIMIT, Scope::Packet);
        };
        let entry = match self.is_stranger(way) {
            true => None,
            false => self.tables.entry(way.key),
        };
        let current = match &entry {
            Some(entry) if entry.is_current(self.generation) => Some(entry),
            _ => None,
        };
        let is_current = current.is_some();
        let listed = match current.and_then(|entry| entry.remembered()) {
            Some(listed) => listed,
            None => {
                let (flags, is_named) = match self.listed(packet.source) {
                    Some(network) => (network.flags, is_named(&network.limits, slot)),
                    None => (0, false),
                };
                if flags & (ALLOW | DENY) == DENY {
                    let outcome = Outcome::new(self.refusal(), Reason::Deny);
                    return Answer::new(entry, outcome, NO_LIMIT, Scope::Packet);
                }
                listed_bits(flags, is_named || limit.flags & GATED == 0)
            }
        };
        let listed = self.tables.opaque(listed);
        if listed & LISTED_ALLOW == 0 {
            if let Some(limit) = self.blocked(way) {
                let outcome = Outcome::new(self.refusal(), Reason::Block);
                return Answer::new(entry, outcome, limit, Scope::Blocked);
            }
            if listed & LISTED_FROM == 0 && !packet.transport.is_partial() {
                let outcome = Outcome::new(self.refusal(), Reason::NotFrom);
                return Answer::new(entry, outcome, slot, Scope::Packet);
            }
        }
        let entry = match entry {
            Some(entry) => entry,
            None => match self.admitted(way, listed) {
                Ok(entry) => entry,
                Err(action) => {
                    let (outcome, limit) = self.unknown(way, &limit, listed, action);
                    return Answer::new(None, outcome, limit, Scope::Packet);
                }
            },
        };
        if !is_current {
            entry.remember(self.generation, listed);
        }
        self.of_known(way, &limit, entry, listed)
    }

    /// A packet of a source that has an entry, of which the lists say `listed`.
    #[inline(always)]
    fn of_known<'e>(
        &'e self,
        way: &Way<'_>,
        limit: &Limit,
        entry: T::Ref<'e, Entry>,
        listed: u32,
    ) -> Answer<T::Ref<'e, Entry>> {
        let slot = way.key.limit;
        // Whoever comes once a step leaves the place to those who come more often.
        let again = entry.see(self.now);
        if !again {
            known::note(self.tables, way.key.source());
        }
        if listed & LISTED_ALLOW != 0 {
            let scope = if again { Scope::Listed } else { Scope::Packet };
            let outcome = Outcome::new(Action::Pass, Reason::Allow);
            return Answer::new(Some(entry), outcome, NO_LIMIT, scope);
        }
        if !self.within_total(limit, slot, way.cost) {
            let outcome = self.unless_observed(limit, Reason::Total);
            return Answer::new(Some(entry), outcome, slot, Scope::Packet);
        }
        const STANDS: u32 = REMEMBERED | LISTED_FROM;
        let stands = again && listed & STANDS == STANDS && limit.flags & TOTAL == 0;
        match self.charge(way, &entry, stands) {
            Ok(()) => {
                let outcome = Outcome::new(Action::Pass, Reason::Limit(Budget::Within));
                Answer::new(Some(entry), outcome, slot, Scope::Packet)
            }
            Err(budget) => {
                if limit.flags & TOTAL != 0 {
                    self.tables.refund_total(limit, slot, self.now, way.cost);
                }
                let scope = if stands {
                    Scope::like(way.cost)
                } else {
                    Scope::Packet
                };
                let outcome = self.exceeded(limit, way.key, budget);
                Answer::new(Some(entry), outcome, slot, scope)
            }
        }
    }

    /// True if the source has no entry, or none in use, and cannot get one in
    /// this clock step.
    #[inline(always)]
    fn is_stranger(&self, way: &Way<'_>) -> bool {
        let gate = self.tables.gate(new_kind(way.cost) as u32);
        gate.is_some_and(|gate| gate.is_shut(self.now))
            && !known::may_be_known(self.tables, way.key.source())
    }

    /// An entry for a source that has none, if it is to have one.
    #[inline(always)]
    fn admitted(&self, way: &Way<'_>, listed: u32) -> Result<T::Ref<'_, Entry>, Action> {
        let newcomer = Newcomer {
            source: way.key.source(),
            kind: new_kind(way.cost),
            exempt: listed & LISTED_ALLOW != 0,
        };
        match self.tables.admission(newcomer, self.now) {
            // Where none can be made, the table is too small for the CPUs.
            Admission::Enter => self.tables.create_entry(way.key).ok_or(Action::Pass),
            Admission::Pass => Err(Action::Pass),
            Admission::Refuse => Err(Action::Drop),
        }
    }

    /// What becomes of a packet whose source has no entry.
    #[inline(always)]
    fn unknown(&self, way: &Way<'_>, limit: &Limit, listed: u32, action: Action) -> Decision {
        let slot = way.key.limit;
        if listed & LISTED_ALLOW != 0 {
            return (Outcome::new(Action::Pass, Reason::Allow), NO_LIMIT);
        }
        if action != Action::Pass {
            return (self.unless_observed(limit, Reason::UnknownSource), slot);
        }
        if !self.within_total(limit, slot, way.cost) {
            return (self.unless_observed(limit, Reason::Total), slot);
        }
        (Outcome::new(Action::Pass, Reason::UnknownSource), slot)
    }

    /// Charges the limit's ceiling over all sources, if it has one.
    #[inline(always)]
    fn within_total(&self, limit: &Limit, slot: u32, cost: Tokens) -> bool {
        limit.flags & TOTAL == 0 || self.tables.charge_total(limit, slot, self.now, cost)
    }

    /// A refusal, on paper only where the limit observes.
    #[inline(always)]
    fn unless_observed(&self, limit: &Limit, reason: Reason) -> Outcome {
        if limit.flags & OBSERVE != 0 {
            Outcome::new(Action::WouldDrop, reason)
        } else {
            Outcome::new(self.refusal(), reason)
        }
    }

    /// What the lists say of a source.
    #[inline(always)]
    fn listed(&self, source: Address) -> Option<T::Ref<'_, Network>> {
        if self.policy.flags & HAS_LISTS == 0 {
            return None;
        }
        self.tables.network(Kind::Source, source)
    }

    #[inline(always)]
    fn source(&self, address: Address) -> SourceKey {
        address.source(match address.family {
            Family::Ipv4 => self.policy.ipv4_mask,
            Family::Ipv6 => self.policy.ipv6_mask,
        })
    }

    /// The limit to report (or [`NO_LIMIT`]) if a block holds for this packet.
    #[inline(always)]
    fn blocked(&self, way: &Way<'_>) -> Option<u32> {
        if !way.may_be_blocked {
            return None;
        }
        (self.tables).blocked(way.packet.source, self.now, way.key.limit)
    }

    /// Charges the packet where the buckets are; with a lease, if they are here,
    /// `stands` and the place for it can be had.
    #[inline(always)]
    fn charge(&self, way: &Way<'_>, entry: &Entry, stands: bool) -> Result<(), Budget> {
        let key = way.key;
        let place = (self.row, key.limit);
        let mut charge = Charge {
            cost: way.cost,
            lease: false,
        };
        if entry.is_owned() {
            let own = (stands && self.occupy(way)).then_some(way.standing);
            // There is a lease already where only a block might have held.
            if own.is_some_and(|standing| standing.spend(way.cost)) {
                return Ok(());
            }
            charge.lease = own.is_some();
            return self.tables.charge(entry, own, place, self.now, charge);
        }
        let owner = match entry.owner() {
            Some(owner) => owner,
            None => match (
                self.tables.entry_of(key, 0),
                self.tables.limit(self.row, key.limit),
            ) {
                (Some(directory), Some(limit)) => {
                    entry.claim(&directory, self.tables.cpu(), limit.version)
                }
                _ => return Ok(()),
            },
        };
        // Evicted between two look-ups: as if the source were new.
        let Some(owned) = self.tables.entry_of(key, owner) else {
            return Ok(());
        };
        if owned.has_lease()
            && let Some(standing) = self.tables.standing_of(key, owner)
            && standing.is_of(key)
        {
            return (self.tables).charge(&owned, Some(&standing), place, self.now, charge);
        }
        self.tables.charge(&owned, None, place, self.now, charge)
    }

    /// What the limit does to a packet that exceeds it.
    #[inline(always)]
    fn exceeded(&self, limit: &Limit, key: &EntryKey, budget: Budget) -> Outcome {
        if limit.flags & OBSERVE == 0 && limit.block_steps != 0 {
            self.block(limit, key.limit, key.source());
        }
        self.unless_observed(limit, Reason::Limit(budget))
    }

    /// Blocks a source from here. The table first, the filter second: whoever
    /// rebuilds the filter from the table must not miss it.
    #[inline(always)]
    fn block(&self, limit: &Limit, slot: u32, source: SourceKey) {
        let Some(place) = self.tables.kernel_blocks(source) else {
            return;
        };
        let expires = self.now.step() + limit.block_steps;
        place.put(source, slot, expires, self.policy.flags & ENFORCE == 0);
        let address = source.address();
        let prefix = match address.family {
            Family::Ipv4 => self.policy.ipv4_prefix,
            Family::Ipv6 => self.policy.ipv6_prefix,
        };
        let block = BlockKey::new(address, prefix, 0);
        let filter = FilterBits::of_block(&block, self.tables.seed());
        if let Some(word) = self.tables.filter(filter.word) {
            word.set_bits(filter.bits);
        }
    }
}

/// What a packet of this cost is to those who have no entry.
#[inline(always)]
const fn new_kind(cost: Tokens) -> NewKind {
    if cost.is_connection() {
        NewKind::Connection
    } else {
        NewKind::Other
    }
}

/// True if the limit in `slot` is in the set.
#[inline(always)]
const fn is_named(limits: &LimitSet, slot: u32) -> bool {
    limits[(slot >> 6 & 3) as usize] >> (slot & 63) & 1 == 1
}

/// What an entry remembers of the lists; `within`: `from` names it, or there is
/// none.
#[inline(always)]
const fn listed_bits(flags: u64, within: bool) -> u32 {
    let mut listed = 0;
    if flags & SPLIT == 0 {
        listed |= REMEMBERED;
    }
    if flags & ALLOW != 0 {
        listed |= LISTED_ALLOW;
    }
    if within {
        listed |= LISTED_FROM;
    }
    listed
}
