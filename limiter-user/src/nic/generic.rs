//! Generic netlink: families by name, and messages of attributes.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NetlinkDeserializable, NetlinkHeader,
    NetlinkPayload, NetlinkSerializable, Nla, NlaBuffer, NlasIterator, Parseable as _, parse_u16,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::talk;

/// The family that knows the others.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Without the bits that say how a value is written.
const TYPE: u16 = 0x3fff;

/// Command, version and two bytes of nothing.
const HEADER_BYTES: usize = 4;

/// A message of some family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The family's number, which the kernel gave it at boot.
    pub(super) family: u16,
    /// What the family calls a command.
    pub(super) command: u8,
    /// Its attributes.
    pub(super) attributes: Vec<DefaultNla>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&[self.command, 1, 0, 0]);
        self.attributes.as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((start, attributes)) = payload.split_at_checked(HEADER_BYTES) else {
            return Err(DecodeError::from("a generic message without its header"));
        };
        let attributes = NlasIterator::new(attributes)
            .map(|attribute| attribute.and_then(|it| DefaultNla::parse(&it)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            family: header.message_type,
            command: start[0],
            attributes,
        })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

/// The number of a family; an error where this kernel has none of the name.
pub(super) fn family(name: &str) -> io::Result<u16> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let answer = ask(Message {
        family: CONTROLLER,
        command: GET_FAMILY,
        attributes: vec![DefaultNla::new(FAMILY_NAME, value)],
    })?;
    let id = attribute(&answer.attributes, FAMILY_ID).and_then(|value| parse_u16(&value).ok());
    id.ok_or_else(|| io::Error::other("a family without a number"))
}

/// Asks and takes the first message of the answer.
pub(super) fn ask(question: Message) -> io::Result<Message> {
    let mut answers = talk::ask(NETLINK_GENERIC, 0, question)?;
    match answers.is_empty() {
        true => Err(io::Error::other("an answer that is none")),
        false => Ok(answers.swap_remove(0)),
    }
}

/// The value of an attribute.
pub(super) fn attribute(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    attributes
        .iter()
        .find(|it| it.kind() & TYPE == kind)
        .map(value)
}

/// Attributes that hold others.
pub(super) fn nested(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; inner.buffer_len()];
    inner.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// The attributes inside of a value, as far as they can be read.
pub(super) fn inside(value: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(value)
        .map_while(Result::ok)
        .map(|it: NlaBuffer<&[u8]>| (it.kind() & TYPE, it.into_inner()))
        .map(|(kind, whole)| (kind, whole.get(4..value_end(whole)).unwrap_or_default()))
}

/// Where the value of an attribute ends, whose length stands at its beginning.
fn value_end(whole: &[u8]) -> usize {
    whole
        .first_chunk()
        .map_or(0, |bytes| u16::from_ne_bytes(*bytes).into())
}

fn value(attribute: &DefaultNla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}
