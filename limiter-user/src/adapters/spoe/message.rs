//! The arguments of HAProxy's messages, as an event.

use std::net::IpAddr;

use spop::TypedData;
use spop::decode_varint;
use spop::frame::Message;

use crate::adapters::verdict::{self, Verdict};
use crate::engine::OWN_RESPONSE_HEADER;
use crate::event::{Body, Event, MAX_HEADERS, NotUnderstood, Sample, without_port};

/// Asks about a request.
pub(super) const CHECK: &str = "limiter-check";
/// Reports what became of it.
pub(super) const REPORT: &str = "limiter-report";
/// Is acknowledged after a delay.
pub(super) const WAIT: &str = "limiter-wait";

/// Begins the name of an argument that is one header.
const HEADER: &str = "header:";

/// The event that a message of [`CHECK`] or [`REPORT`] tells of.
pub(super) fn event(message: &Message) -> Result<Event, NotUnderstood> {
    let peer = match message.get("peer") {
        Some(TypedData::IPv4(address)) => IpAddr::V4(*address),
        Some(TypedData::IPv6(address)) => IpAddr::V6(*address).to_canonical(),
        Some(TypedData::Null) | None => return Err(NotUnderstood::NoSource),
        Some(_) => return Err(wrong("peer", "an address, as `src` is")),
    };
    let word = |name| word(message, name);
    let mut headers = match message.get("headers") {
        Some(TypedData::Binary(bytes)) => {
            headers(bytes).ok_or_else(|| wrong("headers", HEADERS))?
        }
        Some(TypedData::Null) | None => Vec::new(),
        Some(_) => return Err(wrong("headers", HEADERS)),
    };
    single_headers(message, &mut headers)?;
    let is_report = message.name == REPORT;
    // What limiter answers itself is not reported: this one is the origin's.
    headers.retain(|(name, _)| !(is_report && name.eq_ignore_ascii_case(OWN_RESPONSE_HEADER)));
    let (request, response) = match is_report {
        true => (Vec::new(), headers),
        false => (headers, Vec::new()),
    };
    let body = body(message, &request)?;
    Ok(Event {
        id: word("id")?,
        peer: Some(peer),
        method: word("method")?,
        host: word("host")?.map(|host| without_port(&host).into()),
        path: word("path")?,
        status: if is_report { status(message)? } else { None },
        headers: request,
        response_headers: response,
        body,
        ..Event::of(peer)
    })
}

/// The body, as far as HAProxy has it in its buffer. Of one in chunks it does not know whether
/// that is all.
fn body(
    message: &Message,
    headers: &[(Box<str>, Box<str>)],
) -> Result<Option<Body>, NotUnderstood> {
    let bytes = match message.get("body") {
        Some(TypedData::Binary(bytes)) => bytes.as_slice(),
        Some(TypedData::Null) => &[],
        None => return Ok(None),
        Some(_) => return Err(wrong("body", "the value of req.body")),
    };
    let size = number(message, "body_size")?;
    let is_chunked = |(name, _): &(Box<str>, _)| name.eq_ignore_ascii_case("transfer-encoding");
    Ok(Some(Body {
        bytes: bytes.into(),
        is_whole: size == Some(bytes.len() as u64) && !headers.iter().any(is_chunked),
    }))
}

/// Whom a message of [`WAIT`] makes wait.
pub(super) fn verdict(message: &Message) -> Result<Verdict, NotUnderstood> {
    let text = word(message, "wait")?.unwrap_or_default();
    verdict::read(&text).ok_or_else(|| wrong("wait", "what limiter-check has answered"))
}

/// Headers that are arguments of their own, those beyond [`MAX_HEADERS`] left out.
fn single_headers(
    message: &Message,
    headers: &mut Vec<(Box<str>, Box<str>)>,
) -> Result<(), NotUnderstood> {
    for (argument, value) in &message.args {
        let Some(name) = argument.strip_prefix(HEADER) else {
            continue;
        };
        match value {
            TypedData::String(value) if headers.len() < MAX_HEADERS => {
                headers.push((name.into(), value.as_str().into()));
            }
            TypedData::String(_) | TypedData::Null => {}
            _ => return Err(wrong(argument, "a string")),
        }
    }
    Ok(())
}

fn status(message: &Message) -> Result<Option<u16>, NotUnderstood> {
    let status = number(message, "status")?;
    Ok(status.and_then(|status| u16::try_from(status).ok()))
}

fn number(message: &Message, name: &'static str) -> Result<Option<u64>, NotUnderstood> {
    match message.get(name) {
        Some(TypedData::Int32(number)) => Ok(u64::try_from(*number).ok()),
        Some(TypedData::Int64(number)) => Ok(u64::try_from(*number).ok()),
        Some(TypedData::UInt32(number)) => Ok(Some((*number).into())),
        Some(TypedData::UInt64(number)) => Ok(Some(*number)),
        Some(TypedData::Null) | None => Ok(None),
        Some(_) => Err(wrong(name, "a number")),
    }
}

fn word(message: &Message, name: &'static str) -> Result<Option<Box<str>>, NotUnderstood> {
    match message.get(name) {
        Some(TypedData::String(text)) => Ok(Some(text.as_str().into())),
        Some(TypedData::Null) | None => Ok(None),
        Some(_) => Err(wrong(name, "a string")),
    }
}

const HEADERS: &str = "the value of req.hdrs_bin or res.hdrs_bin";

fn wrong(key: &str, wanted: &'static str) -> NotUnderstood {
    NotUnderstood::WrongType {
        key: key.into(),
        found: "something else",
        wanted,
    }
}

/// Why a message of another name is none.
pub(super) fn unknown(name: &str) -> NotUnderstood {
    NotUnderstood::BadValue {
        key: "message".into(),
        value: Sample::of(name.as_bytes()),
        problem: "limiter-check, limiter-report and limiter-wait are known",
    }
}

/// Headers as HAProxy's `req.hdrs_bin` has them: the length and bytes of each name and
/// value, until both are empty. Those beyond [`MAX_HEADERS`] are left out.
fn headers(mut bytes: &[u8]) -> Option<Vec<(Box<str>, Box<str>)>> {
    let mut headers = Vec::new();
    loop {
        let (name, rest) = text(bytes)?;
        let (value, rest) = text(rest)?;
        bytes = rest;
        if name.is_empty() && value.is_empty() {
            return Some(headers);
        }
        if headers.len() < MAX_HEADERS {
            headers.push((name, value));
        }
    }
}

fn text(bytes: &[u8]) -> Option<(Box<str>, &[u8])> {
    let (rest, length) = decode_varint(bytes).ok()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((String::from_utf8_lossy(text).into(), rest))
}
