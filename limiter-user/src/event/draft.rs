//! An event while it is being read, field by field.

use std::net::{IpAddr, Ipv4Addr};

use super::fault::NotUnderstood;
use super::value::{
    Manner, Message, Scalar, address, at, last_of, message, outcome, request_line, status, text,
    without_port, without_scheme, word, wrong_type,
};
use super::{Body, Event};

/// Headers at most, of the request and of the response each.
pub(crate) const MAX_HEADERS: usize = 256;

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
    /// The whole body of the request.
    Body,
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
            Field::At => event.at_ns = Some(at(key, value, self.manner)?),
            Field::Status => event.status = status(key, value, self.manner)?,
            Field::Id => event.id = Some(word(key, value)?),
            Field::Source => {
                let text = text(key, value)?;
                self.source = Some(address(key, text, self.manner)?);
            }
            Field::Forwarded => self.source = last_of(text(key, value)?),
            Field::Peer => {
                let text = text(key, value)?;
                event.peer = Some(address(key, text, self.manner)?);
            }
            Field::Method => event.method = Some(text(key, value)?.into()),
            Field::Host => event.host = Some(without_port(text(key, value)?).into()),
            Field::Path => self.path(text(key, value)?),
            Field::Account => event.account = Some(word(key, value)?),
            Field::Backend => event.backend = Some(text(key, value)?.into()),
            Field::Outcome => event.outcome = Some(outcome(key, text(key, value)?)?),
            Field::Body => {
                event.body = Some(Body {
                    bytes: text(key, value)?.as_bytes().into(),
                    is_whole: true,
                });
            }
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
        if let Some((method, target)) = request_line(line) {
            self.event.method = Some(method.into());
            self.path(target);
        }
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
