//! What the common log format and its kin are made of.

use std::borrow::Cow;

use memchr::memchr2;

use crate::event::draft::{Draft, Field};
use crate::event::fault::NotUnderstood;
use crate::event::value::{Manner, Scalar};
use crate::event::{Event, moment};

/// A line and how far it was read.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    line: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a line, in which everything but printable ASCII must
    /// have been escaped.
    pub(super) fn of(line: &'a [u8]) -> Result<Self, NotUnderstood> {
        let is_raw = |byte: &u8| !matches!(byte, b' '..=b'~');
        // Without a way out of it this is done for many bytes at once, and most lines have none.
        if line.iter().fold(false, |raw, byte| raw | is_raw(byte))
            && let Some(at) = line.iter().position(is_raw)
        {
            return Err(NotUnderstood::RawByte {
                byte: at + 1,
                value: line[at],
            });
        }
        Ok(Self { line, at: 0 })
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.line[self.at..]
    }

    /// Passes over `word`.
    pub(super) fn expect(
        &mut self,
        word: &'static str,
        wanted: &'static str,
    ) -> Result<(), NotUnderstood> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(NotUnderstood::shape(self.at, wanted));
        }
        self.at += word.len();
        Ok(())
    }

    /// The bytes before the next `end`, which is passed over.
    pub(super) fn before(
        &mut self,
        end: u8,
        wanted: &'static str,
    ) -> Result<&'a [u8], NotUnderstood> {
        let rest = self.rest();
        let length = memchr::memchr(end, rest).ok_or(NotUnderstood::shape(self.at, wanted))?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// The word before the next space, or the last one.
    pub(super) fn word(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let length = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        self.at = (self.at + length + 1).min(self.line.len());
        &rest[..length]
    }

    /// What stands in quotes, of which the first has been read; escaped yet.
    pub(super) fn quoted(&mut self) -> Result<&'a [u8], NotUnderstood> {
        let rest = self.rest();
        let length = quote(rest).ok_or(NotUnderstood::shape(self.line.len(), "a closing quote"))?;
        self.at += length + 1;
        Ok(&rest[..length])
    }
}

/// Where the next quote is that no backslash stands before.
pub(super) fn quote(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', bytes.get(from..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// Undoes `\x22` and, as Apache has them, `\"` and `\n`. Bytes that are no UTF-8
/// become U+FFFD.
pub(super) fn unescaped(bytes: &[u8]) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', bytes) else {
        return lossy_text(bytes);
    };
    let mut plain = bytes[..first].to_vec();
    let mut rest = &bytes[first..];
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        match after {
            [b'x', high, low, after @ ..] if let Some(value) = hex(*high, *low) => {
                plain.push(value);
                rest = after;
            }
            [quoted @ (b'"' | b'\\'), after @ ..] => {
                plain.push(*quoted);
                rest = after;
            }
            [
                letter @ (b'n' | b't' | b'r' | b'b' | b'v' | b'f'),
                after @ ..,
            ] => {
                plain.push(control(*letter));
                rest = after;
            }
            _ => plain.push(b'\\'),
        }
    }
    Cow::Owned(lossy(plain))
}

/// As the library's, which is slow where nothing is lost.
fn lossy_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

pub(super) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Two hexadecimal digits.
pub(super) fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

const fn control(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 0x08,
        b'v' => 0x0b,
        _ => 0x0c,
    }
}

/// Takes a value in that has no escapes.
pub(super) fn set(
    draft: &mut Draft,
    field: &Field,
    key: &str,
    bytes: &[u8],
) -> Result<(), NotUnderstood> {
    draft.set(field, key, Scalar::Text(&lossy_text(bytes)))
}

/// Takes a time in, as it stands in brackets; `at` is where it begins.
pub(super) fn set_time(draft: &mut Draft, time: &[u8], at: usize) -> Result<(), NotUnderstood> {
    let at_ns = moment::from_log(time).ok_or(NotUnderstood::shape(
        at,
        "a time as 22/Nov/2026:18:29:28 +0000",
    ))?;
    draft.event.at_ns = Some(at_ns);
    Ok(())
}

/// Reads a line of Traefik's common log format, which escapes nothing: what
/// stands behind the request (Referer, User-Agent) is not read, and a user name
/// that could go on as a line does is refused.
pub(super) fn traefik(line: &[u8]) -> Result<Event, NotUnderstood> {
    let mut cursor = Cursor { line, at: 0 };
    let mut draft = Draft::new(Manner::Logged);
    let host = cursor.before(b' ', "the client's address")?;
    if host.ends_with(b",") {
        return Err(NotUnderstood::Ambiguous {
            field: "client's address",
        });
    }
    set(&mut draft, &Field::Source, "ClientHost", host)?;
    cursor.expect("- ", "`- ` and a user name")?;
    let user = cursor.before(b' ', "a user name")?;
    if cursor.rest().first() != Some(&b'[') || user.contains(&b'"') {
        return Err(NotUnderstood::Ambiguous { field: "user name" });
    }
    set(&mut draft, &Field::Account, "ClientUsername", user)?;
    let rest = cursor.rest();
    if user != b"-" && memchr::memmem::find_iter(rest, b"] \"").nth(1).is_some() {
        return Err(NotUnderstood::Ambiguous { field: "user name" });
    }
    cursor.expect("[", "a time in brackets")?;
    let at = cursor.at;
    set_time(&mut draft, cursor.before(b']', "`]` behind the time")?, at)?;
    cursor.expect(" \"", "a request in quotes")?;
    // None of the three has a space in it: the server has split them by it.
    let method = cursor.word();
    let target = cursor.word();
    let version = cursor.word();
    if !version.starts_with(b"HTTP/") || version.last() != Some(&b'"') {
        return Err(NotUnderstood::shape(
            cursor.at,
            "`HTTP/…\"` behind the path",
        ));
    }
    set(&mut draft, &Field::Method, "RequestMethod", method)?;
    set(&mut draft, &Field::Path, "RequestPath", target)?;
    set(&mut draft, &Field::Status, "OriginStatus", cursor.word())?;
    draft.finish()
}
