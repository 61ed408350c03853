//! The formats in which servers tell of requests.
//!
//! `docs/events.md` has the configuration of each server, and what each can
//! tell.

mod clf;
mod combined;
mod haproxy;
mod objects;
mod tells;

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Serialize, Serializer};

pub use tells::Part;

use super::draft::Field;
use super::fault::NotUnderstood;
use super::map::{FieldMap, MAX_FIELDS, NoPlace};
use super::value::Manner;
use super::{Event, json};

/// How an origin of events writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The event itself, put together by a server.
    Json,
    /// nginx's `combined`, with the X-Forwarded-For of `main` or other fields
    /// behind it; also Apache's.
    Nginx,
    /// A JSON object of nginx's variables by their names, or of the event's.
    NginxJson,
    /// Caddy's access log.
    Caddy,
    /// Traefik's access log in JSON or in its common log format.
    Traefik,
    /// HAProxy's `option httplog`.
    Haproxy,
    /// Envoy's access log in JSON, with the names that Istio gives.
    EnvoyJson,
    /// The log of Ory Kratos in JSON.
    KratosJson,
    /// JSON with values elsewhere.
    Fields(Fields),
}

/// Names and formats that need no field map.
const NAMES: [(&str, Format); 8] = [
    ("json", Format::Json),
    ("nginx", Format::Nginx),
    ("nginx-json", Format::NginxJson),
    ("caddy", Format::Caddy),
    ("traefik", Format::Traefik),
    ("haproxy", Format::Haproxy),
    ("envoy-json", Format::EnvoyJson),
    ("kratos-json", Format::KratosJson),
];

/// Whether anybody asks for requests of a method and a target, as sent, where they are known.
pub type Asked<'a> = &'a dyn Fn(Option<&str>, Option<&str>) -> bool;

impl Format {
    /// Reads one line, without its end. `None` is a line of the format that tells
    /// of no request: an empty one, a server's notice, the first of two lines
    /// about one request.
    ///
    /// # Errors
    ///
    /// See [`NotUnderstood`]. A line that has been forged in part, or could be,
    /// is not understood.
    pub fn read(&self, line: &[u8]) -> Result<Option<Event>, NotUnderstood> {
        self.read_asked(line, &|_, _| true)
    }

    /// As [`read`](Self::read). Of a request that nobody asks for the event may lack method,
    /// path and headers, but not what tells its client.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn read_asked(
        &self,
        line: &[u8],
        is_asked: Asked<'_>,
    ) -> Result<Option<Event>, NotUnderstood> {
        json::checked(line)?;
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        match self {
            Self::Json => json::read_logged(line).map(Some),
            Self::Nginx => combined::read(line, is_asked).map(Some),
            Self::NginxJson => objects::nginx(line).map(Some),
            Self::Caddy => objects::caddy(line),
            Self::Traefik if line[0] == b'{' => objects::traefik(line).map(Some),
            Self::Traefik => clf::traefik(line).map(Some),
            Self::Haproxy => haproxy::read(line),
            Self::EnvoyJson => objects::envoy(line).map(Some),
            Self::KratosJson => objects::kratos(line),
            Self::Fields(fields) => fields.0.read(line, Manner::Logged)?.finish().map(Some),
        }
    }

    /// The names that a policy may use, besides a field map.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, format)| format.clone()).ok_or(UnknownFormat)
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.iter().find(|(_, format)| format == self);
        f.write_str(known.map_or("fields", |(name, _)| name))
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// No format of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such format; json, nginx, nginx-json, caddy, traefik, haproxy, envoy-json and \
     kratos-json are known, and a field map for others"
)]
pub struct UnknownFormat;

/// A field map: which JSON pointer (RFC 6901) is which field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(FieldMap);

/// Why a field map is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// A field that events do not have.
    #[error(
        "an event has no field `{0}`; at, id, source, peer, method, host, path, status, account, \
         backend, outcome, headers, response_headers, headers.NAME, response_headers.NAME and \
         request (the request's first line) are known"
    )]
    Field(String),
    /// Not a pointer.
    #[error("`{0}` is no JSON pointer: it begins with `/`, and `~` is `~0`, `/` in a key `~1`")]
    Pointer(String),
    /// Two fields in one place.
    #[error("`{0}` is another field too, or lies inside of one")]
    Taken(String),
    /// Too many.
    #[error("more than {MAX_FIELDS} fields and inner objects")]
    Full,
    /// Nothing says whose request it was.
    #[error("`fields` without `source`")]
    NoSource,
}

impl Fields {
    /// A field map of pairs of a field (as in an event; `headers.NAME` and
    /// `response_headers.NAME` are single headers, `request` is the first line of
    /// a request) and a pointer.
    ///
    /// # Errors
    ///
    /// See [`FieldsError`].
    pub fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldsError> {
        let mut map = FieldMap::default();
        let mut has_source = false;
        for (name, pointer) in pairs {
            let field = field(name).ok_or_else(|| FieldsError::Field(name.to_owned()))?;
            has_source |= field == Field::Source;
            let keys = keys(pointer).ok_or_else(|| FieldsError::Pointer(pointer.to_owned()))?;
            map.add(&keys, field, pointer).map_err(|no| match no {
                NoPlace::Full => FieldsError::Full,
                NoPlace::Taken => FieldsError::Taken(pointer.to_owned()),
            })?;
        }
        if has_source {
            Ok(Self(map))
        } else {
            Err(FieldsError::NoSource)
        }
    }
}

fn field(name: &str) -> Option<Field> {
    if name == "request" {
        return Some(Field::Request);
    }
    if let Some(header) = name
        .strip_prefix("headers.")
        .filter(|name| !name.is_empty())
    {
        return Some(Field::Header(header.into()));
    }
    let header = name.strip_prefix("response_headers.");
    if let Some(header) = header.filter(|name| !name.is_empty()) {
        return Some(Field::ResponseHeader(header.into()));
    }
    let known = json::KEYS.into_iter().find(|(key, _)| *key == name);
    known.map(|(_, field)| field)
}

/// The keys of a pointer from the outside in.
fn keys(pointer: &str) -> Option<Vec<Box<str>>> {
    let keys = pointer.strip_prefix('/')?.split('/');
    keys.map(|key| {
        let rest = key.replace("~0", "").replace("~1", "");
        let is_escaped = !rest.contains('~');
        is_escaped.then(|| key.replace("~1", "/").replace("~0", "~").into())
    })
    .collect()
}
