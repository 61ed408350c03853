//! What the kernel says of an interface.

use super::{
    error::Error,
    model::{AttachedMode, Attachment},
};
use crate::nic::link;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{ffi::CString, io};

/// The index of the interface of this name.
pub(super) fn index_of(interface: &str) -> Result<u32, Error> {
    let none = || Error::NoInterface {
        interface: interface.to_owned(),
    };
    let name = CString::new(interface).map_err(|_| none())?;
    // SAFETY: a string that ends in zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(none()),
        index => Ok(index),
    }
}

/// The XDP program on an interface, whoever put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct XdpProgram {
    pub(super) id: u32,
    /// Where it sits.
    pub(super) attachment: Attachment,
}

/// What sits on the interface of this index.
pub(super) fn xdp_program(index: u32) -> Result<Option<XdpProgram>, Error> {
    let link = ask(index).map_err(Error::system("asking the kernel about an interface"))?;
    let mut interface = String::new();
    let mut attributes = Vec::new();
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Xdp(xdp) => attributes = xdp,
            LinkAttribute::IfName(name) => interface = name,
            _ => {}
        }
    }
    let id = link::program(&attributes);
    let is_generic = attributes.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer));
    Ok(id.map(|id| XdpProgram {
        id,
        attachment: Attachment {
            interface,
            index,
            mode: if is_generic {
                AttachedMode::Generic
            } else {
                AttachedMode::Native
            },
            fallback: None,
        },
    }))
}

/// The largest packet that an interface carries, without its link header.
pub(super) fn mtu(interface: &str) -> Result<u32, Error> {
    let index = index_of(interface)?;
    let link = ask(index).map_err(Error::system("asking the kernel about an interface"))?;
    let mtu = link.attributes.into_iter().find_map(|it| match it {
        LinkAttribute::Mtu(mtu) => Some(mtu),
        _ => None,
    });
    mtu.ok_or_else(|| Error::System {
        what: format!("asking for the MTU of `{interface}`"),
        source: io::Error::other("the kernel does not say"),
    })
}

fn ask(index: u32) -> io::Result<LinkMessage> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = LinkMessage::default();
    request.header.index = index;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(request)),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::other(error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("an answer that is none")),
    }
}
