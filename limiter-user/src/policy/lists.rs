//! The files of `allow_files` and `deny_files`: one network a line.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, quote};
use super::networks::{NetworkSet, parse_network};
use super::reader::Value;
use super::report::{At, Place, Read, Report, Reported, Source};
use super::sources::{ListFile, ListSources, Stamp};
use super::units::Problem;

/// The largest policy or list file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Warnings of one list file that are told one by one.
pub(super) const TOLD: usize = 20;

/// The most list files of `allow_files`, and of `deny_files`.
pub const MAX_LIST_FILES: usize = 1_024;

/// How list files are found and read.
pub trait ListFiles {
    /// The files that a glob matches, sorted; none is no error.
    ///
    /// # Errors
    /// The glob is no valid one, or a directory cannot be read.
    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>>;

    /// What a file looks like from outside.
    ///
    /// # Errors
    /// There is none, or it is not a regular one.
    fn stamp(&self, path: &Path) -> io::Result<Stamp>;

    /// The bytes of a file, and what it looked like when they were read.
    ///
    /// # Errors
    /// The file cannot be read, is not a regular one or too large.
    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)>;

    /// The bytes of a page; `None`: whoever asks reads none.
    ///
    /// # Errors
    /// The file cannot be read, is not a regular one or has more than `most_bytes`.
    fn page(&self, _path: &Path, _most_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// List files on disk; relative globs start at a directory.
#[derive(Clone, Debug)]
pub struct DiskFiles {
    /// Where relative globs start: the directory of the policy file.
    pub directory: PathBuf,
}

impl DiskFiles {
    /// Those of a policy file.
    #[must_use]
    pub fn beside(policy: &Path) -> Self {
        let directory = policy.parent().unwrap_or(Path::new("")).to_owned();
        Self { directory }
    }
}

impl ListFiles for DiskFiles {
    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let base = glob::Pattern::escape(&self.directory.to_string_lossy());
        // An absolute pattern replaces the base.
        let full = Path::new(&base).join(pattern);
        let paths = glob::glob(&full.to_string_lossy()).map_err(io::Error::other)?;
        let paths: Result<Vec<PathBuf>, _> = paths.collect();
        let mut paths = paths.map_err(io::Error::from)?;
        paths.retain(|path| !path.is_dir());
        paths.sort();
        Ok(paths)
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        stamp_of(&path.metadata()?)
    }

    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        // Nobody may ever write to what is a pipe.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let stamp = stamp_of(&file.metadata()?)?;
        Ok((read_to_bound(file)?, stamp))
    }

    fn page(&self, path: &Path, most_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let (bytes, _) = self.read(path)?;
        if bytes.len() > most_bytes {
            return Err(io::Error::other(format!("it has {} bytes", bytes.len())));
        }
        Ok(Some(bytes))
    }
}

fn stamp_of(metadata: &Metadata) -> io::Result<Stamp> {
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        length_bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// No list files: every glob matches nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl ListFiles for NoFiles {
    fn matching(&self, _pattern: &str) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn stamp(&self, _path: &Path) -> io::Result<Stamp> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn read(&self, _path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A whole file, unless it is larger than a policy can need.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    read_to_bound(File::open(path)?)
}

fn read_to_bound(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("larger than 64 MiB"));
    }
    Ok(bytes)
}

/// Reads the list files of a policy, numbering them. What is wrong with them
/// is reported; what is right is read all the same.
pub(super) struct ListReader<'a> {
    pub(super) files: &'a dyn ListFiles,
    pub(super) report: &'a Report,
    /// How many were read; the policy itself is source 0.
    pub(super) count: usize,
}

impl ListReader<'_> {
    /// Adds the networks of every file that `pattern` matches.
    pub(super) fn add(
        &mut self,
        pattern: &At<String>,
        set: &mut NetworkSet,
        sources: &mut ListSources,
    ) {
        sources.patterns.push(pattern.value.clone());
        let error = |message: String, help: &str| {
            self.report
                .error(&pattern.place, Problem::new(message, help));
        };
        let unreadable = |what: &str, cause: io::Error| {
            let message = format!("{} cannot be read: {cause}", quote(what));
            let help = "mend the file or its permissions, or remove it from the list";
            error(message, help);
        };
        let paths = match self.files.matching(&pattern.value) {
            Ok(paths) => paths,
            Err(cause) => return unreadable(&pattern.value, cause),
        };
        if paths.is_empty() {
            self.report.warn(
                &pattern.place,
                format!("{} matches no file", quote(&pattern.value)),
                "the list is empty until there is one",
            );
        }
        for path in paths {
            // Two globs may match it.
            if sources.files.contains_key(&path) {
                continue;
            }
            if sources.files.len() == MAX_LIST_FILES {
                let message = format!(
                    "{} is one list file too many",
                    quote(&path.to_string_lossy())
                );
                return error(message, &format!("allowed: up to {MAX_LIST_FILES}"));
            }
            let name = path.to_string_lossy();
            self.count += 1;
            match self.files.read(&path) {
                Ok((bytes, stamp)) => {
                    let file = add_list(&name, &bytes, stamp, self.count, self.report, set);
                    if file.networks.is_empty() {
                        let message = format!("{} holds no network", quote(&name));
                        let help = "the list gets nothing from it";
                        self.report.warn(&pattern.place, message, help);
                    }
                    sources.files.insert(path, Arc::new(file));
                }
                Err(cause) => unreadable(&name, cause),
            }
        }
    }
}

/// Reads a list file by itself: what is right of it, and a warning for each of
/// the first lines that are skipped.
#[must_use]
pub fn read_list(name: &str, bytes: &[u8], stamp: Stamp) -> (ListFile, Vec<Diagnostic>) {
    let report = Report::default();
    let file = add_list(name, bytes, stamp, 1, &report, &mut NetworkSet::default());
    (file, report.into_diagnostics())
}

fn add_list(
    name: &str,
    bytes: &[u8],
    stamp: Stamp,
    order: usize,
    report: &Report,
    set: &mut NetworkSet,
) -> ListFile {
    // What is not UTF-8 costs its own lines only.
    let text = String::from_utf8_lossy(bytes);
    let source = Source::new(name, &text, order);
    let mut file = ListFile {
        stamp,
        networks: Vec::new(),
        skipped: 0,
    };
    let mut start = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let entry = line.split('#').next().unwrap_or_default();
        let entry = entry.trim_start_matches('\u{feff}').trim();
        let from = start + line.find(entry).unwrap_or_default();
        start += line.len();
        if entry.is_empty() {
            continue;
        }
        let place = Place::new(&source, from..from + entry.len());
        match network(entry) {
            Ok(value) => {
                file.networks.push((value, number));
                set.insert(At { value, place });
            }
            Err(problem) => {
                file.skipped += 1;
                if file.skipped <= TOLD {
                    let message = format!("line skipped: {}", problem.message);
                    report.warn(&place, message, problem.help);
                }
            }
        }
    }
    if file.skipped > TOLD {
        let end = Place::new(&source, text.len()..text.len());
        let message = format!("{} more lines skipped", file.skipped - TOLD);
        report.warn(&end, message, "mend those above first");
    }
    file.networks.sort_unstable();
    file.networks.dedup_by_key(|(network, _)| *network);
    file
}

fn network(entry: &str) -> Result<ipnet::IpNet, Problem> {
    if entry.contains(char::REPLACEMENT_CHARACTER) {
        let message = format!("{} is not UTF-8 text", quote(entry));
        return Err(Problem::new(message, "save the file as UTF-8"));
    }
    parse_network(entry)
}

/// The text of a file, or an error at its first byte that is none.
pub(super) fn utf8<'b>(
    name: &str,
    bytes: &'b [u8],
    order: usize,
    report: &Report,
) -> Result<&'b str, Reported> {
    str::from_utf8(bytes).map_err(|fault| {
        let at = fault.valid_up_to();
        let lossy = String::from_utf8_lossy(bytes);
        let source = Source::new(name, &lossy, order);
        let problem = Problem::new("this is not UTF-8 text", "save the file as UTF-8");
        report.error(&Place::new(&source, at..at + 1), problem)
    })
}

/// The globs of a value.
pub(super) fn patterns(value: &Value<'_>) -> Read<Vec<At<String>>> {
    let help = r#"allowed: globs, such as ["/etc/limiter/deny.d/*.txt"]"#;
    value.list(help, |item| {
        let pattern = item.text(help, |text| {
            glob::Pattern::new(text)
                .map(|_| text.to_owned())
                .map_err(|fault| {
                    Problem::new(format!("{} is not a glob: {fault}", quote(text)), help)
                })
        })?;
        Ok(item.at(pattern))
    })
}
