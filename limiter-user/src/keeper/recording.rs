//! What is handed over to be stored, and when. The data plane comes first,
//! then the database, then the answer.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use limiter_common::block::Owner;

use super::holds::stored_holds;
use super::lists::Listed;
use super::records::{Change, Everything, Receipt, Records, StoredBlock, StoredEntry};
use super::{Keeper, ListKind, Note, Now, PlaneError};
use crate::control::api::StateRow;
use crate::dataplane::model::BlockState;
use crate::store::audit::Audit;

/// How often the blocks that the kernel makes are looked at, and the time is
/// noted by which others are measured after a reboot.
const SNAPSHOT: Duration = Duration::from_mins(1);

/// How often storing is tried again after it has failed.
const RETRY: Duration = Duration::from_secs(5);

/// Ends that differ by less are the same: two readings of a block's remaining
/// time are not of the same instant.
const SAME: Duration = Duration::from_secs(1);

/// The keeper's side of the records.
pub(super) struct Recording {
    records: Box<dyn Records>,
    audit: Audit,
    /// The kernel's blocks as they were handed over last.
    kernel: Vec<StoredBlock>,
    snapshot_due: Instant,
    retry_due: Instant,
}

impl Recording {
    pub(super) fn new(records: Box<dyn Records>, now: Now) -> Self {
        Self {
            audit: records.audit(),
            records,
            kernel: Vec::new(),
            snapshot_due: now.after(SNAPSHOT).instant,
            retry_due: now.instant,
        }
    }

    pub(super) const fn audit(&self) -> &Audit {
        &self.audit
    }
}

impl Keeper {
    /// For whoever wants to know when what was changed so far is stored.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        self.recording.records.receipt()
    }

    /// Has stored what changes by itself; for the end of the daemon.
    pub fn settle(&mut self, now: Now) {
        self.record_kernel_blocks(now);
        self.record(Change::Nothing, now);
    }

    /// How storing goes.
    pub(super) fn state_row(&self) -> StateRow {
        let trouble = self.recording.records.trouble();
        StateRow {
            directory: self.policy.state.directory.display().to_string(),
            writable: trouble.is_none(),
            error: trouble,
        }
    }

    /// What is due with time: a snapshot, or another attempt.
    pub(super) fn keep_records(&mut self, now: Now) {
        if let Some(saved) = self.recording.records.saved() {
            // It could not be read at the start.
            self.restore_late(saved, now);
            return;
        }
        if self.recording.records.trouble().is_some() {
            if now.instant >= self.recording.retry_due {
                self.record_everything(now);
            }
        } else if now.instant >= self.recording.snapshot_due {
            self.settle(now);
        }
    }

    pub(super) fn record(&mut self, change: Change, now: Now) {
        self.recording.records.hand_over(change, now);
    }

    pub(super) fn record_blocks(&mut self, states: &[BlockState], now: Now) {
        let blocks = states.iter().map(|state| self.stored_block(state, now));
        let blocks = blocks.collect();
        self.record(Change::Blocks(blocks), now);
    }

    /// Has all stored anew: where much has changed at once, or nothing could be
    /// stored before.
    pub(super) fn record_everything(&mut self, now: Now) {
        self.recording.retry_due = now.after(RETRY).instant;
        match self.everything(now) {
            Ok(all) => {
                self.recording.kernel = all.blocks.iter().filter(is_kernels).cloned().collect();
                self.record(Change::Everything(all), now);
            }
            Err(error) => {
                tracing::warn!(%error, "the blocks cannot be read, so that they can be stored");
            }
        }
    }

    /// Has the kernel's own blocks stored, if they are others than before.
    pub(super) fn record_kernel_blocks(&mut self, now: Now) {
        self.recording.snapshot_due = now.after(SNAPSHOT).instant;
        let states = match self.plane.blocks() {
            Ok(states) => states,
            Err(error) => {
                tracing::warn!(%error, "the kernel's blocks cannot be read, so that they can be stored");
                return;
            }
        };
        self.forget_notes(&states);
        let states = states.iter().filter(|it| it.owner == Owner::Kernel);
        let mut blocks: Vec<StoredBlock> =
            states.map(|state| self.stored_block(state, now)).collect();
        blocks.sort_by_key(|block| block.network);
        let before = &mut self.recording.kernel;
        before.sort_by_key(|block| block.network);
        before.retain(|block| block.until > now.mono);
        let same = before.len() == blocks.len() && before.iter().zip(&blocks).all(is_same);
        if !same {
            before.clone_from(&blocks);
            self.record(Change::KernelBlocks(blocks), now);
        }
    }

    /// A block of the kernel may have ended with the operator's.
    pub(super) fn record_unblocked(&mut self, network: IpNet, limit: Option<&str>, now: Now) {
        self.record(Change::Unblocked(network, limit.map(str::to_owned)), now);
        if limit.is_none() && !self.recording.kernel.is_empty() {
            self.record_kernel_blocks(now);
        }
    }

    pub(super) fn record_entries(
        &mut self,
        kind: ListKind,
        entries: &[(IpNet, Option<Listed>)],
        now: Now,
    ) {
        // What is named twice counts as it is named last.
        let mut unlisted = Vec::new();
        let mut stored = Vec::new();
        for (network, entry) in entries {
            match entry {
                Some(listed) => stored.push(stored_entry(kind, *network, listed)),
                None => unlisted.push(*network),
            }
        }
        if !unlisted.is_empty() {
            self.record(Change::Unlisted(kind, unlisted), now);
        }
        if !stored.is_empty() {
            self.record(Change::Entries(stored), now);
        }
    }

    fn everything(&mut self, now: Now) -> Result<Everything, PlaneError> {
        let states = self.plane.blocks()?;
        for state in states.iter().filter(|it| it.owner != Owner::Kernel) {
            // Made by a daemon that could not say so any more.
            let name = (state.network, state.limit.clone());
            self.notes.entry(name).or_insert(Note {
                since: now.wall,
                reason: None,
                uid: None,
                rules: Vec::new(),
            });
        }
        let blocks = states.iter().map(|state| self.stored_block(state, now));
        let lists = [(ListKind::Allow, &self.allow), (ListKind::Deny, &self.deny)];
        let entries = lists.into_iter().flat_map(|(kind, list)| {
            let entries = list.entries();
            entries.map(move |(network, listed)| stored_entry(kind, network, listed))
        });
        Ok(Everything {
            lineage: self.plane.lineage(),
            blocks_refused: self.blocks_refused,
            blocks: blocks.collect(),
            entries: entries.collect(),
        })
    }

    fn stored_block(&self, state: &BlockState, now: Now) -> StoredBlock {
        let name = (state.network, state.limit.clone());
        let note = self.notes.get(&name);
        let note = note.filter(|_| state.owner != Owner::Kernel);
        let until = now.after(state.remaining).mono;
        StoredBlock {
            network: state.network,
            limit: state.limit.clone(),
            owner: state.owner,
            until,
            dry: state.dry,
            since: note.map(|note| note.since),
            uid: note.and_then(|note| note.uid),
            reason: note.and_then(|note| stored_reason(note, until)),
        }
    }
}

fn stored_entry(kind: ListKind, network: IpNet, listed: &Listed) -> StoredEntry {
    StoredEntry {
        list: kind,
        network,
        until: listed.until.map(|until| until.mono),
        since: listed.since,
        uid: listed.uid,
        reason: listed.reason.clone(),
    }
}

/// Why a block that lasts until then was made; of one of rules all that is known of them.
fn stored_reason(note: &Note, until: Duration) -> Option<String> {
    if note.rules.is_empty() {
        return note.reason.clone();
    }
    stored_holds(&note.rules, until)
}

fn is_kernels(block: &&StoredBlock) -> bool {
    block.owner == Owner::Kernel
}

fn is_same((before, now): (&StoredBlock, &StoredBlock)) -> bool {
    (before.network, &before.limit, before.dry) == (now.network, &now.limit, now.dry)
        && before.until.abs_diff(now.until) < SAME
}
