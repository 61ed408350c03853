//! Whose a file is, before it is opened: one that is not ours to write is not
//! touched, not even by looking at it through the library.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Of the file as a whole: "lmtr".
pub(super) const APPLICATION: u32 = u32::from_be_bytes(*b"lmtr");

/// What this version writes: a thousand times the major number, by which
/// versions do not understand each other, and the minor one, by which they do.
/// 1.0 had blocks and entries, 1.1 has the audit log too.
pub(super) const VERSION: u32 = 1_001;

/// Begins every database of this kind.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What lies at the place of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, or an empty file.
    Empty,
    /// A database that this version may write.
    Ours,
    /// One of a later version, with its major number.
    Newer(u32),
    /// A database of another program.
    Foreign,
    /// No database.
    Garbage,
}

/// Looks at a file.
pub(super) fn kind(path: &Path) -> io::Result<Kind> {
    let mut header = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(100).read_to_end(&mut header)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kind::Empty),
        Err(error) => return Err(error),
    };
    // Of the library's file format: the number that a program gives its
    // databases, and that by which it tells their versions.
    let number = |at: usize| {
        let bytes = header.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let kind = match (header.starts_with(MAGIC), number(68), number(60)) {
        _ if header.is_empty() => Kind::Empty,
        (true, Some(APPLICATION), Some(version)) if version / 1_000 > VERSION / 1_000 => {
            Kind::Newer(version / 1_000)
        }
        (true, Some(APPLICATION), Some(_)) => Kind::Ours,
        (true, Some(_), _) => Kind::Foreign,
        _ => Kind::Garbage,
    };
    Ok(kind)
}
