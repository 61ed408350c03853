//! Answers of the kernel, for tests.
//!
//! *Recorded* are those in `recorded/`, from one virtual machine with Linux 6.18:
//! its virtio_net interface, a pair of veths, and its interrupts. All others are
//! *composed* of the attributes that the kernel's headers document (if_link.h,
//! ethtool_netlink.h, netdev.h): there was no such hardware, and no kernel with
//! bonds and VLANs, to record. They go through the same bytes and the same
//! parsers.

use netlink_packet_core::{
    DefaultNla, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BondMode, BondXmitHashPolicy, InfoBond, InfoData, InfoKind, InfoPortKind, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};

use super::ethtool::Channels;
use super::generic::{self, Message};
use super::{Link, Nic, ethtool, link as rtnetlink, netdev, talk};

/// A section of a file in `recorded/`: lines of hexadecimal digits under a
/// heading `[NAME]`.
pub(super) fn recorded(file: &str, section: &str) -> Vec<u8> {
    let heading = format!("[{section}]");
    let digits = file.lines().skip_while(|line| *line != heading).skip(1);
    let digits = digits.take_while(|line| !line.starts_with('['));
    let digits: Vec<u8> = digits.flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).unwrap();
        u8::from_str_radix(pair, 16).unwrap()
    };
    digits.chunks(2).map(byte).collect()
}

pub(super) const VIRTIO: &str = include_str!("recorded/virtio_net.txt");
pub(super) const VETH: &str = include_str!("recorded/veth.txt");
pub(super) const INTERRUPTS: &str = include_str!("recorded/interrupts.txt");

/// The messages of a datagram.
pub(super) fn routes(bytes: &[u8]) -> Vec<RouteNetlinkMessage> {
    let mut messages = Vec::new();
    talk::messages(bytes, &mut messages).unwrap();
    messages
}

/// The one message of a datagram.
pub(super) fn generic(bytes: &[u8]) -> Message {
    let mut messages = Vec::new();
    talk::messages(bytes, &mut messages).unwrap();
    messages.remove(0)
}

fn bytes<M: NetlinkSerializable>(message: M) -> Vec<u8>
where
    NetlinkPayload<M>: From<M>,
{
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A link, up and with an Ethernet header, with these attributes more.
pub(crate) fn link(index: u32, name: &str, more: Vec<LinkAttribute>) -> Link {
    of_layer(LinkLayerType::Ether, index, name, more)
}

/// The same with another header.
pub(crate) fn of_layer(
    layer: LinkLayerType,
    index: u32,
    name: &str,
    more: Vec<LinkAttribute>,
) -> Link {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.link_layer_type = layer;
    message.header.flags = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::OperState(State::Up),
        LinkAttribute::Mtu(1_500),
        LinkAttribute::NumRxQueues(8),
        LinkAttribute::NumTxQueues(8),
    ];
    message.attributes.extend(more);
    let bytes = bytes(RouteNetlinkMessage::NewLink(message));
    rtnetlink::links(routes(&bytes)).remove(0)
}

/// The attribute that tells the kind, with what belongs to it.
pub(crate) fn kind(kind: InfoKind, data: Option<InfoData>) -> LinkAttribute {
    let data = data.map(LinkInfo::Data);
    LinkAttribute::LinkInfo(std::iter::once(LinkInfo::Kind(kind)).chain(data).collect())
}

/// `bond0`.
pub(crate) fn bond(index: u32, mode: BondMode, policy: BondXmitHashPolicy) -> Link {
    let data = vec![InfoBond::Mode(mode), InfoBond::XmitHashPolicy(policy)];
    let info = kind(InfoKind::Bond, Some(InfoData::Bond(data)));
    link(index, "bond0", vec![info])
}

/// A port of what has index `master`.
pub(crate) fn port(index: u32, name: &str, master: u32, of: InfoPortKind) -> Link {
    let info = LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(of)]);
    link(index, name, vec![LinkAttribute::Controller(master), info])
}

/// What stands on another.
pub(crate) fn stacked(index: u32, name: &str, below: u32, of: InfoKind) -> Link {
    link(
        index,
        name,
        vec![LinkAttribute::Link(below), kind(of, None)],
    )
}

/// A piece of hardware: its driver, XDP features, queues (in use and at most),
/// and the features that are on.
pub(crate) fn hardware(
    driver: &str,
    xdp_features: Option<u64>,
    queues: (u32, u32),
    on: &[&str],
) -> Nic {
    let features = ethtool::read_features(&features(on));
    Nic {
        link: link(2, "eth0", Vec::new()),
        driver: Some(driver.to_owned()),
        xdp_features: xdp_features.and_then(|word| netdev::read_xdp_features(&xdp(word))),
        channels: Some(combined(queues)),
        lro: features.switch("rx-lro"),
        gro_hw: features.switch("rx-gro-hw"),
        virtio: None,
    }
}

fn send(command: u8, attributes: Vec<DefaultNla>) -> Message {
    generic(&bytes(Message {
        family: 0x1c,
        command,
        attributes,
    }))
}

fn xdp(word: u64) -> Message {
    let index = DefaultNla::new(1, 2_u32.to_ne_bytes().to_vec());
    let word = DefaultNla::new(3, word.to_ne_bytes().to_vec());
    send(1, vec![index, word])
}

fn combined((now, most): (u32, u32)) -> Channels {
    let attribute = |kind, value: u32| DefaultNla::new(kind, value.to_ne_bytes().to_vec());
    ethtool::read_channels(&send(18, vec![attribute(5, most), attribute(9, now)]))
}

/// All of these are on, and they and LRO and GRO_HW can be changed.
fn features(on: &[&str]) -> Message {
    let bit = |name: &str, is_set: bool| {
        let mut parts = vec![DefaultNla::new(2, [name.as_bytes(), &[0]].concat())];
        if is_set {
            parts.push(DefaultNla::new(3, Vec::new()));
        }
        generic::nested(1, &parts)
    };
    let all = ["rx-lro", "rx-gro-hw", "tx-checksum-ipv4"];
    let changeable: Vec<DefaultNla> = all.iter().map(|name| bit(name, true)).collect();
    let active: Vec<DefaultNla> = on.iter().map(|name| bit(name, false)).collect();
    let never = [bit("rx-lro", false), bit("rx-gro-hw", false)];
    let no_mask = DefaultNla::new(1, Vec::new());
    send(
        11,
        vec![
            generic::nested(2, &[generic::nested(3, &changeable)]),
            generic::nested(4, &[no_mask, generic::nested(3, &active)]),
            generic::nested(5, &[generic::nested(3, &never)]),
        ],
    )
}
