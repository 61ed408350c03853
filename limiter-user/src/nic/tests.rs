//! Recorded and composed answers, through the parsers of live ones.

use netlink_packet_route::link::{
    BondMode, BondXmitHashPolicy, InfoKind, InfoPortKind, LinkAttribute, LinkLayerType, LinkXdp,
};

use super::samples::{self, INTERRUPTS, VETH, VIRTIO, recorded};
use super::{Switch, ask, ethtool, interrupts, link, links, netdev, virtio_features};

#[test]
fn a_recorded_virtio_interface() {
    let links = link::links(samples::routes(&recorded(VIRTIO, "link")));
    let eth0 = &links[0];
    assert_eq!(
        (eth0.name.as_str(), eth0.index, eth0.mtu),
        ("eth0", 4, 1_400)
    );
    assert_eq!((eth0.receive_queues, eth0.transmit_queues), (1, 1));
    assert!(eth0.is_up && eth0.has_carrier && eth0.has_ethernet);
    assert_eq!(eth0.kind, None);
    assert_eq!((eth0.master, eth0.below, eth0.program), (None, None, None));
    let parent = eth0.parent.as_ref().unwrap();
    assert_eq!(
        (parent.bus.as_str(), parent.name.as_str()),
        ("virtio", "virtio2")
    );

    let features = samples::generic(&recorded(VIRTIO, "features"));
    let features = ethtool::read_features(&features);
    // As `ethtool -k` showed it: on [fixed], and off [fixed].
    let switch = |on| Some(Switch { on, fixed: true });
    assert_eq!(features.switch("rx-gro-hw"), switch(true));
    assert_eq!(features.switch("rx-lro"), switch(false));
    let changeable = features.switch("rx-gro").unwrap();
    assert_eq!((changeable.on, changeable.fixed), (true, false));

    let channels = samples::generic(&recorded(VIRTIO, "channels"));
    let channels = ethtool::read_channels(&channels);
    assert_eq!((channels.combined, channels.combined_max), (1, 1));
    assert_eq!((channels.receive, channels.receive_max), (0, 0));

    let xdp = samples::generic(&recorded(VIRTIO, "xdp"));
    assert_eq!(netdev::read_xdp_features(&xdp).unwrap() & 1, 1);
}

#[test]
fn a_recorded_pair_of_veths_with_a_program() {
    let links = link::links(samples::routes(&recorded(VETH, "links")));
    let names: Vec<&str> = links.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["lo", "right", "left"]);
    let [lo, right, left] = &links[..] else {
        panic!("{links:?}");
    };
    assert!(lo.is_loopback && lo.has_ethernet);
    assert_eq!(left.kind.as_deref(), Some("veth"));
    assert_eq!(
        (left.below, right.below),
        (Some(right.index), Some(left.index))
    );
    assert_eq!((right.receive_queues, right.transmit_queues), (4, 2));
    assert_eq!(left.program, None);
    assert!(right.program.is_some());
    assert_eq!(right.mtu, 9_000);
    assert_eq!(lo.parent, None);

    let channels = samples::generic(&recorded(VETH, "channels"));
    let channels = ethtool::read_channels(&channels);
    assert_eq!((channels.receive, channels.receive_max), (1, 4));
    let xdp = samples::generic(&recorded(VETH, "xdp"));
    assert_eq!(netdev::read_xdp_features(&xdp).unwrap() & 1, 1);
}

/// A newer kernel may tell of an interface what nobody here can read.
#[test]
fn one_message_that_cannot_be_read_does_not_hide_the_others() {
    let whole = recorded(VETH, "links");
    let mut bytes = whole.clone();
    let first = u32::from_ne_bytes(*bytes.first_chunk().unwrap()) as usize;
    // The first attribute of the first message claims to go on for ever.
    bytes[32..34].copy_from_slice(&u16::MAX.to_ne_bytes());
    let links = link::links(samples::routes(&bytes));
    let names: Vec<&str> = links.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["right", "left"]);
    // Whatever it is, it is an answer or an error.
    for end in 0..whole.len() {
        let _error = super::talk::messages::<super::generic::Message>(
            &whole[..end.min(first)],
            &mut Vec::new(),
        );
    }
}

#[test]
fn recorded_interrupts() {
    let lines = interrupts::parse(INTERRUPTS);
    let input = lines.iter().find(|line| line.name == "virtio2-input.0");
    let input = input.unwrap();
    assert_eq!(
        (input.number, input.counts.as_slice()),
        (38, &[0, 27_588][..])
    );
    // Those without a number are the processor's own.
    assert!(lines.iter().all(|line| line.name != "interrupts"));
    assert_eq!(lines.len(), 19);
}

#[test]
fn lists_of_cpus() {
    let list = |text| interrupts::cpus(text).into_iter().collect::<Vec<_>>();
    assert_eq!(list("0-3,5\n"), [0, 1, 2, 3, 5]);
    assert_eq!(list("7"), [7]);
    assert!(list("").is_empty());
}

#[test]
fn bits_of_a_virtio_device() {
    assert_eq!(virtio_features("1100010110\n"), 0b01_1010_0011);
    assert_eq!(virtio_features(&"1".repeat(128)), u64::MAX);
}

#[test]
fn composed_bonds_ports_and_what_stands_on_others() {
    let modes = [
        (BondMode::BalanceRr, "balance-rr", true),
        (BondMode::ActiveBackup, "active-backup", true),
        (BondMode::BalanceXor, "balance-xor", true),
        (BondMode::Ieee8023Ad, "802.3ad", true),
        (BondMode::Broadcast, "broadcast", false),
        (BondMode::BalanceTlb, "balance-tlb", false),
        (BondMode::BalanceAlb, "balance-alb", false),
    ];
    for (mode, word, has_native) in modes {
        let bond = samples::bond(5, mode, BondXmitHashPolicy::Layer34);
        let how = bond.bond.unwrap();
        assert_eq!((how.mode, how.has_native), (word, has_native));
        assert_eq!(bond.kind.as_deref(), Some("bond"));
    }
    for mode in [BondMode::BalanceXor, BondMode::Ieee8023Ad] {
        let bond = samples::bond(5, mode, BondXmitHashPolicy::VlanSrcMac);
        assert!(!bond.bond.unwrap().has_native);
    }
    let port = samples::port(2, "eth0", 5, InfoPortKind::Bond);
    assert_eq!(
        (port.master, port.port_of.as_deref()),
        (Some(5), Some("bond"))
    );
    let vlan = samples::stacked(6, "eth0.7", 2, InfoKind::Vlan);
    assert_eq!((vlan.below, vlan.kind.as_deref()), (Some(2), Some("vlan")));
    let elsewhere = vec![LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(1)];
    assert_eq!(samples::link(6, "veth0", elsewhere).below, None);
    let tunnel = samples::of_layer(LinkLayerType::None, 7, "wg0", Vec::new());
    assert!(!tunnel.has_ethernet);
    let xdp = LinkAttribute::Xdp(vec![LinkXdp::ProgId(42)]);
    assert_eq!(samples::link(2, "eth0", vec![xdp]).program, Some(42));
}

#[test]
fn the_loopback_of_this_machine() {
    let lo = links().unwrap().into_iter().find(|it| it.is_loopback);
    let nic = ask(lo.unwrap());
    assert_eq!(nic.name(), "lo");
    assert_eq!(nic.has_native(), Some(false));
    assert_eq!(nic.virtio, None);
    assert_eq!(interrupts::of(&nic.link), Some(Vec::new()));
}
