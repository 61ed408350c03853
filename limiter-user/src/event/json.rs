//! The event itself as JSON.

use std::sync::LazyLock;

use super::Event;
use super::draft::Field;
use super::fault::NotUnderstood;
use super::lines::MAX_LINE;
use super::map::FieldMap;
use super::value::Manner;

/// The keys of an event.
pub(super) const KEYS: [(&str, Field); 13] = [
    ("at", Field::At),
    ("id", Field::Id),
    ("source", Field::Source),
    ("peer", Field::Peer),
    ("method", Field::Method),
    ("host", Field::Host),
    ("path", Field::Path),
    ("status", Field::Status),
    ("account", Field::Account),
    ("backend", Field::Backend),
    ("outcome", Field::Outcome),
    ("headers", Field::Headers),
    ("response_headers", Field::ResponseHeaders),
];

/// Beside them, what only a question tells.
static EVENT: LazyLock<FieldMap> = LazyLock::new(|| {
    let body = ("body", Field::Body);
    FieldMap::of(KEYS.into_iter().chain([body])).closed()
});

/// Reads one event that an application has written: a JSON object of at most
/// [`MAX_LINE`] bytes, exactly as it is meant. An empty value is a value, `null`
/// is none; headers are an object of strings or arrays of strings.
///
/// # Errors
///
/// See [`NotUnderstood`].
pub fn read(bytes: &[u8]) -> Result<Event, NotUnderstood> {
    checked(bytes)?;
    EVENT.read(bytes, Manner::Exact)?.finish()
}

/// Reads one event that a server has put together from its variables: what is
/// empty or `-` is absent, an address may have a port, a status below 100 is
/// none, and bytes that are no UTF-8 become U+FFFD. Keys that an event does not
/// have are refused here too.
pub(super) fn read_logged(bytes: &[u8]) -> Result<Event, NotUnderstood> {
    EVENT.read(bytes, Manner::Logged)?.finish()
}

/// Refuses what is too long to be looked at.
pub(super) const fn checked(bytes: &[u8]) -> Result<(), NotUnderstood> {
    if bytes.len() > MAX_LINE {
        return Err(NotUnderstood::TooLong {
            length: bytes.len() as u64,
            most: MAX_LINE,
        });
    }
    Ok(())
}
