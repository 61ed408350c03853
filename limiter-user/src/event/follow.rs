//! A log file that is followed while a server writes it.
//!
//! Files are looked at when the caller says so, not watched by inotify, for the
//! reasons that `follow/lists` has; a look at a file that stands still costs two
//! system calls. Who may not open files has it done by an [`Opener`].

mod opener;
mod tail;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::lines::Line;
pub use opener::{Disk, Opener};
use tail::Tail;

/// Bytes read at once.
const PIECE: usize = 65_536;

/// For how long a file that was replaced is read on after it last grew: servers
/// write to it until they are told of the rotation.
const LINGER: Duration = Duration::from_secs(60);

/// How often it is asked which file has the name.
const NAME: Duration = Duration::from_secs(1);

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

impl Position {
    /// Whether it is in the file that this is told of.
    pub(super) fn is_of(&self, metadata: &Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }
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
    opener: Box<dyn Opener>,
    /// When it was last asked which file has the name.
    asked: Option<Instant>,
    /// Where to begin, until it is known what file there is.
    start: Option<Start>,
    current: Option<Tail>,
    /// Files that were replaced, oldest first.
    old: Vec<Tail>,
    happened: Happened,
    trouble: Option<io::Error>,
    /// Why the file that has the name could not be opened.
    unopened: Option<io::Error>,
    missed: Option<String>,
    piece: Box<[u8]>,
}

impl Follower {
    /// Of a file that need not be there yet.
    #[must_use]
    pub fn new(opener: impl Opener, start: Start) -> Self {
        Self {
            opener: Box::new(opener),
            asked: None,
            start: Some(start),
            current: None,
            old: Vec::new(),
            happened: Happened::default(),
            trouble: None,
            unopened: None,
            missed: None,
            piece: vec![0; PIECE].into(),
        }
    }

    /// Looks at the file and gives the lines that are whole by now, at most some
    /// 4 MiB of them. By `now` a file that was replaced is let go in time, and the
    /// file that has the name is asked for at most once a second.
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
        let is_due = self.asked.is_none_or(|asked| now >= asked + NAME);
        if look.behind == 0 && is_due {
            self.asked = Some(now);
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
    pub fn trouble(&self) -> Option<&io::Error> {
        self.trouble.as_ref().or(self.unopened.as_ref())
    }

    /// Why the rest of the file that another reader stopped in could not be read, if there was
    /// one: what was written to it since is missing.
    #[must_use]
    pub fn missed(&self) -> Option<&str> {
        self.missed.as_deref()
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
        self.unopened = None;
        let seen = self.opener.open().and_then(|file| Tail::of(file, now));
        let opened = match seen {
            Ok(tail) if self.current.as_ref().is_some_and(|it| it.is(&tail)) => return,
            Ok(tail) => self.begin(tail, now),
            Err(error) => Err(error),
        };
        let mut tail = match opened {
            Ok(tail) => tail,
            Err(error) => return self.note(error),
        };
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

    /// There is no file to read under the name.
    fn note(&mut self, error: io::Error) {
        let is_gone = error.kind() == io::ErrorKind::NotFound;
        if is_gone && self.start == Some(Start::End) {
            // All that a file has that comes later is new.
            self.start = None;
        }
        if !is_gone || self.current.is_none() {
            self.unopened = Some(error);
        }
    }

    /// Goes to where the file that has the name now has to be begun.
    fn begin(&mut self, mut tail: Tail, now: Instant) -> io::Result<Tail> {
        match self.start {
            None => {}
            Some(Start::End) => tail.begin_at(tail.length()?)?,
            Some(Start::At(position)) if tail.has(&position) => tail.begin_at(position.offset)?,
            Some(Start::At(position)) => match self.rotated(&position, now) {
                Ok(Some(rotated)) => self.old.push(rotated),
                Ok(None) => self.missed = Some("it is not beside the one that is there".to_owned()),
                Err(error) => self.missed = Some(error.to_string()),
            },
        }
        self.start = None;
        Ok(tail)
    }

    /// The file of a position beside the one that has its name now, to be read from there.
    fn rotated(&self, position: &Position, now: Instant) -> io::Result<Option<Tail>> {
        let Some(file) = self.opener.renamed(position)? else {
            return Ok(None);
        };
        let mut tail = Tail::of(file, now)?;
        if !tail.has(position) {
            return Ok(None);
        }
        tail.begin_at(position.offset)?;
        Ok(Some(tail))
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
