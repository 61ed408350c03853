//! Why a line is no event, and what of it may be shown.

use std::fmt::{self, Display};

use crate::policy::escape;

/// Characters of a sample at most.
const SAMPLE_CHARS: usize = 160;

/// Why something was not understood as an event. `Display` says what is wrong
/// and where; what came from outside is escaped and cut short in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// More bytes than are read.
    #[error("{length} bytes; {most} are read at most")]
    TooLong {
        /// How many came.
        length: u64,
        /// How many may.
        most: usize,
    },
    /// Not UTF-8.
    #[error("byte {byte}: not UTF-8")]
    NotUtf8 {
        /// Counted from 1.
        byte: usize,
    },
    /// A control character, or another byte that the server would have escaped.
    #[error("byte {byte}: 0x{value:02x} as it is, which the server would have escaped")]
    RawByte {
        /// Counted from 1.
        byte: usize,
        /// The byte.
        value: u8,
    },
    /// Not JSON.
    #[error("byte {byte}: {problem}")]
    NotJson {
        /// Counted from 1.
        byte: usize,
        /// What is wrong there.
        problem: String,
    },
    /// JSON, but not an object.
    #[error("{found} where an object was expected")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A key twice in one object.
    #[error("`{}` twice in one object", Sample::of(key.as_bytes()))]
    Duplicate {
        /// Which.
        key: Box<str>,
    },
    /// A key that an event does not have.
    #[error("an event has no key `{}`", Sample::of(key.as_bytes()))]
    Unknown {
        /// Which.
        key: Box<str>,
    },
    /// A value of another type.
    #[error("`{key}` is {found}, and {wanted} was expected")]
    WrongType {
        /// Of which key.
        key: Box<str>,
        /// What it is.
        found: &'static str,
        /// What it may be.
        wanted: &'static str,
    },
    /// A value that is not possible.
    #[error("`{key}` is `{value}`: {problem}")]
    BadValue {
        /// Of which key.
        key: Box<str>,
        /// What it says.
        value: Sample,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Too many headers.
    #[error("more than {most} headers in `{key}`")]
    TooManyHeaders {
        /// In which object.
        key: Box<str>,
        /// How many may be.
        most: usize,
    },
    /// Nothing says whose request it was.
    #[error("`source` is missing")]
    NoSource,
    /// A line that does not go on as its format does.
    #[error("byte {byte}: {wanted} was expected")]
    Shape {
        /// Counted from 1.
        byte: usize,
        /// What stands there in this format.
        wanted: &'static str,
    },
    /// A line that could mean two things.
    #[error("the {field} has spaces or quotes in it, so that the line could mean two things")]
    Ambiguous {
        /// What could be the work of a client.
        field: &'static str,
    },
}

impl NotUnderstood {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "log fewer headers, or let the server accept shorter ones",
            Self::NotUtf8 { .. } => "send UTF-8",
            Self::RawByte { .. } => "use the server's own escaping, never `escape=none`",
            Self::NotJson { .. } => {
                "one JSON object is needed; a line that is cut off needs a longer limit in the \
                 server"
            }
            Self::NotAnObject { .. } => "send one event as an object in braces",
            Self::Duplicate { .. } => "write every key once",
            Self::Unknown { .. } => {
                "at, id, source, peer, method, host, path, status, account, backend, outcome, \
                 headers and response_headers are known; a log of other keys needs a field map"
            }
            Self::WrongType { .. } | Self::BadValue { .. } => {
                "docs/events.md, \"The event as JSON\", says what each key takes"
            }
            Self::TooManyHeaders { .. } => "send those that rules ask for",
            Self::NoSource => "add the address of the client",
            Self::Shape { .. } => "compare `format` with what the server writes",
            Self::Ambiguous { .. } => "log JSON instead",
        }
    }

    pub(super) fn bad(key: &str, value: &str, problem: &'static str) -> Self {
        Self::BadValue {
            key: key.into(),
            value: Sample::of(value.as_bytes()),
            problem,
        }
    }

    /// A line that does not go on as expected behind its first `at` bytes.
    pub(super) const fn shape(at: usize, wanted: &'static str) -> Self {
        Self::Shape {
            byte: at + 1,
            wanted,
        }
    }
}

/// The beginning of what came from outside, escaped: it may be printed
/// anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample(Box<str>);

impl Sample {
    /// The beginning of `bytes`. Bytes that are no UTF-8 are shown as `\xff`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        // No character has more than four bytes.
        let head = &bytes[..bytes.len().min(SAMPLE_CHARS * 4)];
        let mut text = String::new();
        for chunk in head.utf8_chunks() {
            text.push_str(&escape(chunk.valid()));
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        let cut = text.char_indices().nth(SAMPLE_CHARS);
        if let Some((at, _)) = cut {
            text.truncate(at);
        }
        if cut.is_some() || head.len() < bytes.len() {
            text.push('…');
        }
        Self(text.into())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
