//! One open log file and how far it was read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use nix::unistd::{Whence, lseek};

use super::{Look, Position};
use crate::event::lines::{Line, Lines};

/// Bytes read in one look, so that others have their turn.
const LOOK: u64 = 4 << 20;

/// Bytes before a place in a file by which it is known again.
const MARK: u64 = 512;

/// An open file and how far it was read.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    device: u64,
    inode: u64,
    offset: u64,
    /// Of the bytes before `offset`.
    mark: u64,
    /// Size and time of change at the last look.
    seen: (u64, i64, i64),
    pub(super) lines: Lines,
    /// When it last had something new.
    pub(super) grew: Instant,
}

impl Tail {
    /// Of an open file, to be read from its beginning.
    pub(super) fn of(file: File, now: Instant) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            file,
            offset: 0,
            mark: mark(&[]),
            seen: (0, 0, 0),
            lines: Lines::default(),
            grew: now,
        })
    }

    /// Whether both are the same file.
    pub(super) fn is(&self, other: &Self) -> bool {
        (other.device, other.inode) == (self.device, self.inode)
    }

    /// Whether this is the file of a position, and still has what was before it.
    pub(super) fn has(&self, position: &Position) -> bool {
        (position.device, position.inode) == (self.device, self.inode)
            && mark_at(&self.file, position.offset).is_ok_and(|mark| mark == position.mark)
    }

    /// Goes to a place in it.
    pub(super) fn begin_at(&mut self, offset: u64) -> io::Result<()> {
        self.offset = offset;
        self.mark = mark_at(&self.file, offset)?;
        let mut before = [b'\n'];
        if let Some(at) = offset.checked_sub(1) {
            self.file.read_exact_at(&mut before, at)?;
        }
        // A hole ends no line, but none can have begun in it.
        self.lines = if matches!(before, [b'\n' | 0]) {
            Lines::default()
        } else {
            Lines::headless()
        };
        Ok(())
    }

    /// The length of the file.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The place before the line under way.
    pub(super) fn position(&self) -> io::Result<Position> {
        let offset = self.offset - self.lines.under_way();
        Ok(Position {
            device: self.device,
            inode: self.inode,
            offset,
            mark: mark_at(&self.file, offset)?,
        })
    }

    /// Reads what is new; tells whether the file had been truncated.
    pub(super) fn read(
        &mut self,
        piece: &mut [u8],
        now: Instant,
        look: &mut Look,
        each: &mut impl FnMut(Line<'_>),
    ) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        let seen = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if seen == self.seen && seen.0 == self.offset {
            return Ok(false);
        }
        let truncated = seen.0 < self.offset || mark_at(&self.file, self.offset)? != self.mark;
        if truncated {
            self.offset = 0;
            self.lines = Lines::default();
        }
        if self.offset == 0 {
            self.offset = first_data(&self.file);
        }
        let begun = self.offset;
        while look.read < LOOK {
            let read = match self.file.read_at(piece, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                break;
            }
            self.offset += read as u64;
            look.read += read as u64;
            self.lines.push(&piece[..read], &mut *each);
        }
        if self.offset != begun || truncated {
            self.grew = now;
            self.mark = mark_at(&self.file, self.offset)?;
        }
        self.seen = seen;
        look.behind += seen.0.saturating_sub(self.offset);
        Ok(truncated)
    }
}

/// Where the first bytes are that were written: a file that was truncated under
/// its writer may begin with a hole of any size. 0 where that is not known.
fn first_data(file: &File) -> u64 {
    let found = lseek(file, 0, Whence::SeekData);
    found
        .ok()
        .and_then(|at| u64::try_from(at).ok())
        .unwrap_or(0)
}

/// The hash of the last bytes before `offset`.
fn mark_at(file: &File, offset: u64) -> io::Result<u64> {
    let mut bytes = [0; MARK as usize];
    let length = offset.min(MARK);
    let bytes = &mut bytes[..length as usize];
    match file.read_exact_at(bytes, offset - length) {
        // Cut meanwhile: not what it was.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(!mark(bytes)),
        read => read.map(|()| mark(bytes)),
    }
}

/// FNV-1a, which stays the same in all versions.
fn mark(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
