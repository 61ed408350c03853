//! What the keeper asks of the data plane: the seam at which tests put a fake.

use std::error::Error;
use std::time::Duration;

use ipnet::IpNet;
use limiter_common::sample::Refusals;

use crate::dataplane::model::{
    Attachment, BlockRequest, BlockState, Counter, FloodState, MapUse, SampledPacket, SourceCount,
    SourceState, Term,
};
use crate::image::ListChange;
use crate::nic::Link;
use crate::policy::{Mode, Policy};

/// Why the data plane did not do as asked, in words for the operator.
pub type PlaneError = Box<dyn Error + Send + Sync>;

/// The verbs of the data plane. All are short and may block.
pub trait Plane: Send {
    /// Puts the program on an interface.
    ///
    /// # Errors
    /// There is no such interface, another program sits on it, or the kernel
    /// refuses.
    fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attachment, PlaneError>;

    /// Takes the program off an interface.
    ///
    /// # Errors
    /// It is not attached there, or the kernel refuses.
    fn detach(&mut self, interface: &str) -> Result<(), PlaneError>;

    /// Puts the program in the place of the one that the daemon before left.
    ///
    /// # Errors
    /// The kernel refuses; some of the old may be at work.
    fn take_over(&mut self) -> Result<(), PlaneError>;

    /// Leaves the program at work where it is attached, for the next daemon.
    ///
    /// # Errors
    /// What is not needed any more cannot be removed.
    fn leave(&mut self) -> Result<(), PlaneError>;

    /// Sees to it that the program outlasts this process where it is to. Returns how
    /// much of what it needs for that was missing.
    ///
    /// # Errors
    /// It would not outlast it.
    fn mend(&mut self) -> Result<usize, PlaneError>;

    /// Tells the name that an interface which the program sits on has now.
    ///
    /// # Errors
    /// There is no room for counters of that name; the old one stays.
    fn rename(&mut self, index: u32, interface: &str) -> Result<(), PlaneError>;

    /// Forgets where somebody else has taken the program off, and tells where that was.
    ///
    /// # Errors
    /// The kernel does not say.
    fn forget_detached(&mut self) -> Result<Vec<Attachment>, PlaneError>;

    /// Whether the program sat on an interface of this name once.
    fn knows(&self, interface: &str) -> bool;

    /// Where the program sits.
    fn attachments(&self) -> Vec<Attachment>;

    /// The largest packet of an interface, without its link header.
    ///
    /// # Errors
    /// There is no such interface, or the kernel does not say.
    fn mtu(&self, interface: &str) -> Result<u32, PlaneError>;

    /// Every interface there is.
    ///
    /// # Errors
    /// The kernel does not say.
    fn links(&self) -> Result<Vec<Link>, PlaneError>;

    /// Switches limits and lists in one step.
    ///
    /// # Errors
    /// The policy does not fit into the tables; the old one stays in force.
    fn apply(&mut self, policy: &Policy) -> Result<(), PlaneError>;

    /// Puts a policy in force for a time; then the one of now is again, by itself.
    ///
    /// # Errors
    /// The policy does not fit into the tables; the old one stays in force.
    fn apply_for(
        &mut self,
        policy: &Policy,
        lasting: Duration,
        term: Term,
    ) -> Result<(), PlaneError>;

    /// Lets what is in force for a time stay; `false`: its time was over.
    ///
    /// # Errors
    /// The kernel refuses; it ends in time.
    fn keep(&mut self) -> Result<bool, PlaneError>;

    /// Lets what is in force for a time end so long from now; `false`: its time was
    /// over.
    ///
    /// # Errors
    /// The kernel refuses; it ends when it was to.
    fn prolong(&mut self, lasting: Duration) -> Result<bool, PlaneError>;

    /// What is in force for a time, and for how long still.
    ///
    /// # Errors
    /// The clock cannot be read.
    fn term_left(&self) -> Result<Option<(Term, Duration)>, PlaneError>;

    /// What the daemon before had put in force for a time, and for how long that was
    /// still to last.
    fn term_before(&self) -> Option<(Term, Duration)>;

    /// Changes the lists in one step. What is on a list already, or is not on
    /// it anyway, does not matter.
    ///
    /// # Errors
    /// They do not fit; the old ones stay in force.
    fn change_lists(&mut self, changes: &[ListChange]) -> Result<(), PlaneError>;

    /// Makes all of these blocks or none.
    ///
    /// # Errors
    /// The owner's quota is used up, or a limit is not known.
    fn block_many(&mut self, requests: &[BlockRequest]) -> Result<Vec<BlockState>, PlaneError>;

    /// The block of exactly this network and limit; the kernel's own is none.
    ///
    /// # Errors
    /// The limit is not known.
    fn block_of(
        &self,
        network: IpNet,
        limit: Option<&str>,
    ) -> Result<Option<BlockState>, PlaneError>;

    /// Ends a block; `false`: there was none.
    ///
    /// # Errors
    /// The kernel refuses.
    fn unblock(&mut self, network: IpNet, limit: Option<&str>) -> Result<bool, PlaneError>;

    /// Makes blocks again that were stored, as long as they are still to hold,
    /// in this order. Returns those that found no room.
    ///
    /// # Errors
    /// The kernel refuses.
    fn restore(&mut self, blocks: &[BlockState]) -> Result<Vec<BlockState>, PlaneError>;

    /// A random number that is another whenever the tables of blocks are begun
    /// anew.
    fn lineage(&self) -> u64;

    /// The blocks in force.
    ///
    /// # Errors
    /// A table cannot be read.
    fn blocks(&self) -> Result<Vec<BlockState>, PlaneError>;

    /// Frees the places of blocks whose time is over.
    ///
    /// # Errors
    /// The kernel refuses.
    fn expire_blocks(&mut self) -> Result<usize, PlaneError>;

    /// The counters, which never fall while the daemon lives.
    ///
    /// # Errors
    /// A table cannot be read.
    fn counters(&self) -> Result<Vec<Counter>, PlaneError>;

    /// Whether new sources are too many.
    ///
    /// # Errors
    /// A table cannot be read.
    fn flood(&self) -> Result<FloodState, PlaneError>;

    /// The tracked sources.
    ///
    /// # Errors
    /// A table cannot be read.
    fn sources(&self) -> Result<Vec<SourceState>, PlaneError>;

    /// Lets the program take samples of these refused packets from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    fn sample(&mut self, wanted: Refusals) -> Result<(), PlaneError>;

    /// The samples taken since the last time.
    ///
    /// # Errors
    /// They cannot be read.
    fn samples(&mut self) -> Result<Vec<SampledPacket>, PlaneError>;

    /// The same without names, which takes a fraction of the time.
    ///
    /// # Errors
    /// A table cannot be read.
    fn source_counts(&self) -> Result<Vec<SourceCount>, PlaneError>;

    /// What a count is of; `None`: its limit has gone meanwhile.
    fn source(&self, count: &SourceCount) -> Option<SourceState>;

    /// How full the tables are.
    ///
    /// # Errors
    /// A table cannot be read.
    fn capacities(&self) -> Result<Vec<MapUse>, PlaneError>;
}
