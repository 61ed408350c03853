//! Native and generic mode judge the same packets alike.

use crate::site::{Counts, QUIET, Site, limit, row, rows, udp};
use limiter_tests::{
    counter,
    frames::{ACK, Extension, SYN, Tag, Upper},
    veth::Options,
};

fn policy() -> String {
    let web = limit(
        "web",
        "tcp",
        80,
        "connections = { rate = \"1/h\", burst = 3 }\npackets = { rate = \"1/h\", burst = 8 }",
    );
    let dns = limit("dns", "udp", 53, "packets = { rate = \"1/h\", burst = 5 }");
    let bulk = limit(
        "bulk",
        "udp",
        7_777,
        "bytes = { rate = \"1kB/h\", burst = 4000 }",
    );
    let gated = limit(
        "gated",
        "udp",
        99,
        "from = [\"10.0.0.0/8\"]\npackets = { rate = \"1/h\", burst = 5 }",
    );
    let lists = "allow = [\"203.0.113.0/24\"]\ndeny = [\"192.0.2.66\", \"2001:db8:bad::/48\"]\n";
    [lists, &web, &dns, &bulk, &gated].concat()
}

/// The same packets in either mode.
fn judged(mode: &str) -> Counts {
    let site = Site::new(mode, &policy());
    let sender = site.sender();
    let tcp = |flags| Upper::Tcp {
        from: 40_000,
        to: 80,
        flags,
    };
    for source in ["198.51.100.1", "2001:db8:1::1"] {
        let to_web = site.frame(source, tcp(SYN));
        let dns = site.frame(source, udp(53));
        let bulk = site.frame(source, udp(7_777)).padded(1_000);
        let other = site.frame(source, udp(5_000));
        for _ in 0..5 {
            sender.send(&to_web.build()).unwrap();
        }
        for _ in 0..6 {
            sender.send(&site.frame(source, tcp(ACK)).build()).unwrap();
            // A tag changes nothing but the bytes.
            sender.send(&dns.build()).unwrap();
            let one = dns.clone().tag(Tag::Customer(7));
            sender.send(&one.build()).unwrap();
            let two = bulk.clone().tag(Tag::Service(5)).tag(Tag::Customer(7));
            sender.send(&two.build()).unwrap();
            sender.send(&other.build()).unwrap();
        }
        let gated = site.frame(source, udp(99));
        sender.send(&gated.build()).unwrap();
        let fragment = site
            .frame(source, Upper::Bare(17))
            .extension(Extension::Fragment(100, false))
            .payload(&[0; 64]);
        sender.send(&fragment.build()).unwrap();
    }
    for source in ["192.0.2.66", "2001:db8:bad::1", "203.0.113.5", "::5"] {
        for to in [53, 5_000] {
            sender.send(&site.frame(source, udp(to)).build()).unwrap();
        }
    }
    // A frame of ARP's type, and an IPv4 packet cut off.
    let mut odd = site.frame("198.51.100.1", udp(53)).build();
    odd.truncate(20);
    sender.send(&odd).unwrap();
    odd[12..14].copy_from_slice(&[0x88, 0xcc]);
    sender.send(&odd).unwrap();
    site.counts()
}

#[test]
fn both_modes_judge_alike() {
    let [native, generic] = ["native", "generic"].map(judged);
    let packets = |counts: &Counts| -> Vec<(String, u64)> {
        let counts = counts.iter();
        counts
            .map(|(name, (packets, _))| (name.clone(), *packets))
            .collect()
    };
    // Of each family: 5 SYNs, 3 of which fit; 6 ACKs, 5 of which do; 12
    // packets of 53 less 5, less the fragment's place; 6 of 1,008 bytes and a
    // budget of 4,000.
    let expected = rows(&[
        ("web pass limit -", 2 * 8),
        ("web drop limit connections", 2 * 2),
        ("web drop limit packets", 2),
        ("dns pass limit -", 2 * 5),
        ("dns drop limit packets", 2 * (7 + 1)),
        ("bulk pass limit -", 2 * 3),
        ("bulk drop limit bytes", 2 * 3),
        ("gated drop not_from -", 2),
        ("- pass no_limit -", 2 * 6),
        ("- drop deny -", 4),
        ("- pass allow -", 2),
        ("- drop martian -", 2),
        ("- pass unparsed -", 1),
        ("- pass not_ip -", 1),
    ]);
    assert_eq!(packets(&native), expected);
    assert_eq!(native, generic);
}

/// Frames of 9,000 bytes and their Ethernet header, natively.
#[test]
fn jumbo_frames_are_counted_with_all_their_bytes() {
    let options = Options {
        mtu: 9_000,
        ..QUIET
    };
    let bulk = limit(
        "bulk",
        "udp",
        7_777,
        "bytes = { rate = \"1kB/h\", burst = 40000 }",
    );
    let site = Site::with(&[options], "native", &bulk);
    let sender = site.sender();
    let frame = site.frame("198.51.100.1", udp(7_777)).padded(9_014).build();
    assert_eq!(frame.len(), 9_014);
    let before = counter::traffic(&site.pairs[0].right)
        .unwrap()
        .received_bytes;
    for _ in 0..6 {
        sender.send(&frame).unwrap();
    }
    let counts = site.counts();
    assert_eq!(counts["bulk pass limit -"], (4, 4 * 9_014));
    assert_eq!(counts["bulk drop limit bytes"], (2, 2 * 9_014));
    assert_eq!(row(&counts, "- pass unparsed -"), 0);
    let after = counter::traffic(&site.pairs[0].right)
        .unwrap()
        .received_bytes;
    // The driver counts what is behind the Ethernet header.
    assert_eq!(after - before, 6 * 9_000);
}
