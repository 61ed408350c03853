//! Where the entries of a list come from: the policy file and each of its list
//! files, kept apart, so that one can be replaced.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

/// What the policy says of one list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListSources {
    /// The networks that the policy file itself names, sorted.
    pub written: Vec<IpNet>,
    /// The globs of its list files.
    pub patterns: Vec<String>,
    /// What those files held when they were last read; at most
    /// [`MAX_LIST_FILES`](super::MAX_LIST_FILES).
    pub files: BTreeMap<PathBuf, Arc<ListFile>>,
}

/// A list file as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ListFile {
    /// What it looked like then.
    pub stamp: Stamp,
    /// Its networks, sorted and each once, with the line that each stands in.
    pub networks: Vec<(IpNet, u32)>,
    /// Lines that could not be read.
    pub skipped: usize,
}

/// What a file looks like from outside. Of two stamps that are equal the
/// contents are taken for equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its length.
    pub length_bytes: u64,
    /// When it was last written to, in seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When anything of it last changed; unlike the other this cannot be set.
    pub changed: (i64, i64),
}

impl ListSources {
    /// All networks, sorted, each once.
    #[must_use]
    pub fn merged(&self) -> Vec<IpNet> {
        let files = self.files.values().flat_map(|file| &file.networks);
        let mut all = self.written.clone();
        all.extend(files.map(|(network, _)| *network));
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl ListFile {
    /// Whether it has lost so much that a defect is more likely than an
    /// intention: all it held, or more than nine tenths of ten or more.
    #[must_use]
    pub fn has_lost_nearly_all_of(&self, before: &Self) -> bool {
        let (old, new) = (before.networks.len(), self.networks.len());
        (new == 0 && old > 0) || (old >= 10 && new < old / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(count: u8) -> ListFile {
        let networks = (0..count).map(|host| (std::net::IpAddr::from([192, 0, 2, host]).into(), 1));
        ListFile {
            stamp: Stamp::default(),
            networks: networks.collect(),
            skipped: 0,
        }
    }

    #[test]
    fn what_is_lost_by_a_defect() {
        for (before, after, is_lost) in [
            (0, 0, false),
            (1, 0, true),
            (9, 1, false),
            (10, 1, false),
            (20, 1, true),
            (100, 10, false),
            (100, 9, true),
            (9, 100, false),
        ] {
            let (before, after) = (file(before), file(after));
            assert_eq!(after.has_lost_nearly_all_of(&before), is_lost);
        }
    }
}
