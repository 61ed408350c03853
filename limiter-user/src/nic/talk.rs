//! One question to the kernel over netlink, and all of its answer.

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Asks, with `flags` beside those of every request; returns the messages of
/// the answer, which are several where it is a dump.
pub(super) fn ask<M>(protocol: isize, flags: u16, question: M) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    let mut answers = Vec::new();
    ask_each(protocol, flags, question, |answer| answers.push(answer))?;
    Ok(answers)
}

/// The same, where there may be more answers than are wanted at once.
pub(super) fn ask_each<M>(
    protocol: isize,
    flags: u16,
    question: M,
    mut hear: impl FnMut(M),
) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    let socket = Talk::new(protocol)?;
    socket.send(flags, None, question)?;
    let mut answers = Vec::new();
    loop {
        let is_last = messages(&socket.receive()?, &mut answers)?;
        answers.drain(..).for_each(&mut hear);
        if is_last {
            return Ok(());
        }
    }
}

/// A socket for questions that follow each other.
pub(super) struct Talk(Socket);

impl Talk {
    pub(super) fn new(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Has something done, of a type of messages that the payload does not tell, and waits
    /// until it is.
    pub(super) fn order<M>(&self, message_type: u16, order: M) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
        NetlinkPayload<M>: From<M>,
    {
        self.send(NLM_F_ACK, Some(message_type), order)?;
        let mut answers = Vec::<M>::new();
        while !messages(&self.receive()?, &mut answers)? {}
        Ok(())
    }

    fn send<M>(&self, flags: u16, message_type: Option<u16>, payload: M) -> io::Result<()>
    where
        M: NetlinkSerializable,
        NetlinkPayload<M>: From<M>,
    {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
        message.finalize();
        message.header.message_type = message_type.unwrap_or(message.header.message_type);
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop)
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        self.0.recv_from_full().map(|(datagram, _)| datagram)
    }
}

/// Adds the messages of a datagram; true if nothing comes after it. One of many
/// that cannot be read is left out.
pub(super) fn messages<M>(datagram: &[u8], into: &mut Vec<M>) -> io::Result<bool>
where
    M: NetlinkDeserializable,
{
    let unreadable = |error: DecodeError| io::Error::other(error.to_string());
    let mut rest = datagram;
    while !rest.is_empty() {
        let header = NetlinkBuffer::new_checked(rest).map_err(unreadable)?;
        let is_part = header.flags() & NLM_F_MULTIPART != 0;
        let length = (header.length() as usize).next_multiple_of(4);
        match NetlinkMessage::<M>::deserialize(rest).map(|it| it.payload) {
            Ok(NetlinkPayload::InnerMessage(inner)) => into.push(inner),
            Ok(NetlinkPayload::Error(error)) if error.code.is_some() => {
                return Err(error.to_io());
            }
            Ok(NetlinkPayload::Done(_) | NetlinkPayload::Error(_)) => return Ok(true),
            Ok(_) => {}
            Err(error) if is_part => {
                tracing::warn!(%error, "an answer of the kernel's cannot be read");
            }
            Err(error) => return Err(unreadable(error)),
        }
        if !is_part {
            return Ok(true);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(false)
}
