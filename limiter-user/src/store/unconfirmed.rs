//! A policy that is tried until it is confirmed, remembered together with the one
//! before: a start that finds the policy file still saying what nobody has
//! confirmed goes on with the one before.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "unconfirmed.json";

/// What is written down of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// The text of the policy that is tried.
    pub tried: String,
    /// The text of the one before.
    pub before: String,
}

impl Unconfirmed {
    /// Writes it to the state directory; it is on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be written there.
    pub fn remember(&self, directory: &Path) -> io::Result<()> {
        let path = file(directory);
        let unfinished = path.with_extension("json.new");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        File::open(directory)?.sync_all()
    }

    /// What was written; `None`: nothing.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData`: it makes no sense.
    pub fn recall(directory: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(file(directory)) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(trial) => Ok(Some(trial)),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets it: a policy was confirmed, or put in force without a trial.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(directory: &Path) -> io::Result<()> {
        match std::fs::remove_file(file(directory)) {
            Ok(()) => File::open(directory)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_remembered_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(Unconfirmed::recall(directory).unwrap(), None);
        Unconfirmed::forget(directory).unwrap();
        for tried in ["a", "b"] {
            let trial = Unconfirmed {
                tried: tried.to_owned(),
                before: "[edge]\n".to_owned(),
            };
            trial.remember(directory).unwrap();
            assert_eq!(Unconfirmed::recall(directory).unwrap(), Some(trial));
        }
        Unconfirmed::forget(directory).unwrap();
        assert_eq!(Unconfirmed::recall(directory).unwrap(), None);
        std::fs::write(directory.join(FILE), "{").unwrap();
        let error = Unconfirmed::recall(directory).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        Unconfirmed::recall(&directory.join(FILE)).unwrap_err();
    }
}
