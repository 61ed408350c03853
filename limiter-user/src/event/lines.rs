//! Bytes in pieces of any size become lines.

use memchr::memchr;

use super::fault::{NotUnderstood, Sample};

/// Bytes of a line or a datagram at most, without its end. nginx takes 32 KiB of
/// request and headers from a client and writes at most four characters for a
/// byte of them.
pub const MAX_LINE: usize = 262_144;

/// What is kept of a line that is too long.
const HEAD: usize = 640;

/// A line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// As it is.
    Whole(&'a [u8]),
    /// One that is too long; it was not kept.
    TooLong {
        /// Its bytes.
        length: u64,
        /// How it begins.
        head: Sample,
    },
}

/// Splits a stream into lines that end in LF or CRLF. Holds the beginning of the
/// last line until it is whole, at most [`MAX_LINE`] bytes. NUL bytes in front of
/// a line are no part of it: a file that was truncated under its writer has a
/// hole there.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line so far; of one that is too long only its head.
    held: Vec<u8>,
    /// Bytes of the line so far, if it is too long.
    too_long: Option<u64>,
    /// Whether the line under way began before we came.
    headless: bool,
}

impl Lines {
    /// Begins in the middle of a line, which is left out.
    #[must_use]
    pub fn headless() -> Self {
        Self {
            headless: true,
            ..Self::default()
        }
    }

    /// Takes the next bytes and gives each line that is whole by now.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.is_fresh() && line.len() <= MAX_LINE {
                // Most lines come in one piece and are not copied.
                each(Line::Whole(trimmed(line)));
                continue;
            }
            self.hold(line);
            self.end(&mut each);
        }
        self.hold(bytes);
    }

    /// The stream ends: gives what is left.
    pub fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.is_fresh() {
            self.end(&mut each);
        }
    }

    /// Bytes of the line under way, from which a reader has to begin that comes
    /// later. NUL bytes in front of it are not among them.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.too_long.unwrap_or(self.held.len() as u64)
    }

    const fn is_fresh(&self) -> bool {
        self.held.is_empty() && self.too_long.is_none() && !self.headless
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.headless {
            return;
        }
        if let Some(length) = &mut self.too_long {
            *length += bytes.len() as u64;
            return;
        }
        let bytes = if self.held.is_empty() {
            without_hole(bytes)
        } else {
            bytes
        };
        let length = self.held.len() + bytes.len();
        if length <= MAX_LINE {
            self.held.extend_from_slice(bytes);
            return;
        }
        let room = HEAD.saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend_from_slice(&bytes[..room]);
        self.held.truncate(HEAD);
        self.held.shrink_to(HEAD);
        self.too_long = Some(length as u64);
    }

    fn end(&mut self, each: &mut impl FnMut(Line<'_>)) {
        match self.too_long.take() {
            Some(length) => each(Line::TooLong {
                length,
                head: Sample::of(&self.held),
            }),
            None if self.headless => {}
            None => each(Line::Whole(trimmed(&self.held))),
        }
        self.headless = false;
        self.held.clear();
    }
}

impl Line<'_> {
    /// Why a line that is too long is no event.
    #[must_use]
    pub const fn too_long(length: u64) -> NotUnderstood {
        NotUnderstood::TooLong {
            length,
            most: MAX_LINE,
        }
    }
}

fn without_hole(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| *byte != 0);
    &bytes[begin.unwrap_or(bytes.len())..]
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = without_hole(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
