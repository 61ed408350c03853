//! The maps, and the verbs that `judge` knows them by.
//!
//! Sizes that depend on the policy or the machine are set when the object is
//! loaded; those given here are the smallest that load.

use crate::{
    clock::{self, Reading},
    memo,
};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LpmTrie, LruPerCpuHashMap, PerCpuArray, lpm_trie::Key},
    helpers::{bpf_get_smp_processor_id, generated::bpf_map_lookup_percpu_elem},
    macros::btf_map,
    programs::XdpContext,
};
use aya_log_ebpf::info;
use limiter_common::{
    address::{Address, Family, SourceKey},
    atomic::Word,
    block::{Block, BlockKey, KernelBlocks, Lengths, kernel_place},
    blocked::search_blocks,
    class::{CANDIDATES, CLASSES, Class},
    entry::{Charge, Entry, Tokens},
    filter::FILTER_WORDS,
    flood::{self, AGGREGATES, Admission, Aggregate, Gate, Newcomer, Recent},
    layout::{
        Active, EntryKey, Former, INTERFACE_PLACES, Interface, Kind, LIMITS, LOOPBACK, Limit,
        LimitSet, Network, NetworkKey, Policy, Tally, interface_place, row,
    },
    sample::Refusals,
    standing::{STANDINGS, Standing, occupy, release, standing_place},
    tables::Tables,
    time::Time,
    total::Total,
    verdict::{Budget, Outcome, Verdict},
};

const ROWS: usize = 2;

/// Values begin on a page, and so keep to their cache lines: those of other
/// arrays are only aligned to 8 bytes. It is also what lets user space map
/// them.
const LINES: usize = BPF_F_MMAPABLE as usize;

/// Counters of one interface.
const TALLIES: u32 = (LIMITS as u32 + 1) * Outcome::COUNT;

#[btf_map]
static ACTIVE: Array<Active, 1> = Array::new();
#[btf_map]
static POLICIES: Array<Policy, ROWS> = Array::new();
#[btf_map]
static CLASS: Array<Class, { ROWS * CLASSES as usize }> = Array::new();
#[btf_map]
static CANDIDATE: Array<LimitSet, { ROWS * CANDIDATES as usize }> = Array::new();
#[btf_map]
static LIMIT: Array<Limit, { ROWS * LIMITS }> = Array::new();
#[btf_map]
static FORMER: Array<Former, { ROWS * LIMITS }> = Array::new();
#[btf_map]
static NETWORKS: LpmTrie<NetworkKey, Network, 1024> = LpmTrie::new();

#[btf_map]
static ENTRIES: LruPerCpuHashMap<EntryKey, Entry, 1024> = LruPerCpuHashMap::new();

#[btf_map]
static STANDING: PerCpuArray<Standing, { STANDINGS as usize }> = PerCpuArray::new();

#[btf_map]
static GATES: Array<Gate, 2, LINES> = Array::new();
#[btf_map]
static RECENT: Array<Recent, 1, LINES> = Array::new();
#[btf_map]
static KNOWN: Array<Word, 1, LINES> = Array::new();
#[btf_map]
static AGGREGATE: Array<Aggregate, { AGGREGATES as usize }, LINES> = Array::new();
#[btf_map]
static TOTALS: Array<Total, LIMITS, LINES> = Array::new();

#[btf_map]
static LENGTHS: Array<Lengths, 1> = Array::new();
#[btf_map]
static FILTER: Array<Word, { FILTER_WORDS as usize }, LINES> = Array::new();
#[btf_map]
static BLOCKS: HashMap<BlockKey, Block, 1024> = HashMap::new();
#[btf_map]
static KERNEL_BLOCKS: Array<KernelBlocks, 1> = Array::new();

#[btf_map]
static CONTROL: Array<Word, 1> = Array::new();
#[btf_map]
static INTERFACES: Array<Interface, { INTERFACE_PLACES as usize }> = Array::new();
#[btf_map]
static TALLY: PerCpuArray<Tally, { TALLIES as usize }> = PerCpuArray::new();

/// A test's clock step, then what [`publish_clock`] wrote.
#[btf_map]
static CLOCK: Array<u64, 3> = Array::new();

/// Keys the filter's hash and the places of kernel blocks; random per load.
#[unsafe(no_mangle)]
static SEED: u64 = 0;

/// Places in `KERNEL_BLOCKS`, a power of two.
#[unsafe(no_mangle)]
static KERNEL_PLACES: u32 = 1;

/// Lines in `RECENT`, a power of two.
#[unsafe(no_mangle)]
static RECENT_LINES: u32 = 1;

/// Words in `KNOWN`, as a power of two.
#[unsafe(no_mangle)]
static KNOWN_WORDS_SHIFT: u32 = 0;

/// 1: log every packet.
#[unsafe(no_mangle)]
static TRACE: u32 = 0;

/// The tables as one packet sees them.
pub struct Maps {
    generation: u32,
    zero: u32,
    interface: Interface,
}

impl Maps {
    /// Reads the generation, once, and which interface the frame came in on.
    #[inline(always)]
    pub fn new(ctx: &XdpContext, now: Time) -> Self {
        // SAFETY: the context is the one the kernel passed.
        let index = unsafe { (*ctx.ctx).ingress_ifindex };
        let active = ACTIVE.get(0).copied().unwrap_or_default();
        let place = interface_place(index, active.interface_factor);
        let interface = match INTERFACES.get(place) {
            Some(interface) if interface.index == index => *interface,
            _ => Interface::default(),
        };
        Self {
            generation: active.in_force(now.step()),
            zero: active.zero,
            interface,
        }
    }

    /// The tables where no frame is at hand.
    #[inline(always)]
    fn without_frame(now: Time) -> Self {
        let active = ACTIVE.get(0).copied().unwrap_or_default();
        Self {
            generation: active.in_force(now.step()),
            zero: active.zero,
            interface: Interface::default(),
        }
    }

    /// Counts a verdict. The one place where packets are counted.
    #[inline(always)]
    pub fn count(&self, verdict: Verdict) {
        let index = u32::from(self.interface.row) * TALLIES
            + verdict.limit * Outcome::COUNT
            + verdict.outcome.index();
        if let Some(tally) = TALLY.get_ptr_mut(index) {
            // SAFETY: this CPU's own value, and nothing else runs on it until
            // the program returns.
            let tally = unsafe { &mut *tally };
            tally.packets += 1;
            tally.bytes += u64::from(verdict.bytes);
        }
    }
}

impl Tables for Maps {
    type Ref<'a, T: 'a> = &'a T;

    #[inline(always)]
    fn generation(&self) -> u32 {
        self.generation
    }

    #[inline(always)]
    fn policy(&self) -> Option<&Policy> {
        POLICIES.get(row(self.generation))
    }

    #[inline(always)]
    fn class(&self, row: u32, index: u32) -> Class {
        CLASS
            .get(row * CLASSES + index)
            .copied()
            .unwrap_or(Class::NONE)
    }

    #[inline(always)]
    fn candidates(&self, row: u32, set: u32) -> Option<&LimitSet> {
        CANDIDATE.get(row * CANDIDATES + set)
    }

    #[inline(always)]
    fn limit(&self, row: u32, slot: u32) -> Option<&Limit> {
        LIMIT.get(row * LIMITS as u32 + slot)
    }

    #[inline(always)]
    fn former(&self, row: u32, slot: u32) -> Option<&Former> {
        FORMER.get(row * LIMITS as u32 + slot)
    }

    #[inline(always)]
    fn network(&self, kind: Kind, address: Address) -> Option<&Network> {
        memo::network(self.generation, self.seed(), kind, address)
    }

    #[inline(always)]
    fn entry(&self, key: &EntryKey) -> Option<&Entry> {
        // SAFETY: an entry is made of atomics, so that a value recycled for
        // another source under our hands is at worst charged one packet.
        unsafe { ENTRIES.get(key) }
    }

    #[inline(always)]
    fn create_entry(&self, key: &EntryKey) -> Option<&Entry> {
        // Whether this succeeded or another CPU was faster, the look-up tells.
        let _ = ENTRIES.insert(key, Entry::default(), u64::from(BPF_NOEXIST));
        self.entry(key)
    }

    #[inline(always)]
    fn entry_of(&self, key: &EntryKey, cpu: u32) -> Option<&Entry> {
        // SAFETY: map and key are of the types that the map was made with.
        let value = unsafe {
            bpf_map_lookup_percpu_elem(
                (&raw const ENTRIES).cast_mut().cast(),
                (&raw const *key).cast(),
                cpu,
            )
        };
        // SAFETY: null or a value of this map; see `entry`.
        unsafe { value.cast::<Entry>().as_ref() }
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_get_smp_processor_id() }
    }

    #[inline(always)]
    fn gate(&self, kind: u32) -> Option<&Gate> {
        GATES.get(kind)
    }

    #[inline(always)]
    fn known(&self, word: u32) -> Option<&Word> {
        KNOWN.get(word)
    }

    #[inline(always)]
    fn known_words_shift(&self) -> u32 {
        // SAFETY: a global of the object, set before it is loaded.
        unsafe { core::ptr::read_volatile(&KNOWN_WORDS_SHIFT) }
    }

    #[inline(always)]
    fn recent_lines(&self) -> u32 {
        // SAFETY: a global of the object, set before it is loaded.
        unsafe { core::ptr::read_volatile(&RECENT_LINES) }
    }

    #[inline(always)]
    fn recent(&self, line: u32) -> Option<&Recent> {
        RECENT.get(line)
    }

    #[inline(always)]
    fn aggregate(&self, place: u32) -> Option<&Aggregate> {
        AGGREGATE.get(place)
    }

    #[inline(always)]
    fn admission(&self, newcomer: Newcomer, now: Time) -> Admission {
        // Without the call: in a flood it is most of what is done here.
        let refusal = GATES
            .get(newcomer.kind as u32)
            .and_then(|gate| gate.refusal(newcomer, now));
        if let Some(refusal) = refusal {
            return refusal;
        }
        match admit_source(newcomer.source.0, newcomer.word(), now.step()) {
            0 => Admission::Enter,
            1 => Admission::Pass,
            _ => Admission::Refuse,
        }
    }

    #[inline(always)]
    fn charge_total(&self, limit: &Limit, slot: u32, now: Time, cost: Tokens) -> bool {
        charge_total(limit, slot, now.step(), cost.word()) != 0
    }

    #[inline(always)]
    fn refund_total(&self, limit: &Limit, slot: u32, now: Time, cost: Tokens) {
        let _ = charge_total(limit, slot, now.step(), cost.word() | REFUND);
    }

    #[inline(always)]
    fn lengths(&self) -> Option<&Lengths> {
        LENGTHS.get(0)
    }

    #[inline(always)]
    fn filter(&self, word: u32) -> Option<&Word> {
        FILTER.get(word)
    }

    #[inline(always)]
    fn block(&self, key: &BlockKey) -> Option<&Block> {
        // SAFETY: read at once; a block replaced meanwhile is judged as
        // either of the two.
        unsafe { BLOCKS.get(key) }
    }

    #[inline(always)]
    fn kernel_blocks(&self, source: SourceKey) -> Option<&KernelBlocks> {
        // SAFETY: a global of the object, set before it is loaded.
        let places = unsafe { core::ptr::read_volatile(&KERNEL_PLACES) };
        KERNEL_BLOCKS.get(kernel_place(source, self.seed(), places))
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        // SAFETY: a global of the object, set before it is loaded.
        unsafe { core::ptr::read_volatile(&SEED) }
    }

    #[inline(always)]
    fn control(&self) -> Option<&Word> {
        CONTROL.get(0)
    }

    #[inline(always)]
    fn standing(&self, key: &EntryKey) -> Option<&Standing> {
        let place = STANDING.get_ptr(standing_place(key, self.seed()))?;
        // SAFETY: a value of the map, made of atomics.
        Some(unsafe { &*place })
    }

    #[inline(always)]
    fn standing_of(&self, key: &EntryKey, cpu: u32) -> Option<&Standing> {
        let place = standing_place(key, self.seed());
        // SAFETY: map and key are of the types that the map was made with.
        let value = unsafe {
            bpf_map_lookup_percpu_elem(
                (&raw const STANDING).cast_mut().cast(),
                (&raw const place).cast(),
                cpu,
            )
        };
        // SAFETY: null or a value of this map, made of atomics.
        unsafe { value.cast::<Standing>().as_ref() }
    }

    #[inline(always)]
    fn occupy(&self, standing: &Standing, key: &EntryKey, generation: u32, now: Time) -> bool {
        let about = u64::from(key.limit) << 32 | u64::from(generation);
        occupy_standing(standing, key.source().0, about, now.step()) != 0
    }

    #[inline(always)]
    fn release(&self, standing: &Standing, generation: u32, now: Time) {
        let _ = release_standing(standing, generation, now.step());
    }

    #[inline(always)]
    fn charge(
        &self,
        entry: &Entry,
        standing: Option<&Standing>,
        (row, slot): (u32, u32),
        now: Time,
        charge: Charge,
    ) -> Result<(), Budget> {
        let standing = match standing {
            Some(standing) => &raw const *standing,
            None => core::ptr::null(),
        };
        let place = row * LIMITS as u32 + slot;
        match charge_entry(entry, standing, place, now.step(), charge.word()) {
            0 => Ok(()),
            1 => Err(Budget::Connections),
            2 => Err(Budget::Packets),
            _ => Err(Budget::Bytes),
        }
    }

    #[inline(always)]
    fn blocked(&self, source: Address, now: Time, slot: u32) -> Option<u32> {
        let found = find_block(source.hi, source.lo, source.family as u32, slot, now.step());
        (found != NOT_BLOCKED).then_some(found)
    }

    #[inline(always)]
    fn opaque(&self, value: u32) -> u32 {
        value | self.zero
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        self.interface.flags & LOOPBACK != 0
    }
}

/// `Entry::charge`: 0, or the number of the budget that could not give.
///
/// A global function: the verifier follows it once, for any arguments, and not
/// again for each way that leads to a call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_entry(
    entry: *const Entry,
    standing: *const Standing,
    limit: u32,
    step: u64,
    charge: u64,
) -> u32 {
    // SAFETY: null or a map value of this type.
    let entry = unsafe { entry.as_ref() };
    // SAFETY: as above.
    let standing = unsafe { standing.as_ref() };
    let (Some(entry), Some(limit), Some(former)) = (entry, LIMIT.get(limit), FORMER.get(limit))
    else {
        return 0;
    };
    let charge = Charge::from_word(charge);
    match entry.charge(standing, limit, former, clock::at(step), charge) {
        Ok(()) => 0,
        Err(budget) => budget as u32,
    }
}

/// `standing::occupy`, likewise global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn occupy_standing(
    standing: *const Standing,
    source: u64,
    about: u64,
    step: u64,
) -> u32 {
    // SAFETY: null or a map value of this type.
    let Some(standing) = (unsafe { standing.as_ref() }) else {
        return 0;
    };
    let key = EntryKey::new(SourceKey(source), (about >> 32) as u32);
    let now = clock::at(step);
    let maps = Maps::without_frame(now);
    u32::from(occupy(&maps, standing, &key, about as u32, now))
}

/// `standing::release`, likewise global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn release_standing(standing: *const Standing, generation: u32, step: u64) -> u32 {
    // SAFETY: null or a map value of this type.
    if let Some(standing) = unsafe { standing.as_ref() } {
        let now = clock::at(step);
        release(&Maps::without_frame(now), standing, generation, now);
    }
    0
}

/// In the word of a cost: it is given back.
const REFUND: u64 = 1 << 31;

/// `Total::charge` and `Total::refund`: 0 if a bucket could not give. Likewise
/// global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_total(limit: *const Limit, slot: u32, step: u64, cost: u64) -> u32 {
    // SAFETY: null or a map value of this type.
    let limit = unsafe { limit.as_ref() };
    let (Some(limit), Some(total)) = (limit, TOTALS.get(slot)) else {
        return 1;
    };
    let tokens = Tokens::from_word(cost);
    if cost & REFUND != 0 {
        total.refund(&limit.total, tokens);
        return 1;
    }
    u32::from(total.charge(&limit.total, clock::at(step), tokens))
}

/// `flood::admit`, likewise global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit_source(source: u64, newcomer: u32, step: u64) -> u32 {
    let now = clock::at(step);
    let maps = Maps::without_frame(now);
    let Some(policy) = maps.policy() else {
        return Admission::Enter as u32;
    };
    let newcomer = Newcomer::from_word(SourceKey(source), newcomer);
    flood::admit(&maps, &policy.flood, newcomer, now) as u32
}

const NOT_BLOCKED: u32 = u32::MAX;

/// `search_blocks`, likewise global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_block(hi: u64, lo: u64, family: u32, slot: u32, step: u64) -> u32 {
    let source = if family == Family::Ipv4 as u32 {
        Address {
            family: Family::Ipv4,
            hi,
            lo,
        }
    } else {
        Address::v6(hi, lo)
    };
    let now = clock::at(step);
    search_blocks(&Maps::without_frame(now), source, now, slot).unwrap_or(NOT_BLOCKED)
}

/// The refused packets of which samples are wanted. Looked up anew and not kept
/// since the packet began: those that pass must not carry it along.
#[inline(always)]
pub fn sampled() -> Refusals {
    match ACTIVE.get(0) {
        Some(active) => active.sampled,
        None => Refusals::NONE,
    }
}

/// The trie's own answer: the longest network around an address.
#[inline(always)]
pub fn longest_network(row: u32, kind: Kind, address: Address) -> Option<&'static Network> {
    let key = NetworkKey::new(row, kind, address);
    NETWORKS.get(&Key::new(NetworkKey::host_bits(address.family), key))
}

/// The clock step that a test wrote.
#[inline(always)]
pub fn test_step() -> u64 {
    CLOCK.get(0).copied().unwrap_or_default()
}

/// Leaves a reading where user space finds it.
#[inline(always)]
pub fn publish_clock(reading: Reading) {
    if let (Some(step), Some(ns)) = (CLOCK.get_ptr_mut(1), CLOCK.get_ptr_mut(2)) {
        // SAFETY: an element of the array.
        unsafe { *step = reading.step };
        // SAFETY: as above.
        unsafe { *ns = reading.ns };
    }
}

/// Logs a verdict if the program was loaded to; otherwise the verifier removes
/// all of it.
#[inline(always)]
pub fn trace(ctx: &XdpContext, verdict: Verdict) {
    // SAFETY: a global of the object, set before it is loaded.
    if unsafe { core::ptr::read_volatile(&TRACE) } != 0 {
        info!(
            ctx,
            "outcome {} limit {} bytes {}",
            verdict.outcome.index(),
            verdict.limit,
            verdict.bytes
        );
    }
}
