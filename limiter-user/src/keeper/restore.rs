//! What was stored, in force again.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use ipnet::IpNet;
use limiter_common::block::Owner;

use super::holds::holds_of;
use super::lists::{Cover, Listed, NetworkList};
use super::records::{Records, Saved, StoredBlock};
use super::{Keeper, ListKind, Note, Now, in_full, shown};
use crate::dataplane::model::BlockState;
use crate::policy::Policy;

/// Lines in the log about what was not restored; a database can hold a hundred
/// thousand.
const MAX_LINES: usize = 20;

/// What a keeper begins with: the lists of the policy's file with the run-time
/// entries that were stored, and the blocks that are to be restored.
pub struct Recalled {
    pub(super) records: Box<dyn Records>,
    pub(super) saved: Option<Saved>,
    pub(super) allow: NetworkList,
    pub(super) deny: NetworkList,
}

impl std::fmt::Debug for Recalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recalled")
            .field("saved", &self.saved)
            .finish_non_exhaustive()
    }
}

impl Recalled {
    /// Reads what is stored. Entries that do not fit beside those of the file
    /// are left out, and said.
    #[must_use]
    pub fn new(mut records: Box<dyn Records>, policy: &Policy, now: Now) -> Self {
        let saved = records.saved();
        let edge = &policy.edge;
        let mut allow = NetworkList::of_file(&edge.allow);
        let mut deny = NetworkList::of_file(&edge.deny);
        let mut skipped = Skipped::default();
        let mut listed = allow.len() + deny.len();
        // An allow that is lost can lock somebody out, so these come first.
        for kind in [ListKind::Allow, ListKind::Deny] {
            let list = match kind {
                ListKind::Allow => &mut allow,
                ListKind::Deny => &mut deny,
            };
            for (network, entry) in entries(saved.as_ref(), kind, now) {
                if !list.contains(network) {
                    if listed >= edge.tables.lists as usize {
                        let cause = "the lists are full (edge.tables.lists)";
                        skipped.add(kind.name(), network, cause.to_owned());
                        continue;
                    }
                    listed += 1;
                }
                list.replace(network, Some(entry));
            }
        }
        skipped.say();
        Self {
            records,
            saved,
            allow,
            deny,
        }
    }

    /// The policy to put in force first: with the run-time entries, as if the
    /// file had them.
    #[must_use]
    pub fn effective(&self, policy: &Policy) -> Policy {
        effective(policy, &self.allow, &self.deny)
    }
}

/// A policy with the run-time entries of both lists, as if the file had them:
/// what the data plane is to put in force.
pub(super) fn effective(policy: &Policy, allow: &NetworkList, deny: &NetworkList) -> Policy {
    let mut policy = policy.clone();
    policy.edge.allow.extend(allow.runtime());
    policy.edge.deny.extend(deny.runtime());
    policy
}

/// The stored entries of a list whose time is not over.
fn entries(saved: Option<&Saved>, kind: ListKind, now: Now) -> Vec<(IpNet, Listed)> {
    let Some(saved) = saved else {
        return Vec::new();
    };
    let of_kind = saved.all.entries.iter().filter(|it| it.list == kind);
    let still = of_kind.filter_map(|entry| {
        let left = entry.until.map(|until| saved.written.left(until, now));
        let listed = Listed {
            since: entry.since,
            until: left.map(|left| now.after(left)),
            reason: entry.reason.clone(),
            uid: entry.uid,
        };
        (left != Some(Duration::ZERO)).then_some((entry.network, listed))
    });
    still.collect()
}

impl Keeper {
    /// Puts the blocks that were stored in force again, if the data plane has
    /// not kept them, and has stored what is in force then. Before anything is
    /// attached, so that no packet comes in between.
    pub fn restore(&mut self, now: Now) {
        if let Some(saved) = self.saved.take() {
            self.restore_blocks(&saved, now);
        }
        self.record_everything(now);
    }

    /// The same where what was stored could not be read at the start. What was
    /// changed since then counts.
    pub(super) fn restore_late(&mut self, saved: Saved, now: Now) {
        tracing::info!("what was stored before could be read at last");
        for kind in [ListKind::Allow, ListKind::Deny] {
            let list = self.list(kind);
            let mut missing = entries(Some(&saved), kind, now);
            missing.retain(|(network, _)| !list.at_runtime(*network));
            let missing = missing.into_iter().map(|(network, it)| (network, Some(it)));
            if let Err(error) = self.change_list(kind, missing.collect(), now) {
                let list = kind.name();
                tracing::warn!(%error, list, "stored list entries are not restored");
            }
        }
        self.restore_blocks(&saved, now);
        self.record_everything(now);
    }

    fn restore_blocks(&mut self, saved: &Saved, now: Now) {
        self.blocks_refused += saved.all.blocks_refused;
        let held = match self.plane.blocks() {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(%error, "the blocks cannot be read: none is restored");
                return;
            }
        };
        let name = |of: Owner, network, limit: &Option<String>| {
            (network, limit.clone(), of == Owner::Kernel)
        };
        let held: HashSet<_> = held
            .iter()
            .map(|state| name(state.owner, state.network, &state.limit))
            .collect();
        let is_held =
            |block: &StoredBlock| held.contains(&name(block.owner, block.network, &block.limit));
        let (kept, missing): (Vec<_>, Vec<_>) = saved.all.blocks.iter().partition(|it| is_held(it));
        for block in kept {
            self.note(block, saved.written.left(block.until, now), now);
        }
        // The data plane lived on: what it does not have was ended.
        if saved.all.lineage != self.plane.lineage() {
            self.make_again(saved, missing, now);
        }
    }

    fn make_again(&mut self, saved: &Saved, missing: Vec<&StoredBlock>, now: Now) {
        let mut skipped = Skipped::default();
        let allow = Cover::new(self.allow.networks());
        let mut wanted = Vec::with_capacity(missing.len());
        for block in missing {
            let remaining = saved.written.left(block.until, now);
            if remaining.is_zero() {
                continue;
            }
            match self.contradiction(block, &allow) {
                Some(cause) => skipped.add("block", block.network, cause),
                None => wanted.push((block, remaining)),
            }
        }
        // Where there is no room for all, those that end last are kept.
        wanted.sort_by_key(|(block, remaining)| (std::cmp::Reverse(*remaining), block.network));
        let states: Vec<BlockState> = wanted
            .iter()
            .map(|(block, remaining)| BlockState {
                network: block.network,
                owner: block.owner,
                limit: block.limit.clone(),
                remaining: *remaining,
                dry: block.dry,
            })
            .collect();
        match self.plane.restore(&states) {
            Ok(refused) => {
                for state in &refused {
                    let cause = "there is no room for it (edge.tables)";
                    skipped.add("block", state.network, cause.to_owned());
                }
                for (block, left) in wanted {
                    self.note(block, left, now);
                }
                let restored = states.len() - refused.len();
                if restored > 0 {
                    tracing::info!(blocks = restored, "stored blocks are in force again");
                }
            }
            Err(error) => {
                let error = in_full(&*error);
                tracing::error!(error, "stored blocks are not restored");
            }
        }
        skipped.say();
    }

    /// Why a block that is stored is not to be in force.
    fn contradiction(&self, block: &StoredBlock, allow: &Cover) -> Option<String> {
        if let Some(limit) = &block.limit
            && self.known_limit(limit).is_err()
        {
            return Some(format!("the policy has no limit `{limit}`"));
        }
        if let Some(wider) = allow.of(block.network) {
            return Some(format!("it lies inside {}, which is allowed", shown(wider)));
        }
        let enforced = self.policy.edge.enforce;
        (block.dry && enforced).then(|| "it was of a dry run".to_owned())
    }

    /// Remembers who made a block and why; what is known already counts.
    pub(super) fn note(&mut self, block: &StoredBlock, left: Duration, now: Now) {
        if block.owner == Owner::Kernel {
            return;
        }
        let name = (block.network, block.limit.clone());
        let text = block.reason.as_deref();
        let text = text.filter(|_| block.owner == Owner::Rule);
        let until = now.after(left).mono;
        let mut rules = text.map_or_else(Vec::new, |text| holds_of(text, until));
        let reason = block.reason.clone().filter(|_| rules.is_empty());
        rules.retain(|hold| hold.until > now.mono);
        self.notes.entry(name).or_insert_with(|| Note {
            since: block.since.unwrap_or(now.wall),
            reason,
            uid: block.uid,
            rules,
        });
    }
}

/// What was not restored, for the log.
#[derive(Default)]
struct Skipped {
    lines: Vec<String>,
    more: usize,
}

impl Skipped {
    fn add(&mut self, what: &str, network: IpNet, cause: String) {
        if self.lines.len() < MAX_LINES {
            let line = format!("{what} {} is not restored: {cause}", shown(network));
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    fn say(self) {
        for line in self.lines {
            tracing::warn!("{line}");
        }
        if self.more > 0 {
            tracing::warn!("and {} more are not restored", self.more);
        }
    }
}
