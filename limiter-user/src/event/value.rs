//! The values of an event, as applications and servers write them.

use std::net::{IpAddr, SocketAddr};

use super::fault::NotUnderstood;
use super::{Outcome, moment};

const NO_ADDRESS: &str = "not an IP address";
const MORE_THAN_ADDRESS: &str =
    "more than an address; a port, brackets and a zone do not belong here";
const NO_STATUS: &str = "not a status from 100 to 999";

/// How values are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// By an application: an empty value is a value, and what is not possible
    /// is an error.
    Exact,
    /// By a server that fills in a template: empty and `-` are absent, an
    /// address may have a port, and a status below 100 is none.
    Logged,
}

/// A value that is not an object or an array.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Whole(u64),
    /// A negative or fractional number.
    Number(f64),
    Bool,
}

impl Scalar<'_> {
    /// What it is, in words.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Whole(_) => "a number",
            Self::Number(_) => "a negative number or a fraction",
            Self::Bool => "true or false",
        }
    }

    /// What it says.
    fn said(self) -> String {
        match self {
            Self::Text(text) => text.to_owned(),
            Self::Whole(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Bool => self.kind().to_owned(),
        }
    }
}

/// What a log line says that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A request that has been answered.
    Handled,
    LoginFailed,
    LoginSucceeded,
    Other,
}

pub(super) fn at(key: &str, value: Scalar<'_>, manner: Manner) -> Result<u64, NotUnderstood> {
    let found = match value {
        Scalar::Text(text) => {
            // As Envoy's default has it.
            let bare = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'));
            let bare = bare.filter(|_| manner == Manner::Logged);
            moment::from_text(bare.unwrap_or(text))
        }
        Scalar::Whole(seconds) => moment::from_seconds(seconds),
        Scalar::Number(seconds) => moment::from_float(seconds),
        Scalar::Bool => return Err(wrong_type(key, value, "Unix seconds or RFC 3339")),
    };
    found.map_err(|problem| NotUnderstood::bad(key, &value.said(), problem))
}

pub(super) fn status(
    key: &str,
    value: Scalar<'_>,
    manner: Manner,
) -> Result<Option<u16>, NotUnderstood> {
    let found = match value {
        Scalar::Text(text) if text.len() == 3 => text.parse().ok(),
        Scalar::Whole(status) => u16::try_from(status).ok(),
        Scalar::Text(_) | Scalar::Number(_) => None,
        Scalar::Bool => return Err(wrong_type(key, value, "a status")),
    };
    let found = found.filter(|status| (100..1_000).contains(status));
    match (found, manner) {
        (None, Manner::Exact) => Err(NotUnderstood::bad(key, &value.said(), NO_STATUS)),
        (found, _) => Ok(found),
    }
}

pub(super) fn outcome(key: &str, text: &str) -> Result<Outcome, NotUnderstood> {
    match text {
        "success" => Ok(Outcome::Success),
        "failure" => Ok(Outcome::Failure),
        _ => Err(NotUnderstood::bad(
            key,
            text,
            "neither `success` nor `failure`",
        )),
    }
}

/// What the lines of Caddy and Kratos call themselves.
pub(super) fn message(text: &str) -> Message {
    match text {
        "handled request" | "completed handling request" => Message::Handled,
        "Encountered self-service login error." => Message::LoginFailed,
        _ if text.starts_with("Identity authenticated successfully and was issued an ") => {
            Message::LoginSucceeded
        }
        _ => Message::Other,
    }
}

pub(super) fn text<'a>(key: &str, value: Scalar<'a>) -> Result<&'a str, NotUnderstood> {
    match value {
        Scalar::Text(text) => Ok(text),
        _ => Err(wrong_type(key, value, "a string")),
    }
}

/// What may be written as a number too: accounts and ids often are numbers.
pub(super) fn word(key: &str, value: Scalar<'_>) -> Result<Box<str>, NotUnderstood> {
    match value {
        Scalar::Whole(number) => Ok(number.to_string().into()),
        Scalar::Text(text) => Ok(text.into()),
        _ => Err(wrong_type(key, value, "a string or a whole number")),
    }
}

pub(super) fn wrong_type(key: &str, value: Scalar<'_>, wanted: &'static str) -> NotUnderstood {
    NotUnderstood::WrongType {
        key: key.into(),
        found: value.kind(),
        wanted,
    }
}

/// An address; one of IPv4 mapped into IPv6 is one of IPv4.
pub(super) fn address(key: &str, text: &str, manner: Manner) -> Result<IpAddr, NotUnderstood> {
    let found = match manner {
        Manner::Exact => text.parse().ok(),
        Manner::Logged => logged_address(text),
    };
    let problem = if text.starts_with("unix:") {
        "the server does not know the client of a unix socket (nginx: `set_real_ip_from unix:`)"
    } else if manner == Manner::Exact && logged_address(text).is_some() {
        MORE_THAN_ADDRESS
    } else {
        NO_ADDRESS
    };
    found
        .map(|address| address.to_canonical())
        .ok_or_else(|| NotUnderstood::bad(key, text, problem))
}

/// An address as servers write it: `a`, `a:port`, `[a]:port`, `a%zone`, and
/// HAProxy's IPv6 `a:port` without brackets is for its own reader.
fn logged_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let bare = text.strip_prefix('[').unwrap_or(text);
    let end = bare.find(['%', ']'])?;
    bare[..end].parse().ok()
}

/// An address as servers and proxies write it, with a port, brackets or a zone.
pub(crate) fn address_in(text: &str) -> Option<IpAddr> {
    logged_address(text.trim()).map(|address| address.to_canonical())
}

pub(super) fn last_of(list: &str) -> Option<IpAddr> {
    let last = list.rsplit(',').next()?;
    address_in(last)
}

pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

pub(super) fn without_scheme(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return None;
    }
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Method and target of the first line of a request; `None`: it is no such line.
pub(super) fn request_line(line: &str) -> Option<(&str, &str)> {
    let (method, rest) = line.split_once(' ')?;
    if method.is_empty() || !method.bytes().all(is_token) {
        return None;
    }
    let target = match rest.rsplit_once(' ') {
        Some((target, version)) if version.starts_with("HTTP/") => target,
        _ => rest,
    };
    Some((method, target))
}

/// Characters of a method (RFC 9110, 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}
