//! The files of `allow_files` and `deny_files`: one network a line.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::diagnostic::quote;
use super::networks::{NetworkSet, parse_network};
use super::reader::Value;
use super::report::{At, Place, Read, Report, Reported, Source};
use super::units::Problem;

/// The largest policy or list file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// How list files are found and read.
pub trait ListFiles {
    /// The files that a glob matches, sorted; none is no error.
    ///
    /// # Errors
    /// The glob is no valid one, or a directory cannot be read.
    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>>;

    /// The bytes of a file.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// List files on disk; relative globs start at a directory.
#[derive(Clone, Debug)]
pub struct DiskFiles {
    /// Where relative globs start: the directory of the policy file.
    pub directory: PathBuf,
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

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_bounded(path)
    }
}

/// No list files: every glob matches nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl ListFiles for NoFiles {
    fn matching(&self, _pattern: &str) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A whole file, unless it is larger than a policy can need.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
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
    pub(super) fn add(&mut self, pattern: &At<String>, set: &mut NetworkSet) {
        let unreadable = |what: &str, cause: io::Error| {
            let message = format!("{} cannot be read: {cause}", quote(what));
            let help = "mend the file or its permissions, or remove it from the list";
            self.report
                .error(&pattern.place, Problem::new(message, help));
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
            let name = path.to_string_lossy();
            self.count += 1;
            match self.files.read(&path) {
                Ok(bytes) => add_list(&name, &bytes, self.count, self.report, set),
                Err(cause) => unreadable(&name, cause),
            }
        }
    }
}

fn add_list(name: &str, bytes: &[u8], order: usize, report: &Report, set: &mut NetworkSet) {
    let Ok(text) = utf8(name, bytes, order, report) else {
        return;
    };
    let source = Source::new(name, text, order);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let entry = line.split('#').next().unwrap_or_default();
        let entry = entry.trim_start_matches('\u{feff}').trim();
        let from = start + line.find(entry).unwrap_or_default();
        start += line.len();
        if entry.is_empty() {
            continue;
        }
        let place = Place::new(&source, from..from + entry.len());
        match parse_network(entry) {
            Ok(value) => set.insert(At { value, place }),
            Err(problem) => drop(report.error(&place, problem)),
        }
    }
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
