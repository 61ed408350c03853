use std::net::{TcpListener, TcpStream};

use netlink_packet_core::NetlinkDeserializable;

use super::*;
use crate::nic::samples;

/// Answers of Linux 6.18 about connections over loopback.
const RECORDED: &str = include_str!("../recorded/sockets.txt");

#[test]
fn recorded_connections() {
    for (section, local, peer) in [
        ("ipv4", "127.0.0.1:37705", "127.0.0.1:59744"),
        ("ipv6", "[::1]:40775", "[::1]:60718"),
        // A socket of IPv6 that takes IPv4 too.
        ("mapped", "127.0.0.1:35317", "127.0.0.1:47530"),
    ] {
        let bytes = samples::recorded(RECORDED, section);
        let mut answers = Vec::<SockDiagMessage>::new();
        talk::messages(&bytes, &mut answers).unwrap();
        let found: Vec<Connection> = connections(answers).collect();
        let expected = Connection {
            peer: peer.parse().unwrap(),
            local: local.parse().unwrap(),
        };
        assert_eq!(found, [expected], "{section}");
    }
}

#[test]
fn a_cut_answer_is_an_error() {
    let bytes = samples::recorded(RECORDED, "ipv4");
    let header = netlink_packet_core::NetlinkHeader::default();
    let whole = &bytes[16..];
    assert!(SockDiagMessage::deserialize(&header, &whole[..60]).is_err());
    for length in 0..bytes.len() {
        let mut answers = Vec::<SockDiagMessage>::new();
        let _outcome = talk::messages(&bytes[..length], &mut answers);
        assert_eq!(connections(answers).count(), 0, "{length}");
    }
}

#[test]
fn the_kernel_tells_of_connections_to_a_port_and_of_no_others() {
    for (address, shown) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        // A socket of IPv6 that takes IPv4 too.
        ("[::]:0", "127.0.0.1"),
    ] {
        let listeners = [0, 1].map(|_| TcpListener::bind(address).unwrap());
        let ports = listeners
            .each_ref()
            .map(|it| it.local_addr().unwrap().port());
        let shown: IpAddr = shown.parse().unwrap();
        let streams = ports.map(|port| TcpStream::connect((shown, port)).unwrap());
        let accepted = listeners.each_ref().map(|it| it.accept().unwrap());
        let found = established(&ports[..1]).unwrap();
        let client = streams[0].local_addr().unwrap();
        let expected = Connection {
            peer: client,
            local: SocketAddr::new(shown, ports[0]),
        };
        assert_eq!(found, [expected], "{address}");
        assert!(expected.is_inside());
        let both = established(&ports).unwrap();
        assert_eq!(both.len(), 2);
        drop((streams, accepted));
    }
}

#[test]
fn no_port_is_no_question() {
    assert_eq!(established(&[]).unwrap(), []);
}
