//! The BPF file system that keeps program and tables while no daemon runs, and
//! what an earlier one left there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::finding::{About, Finding, Level};

/// What `statfs(2)` calls a BPF file system.
const BPF_MAGIC: u64 = 0xcafe_4a11;

/// The place of the pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Which.
    pub(super) directory: PathBuf,
    /// What is there.
    pub(super) place: Place,
    /// Whether this kernel knows the file system.
    pub(super) is_known: Option<bool>,
    /// Whether mounts made here are seen by the whole host; `None`: it may not
    /// be asked.
    pub(super) is_shared: Option<bool>,
    /// Whether this process may mount.
    pub(super) may_mount: bool,
}

/// What is at the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing.
    Missing,
    /// It cannot be looked at.
    Unseen(String),
    /// A directory.
    Directory {
        /// Whether it is a BPF file system.
        is_bpf: bool,
        /// Its permissions, nine bits.
        mode: u32,
        /// Who owns it.
        owner: u32,
        /// What it holds; `None`: that may not be read.
        pins: Option<Pins>,
    },
}

/// What is pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins {
    /// Indices of interfaces with a link.
    pub(super) links: Vec<u32>,
    /// Sets of program and tables.
    pub(super) sets: u32,
}

impl Facts {
    pub(super) fn read(directory: &Path, may_mount: bool) -> Self {
        let known = fs::read_to_string("/proc/filesystems").ok();
        let own = fs::read_link("/proc/self/ns/mnt").ok();
        let host = fs::read_link("/proc/1/ns/mnt").ok();
        Self {
            directory: directory.to_owned(),
            place: look(directory),
            is_known: known.map(|text| text.lines().any(|it| it.ends_with("\tbpf"))),
            is_shared: own.zip(host).map(|(own, host)| own == host),
            may_mount,
        }
    }

    /// Interfaces that an earlier daemon's program is pinned to.
    pub(super) fn links(&self) -> &[u32] {
        match &self.place {
            Place::Directory {
                pins: Some(pins), ..
            } => &pins.links,
            _ => &[],
        }
    }

    /// `is_running`: whether a daemon answers.
    pub(super) fn judge(&self, is_running: Option<bool>) -> Vec<Finding> {
        let mut about = About::new("BPF file system");
        let directory = self.directory.display();
        if self.is_known == Some(false) {
            about.mend(
                Level::Stops,
                "this kernel has no BPF file system",
                "boot a kernel built with CONFIG_BPF_SYSCALL",
            );
        }
        if self.is_shared == Some(false) {
            about.mend(
                Level::Warning,
                "this is a mount namespace of its own: what is mounted here is gone with it, and \
                 so would be what outlives the daemon",
                "nsenter --target 1 --mount limiter doctor",
            );
        }
        let mount =
            format!("mkdir -m 0700 {directory} && mount -t bpf -o mode=0700 limiter {directory}");
        match &self.place {
            Place::Missing if self.may_mount => {
                about.ok(format!("{directory} is not there yet; `run` makes it"));
            }
            Place::Missing => about.mend(
                Level::Warning,
                format!("{directory} is not mounted, and without CAP_SYS_ADMIN `run` cannot do it"),
                mount,
            ),
            Place::Unseen(why) => about.note(format!("{directory} is not to be seen: {why}")),
            Place::Directory { is_bpf: false, .. } => {
                let level = match self.may_mount {
                    true => Level::Note,
                    false => Level::Warning,
                };
                let what = format!("{directory} is there and no BPF file system is mounted on it");
                let mend = format!("mount -t bpf -o mode=0700 limiter {directory}");
                about.mend(level, what, mend);
            }
            Place::Directory {
                mode, owner, pins, ..
            } => self.mounted(*mode, *owner, pins.as_ref(), is_running, &mut about),
        }
        about.findings()
    }

    fn mounted(
        &self,
        mode: u32,
        owner: u32,
        pins: Option<&Pins>,
        is_running: Option<bool>,
        about: &mut About,
    ) {
        let directory = self.directory.display();
        if mode & 0o077 == 0 {
            about.ok(format!(
                "{directory} is a BPF file system of user {owner}, mode {mode:04o}"
            ));
        } else {
            about.mend(
                Level::Warning,
                format!(
                    "{directory} has mode {mode:04o}: others could take hold of what is pinned there"
                ),
                format!("chmod 0700 {directory}"),
            );
        }
        let Some(pins) = pins else {
            about.note(format!(
                "what is pinned in {directory} is for user {owner} to see"
            ));
            return;
        };
        let links = pins.links.len();
        let what = match (links, pins.sets) {
            (0, 0) => return about.ok("nothing is pinned"),
            (0, sets) => format!("{sets} sets of tables are pinned"),
            (_, sets) => format!(
                "the program is pinned to {links} interfaces ({}), with {sets} sets of tables",
                indices(&pins.links)
            ),
        };
        match is_running {
            Some(true) => about.ok(format!("{what}: those of the running daemon")),
            _ if links == 0 => about.mend(
                Level::Note,
                format!("{what}, and no program: leftovers"),
                "limiter detach",
            ),
            Some(false) => about.mend(
                Level::Note,
                format!(
                    "{what}, and no daemon answers: it is in force all the same; `run` adopts it"
                ),
                "limiter detach   # if it is to go",
            ),
            None => about.note(what),
        }
    }
}

fn indices(links: &[u32]) -> String {
    let words: Vec<String> = links.iter().map(|it| format!("index {it}")).collect();
    words.join(", ")
}

fn look(directory: &Path) -> Place {
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Place::Missing,
        Err(error) => return Place::Unseen(error.to_string()),
    };
    let magic = match nix::sys::statfs::statfs(directory) {
        // The type of the number is another on other machines.
        Ok(found) => found.filesystem_type().0 as u64 & 0xffff_ffff,
        Err(error) => return Place::Unseen(error.to_string()),
    };
    Place::Directory {
        is_bpf: magic == BPF_MAGIC,
        mode: metadata.mode() & 0o777,
        owner: metadata.uid(),
        pins: pins(directory).ok(),
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// `links/INDEX`, `set_NUMBER/`.
fn pins(directory: &Path) -> io::Result<Pins> {
    let sets = names(directory)?;
    let sets = sets.iter().filter(|name| name.starts_with("set_"));
    let links = match names(&directory.join("links")) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut links: Vec<u32> = links.iter().filter_map(|name| name.parse().ok()).collect();
    links.sort_unstable();
    Ok(Pins {
        links,
        sets: u32::try_from(sets.count()).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(place: Place) -> Facts {
        Facts {
            directory: crate::policy::DEFAULT_PINS.into(),
            place,
            is_known: Some(true),
            is_shared: Some(true),
            may_mount: true,
        }
    }

    fn mounted(mode: u32, links: &[u32], sets: u32) -> Facts {
        facts(Place::Directory {
            is_bpf: true,
            mode,
            owner: 0,
            pins: Some(Pins {
                links: links.to_vec(),
                sets,
            }),
        })
    }

    #[track_caller]
    fn is(found: &[Finding], expected: &[(Level, &str)]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, (level, part)) in found.iter().zip(expected) {
            assert_eq!(found.level, *level, "{found:?}");
            assert!(found.what.contains(part), "{part:?} in {found:?}");
        }
    }

    #[test]
    fn mounted_or_to_be() {
        is(
            &facts(Place::Missing).judge(Some(false)),
            &[(Level::Ok, "`run` makes it")],
        );
        let mut weak = facts(Place::Missing);
        weak.may_mount = false;
        let found = weak.judge(Some(false));
        is(&found, &[(Level::Warning, "without CAP_SYS_ADMIN")]);
        assert!(found[0].mend.as_deref().unwrap().contains("mount -t bpf"));
        let plain = facts(Place::Directory {
            is_bpf: false,
            mode: 0o755,
            owner: 0,
            pins: None,
        });
        is(
            &plain.judge(None),
            &[(Level::Note, "no BPF file system is mounted")],
        );
        is(
            &facts(Place::Unseen("Permission denied".to_owned())).judge(None),
            &[(Level::Note, "not to be seen: Permission denied")],
        );
    }

    #[test]
    fn others_must_not_reach_it() {
        let found = mounted(0o755, &[], 0).judge(Some(true));
        is(
            &found,
            &[(Level::Warning, "mode 0755"), (Level::Ok, "nothing")],
        );
        assert_eq!(
            found[0].mend.as_deref(),
            Some("chmod 0700 /run/limiter-bpf")
        );
    }

    #[test]
    fn leftovers_and_what_is_in_use() {
        let both = mounted(0o700, &[3, 7], 1);
        is(
            &both.judge(Some(false)),
            &[
                (Level::Ok, "user 0, mode 0700"),
                (Level::Note, "2 interfaces (index 3, index 7), with 1 sets"),
            ],
        );
        is(
            &both.judge(Some(true))[1..],
            &[(Level::Ok, "those of the running daemon")],
        );
        is(
            &mounted(0o700, &[], 2).judge(Some(false))[1..],
            &[(Level::Note, "leftovers")],
        );
        assert_eq!(both.links(), [3, 7]);
    }

    #[test]
    fn a_kernel_without_it_and_a_namespace_of_ones_own() {
        let mut odd = facts(Place::Missing);
        odd.is_known = Some(false);
        odd.is_shared = Some(false);
        let found = odd.judge(None);
        is(
            &found,
            &[
                (Level::Stops, "no BPF file system"),
                (Level::Warning, "mount namespace of its own"),
                (Level::Ok, "makes it"),
            ],
        );
    }

    #[test]
    fn pins_are_read_by_their_names() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["links", "set_1", "set_2"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        for name in ["12", "7", "lock"] {
            fs::write(scratch.path().join("links").join(name), "").unwrap();
        }
        let facts = Facts::read(scratch.path(), true);
        assert_eq!(facts.links(), [7, 12]);
        let Place::Directory { is_bpf, pins, .. } = facts.place else {
            panic!("no directory");
        };
        assert!(!is_bpf);
        assert_eq!(pins.unwrap().sets, 2);
        assert_eq!(look(&scratch.path().join("none")), Place::Missing);
    }
}
