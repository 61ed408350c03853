//! The parser against etherparse, on frames that were built and then damaged.
//!
//! [`reference`] is a second parser, put together from etherparse's header
//! slices. Where limiter's must differ from what etherparse makes of a whole
//! frame, it says so and why.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "shared with limiter-tests, which uses the rest"
)]
#[path = "../../tests/src/frames.rs"]
mod frames;

use etherparse::{
    IpNumber, Ipv6FragmentHeaderSlice, Ipv6RawExtHeaderSlice, LaxLinkExtSlice, LaxNetSlice,
    LaxSlicedPacket, TcpHeaderSlice, TransportSlice, UdpHeaderSlice, ether_type,
};
use frames::{ACK, Extension, FIN, Frame, RST, SYN, Tag, Upper};
use limiter_common::{
    address::Address,
    class::Selector,
    packet::{EXTENSION_HEADERS, Packet, Parsed, Slice, Transport, VLAN_TAGS, parse},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a test compares: [`Packet`] with its flags spelt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    source: Address,
    destination: Address,
    bytes: u32,
    upper: Known,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    class: u32,
    partial: bool,
    connection: bool,
    neighbour: bool,
    control: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    NotIp,
    Unparsed,
    Ip(Seen),
}

impl Known {
    fn whole(selector: Selector) -> Self {
        Self {
            class: selector.index(),
            ..Self::default()
        }
    }

    fn partial(selector: Selector) -> Self {
        Self {
            partial: true,
            ..Self::whole(selector)
        }
    }
}

fn ours(frame: &[u8]) -> Read {
    match parse(&mut Slice(frame)) {
        Parsed::NotIp => Read::NotIp,
        Parsed::Unparsed => Read::Unparsed,
        Parsed::Ip(packet) => Read::Ip(seen(packet)),
    }
}

fn seen(packet: Packet) -> Seen {
    let Packet {
        source,
        destination,
        transport,
        bytes,
    } = packet;
    Seen {
        source,
        destination,
        bytes,
        upper: known(transport),
    }
}

fn known(transport: Transport) -> Known {
    Known {
        class: transport.class(),
        partial: transport.is_partial(),
        connection: transport.is_connection(),
        neighbour: transport.is_neighbour(),
        control: transport.is_control(),
    }
}

/// What limiter must make of a frame.
fn reference(frame: &[u8]) -> Read {
    // etherparse reads no Ethernet header from less than 14 bytes either.
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
        return Read::Unparsed;
    };
    let link = match follow_link(&packet, frame) {
        Ok(link) => link,
        Err(read) => return read,
    };
    let seen = match (&packet.net, link.is_ipv4) {
        (Some(LaxNetSlice::Ipv4(ip)), true) => reference_ipv4(ip, link.offset),
        (Some(LaxNetSlice::Ipv6(ip)), false) => reference_ipv6(ip, link.offset),
        // etherparse goes by the version nibble, whatever the EtherType
        // says; a host does not.
        _ => None,
    };
    seen.map_or(Read::Unparsed, Read::Ip)
}

struct Link {
    offset: usize,
    is_ipv4: bool,
}

/// Follows the tags. etherparse follows three of them and MACsec and knows
/// the EtherType 0x9100, which Linux does not take for a tag.
fn follow_link(packet: &LaxSlicedPacket<'_>, frame: &[u8]) -> Result<Link, Read> {
    let mut kind = u16::from_be_bytes([frame[12], frame[13]]);
    let mut offset = 14;
    let mut tags = packet.link_exts.iter();
    let is_tag = |kind: u16| {
        kind == ether_type::VLAN_TAGGED_FRAME.0 || kind == ether_type::PROVIDER_BRIDGING.0
    };
    for _ in 0..VLAN_TAGS {
        if !is_tag(kind) {
            break;
        }
        let Some(LaxLinkExtSlice::Vlan(tag)) = tags.next() else {
            return Err(Read::Unparsed);
        };
        kind = tag.ether_type().0;
        offset += 4;
    }
    match kind {
        kind if kind == ether_type::IPV4.0 => Ok(Link {
            offset,
            is_ipv4: true,
        }),
        kind if kind == ether_type::IPV6.0 => Ok(Link {
            offset,
            is_ipv4: false,
        }),
        kind if is_tag(kind) => Err(Read::Unparsed),
        _ => Err(Read::NotIp),
    }
}

fn reference_ipv4(ip: &etherparse::LaxIpv4Slice<'_>, offset: usize) -> Option<Seen> {
    let header = ip.header();
    let total = usize::from(header.total_len());
    // "Unparsed": truncated, or a total length below the header. etherparse's
    // lax slices take what is there.
    if ip.payload().incomplete || total < header.slice().len() {
        return None;
    }
    let later = header.fragments_offset().value() != 0;
    let whole = !later && !header.more_fragments();
    let upper = if later {
        Known::partial(Selector::Protocol(header.protocol().0))
    } else if header.protocol() == IpNumber::AUTHENTICATION_HEADER {
        // Linux hands it to IPsec; it is a protocol like any other here.
        Known::whole(Selector::Protocol(header.protocol().0))
    } else {
        reference_upper(header.protocol(), ip.payload().payload, true, 0, whole)
    };
    Some(Seen {
        source: address(header.source_addr().into()),
        destination: address(header.destination_addr().into()),
        bytes: u32::try_from(offset + total).unwrap(),
        upper,
    })
}

fn reference_ipv6(ip: &etherparse::LaxIpv6Slice<'_>, offset: usize) -> Option<Seen> {
    let header = ip.header();
    if ip.payload().incomplete {
        return None;
    }
    // A length of 0 is one: Linux drops the jumbogram that etherparse expects
    // there.
    let length = usize::from(header.payload_length());
    let start = header.slice().as_ptr();
    let payload = {
        let extensions = ip.extensions().slice();
        let rest = ip.payload().payload;
        assert_eq!(extensions.as_ptr_range().end, rest.as_ptr());
        let mut all = extensions.to_vec();
        all.extend_from_slice(rest);
        all.truncate(length);
        assert_eq!(start.wrapping_add(40), extensions.as_ptr());
        all
    };
    Some(Seen {
        source: address(header.source_addr().into()),
        destination: address(header.destination_addr().into()),
        bytes: u32::try_from(offset + 40 + length).unwrap(),
        upper: walk(header.next_header(), &payload, header.hop_limit()),
    })
}

/// Follows extension headers one by one. etherparse follows any number of
/// them, has hop-by-hop options at the start only, and does not follow
/// mobility headers.
fn walk(mut next: IpNumber, mut rest: &[u8], hop_limit: u8) -> Known {
    let mut whole = true;
    for followed in 0.. {
        if !is_extension(next) {
            break;
        }
        if followed == EXTENSION_HEADERS || rest.len() < 8 {
            return Known::partial(Selector::Unknown);
        }
        let length = if next == IpNumber::IPV6_FRAGMENTATION_HEADER {
            let fragment = Ipv6FragmentHeaderSlice::from_slice(rest).unwrap();
            if fragment.fragment_offset().value() != 0 {
                return match fragment.next_header() {
                    next if is_extension(next) => Known::partial(Selector::Unknown),
                    next => Known::partial(Selector::Protocol(next.0)),
                };
            }
            whole &= !fragment.is_fragmenting_payload();
            8
        } else if next == IpNumber::AUTHENTICATION_HEADER {
            // etherparse refuses one that is shorter than its fixed fields.
            4 * (usize::from(rest[1]) + 2)
        } else {
            match Ipv6RawExtHeaderSlice::from_slice(rest) {
                Ok(header) => header.slice().len(),
                // Longer than the packet: what it announces has no bytes.
                Err(_) => rest.len(),
            }
        };
        next = IpNumber(rest[0]);
        rest = rest.get(length..).unwrap_or_default();
    }
    reference_upper(next, rest, false, hop_limit, whole)
}

fn is_extension(number: IpNumber) -> bool {
    number.is_ipv6_ext_header_value() && !matches!(number.0, 50 | 139 | 140 | 253 | 254)
}

fn reference_upper(
    protocol: IpNumber,
    bytes: &[u8],
    is_ipv4: bool,
    hop_limit: u8,
    whole: bool,
) -> Known {
    match protocol {
        IpNumber::TCP => {
            let Some(header) = bytes.first_chunk::<20>() else {
                return Known::partial(Selector::Protocol(protocol.0));
            };
            // etherparse refuses a data offset below 5 or beyond the packet.
            // The ports are there all the same, and Linux may want to answer.
            let mut header = *header;
            header[12] = header[12] & 15 | 0x50;
            let header = TcpHeaderSlice::from_slice(&header).unwrap();
            Known {
                connection: header.syn() && !header.ack(),
                ..Known::whole(Selector::Tcp(header.destination_port()))
            }
        }
        IpNumber::UDP => {
            let Ok(header) = UdpHeaderSlice::from_slice(bytes) else {
                return Known::partial(Selector::Protocol(protocol.0));
            };
            let dhcp = if is_ipv4 { [67, 68] } else { [546, 547] };
            let (from, to) = (header.source_port(), header.destination_port());
            Known {
                control: whole && dhcp.contains(&from) && dhcp.contains(&to),
                ..Known::whole(Selector::Udp(to))
            }
        }
        _ => {
            let mut known = Known::whole(Selector::Protocol(protocol.0));
            if let (true, Some(&[kind, code, ..])) = (whole, bytes.first_chunk::<4>()) {
                match (protocol, is_ipv4, kind, code) {
                    (IpNumber::ICMP, true, 3, 4) | (IpNumber::IPV6_ICMP, false, 2, 0) => {
                        known.control = true;
                    }
                    (IpNumber::IPV6_ICMP, false, 133..=137, 0) if hop_limit == 255 => {
                        known.control = true;
                        known.neighbour = true;
                    }
                    _ => {}
                }
            }
            known
        }
    }
}

fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(u32::from(address)),
        IpAddr::V6(address) => {
            let [a, b] = [0, 8]
                .map(|at| u64::from_be_bytes(address.octets()[at..at + 8].try_into().unwrap()));
            Address::v6(a, b)
        }
    }
}

fn any_addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

fn any_tag() -> impl Strategy<Value = Tag> {
    prop_oneof![
        (0..4096_u16).prop_map(Tag::Customer),
        (0..4096_u16).prop_map(Tag::Service)
    ]
}

fn any_fragment() -> impl Strategy<Value = Extension> {
    prop_oneof![Just(0), 0..0x2000_u16].prop_flat_map(|offset| {
        any::<bool>().prop_map(move |more| Extension::Fragment(offset, more))
    })
}

fn any_extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        (0..4_u8).prop_map(Extension::HopByHop),
        (0..4_u8).prop_map(Extension::Routing),
        (0..4_u8).prop_map(Extension::DestinationOptions),
        (0..4_u8).prop_map(Extension::Mobility),
        (0..5_u8).prop_map(Extension::Authentication),
        any_fragment(),
    ]
}

fn any_port() -> impl Strategy<Value = u16> {
    prop_oneof![
        any::<u16>(),
        prop::sample::select(vec![67, 68, 443, 546, 547])
    ]
}

fn any_upper() -> impl Strategy<Value = Upper> {
    prop_oneof![
        (any_port(), any_port(), 0..32_u8).prop_map(|(from, to, flags)| Upper::Tcp {
            from,
            to,
            flags: flags & (FIN | SYN | RST | ACK)
        }),
        (any_port(), any_port()).prop_map(|(from, to)| Upper::Udp { from, to }),
        (any::<u8>(), 0..6_u8).prop_map(|(kind, code)| Upper::Icmp(kind, code)),
        (
            prop::sample::select(vec![2, 3, 128, 133, 135, 137]),
            prop_oneof![Just(0), Just(4)]
        )
            .prop_map(|(kind, code)| Upper::Icmp(kind, code)),
        any::<u8>().prop_map(Upper::Bare),
        prop::sample::select(vec![6, 17, 1, 58, 51, 50, 59]).prop_map(Upper::Bare),
    ]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    (
        any_addresses(),
        vec(any_tag(), 0..4),
        prop_oneof![Just(255), any::<u8>()],
        vec(any::<u8>(), 0..41),
        prop_oneof![
            2 => Just(Vec::new()),
            1 => any_fragment().prop_map(|fragment| vec![fragment]),
            2 => vec(any_extension(), 0..9),
        ],
        any_upper(),
        vec(any::<u8>(), 0..64),
    )
        .prop_map(
            |((source, destination), tags, hop_limit, options, extensions, upper, payload)| Frame {
                tags,
                hop_limit,
                options,
                extensions,
                payload,
                ..Frame::new(source, destination, upper)
            },
        )
}

/// Ways to damage a frame.
#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Flip(Index, u8),
    Pad(u8),
    /// Where lengths, versions and types are.
    Header(u8, u8),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, with)| Damage::Flip(at, with)),
        (0..60_u8).prop_map(Damage::Pad),
        (12..34_u8, any::<u8>()).prop_map(|(at, value)| Damage::Header(at, value)),
    ]
}

fn damage(frame: &mut Vec<u8>, damage: &Damage) {
    match damage {
        Damage::Cut(at) => frame.truncate(at.index(frame.len() + 1)),
        Damage::Flip(at, with) if !frame.is_empty() => {
            let at = at.index(frame.len());
            frame[at] ^= with;
        }
        Damage::Flip(..) => {}
        Damage::Pad(bytes) => frame.resize(frame.len() + usize::from(*bytes), 0),
        Damage::Header(at, value) => {
            if let Some(byte) = frame.get_mut(usize::from(*at)) {
                *byte = *value;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        // A failure's minimal input becomes a test with a name.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn built_frames_are_read_as_etherparse_reads_them(frame in any_frame()) {
        let bytes = frame.build();
        prop_assert_eq!(ours(&bytes), reference(&bytes));
    }

    #[test]
    fn so_are_damaged_ones(frame in any_frame(), damages in vec(any_damage(), 1..4)) {
        let mut bytes = frame.build();
        for how in &damages {
            damage(&mut bytes, how);
        }
        prop_assert_eq!(ours(&bytes), reference(&bytes));
    }

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic(
        mut bytes in vec(any::<u8>(), 0..200),
        kind in prop::sample::select(vec![[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8]]),
        version in any::<u8>(),
    ) {
        if bytes.len() > 14 {
            bytes[12..14].copy_from_slice(&kind);
            bytes[14] = version;
        }
        prop_assert_eq!(ours(&bytes), reference(&bytes));
    }

    /// Where nothing above is special, etherparse's own verdict on the whole
    /// frame is the same.
    #[test]
    fn ordinary_frames_need_no_reference(frame in any_frame()) {
        let bytes = frame.build();
        let packet = LaxSlicedPacket::from_ethernet(&bytes).unwrap();
        let plain = frame.tags.len() <= VLAN_TAGS && frame.extensions.len() <= EXTENSION_HEADERS;
        let selector = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Selector::Tcp(tcp.destination_port()),
            Some(TransportSlice::Udp(udp)) => Selector::Udp(udp.destination_port()),
            _ => return Ok(()),
        };
        if let (true, Read::Ip(seen)) = (plain, ours(&bytes)) {
            prop_assert_eq!(seen.upper.class, selector.index());
            prop_assert!(!seen.upper.partial);
        }
    }
}

const V4: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
);
const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
);
const HTTPS: Upper = Upper::Tcp {
    from: 40_000,
    to: 443,
    flags: SYN,
};

fn upper(frame: &Frame) -> Known {
    match ours(&frame.build()) {
        Read::Ip(seen) => seen.upper,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_first_fragment_has_ports_and_a_later_one_has_none() {
    for (source, destination) in [V4, V6] {
        let frame = Frame::new(source, destination, HTTPS);
        let first = upper(&frame.clone().extension(Extension::Fragment(0, true)));
        assert_eq!(first.class, Selector::Tcp(443).index());
        assert!(first.connection && !first.partial);
        let later = upper(&frame.clone().extension(Extension::Fragment(1, false)));
        assert_eq!(later, Known::partial(Selector::Protocol(6)));
        let short = Frame::new(source, destination, Upper::Bare(6)).payload(&[0; 19]);
        let short = upper(&short.extension(Extension::Fragment(0, true)));
        assert_eq!(short, Known::partial(Selector::Protocol(6)));
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let solicitation = Frame {
        hop_limit: 255,
        ..Frame::new(V6.0, V6.1, Upper::Icmp(135, 0))
    };
    assert!(upper(&solicitation).neighbour);
    let atomic = solicitation
        .clone()
        .extension(Extension::Fragment(0, false));
    assert!(upper(&atomic).neighbour);
    let first = solicitation.extension(Extension::Fragment(0, true));
    assert!(!upper(&first).neighbour);
    // Once a fragment, always one: the second header does not mend the first.
    let mended = first.extension(Extension::Fragment(0, false));
    assert!(!upper(&mended).control);
}

#[test]
fn two_tags_and_six_extension_headers_are_followed_and_no_more() {
    let frame = |tags: usize, headers: usize| Frame {
        tags: vec![Tag::Service(5); tags],
        extensions: vec![Extension::DestinationOptions(1); headers],
        ..Frame::new(V6.0, V6.1, HTTPS)
    };
    assert_eq!(upper(&frame(2, 6)).class, Selector::Tcp(443).index());
    assert_eq!(upper(&frame(2, 7)), Known::partial(Selector::Unknown));
    assert_eq!(ours(&frame(3, 0).build()), Read::Unparsed);
}

#[test]
fn padding_is_not_counted() {
    for (source, destination) in [V4, V6] {
        let mut bytes = Frame::new(source, destination, HTTPS).build();
        let length = u32::try_from(bytes.len()).unwrap();
        bytes.resize(bytes.len() + 26, 0);
        assert!(matches!(ours(&bytes), Read::Ip(seen) if seen.bytes == length));
    }
}
