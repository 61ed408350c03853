//! What the verdict is made from, as the packet path asks for it.

use crate::{
    address::{Address, SourceKey},
    atomic::Word,
    block::{Block, BlockKey, KernelBlocks, Lengths},
    class::Class,
    entry::{Charge, Entry, Tokens},
    flood::{Admission, Aggregate, Gate, Newcomer, Recent},
    layout::{EntryKey, Former, Kind, Limit, LimitSet, Network, Policy},
    standing::{self, Standing},
    time::Time,
    verdict::Budget,
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
    /// The longest network around an address, in that generation.
    fn network(&self, kind: Kind, address: Address) -> Option<Self::Ref<'_, Network>>;

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
    /// A word of the stamps of known sources ([`crate::known`]).
    fn known(&self, word: u32) -> Option<Self::Ref<'_, Word>>;
    /// How many of these words there are, as a power of two; at least as many
    /// as sources.
    fn known_words_shift(&self) -> u32;
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

    /// The place of `key` among the standings of this CPU.
    fn standing(&self, key: &EntryKey) -> Option<Self::Ref<'_, Standing>>;
    /// The same among those of `cpu`.
    fn standing_of(&self, key: &EntryKey, cpu: u32) -> Option<Self::Ref<'_, Standing>>;
    /// [`standing::occupy`]. In the kernel a function that the verifier checks by itself,
    /// once.
    fn occupy(&self, standing: &Standing, key: &EntryKey, generation: u32, now: Time) -> bool {
        standing::occupy(self, standing, key, generation, now)
    }
    /// [`standing::release`]. Likewise.
    fn release(&self, standing: &Standing, generation: u32, now: Time) {
        standing::release(self, standing, generation, now);
    }
    /// [`Entry::charge`] under the limit in `slot` of `row`. Likewise.
    fn charge(
        &self,
        entry: &Entry,
        standing: Option<&Standing>,
        (row, slot): (u32, u32),
        now: Time,
        charge: Charge,
    ) -> Result<(), Budget> {
        let (Some(limit), Some(former)) = (self.limit(row, slot), self.former(row, slot)) else {
            return Ok(());
        };
        entry.charge(standing, &limit, &former, now, charge)
    }
    /// [`crate::blocked::search_blocks`]. Likewise.
    fn blocked(&self, source: Address, now: Time, slot: u32) -> Option<u32>;
    /// `value`, of which the verifier knows nothing any more: it follows the
    /// rest of the program once, not once for each way that leads here.
    fn opaque(&self, value: u32) -> u32 {
        value
    }
    /// True if the frame came in on `lo`.
    fn is_loopback(&self) -> bool;
}
