//! One source under one limit: its buckets, exact over all CPUs.
//!
//! The entry lives in a per-CPU LRU map, so there is a copy for each CPU. The
//! CPU that sees the source first becomes the *owner*: its copy holds the
//! buckets, and every CPU charges them there. From the second packet in a clock
//! step on the owner does so through a *lease*, a batch of tokens charged at
//! once and then spent on its own ([`crate::standing`]); other CPUs charge packet
//! by packet.
//!
//! What keeps it exact:
//! - There is one lease. It is good for the clock step in which it was given;
//!   whoever next touches the buckets in a later step first puts what is left
//!   back (`settle`), before the clock could fill the buckets to the
//!   brim, so nothing is lost and nothing counted twice.
//! - Another CPU that finds a bucket short takes the lease back and looks
//!   again.
//! - A charge that loses a race is undone as a whole.
//!
//! A lease is given only while four times as much is left in the buckets, so
//! that the instant between charging and publishing it is never felt.

use crate::{
    atomic::{Word, Word32},
    bucket::Bucket,
    layout::{Former, Limit},
    standing::Standing,
    time::Time,
    verdict::{Budget, Outcome},
};

/// What a packet costs, or a lease holds: connections, packets and bytes in
/// one word, with a spare bit above each field to catch borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Tokens(u64);

const BORROWS: u64 = 1 << 63 | 1 << 47 | 1 << 31;

impl Tokens {
    /// More than a step can spend: a budget that does not exist.
    pub const UNLIMITED: Self = Self(!BORROWS);

    /// Fields are cut to 15, 15 and 31 bits.
    #[inline(always)]
    pub const fn new(connections: u32, packets: u32, bytes: u32) -> Self {
        Self(
            ((connections & 0x7fff) as u64) << 48
                | ((packets & 0x7fff) as u64) << 32
                | (bytes & 0x7fff_ffff) as u64,
        )
    }

    /// The fields in the order of [`Limit::buckets`].
    #[inline(always)]
    pub const fn fields(self) -> [u64; 3] {
        [
            self.0 >> 48 & 0x7fff,
            self.0 >> 32 & 0x7fff,
            self.0 & 0x7fff_ffff,
        ]
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word & !BORROWS)
    }

    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// True if it holds a connection.
    #[inline(always)]
    pub const fn is_connection(self) -> bool {
        self.0 >> 48 != 0
    }

    /// Bytes.
    #[inline(always)]
    pub const fn bytes(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }

    /// The rest without connections.
    #[inline(always)]
    const fn without_connections(self) -> Self {
        Self(self.0 & ((1 << 47) - 1))
    }

    /// Both together.
    #[inline(always)]
    const fn plus(self, other: Self) -> Self {
        Self::from_word(self.0 + other.0)
    }

    /// What is left after `cost`; `None` if any field is too small.
    #[inline(always)]
    pub(crate) const fn less(self, cost: Self) -> Option<Self> {
        let rest = (self.0 | BORROWS).wrapping_sub(cost.0);
        if rest & BORROWS == BORROWS {
            Some(Self(rest & !BORROWS))
        } else {
            None
        }
    }
}

/// What is asked of the buckets.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    /// What the packet costs.
    pub cost: Tokens,
    /// Take the next lease along: for the owner alone.
    pub lease: bool,
}

impl Charge {
    /// Both in one word: the lease in the spare bit above the bytes.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.cost.0 | if self.lease { 1 << 31 } else { 0 }
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            cost: Tokens::from_word(word),
            lease: word >> 31 & 1 == 1,
        }
    }
}

/// A CPU's copy of the state of one source under one limit. Zero is a source
/// never seen, its buckets full.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Entry {
    /// Arrival times of the buckets, in the owner's copy.
    arrivals: [Word; 3],
    /// The clock step of the lease that is out, its low half, in the owner's
    /// copy; 0: there is none.
    lease_step: Word32,
    /// The owner's number plus one (low half), in CPU 0's copy for all to find
    /// and in the others as they learnt it; the version of the limit under
    /// which the buckets stand (high half), in the owner's copy.
    seat: Word32,
    /// The generation for which `state` remembers the lists.
    generation: Word32,
    /// [`OWNED`], [`REMEMBERED`], [`LISTED_ALLOW`], [`LISTED_FROM`]; the last
    /// refusal's outcome in the top byte.
    state: Word32,
    /// The clock step in which this CPU last saw the source, its low half.
    seen_step: Word32,
    reserved: Word32,
    /// Packets that this CPU passed.
    passed: Word,
    /// Packets that this CPU dropped, or would have.
    dropped: Word,
}
const _: () = assert!(size_of::<Entry>() == 64);

/// This CPU owns the buckets.
pub const OWNED: u32 = 1;
/// `state` says what the lists say, for this generation.
pub const REMEMBERED: u32 = 1 << 1;
/// On the allow list.
pub const LISTED_ALLOW: u32 = 1 << 2;
/// Named by the limit's `from`, or the limit has none.
pub const LISTED_FROM: u32 = 1 << 3;

impl Entry {
    /// The copy that these words of a map hold, as user space reads them.
    #[cfg(not(target_arch = "bpf"))]
    pub const fn from_words(words: [u64; 8]) -> Self {
        let (lease_step, seat) = halves(words[3]);
        let (generation, state) = halves(words[4]);
        let (seen_step, reserved) = halves(words[5]);
        Self {
            arrivals: [
                Word::new(words[0]),
                Word::new(words[1]),
                Word::new(words[2]),
            ],
            lease_step: Word32::new(lease_step),
            seat: Word32::new(seat),
            generation: Word32::new(generation),
            state: Word32::new(state),
            seen_step: Word32::new(seen_step),
            reserved: Word32::new(reserved),
            passed: Word::new(words[6]),
            dropped: Word::new(words[7]),
        }
    }

    /// Packets passed and dropped (or would have been) by this copy's CPU.
    pub fn counts(&self) -> (u64, u64) {
        (self.passed.load(), self.dropped.load())
    }

    /// The index of the outcome of this CPU's last refusal
    /// ([`crate::verdict::Outcome`]); 0 where there was none.
    pub fn last_refusal(&self) -> u32 {
        self.state.load() >> 24
    }

    /// True if this copy's CPU last saw the source in `generation`: what it
    /// remembers is of the policy in force.
    #[inline(always)]
    pub fn is_current(&self, generation: u32) -> bool {
        self.generation.load() == generation
    }

    /// What the lists say, where it was remembered: the flags [`LISTED_ALLOW`]
    /// and [`LISTED_FROM`]. Only for an entry that [is current].
    ///
    /// [is current]: Entry::is_current
    #[inline(always)]
    pub fn remembered(&self) -> Option<u32> {
        let state = self.state.load();
        (state & REMEMBERED != 0).then_some(state)
    }

    /// Makes the entry current, with what `listed` says of the lists;
    /// [`REMEMBERED`] is among it if that holds for the whole source.
    #[inline(always)]
    pub fn remember(&self, generation: u32, listed: u32) {
        const BITS: u32 = REMEMBERED | LISTED_ALLOW | LISTED_FROM;
        self.generation.store(generation);
        self.state.store(self.state.load() & !BITS | listed & BITS);
    }

    /// Notes that this CPU sees the source; true if it did in this step before.
    #[inline(always)]
    pub fn see(&self, now: Time) -> bool {
        let before = self.seen_step.load();
        self.seen_step.store(now.step() as u32);
        before == now.step() as u32
    }

    /// Counts a packet.
    #[inline(always)]
    pub fn count_one(&self, outcome: Outcome) {
        let refused = u64::from(outcome.is_refusal());
        self.count(1 - refused, refused, outcome.index());
    }

    /// Counts packets that were let through and that were refused; why, if it is
    /// known, is the index of an outcome, else 0.
    #[inline(always)]
    pub fn count(&self, passed: u64, dropped: u64, outcome: u32) {
        self.passed.add_local(passed);
        if dropped != 0 {
            self.dropped.add_local(dropped);
            if outcome != 0 {
                let state = self.state.load();
                self.state.store(state & 0x00ff_ffff | outcome << 24);
            }
        }
    }

    /// True if the buckets are in this copy.
    #[inline(always)]
    pub fn is_owned(&self) -> bool {
        self.state.load() & OWNED != 0
    }

    /// The owner as this copy knows it.
    #[inline(always)]
    pub fn owner(&self) -> Option<u32> {
        (self.seat.load() & 0xffff).checked_sub(1)
    }

    /// Finds the owner in `directory`, CPU 0's copy, or takes the seat for
    /// `cpu`, whose copy this is. Returns the owner.
    #[inline(always)]
    pub fn claim(&self, directory: &Self, cpu: u32, version: u16) -> u32 {
        let mine = u32::from(version) << 16 | (cpu + 1) & 0xffff;
        // Before the directory points here, so that nobody finds the buckets
        // without their version.
        if !core::ptr::eq(self, directory) {
            self.seat.store(mine);
        }
        let owner = if directory.seat.replace(0, mine) {
            cpu
        } else {
            (directory.seat.load() & 0xffff).wrapping_sub(1)
        };
        if owner == cpu {
            self.state.store(self.state.load() | OWNED);
        } else if !core::ptr::eq(self, directory) {
            self.seat.store(owner.wrapping_add(1) & 0xffff);
        }
        owner
    }

    /// True if a lease may be out, in the owner's copy.
    #[inline(always)]
    pub fn has_lease(&self) -> bool {
        self.lease_step.load() != 0
    }

    /// Charges these buckets, the owner's. All budgets are checked before any
    /// is charged; a refused packet charges none. The error is the first
    /// budget that could not give.
    ///
    /// `standing` is the source's on the owner's CPU, if it has one: there the
    /// lease is. A charge of nothing puts back what is left of it.
    #[inline(always)]
    pub fn charge(
        &self,
        standing: Option<&Standing>,
        limit: &Limit,
        former: &Former,
        now: Time,
        Charge { cost, lease }: Charge,
    ) -> Result<(), Budget> {
        let step = now.step() as u32;
        self.convert(standing, limit, former, now);
        if lease || cost.word() == 0 || self.lease_step.load() != step {
            self.settle(standing, &limit.buckets, now);
        }
        if self.check(limit, now, cost).is_err() {
            self.settle(standing, &limit.buckets, now);
            self.check(limit, now, cost)?;
        }
        if let Some(standing) = standing
            && lease
            && limit.lease != 0
            && step != 0
        {
            let lent = self.room(limit, now, cost);
            if lent != Tokens::ZERO && self.commit(limit, now, cost, lent).is_ok() {
                standing.lend(lent);
                self.lease_step.store(step);
                return Ok(());
            }
        }
        self.commit(limit, now, cost, Tokens::ZERO)
    }

    /// The first budget that cannot give `cost`.
    #[inline(always)]
    fn check(&self, limit: &Limit, now: Time, cost: Tokens) -> Result<(), Budget> {
        let tokens = cost.fields();
        let mut i = 0;
        while i < BUDGETS.len() {
            let bucket = &limit.buckets[i];
            if bucket.exists()
                && tokens[i] != 0
                && (tokens[i] > bucket.burst_tokens
                    || !bucket.can_give(self.arrivals[i].load(), now, bucket.units(tokens[i])))
            {
                return Err(BUDGETS[i]);
            }
            i += 1;
        }
        Ok(())
    }

    /// What may be lent: four leases must be left in a bucket after `cost`. Where
    /// connections are too few, the other budgets are lent alone: most packets
    /// open none.
    #[inline(always)]
    fn room(&self, limit: &Limit, now: Time, cost: Tokens) -> Tokens {
        let tokens = cost.fields();
        let mut lent = Tokens::from_word(limit.lease);
        let mut i = 0;
        while i < BUDGETS.len() {
            let bucket = &limit.buckets[i];
            if bucket.exists()
                && bucket.lease_units != 0
                && !bucket.can_give(
                    self.arrivals[i].load(),
                    now,
                    bucket.units(tokens[i]) + 4 * bucket.lease_units,
                )
            {
                if i != 0 {
                    return Tokens::ZERO;
                }
                lent = lent.without_connections();
            }
            i += 1;
        }
        lent
    }

    /// Charges every bucket for the packet and what is lent, or none if another CPU
    /// emptied one meanwhile.
    #[inline(always)]
    fn commit(&self, limit: &Limit, now: Time, cost: Tokens, lent: Tokens) -> Result<(), Budget> {
        let (cost, lent) = (cost.fields(), lent.fields());
        let mut charged = [0; 3];
        let mut i = 0;
        while i < BUDGETS.len() {
            let bucket = &limit.buckets[i];
            let tokens = cost[i] + lent[i];
            if bucket.exists() && tokens != 0 {
                let units = bucket.units(tokens);
                if !advance(&self.arrivals[i], bucket, now, units) {
                    self.undo(&charged);
                    return Err(BUDGETS[i]);
                }
                charged[i] = units;
            }
            i += 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn undo(&self, charged: &[u64; 3]) {
        let mut i = 0;
        while i < charged.len() {
            if charged[i] != 0 {
                self.arrivals[i].fetch_add(charged[i].wrapping_neg());
            }
            i += 1;
        }
    }

    /// Puts what is left of the lease back into the buckets it came from. What
    /// lies in `standing` while the entry knows of no lease was lent by an entry
    /// that is gone, and stays there.
    ///
    /// From another CPU: should the place change hands just before it is read,
    /// the lease of its next holder is taken instead, at most as much as one of
    /// this limit.
    #[inline(always)]
    fn settle(&self, standing: Option<&Standing>, buckets: &[Bucket; 3], now: Time) {
        let step = self.lease_step.load();
        let Some(standing) = standing else {
            return;
        };
        if step == 0 {
            return;
        }
        let mut left = standing.take_back();
        // The note of a lease of an earlier step goes; what an owner that is late
        // has lent meanwhile is taken back as well, since its note goes too.
        if (now.step() as u32).wrapping_sub(step) as i32 > 0 && self.lease_step.replace(step, 0) {
            left = left.plus(standing.take_back());
        }
        if left == Tokens::ZERO {
            return;
        }
        let left = left.fields();
        let mut i = 0;
        while i < buckets.len() {
            let bucket = &buckets[i];
            if bucket.lease_units != 0 && left[i] != 0 {
                let most = bucket.lease_tokens as u64;
                let tokens = if left[i] < most { left[i] } else { most };
                self.arrivals[i].fetch_add(bucket.units_back(tokens).wrapping_neg());
            }
            i += 1;
        }
    }

    /// Brings buckets filled under older rates and bursts to those of `limit`:
    /// they keep their tokens, up to the new burst. Older than `former` keep
    /// the time until they are full, up to the new burst; those of another
    /// limit that had this slot are full.
    #[inline(always)]
    fn convert(&self, standing: Option<&Standing>, limit: &Limit, former: &Former, now: Time) {
        let seat = self.seat.load();
        let version = (seat >> 16) as u16;
        if version == limit.version
            || !self
                .seat
                .replace(seat, u32::from(limit.version) << 16 | seat & 0xffff)
        {
            return;
        }
        let known = former.version == version && former.version != 0;
        let same_name = version.wrapping_sub(limit.since) < 0x8000;
        if known {
            self.settle(standing, &former.buckets, now);
        } else if let Some(standing) = standing {
            let _ = standing.take_back();
        }
        let mut i = 0;
        while i < BUDGETS.len() {
            let arrival = self.arrivals[i].load();
            let new = if !same_name {
                0
            } else if known {
                limit.buckets[i].converted(&former.buckets[i], arrival, now)
            } else {
                let latest = now.units().wrapping_add(limit.buckets[i].burst_units);
                if arrival > latest { latest } else { arrival }
            };
            // Full is full whenever it was: never so early that what another CPU
            // gives back just now, charged under the old budgets, wraps around.
            let earliest = now.units();
            self.arrivals[i].store(if new > earliest { new } else { earliest });
            i += 1;
        }
    }
}

/// The two 32-bit fields that share a word of a map.
#[cfg(not(target_arch = "bpf"))]
pub(crate) const fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}

const BUDGETS: [Budget; 3] = [Budget::Connections, Budget::Packets, Budget::Bytes];

/// Moves an arrival time by `units` if the bucket can give them.
///
/// A bucket that is not full is charged with one addition, which no other CPU
/// can make fail; a full one is first brought to now. That replacement fails
/// only when another CPU has just done it.
#[inline(always)]
pub(crate) fn advance(arrival: &Word, bucket: &Bucket, now: Time, units: u64) -> bool {
    let mut tries = 0;
    while tries < 3 {
        let old = arrival.load();
        if old >= now.units() {
            break;
        }
        if units > bucket.burst_units {
            return false;
        }
        if arrival.replace(old, now.units().wrapping_add(units)) {
            return true;
        }
        tries += 1;
    }
    let old = arrival.fetch_add(units);
    if bucket.can_give(old, now, units) {
        return true;
    }
    arrival.fetch_add(units.wrapping_neg());
    false
}
