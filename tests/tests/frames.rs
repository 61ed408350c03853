//! The frames that the tests send, checked with etherparse.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use limiter_tests::frames::{ACK, Extension, Frame, SYN, Tag, Upper};
use std::net::IpAddr;

const UPPERS: [Upper; 3] = [
    Upper::Tcp {
        from: 40_000,
        to: 443,
        flags: SYN | ACK,
    },
    Upper::Udp { from: 53, to: 53 },
    Upper::Icmp(8, 0),
];

fn pairs() -> [(IpAddr, IpAddr); 2] {
    [
        ("192.0.2.1", "198.51.100.77"),
        ("2001:db8::1", "2001:db8:ffff::77"),
    ]
    .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()))
}

/// The checksum that is in the frame, and the one that should be.
fn checksums(frame: &[u8]) -> (u16, u16) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let transport = packet.transport.unwrap();
    match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    (tcp.checksum(), tcp.calc_checksum_ipv4(from, to).unwrap())
                }
                TransportSlice::Udp(udp) => {
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv4_raw(from, to, udp.payload());
                    (header.checksum, sum.unwrap())
                }
                TransportSlice::Icmpv4(icmp) => {
                    let right = etherparse::Icmpv4Header::with_checksum(
                        icmp.header().icmp_type,
                        icmp.payload(),
                    );
                    (icmp.checksum(), right.checksum)
                }
                TransportSlice::Icmpv6(_) => unreachable!("IPv4"),
            }
        }
        NetSlice::Ipv6(ip) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    (tcp.checksum(), tcp.calc_checksum_ipv6(from, to).unwrap())
                }
                TransportSlice::Udp(udp) => {
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv6_raw(from, to, udp.payload());
                    (header.checksum, sum.unwrap())
                }
                TransportSlice::Icmpv6(icmp) => {
                    assert!(icmp.is_checksum_valid(from, to));
                    (0, 0)
                }
                TransportSlice::Icmpv4(_) => unreachable!("IPv6"),
            }
        }
        NetSlice::Arp(_) => unreachable!("IP"),
    }
}

#[test]
fn checksums_are_right() {
    for (source, destination) in pairs() {
        for upper in UPPERS {
            for payload in [&b""[..], b"odd", b"even"] {
                let frame = Frame::new(source, destination, upper)
                    .tag(Tag::Customer(3))
                    .extension(Extension::Fragment(0, false))
                    .payload(payload);
                let (found, right) = checksums(&frame.build());
                assert_eq!(found, right, "{upper:?} {payload:?}");
            }
        }
    }
}
