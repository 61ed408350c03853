//! The BPF file system in which maps and links outlive the daemon.
//!
//! ```text
//! ROOT/links/2        the link on the interface of index 2
//! ROOT/set_7/TALLY …  the maps of one load, and what they mean (`ledger`)
//! ```
//!
//! Names in a BPF file system have no dots, so interfaces are named by index.

use super::{
    error::Error,
    sys::{self, Link},
};
use std::{
    fs, io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

/// Why maps and links cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// There is no BPF file system, and none may be mounted.
    #[error(
        "no BPF file system is mounted on {root} (state.pins), and it cannot be mounted: {source}; \
         as root: `mkdir -p {root}`, `mount -t bpf -o mode=0700,nosuid,nodev,noexec bpf {root}`, and \
         `chown` it to the user that limiter runs as"
    )]
    NotMounted {
        /// `state.pins`.
        root: String,
        /// The kernel's words.
        source: io::Error,
    },
    /// Others could change what is pinned.
    #[error(
        "{root} (state.pins) belongs to user {uid} and has mode {mode:04o}: what is kept there is for \
         the user that limiter runs as, and for nobody else; run it as that user, or \
         `chmod 0700 {root}` and `chown -R` it to the user that it runs as now"
    )]
    Loose {
        /// `state.pins`.
        root: String,
        /// Its owner.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Another daemon, or `limiter detach`, is at work.
    #[error(
        "another limiter keeps its program in {root} (state.pins); stop it, or give this one \
         another directory there"
    )]
    Locked {
        /// `state.pins`.
        root: String,
    },
    /// The links are of another network namespace.
    #[error(
        "{path} is a link of another network namespace; a limiter in each needs a state.pins of \
         its own"
    )]
    OtherNetwork {
        /// The pin.
        path: String,
    },
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The error.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PinsError {
    let path = path.display().to_string();
    move |source| PinsError::Io { path, source }
}

/// The directory with everything that is kept, locked: whoever holds it is the
/// only one.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    /// Held open for its lock, which also keeps the file system from being
    /// unmounted by mistake.
    lock: fs::File,
}

impl Pins {
    /// Takes the directory over, with a BPF file system mounted there if there
    /// is none.
    ///
    /// # Errors
    ///
    /// See [`PinsError`].
    pub fn open(root: &Path) -> Result<Self, PinsError> {
        // Others' are root's too, but by a capability that `run` gives up.
        Self::open_of(root, |uid| uid == geteuid().as_raw())
    }

    /// The same for root, whoever the daemon ran as.
    ///
    /// # Errors
    ///
    /// See [`PinsError`].
    pub fn open_of_anybody(root: &Path) -> Result<Self, PinsError> {
        Self::open_of(root, |uid| uid == geteuid().as_raw() || geteuid().is_root())
    }

    fn open_of(root: &Path, may_be: impl Fn(u32) -> bool) -> Result<Self, PinsError> {
        let name = root.display().to_string();
        let not_mounted = |source| PinsError::NotMounted {
            root: name.clone(),
            source,
        };
        match fs::DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(not_mounted(error));
            }
            _ => {}
        }
        if !is_bpf(root)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let mounted = mount(Some("bpf"), root, Some("bpf"), flags, Some("mode=0700"));
            mounted.map_err(|errno| not_mounted(errno.into()))?;
        }
        let metadata = fs::metadata(root).map_err(failed(root))?;
        let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if mode & 0o022 != 0 || !may_be(uid) {
            return Err(PinsError::Loose {
                root: name,
                uid,
                mode,
            });
        }
        let lock = fs::File::open(root).map_err(failed(root))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(PinsError::Locked { root: name }),
            Err(fs::TryLockError::Error(error)) => return Err(failed(root)(error)),
        }
        let pins = Self {
            root: root.to_owned(),
            lock,
        };
        make_directory(&pins.root.join("links"))?;
        Ok(pins)
    }

    /// Whether anything may be kept at this place: a BPF file system is there.
    pub fn are_at(root: &Path) -> bool {
        is_bpf(root).unwrap_or(false)
    }

    /// The indices of the interfaces for which a link is kept at this place, as far
    /// as this user may see. Nothing is locked or changed.
    pub fn interfaces_at(root: &Path) -> Vec<u32> {
        let names = names(&root.join("links")).unwrap_or_default();
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the file system that was locked is still the one at this place.
    pub(super) fn is_mounted(&self) -> bool {
        let ours = self.lock.metadata().map(|it| (it.dev(), it.ino()));
        let there = fs::metadata(&self.root).map(|it| (it.dev(), it.ino()));
        matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
    }

    pub(super) fn links(&self) -> Links {
        Links(self.root.join("links"))
    }

    /// The sets there are, the latest first.
    pub(super) fn sets(&self) -> Result<Vec<Set>, PinsError> {
        let mut numbers: Vec<u32> = names(&self.root)?
            .iter()
            .filter_map(|name| name.strip_prefix("set_")?.parse().ok())
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers.into_iter().map(|number| self.set(number)).collect())
    }

    /// Makes the directory of the next set.
    pub(super) fn new_set(&self) -> Result<Set, PinsError> {
        let latest = self.sets()?.first().map_or(0, |set| set.number);
        let set = self.set(latest + 1);
        make_directory(&set.path)?;
        Ok(set)
    }

    /// Removes all sets but one.
    pub(super) fn keep_only(&self, kept: Option<&Set>) -> Result<(), PinsError> {
        let sets = self.sets()?.into_iter();
        let others = sets.filter(|set| kept.is_none_or(|kept| kept.number != set.number));
        others.into_iter().try_for_each(|set| set.remove())
    }

    fn set(&self, number: u32) -> Set {
        Set {
            number,
            path: self.root.join(format!("set_{number}")),
        }
    }
}

/// The pins of links.
#[derive(Clone, Debug)]
pub(super) struct Links(PathBuf);

impl Links {
    /// The links that are on interfaces. The pins of the others are removed: what
    /// they were on has vanished.
    pub(super) fn read(&self) -> Result<Vec<Pinned>, Error> {
        let mut links = Vec::new();
        for name in names(&self.0)? {
            let path = self.0.join(name);
            let link = Link::get(&path).map_err(failed(&path))?;
            let info = link.info().map_err(failed(&path))?;
            if info.interface == 0 {
                unlink(&path)?;
                continue;
            }
            links.push(Pinned {
                index: info.interface,
                program: info.program,
                link,
                path,
            });
        }
        Ok(links)
    }

    /// Keeps a link under the index of its interface; the pin of a dead link that
    /// had the index before gives way.
    pub(super) fn keep(&self, index: u32, link: &Link) -> Result<(), PinsError> {
        let path = self.0.join(index.to_string());
        let pinned = match link.pin(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                unlink(&path)?;
                link.pin(&path)
            }
            pinned => pinned,
        };
        pinned.map_err(failed(&path))
    }

    pub(super) fn forget(&self, index: u32) -> Result<(), PinsError> {
        unlink(&self.0.join(index.to_string()))
    }

    pub(super) fn has(&self, index: u32) -> bool {
        is_there(&self.0.join(index.to_string()))
    }
}

/// A link that was pinned.
#[derive(Debug)]
pub(super) struct Pinned {
    /// The index of its interface.
    pub(super) index: u32,
    /// The id of its program.
    pub(super) program: u32,
    pub(super) link: Link,
    path: PathBuf,
}

impl Pinned {
    /// Its interface is none of this network namespace.
    pub(super) fn of_other_network(&self) -> PinsError {
        PinsError::OtherNetwork {
            path: self.path.display().to_string(),
        }
    }
}

/// The pins of the maps of one load.
#[derive(Clone, Debug)]
pub(super) struct Set {
    number: u32,
    path: PathBuf,
}

impl Set {
    /// The pin of a map.
    pub(super) fn path(&self, map: &str) -> PathBuf {
        self.path.join(map)
    }

    pub(super) fn get(&self, map: &str) -> Result<OwnedFd, PinsError> {
        let path = self.path(map);
        sys::get(&path).map_err(failed(&path))
    }

    pub(super) fn pin(&self, map: &str, fd: BorrowedFd<'_>) -> Result<(), PinsError> {
        let path = self.path(map);
        sys::pin(fd, &path).map_err(failed(&path))
    }

    pub(super) fn has(&self, map: &str) -> bool {
        is_there(&self.path(map))
    }

    /// Makes the directory again that somebody removed.
    pub(super) fn mend(&self) -> Result<(), PinsError> {
        make_directory(&self.path)
    }

    /// Removes all pins; the maps go with the last program that uses them.
    pub(super) fn remove(&self) -> Result<(), PinsError> {
        for name in names(&self.path)? {
            unlink(&self.path.join(name))?;
        }
        fs::remove_dir(&self.path).map_err(failed(&self.path))
    }
}

fn is_bpf(path: &Path) -> Result<bool, PinsError> {
    let statfs = statfs(path).map_err(|errno| failed(path)(errno.into()))?;
    Ok(statfs.filesystem_type() == BPF_FS_MAGIC)
}

fn make_directory(path: &Path) -> Result<(), PinsError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, PinsError> {
    let entries = fs::read_dir(directory).map_err(failed(directory))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(failed(directory))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

/// Whether there is something of this name; what may not be looked at is, and
/// using it tells why not.
fn is_there(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn unlink(path: &Path) -> Result<(), PinsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}
