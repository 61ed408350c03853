//! One source under one limit: its buckets, exact over all CPUs.
//!
//! The entry lives in a per-CPU LRU map, so there is a copy for each CPU. The
//! CPU that sees the source first becomes the *owner*: its copy holds the
//! buckets, and every CPU charges them there. The owner does so through a
//! *lease*, a batch of tokens charged at once and then spent with one
//! uncontended compare-and-swap a packet; other CPUs charge packet by packet.
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
    time::Time,
    verdict::Budget,
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

    /// What is left after `cost`; `None` if any field is too small.
    #[inline(always)]
    const fn less(self, cost: Self) -> Option<Self> {
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
    /// The owner's lease, as [`Tokens`].
    lease: Word,
    /// Arrival times of the buckets, in the owner's copy.
    arrivals: [Word; 3],
    /// The clock step of the lease, its low half.
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
        let (lease_step, seat) = halves(words[4]);
        let (generation, state) = halves(words[5]);
        Self {
            lease: Word::new(words[0]),
            arrivals: [
                Word::new(words[1]),
                Word::new(words[2]),
                Word::new(words[3]),
            ],
            lease_step: Word32::new(lease_step),
            seat: Word32::new(seat),
            generation: Word32::new(generation),
            state: Word32::new(state),
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
    /// remembers and the lease that it holds are of the policy in force.
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

    /// Makes the entry current, with `listed` to remember if that holds for
    /// the whole source.
    #[inline(always)]
    pub fn remember(&self, generation: u32, listed: Option<u32>) {
        let state = self.state.load() & !(LISTED_ALLOW | LISTED_FROM | REMEMBERED);
        self.generation.store(generation);
        self.state.store(match listed {
            Some(listed) => state | REMEMBERED | listed,
            None => state,
        });
    }

    /// Counts a packet that was let through.
    #[inline(always)]
    pub fn count_passed(&self) {
        self.passed.add_local(1);
    }

    /// Counts a packet that was refused, and why.
    #[inline(always)]
    pub fn count_dropped(&self, outcome: u32) {
        self.dropped.add_local(1);
        let state = self.state.load();
        self.state.store(state & 0x00ff_ffff | outcome << 24);
    }

    /// Takes `cost` out of the lease. The common case, and the only one that
    /// must be cheap: this CPU owns the buckets and the lease is of this step.
    #[inline(always)]
    #[must_use]
    pub fn spend_lease(&self, now: Time, cost: Tokens) -> bool {
        if self.lease_step.load() != now.step() as u32 {
            return false;
        }
        let lease = self.lease.load();
        match Tokens(lease).less(cost) {
            Some(rest) => self.lease.replace(lease, rest.0),
            None => false,
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

    /// Charges these buckets, the owner's. All budgets are checked before any
    /// is charged; a refused packet charges none. The error is the first
    /// budget that could not give.
    #[inline(always)]
    pub fn charge(
        &self,
        limit: &Limit,
        former: &Former,
        now: Time,
        Charge { cost, lease }: Charge,
    ) -> Result<(), Budget> {
        self.convert(limit, former, now);
        if self.lease.load() != 0 && (lease || self.lease_step.load() != now.step() as u32) {
            self.settle(&limit.buckets);
        }
        if self.check(limit, now, cost).is_err() {
            if self.lease.load() != 0 {
                self.settle(&limit.buckets);
            }
            // Another CPU may have undone a charge meanwhile.
            self.check(limit, now, cost)?;
        }
        let lease = lease && limit.lease != 0 && self.has_room(limit, now, cost);
        self.commit(limit, now, cost, lease)?;
        if lease {
            self.lease_step.store(now.step() as u32);
            // A full barrier: nobody sees this lease with an older step.
            self.lease.swap(limit.lease);
        }
        Ok(())
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

    /// True if four leases are left in each bucket after `cost`.
    #[inline(always)]
    fn has_room(&self, limit: &Limit, now: Time, cost: Tokens) -> bool {
        let tokens = cost.fields();
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
                return false;
            }
            i += 1;
        }
        true
    }

    /// Charges every bucket, or none if another CPU emptied one meanwhile.
    #[inline(always)]
    fn commit(&self, limit: &Limit, now: Time, cost: Tokens, lease: bool) -> Result<(), Budget> {
        let tokens = cost.fields();
        let mut charged = [0; 3];
        let mut i = 0;
        while i < BUDGETS.len() {
            let bucket = &limit.buckets[i];
            let mut units = if tokens[i] == 0 {
                0
            } else {
                bucket.units(tokens[i])
            };
            if lease {
                units += bucket.lease_units;
            }
            if bucket.exists() && units != 0 {
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

    /// Puts what is left of the lease back into the buckets it came from.
    #[inline(always)]
    fn settle(&self, buckets: &[Bucket; 3]) {
        let left = Tokens::from_word(self.lease.swap(0)).fields();
        let mut i = 0;
        while i < buckets.len() {
            if buckets[i].lease_units != 0 && left[i] != 0 {
                self.arrivals[i].fetch_add(buckets[i].units_back(left[i]).wrapping_neg());
            }
            i += 1;
        }
    }

    /// Brings buckets filled under older rates and bursts to those of `limit`:
    /// they keep their tokens, up to the new burst. Older than `former` keep
    /// the time until they are full, up to the new burst; those of another
    /// limit that had this slot are full.
    #[inline(always)]
    fn convert(&self, limit: &Limit, former: &Former, now: Time) {
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
            self.settle(&former.buckets);
        } else {
            self.lease.store(0);
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
            self.arrivals[i].store(new);
            i += 1;
        }
    }
}

/// The two 32-bit fields that share a word of a map.
#[cfg(not(target_arch = "bpf"))]
const fn halves(word: u64) -> (u32, u32) {
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
