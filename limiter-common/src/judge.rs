//! The way of a packet, top to bottom: parse, martian, control, allow, deny,
//! block, limit.
//!
//! [`judge`] is the only place where a verdict is made. The kernel program
//! calls it with its maps, user space with tables in memory.

use crate::{
    address::{Address, Family, SourceKey},
    atomic::Word,
    block::{Block, BlockKey, DRY, KernelBlocks, LENGTHS, Lengths},
    class::{Class, Match, first_common},
    entry::{Charge, Entry, LISTED_ALLOW, LISTED_FROM, Tokens, advance},
    filter::FilterBits,
    flood::{Admission, Aggregate, Gate, Kind as NewKind, Newcomer, Recent},
    layout::{
        ALLOW, CONTROL_PASS, DENY, ENFORCE, EntryKey, Former, GATED, HAS_LISTS, Kind, Limit,
        LimitSet, Network, OBSERVE, Policy, SPLIT, TOTAL, UNPARSED_DROP, row,
    },
    packet::{Frame, Packet, Parsed, Transport, parse},
    time::Time,
    verdict::{Action, Budget, NO_LIMIT, Outcome, Reason, Verdict},
};
use core::ops::Deref;

/// What the verdict is made from: maps in the kernel, tables in memory
/// elsewhere. Each verb is one look-up.
pub trait Tables {
    /// A look-up's answer; it is read at once and not kept.
    type Ref<'a, T: 'a>: Deref<Target = T>
    where
        Self: 'a;

    /// The generation in force when the packet came: read once, since whatever is
    /// remembered of the lists is remembered for it.
    fn generation(&self) -> u32;
    /// The policy of that generation.
    fn policy(&self) -> Option<Self::Ref<'_, Policy>>;
    /// The class at `index` of `row`.
    fn class(&self, row: u32, index: u32) -> Class;
    /// Candidate set `set` of `row`.
    fn candidates(&self, row: u32, set: u32) -> Option<Self::Ref<'_, LimitSet>>;
    /// The limit in `slot` of `row`.
    fn limit(&self, row: u32, slot: u32) -> Option<Self::Ref<'_, Limit>>;
    /// The former budgets of the limit in `slot` of `row`.
    fn former(&self, row: u32, slot: u32) -> Option<Self::Ref<'_, Former>>;
    /// The longest network of `row` around an address.
    fn network(&self, row: u32, kind: Kind, address: Address) -> Option<Self::Ref<'_, Network>>;

    /// The copy of an entry that belongs to this CPU.
    fn entry(&self, key: &EntryKey) -> Option<Self::Ref<'_, Entry>>;
    /// Makes an entry, or finds the one that another CPU made meanwhile.
    fn create_entry(&self, key: &EntryKey) -> Option<Self::Ref<'_, Entry>>;
    /// The copy of an entry that belongs to `cpu`.
    fn entry_of(&self, key: &EntryKey, cpu: u32) -> Option<Self::Ref<'_, Entry>>;
    /// This CPU's number.
    fn cpu(&self) -> u32;

    /// The gate of new sources of a kind ([`crate::flood::Kind`]).
    fn gate(&self, kind: u32) -> Option<Self::Ref<'_, Gate>>;
    /// How many lines [`Tables::recent`] has, a power of two.
    fn recent_lines(&self) -> u32;
    /// A line of the sources seen of late.
    fn recent(&self, line: u32) -> Option<Self::Ref<'_, Recent>>;
    /// The aggregate at `place`, below [`crate::flood::AGGREGATES`].
    fn aggregate(&self, place: u32) -> Option<Self::Ref<'_, Aggregate>>;
    /// [`crate::flood::admit`]. In the kernel a function that the verifier
    /// checks by itself, once.
    fn admission(&self, newcomer: Newcomer, now: Time) -> Admission;

    /// [`crate::total::Total::charge`] of the limit in `slot`. Likewise.
    fn charge_total(&self, limit: &Limit, slot: u32, now: Time, cost: Tokens) -> bool;
    /// [`crate::total::Total::refund`] of the limit in `slot`. Likewise.
    fn refund_total(&self, limit: &Limit, slot: u32, now: Time, cost: Tokens);

    /// The prefix lengths of blocks.
    fn lengths(&self) -> Option<Self::Ref<'_, Lengths>>;
    /// A word of the filter, below [`crate::filter::FILTER_WORDS`].
    fn filter(&self, word: u32) -> Option<Self::Ref<'_, Word>>;
    /// The block of exactly this key.
    fn block(&self, key: &BlockKey) -> Option<Self::Ref<'_, Block>>;
    /// The kernel's own blocks at the place of `source`.
    fn kernel_blocks(&self, source: SourceKey) -> Option<Self::Ref<'_, KernelBlocks>>;
    /// What the filter's hash is keyed with.
    fn seed(&self) -> u64;

    /// The arrival time of the budget of control traffic.
    fn control(&self) -> Option<Self::Ref<'_, Word>>;
    /// [`Entry::charge`]. In the kernel a function that the verifier checks by
    /// itself, once.
    fn charge(
        &self,
        entry: &Entry,
        limit: &Limit,
        former: &Former,
        now: Time,
        charge: Charge,
    ) -> Result<(), Budget> {
        entry.charge(limit, former, now, charge)
    }
    /// [`search_blocks`]. Likewise.
    fn blocked(&self, source: Address, now: Time, slot: u32) -> Option<u32>;
    /// `value`, of which the verifier knows nothing any more: it follows the
    /// rest of the program once, not once for each way that leads here.
    fn opaque(&self, value: u32) -> u32 {
        value
    }
    /// True if the frame came in on `lo`.
    fn is_loopback(&self) -> bool;
}

/// Decides about one frame. Counting it is the caller's next and last step.
#[inline(always)]
pub fn judge<F: Frame, T: Tables>(frame: &mut F, now: Time, tables: &T) -> Verdict {
    let Some(policy) = tables.policy() else {
        return Verdict {
            outcome: Outcome::new(Action::Pass, Reason::NoLimit),
            limit: NO_LIMIT,
            bytes: frame.length() as u32,
        };
    };
    let judge = Judge {
        tables,
        policy: &policy,
        generation: tables.generation(),
        row: row(tables.generation()),
        now,
    };
    match parse(frame) {
        Parsed::NotIp => judge.without_packet(frame, Action::Pass, Reason::NotIp),
        Parsed::Unparsed if policy.flags & UNPARSED_DROP != 0 => {
            judge.without_packet(frame, judge.refusal(), Reason::Unparsed)
        }
        Parsed::Unparsed => judge.without_packet(frame, Action::Pass, Reason::Unparsed),
        Parsed::Ip(mut packet) => {
            packet.transport = Transport(tables.opaque(packet.transport.0));
            let (outcome, limit) = judge.packet(&packet);
            Verdict {
                outcome,
                limit,
                bytes: packet.bytes,
            }
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

impl<T: Tables> Judge<'_, T> {
    #[inline(always)]
    fn without_packet<F: Frame>(&self, frame: &F, action: Action, reason: Reason) -> Verdict {
        Verdict {
            outcome: Outcome::new(action, reason),
            limit: NO_LIMIT,
            bytes: frame.length() as u32,
        }
    }

    /// What a refusal does under this policy.
    #[inline(always)]
    fn refusal(&self) -> Action {
        if self.policy.flags & ENFORCE != 0 {
            Action::Drop
        } else {
            Action::WouldDrop
        }
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
        match self.slot(class, packet.destination) {
            Some(slot) => self.limited(packet, class, slot),
            None => self.unlimited(packet, class),
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
        let network = self
            .tables
            .network(self.row, Kind::Destination, destination);
        let rank = match network {
            Some(network) => first_common(&candidates, &network.limits),
            None => first_common(&candidates, &self.policy.anywhere),
        }?;
        Some(u32::from(self.policy.order[rank as usize & 255]))
    }

    /// A packet that no limit matches: lists and blocks only.
    #[inline(always)]
    fn unlimited(&self, packet: &Packet, class: Class) -> Decision {
        let listed = self.listed(packet.source).0;
        if listed & ALLOW != 0 {
            return (Outcome::new(Action::Pass, Reason::Allow), NO_LIMIT);
        }
        if listed & DENY != 0 {
            return (Outcome::new(self.refusal(), Reason::Deny), NO_LIMIT);
        }
        match self.blocked(packet, class, NO_LIMIT) {
            Some(limit) => (Outcome::new(self.refusal(), Reason::Block), limit),
            None => (Outcome::new(Action::Pass, Reason::NoLimit), NO_LIMIT),
        }
    }

    /// A packet that the limit in `slot` matches. What the source's entry
    /// remembers of the lists spares the look-up in the trie.
    #[inline(always)]
    fn limited(&self, packet: &Packet, class: Class, slot: u32) -> Decision {
        let Some(limit) = self.tables.limit(self.row, slot) else {
            return (Outcome::new(Action::Pass, Reason::NoLimit), NO_LIMIT);
        };
        let source = self.source(packet.source);
        let key = EntryKey {
            source: [(source.0 >> 32) as u32, source.0 as u32],
            limit: slot,
        };
        let entry = self.tables.entry(&key);
        let current = match &entry {
            Some(entry) if entry.is_current(self.generation) => Some(entry),
            _ => None,
        };
        let is_current = current.is_some();
        let remembered = current.and_then(|entry| entry.remembered());
        let mut keep = false;
        let listed = match remembered {
            Some(listed) => listed,
            None => {
                let (flags, limits) = self.listed(packet.source);
                if flags & (ALLOW | DENY) == DENY {
                    let outcome = Outcome::new(self.refusal(), Reason::Deny);
                    return self.refused(&entry, outcome, NO_LIMIT);
                }
                keep = flags & SPLIT == 0;
                listed_bits(flags, &limits, &limit, slot)
            }
        };
        let listed = self.tables.opaque(listed);
        if listed & LISTED_ALLOW == 0 {
            if let Some(blocking) = self.blocked(packet, class, slot) {
                let outcome = Outcome::new(self.refusal(), Reason::Block);
                return self.refused(&entry, outcome, blocking);
            }
            if listed & LISTED_FROM == 0 && !packet.transport.is_partial() {
                let outcome = Outcome::new(self.refusal(), Reason::NotFrom);
                return self.refused(&entry, outcome, slot);
            }
        }
        let connections = u32::from(packet.transport.is_connection());
        let cost = Tokens::new(connections, 1, packet.bytes);
        let entry = match entry {
            Some(entry) => entry,
            None => match self.admitted(packet, &key, listed) {
                Ok(entry) => entry,
                Err(action) if listed & LISTED_ALLOW == 0 => {
                    return (self.unknown(&limit, slot, cost, action), slot);
                }
                Err(_) => return (Outcome::new(Action::Pass, Reason::Allow), NO_LIMIT),
            },
        };
        if !is_current {
            entry.remember(self.generation, keep.then_some(listed));
        }
        if listed & LISTED_ALLOW != 0 {
            entry.count_passed();
            return (Outcome::new(Action::Pass, Reason::Allow), NO_LIMIT);
        }
        if !self.within_total(&limit, slot, cost) {
            let outcome = self.unless_observed(&limit, Reason::Total);
            return self.refused(&Some(entry), outcome, slot);
        }
        match self.charge(cost, &limit, &key, &entry, is_current) {
            Ok(()) => {
                entry.count_passed();
                let reason = Reason::Limit(Budget::Within);
                (Outcome::new(Action::Pass, reason), slot)
            }
            Err(budget) => {
                if limit.flags & TOTAL != 0 {
                    self.tables.refund_total(&limit, slot, self.now, cost);
                }
                let outcome = self.exceeded(&limit, slot, source, budget);
                self.refused(&Some(entry), outcome, slot)
            }
        }
    }

    /// An entry for a source that has none, if it is to have one.
    #[inline(always)]
    fn admitted(
        &self,
        packet: &Packet,
        key: &EntryKey,
        listed: u32,
    ) -> Result<T::Ref<'_, Entry>, Action> {
        let newcomer = Newcomer {
            source: SourceKey(u64::from(key.source[0]) << 32 | u64::from(key.source[1])),
            kind: if packet.transport.is_connection() {
                NewKind::Connection
            } else {
                NewKind::Other
            },
            exempt: listed & LISTED_ALLOW != 0,
        };
        match self.tables.admission(newcomer, self.now) {
            // Where none can be made, the table is too small for the CPUs.
            Admission::Enter => self.tables.create_entry(key).ok_or(Action::Pass),
            Admission::Pass => Err(Action::Pass),
            Admission::Refuse => Err(Action::Drop),
        }
    }

    /// The outcome of a packet whose source has no entry.
    #[inline(always)]
    fn unknown(&self, limit: &Limit, slot: u32, cost: Tokens, action: Action) -> Outcome {
        if action != Action::Pass {
            return self.unless_observed(limit, Reason::UnknownSource);
        }
        if !self.within_total(limit, slot, cost) {
            return self.unless_observed(limit, Reason::Total);
        }
        Outcome::new(Action::Pass, Reason::UnknownSource)
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

    #[inline(always)]
    fn refused(&self, entry: &Option<T::Ref<'_, Entry>>, outcome: Outcome, limit: u32) -> Decision {
        if let Some(entry) = entry {
            entry.count_dropped(outcome.index());
        }
        (outcome, limit)
    }

    /// Flags and gates of a source.
    #[inline(always)]
    fn listed(&self, source: Address) -> (u64, LimitSet) {
        if self.policy.flags & HAS_LISTS == 0 {
            return (0, [0; 4]);
        }
        match self.tables.network(self.row, Kind::Source, source) {
            Some(network) => (network.flags, network.limits),
            None => (0, [0; 4]),
        }
    }

    #[inline(always)]
    fn source(&self, address: Address) -> SourceKey {
        address.source(match address.family {
            Family::Ipv4 => self.policy.ipv4_mask,
            Family::Ipv6 => self.policy.ipv6_mask,
        })
    }

    /// The limit to report (or [`NO_LIMIT`]) if a block holds for this packet.
    /// Of most sources the filter's word knows that none can.
    #[inline(always)]
    fn blocked(&self, packet: &Packet, class: Class, slot: u32) -> Option<u32> {
        let lengths = self.tables.lengths()?;
        let has_wide = lengths.of(packet.source.family).wide != 0;
        if class.is_spared() || !has_wide && !is_set(self.tables, near(self.tables, packet.source))
        {
            return None;
        }
        self.tables.blocked(packet.source, self.now, slot)
    }

    /// Charges the packet: from the lease if this CPU owns the buckets and the
    /// lease is of this generation (a reload may have cut the burst), else where
    /// they are.
    #[inline(always)]
    fn charge(
        &self,
        cost: Tokens,
        limit: &Limit,
        key: &EntryKey,
        entry: &Entry,
        is_current: bool,
    ) -> Result<(), Budget> {
        if is_current && entry.is_owned() && entry.spend_lease(self.now, cost) {
            return Ok(());
        }
        let Some(former) = self.tables.former(self.row, key.limit) else {
            return Ok(());
        };
        if entry.is_owned() {
            return self.tables.charge(
                entry,
                limit,
                &former,
                self.now,
                Charge { cost, lease: true },
            );
        }
        let owner = match entry.owner() {
            Some(owner) => owner,
            None => match self.tables.entry_of(key, 0) {
                Some(directory) => entry.claim(&directory, self.tables.cpu(), limit.version),
                None => return Ok(()),
            },
        };
        // Evicted between two look-ups: as if the source were new.
        match self.tables.entry_of(key, owner) {
            Some(owned) => self.tables.charge(
                &owned,
                limit,
                &former,
                self.now,
                Charge { cost, lease: false },
            ),
            None => Ok(()),
        }
    }

    /// What the limit does to a packet that exceeds it.
    #[inline(always)]
    fn exceeded(&self, limit: &Limit, slot: u32, source: SourceKey, budget: Budget) -> Outcome {
        if limit.flags & OBSERVE == 0 && limit.block_steps != 0 {
            self.block(limit, slot, source);
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

/// What an entry under the limit in `slot` remembers of the lists.
#[inline(always)]
fn listed_bits(flags: u64, limits: &LimitSet, limit: &Limit, slot: u32) -> u32 {
    let mut listed = 0;
    if flags & ALLOW != 0 {
        listed |= LISTED_ALLOW;
    }
    let named = limits[(slot >> 6 & 3) as usize] >> (slot & 63) & 1 == 1;
    if limit.flags & GATED == 0 || named {
        listed |= LISTED_FROM;
    }
    listed
}

/// Looks for a block that holds for `source` under the limit in `slot`
/// ([`NO_LIMIT`]: under none). Returns the slot that it is confined to, or
/// [`NO_LIMIT`].
///
/// The filter is asked first; only a set bit leads to the tables.
#[inline(always)]
pub fn search_blocks<T: Tables>(tables: &T, source: Address, now: Time, slot: u32) -> Option<u32> {
    let policy = tables.policy()?;
    let enforced = policy.flags & ENFORCE != 0;
    let lengths = tables.lengths()?;
    let lengths = lengths.of(source.family);
    let is_near = is_set(tables, near(tables, source));
    let mut any = false;
    let mut i = 0;
    while i < LENGTHS {
        if i as u32 >= lengths.count {
            break;
        }
        let length = &lengths.lengths[i];
        let key = length.key(source, 0);
        let hit = if length.wide == 0 {
            is_near
        } else {
            is_set(tables, FilterBits::of_wide(&key, tables.seed()))
        };
        if hit {
            if holds(tables, &key, now, enforced) {
                return Some(NO_LIMIT);
            }
            if holds(tables, &length.key(source, slot + 1), now, enforced) {
                return Some(slot);
            }
            any = true;
        }
        i += 1;
    }
    if !any {
        return None;
    }
    let source = source.source(match source.family {
        Family::Ipv4 => policy.ipv4_mask,
        Family::Ipv6 => policy.ipv6_mask,
    });
    let dry = tables.kernel_blocks(source)?.find(source, now.step())?;
    (!dry || !enforced).then_some(NO_LIMIT)
}

/// The bit of the filter for all blocks around `source` that are not wide.
#[inline(always)]
fn near<T: Tables>(tables: &T, source: Address) -> FilterBits {
    FilterBits::of_address(source, tables.seed())
}

#[inline(always)]
fn is_set<T: Tables>(tables: &T, filter: FilterBits) -> bool {
    match tables.filter(filter.word) {
        Some(word) => word.load() & filter.bits != 0,
        None => false,
    }
}

/// True if there is a block of exactly this key and it is in force. A dry one
/// is only while the policy is not enforced.
#[inline(always)]
fn holds<T: Tables>(tables: &T, key: &BlockKey, now: Time, enforced: bool) -> bool {
    match tables.block(key) {
        Some(block) => block.expires_step > now.step() && (block.flags & DRY == 0 || !enforced),
        None => false,
    }
}
