//! Who opens the files of a log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files beside one that are looked at.
const MOST_BESIDE: usize = 64;

/// Opens the files of one log, for reading.
pub trait Opener: std::fmt::Debug + Send + 'static {
    /// The file that has the name now.
    ///
    /// # Errors
    ///
    /// It cannot be opened; `NotFound` where no file has the name.
    fn open(&self) -> io::Result<File>;

    /// Those beside it whose names begin alike, as rotation makes them.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    fn beside(&self) -> io::Result<Vec<File>>;
}

impl<O: Opener + ?Sized> Opener for Box<O> {
    fn open(&self) -> io::Result<File> {
        (**self).open()
    }

    fn beside(&self) -> io::Result<Vec<File>> {
        (**self).beside()
    }
}

/// Opens files by their names.
#[derive(Clone, Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Those of the log with this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Opener for Disk {
    fn open(&self) -> io::Result<File> {
        open(&self.0)
    }

    fn beside(&self) -> io::Result<Vec<File>> {
        let name = self.0.file_name().unwrap_or_default().as_encoded_bytes();
        let directory = self.0.parent();
        let directory = directory.filter(|parent| !parent.as_os_str().is_empty());
        let entries = std::fs::read_dir(directory.unwrap_or(Path::new(".")))?;
        let files = entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name))
            .filter_map(|entry| open(&entry.path()).ok());
        Ok(files.take(MOST_BESIDE).collect())
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for its writer.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}
