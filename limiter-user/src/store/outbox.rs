//! Notifications that wait, and who was told of late, for the next daemon: a small file of its
//! own, written anew with each change. A thousand letters are its bound, and a few an hour change
//! it, so that it needs no table, and outlives a database that is damaged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::notify::queue::Stored;

const FILE: &str = "outbox.json";

/// What this version writes.
const VERSION: u32 = 1;

/// Bytes of the file that are read at most.
const MOST: u64 = 16 << 20;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    stored: &'a Stored,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    stored: Stored,
}

/// The file in a state directory.
#[derive(Clone, Debug)]
pub struct OutboxFile(PathBuf);

impl OutboxFile {
    /// That of this directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(directory.join(FILE))
    }

    /// What was written last; nothing where there is no file.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData`: it makes no sense, or is of a later version.
    pub fn read(&self) -> io::Result<Stored> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let bytes = match fs::metadata(&self.0) {
            Ok(file) if file.len() > MOST => return Err(invalid("it is too large".to_owned())),
            Ok(_) => fs::read(&self.0)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            Err(error) => return Err(error),
        };
        let read: Read =
            serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        match read.version {
            VERSION => Ok(read.stored),
            other => Err(invalid(format!(
                "{} is of version {other}",
                self.0.display()
            ))),
        }
    }

    /// Writes what is to be kept; it is on the disk when this returns.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self, stored: &Stored) -> io::Result<()> {
        let unfinished = self.0.with_extension("new");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&unfinished)?;
        let version = VERSION;
        file.write_all(&serde_json::to_vec(&Written { version, stored })?)?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.0)?;
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Happening;
    use crate::notify::queue::{Channel, Letter};

    #[test]
    fn what_waits_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = OutboxFile::of(directory.path());
        assert_eq!(file.read().unwrap(), Stored::default());
        let mut stored = Stored::default();
        stored.accounts.insert(u64::MAX, 7);
        stored.told_ms.push_back(7);
        stored.letters.push(Letter {
            id: "a".to_owned(),
            channel: Channel::Mail,
            to: Some("ops@example.com".to_owned()),
            happening: Happening::FloodBegun { at_ms: 7 },
            born_ms: 7,
            due_ms: 8,
            failures: 1,
        });
        file.write(&stored).unwrap();
        assert_eq!(file.read().unwrap(), stored);
        for garbage in [
            "{",
            r#"{"version":2,"stored":{"letters":[],"accounts":{},"told_ms":[]}}"#,
        ] {
            fs::write(directory.path().join(FILE), garbage).unwrap();
            assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
