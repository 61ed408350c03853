//! The tables that a policy fills, two rows of each: one in force, one to
//! write the next policy to.

use super::{
    error::Error,
    object::Object,
    sys::{GracePeriod, Plain, Table, TrieKey},
    term::InForce,
};
use crate::{
    image::{Difference, Image, ListChange, NetworkEntry, Networks, known_words, recent_lines},
    policy::Policy,
};
use limiter_common::{
    address::{Address, Family},
    class::{CANDIDATES, CLASSES, Class},
    flood::AGGREGATES,
    layout::{self, Former, HAS_LISTS, Kind, LIMITS, Limit, LimitSet, Network, NetworkKey, row},
    sample::RING_BYTES,
    standing::STANDINGS,
};
use std::io;

/// Networks that gates, destinations and split sources may take beside the
/// lists, in a row.
const OTHER_NETWORKS: u32 = 2 * 256 * 1_024;

/// Places in the trie; they take memory only when used. A list entry longer
/// than a source takes a second one, for its source.
pub(super) fn trie_capacity(policy: &Policy) -> u32 {
    2 * (2 * policy.edge.tables.lists + OTHER_NETWORKS)
}

/// Both rows of every per-generation table.
#[derive(Debug)]
pub(super) struct Rows {
    policies: Table<u32, layout::Policy>,
    classes: Table<u32, Class>,
    candidates: Table<u32, LimitSet>,
    limits: Table<u32, Limit>,
    formers: Table<u32, Former>,
    networks: Table<TrieKey, Network>,
    grace: GracePeriod,
    in_force: InForce,
    /// The networks in each row.
    held: [Networks; 2],
}

impl Rows {
    pub(super) fn new(object: &Object) -> Result<Self, Error> {
        Ok(Self {
            policies: object.table("POLICIES")?,
            classes: object.table("CLASS")?,
            candidates: object.table("CANDIDATE")?,
            limits: object.table("LIMIT")?,
            formers: object.table("FORMER")?,
            networks: object.table("NETWORKS")?,
            grace: GracePeriod::new().map_err(Error::system("making a map of maps"))?,
            in_force: InForce::lasting(0),
            held: [Networks::default(), Networks::default()],
        })
    }

    /// Takes over what another process wrote and put in force.
    pub(super) fn adopt(&mut self, in_force: InForce) -> Result<(), Error> {
        let failed = Error::system("reading the policy's networks");
        let entries = self.networks.read(1, usize::MAX).map_err(failed)?;
        let mut held: [Vec<_>; 2] = Default::default();
        for (key, networks) in entries {
            // A row of another number is none that anybody could have written.
            if let Some((entry, row)) = entry(&key)
                && let Some(held) = held.get_mut(usize::from(row))
            {
                held.extend(networks.into_iter().map(|network| (entry, network)));
            }
        }
        self.held = held.map(Networks::of_entries);
        self.in_force = in_force;
        Ok(())
    }

    /// The limits in force, by slot.
    pub(super) fn limits(&self) -> Result<Vec<Limit>, Error> {
        self.limits_of(self.generation())
    }

    /// What both rows have by slot.
    pub(super) fn both(&self) -> Result<[LimitRow; 2], Error> {
        let generation = self.generation();
        let of = |generation| {
            let formers = of_row(&self.formers, generation);
            let formers = formers.map_err(Error::system("reading limits"))?;
            Ok::<_, Error>((self.limits_of(generation)?, formers))
        };
        Ok([of(generation)?, of(generation.wrapping_add(1))?])
    }

    fn limits_of(&self, generation: u32) -> Result<Vec<Limit>, Error> {
        of_row(&self.limits, generation).map_err(Error::system("reading limits"))
    }

    /// Waits until no packet is under way that began before.
    pub(super) fn wait(&self) -> Result<(), Error> {
        let failed = Error::system("waiting for packets under way");
        self.grace.wait().map_err(failed)
    }

    /// The generation in force.
    pub(super) const fn generation(&self) -> u32 {
        self.in_force.current()
    }

    /// By which generations packets go.
    pub(super) const fn in_force(&self) -> InForce {
        self.in_force
    }

    /// Writes an image to the row that is not in force and returns the
    /// generation that will put it there.
    pub(super) fn write(&mut self, image: Image) -> Result<u32, Error> {
        let generation = self.in_force.next(false);
        let place = row(generation);
        // Packets that began before the last switch may still read this row.
        self.wait()?;
        self.write_arrays(&image, place)
            .map_err(Error::system("writing the policy's tables"))?;
        let held = &mut self.held[place as usize];
        let difference = image.networks.difference(held);
        let before = std::mem::replace(held, image.networks);
        if let Err(error) = self.write_networks(difference, place) {
            let back = before.difference(&self.held[place as usize]);
            self.write_back(back, place);
            self.held[place as usize] = before;
            return Err(Error::system("writing the policy's networks")(error));
        }
        self.write_policy(image.policy, generation)?;
        Ok(generation)
    }

    /// Changes the lists of the row in force. Packets ask them anew at its next
    /// generation ([`InForce::next`]), to be put in force also where this failed: what
    /// was undone may be remembered.
    ///
    /// Each address sees its old or its new longest match, so no packet meets
    /// a mixture; what is remembered of the old lists ends with the switch.
    ///
    /// # Errors
    ///
    /// [`Error::ListsFull`]; the lists are then as they were.
    pub(super) fn change_lists(
        &mut self,
        changes: &[ListChange],
        capacity: u32,
    ) -> Result<(), Error> {
        let generation = self.in_force.next(true);
        let place = row(generation);
        let held = &mut self.held[place as usize];
        let done = held.change(changes);
        let needed = held.listed();
        if needed > capacity as usize {
            held.change(&done.undo);
            return Err(Error::ListsFull { needed, capacity });
        }
        let written = self
            .write_networks(done.difference, place)
            .map_err(Error::system("writing the lists"))
            .and_then(|()| self.ask_anew(generation));
        if let Err(error) = written {
            let back = self.held[place as usize].change(&done.undo);
            self.write_back(back.difference, place);
            return Err(error);
        }
        Ok(())
    }

    /// Gives the policy in force another generation.
    fn ask_anew(&self, generation: u32) -> Result<(), Error> {
        let place = row(generation);
        let failed = || Error::system("reading the policy");
        let policy = self.policies.get(&place).map_err(failed())?;
        let policy = policy.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
        let lists = if self.held[place as usize].has_sources() {
            HAS_LISTS
        } else {
            0
        };
        let flags = policy.flags & !HAS_LISTS | lists;
        self.write_policy(layout::Policy { flags, ..policy }, generation)
    }

    /// Entries of the lists in the row that is not in force.
    pub(super) fn listed_before(&self) -> usize {
        self.held[1 - row(self.generation()) as usize].listed()
    }

    /// Entries of the lists in force.
    pub(super) fn listed(&self) -> usize {
        self.held[row(self.generation()) as usize].listed()
    }

    /// Notes the switch.
    pub(super) const fn switched(&mut self, in_force: InForce) {
        self.in_force = in_force;
    }

    fn write_policy(&self, policy: layout::Policy, generation: u32) -> Result<(), Error> {
        let policy = layout::Policy {
            generation,
            ..policy
        };
        self.policies
            .set(&row(generation), &policy)
            .map_err(Error::system("writing the policy"))
    }

    fn write_arrays(&self, image: &Image, place: u32) -> io::Result<()> {
        self.classes.set_range(place * CLASSES, &image.classes)?;
        self.candidates
            .set_range(place * CANDIDATES, &image.candidates)?;
        self.limits
            .set_range(place * LIMITS as u32, &image.limits)?;
        self.formers
            .set_range(place * LIMITS as u32, &image.formers)
    }

    /// Writes to a row what tells its networks from those before.
    fn write_networks(&self, difference: Difference, place: u32) -> io::Result<()> {
        let Difference { mut set, gone } = difference;
        // Longer ones first: what they inherited from a network is written
        // before the network itself goes. Those of one length stay in order,
        // so that neighbours in the trie are written one after the other.
        set.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.prefix));
        let keys: Vec<_> = set.iter().map(|(entry, _)| key(entry, place)).collect();
        let values: Vec<_> = set.iter().map(|(_, network)| *network).collect();
        self.networks.set_many(&keys, &values)?;
        let keys: Vec<_> = gone.iter().map(|entry| key(entry, place)).collect();
        self.networks.remove_many(&keys)
    }

    /// Undoes what may have been written in part; what was not is deleted in
    /// vain. Deletions first: they need no memory.
    fn write_back(&self, difference: Difference, place: u32) {
        let Difference { set, gone } = difference;
        let first = Difference {
            set: Vec::new(),
            gone,
        };
        let then = Difference {
            set,
            gone: Vec::new(),
        };
        for part in [first, then] {
            if let Err(error) = self.write_networks(part, place) {
                tracing::error!(
                    %error,
                    "a change of the lists that failed could not be undone as a whole; \
                     restart limiter to be sure of them"
                );
            }
        }
    }
}

/// The limits of a row and their former budgets, by slot.
type LimitRow = (Vec<Limit>, Vec<Former>);

/// What the slots of a generation have in an array of both rows.
fn of_row<V: Plain>(table: &Table<u32, V>, generation: u32) -> io::Result<Vec<V>> {
    let all = table.read(1, 2 * LIMITS)?;
    let slots = all.into_iter().skip(row(generation) as usize * LIMITS);
    Ok(slots.take(LIMITS).flat_map(|(_, value)| value).collect())
}

/// The network of a key, and its row; the inverse of [`key`].
fn entry(key: &TrieKey) -> Option<(NetworkEntry, u8)> {
    let (tag, address) = key.data.split_first_chunk::<8>()?;
    let word = |bytes: Option<&[u8; 8]>| bytes.copied().map(u64::from_be_bytes);
    let entry = NetworkEntry {
        kind: match tag[1] {
            0 => Kind::Source,
            1 => Kind::Destination,
            _ => return None,
        },
        address: Address {
            family: match tag[2] {
                it if it == Family::Ipv4 as u8 => Family::Ipv4,
                it if it == Family::Ipv6 as u8 => Family::Ipv6,
                _ => return None,
            },
            hi: word(address.first_chunk())?,
            lo: word(address.last_chunk())?,
        },
        prefix: key.bits.checked_sub(NetworkKey::TAG_BITS)?,
    };
    Some((entry, tag[0]))
}

fn key(entry: &NetworkEntry, place: u32) -> TrieKey {
    let NetworkKey { tag, address } = NetworkKey::new(place, entry.kind, entry.address);
    let mut data = [0; 24];
    data[..8].copy_from_slice(&tag);
    data[8..].copy_from_slice(&address);
    TrieKey {
        bits: NetworkKey::bits(entry.prefix),
        data,
    }
}

/// Refuses a policy whose tables do not fit in what is free.
pub(super) fn check_memory(policy: &Policy, cpus: usize) -> Result<(), Error> {
    let needed = memory(policy, cpus as u64);
    let text =
        std::fs::read_to_string("/proc/meminfo").map_err(Error::system("reading /proc/meminfo"))?;
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib * 1_024);
    if needed > available {
        return Err(Error::Memory {
            needed_mib: needed.div_ceil(1 << 20),
            available_mib: available >> 20,
            sources: policy.edge.sources,
        });
    }
    Ok(())
}

/// What the tables of a policy take, in bytes: those allocated when the
/// program is loaded. The kernel's own element headers are counted (48 bytes
/// in `struct htab_elem`, 16 in a bucket), and the answers of the trie that each
/// CPU keeps, and the standings of sources (1,024 each, of 64 bytes).
pub fn memory(policy: &Policy, cpus: u64) -> u64 {
    let edge = &policy.edge;
    let hash = |capacity: u32, element: u64| {
        u64::from(capacity) * (48 + element) + u64::from(capacity).next_power_of_two() * 16
    };
    // For per-CPU memory the kernel keeps a pointer for every four bytes of one
    // CPU's, to charge control groups by (`obj_exts` in mm/percpu.c).
    let charged = 64 / 4 * 8;
    let entries = hash(edge.sources, 16 + 8 + 64 * cpus + charged);
    let blocks = hash(
        edge.tables.blocks_operator + edge.tables.blocks_rule,
        24 + 16,
    );
    let kernel = u64::from(edge.tables.blocks_kernel.next_power_of_two()) * 24;
    let tallies = u64::from(edge.tables.interfaces + 1) * u64::from(super::TALLIES) * 16 * cpus;
    let rows = 2 * (u64::from(CLASSES) * 8 + u64::from(CANDIDATES) * 32 + LIMITS as u64 * 392);
    let flood = 64 * u64::from(recent_lines(edge))
        + 8 * u64::from(known_words(edge))
        + 32 * u64::from(AGGREGATES);
    let answers = 1_024 * 64 * cpus;
    let standings = u64::from(STANDINGS) * 64 * cpus;
    entries + blocks + kernel + tallies + rows + flood + answers + standings + RING_BYTES as u64
}
