//! How a source stands on one CPU until the clock's next step: what it may
//! still spend, or what becomes of its packets anyway.
//!
//! The look-up in the table of sources is the dearest part of a packet's way.
//! A source that sends more than one packet a clock step to a CPU does without
//! it from the second packet on: its *standing* is kept in a small array of
//! that CPU, at a place that it shares with the others of the same hash.
//!
//! - A *lease* is taken out of the buckets by the CPU that owns them
//!   ([`crate::entry`]) and spent here.
//! - A *ruling* repeats itself: an address stays allowed for the generation, no
//!   bucket is refilled within a step, and no block runs out within one. (One that an operator ends is felt from the next step on.)
//! - Packets are counted here and added to the entry when the place is released:
//!   at the source's first packet of a later step or generation, or when another
//!   source takes the place, in a later step too, so that no two can push each
//!   other out by turns.
//!
//! It holds for one generation and one step, and only a packet that took the
//! whole way through lists, blocks and limits in both leaves it.

use crate::{
    address::Address,
    atomic::{Word, Word32},
    entry::{Charge, Tokens},
    layout::{EntryKey, row},
    tables::Tables,
    time::Time,
    verdict::Outcome,
};

/// Places on each CPU: with 64 bytes each, within reach of the second-level
/// cache.
pub const STANDINGS: u32 = 1 << 10;

/// The place of a source under a limit.
#[inline(always)]
pub const fn standing_place(key: &EntryKey, seed: u64) -> u32 {
    // As in `crate::filter`: the upper bits of a product with a secret odd
    // number, each part of the key with its own.
    let source = key.source().0.wrapping_mul(seed | 1);
    let limit = (key.limit as u64).wrapping_mul(seed.rotate_left(32) | 1);
    (source.wrapping_add(limit) >> 54) as u32 & (STANDINGS - 1)
}

/// One place. Its CPU alone writes it, but for `lease`, which others may take
/// back.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Standing {
    /// What is left of the lease, as [`Tokens`].
    lease: Word,
    /// Whose: [`crate::address::SourceKey`].
    source: Word,
    /// The slot of the limit, or [`crate::verdict::NO_LIMIT`], plus one; 0:
    /// nobody has the place.
    limit: Word32,
    /// For which generation.
    generation: Word32,
    /// For which clock step, its low half.
    step: Word32,
    /// [`Scope`], limit and outcome, from the top byte on; 0: none.
    ruling: Word32,
    /// Ruled over is a packet of at least as many bytes.
    bytes_min: Word32,
    /// Packets refused here that the entry does not know of.
    dropped: Word32,
    /// Packets passed here that the entry does not know of.
    passed: Word,
    /// The address that is ruled over, with [`Scope::Listed`] and [`Scope::Blocked`].
    address: [Word; 2],
}
const _: () = assert!(size_of::<Standing>() == 64);

/// Which packets a ruling is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// No other than this one.
    Packet = 0,
    /// Connection attempts.
    Connections = 1,
    /// Packets that are none.
    Others = 2,
    /// All of one address, which is on the allow list.
    Listed = 3,
    /// Those of one address for which blocks hold.
    Blocked = 4,
}

impl Scope {
    /// All of the same kind.
    #[inline(always)]
    pub const fn like(cost: Tokens) -> Self {
        if cost.is_connection() {
            Self::Connections
        } else {
            Self::Others
        }
    }
}

impl Standing {
    /// The place that these words of a map hold, as user space reads them.
    #[cfg(not(target_arch = "bpf"))]
    pub const fn from_words(words: [u64; 8]) -> Self {
        use crate::entry::halves;
        let (limit, generation) = halves(words[2]);
        let (step, ruling) = halves(words[3]);
        let (bytes_min, dropped) = halves(words[4]);
        Self {
            lease: Word::new(words[0]),
            source: Word::new(words[1]),
            limit: Word32::new(limit),
            generation: Word32::new(generation),
            step: Word32::new(step),
            ruling: Word32::new(ruling),
            bytes_min: Word32::new(bytes_min),
            dropped: Word32::new(dropped),
            passed: Word::new(words[5]),
            address: [Word::new(words[6]), Word::new(words[7])],
        }
    }

    /// Whose it is: the key of the entry.
    #[inline(always)]
    pub fn key(&self) -> EntryKey {
        let source = self.source.load();
        EntryKey {
            source: [(source >> 32) as u32, source as u32],
            limit: self.limit.load().wrapping_sub(1),
        }
    }

    /// True if it is that of `key`.
    #[inline(always)]
    pub fn is_of(&self, key: &EntryKey) -> bool {
        self.source.load() == key.source().0 && self.limit.load() == key.limit + 1
    }

    /// True if it holds in `generation`, now.
    #[inline(always)]
    pub fn is_current(&self, generation: u32, now: Time) -> bool {
        self.is_busy(now) && self.generation.load() == generation
    }

    /// True if it is nobody's.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.limit.load() == 0
    }

    /// True if its source was here in this step.
    #[inline(always)]
    pub fn is_busy(&self, now: Time) -> bool {
        self.step.load() == now.step() as u32
    }

    /// Takes `cost` out of the lease; false if there is not as much.
    #[inline(always)]
    #[must_use]
    pub fn spend(&self, cost: Tokens) -> bool {
        let lease = self.lease.load();
        match Tokens::from_word(lease).less(cost) {
            Some(rest) => self.lease.replace(lease, rest.word()),
            None => false,
        }
    }

    /// Counts a packet that was let through.
    #[inline(always)]
    pub fn count_passed(&self) {
        self.passed.add_local(1);
    }

    /// What becomes of a packet of `cost` from `address`, by a ruling, counted.
    /// `may_be_blocked`: a block may hold, before any limit does.
    #[inline(always)]
    pub fn ruled(
        &self,
        address: Address,
        cost: Tokens,
        may_be_blocked: bool,
    ) -> Option<(Outcome, u32)> {
        let word = self.ruling.load();
        let scope = word >> 24;
        let holds = if scope >= Scope::Listed as u32 {
            self.address[0].load() == address.hi
                && self.address[1].load() == address.lo
                && (may_be_blocked || scope == Scope::Listed as u32)
        } else {
            scope == Scope::like(cost) as u32
                && !may_be_blocked
                && cost.bytes() >= self.bytes_min.load()
        };
        if !holds {
            return None;
        }
        let outcome = Outcome::from_byte(word as u8);
        if outcome.is_refusal() {
            self.dropped.store(self.dropped.load().wrapping_add(1));
        } else {
            self.count_passed();
        }
        Some((outcome, word >> 8 & 0xffff))
    }

    /// Gives a free place to `key` for this step and generation.
    #[inline(always)]
    pub fn assign(&self, key: &EntryKey, generation: u32, now: Time) {
        self.ruling.store(0);
        self.source.store(key.source().0);
        self.limit.store(key.limit + 1);
        self.generation.store(generation);
        self.step.store(now.step() as u32);
    }

    /// Frees the place; what was on it is lost.
    #[inline(always)]
    pub fn clear(&self) {
        self.lease.swap(0);
        self.limit.store(0);
        self.step.store(0);
        self.passed.store(0);
        self.dropped.store(0);
    }

    /// Rules that what became of the packet of `cost` from `address` becomes of
    /// all in `scope`; where it had too many bytes, of those with as many.
    #[inline(always)]
    pub fn rule(
        &self,
        scope: Scope,
        address: Address,
        cost: Tokens,
        (outcome, limit): (Outcome, u32),
    ) {
        self.address[0].store(address.hi);
        self.address[1].store(address.lo);
        self.bytes_min.store(match outcome.is_of_bytes() {
            true => cost.bytes(),
            false => 0,
        });
        self.ruling
            .store((scope as u32) << 24 | limit << 8 | outcome.index());
    }

    /// Lets a lease be spent.
    #[inline(always)]
    pub(crate) fn lend(&self, tokens: Tokens) {
        // A full barrier: nobody sees these tokens under the key before.
        self.lease.swap(tokens.word());
    }

    /// Takes back what is left of the lease.
    #[inline(always)]
    pub(crate) fn take_back(&self) -> Tokens {
        Tokens::from_word(self.lease.swap(0))
    }

    /// True if something is left of a lease.
    #[inline(always)]
    pub fn has_lease(&self) -> bool {
        self.lease.load() != 0
    }

    /// Packets counted here: passed, dropped, and the index of the outcome of the
    /// latter (0: it is not known any more).
    #[inline(always)]
    pub fn counts(&self) -> (u64, u64, u32) {
        (
            self.passed.load(),
            u64::from(self.dropped.load()),
            match Outcome::from_byte(self.ruling.load() as u8) {
                outcome if outcome.is_refusal() => outcome.index(),
                _ => 0,
            },
        )
    }
}

/// Gives the place of a standing to `key`, unless another source has it in this
/// clock step.
#[inline(always)]
pub fn occupy<T: Tables + ?Sized>(
    tables: &T,
    standing: &Standing,
    key: &EntryKey,
    generation: u32,
    now: Time,
) -> bool {
    if standing.is_of(key) {
        return true;
    }
    if standing.is_busy(now) {
        return false;
    }
    if !standing.is_free() {
        release(tables, standing, generation, now);
    }
    standing.assign(key, generation, now);
    true
}

/// Frees the place of a standing for another source or step: the entry gets
/// what was counted there, and its buckets what is left of the lease.
#[inline(always)]
pub fn release<T: Tables + ?Sized>(tables: &T, standing: &Standing, generation: u32, now: Time) {
    let key = standing.key();
    let (passed, dropped, outcome) = standing.counts();
    if (standing.has_lease() || passed + dropped != 0)
        && let Some(entry) = tables.entry(&key)
    {
        entry.count(passed, dropped, outcome);
        if standing.has_lease() && entry.is_owned() {
            let settle = Charge {
                cost: Tokens::ZERO,
                lease: false,
            };
            let place = (row(generation), key.limit);
            // A charge of nothing is never refused.
            let _ = tables.charge(&entry, Some(standing), place, now, settle);
        }
    }
    standing.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::SourceKey;

    /// `::1` is a source whose key is nothing but zeros.
    #[test]
    fn a_free_place_is_nobodys() {
        let standing = Standing::default();
        let loopback = EntryKey::new(SourceKey(0), 0);
        assert!(standing.is_free() && !standing.is_of(&loopback));
        standing.assign(&loopback, 1, Time::new(7, 1));
        assert!(!standing.is_free() && standing.is_of(&loopback));
        assert_eq!(standing.key(), loopback);
        standing.clear();
        assert!(standing.is_free() && !standing.is_of(&loopback));
    }

    #[test]
    fn a_free_place_is_not_refused() {
        let standing = Standing::default();
        let cost = Tokens::new(0, 1, 60);
        assert!(!standing.spend(cost));
        assert_eq!(standing.ruled(Address::v6(0, 0), cost, true), None);
        assert_eq!(standing.ruled(Address::v6(0, 0), cost, false), None);
    }
}
