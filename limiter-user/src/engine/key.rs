//! Keys: the parts that a rule names, hashed with the engine's secret.
//!
//! All keys are hashed, short ones too: 128 bits of SipHash-1-3, so that a key takes
//! the same room whatever it is made of and nobody who does not know the secret can
//! find two that collide.

use std::net::IpAddr;

use ipnet::IpNet;
use siphasher::sip128::SipHasher13;

use super::account::{cookie, header, query};
use super::table::Key;
use super::view::View;
use crate::policy::{Absent, KeyPart};

/// The bits of an address that make a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of IPv4, 8 to 32.
    pub ipv4: u8,
    /// Of IPv6, 16 to 64.
    pub ipv6: u8,
}

impl Prefixes {
    /// The source that an address belongs to.
    #[must_use]
    pub fn source(self, address: IpAddr) -> IpNet {
        let bits = match address {
            IpAddr::V4(_) => self.ipv4.min(32),
            IpAddr::V6(_) => self.ipv6.min(128),
        };
        IpNet::new(address, bits).map_or(address.into(), |net| net.trunc())
    }
}

/// How a key is made of an event. Rules with the same shape share the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) parts: Vec<KeyPart>,
    pub(super) absent: Absent,
    pub(super) prefixes: Prefixes,
}

/// Hashes keys.
#[derive(Debug)]
pub(super) struct Hasher {
    sip: SipHasher13,
    text: Vec<u8>,
}

impl Hasher {
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        Self {
            sip: SipHasher13::new_with_key(secret),
            text: Vec::with_capacity(256),
        }
    }

    /// The key of an event; `None`: it lacks a part.
    pub(super) fn key(&mut self, shape: &Shape, view: &View<'_>) -> Option<Key> {
        self.text.clear();
        for part in &shape.parts {
            if !self.push(part, shape, view) {
                match shape.absent {
                    Absent::Skip => return None,
                    Absent::Share => self.text.push(b'-'),
                }
            }
        }
        Some(self.sip.hash(&self.text).as_u128())
    }

    /// The key of a source.
    pub(super) fn source(&mut self, prefixes: Prefixes, address: IpAddr) -> Key {
        self.text.clear();
        push_source(&mut self.text, prefixes, address);
        self.sip.hash(&self.text).as_u128()
    }

    /// The hash of a text, apart from keys.
    pub(super) fn text(&mut self, text: &[u8]) -> Key {
        self.text.clear();
        self.text.push(b'#');
        self.text.extend_from_slice(text);
        self.sip.hash(&self.text).as_u128()
    }

    /// The hash of the value of a part, as 64 bits.
    pub(super) fn value(&mut self, part: &KeyPart, shape: &Shape, view: &View<'_>) -> Option<u64> {
        self.text.clear();
        self.push(part, shape, view)
            .then(|| self.sip.hash(&self.text).as_u128() as u64)
    }

    /// The key of an account alone, which must be normalised.
    pub(super) fn account(&mut self, account: &str) -> Key {
        self.text.clear();
        push_text(&mut self.text, account);
        self.sip.hash(&self.text).as_u128()
    }

    fn push(&mut self, part: &KeyPart, shape: &Shape, view: &View<'_>) -> bool {
        let out = &mut self.text;
        let is_by_source = || {
            let mut parts = shape.parts.iter();
            parts.any(|part| matches!(part, KeyPart::Source | KeyPart::Peer))
        };
        let mut text = |value: Option<&str>| value.map(|value| push_text(out, value)).is_some();
        match part {
            KeyPart::Account => text(view.account.or(view.claimed.filter(|_| is_by_source()))),
            KeyPart::Method => text(view.method),
            KeyPart::Path => text(view.path),
            KeyPart::Host => text(view.host),
            KeyPart::Header(name) => text(header(&view.event.headers, name)),
            KeyPart::Cookie(name) => text(cookie(view.event, name)),
            KeyPart::Query(name) => {
                text(view.raw_path.and_then(|path| query(path, name)).as_deref())
            }
            KeyPart::Source => {
                push_source(out, shape.prefixes, view.source);
                true
            }
            KeyPart::Peer => match view.peer {
                Some(peer) => {
                    push_source(out, shape.prefixes, peer);
                    true
                }
                None => false,
            },
        }
    }
}

/// With its length first, so that no two lists of parts look alike.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn push_source(out: &mut Vec<u8>, prefixes: Prefixes, address: IpAddr) {
    match prefixes.source(address).addr() {
        IpAddr::V4(address) => {
            out.push(b'4');
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(b'6');
            out.extend_from_slice(&address.octets());
        }
    }
}
