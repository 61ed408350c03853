//! A log file that is followed while a server writes it.
//!
//! Files are looked at when the caller says so, not watched by inotify, for the
//! reasons that `follow/lists` has; a look at a file that stands still costs two
//! system calls.

mod tail;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::lines::Line;
use tail::Tail;

/// Bytes read at once.
const PIECE: usize = 65_536;

/// For how long a file that was replaced is read on after it last grew: servers
/// write to it until they are told of the rotation.
const LINGER: Duration = Duration::from_secs(60);

/// Replaced files that are read on at once.
const OLD: usize = 2;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the end: what was written before is none of our business.
    End,
    /// Where another reader stopped. If that file has been rotated since, its rest
    /// comes first; if it cannot be found, the present one from its beginning.
    At(Position),
}

/// A place between two lines of a certain file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The device that the file is on.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Bytes before it.
    pub offset: u64,
    /// A hash of the last bytes before it: an inode is used again.
    pub mark: u64,
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that wait in the file. Look again at once if there are any.
    pub behind: u64,
}

/// What happened to the file so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Another file came in its place.
    pub replaced: u64,
    /// It was cut, or written anew in place.
    pub truncated: u64,
}

/// Follows one file by its name, through rotation by rename, truncation,
/// re-creation and absence.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// Where to begin, until it is known what file there is.
    start: Option<Start>,
    current: Option<Tail>,
    /// Files that were replaced, oldest first.
    old: Vec<Tail>,
    happened: Happened,
    trouble: Option<io::Error>,
    piece: Box<[u8]>,
}

impl Follower {
    /// Of a file that need not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, start: Start) -> Self {
        Self {
            path: path.into(),
            start: Some(start),
            current: None,
            old: Vec::new(),
            happened: Happened::default(),
            trouble: None,
            piece: vec![0; PIECE].into(),
        }
    }

    /// Looks at the file and gives the lines that are whole by now, at most some
    /// 4 MiB of them. `now` decides when a file that was replaced is let go.
    pub fn poll(&mut self, now: Instant, mut each: impl FnMut(Line<'_>)) -> Look {
        let mut look = Look::default();
        self.trouble = None;
        for tail in &mut self.old {
            let read = tail.read(&mut self.piece, now, &mut look, &mut each);
            self.trouble = self.trouble.take().or(read.err());
        }
        if let Some(tail) = &mut self.current {
            match tail.read(&mut self.piece, now, &mut look, &mut each) {
                Ok(truncated) => self.happened.truncated += u64::from(truncated),
                Err(error) => self.trouble = Some(error),
            }
        }
        // A new file has to wait until the one before is read.
        if look.behind == 0 {
            self.see(now, &mut look, &mut each);
        }
        self.let_go(now, &mut each);
        look
    }

    /// Whether there is a file to read.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// What went wrong in the last look; a file that is not there is no trouble
    /// while the one before is open.
    #[must_use]
    pub const fn trouble(&self) -> Option<&io::Error> {
        self.trouble.as_ref()
    }

    /// What happened to the file so far.
    #[must_use]
    pub const fn happened(&self) -> Happened {
        self.happened
    }

    /// Where another reader would have to begin; `None` before there was a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn position(&self) -> io::Result<Option<Position>> {
        self.current.as_ref().map(Tail::position).transpose()
    }

    /// Looks which file has the name now.
    fn see(&mut self, now: Instant, look: &mut Look, each: &mut impl FnMut(Line<'_>)) {
        let seen = std::fs::metadata(&self.path);
        let replaced = match (&seen, &self.current) {
            (Ok(metadata), Some(tail)) => !tail.is(metadata),
            (Ok(_), None) => true,
            (Err(_), _) => false,
        };
        if replaced {
            match self.open(now) {
                Ok(mut tail) => {
                    if let Some(before) = self.current.take() {
                        self.happened.replaced += 1;
                        self.old.push(before);
                    }
                    for tail in &mut self.old {
                        let read = tail.read(&mut self.piece, now, look, each);
                        self.trouble = self.trouble.take().or(read.err());
                    }
                    let read = tail.read(&mut self.piece, now, look, each);
                    self.trouble = self.trouble.take().or(read.err());
                    self.current = Some(tail);
                }
                Err(error) => self.trouble = Some(error),
            }
        } else if let Err(error) = seen {
            if error.kind() == io::ErrorKind::NotFound && self.start == Some(Start::End) {
                // All that a file has that comes later is new.
                self.start = None;
            }
            if error.kind() != io::ErrorKind::NotFound || self.current.is_none() {
                self.trouble = Some(error);
            }
        }
    }

    /// Opens the file that has the name now, where it has to be begun.
    fn open(&mut self, now: Instant) -> io::Result<Tail> {
        let mut tail = Tail::open(&self.path, now)?;
        match self.start {
            None => {}
            Some(Start::End) => tail.begin_at(tail.length()?)?,
            Some(Start::At(position)) if tail.has(&position) => tail.begin_at(position.offset)?,
            Some(Start::At(position)) => {
                if let Some(mut rotated) = rotated(&self.path, &position, now) {
                    rotated.begin_at(position.offset)?;
                    self.old.push(rotated);
                }
            }
        }
        self.start = None;
        Ok(tail)
    }

    /// Lets replaced files go that do not grow any more. What they end with is a
    /// line.
    fn let_go(&mut self, now: Instant, each: &mut impl FnMut(Line<'_>)) {
        let surplus = self.old.len().saturating_sub(OLD);
        let mut at = 0;
        self.old.retain_mut(|tail| {
            at += 1;
            let keep = at > surplus && now < tail.grew + LINGER;
            if !keep {
                tail.lines.finish(&mut *each);
            }
            keep
        });
    }
}

/// The file of a position beside the one that has its name now: rotation gives
/// names that begin alike.
fn rotated(path: &Path, position: &Position, now: Instant) -> Option<Tail> {
    let name = path.file_name()?.to_str()?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let entries = std::fs::read_dir(directory.unwrap_or(Path::new("."))).ok()?;
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .filter_map(|entry| Tail::open(&entry.path(), now).ok())
        .find(|tail| tail.has(position))
}
