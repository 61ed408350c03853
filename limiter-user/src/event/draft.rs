//! An event while it is being read, field by field.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::fault::NotUnderstood;
use super::{Event, Outcome, moment};

/// Headers at most, of the request and of the response each.
pub(super) const MAX_HEADERS: usize = 256;

const NO_ADDRESS: &str = "not an IP address";
const NO_STATUS: &str = "not a status from 100 to 999";

/// What a value tells about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    At,
    Id,
    Source,
    /// A list of addresses that proxies have made; the last of them is the
    /// source, if it is one.
    Forwarded,
    Peer,
    Method,
    Host,
    Path,
    Status,
    Account,
    Backend,
    Outcome,
    /// An object of headers.
    Headers,
    ResponseHeaders,
    /// One header, by its name.
    Header(Box<str>),
    ResponseHeader(Box<str>),
    /// The first line of the request.
    Request,
    /// What kind of line it is.
    Message,
}

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

/// What a log line says that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A request that has been answered.
    Handled,
    LoginFailed,
    LoginSucceeded,
    Other,
}

/// An event whose source may not be known yet.
#[derive(Debug)]
pub(super) struct Draft {
    manner: Manner,
    source: Option<IpAddr>,
    pub(super) message: Option<Message>,
    /// All but the source.
    pub(super) event: Event,
}

impl Draft {
    pub(super) const fn new(manner: Manner) -> Self {
        Self {
            manner,
            source: None,
            message: None,
            event: Event::of(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }

    pub(super) const fn manner(&self) -> Manner {
        self.manner
    }

    /// Takes a value in. `key` is what it is called where it comes from.
    pub(super) fn set(
        &mut self,
        field: &Field,
        key: &str,
        value: Scalar<'_>,
    ) -> Result<(), NotUnderstood> {
        if self.is_absent(value) {
            return Ok(());
        }
        let event = &mut self.event;
        match field {
            Field::At => event.at_ns = Some(at(key, value)?),
            Field::Status => event.status = status(key, value, self.manner)?,
            Field::Id => event.id = Some(word(key, value)?),
            Field::Source => {
                let text = text(key, value)?;
                self.source = Some(self.address(key, text)?);
            }
            Field::Forwarded => self.source = last_of(text(key, value)?),
            Field::Peer => {
                let text = text(key, value)?;
                self.event.peer = Some(self.address(key, text)?);
            }
            Field::Method => event.method = Some(text(key, value)?.into()),
            Field::Host => event.host = Some(without_port(text(key, value)?).into()),
            Field::Path => self.path(text(key, value)?),
            Field::Account => event.account = Some(word(key, value)?),
            Field::Backend => event.backend = Some(text(key, value)?.into()),
            Field::Outcome => event.outcome = Some(outcome(key, text(key, value)?)?),
            Field::Header(name) => {
                let text = text(key, value)?;
                self.header(false, name, text);
            }
            Field::ResponseHeader(name) => {
                let text = text(key, value)?;
                self.header(true, name, text);
            }
            Field::Headers | Field::ResponseHeaders => {
                return Err(wrong_type(key, value, "an object"));
            }
            Field::Request => self.request(text(key, value)?),
            Field::Message => self.message = Some(message(text(key, value)?)),
        }
        Ok(())
    }

    /// Whether a server means by this that there is nothing.
    pub(super) fn is_absent(&self, value: Scalar<'_>) -> bool {
        self.manner == Manner::Logged && matches!(value, Scalar::Text("" | "-"))
    }

    /// Takes one header in; those beyond [`MAX_HEADERS`] are left out.
    pub(super) fn header(&mut self, response: bool, name: &str, value: &str) {
        let headers = self.headers(response);
        if headers.len() < MAX_HEADERS {
            headers.push((name.into(), value.into()));
        }
    }

    pub(super) const fn headers(&mut self, response: bool) -> &mut Vec<(Box<str>, Box<str>)> {
        if response {
            &mut self.event.response_headers
        } else {
            &mut self.event.headers
        }
    }

    /// Takes the first line of a request in. What is no such line says nothing:
    /// clients send what they like.
    pub(super) fn request(&mut self, line: &str) {
        let Some((method, rest)) = line.split_once(' ') else {
            return;
        };
        if method.is_empty() || !method.bytes().all(is_token) {
            return;
        }
        let target = match rest.rsplit_once(' ') {
            Some((target, version)) if version.starts_with("HTTP/") => target,
            _ => rest,
        };
        self.event.method = Some(method.into());
        self.path(target);
    }

    /// Takes a request target in. A proxy treats `http://host/path` as it does
    /// `/path`, so it must not be another path here.
    fn path(&mut self, target: &str) {
        let Some(rest) = without_scheme(target) else {
            self.event.path = Some(target.into());
            return;
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit('@').next().unwrap_or(authority);
        if self.event.host.is_none() && !host.is_empty() {
            self.event.host = Some(without_port(host).into());
        }
        self.event.path = Some(if path.starts_with('/') {
            path.into()
        } else {
            format!("/{path}").into()
        });
    }

    fn address(&self, key: &str, text: &str) -> Result<IpAddr, NotUnderstood> {
        let found = match self.manner {
            Manner::Exact => text.parse().ok(),
            Manner::Logged => logged_address(text),
        };
        if text.starts_with("unix:") {
            return Err(NotUnderstood::bad(
                key,
                text,
                "the server does not know the client of a unix socket (nginx: `set_real_ip_from unix:`)",
            ));
        }
        found
            .map(|address| address.to_canonical())
            .ok_or_else(|| NotUnderstood::bad(key, text, NO_ADDRESS))
    }

    /// The event.
    pub(super) fn finish(self) -> Result<Event, NotUnderstood> {
        let mut event = self.event;
        event.source = self.source.ok_or(NotUnderstood::NoSource)?;
        Ok(event)
    }

    /// The event, whose source is the peer if nothing else is known.
    pub(super) fn finish_by_peer(mut self) -> Result<Event, NotUnderstood> {
        self.source = self.source.or(self.event.peer);
        self.finish()
    }
}

fn at(key: &str, value: Scalar<'_>) -> Result<u64, NotUnderstood> {
    let (found, said) = match value {
        Scalar::Text(text) => {
            // Envoy's default wraps its time in brackets.
            let bare = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'));
            (moment::from_text(bare.unwrap_or(text)), text.into())
        }
        Scalar::Whole(seconds) => (moment::from_seconds(seconds), seconds.to_string()),
        Scalar::Number(seconds) => (moment::from_float(seconds), seconds.to_string()),
        Scalar::Bool => return Err(wrong_type(key, value, "Unix seconds or RFC 3339")),
    };
    found.map_err(|problem| NotUnderstood::bad(key, &said, problem))
}

fn status(key: &str, value: Scalar<'_>, manner: Manner) -> Result<Option<u16>, NotUnderstood> {
    let (found, said) = match value {
        Scalar::Text(text) if text.len() == 3 => (text.parse().ok(), text.into()),
        Scalar::Text(text) => (None, text.into()),
        Scalar::Whole(status) => (u16::try_from(status).ok(), status.to_string()),
        Scalar::Number(status) => (None, status.to_string()),
        Scalar::Bool => return Err(wrong_type(key, value, "a status")),
    };
    let found = found.filter(|status| (100..1_000).contains(status));
    match (found, manner) {
        (None, Manner::Exact) => Err(NotUnderstood::bad(key, &said, NO_STATUS)),
        (found, _) => Ok(found),
    }
}

fn outcome(key: &str, text: &str) -> Result<Outcome, NotUnderstood> {
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
fn message(text: &str) -> Message {
    match text {
        "handled request" | "completed handling request" => Message::Handled,
        "Encountered self-service login error." => Message::LoginFailed,
        _ if text.starts_with("Identity authenticated successfully and was issued an ") => {
            Message::LoginSucceeded
        }
        _ => Message::Other,
    }
}

fn text<'a>(key: &str, value: Scalar<'a>) -> Result<&'a str, NotUnderstood> {
    match value {
        Scalar::Text(text) => Ok(text),
        _ => Err(wrong_type(key, value, "a string")),
    }
}

/// What may be written as a number too: accounts and ids often are numbers.
fn word(key: &str, value: Scalar<'_>) -> Result<Box<str>, NotUnderstood> {
    match value {
        Scalar::Whole(number) => Ok(number.to_string().into()),
        _ => Ok(text(key, value)?.into()),
    }
}

fn wrong_type(key: &str, value: Scalar<'_>, wanted: &'static str) -> NotUnderstood {
    let found = match value {
        Scalar::Text(_) => "a string",
        Scalar::Whole(_) | Scalar::Number(_) => "a number",
        Scalar::Bool => "true or false",
    };
    NotUnderstood::WrongType {
        key: key.into(),
        found,
        wanted,
    }
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

fn last_of(list: &str) -> Option<IpAddr> {
    let last = list.rsplit(',').next()?;
    logged_address(last.trim()).map(|address| address.to_canonical())
}

fn without_port(host: &str) -> &str {
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

fn without_scheme(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return None;
    }
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Characters of a method (RFC 9110, 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}
