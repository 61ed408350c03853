//! What every interface has: rtnetlink.

use std::io;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        BondMode, BondXmitHashPolicy, InfoBond, InfoData, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkInfo, LinkLayerType, LinkMessage, LinkXdp, State,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::talk;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index, from 1 on.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is, as `ip link add type` calls it (`bond`, `vlan`); none for
    /// hardware.
    pub kind: Option<String>,
    /// Whether its frames begin with an Ethernet header.
    pub has_ethernet: bool,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// Whether it was set up.
    pub is_up: bool,
    /// Whether it has a carrier.
    pub has_carrier: bool,
    /// The largest packet, without its link header.
    pub mtu: u32,
    /// What it is a port of.
    pub master: Option<u32>,
    /// As which kind of port (`bond`, `bridge`, `team`, `vrf`).
    pub port_of: Option<String>,
    /// What it stands on, where that is in this network namespace; of a veth,
    /// its peer.
    pub below: Option<u32>,
    /// Queues made for receiving.
    pub receive_queues: u32,
    /// Queues made for transmitting.
    pub transmit_queues: u32,
    /// How a bond spreads packets.
    pub bond: Option<Bond>,
    /// The XDP program on it.
    pub program: Option<u32>,
    /// What its hardware is called on its bus (`0000:01:00.0`, `virtio2`).
    pub parent: Option<Parent>,
}

/// The hardware of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// `pci`, `virtio`, …
    pub bus: String,
    /// Its name there.
    pub name: String,
}

/// How a bond spreads packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    /// In the words of the bonding driver.
    pub mode: &'static str,
    /// Whether it runs XDP programs natively.
    pub has_native: bool,
}

/// Every interface of this network namespace, by index.
pub(super) fn read() -> io::Result<Vec<Link>> {
    let mut question = LinkMessage::default();
    let mask = vec![LinkExtentMask::SkipStats];
    question.attributes.push(LinkAttribute::ExtMask(mask));
    let question = RouteNetlinkMessage::GetLink(question);
    let answers = talk::ask(NETLINK_ROUTE, NLM_F_DUMP, question)?;
    Ok(links(answers))
}

/// The interfaces in an answer.
pub(super) fn links(answers: Vec<RouteNetlinkMessage>) -> Vec<Link> {
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
        _ => None,
    });
    let mut links: Vec<Link> = links.collect();
    links.sort_by_key(|link| link.index);
    links
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let header = message.header;
        let mut link = Self {
            index: header.index,
            has_ethernet: matches!(
                header.link_layer_type,
                LinkLayerType::Ether | LinkLayerType::Loopback
            ),
            is_loopback: header.flags.contains(LinkFlags::Loopback),
            is_up: header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        let mut is_below_elsewhere = false;
        let mut bus = None;
        let mut device = None;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => {
                    link.below = Some(index).filter(|it| *it != 0 && *it != header.index);
                }
                LinkAttribute::LinkNetNsId(_) => is_below_elsewhere = true,
                LinkAttribute::NumRxQueues(queues) => link.receive_queues = queues,
                LinkAttribute::NumTxQueues(queues) => link.transmit_queues = queues,
                LinkAttribute::OperState(state) => {
                    link.has_carrier = matches!(state, State::Up | State::Unknown);
                }
                LinkAttribute::LinkInfo(info) => link.take(info),
                LinkAttribute::Xdp(xdp) => link.program = program(&xdp),
                LinkAttribute::ParentDevBusName(name) => bus = Some(name),
                LinkAttribute::ParentDevName(name) => device = Some(name),
                _ => {}
            }
        }
        if is_below_elsewhere {
            link.below = None;
        }
        link.parent = bus.zip(device).map(|(bus, name)| Parent { bus, name });
        link
    }
}

impl Link {
    fn take(&mut self, info: Vec<LinkInfo>) {
        for info in info {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::PortKind(kind) => self.port_of = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Bond(options)) => self.bond = Some(bond(&options)),
                _ => {}
            }
        }
    }
}

/// `bond_xdp_check` in drivers/net/bonding/bond_main.c.
fn bond(options: &[InfoBond]) -> Bond {
    let mut mode = BondMode::default();
    let mut policy = BondXmitHashPolicy::default();
    for option in options {
        match option {
            InfoBond::Mode(it) => mode = *it,
            InfoBond::XmitHashPolicy(it) => policy = *it,
            _ => {}
        }
    }
    let by_hash = policy != BondXmitHashPolicy::VlanSrcMac;
    let (mode, has_native) = match mode {
        BondMode::BalanceRr => ("balance-rr", true),
        BondMode::ActiveBackup => ("active-backup", true),
        BondMode::BalanceXor if by_hash => ("balance-xor", true),
        BondMode::BalanceXor => ("balance-xor with vlan+srcmac", false),
        BondMode::Ieee8023Ad if by_hash => ("802.3ad", true),
        BondMode::Ieee8023Ad => ("802.3ad with vlan+srcmac", false),
        BondMode::Broadcast => ("broadcast", false),
        BondMode::BalanceTlb => ("balance-tlb", false),
        BondMode::BalanceAlb => ("balance-alb", false),
        _ => ("of an unknown mode", false),
    };
    Bond { mode, has_native }
}

/// The id of the program, in whichever mode it is there.
pub(crate) fn program(xdp: &[LinkXdp]) -> Option<u32> {
    xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id)
            if *id != 0 =>
        {
            Some(*id)
        }
        _ => None,
    })
}
