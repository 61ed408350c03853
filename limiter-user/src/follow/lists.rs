//! Watches list files: which have changed, have settled, and hold what may be
//! put in force.
//!
//! Files are looked at by their names once a second, not watched by inotify:
//! that knows nothing of what another host writes to a network file system,
//! holds on to a file or directory that a rename or a symbolic link has
//! replaced (as Kubernetes does), and may drop events. A look at a name costs
//! microseconds and sees all of these.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::image::{ListChange, ListKind};
use crate::keeper::{Cover, Kept, Lists, News};
use crate::policy::{
    Diagnostic, ListFile, ListFiles, ListSources, MAX_LIST_FILES, Stamp, read_list,
};

/// For how long a file must have been as it is before it is read, so that two
/// looks in a row see the same: who writes it in place may not be done.
pub(super) const SETTLED: Duration = Duration::from_millis(800);

/// A file that never stands still is read after this time all the same.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// After how long it is tried again to put in force what the data plane
/// refused: other entries may have made room.
const RETRY: Duration = Duration::from_secs(60);

/// Warnings at most of entries without effect.
const TOLD: usize = 20;

/// What was seen of list files that differ from what is in force.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    watched: HashMap<(ListKind, PathBuf), Watched>,
}

/// A file that is not what is in force.
#[derive(Debug)]
struct Watched {
    sight: Sight,
    /// Since when it is like this.
    since: Instant,
    /// Since when it changes.
    changing: Instant,
    judged: Judged,
    /// Why it is not in force.
    cause: Option<String>,
}

/// Whether it is known why this is not in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    NotYet,
    /// As long as it stays like this.
    AsItIs,
    /// That may change without the file.
    Until(Instant),
}

/// What a look at a file's name gives: its stamp, or why there is none.
type Sight = Result<Stamp, String>;

/// What a look at all files found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) news: Option<News>,
    /// The files that the news are about.
    pub(super) read: Vec<(ListKind, PathBuf)>,
    /// What is wrong with their lines.
    pub(super) warnings: Vec<Diagnostic>,
    /// Entries that have no effect.
    pub(super) notices: Vec<String>,
    pub(super) kept: Vec<Kept>,
}

impl Watcher {
    /// Looks at all list files, at `now`.
    pub(super) fn look(&mut self, lists: &Lists, files: &dyn ListFiles, now: Instant) -> Look {
        let mut look = Look::default();
        let mut next = lists.clone();
        let mut present = HashSet::new();
        for kind in [ListKind::Allow, ListKind::Deny] {
            let sources = lists.of(kind);
            let mut changed = BTreeMap::new();
            let (paths, missing) = matching(sources, files);
            for path in paths {
                present.insert((kind, path.clone()));
                let in_force = sources.files.get(&path);
                match self.look_at(kind, &path, in_force, files, now) {
                    Found::Same => {}
                    Found::Kept(cause) => look.kept.push(Kept {
                        list: kind,
                        file: path,
                        cause,
                    }),
                    Found::New(file, warnings) => {
                        look.warnings.extend(warnings);
                        look.read.push((kind, path.clone()));
                        changed.insert(path, Arc::new(file));
                    }
                }
            }
            look.kept
                .extend(missing.into_iter().map(|(file, cause)| Kept {
                    list: kind,
                    file,
                    cause,
                }));
            if !changed.is_empty() {
                let mut sources = ListSources::clone(sources);
                sources.files.extend(changed);
                match kind {
                    ListKind::Allow => next.allow = Arc::new(sources),
                    ListKind::Deny => next.deny = Arc::new(sources),
                }
            }
        }
        self.watched.retain(|file, _| present.contains(file));
        if !look.read.is_empty() {
            look.notices = without_effect(&next, &look.read);
            look.news = Some(News {
                changes: differences(lists, &next),
                base: lists.clone(),
                next,
            });
        }
        look
    }

    /// Notes that what was read could not be put in force, and tells which
    /// files are kept for it.
    pub(super) fn refuse(
        &mut self,
        read: &[(ListKind, PathBuf)],
        cause: &str,
        now: Instant,
    ) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (list, file) in read {
            if let Some(watched) = self.watched.get_mut(&(*list, file.clone())) {
                watched.judged = Judged::Until(now + RETRY);
                watched.cause = Some(cause.to_owned());
            }
            kept.push(Kept {
                list: *list,
                file: file.clone(),
                cause: cause.to_owned(),
            });
        }
        kept
    }

    fn look_at(
        &mut self,
        kind: ListKind,
        path: &Path,
        in_force: Option<&Arc<ListFile>>,
        files: &dyn ListFiles,
        now: Instant,
    ) -> Found {
        let key = (kind, path.to_owned());
        let sight = look(path, files);
        if in_force.is_some_and(|file| sight == Ok(file.stamp)) {
            self.watched.remove(&key);
            return Found::Same;
        }
        let watched = self.watched.entry(key).or_insert_with(|| Watched {
            sight: sight.clone(),
            since: now,
            changing: now,
            judged: Judged::NotYet,
            cause: None,
        });
        watched.see(sight, now);
        if !watched.is_due(now) {
            return watched.waiting();
        }
        let found = watched.judge(path, in_force, files, now);
        if let Found::Kept(cause) = &found {
            watched.cause = Some(cause.clone());
        }
        found
    }
}

enum Found {
    /// In force as it is, or not yet settled.
    Same,
    Kept(String),
    New(ListFile, Vec<Diagnostic>),
}

impl Watched {
    fn see(&mut self, sight: Sight, now: Instant) {
        if self.sight == sight {
            return;
        }
        if self.judged != Judged::NotYet {
            self.judged = Judged::NotYet;
            self.changing = now;
        }
        self.sight = sight;
        self.since = now;
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.judged {
            Judged::NotYet => now >= self.since + SETTLED || now >= self.changing + PATIENCE,
            Judged::AsItIs => false,
            Judged::Until(again) => now >= again,
        }
    }

    fn waiting(&self) -> Found {
        match &self.cause {
            Some(cause) => Found::Kept(cause.clone()),
            None => Found::Same,
        }
    }

    fn judge(
        &mut self,
        path: &Path,
        in_force: Option<&Arc<ListFile>>,
        files: &dyn ListFiles,
        now: Instant,
    ) -> Found {
        if let Err(cause) = &self.sight {
            self.judged = Judged::AsItIs;
            return Found::Kept(cause.clone());
        }
        let (bytes, stamp) = match files.read(path) {
            Ok(read) => read,
            Err(error) => {
                // Permissions and mounts change without the file.
                self.judged = Judged::Until(now + RETRY);
                return Found::Kept(format!("cannot be read: {error}"));
            }
        };
        // Somebody wrote meanwhile. Who never stops is believed all the same.
        let after = look(path, files);
        let is_still = after == Ok(stamp) && self.sight == after;
        if !is_still && now < self.changing + PATIENCE {
            self.see(after, now);
            return self.waiting();
        }
        let (file, warnings) = read_list(&path.to_string_lossy(), &bytes, stamp);
        match in_force {
            Some(before) if file.has_lost_nearly_all_of(before) => {
                self.judged = Judged::AsItIs;
                Found::Kept(format!(
                    "it holds {} entries, and held {}; `limiter reload` if that is meant",
                    file.networks.len(),
                    before.networks.len()
                ))
            }
            // Judged when it is in force.
            _ => Found::New(file, warnings),
        }
    }
}

fn look(path: &Path, files: &dyn ListFiles) -> Sight {
    files.stamp(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "it is gone; `limiter reload` if that is meant".to_owned(),
        _ => format!("cannot be read: {error}"),
    })
}

/// The files to look at: those that the globs match now and those in force;
/// and those that cannot even be looked for.
fn matching(
    sources: &ListSources,
    files: &dyn ListFiles,
) -> (BTreeSet<PathBuf>, Vec<(PathBuf, String)>) {
    let mut paths: BTreeSet<PathBuf> = sources.files.keys().cloned().collect();
    let mut missing = Vec::new();
    for pattern in &sources.patterns {
        match files.matching(pattern) {
            Ok(found) => {
                for path in found {
                    if paths.len() < MAX_LIST_FILES || paths.contains(&path) {
                        paths.insert(path);
                    } else {
                        let cause =
                            format!("one list file too many: {MAX_LIST_FILES} are followed");
                        missing.push((path, cause));
                        break;
                    }
                }
            }
            Err(error) => missing.push((pattern.into(), format!("cannot be read: {error}"))),
        }
    }
    (paths, missing)
}

/// What the one names and the other does not.
fn differences(old: &Lists, new: &Lists) -> Vec<ListChange> {
    let mut changes = Vec::new();
    for list in [ListKind::Allow, ListKind::Deny] {
        if Arc::ptr_eq(old.of(list), new.of(list)) {
            continue;
        }
        let (old, new) = (old.of(list).merged(), new.of(list).merged());
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let (network, listed) = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(a), Some(b)) if a == b => {
                    old.next();
                    new.next();
                    continue;
                }
                (Some(a), Some(b)) if a < b => (old.next(), false),
                (Some(_), None) => (old.next(), false),
                (_, Some(_)) => (new.next(), true),
            };
            changes.extend(network.map(|network| ListChange {
                list,
                network,
                listed,
            }));
        }
    }
    changes
}

/// Denies that an allow takes the effect of, as far as the files that were
/// read have to do with it.
fn without_effect(lists: &Lists, read: &[(ListKind, PathBuf)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut allow = None;
    for (kind, path) in read {
        let Some(file) = lists.of(*kind).files.get(path) else {
            continue;
        };
        let shown = path.display();
        match kind {
            ListKind::Deny => {
                let allow = allow.get_or_insert_with(|| Cover::new(lists.allow.merged()));
                found.extend(file.networks.iter().filter_map(|(denied, line)| {
                    let allowed = allow.of(*denied)?;
                    Some(format!(
                        "{shown}:{line}: deny {denied} has no effect while {allowed} is allowed"
                    ))
                }));
            }
            ListKind::Allow => {
                let lines: HashMap<IpNet, u32> = file.networks.iter().copied().collect();
                let added = Cover::new(lines.keys().copied());
                found.extend(lists.deny.merged().into_iter().filter_map(|denied| {
                    let allowed = added.of(denied)?;
                    let line = lines.get(&allowed)?;
                    Some(format!(
                        "{shown}:{line}: while {allowed} is allowed, deny {denied} has no effect"
                    ))
                }));
            }
        }
    }
    let more = found.len().saturating_sub(TOLD);
    found.truncate(TOLD);
    if more > 0 {
        found.push(format!("and {more} more of these"));
    }
    found
}

#[cfg(test)]
mod tests;
