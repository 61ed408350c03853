//! The data plane: the only importer of aya. It owns the loaded program and
//! its maps and offers verbs; [`model`] has the types that they take and give.

mod attach;
mod blocks;
mod capture;
mod cause;
mod clock;
mod error;
mod filter;
mod kept;
mod kernel_blocks;
mod ledger;
mod lengths;
mod log;
mod machine;
pub mod model;
mod netlink;
mod object;
mod pins;
mod predecessor;
pub mod probe;
mod read;
mod start;
mod switch;
mod sys;
mod tables;
mod tally;
mod term;

pub use blocks::DEFAULT_BLOCK;
pub use clock::Clock;
pub use error::Error;
pub use kept::release;
pub use log::PacketLog;
pub use object::TestRun;
pub use pins::{Pins, PinsError};
pub use start::Origin;
pub use tables::memory;

use crate::{
    image::Slots,
    policy::{Mode, Policy},
};
use attach::Interfaces;
use blocks::Blocks;
use capture::Samples;
use ipnet::IpNet;
use kept::Kept;
use ledger::Ledger;
use limiter_common::{
    layout::{Active, EntryKey, LIMITS},
    verdict::Outcome,
};
use model::{Attachment, BlockRequest, BlockState, Term};
use object::Object;
use std::time::Duration;
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
    ledger: Ledger,
    /// Where all of it outlasts this process.
    kept: Option<Kept>,
    lineage: u64,
    origin: Origin,
    rows: Rows,
    blocks: Blocks,
    interfaces: Interfaces,
    entries: Table<EntryKey, [u64; 8]>,
    standings: Table<u32, [u64; 8]>,
    gates: Table<u32, [u64; 8]>,
    totals: Table<u32, [u64; 8]>,
    tallies: Tallies,
    active: Table<u32, Active>,
    samples: Samples,
    /// The policy of before, while another is in force for a time.
    before: Option<term::Before>,
    /// What was in force for a time, and for how long still, when the process before
    /// was followed.
    term_before: Option<(Term, Duration)>,
    clock: Clock,
    slots: Slots,
    policy: Policy,
    cpus: usize,
    test_clock: bool,
    test_step: u64,
}

impl DataPlane {
    /// Attaches the program to an interface.
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`], [`Error::ForeignProgram`], [`Error::Attach`],
    /// [`Error::Permission`], [`Error::TooManyInterfaces`].
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attachment, Error> {
        let reserved = match self.interfaces.reserve(interface) {
            Err(Error::TooManyInterfaces { .. }) if self.make_room()? => {
                self.interfaces.reserve(interface)?
            }
            reserved => reserved?,
        };
        // Whoever takes over finds a name for each row that packets are counted in.
        let generation = self.rows.generation();
        self.note(generation, &self.slots)?;
        self.interfaces.place_all(Some(reserved))?;
        self.publish(self.rows.in_force())?;
        let attached = self
            .interfaces
            .attach(&self.object, interface, reserved, mode)?;
        self.note(generation, &self.slots)?;
        Ok(attached)
    }

    /// Tells the name that an attached interface has now. What comes from then
    /// on is counted under it.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyInterfaces`]; the old name stays.
    pub fn rename(&mut self, index: u32, interface: &str) -> Result<(), Error> {
        match self.interfaces.rename(index, interface) {
            Err(Error::TooManyInterfaces { .. }) if self.make_room()? => {
                self.interfaces.rename(index, interface)?;
            }
            renamed => renamed?,
        }
        self.note(self.rows.generation(), &self.slots)
    }

    /// Frees the counters of an interface that is not attached any more for
    /// another's: what they counted is told of unknown interfaces from now on.
    fn make_room(&mut self) -> Result<bool, Error> {
        let rows = self.interfaces.row_count();
        let Some(row) = self.interfaces.free_row() else {
            return Ok(false);
        };
        self.tallies.vacate(row, rows, &self.slots)?;
        Ok(true)
    }

    /// Takes the program off an interface; false if it was not on. Counters
    /// stay.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn detach(&mut self, interface: &str) -> Result<bool, Error> {
        self.interfaces.detach(interface)
    }

    /// Forgets where somebody else has taken the program off (`bpftool link detach`).
    /// Returns where that was.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn forget_detached(&mut self) -> Result<Vec<Attachment>, Error> {
        self.interfaces.forget_detached()
    }

    /// Whether the program sat on an interface of this name once, this one or the one
    /// before.
    pub fn knows(&self, interface: &str) -> bool {
        self.interfaces.knows(interface)
    }

    /// Where the program is.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.interfaces.attachments().cloned().collect()
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
        // Nor is what somebody orders while a policy is tried or paused.
        let before = self.before.as_ref().map(|before| &before.policy);
        let is_enforced = |policy: &Policy| policy.edge.enforce;
        let dry = !is_enforced(&self.policy) && !before.is_some_and(is_enforced);
        self.blocks.add(requests, &self.slots, dry, step)
    }

    /// The block of exactly this network and limit, unless it is the kernel's own.
    ///
    /// # Errors
    ///
    /// [`Error::NoLimit`].
    pub fn block_of(
        &self,
        network: IpNet,
        limit: Option<&str>,
    ) -> Result<Option<BlockState>, Error> {
        let step = self.step()?;
        self.blocks.find(&network, limit, &self.slots, step)
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

    /// Makes blocks again that were stored, for as long as they are still to
    /// hold, in this order; quotas count. Returns those that found no room, or
    /// are there already.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn restore(&mut self, blocks: &[BlockState]) -> Result<Vec<BlockState>, Error> {
        let step = self.step()?;
        self.blocks.restore(blocks, &self.slots, step)
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
    pub fn verified_instructions(&self) -> Result<Option<u32>, Error> {
        self.object.verified_instructions()
    }

    /// The number by which the kernel knows the program, for tools that look
    /// at it.
    ///
    /// # Errors
    ///
    /// Only unforeseen ones.
    pub fn program_id(&self) -> Result<u32, Error> {
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

    fn step(&self) -> Result<u64, Error> {
        if self.test_clock {
            Ok(self.test_step)
        } else {
            self.object.read_clock().map(|reading| reading.step)
        }
    }
}

/// Whether an interface is free of XDP programs.
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
