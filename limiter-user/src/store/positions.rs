//! How far log files were read, for the next daemon: a small file of its own, written anew
//! each second while logs grow. After a loss of power it may be older, and lines are read
//! again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::event::follow::Position;

const FILE: &str = "positions.json";

/// Bytes of the file that are read at most.
const MOST: u64 = 1 << 20;

/// Positions by the names of their origins.
pub type Positions = BTreeMap<String, Position>;

/// The file in a state directory.
#[derive(Clone, Debug)]
pub struct PositionFile(PathBuf);

impl PositionFile {
    /// That of this directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(directory.join(FILE))
    }

    /// What was written last; nothing where there is nothing that can be read: then logs are
    /// read from their ends.
    #[must_use]
    pub fn read(&self) -> Positions {
        let is_small = fs::metadata(&self.0).is_ok_and(|file| file.len() <= MOST);
        let text = is_small.then(|| fs::read(&self.0).ok()).flatten();
        let read = text.and_then(|text| serde_json::from_slice(&text).ok());
        read.unwrap_or_default()
    }

    /// Writes what is known now.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self, positions: &Positions) -> io::Result<()> {
        let unfinished = self.0.with_extension("new");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&unfinished)?;
        file.write_all(&serde_json::to_vec(positions)?)?;
        fs::rename(&unfinished, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = PositionFile::of(directory.path());
        assert_eq!(file.read(), Positions::new());
        let position = Position {
            device: 1,
            inode: 2,
            offset: 3,
            mark: u64::MAX,
        };
        let positions = Positions::from([("log:/x".to_owned(), position)]);
        file.write(&positions).unwrap();
        assert_eq!(file.read(), positions);
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(file.read(), Positions::new());
    }
}
