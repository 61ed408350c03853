//! HAProxy's HTTP log format (`option httplog`).

use std::borrow::Cow;
use std::net::IpAddr;

use super::clf::{Cursor, hex, lossy, set, set_time};
use crate::event::Event;
use crate::event::draft::{Draft, Field};
use crate::event::fault::NotUnderstood;
use crate::event::value::Manner;

/// How notices begin that stand in the same log.
const NOTICES: [&[u8]; 6] = [
    b"Proxy ",
    b"Server ",
    b"Backup Server ",
    b"Connect from ",
    b"Stopping ",
    b"backend ",
];

/// Reads a line. Bytes beyond printable ASCII, quotes and `#` are `#22` in it, but
/// a captured cookie stands there as the client sent it: so nothing between the
/// status and the request is looked at, and the request is found from the end.
pub(super) fn read(line: &[u8]) -> Result<Option<Event>, NotUnderstood> {
    if NOTICES.iter().any(|notice| line.starts_with(notice)) {
        return Ok(None);
    }
    let line = line.trim_ascii_end();
    let mut cursor = Cursor::of(line)?;
    let mut draft = Draft::new(Manner::Logged);
    let client = cursor.before(b' ', "the client's address and port")?;
    let address =
        address(client).ok_or(NotUnderstood::shape(0, "the client's address and port"))?;
    set(
        &mut draft,
        &Field::Source,
        "source",
        address.to_string().as_bytes(),
    )?;
    cursor.expect("[", "a time in brackets")?;
    let at = cursor.at;
    set_time(&mut draft, cursor.before(b']', "`]` behind the time")?, at)?;
    cursor.expect(" ", "the frontend")?;
    let frontend = cursor.word();
    if frontend.ends_with(b":") {
        // `fe/1: SSL handshake failure` tells of no request.
        return Ok(None);
    }
    let _backend = cursor.word();
    let at = cursor.at;
    let timers = cursor.word();
    if timers.iter().filter(|byte| **byte == b'/').count() != 4 {
        return Err(NotUnderstood::shape(at, "five timers (`option httplog`)"));
    }
    set(&mut draft, &Field::Status, "status", cursor.word())?;
    let _bytes = cursor.word();
    if let Some(request) = request(cursor.rest()) {
        draft.request(&unescaped(request));
    }
    draft.finish().map(Some)
}

/// The request in what follows the bytes. `None` where the line was cut off and a
/// cookie could pass for the request.
fn request(rest: &[u8]) -> Option<&[u8]> {
    if let Some(line) = rest.strip_suffix(b"\"") {
        let open = memchr::memrchr(b'"', line)?;
        return Some(&line[open + 1..]);
    }
    // Fields behind the request, or none of its end: without cookies the first
    // quote is HAProxy's.
    let open = rest.strip_prefix(b"- - ").and(memchr::memchr(b'"', rest))?;
    let request = &rest[open + 1..];
    let end = memchr::memchr(b'"', request).unwrap_or(request.len());
    Some(&request[..end])
}

/// An address and a port: `::1:38496` is `::1` here.
fn address(client: &[u8]) -> Option<IpAddr> {
    let client = std::str::from_utf8(client).ok()?;
    let (address, port) = client.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    address.parse().ok()
}

/// Undoes `#22`.
fn unescaped(bytes: &[u8]) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'#', bytes) else {
        return String::from_utf8_lossy(bytes);
    };
    let mut plain = bytes[..first].to_vec();
    let mut rest = &bytes[first..];
    while let [byte, after @ ..] = rest {
        match after {
            [high, low, after @ ..]
                if *byte == b'#'
                    && let Some(value) = hex(*high, *low) =>
            {
                plain.push(value);
                rest = after;
            }
            _ => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    Cow::Owned(lossy(plain))
}
