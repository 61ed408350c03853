//! Frames to send or to parse: Ethernet, VLAN tags, IPv4 with options, IPv6
//! with extension headers, fragments, and the usual transports, with right
//! lengths and checksums.
//!
//! It depends on etherparse alone, so that limiter-common's tests use this
//! file too.
#![expect(
    clippy::expect_used,
    reason = "a frame that cannot be built is a mistake in the test"
)]

use etherparse::{
    EtherType, Ethernet2Header, IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader, VlanId,
    VlanPcp, checksum::Sum16BitWords, ether_type,
};
use std::net::IpAddr;

/// A frame in parts; [`Frame::build`] makes bytes of it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The sender's hardware address.
    pub source_mac: [u8; 6],
    /// The receiver's hardware address.
    pub destination_mac: [u8; 6],
    /// VLAN tags, the outer one first.
    pub tags: Vec<Tag>,
    /// The source address, of `destination`'s family.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// IPv4 options; cut to a multiple of four, 40 at most.
    pub options: Vec<u8>,
    /// IPv6 extension headers in their order. Of these an IPv4 packet takes
    /// only the first [`Extension::Fragment`].
    pub extensions: Vec<Extension>,
    /// What is behind the IP header.
    pub upper: Upper,
    /// What is behind the transport header.
    pub payload: Vec<u8>,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// 802.1Q with this VLAN.
    Customer(u16),
    /// 802.1ad with this VLAN.
    Service(u16),
}

/// An IPv6 extension header. Lengths are beyond the shortest possible, in the
/// unit of the header's own length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options.
    HopByHop(u8),
    /// A routing header.
    Routing(u8),
    /// Destination options.
    DestinationOptions(u8),
    /// A mobility header.
    Mobility(u8),
    /// An authentication header, with this many words of check value.
    Authentication(u8),
    /// A fragment: its offset in eighths, and whether more follow.
    Fragment(u16, bool),
}

/// A transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// TCP.
    Tcp {
        /// The source port.
        from: u16,
        /// The destination port.
        to: u16,
        /// [`FIN`], [`SYN`], [`RST`], [`ACK`].
        flags: u8,
    },
    /// UDP.
    Udp {
        /// The source port.
        from: u16,
        /// The destination port.
        to: u16,
    },
    /// ICMP or ICMPv6, whichever the addresses ask for: type and code.
    Icmp(u8, u8),
    /// No header, only the payload, as this protocol's. Later fragments are
    /// made of it.
    Bare(u8),
}

/// TCP flag.
pub const FIN: u8 = 1;
/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;
/// TCP flag.
pub const ACK: u8 = 16;

const MOBILITY: IpNumber = IpNumber(135);

impl Frame {
    /// A frame without tags, options and payload.
    ///
    /// # Panics
    /// If the addresses are of two families.
    pub fn new(source: IpAddr, destination: IpAddr, upper: Upper) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one family");
        Self {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            tags: Vec::new(),
            source,
            destination,
            hop_limit: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            upper,
            payload: Vec::new(),
        }
    }

    /// The same with other hardware addresses.
    #[must_use]
    pub fn macs(self, source: [u8; 6], destination: [u8; 6]) -> Self {
        Self {
            source_mac: source,
            destination_mac: destination,
            ..self
        }
    }

    /// The same with one more VLAN tag inside those it has.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// The same with one more extension header behind those it has.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The same with this payload.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// The same with a payload of zeros that makes the frame `bytes` long, if
    /// it is shorter.
    #[must_use]
    pub fn padded(mut self, bytes: usize) -> Self {
        let missing = bytes.saturating_sub(self.build().len());
        self.payload.resize(self.payload.len() + missing, 0);
        self
    }

    /// The bytes.
    ///
    /// # Panics
    /// If it does not fit into an IP packet.
    pub fn build(&self) -> Vec<u8> {
        let (ether_type, packet) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (
                ether_type::IPV4,
                self.ipv4(source.octets(), destination.octets()),
            ),
            (IpAddr::V6(source), IpAddr::V6(destination)) => (
                ether_type::IPV6,
                self.ipv6(source.octets(), destination.octets()),
            ),
            _ => unreachable!("one family"),
        };
        let mut frame = self.link(ether_type);
        frame.extend(packet);
        frame
    }

    /// Ethernet header and tags.
    fn link(&self, inner: EtherType) -> Vec<u8> {
        let mut ether_type = inner;
        let mut tags = Vec::new();
        for tag in self.tags.iter().rev() {
            let (kind, id) = match tag {
                Tag::Customer(id) => (ether_type::VLAN_TAGGED_FRAME, id),
                Tag::Service(id) => (ether_type::PROVIDER_BRIDGING, id),
            };
            let header = SingleVlanHeader {
                pcp: VlanPcp::ZERO,
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(id & 0xfff).expect("12 bits"),
                ether_type,
            };
            tags.splice(0..0, header.to_bytes());
            ether_type = kind;
        }
        let header = Ethernet2Header {
            source: self.source_mac,
            destination: self.destination_mac,
            ether_type,
        };
        [header.to_bytes().as_slice(), &tags].concat()
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let (protocol, segment) = self.segment(
            Sum16BitWords::new()
                .add_4bytes(source)
                .add_4bytes(destination),
        );
        let length = u16::try_from(segment.len()).expect("at most 64 KiB");
        let mut header = Ipv4Header::new(length, self.hop_limit, protocol, source, destination)
            .expect("at most 64 KiB");
        let options = self.options.len().min(40) / 4 * 4;
        header.options = Ipv4Options::try_from(&self.options[..options]).expect("whole words");
        for extension in &self.extensions {
            if let Extension::Fragment(offset, more) = *extension {
                header.fragment_offset = fragment_offset(offset);
                header.more_fragments = more;
                header.dont_fragment = false;
                break;
            }
        }
        header
            .set_payload_len(segment.len())
            .expect("at most 64 KiB");
        header.header_checksum = header.calc_header_checksum();
        [header.to_bytes().as_slice(), &segment].concat()
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let (mut next, mut rest) = self.segment(
            Sum16BitWords::new()
                .add_16bytes(source)
                .add_16bytes(destination),
        );
        for extension in self.extensions.iter().rev() {
            let (number, header) = extension.header(next);
            rest = [header, rest].concat();
            next = number;
        }
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: u16::try_from(rest.len()).expect("at most 64 KiB"),
            next_header: next,
            hop_limit: self.hop_limit,
            source,
            destination,
        };
        [header.to_bytes().as_slice(), &rest].concat()
    }

    /// The transport header with its payload, and its protocol. `addresses`
    /// is the pseudo header's sum so far.
    fn segment(&self, addresses: Sum16BitWords) -> (IpNumber, Vec<u8>) {
        let is_ipv4 = self.source.is_ipv4();
        let (protocol, header, checksum_at) = match self.upper {
            Upper::Tcp { from, to, flags } => (IpNumber::TCP, tcp(from, to, flags), Some(16)),
            Upper::Udp { from, to } => (IpNumber::UDP, self.udp(from, to), Some(6)),
            Upper::Icmp(kind, code) => {
                let protocol = if is_ipv4 {
                    IpNumber::ICMP
                } else {
                    IpNumber::IPV6_ICMP
                };
                (protocol, vec![kind, code, 0, 0, 0, 0, 0, 0], Some(2))
            }
            Upper::Bare(protocol) => (IpNumber(protocol), Vec::new(), None),
        };
        let mut segment = [header, self.payload.clone()].concat();
        if let Some(at) = checksum_at {
            let length = u32::try_from(segment.len()).expect("at most 64 KiB");
            let pseudo = if protocol == IpNumber::ICMP {
                Sum16BitWords::new()
            } else {
                addresses
                    .add_2bytes([0, protocol.0])
                    .add_4bytes(length.to_be_bytes())
            };
            let sum = pseudo.add_slice(&segment).to_ones_complement_with_no_zero();
            // etherparse sums words as they lie in memory.
            segment[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        (protocol, segment)
    }

    fn udp(&self, from: u16, to: u16) -> Vec<u8> {
        let header = UdpHeader {
            source_port: from,
            destination_port: to,
            length: u16::try_from(8 + self.payload.len()).expect("at most 64 KiB"),
            checksum: 0,
        };
        header.to_bytes().to_vec()
    }
}

impl Extension {
    /// Its number and bytes, with `next` behind it.
    fn header(self, next: IpNumber) -> (IpNumber, Vec<u8>) {
        match self {
            Self::HopByHop(more) => (IpNumber::IPV6_HEADER_HOP_BY_HOP, options(next, more)),
            Self::DestinationOptions(more) => {
                (IpNumber::IPV6_DESTINATION_OPTIONS, options(next, more))
            }
            Self::Routing(more) => (IpNumber::IPV6_ROUTE_HEADER, options(next, more)),
            Self::Mobility(more) => (MOBILITY, options(next, more)),
            Self::Authentication(words) => {
                let check_value = vec![0; usize::from(words) * 4];
                let header = IpAuthHeader::new(next, 1, 1, &check_value).expect("a short value");
                (IpNumber::AUTHENTICATION_HEADER, header.to_bytes().to_vec())
            }
            Self::Fragment(offset, more) => {
                let header = Ipv6FragmentHeader::new(next, fragment_offset(offset), more, 7);
                (
                    IpNumber::IPV6_FRAGMENTATION_HEADER,
                    header.to_bytes().to_vec(),
                )
            }
        }
    }
}

/// A header of `8 + 8 * more` bytes that is filled with one `PadN` option. (As
/// a routing header it is one of an unknown type with no segments left.)
fn options(next: IpNumber, more: u8) -> Vec<u8> {
    let mut header = vec![0; 8 + 8 * usize::from(more)];
    header[0] = next.0;
    header[1] = more;
    let mut at = 2;
    while at < header.len() {
        let length = (header.len() - at).min(257);
        // PadN; where a single byte is left, a zero is Pad1.
        if length > 1 {
            header[at] = 1;
            header[at + 1] = u8::try_from(length - 2).expect("at most 255");
        }
        at += length;
    }
    header
}

fn fragment_offset(eighths: u16) -> IpFragOffset {
    IpFragOffset::try_new(eighths & 0x1fff).expect("13 bits")
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut header = TcpHeader::new(from, to, 1, 65_535);
    header.fin = flags & FIN != 0;
    header.syn = flags & SYN != 0;
    header.rst = flags & RST != 0;
    header.ack = flags & ACK != 0;
    header.to_bytes().to_vec()
}
