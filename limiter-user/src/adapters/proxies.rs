//! Who the client is, where a trusted proxy stands before it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::event::{Event, address_in};
use crate::policy::Decide;

/// Addresses of a header that are looked at, from the right.
const MOST_PARTS: usize = 64;

/// Bytes of a header that are looked at, from the right.
const MOST_BYTES: usize = 8 << 10;

/// Proxies whose header is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    header: Box<str>,
    /// Whether the header is written as RFC 7239 has it.
    is_forwarded: bool,
}

impl Proxies {
    /// Those of a policy.
    #[must_use]
    pub fn of(decide: &Decide) -> Self {
        Self::new(decide.trusted_proxies.clone(), &decide.client_header)
    }

    /// Networks of proxies, and the header in which they name their client.
    #[must_use]
    pub fn new(trusted: Vec<IpNet>, header: &str) -> Self {
        Self {
            trusted,
            header: header.into(),
            is_forwarded: header.eq_ignore_ascii_case("forwarded"),
        }
    }

    /// Makes the client that a trusted proxy names the source of an event. Its peer
    /// stays what it was.
    pub fn settle(&self, event: &mut Event) {
        event.source = self.client(event);
    }

    /// The client: the source of the event, or, where that is a trusted proxy, the
    /// right-most address of its header that is none. Where all are, the left-most.
    /// What is no address ends the search: nobody that is trusted has written what
    /// stands to the left of it.
    #[must_use]
    pub fn client(&self, event: &Event) -> IpAddr {
        let mut client = event.source;
        if !self.trusts(client) {
            return client;
        }
        let named = |(name, _): &&(Box<str>, Box<str>)| name.eq_ignore_ascii_case(&self.header);
        let values = event.headers.iter().filter(named).rev();
        let parts = values.flat_map(|(_, value)| self.parts(value));
        for part in parts.take(MOST_PARTS) {
            let named = if self.is_forwarded {
                forwarded_for(part)
            } else {
                std::str::from_utf8(part).ok().and_then(address_in)
            };
            let Some(address) = named else {
                break;
            };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    fn parts<'a>(&self, value: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = value.as_bytes();
        let rest = &bytes[bytes.len().saturating_sub(MOST_BYTES)..];
        FromRight {
            rest: Some(rest),
            is_cut: rest.len() < bytes.len(),
            separator: b',',
            quotes: self.is_forwarded,
        }
        .filter(|part| !part.is_empty())
    }
}

/// The parts of a list from its end, trimmed. From there, because what a client has
/// sent stands at the beginning, and nothing in it may change how the rest is read.
#[derive(Debug)]
struct FromRight<'a> {
    rest: Option<&'a [u8]>,
    /// Whether the first part may be the end of one.
    is_cut: bool,
    separator: u8,
    /// Whether a separator in quotes is none.
    quotes: bool,
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut is_quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            if *byte == b'"' && self.quotes && !is_escaped(&rest[..at]) {
                is_quoted = !is_quoted;
            } else if *byte == self.separator && !is_quoted {
                self.rest = Some(&rest[..at]);
                return Some(rest[at + 1..].trim_ascii());
            }
        }
        (!self.is_cut).then(|| rest.trim_ascii())
    }
}

/// Whether what follows has a backslash before it that is not one itself.
fn is_escaped(before: &[u8]) -> bool {
    before
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count()
        % 2
        == 1
}

/// The address behind the one `for` of an element of `Forwarded` (RFC 7239, 4 and
/// 6). `unknown` and names of the proxy's own are none.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let pairs = FromRight {
        rest: Some(element),
        is_cut: false,
        separator: b';',
        quotes: true,
    };
    let mut found = pairs.filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        pair[..at]
            .eq_ignore_ascii_case(b"for")
            .then(|| &pair[at + 1..])
    });
    let (Some(node), None) = (found.next(), found.next()) else {
        return None;
    };
    let quoted = node
        .strip_prefix(b"\"")
        .and_then(|it| it.strip_suffix(b"\""));
    std::str::from_utf8(quoted.unwrap_or(node))
        .ok()
        .and_then(address_in)
}
