//! A whole file of events, as `explain --events` reads it.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::Event;
use super::fault::Sample;
use super::formats::Format;
use super::lines::{Line, Lines};
use super::reader::Misread;

/// Bytes read at once.
const PIECE: usize = 65_536;

/// Why there is no event.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A line was not understood; the next one may be.
    #[error("line {line}: {}", misread.in_words())]
    Line {
        /// Counted from 1.
        line: u64,
        /// Why, and how it begins.
        misread: Misread,
    },
    /// Reading failed; nothing comes behind it.
    #[error("reading events behind line {line}: {cause}")]
    Read {
        /// The last line that was read.
        line: u64,
        /// Why.
        cause: io::Error,
    },
}

/// The events of a file or of a pipe, with the numbers of their lines, from 1. A
/// last line without an end is one all the same.
#[derive(Debug)]
pub struct EventFile<R> {
    input: Option<R>,
    format: Format,
    lines: Lines,
    line: u64,
    ready: VecDeque<Result<(u64, Event), FileError>>,
    piece: Box<[u8]>,
}

impl<R: Read> EventFile<R> {
    /// Reads `input` from where it stands.
    pub fn new(input: R, format: Format) -> Self {
        Self {
            input: Some(input),
            format,
            lines: Lines::default(),
            line: 0,
            ready: VecDeque::new(),
            piece: vec![0; PIECE].into(),
        }
    }

    /// Lines read so far, those that tell of no request too.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.line
    }

    /// Reads one piece.
    fn advance(&mut self) {
        let Some(input) = &mut self.input else {
            return;
        };
        let read = match input.read(&mut self.piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(cause) => {
                self.input = None;
                let line = self.line;
                self.ready.push_back(Err(FileError::Read { line, cause }));
                return;
            }
            Ok(read) => read,
        };
        let (format, ready, number) = (&self.format, &mut self.ready, &mut self.line);
        let each = |line: Line<'_>| {
            *number += 1;
            match one(format, &line) {
                Ok(Some(event)) => ready.push_back(Ok((*number, event))),
                Ok(None) => {}
                Err(misread) => ready.push_back(Err(FileError::Line {
                    line: *number,
                    misread,
                })),
            }
        };
        if read == 0 {
            self.input = None;
            self.lines.finish(each);
        } else {
            self.lines.push(&self.piece[..read], each);
        }
    }
}

fn one(format: &Format, line: &Line<'_>) -> Result<Option<Event>, Misread> {
    match line {
        Line::Whole(bytes) => format.read(bytes).map_err(|cause| Misread {
            cause,
            sample: Sample::of(bytes),
        }),
        Line::TooLong { length, head } => Err(Misread {
            cause: Line::too_long(*length),
            sample: head.clone(),
        }),
    }
}

impl<R: Read> Iterator for EventFile<R> {
    type Item = Result<(u64, Event), FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && self.input.is_some() {
            self.advance();
        }
        self.ready.pop_front()
    }
}
