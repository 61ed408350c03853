//! What the keeper has stored and finds again: the seam at which tests put a
//! fake.

use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use limiter_common::block::Owner;
use tokio::sync::watch;

use super::clock::Now;
use crate::image::ListKind;
use crate::store::audit::Audit;

/// A block as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// Whom.
    pub network: IpNet,
    /// The limit that it is confined to, or, for the kernel's, that was
    /// exceeded.
    pub limit: Option<String>,
    /// Who made it.
    pub owner: Owner,
    /// When it ends, as [`Now::mono`].
    pub until: Duration,
    /// Made while the policy was not enforced.
    pub dry: bool,
    /// Since when, where that is known.
    pub since: Option<SystemTime>,
    /// The user who made it, where that is known.
    pub uid: Option<u32>,
    /// Why, where somebody said.
    pub reason: Option<String>,
}

/// A run-time entry of a list as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The list.
    pub list: ListKind,
    /// Whom.
    pub network: IpNet,
    /// When it ends, as [`Now::mono`]; `None`: never.
    pub until: Option<Duration>,
    /// Since when.
    pub since: SystemTime,
    /// The user who added it.
    pub uid: u32,
    /// Why, where somebody said.
    pub reason: Option<String>,
}

/// All that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Everything {
    /// That of the data plane whose blocks these are.
    pub lineage: u64,
    /// Blocks that found no room, ever.
    pub blocks_refused: u64,
    /// The blocks of every owner.
    pub blocks: Vec<StoredBlock>,
    /// The run-time entries of both lists.
    pub entries: Vec<StoredEntry>,
}

/// When something was stored for the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The machine has not started again since: its monotonic clock is the one
    /// that times were stored by.
    pub is_this_boot: bool,
    /// As [`Now::mono`].
    pub mono: Duration,
    /// As [`Now::wall`].
    pub wall: SystemTime,
}

impl Written {
    /// How long what was to end at `until` still lasts.
    ///
    /// After another start of the machine only the wall clock tells what has
    /// passed. Where that was set back, or is not set yet, nothing has: no time
    /// is ever longer than it was when it was last written.
    #[must_use]
    pub fn left(&self, until: Duration, now: Now) -> Duration {
        if self.is_this_boot {
            return until.saturating_sub(now.mono);
        }
        let passed = now.wall.duration_since(self.wall).unwrap_or_default();
        until.saturating_sub(self.mono).saturating_sub(passed)
    }
}

/// What was found stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// When.
    pub written: Written,
    /// What.
    pub all: Everything,
}

/// What is to be stored.
#[derive(Clone, Debug)]
pub enum Change {
    /// These blocks, each instead of the one of its network and limit.
    Blocks(Vec<StoredBlock>),
    /// No block of this network any more, or only none confined to this limit.
    /// Those of the kernel stay.
    Unblocked(IpNet, Option<String>),
    /// These blocks of the kernel, and no others of it.
    KernelBlocks(Vec<StoredBlock>),
    /// These entries, each instead of the one of its network.
    Entries(Vec<StoredEntry>),
    /// No run-time entries of these networks any more.
    Unlisted(ListKind, Vec<IpNet>),
    /// So many blocks found no room, ever.
    BlocksRefused(u64),
    /// Nothing has changed but the time.
    Nothing,
    /// All this, and nothing else.
    Everything(Everything),
}

impl Change {
    /// How many rows it has.
    #[must_use]
    pub const fn rows(&self) -> usize {
        match self {
            Self::Blocks(blocks) | Self::KernelBlocks(blocks) => blocks.len(),
            Self::Entries(entries) => entries.len(),
            Self::Unlisted(_, networks) => networks.len(),
            Self::Unblocked(..) | Self::BlocksRefused(_) | Self::Nothing => 1,
            Self::Everything(all) => all.blocks.len() + all.entries.len(),
        }
    }
}

/// How far storing has come. Changes are numbered from 1 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Changes up to this one are stored, or lost.
    pub handled: u64,
    /// Changes up to this one are stored.
    pub stored: u64,
    /// Why nothing is stored at present, and what to do.
    pub trouble: Option<String>,
}

/// For whoever wants to know when a change is stored.
#[derive(Clone, Debug)]
pub struct Receipt {
    number: u64,
    progress: watch::Receiver<Progress>,
}

impl Receipt {
    /// The receipt of change `number`.
    #[must_use]
    pub const fn new(number: u64, progress: watch::Receiver<Progress>) -> Self {
        Self { number, progress }
    }

    /// Waits until it is stored.
    ///
    /// # Errors
    /// Why it is not, in words for the operator.
    pub async fn stored(mut self, within: Duration) -> Result<(), String> {
        let number = self.number;
        let handled = self.progress.wait_for(|it| it.handled >= number);
        let progress = match tokio::time::timeout(within, handled).await {
            Ok(Ok(progress)) => progress.clone(),
            Ok(Err(_)) => return Err("the daemon is ending".to_owned()),
            Err(_) => return Err(format!("the disk takes longer than {} s", within.as_secs())),
        };
        if progress.stored >= number {
            return Ok(());
        }
        let trouble = progress.trouble;
        Err(trouble.unwrap_or_else(|| "it failed, and is tried again".to_owned()))
    }
}

/// Where changes are stored. No verb waits for a disk.
pub trait Records: Send {
    /// What was found stored, once: at the start, or as soon as it could be
    /// read.
    fn saved(&mut self) -> Option<Saved>;

    /// Has a change stored after all that were handed over before. While there
    /// is trouble only [`Change::Everything`] is, which ends it.
    fn hand_over(&mut self, change: Change, now: Now);

    /// For whoever wants to know when all that was handed over is stored.
    fn receipt(&self) -> Receipt;

    /// Why nothing is stored at present, and what to do; `None`: all is well.
    fn trouble(&self) -> Option<String>;

    /// What writes to the audit log.
    fn audit(&self) -> Audit;
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn written(is_this_boot: bool) -> Written {
        Written {
            is_this_boot,
            mono: secs(1_000),
            wall: SystemTime::UNIX_EPOCH + 20_000 * DAY,
        }
    }

    fn at(mono: u64, wall: SystemTime) -> Now {
        Now {
            mono: secs(mono),
            wall,
            ..Now::read()
        }
    }

    /// However the wall clock is set.
    #[test]
    fn within_a_boot_the_monotonic_clock_decides() {
        let written = written(true);
        for wall in [written.wall, written.wall + DAY, written.wall - DAY] {
            assert_eq!(written.left(secs(1_600), at(1_010, wall)), secs(590));
            assert_eq!(written.left(secs(1_600), at(1_600, wall)), secs(0));
            assert_eq!(written.left(secs(1_600), at(9_999, wall)), secs(0));
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_does_and_never_lengthens() {
        let written = written(false);
        let left = |wall| written.left(secs(1_600), at(5, wall));
        assert_eq!(left(written.wall), secs(600));
        assert_eq!(left(written.wall + secs(60)), secs(540));
        assert_eq!(left(written.wall + secs(600)), secs(0));
        assert_eq!(left(written.wall + DAY), secs(0));
        // Set back, and not set yet.
        assert_eq!(left(written.wall - DAY), secs(600));
        assert_eq!(left(SystemTime::UNIX_EPOCH), secs(600));
        // What was over when it was written stays so.
        assert_eq!(written.left(secs(900), at(5, written.wall)), secs(0));
    }
}
