//! The data plane: the only importer of aya. It owns the loaded program and
//! its maps and offers verbs; [`model`] has the types that they take and give.

mod attach;
mod blocks;
mod capture;
mod clock;
mod error;
mod log;
pub mod model;
mod netlink;
mod object;
mod sys;
mod tables;
mod tally;

pub use blocks::DEFAULT_BLOCK;
pub use clock::Clock;
pub use error::Error;
pub use log::PacketLog;
pub use object::TestRun;
pub use tables::memory;

use crate::{
    image::{Image, Slots, network, recent_lines},
    policy::{Limit, Mode, Policy},
};
use attach::Interfaces;
use blocks::{Blocks, Quotas, SourcePrefixes};
use capture::Samples;
use ipnet::IpNet;
use limiter_common::{
    address::SourceKey,
    block::{Owner, WAYS},
    entry::Entry,
    filter::FILTER_WORDS,
    flood::Gate,
    layout::{Active, EntryKey, LIMITS},
    sample::Refusals,
    time::UNITS_PER_NS,
    verdict::Outcome,
};
use model::{
    Attachment, BlockRequest, BlockState, Counter, FloodState, MapUse, SampledPacket, SourceCount, SourceState,
};
use object::{Object, Sizes};
use sys::Table;
use tables::Rows;
use tally::Tallies;

/// Counters of one interface.
const TALLIES: u32 = (LIMITS as u32 + 1) * Outcome::COUNT;

/// How the program is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Log every packet (aya-log); slow.
    pub trace: bool,
    /// The step that the program takes for now is the one given to
    /// [`DataPlane::set_test_step`], not the kernel's.
    pub test_clock: bool,
    /// What hashes are keyed with; `None`: a random number, as it must be
    /// where strangers send.
    pub test_seed: Option<u64>,
}

/// The loaded program, its maps, and what is attached.
///
/// Every verb is a few system calls; none waits for packets.
#[derive(Debug)]
pub struct DataPlane {
    object: Object,
    rows: Rows,
    blocks: Blocks,
    interfaces: Interfaces,
    entries: Table<EntryKey, [u64; 8]>,
    gates: Table<u32, [u64; 8]>,
    totals: Table<u32, [u64; 8]>,
    tallies: Tallies,
    active: Table<u32, Active>,
    samples: Samples,
    clock: Clock,
    slots: Slots,
    policy: Policy,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    cpus: usize,
    test_clock: bool,
    test_step: u64,
}

impl DataPlane {
    /// Loads the program with tables for `policy` and puts the policy in
    /// force. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// [`Error::OldKernel`], [`Error::Permission`], [`Error::Memory`],
    /// [`Error::Load`] and those of [`DataPlane::apply`].
    pub fn load(policy: &Policy, options: Options) -> Result<Self, Error> {
        check_kernel(&kernel_release()?)?;
        let cpus = possible_cpus()?;
        tables::check_memory(policy, cpus)?;
        let seed = match options.test_seed {
            Some(seed) => seed,
            None => random()?,
        };
        let edge = &policy.edge;
        let kernel_places = edge
            .tables
            .blocks_kernel
            .div_ceil(WAYS as u32)
            .next_power_of_two();
        let small = Sizes {
            step_units: 1,
            seed,
            entries: 1_024,
            networks: 1,
            recent_lines: 1,
            blocks: 1,
            kernel_places: 1,
            interfaces: 1,
            test_clock: false,
            trace: false,
        };
        let clock = Clock::calibrate(&Object::load(&small, &["clock"])?)?;
        let sizes = Sizes {
            step_units: clock.step_ns * UNITS_PER_NS,
            entries: edge.sources,
            networks: tables::trie_capacity(policy),
            recent_lines: recent_lines(edge),
            blocks: edge.tables.blocks_operator + edge.tables.blocks_rule,
            kernel_places,
            interfaces: edge.tables.interfaces + 1,
            test_clock: options.test_clock,
            trace: options.trace,
            ..small
        };
        let mut object = Object::load(&sizes, &["clock", "limiter"])?;
        let filter = object.table::<u32, u64>("FILTER")?;
        let filter = sys::Words::map(filter.fd(), FILTER_WORDS as usize)
            .map_err(Error::system("mapping the filter of blocks"))?;
        let blocks = Blocks::new(
            blocks::Tables {
                blocks: object.table("BLOCKS")?,
                kernel: object.table("KERNEL_BLOCKS")?,
                lengths: object.table("LENGTHS")?,
            },
            filter,
            seed,
            Quotas {
                operator: edge.tables.blocks_operator,
                rule: edge.tables.blocks_rule,
                kernel_places,
            },
            clock,
        );
        let mut plane = Self {
            rows: Rows::new(&mut object)?,
            blocks,
            interfaces: Interfaces::new(object.table("INTERFACES")?, edge.tables.interfaces),
            entries: object.table("ENTRIES")?,
            gates: object.table("GATES")?,
            totals: object.table("TOTALS")?,
            tallies: Tallies::new(object.table("TALLY")?, cpus),
            active: object.table("ACTIVE")?,
            samples: Samples::new(&mut object)?,
            object,
            clock,
            slots: Slots::default(),
            policy: policy.clone(),
            allow: Vec::new(),
            deny: Vec::new(),
            cpus,
            test_clock: options.test_clock,
            test_step: 0,
        };
        plane.put_in_force(policy, edge.allow.clone(), edge.deny.clone())?;
        Ok(plane)
    }

    /// Attaches the program to an interface.
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`], [`Error::ForeignProgram`], [`Error::Attach`],
    /// [`Error::Permission`], [`Error::TooManyInterfaces`].
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attachment, Error> {
        let index = self.interfaces.reserve(interface)?;
        self.publish(self.rows.generation())?;
        self.interfaces
            .attach(&mut self.object, interface, index, mode)
    }

    /// Takes the program off an interface; false if it was not on. Counters
    /// stay.
    pub fn detach(&mut self, interface: &str) -> bool {
        self.interfaces.detach(interface)
    }

    /// Where the program is.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.interfaces.attachments().cloned().collect()
    }

    /// Puts another policy in force: one packet sees the old one or the new
    /// one. Limits keep their buckets by name. Table sizes stay as they are.
    ///
    /// The lists are those of the policy; run-time entries are given again with
    /// [`DataPlane::apply_with_lists`].
    ///
    /// # Errors
    ///
    /// [`Error::Image`], [`Error::ListsFull`], [`Error::TooManyLengths`]; the old
    /// policy is then still in force.
    pub fn apply(&mut self, policy: &Policy) -> Result<(), Error> {
        self.put_in_force(policy, policy.edge.allow.clone(), policy.edge.deny.clone())
    }

    /// [`DataPlane::apply`] with other lists than the policy's own.
    ///
    /// # Errors
    ///
    /// Those of [`DataPlane::apply`].
    pub fn apply_with_lists(
        &mut self,
        policy: &Policy,
        allow: &[IpNet],
        deny: &[IpNet],
    ) -> Result<(), Error> {
        self.put_in_force(policy, allow.to_vec(), deny.to_vec())
    }

    /// Replaces the lists in force.
    ///
    /// # Errors
    ///
    /// [`Error::ListsFull`]; the old lists are then still in force.
    pub fn set_lists(&mut self, allow: &[IpNet], deny: &[IpNet]) -> Result<(), Error> {
        let capacity = self.policy.edge.tables.lists;
        let needed = allow.len() + deny.len();
        if needed > capacity as usize {
            return Err(Error::ListsFull { needed, capacity });
        }
        let policy = self.policy.clone();
        let image = Image::compile(&policy, allow, deny, &mut self.slots, self.clock.step_ns)?;
        let generation = self.rows.change_networks(&image)?;
        self.publish(generation)?;
        self.allow = allow.to_vec();
        self.deny = deny.to_vec();
        Ok(())
    }

    /// Makes one block.
    ///
    /// # Errors
    ///
    /// [`Error::NoLimit`], [`Error::BlocksFull`], [`Error::TooManyLengths`].
    pub fn block(&mut self, request: &BlockRequest) -> Result<BlockState, Error> {
        let mut made = self.block_many(std::slice::from_ref(request))?;
        made.pop().ok_or_else(|| Error::NoLimit {
            limit: String::new(),
        })
    }

    /// Makes many blocks, all or none.
    ///
    /// # Errors
    ///
    /// Those of [`DataPlane::block`].
    pub fn block_many(&mut self, requests: &[BlockRequest]) -> Result<Vec<BlockState>, Error> {
        let step = self.step()?;
        let dry = !self.policy.edge.enforce;
        self.blocks.add(requests, &self.slots, dry, step)
    }

    /// Ends the blocks of exactly this network, by whomever: those confined to
    /// `limit`, or all. False if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::NoLimit`].
    pub fn unblock(&mut self, network: IpNet, limit: Option<&str>) -> Result<bool, Error> {
        self.blocks.remove(&network, limit, &self.slots)
    }

    /// The blocks in force.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn blocks(&self) -> Result<Vec<BlockState>, Error> {
        self.blocks.list(&self.slots, self.step()?)
    }

    /// Tidies away blocks that are over; the program has ignored them since
    /// they were. Returns how many.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn expire_blocks(&mut self) -> Result<usize, Error> {
        let step = self.step()?;
        self.blocks.expire(step)
    }

    /// The counters that are not zero.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn counters(&self) -> Result<Vec<Counter>, Error> {
        self.tallies
            .read(self.interfaces.row_count(), &self.slots, |row| {
                self.interfaces.name(row as usize)
            })
    }

    /// The sources that are tracked, in no order.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn sources(&self) -> Result<Vec<SourceState>, Error> {
        let counts = self.source_counts()?;
        Ok(counts.iter().filter_map(|it| self.source(it)).collect())
    }

    /// The same without names, to be counted and compared.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn source_counts(&self) -> Result<Vec<SourceCount>, Error> {
        let mut counts = Vec::new();
        self.entries
            .for_each(self.cpus, usize::MAX, |key, copies| {
                // Its limit may have gone meanwhile.
                if self.slots.name(key.limit as usize).is_some() {
                    counts.push(count(key, copies));
                }
            })
            .map_err(Error::system("reading sources"))?;
        Ok(counts)
    }

    /// Whether new sources are too many, and how many got entries.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn flood(&self) -> Result<FloodState, Error> {
        let step = self.step()?;
        let gate = |kind| {
            let words = self.gates.get(&kind);
            let words = words.map_err(Error::system("reading the gates of new sources"))?;
            Ok::<_, Error>(Gate::from_words(words.unwrap_or_default()))
        };
        let gates = [gate(0)?, gate(1)?];
        Ok(FloodState {
            is_active: gates.iter().any(|gate| gate.is_on(step)),
            admitted: gates.iter().map(Gate::made).sum(),
        })
    }

    /// Lets the program lay samples of these refused packets aside, from now on
    /// and over changes of the policy; of each reason up to 64 at once and then one
    /// a clock step.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn sample(&mut self, wanted: Refusals) -> Result<(), Error> {
        let before = self.samples.wanted();
        if wanted == before {
            return Ok(());
        }
        self.samples.want(wanted);
        let published = self.publish(self.rows.generation());
        if published.is_err() {
            self.samples.want(before);
        }
        published
    }

    /// The samples taken since the last time. Those that found no room are lost:
    /// the ring holds some 330.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn samples(&mut self) -> Result<Vec<SampledPacket>, Error> {
        self.samples
            .read(&self.object, &self.slots, &self.interfaces)
    }

    /// How full the tables are.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn capacities(&self) -> Result<Vec<MapUse>, Error> {
        let edge = &self.policy.edge;
        let kernel = self.blocks()?;
        let kernel = kernel.iter().filter(|b| b.owner == Owner::Kernel).count();
        let row = |map, capacity, entries| MapUse {
            map,
            capacity: u64::from(capacity),
            entries,
        };
        Ok(vec![
            row("sources", edge.sources, None),
            row(
                "lists",
                edge.tables.lists,
                Some((self.allow.len() + self.deny.len()) as u64),
            ),
            row(
                "blocks_operator",
                edge.tables.blocks_operator,
                Some(self.blocks.count(Owner::Operator)),
            ),
            row(
                "blocks_rule",
                edge.tables.blocks_rule,
                Some(self.blocks.count(Owner::Rule)),
            ),
            row(
                "blocks_kernel",
                edge.tables.blocks_kernel,
                Some(kernel as u64),
            ),
            row("limits", LIMITS as u32, Some(edge.limits.len() as u64)),
        ])
    }

    /// The clock of the packet path.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The policy in force.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The program's log of single packets; it has lines only where it was
    /// loaded with [`Options::trace`].
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn packet_log(&mut self) -> Result<PacketLog, Error> {
        PacketLog::open(self.object.ebpf())
    }

    /// How many instructions the verifier followed, where the kernel tells
    /// (5.16 and later); it gives up at a million.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn verified_instructions(&mut self) -> Result<Option<u32>, Error> {
        self.object.verified_instructions()
    }

    /// The number by which the kernel knows the program, for tools that look
    /// at it.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn program_id(&mut self) -> Result<u32, Error> {
        self.object.program_id()
    }

    /// Sets the program's clock, where it was loaded with
    /// [`Options::test_clock`].
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn set_test_step(&mut self, step: u64) -> Result<(), Error> {
        self.test_step = step;
        self.object.set_test_step(step)
    }

    /// Runs the program on `frame`, `repeat` times, as if it had come in on an
    /// interface that is not known. It counts.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, Error> {
        self.object.run("limiter", frame, repeat)
    }

    fn put_in_force(
        &mut self,
        policy: &Policy,
        allow: Vec<IpNet>,
        deny: Vec<IpNet>,
    ) -> Result<(), Error> {
        let mut policy = policy.clone();
        // The maps have the size that they were made with.
        policy.edge.sources = self.policy.edge.sources;
        policy.edge.tables = self.policy.edge.tables.clone();
        let mut slots = self.slots.clone();
        let image = Image::compile(&policy, &allow, &deny, &mut slots, self.clock.step_ns)?;
        let prefixes = SourcePrefixes {
            ipv4: policy.edge.ipv4_prefix.into(),
            ipv6: policy.edge.ipv6_prefix.into(),
        };
        // While the old policy can still stay in force.
        let step = self.step()?;
        self.blocks.lengths_with(prefixes, step)?;
        let changed = self.changed_totals(&policy, &slots);
        self.samples
            .read_early(&self.object, &self.slots, &self.interfaces)?;
        let generation = self.rows.write(&image)?;
        self.tallies
            .retire(self.interfaces.row_count(), &self.slots, &slots)?;
        let before = std::mem::replace(&mut self.slots, slots);
        let after = &self.slots;
        self.blocks
            .forget_limits(|slot| before.name(slot as usize) != after.name(slot as usize))?;
        self.publish(generation)?;
        self.refill_totals(&changed)?;
        self.allow = allow;
        self.deny = deny;
        let enforce = policy.edge.enforce;
        self.policy = policy;
        self.blocks.follow(prefixes, enforce, step)
    }

    /// The slots whose ceiling is another than before.
    fn changed_totals(&self, policy: &Policy, slots: &Slots) -> Vec<u32> {
        let total = |limits: &[Limit], slots: &Slots, slot: usize| {
            let name = slots.name(slot)?;
            let limit = limits.iter().find(|limit| limit.name == name)?;
            Some((name.to_owned(), limit.total))
        };
        let before = &self.policy.edge.limits;
        let changed = |slot: &usize| {
            total(before, &self.slots, *slot) != total(&policy.edge.limits, slots, *slot)
        };
        (0..LIMITS)
            .filter(changed)
            .map(|slot| slot as u32)
            .collect()
    }

    fn refill_totals(&self, slots: &[u32]) -> Result<(), Error> {
        let refill = |slot| self.totals.set(slot, &[0; 8]);
        slots
            .iter()
            .try_for_each(refill)
            .map_err(Error::system("filling the ceilings of limits"))
    }

    /// The switch: from here on packets see `generation`.
    fn publish(&mut self, generation: u32) -> Result<(), Error> {
        let active = Active {
            generation,
            interface_factor: self.interfaces.factor(),
            zero: 0,
            sampled: self.samples.wanted(),
        };
        self.active
            .set(&0, &active)
            .map_err(Error::system("putting the policy in force"))?;
        self.rows.in_force(generation);
        Ok(())
    }

    fn step(&self) -> Result<u64, Error> {
        if self.test_clock {
            Ok(self.test_step)
        } else {
            self.object.read_clock().map(|reading| reading.step)
        }
    }

    /// What a count is of; `None`: its limit has gone meanwhile.
    pub fn source(&self, count: &SourceCount) -> Option<SourceState> {
        let address = SourceKey(count.key.0).address();
        let prefix = match address.family {
            limiter_common::address::Family::Ipv4 => self.policy.edge.ipv4_prefix,
            limiter_common::address::Family::Ipv6 => self.policy.edge.ipv6_prefix,
        };
        let refusal = (count.refusal != 0).then(|| Outcome::from_index(count.refusal));
        Some(SourceState {
            source: network(address, prefix.into()),
            limit: self.slots.name(count.key.1 as usize)?.to_owned(),
            passed: count.passed,
            dropped: count.dropped,
            last_refusal: refusal.flatten(),
        })
    }
}

/// Adds up an entry's copies.
fn count(key: EntryKey, copies: &[[u64; 8]]) -> SourceCount {
    let mut sum = SourceCount {
        key: (
            u64::from(key.source[0]) << 32 | u64::from(key.source[1]),
            key.limit,
        ),
        passed: 0,
        dropped: 0,
        refusal: 0,
    };
    let mut most_dropped = 0;
    for copy in copies {
        let entry = Entry::from_words(*copy);
        let (passed, dropped) = entry.counts();
        sum.passed += passed;
        sum.dropped += dropped;
        // The one that most packets met.
        if entry.last_refusal() != 0 && dropped >= most_dropped {
            most_dropped = dropped;
            sum.refusal = entry.last_refusal();
        }
    }
    sum
}

/// Whether an interface is free of XDP programs while no daemon runs: its link
/// took ours along when it ended, so there is nothing to take off.
///
/// # Errors
///
/// [`Error::NoInterface`]; [`Error::ForeignProgram`] if somebody else's program
/// is there.
pub fn check_detached(interface: &str) -> Result<(), Error> {
    attach::check_free(interface).map(drop)
}

/// The largest packet that an interface carries, without its link header.
///
/// # Errors
///
/// [`Error::NoInterface`], and unforeseen ones.
pub fn mtu(interface: &str) -> Result<u32, Error> {
    netlink::mtu(interface)
}

/// What `uname -r` says.
fn kernel_release() -> Result<String, Error> {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_err(Error::system("reading the kernel's version"))
}

/// Linux 5.19 has `bpf_map_lookup_percpu_elem` (commit 07343110b293), the
/// youngest thing that the program needs.
fn check_kernel(release: &str) -> Result<(), Error> {
    let release = release.trim();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 19) {
        return Err(Error::OldKernel {
            release: release.to_owned(),
        });
    }
    Ok(())
}

fn possible_cpus() -> Result<usize, Error> {
    aya::util::nr_cpus().map_err(|(what, source)| Error::System {
        what: what.to_owned(),
        source,
    })
}

fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(Error::system("reading /dev/urandom"))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_19_are_refused_by_their_name() {
        for release in ["5.18.19-generic\n", "4.19.0-21-amd64", "5.4", "odd", ""] {
            let error = check_kernel(release).unwrap_err().to_string();
            let named = format!(
                "this kernel is {}, and limiter needs Linux 5.19",
                release.trim()
            );
            assert!(error.starts_with(&named), "{error}");
            assert!(error.ends_with("boot a newer kernel"), "{error}");
        }
        for release in ["5.19.0", "5.19.0-rc1+", "6.1.0-18-amd64\n", "10.0"] {
            check_kernel(release).unwrap();
        }
    }
}
