//! List files that are followed: what they say takes effect entry by entry,
//! and what is wrong with them is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::{Keeper, ListKind, Now, PlaneError, timestamp};
use crate::control::api::ListFileRow;
use crate::image::ListChange;
use crate::policy::{ListFile, ListSources};

/// The lists in force, by where their entries come from; without those of run
/// time.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Never limited, denied or blocked.
    pub allow: Arc<ListSources>,
    /// Always dropped.
    pub deny: Arc<ListSources>,
}

impl Lists {
    /// One of the two.
    #[must_use]
    pub fn of(&self, kind: ListKind) -> &Arc<ListSources> {
        match kind {
            ListKind::Allow => &self.allow,
            ListKind::Deny => &self.deny,
        }
    }

    /// Whether these are the very lists of `other`, not others that say the
    /// same.
    #[must_use]
    pub fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.allow, &other.allow) && Arc::ptr_eq(&self.deny, &other.deny)
    }
}

/// Other contents of list files, worked out elsewhere.
#[derive(Clone, Debug)]
pub struct News {
    /// The lists that they were compared with.
    pub base: Lists,
    /// What takes their place.
    pub next: Lists,
    /// What files name now and did not before, and the reverse; by list, and
    /// sorted in each.
    pub changes: Vec<ListChange>,
}

/// A list file that is not in force as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The list.
    pub list: ListKind,
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub cause: String,
}

/// What the keeper was told of [`Kept`] files.
#[derive(Debug, Default)]
pub(super) struct KeptFiles(Vec<(Kept, SystemTime)>);

impl KeptFiles {
    fn find(&self, list: ListKind, file: &Path) -> Option<&(Kept, SystemTime)> {
        let mut all = self.0.iter();
        all.find(|(kept, _)| kept.list == list && kept.file == file)
    }
}

impl Keeper {
    /// The lists in force.
    #[must_use]
    pub fn lists(&self) -> Lists {
        let edge = &self.policy.edge;
        Lists {
            allow: Arc::clone(&edge.allow_from),
            deny: Arc::clone(&edge.deny_from),
        }
    }

    /// Puts other contents of list files in force, unless the lists are no
    /// longer those that they were compared with: then `false`, and nothing
    /// has changed.
    ///
    /// # Errors
    /// The lists do not fit, or would cut an SSH connection off; the old ones stay
    /// in force.
    pub fn follow_lists(&mut self, news: &News) -> Result<bool, PlaneError> {
        if !self.lists().are(&news.base) {
            return Ok(false);
        }
        // What run time names too is in force anyway.
        let alone = |change: &&ListChange| {
            let list = match change.list {
                ListKind::Allow => &self.allow,
                ListKind::Deny => &self.deny,
            };
            !list.at_runtime(change.network)
        };
        let changes: Vec<ListChange> = news.changes.iter().filter(alone).copied().collect();
        if !changes.is_empty() {
            self.cut_by_files(&changes)?;
            self.plane.change_lists(&changes)?;
        }
        for change in &news.changes {
            self.list(change.list)
                .change_file(change.network, change.listed);
        }
        let edge = &mut self.policy.edge;
        edge.allow = self.allow.file().collect();
        edge.deny = self.deny.file().collect();
        edge.allow_from = Arc::clone(&news.next.allow);
        edge.deny_from = Arc::clone(&news.next.deny);
        Ok(true)
    }

    /// Refuses changes that cut SSH connections off: nobody is there to ask.
    fn cut_by_files(&self, changes: &[ListChange]) -> Result<(), PlaneError> {
        for guarded in self.guards(None) {
            let mut after = guarded.rules();
            let edge = &mut after.policy.edge;
            for change in changes.iter().filter(|it| guarded.is_near(&it.network)) {
                let list = match change.list {
                    ListKind::Allow => &mut edge.allow,
                    ListKind::Deny => &mut edge.deny,
                };
                list.retain(|network| *network != change.network);
                list.extend(change.listed.then_some(change.network));
            }
            let checked = guarded.check(&after);
            let notices = checked.map_err(|refusal| {
                let detail = refusal.detail;
                format!("{detail}; `limiter reload --force` if that is meant")
            })?;
            for notice in notices {
                tracing::warn!("{notice}");
            }
        }
        Ok(())
    }

    /// Notes which list files are not in force as they are now, in place of
    /// those noted before.
    pub fn keep_files(&mut self, kept: Vec<Kept>, now: Now) {
        for kept in &kept {
            let before = self.kept_files.find(kept.list, &kept.file);
            if before.is_none_or(|(before, _)| before.cause != kept.cause) {
                let (list, file) = (kept.list.name(), kept.file.display());
                tracing::warn!(list, %file, cause = kept.cause, "list file kept as it was");
            }
        }
        for (before, _) in &self.kept_files.0 {
            let is_same = |kept: &Kept| kept.list == before.list && kept.file == before.file;
            if !kept.iter().any(is_same) {
                let (list, file) = (before.list.name(), before.file.display());
                tracing::info!(list, %file, "list file in force as it is again");
            }
        }
        let kept = kept.into_iter().map(|kept| {
            let before = self.kept_files.find(kept.list, &kept.file);
            let since = before.map_or(now.wall, |(_, since)| *since);
            (kept, since)
        });
        self.kept_files = KeptFiles(kept.collect());
    }

    /// All list files: those in force, then those that never were.
    pub(super) fn list_file_rows(&self) -> Vec<ListFileRow> {
        let lists = self.lists();
        let mut rows = Vec::new();
        for list in [ListKind::Allow, ListKind::Deny] {
            let sources = lists.of(list);
            for (file, held) in &sources.files {
                rows.push(self.list_file_row(list, file, Some(held)));
            }
            for (kept, _) in &self.kept_files.0 {
                if kept.list == list && !sources.files.contains_key(&kept.file) {
                    rows.push(self.list_file_row(list, &kept.file, None));
                }
            }
        }
        rows
    }

    fn list_file_row(
        &self,
        list: ListKind,
        file: &Path,
        held: Option<&Arc<ListFile>>,
    ) -> ListFileRow {
        let kept = self.kept_files.find(list, file);
        ListFileRow {
            list: list.name().to_owned(),
            file: file.display().to_string(),
            entries: held.map_or(0, |held| held.networks.len() as u64),
            skipped_lines: held.map_or(0, |held| held.skipped as u64),
            kept_since: kept.map(|(_, since)| timestamp(*since)),
            cause: kept.map(|(kept, _)| kept.cause.clone()),
        }
    }
}

/// What lists lose by an explicit reload and would not have lost by themselves.
pub(super) fn losses(old: &Lists, new: &Lists) -> Vec<String> {
    let mut notices = Vec::new();
    for list in [ListKind::Allow, ListKind::Deny] {
        let name = list.name();
        let after = &new.of(list).files;
        for (file, before) in &old.of(list).files {
            let (held, file_name) = (before.networks.len(), file.display());
            match after.get(file) {
                None if held > 0 => notices.push(format!(
                    "{file_name} is no {name} file any more: its {held} entries are gone"
                )),
                Some(file) if file.has_lost_nearly_all_of(before) => notices.push(format!(
                    "{file_name} holds {} entries for {name}, and held {held}",
                    file.networks.len()
                )),
                _ => {}
            }
        }
    }
    notices
}
