//! The file with the keys of challenges: made, rotated, and read again when somebody else has
//! changed it, as where two nodes share it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::challenge::{Keys, MOST_BYTES};

/// Its name in the state directory.
pub const CHALLENGE_KEYS: &str = "challenge.keys";

/// What is known of the file.
#[derive(Debug, Default)]
pub struct KeyFile {
    keys: Keys,
    /// Whether the file has them: if it is gone then, somebody wants others.
    is_there: bool,
    trouble: Option<String>,
}

impl KeyFile {
    /// The keys at `now_s`, in seconds since the Unix epoch. One is made where there is none, and
    /// every `rotate`; `None`: the file is somebody else's to write. Keys are kept for as long as
    /// something of `life` needs them. Where the file cannot be read or written, which the log says
    /// once, the keys are those of before, or this process's own.
    pub fn keys(
        &mut self,
        path: &Path,
        rotate: Option<Duration>,
        life: Duration,
        now_s: u64,
    ) -> Keys {
        let mut trouble = None;
        let may_write = match read(path) {
            Ok(Some(keys)) => {
                self.keys = keys;
                self.is_there = true;
                rotate.is_some()
            }
            Ok(None) if rotate.is_some() => {
                if std::mem::take(&mut self.is_there) {
                    self.keys = Keys::default();
                }
                true
            }
            Ok(None) => {
                trouble = Some("there is no such file".to_owned());
                false
            }
            Err(error) => {
                trouble = Some(error.to_string());
                false
            }
        };
        let is_needed = may_write || self.keys == Keys::default();
        let rotate_s = rotate.map_or(u64::MAX, |rotate| rotate.as_secs());
        let rotated = || {
            let keys = &self.keys;
            keys.rotated(now_s, rotate_s, life.as_secs(), random()?)
        };
        if let Some(keys) = is_needed.then(rotated).flatten() {
            self.keys = keys;
        }
        if may_write {
            match write(path, &self.keys) {
                Ok(()) => self.is_there = true,
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        self.say(path, trouble);
        self.keys.clone()
    }

    fn say(&mut self, path: &Path, trouble: Option<String>) {
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            tracing::warn!(
                path = %path.display(),
                "the keys of challenges are not those of the file: {trouble}; until that is mended, what \
                 clients have solved holds for this node and this run alone"
            );
        }
        self.trouble = trouble;
    }
}

fn random() -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).ok()?;
    Some(secret)
}

/// The keys of a file, if there is one.
fn read(path: &Path) -> io::Result<Option<Keys>> {
    // Nobody may ever write to what is a pipe.
    let mut options = OpenOptions::new();
    let file = match options.read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MOST_BYTES as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MOST_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {MOST_BYTES} bytes"
        )));
    }
    Keys::parse(&text).map(Some).map_err(io::Error::other)
}

/// Writes what the file does not hold yet.
fn write(path: &Path, keys: &Keys) -> io::Result<()> {
    if read(path)?.as_ref() == Some(keys) {
        return Ok(());
    }
    // Of its own: another node may write at the same time.
    let name = super::random().map_or(0, u128::from_ne_bytes);
    let unfinished = path.with_extension(format!("{name:032x}.new"));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    let written = file
        .write_all(keys.text().as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&unfinished, path));
    written.inspect_err(|_| {
        let _left = fs::remove_file(&unfinished);
    })?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const LIFE: Duration = Duration::from_mins(30);
    const NOW: u64 = 1_800_000_000;

    #[test]
    fn keys_are_made_once_rotated_and_shared_by_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CHALLENGE_KEYS);
        let (mut here, mut there) = (KeyFile::default(), KeyFile::default());
        let first = here.keys(&path, Some(DAY), LIFE, NOW);
        assert_eq!(first.all().count(), 1);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            KeyFile::default().keys(&path, Some(DAY), LIFE, NOW + 1),
            first
        );
        // Another node that only reads follows.
        assert_eq!(there.keys(&path, None, LIFE, NOW), first);
        let second = here.keys(&path, Some(DAY), LIFE, NOW + 86_400);
        assert_eq!(second.all().count(), 2);
        assert_eq!(there.keys(&path, None, LIFE, NOW + 86_400), second);
        // Who removes the file wants other keys.
        fs::remove_file(&path).unwrap();
        let other = here.keys(&path, Some(DAY), LIFE, NOW + 86_401);
        assert!(other.all().all(|key| second.all().all(|it| it != key)));
        assert_eq!(here.keys(&path, Some(DAY), LIFE, NOW + 86_402), other);
        let second = there.keys(&path, None, LIFE, NOW + 86_402);
        assert_eq!(second, other);
        let much_later = NOW + 9 * 86_400;
        assert_eq!(there.keys(&path, None, LIFE, much_later), second);
    }

    #[test]
    fn what_cannot_be_read_is_left_alone_and_does_not_stop_challenges() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CHALLENGE_KEYS);
        let mut file = KeyFile::default();
        let own = file.keys(&path, None, LIFE, NOW);
        assert_eq!(own.all().count(), 1);
        assert!(!path.exists());
        assert_eq!(file.keys(&path, None, LIFE, NOW + 1), own);
        fs::write(&path, "what is this").unwrap();
        assert_eq!(file.keys(&path, Some(DAY), LIFE, NOW + 2), own);
        assert_eq!(fs::read_to_string(&path).unwrap(), "what is this");
        let gone = directory.path().join("none").join(CHALLENGE_KEYS);
        assert_eq!(file.keys(&gone, Some(DAY), LIFE, NOW + 3), own);
    }
}
