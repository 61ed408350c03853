//! From a frame to what the verdict needs: source, destination, protocol,
//! ports and length.
//!
//! The source is taken before anything behind the IP header is looked at, so
//! that what cannot be parsed further is still counted under its source.

use crate::{
    address::{Address, Family},
    class::Selector,
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr, ip::Ipv6Hdr, tcp::TcpHdr, udp::UdpHdr};

/// Bytes of a frame. Reading outside of it is `None`, never a fault.
pub trait Frame {
    /// `N` bytes at `offset`.
    type Header<'a, const N: usize>: Header<N> + Copy
    where
        Self: 'a;

    /// The `N` bytes at `offset`, if the frame has them.
    fn header<const N: usize>(&mut self, offset: usize) -> Option<Self::Header<'_, N>>;

    /// True if the frame has `end` bytes.
    fn reaches(&self, end: usize) -> bool;

    /// The frame's length in bytes.
    fn length(&self) -> usize;
}

/// `N` bytes that are there. Offsets are checked when the program is compiled.
pub trait Header<const N: usize> {
    /// The byte at `AT`.
    fn byte<const AT: usize>(&self) -> u8;
    /// The 16 bits at `AT`, from network order.
    fn be16<const AT: usize>(&self) -> u16;
    /// The 32 bits at `AT`, from network order.
    fn be32<const AT: usize>(&self) -> u32;
}

/// VLAN tags that are followed.
pub const VLAN_TAGS: usize = 2;
/// IPv6 extension headers that are followed.
pub const EXTENSION_HEADERS: usize = 6;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// No IP in it.
    NotIp,
    /// Its IP header cannot be read.
    Unparsed,
    /// An IP packet.
    Ip(Packet),
}

/// What the verdict needs to know of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it claims to come from.
    pub source: Address,
    /// Where it goes to.
    pub destination: Address,
    /// What was found behind the IP header.
    pub transport: Transport,
    /// The frame's length without padding and checksum.
    pub bytes: u32,
}

/// What was found behind the IP header, in one word: the place of its
/// [`Selector`] in the class table, and flags.
///
/// One word, so that the verifier can be made to forget it at once
/// ([`crate::tables::Tables::opaque`]); else it would follow the rest of the
/// program again for every kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Transport(pub u32);

impl Transport {
    const CLASS: u32 = (1 << 20) - 1;
    const PARTIAL: u32 = 1 << 24;
    const CONNECTION: u32 = 1 << 25;
    const NEIGHBOUR: u32 = 1 << 26;
    const CONTROL: u32 = 1 << 27;

    #[inline(always)]
    const fn new(selector: Selector) -> Self {
        Self(selector.index())
    }

    /// Neither ports nor types are known.
    #[inline(always)]
    const fn partial(selector: Selector) -> Self {
        Self(selector.index() | Self::PARTIAL)
    }

    #[inline(always)]
    const fn with(self, flag: u32, set: bool) -> Self {
        if set { Self(self.0 | flag) } else { self }
    }

    /// The place in the class table.
    #[inline(always)]
    pub const fn class(self) -> u32 {
        self.0 & Self::CLASS
    }

    /// A later fragment, or ports that could not be read: neither the gate
    /// nor `connections` can be asked.
    #[inline(always)]
    pub const fn is_partial(self) -> bool {
        self.0 & Self::PARTIAL != 0
    }

    /// A TCP SYN without ACK.
    #[inline(always)]
    pub const fn is_connection(self) -> bool {
        self.0 & Self::CONNECTION != 0
    }

    /// Neighbour discovery.
    #[inline(always)]
    pub const fn is_neighbour(self) -> bool {
        self.0 & Self::NEIGHBOUR != 0
    }

    /// Traffic without which a host loses its network: neighbour discovery,
    /// DHCP, path-MTU errors.
    #[inline(always)]
    pub const fn is_control(self) -> bool {
        self.0 & (Self::NEIGHBOUR | Self::CONTROL) != 0
    }
}

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Reads a frame from its Ethernet header on.
#[inline(always)]
pub fn parse<F: Frame>(frame: &mut F) -> Parsed {
    let Some(ethernet) = frame.header::<{ EthHdr::LEN }>(0) else {
        return Parsed::Unparsed;
    };
    let mut ether_type = ethernet.be16::<12>();
    let mut offset = EthHdr::LEN;
    let mut tags = 0;
    while tags < VLAN_TAGS {
        if !is_vlan(ether_type) {
            break;
        }
        let Some(tag) = frame.header::<4>(offset) else {
            return Parsed::Unparsed;
        };
        ether_type = tag.be16::<2>();
        offset += 4;
        tags += 1;
    }
    let packet = match ether_type {
        IPV4 => ipv4(frame, offset),
        IPV6 => ipv6(frame, offset),
        _ if is_vlan(ether_type) => None,
        _ => return Parsed::NotIp,
    };
    match packet {
        Some(packet) => Parsed::Ip(packet),
        None => Parsed::Unparsed,
    }
}

#[inline(always)]
const fn is_vlan(ether_type: u16) -> bool {
    ether_type == VLAN || ether_type == SERVICE_VLAN
}

/// The part of a packet behind its IP header: where it starts and ends in the
/// frame, and what it claims to be.
struct Payload {
    offset: usize,
    end: usize,
    protocol: u8,
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &mut F, offset: usize) -> Option<Packet> {
    let header = frame.header::<{ Ipv4Hdr::LEN }>(offset)?;
    let version_length = header.byte::<0>();
    let total = header.be16::<2>() as usize;
    let fragment = header.be16::<6>();
    let protocol = header.byte::<9>();
    let source = Address::v4(header.be32::<12>());
    let destination = Address::v4(header.be32::<16>());

    let header_bytes = (version_length & 15) as usize * 4;
    if version_length >> 4 != 4 || header_bytes < Ipv4Hdr::LEN {
        return None;
    }
    let end = packet_end(frame, offset, total, header_bytes)?;
    let payload = Payload {
        offset: offset + header_bytes,
        end,
        protocol,
    };
    let transport = if fragment & 0x1fff != 0 {
        Transport::partial(Selector::Protocol(protocol))
    } else {
        let whole = fragment & 0x2000 == 0;
        transport(frame, payload, Family::Ipv4, 0, whole)
    };
    Some(packet(source, destination, transport, end))
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &mut F, offset: usize) -> Option<Packet> {
    let header = frame.header::<{ Ipv6Hdr::LEN }>(offset)?;
    let version = header.byte::<0>() >> 4;
    let length = header.be16::<4>() as usize;
    let protocol = header.byte::<6>();
    let hop_limit = header.byte::<7>();
    let source = Address::v6(be64::<8, _>(&header), be64::<16, _>(&header));
    let destination = Address::v6(be64::<24, _>(&header), be64::<32, _>(&header));

    if version != 6 {
        return None;
    }
    // A length of 0 with more than 64 KiB behind it is a packet that was put
    // together on receive.
    let total = if length == 0 {
        0
    } else {
        length + Ipv6Hdr::LEN
    };
    let end = if length == 0 && !frame.reaches(offset + 65_536) {
        offset + Ipv6Hdr::LEN
    } else {
        packet_end(frame, offset, total, Ipv6Hdr::LEN)?
    };
    let payload = Payload {
        offset: offset + Ipv6Hdr::LEN,
        end,
        protocol,
    };
    let transport = walk(frame, payload, hop_limit);
    Some(packet(source, destination, transport, end))
}

#[inline(always)]
fn be64<const AT: usize, H: Header<{ Ipv6Hdr::LEN }>>(header: &H) -> u64 {
    // Offsets must be literals to be checked, hence the match.
    let (hi, lo) = match AT {
        8 => (header.be32::<8>(), header.be32::<12>()),
        16 => (header.be32::<16>(), header.be32::<20>()),
        24 => (header.be32::<24>(), header.be32::<28>()),
        _ => (header.be32::<32>(), header.be32::<36>()),
    };
    (hi as u64) << 32 | lo as u64
}

/// Where a packet of `total` bytes ends; `None` if it is shorter than its
/// header or longer than the frame.
#[inline(always)]
fn packet_end<F: Frame>(
    frame: &F,
    offset: usize,
    total: usize,
    header_bytes: usize,
) -> Option<usize> {
    // Packets put together on receive may be longer than the field can say.
    let end = if total == 0 && frame.reaches(offset + 65_536) {
        frame.length()
    } else {
        if total < header_bytes {
            return None;
        }
        offset + total
    };
    if frame.reaches(end) { Some(end) } else { None }
}

#[inline(always)]
const fn packet(source: Address, destination: Address, transport: Transport, end: usize) -> Packet {
    Packet {
        source,
        destination,
        transport,
        bytes: end as u32,
    }
}

/// Follows IPv6 extension headers to the transport header.
#[inline(always)]
fn walk<F: Frame>(frame: &mut F, mut payload: Payload, hop_limit: u8) -> Transport {
    let mut whole = true;
    let mut headers = 0;
    while headers < EXTENSION_HEADERS {
        if !is_extension(payload.protocol) {
            break;
        }
        if payload.offset + 8 > payload.end {
            return Transport::partial(Selector::Unknown);
        }
        let Some(header) = frame.header::<8>(payload.offset) else {
            return Transport::partial(Selector::Unknown);
        };
        let next = header.byte::<0>();
        let units = header.byte::<1>() as usize;
        let offset_flags = header.be16::<2>();
        let length = match payload.protocol {
            FRAGMENT => {
                if offset_flags >> 3 != 0 {
                    return later_fragment(next);
                }
                // Another, atomic one behind it does not mend a fragment.
                whole &= offset_flags & 1 == 0;
                8
            }
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        payload.offset += length;
        payload.protocol = next;
        headers += 1;
    }
    if is_extension(payload.protocol) {
        return Transport::partial(Selector::Unknown);
    }
    transport(frame, payload, Family::Ipv6, hop_limit, whole)
}

#[inline(always)]
const fn later_fragment(next: u8) -> Transport {
    // Which transport follows further extension headers only the first
    // fragment tells.
    if is_extension(next) {
        Transport::partial(Selector::Unknown)
    } else {
        Transport::partial(Selector::Protocol(next))
    }
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY
    )
}

/// Reads the transport header. `whole`: the packet is no fragment.
#[inline(always)]
fn transport<F: Frame>(
    frame: &mut F,
    payload: Payload,
    family: Family,
    hop_limit: u8,
    whole: bool,
) -> Transport {
    let Payload {
        offset,
        end,
        protocol,
    } = payload;
    let portless = Transport::partial(Selector::Protocol(protocol));
    match protocol {
        TCP => {
            if offset + TcpHdr::LEN > end {
                return portless;
            }
            let Some(header) = frame.header::<{ TcpHdr::LEN }>(offset) else {
                return portless;
            };
            const SYN: u8 = 2;
            const ACK: u8 = 16;
            Transport::new(Selector::Tcp(header.be16::<2>())).with(
                Transport::CONNECTION,
                header.byte::<13>() & (SYN | ACK) == SYN,
            )
        }
        UDP => {
            if offset + UdpHdr::LEN > end {
                return portless;
            }
            let Some(header) = frame.header::<{ UdpHdr::LEN }>(offset) else {
                return portless;
            };
            let (from, to) = (header.be16::<0>(), header.be16::<2>());
            Transport::new(Selector::Udp(to)).with(
                Transport::CONTROL,
                whole && is_dhcp(family, from) && is_dhcp(family, to),
            )
        }
        _ => {
            let transport = Transport::new(Selector::Protocol(protocol));
            if whole && is_icmp(family, protocol) && offset + 4 <= end {
                let flag = icmp_control(frame, offset, family, hop_limit);
                transport.with(flag, true)
            } else {
                transport
            }
        }
    }
}

#[inline(always)]
const fn is_icmp(family: Family, protocol: u8) -> bool {
    match family {
        Family::Ipv4 => protocol == ICMP,
        Family::Ipv6 => protocol == ICMPV6,
    }
}

#[inline(always)]
const fn is_dhcp(family: Family, port: u16) -> bool {
    match family {
        Family::Ipv4 => port == 67 || port == 68,
        Family::Ipv6 => port == 546 || port == 547,
    }
}

/// The flag of control traffic, if it is any.
///
/// Neighbour discovery never crosses a router: RFC 4861 has receivers insist
/// on hop limit 255 and code 0, and so does the exemption.
#[inline(always)]
fn icmp_control<F: Frame>(frame: &mut F, offset: usize, family: Family, hop_limit: u8) -> u32 {
    let Some(header) = frame.header::<4>(offset) else {
        return 0;
    };
    let (kind, code) = (header.byte::<0>(), header.byte::<1>());
    match (family, kind, code) {
        (Family::Ipv4, 3, 4) | (Family::Ipv6, 2, 0) => Transport::CONTROL,
        (Family::Ipv6, 133..=137, 0) if hop_limit == 255 => Transport::NEIGHBOUR,
        _ => 0,
    }
}

/// A frame in a slice: captures, tests.
#[cfg(not(target_arch = "bpf"))]
#[derive(Debug)]
pub struct Slice<'a>(pub &'a [u8]);

#[cfg(not(target_arch = "bpf"))]
impl Frame for Slice<'_> {
    type Header<'a, const N: usize>
        = [u8; N]
    where
        Self: 'a;

    fn header<const N: usize>(&mut self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn reaches(&self, end: usize) -> bool {
        self.0.len() >= end
    }

    fn length(&self) -> usize {
        self.0.len()
    }
}

impl<const N: usize> Header<N> for [u8; N] {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N) };
        self[AT]
    }

    #[inline(always)]
    fn be16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N) };
        u16::from_be_bytes([self[AT], self[AT + 1]])
    }

    #[inline(always)]
    fn be32<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N) };
        u32::from_be_bytes([self[AT], self[AT + 1], self[AT + 2], self[AT + 3]])
    }
}
