//! One limit and one source's entry in memory, and the ideal to compare with.

use limiter_common::{
    address::{Address, SourceKey, source_mask},
    atomic::Word,
    block::{Block, BlockKey, KernelBlocks, Lengths},
    bucket::Bucket,
    class::{Class, Match},
    entry::{Entry, Tokens},
    flood::{Admission, Aggregate, FloodRules, Gate, Newcomer, Recent},
    judge::judge,
    layout::{ENFORCE, EntryKey, Former, Kind, Limit, LimitSet, Network, Policy},
    packet::Slice,
    standing::Standing,
    tables::Tables,
    time::{Time, UNITS_PER_NS},
    verdict::{Action, Budget},
};

/// A budget as a policy has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) amount: u64,
    pub(crate) per_ns: u64,
    pub(crate) burst: u64,
}

/// The budgets of a limit, in their order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budgets {
    pub(crate) connections: Option<Rate>,
    pub(crate) packets: Option<Rate>,
    pub(crate) bytes: Option<Rate>,
}

impl Budgets {
    pub(crate) fn packets(rate: Rate) -> Self {
        Self {
            packets: Some(rate),
            ..Self::default()
        }
    }

    fn rates(&self) -> [Option<Rate>; 3] {
        [self.connections, self.packets, self.bytes]
    }

    pub(crate) fn packets_per_step(&self, step_ns: u64) -> f64 {
        let rate = self.packets.unwrap();
        rate.amount as f64 / rate.per_ns as f64 * step_ns as f64
    }
}

/// What a packet costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) connection: bool,
    pub(crate) bytes: u32,
}

impl Cost {
    pub(crate) const PACKET: Self = Self {
        connection: false,
        bytes: 60,
    };

    fn tokens(self) -> [u64; 3] {
        [u64::from(self.connection), 1, u64::from(self.bytes)]
    }

    /// An IPv4 TCP frame that costs this.
    fn frame(self) -> [u8; 1514] {
        let mut frame = [0; 1514];
        frame[12] = 8;
        frame[14] = 0x45;
        let total = u16::try_from(self.bytes - 14).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[23] = 6;
        frame[26] = 192;
        frame[47] = if self.connection { 2 } else { 16 };
        frame
    }
}

/// Sources that have entries.
pub(crate) const SOURCES: u32 = 4;

/// One limit that every packet matches, and the entries of some sources on
/// every CPU. On each CPU they share one place for their standings.
pub(crate) struct Rig {
    cpus: u32,
    /// By source, and each by CPU.
    entries: Vec<Entry>,
    standings: Vec<Standing>,
    policy: Policy,
    pub(crate) limit: Limit,
    pub(crate) former: Former,
}

impl Rig {
    pub(crate) fn new(cpus: u32, budgets: &Budgets) -> Self {
        // As the control plane would.
        let leases = [64, 64, 65_536];
        let mut buckets = [Bucket::NONE; 3];
        for (i, rate) in budgets.rates().into_iter().enumerate() {
            if let Some(rate) = rate {
                buckets[i] = Bucket::new(rate.amount, rate.per_ns, rate.burst, leases[i]).unwrap();
            }
        }
        let mut rig = Self {
            cpus,
            entries: (0..SOURCES * cpus).map(|_| Entry::default()).collect(),
            standings: (0..cpus).map(|_| Standing::default()).collect(),
            policy: policy(),
            limit: Limit {
                buckets,
                total: [Bucket::NONE; 3],
                lease: 0,
                block_steps: 0,
                flags: 0,
                version: 1,
                since: 1,
            },
            former: Former::default(),
        };
        rig.limit.lease = lease(&rig.limit.buckets);
        rig
    }

    pub(crate) fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Makes room for another source: the entries of `source` are new again.
    pub(crate) fn evict(&mut self, source: u8) {
        for cpu in 0..self.cpus {
            let place = u32::from(source) * self.cpus + cpu;
            self.entries[place as usize] = Entry::default();
        }
    }

    /// True if something is left of a lease on `cpu`.
    pub(crate) fn has_lease(&self, cpu: u32) -> bool {
        self.standings[cpu as usize].has_lease()
    }

    /// Judges a packet of the first source that arrives on `cpu`.
    pub(crate) fn offer(&self, cpu: u32, now: Time, cost: Cost) -> Result<(), Budget> {
        self.offer_from(0, cpu, now, cost)
    }

    /// Judges a packet of `source`, one of [`SOURCES`].
    pub(crate) fn offer_from(
        &self,
        source: u8,
        cpu: u32,
        now: Time,
        cost: Cost,
    ) -> Result<(), Budget> {
        let mut frame = cost.frame();
        frame[29] = source;
        let view = View { rig: self, cpu };
        let verdict = judge(&mut Slice(&frame), now, &view);
        match verdict.outcome.action() {
            Action::Pass => Ok(()),
            _ => Err(verdict.outcome.reason().budget()),
        }
    }

    /// Puts another packet budget in force; `since` 0: of the same limit.
    pub(crate) fn reload(&mut self, packets: Bucket, since: u16) {
        self.former.buckets = self.limit.buckets;
        self.limit.buckets[1] = packets;
        self.next_version(since);
    }

    /// Announces that [`Rig::limit`] has changed.
    pub(crate) fn next_version(&mut self, since: u16) {
        self.former.version = self.limit.version;
        self.limit.version += 1;
        if since != 0 {
            self.limit.since = since;
        }
        self.limit.lease = lease(&self.limit.buckets);
        self.policy.generation += 1;
    }

    /// [`Rig::reload`] with versions to choose.
    pub(crate) fn reload_as(&mut self, packets: Bucket, version: u16, since: u16) {
        self.former = Former {
            buckets: self.limit.buckets,
            version: self.limit.version,
            ..Former::default()
        };
        self.limit.buckets[1] = packets;
        self.limit.version = version;
        self.limit.since = since;
        self.policy.generation += 1;
    }
}

fn policy() -> Policy {
    Policy {
        generation: 1,
        flags: ENFORCE,
        ipv4_mask: source_mask(32),
        ipv6_mask: source_mask(64),
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        control: Bucket::NONE,
        flood: FloodRules::default(),
        anywhere: LimitSet::default(),
        order: [0; 256],
    }
}

/// A lease of all budgets; none where one of those that every packet needs is
/// too small for it.
fn lease(buckets: &[Bucket; 3]) -> u64 {
    let unlimited = Tokens::UNLIMITED.fields();
    let mut fields = [0; 3];
    for (i, bucket) in buckets.iter().enumerate() {
        fields[i] = match bucket.exists() {
            true => u64::from(bucket.lease_tokens),
            false => unlimited[i],
        };
    }
    if fields[1] == 0 || fields[2] == 0 {
        return 0;
    }
    let [connections, packets, bytes] = fields.map(|field| u32::try_from(field).unwrap());
    Tokens::new(connections, packets, bytes).word()
}

/// The rig as one CPU sees it.
struct View<'a> {
    rig: &'a Rig,
    cpu: u32,
}

impl Tables for View<'_> {
    type Ref<'a, T: 'a>
        = &'a T
    where
        Self: 'a;

    fn generation(&self) -> u32 {
        self.rig.policy.generation
    }
    fn policy(&self) -> Option<&Policy> {
        Some(&self.rig.policy)
    }
    fn class(&self, _row: u32, _index: u32) -> Class {
        Class::new(Match::Limit(0), false)
    }
    fn candidates(&self, _row: u32, _set: u32) -> Option<&LimitSet> {
        None
    }
    fn limit(&self, _row: u32, _slot: u32) -> Option<&Limit> {
        Some(&self.rig.limit)
    }
    fn former(&self, _row: u32, _slot: u32) -> Option<&Former> {
        Some(&self.rig.former)
    }
    fn network(&self, _kind: Kind, _address: Address) -> Option<&Network> {
        None
    }
    fn entry(&self, key: &EntryKey) -> Option<&Entry> {
        self.entry_of(key, self.cpu)
    }
    fn create_entry(&self, key: &EntryKey) -> Option<&Entry> {
        self.entry(key)
    }
    fn entry_of(&self, key: &EntryKey, cpu: u32) -> Option<&Entry> {
        let source = key.source[1] & 0xff;
        self.rig
            .entries
            .get((source * self.rig.cpus + cpu) as usize)
    }
    fn cpu(&self) -> u32 {
        self.cpu
    }
    fn standing(&self, key: &EntryKey) -> Option<&Standing> {
        self.standing_of(key, self.cpu)
    }
    fn standing_of(&self, _key: &EntryKey, cpu: u32) -> Option<&Standing> {
        // One place: all sources share it.
        self.rig.standings.get(cpu as usize)
    }
    fn known(&self, _word: u32) -> Option<&Word> {
        None
    }
    fn known_words_shift(&self) -> u32 {
        0
    }
    fn gate(&self, _kind: u32) -> Option<&Gate> {
        None
    }
    fn recent_lines(&self) -> u32 {
        1
    }
    fn recent(&self, _line: u32) -> Option<&Recent> {
        None
    }
    fn aggregate(&self, _place: u32) -> Option<&Aggregate> {
        None
    }
    fn admission(&self, _newcomer: Newcomer, _now: Time) -> Admission {
        Admission::Enter
    }
    fn charge_total(&self, _limit: &Limit, _slot: u32, _now: Time, _cost: Tokens) -> bool {
        true
    }
    fn refund_total(&self, _limit: &Limit, _slot: u32, _now: Time, _cost: Tokens) {}
    fn lengths(&self) -> Option<&Lengths> {
        None
    }
    fn filter(&self, _word: u32) -> Option<&Word> {
        None
    }
    fn block(&self, _key: &BlockKey) -> Option<&Block> {
        None
    }
    fn kernel_blocks(&self, _source: SourceKey) -> Option<&KernelBlocks> {
        None
    }
    fn seed(&self) -> u64 {
        0
    }
    fn control(&self) -> Option<&Word> {
        None
    }
    fn blocked(&self, _source: Address, _now: Time, _slot: u32) -> Option<u32> {
        None
    }
    fn is_loopback(&self) -> bool {
        false
    }
}

/// Token buckets in exact arithmetic.
pub(crate) struct Ideal([Option<Level>; 3]);

/// A level in `32 * per_ns` parts of a token, so that refilling is exact.
struct Level {
    rate: Rate,
    level: u128,
    at_ns: u128,
}

impl Level {
    const SCALE: u128 = UNITS_PER_NS as u128;

    fn scaled(&self, tokens: u64) -> u128 {
        u128::from(tokens) * u128::from(self.rate.per_ns) * Self::SCALE
    }

    fn refill(&mut self, now_ns: u128) {
        let gained = now_ns.saturating_sub(self.at_ns) * Self::SCALE * u128::from(self.rate.amount);
        self.at_ns = self.at_ns.max(now_ns);
        self.level = (self.level + gained).min(self.scaled(self.rate.burst));
    }
}

const BUDGETS: [Budget; 3] = [Budget::Connections, Budget::Packets, Budget::Bytes];

impl Ideal {
    pub(crate) fn new(budgets: &Budgets) -> Self {
        Self(budgets.rates().map(|rate| {
            let mut level = Level {
                rate: rate?,
                level: 0,
                at_ns: 0,
            };
            level.level = level.scaled(level.rate.burst);
            Some(level)
        }))
    }

    /// Admits a packet, or says which budget it exceeds.
    pub(crate) fn offer(&mut self, now_ns: u128, cost: Cost) -> Result<(), Budget> {
        for ((budget, level), tokens) in BUDGETS.into_iter().zip(&mut self.0).zip(cost.tokens()) {
            if let Some(level) = level {
                level.refill(now_ns);
                if level.level < level.scaled(tokens) {
                    return Err(budget);
                }
            }
        }
        self.charge(now_ns, cost);
        Ok(())
    }

    /// Charges a packet that was admitted elsewhere.
    ///
    /// # Panics
    /// If there are not as many tokens: somewhere more than burst + rate·t
    /// was admitted.
    pub(crate) fn charge(&mut self, now_ns: u128, cost: Cost) {
        for (level, tokens) in self.0.iter_mut().zip(cost.tokens()) {
            if let Some(level) = level {
                level.refill(now_ns);
                let cost = level.scaled(tokens);
                assert!(
                    level.level >= cost,
                    "overdrawn: {:?} at {now_ns}",
                    level.rate
                );
                level.level -= cost;
            }
        }
    }
}

/// A source of packets; the same for the same seed.
pub(crate) struct Traffic(u64);

impl Traffic {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One in ten opens a connection, one in four is full.
    pub(crate) fn cost(&mut self) -> Cost {
        Cost {
            connection: self.below(10) == 0,
            bytes: match self.below(4) {
                0 => 1_514,
                1 => 590,
                _ => 60,
            },
        }
    }
}
