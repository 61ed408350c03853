//! Who opens the files of a log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Position;

/// Opens the files of one log, for reading.
pub trait Opener: std::fmt::Debug + Send + 'static {
    /// The file that has the name now.
    ///
    /// # Errors
    ///
    /// It cannot be opened; `NotFound` where no file has the name.
    fn open(&self) -> io::Result<File>;

    /// The file of a position, where rotation has given it another name; `None`: it is not found.
    ///
    /// # Errors
    ///
    /// It cannot be looked for, or not be opened.
    fn renamed(&self, position: &Position) -> io::Result<Option<File>>;
}

impl<O: Opener + ?Sized> Opener for Box<O> {
    fn open(&self) -> io::Result<File> {
        (**self).open()
    }

    fn renamed(&self, position: &Position) -> io::Result<Option<File>> {
        (**self).renamed(position)
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
        open(&self.0, 0)
    }

    /// Among those beside it whose names begin alike, as rotation makes them.
    fn renamed(&self, position: &Position) -> io::Result<Option<File>> {
        let Some(name) = self.0.file_name() else {
            return Ok(None);
        };
        let directory = self.0.parent();
        let directory = directory.filter(|parent| !parent.as_os_str().is_empty());
        for entry in std::fs::read_dir(directory.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let other = entry.file_name();
            let begins_alike = other
                .as_encoded_bytes()
                .starts_with(name.as_encoded_bytes());
            if other == name || !begins_alike {
                continue;
            }
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if position.is_of(&metadata) {
                // No link: whoever may write there must not choose what is read.
                return open(&entry.path(), libc::O_NOFOLLOW).map(Some);
            }
        }
        Ok(None)
    }
}

fn open(path: &Path, more_flags: i32) -> io::Result<File> {
    // Opening a pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | more_flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(
            "it is no regular file; a log file is needed, or a socket under `feedback`",
        ));
    }
    Ok(file)
}
