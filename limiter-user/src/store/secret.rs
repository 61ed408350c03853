//! Secrets of the state directory: made once, read by nobody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What a hash is keyed with.
pub type Secret = [u8; 16];

/// The secret that is kept under this name; where there is none, one is made, with
/// mode 0600, and is on the disk when this returns.
///
/// # Errors
/// It cannot be read or made; `InvalidData`: what lies there is no secret.
pub fn secret(directory: &Path, name: &str) -> io::Result<Secret> {
    if let Some(secret) = find_secret(directory, name)? {
        return Ok(secret);
    }
    let secret = random()?;
    let path = directory.join(name);
    let unfinished = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(secret)
}

/// A secret that is kept nowhere.
///
/// # Errors
/// There are no random bytes to be had.
pub fn random() -> io::Result<Secret> {
    let mut secret = Secret::default();
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}

/// The secret that is kept under this name, if there is one.
///
/// # Errors
/// As [`secret`].
pub fn find_secret(directory: &Path, name: &str) -> io::Result<Option<Secret>> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => match bytes.try_into() {
            Ok(secret) => Ok(Some(secret)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged (a secret has 16 bytes); put a copy of it back",
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(find_secret(directory, "a").unwrap(), None);
        let made = secret(directory, "a").unwrap();
        assert_ne!(made, Secret::default());
        assert_eq!(secret(directory, "a").unwrap(), made);
        assert_ne!(secret(directory, "b").unwrap(), made);
        let mode = fs::metadata(directory.join("a")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        fs::write(directory.join("a"), "short").unwrap();
        let error = secret(directory, "a").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        secret(&directory.join("none"), "a").unwrap_err();
    }
}
