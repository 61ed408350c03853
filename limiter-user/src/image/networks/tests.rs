//! Changes of lists, against the lists flattened anew.

use super::*;
use crate::policy::{NoFiles, parse};
use proptest::prelude::*;

/// Gates, destinations and sources of the policy's own.
const POLICY: &str = r#"
    [edge]
    interfaces = ["eth0"]
    ipv4_prefix = 28
    [[edge.limit]]
    name = "gated"
    ports = [1]
    protocol = "udp"
    from = ["10.0.0.0/24", "10.0.0.16/28", "2001:db8::/63"]
    packets = { rate = "1/s", burst = 1 }
    [[edge.limit]]
    name = "to"
    ports = [2]
    protocol = "udp"
    to = ["10.0.0.0/8", "10.0.0.0/24"]
    packets = { rate = "1/s", burst = 1 }
"#;

fn networks(allow: &[IpNet], deny: &[IpNet]) -> Networks {
    let policy = parse("test.toml", POLICY, &NoFiles).unwrap().policy;
    flatten(&policy.edge, allow, deny, &[7, 200])
}

/// Few enough to meet, lie in each other, and split sources.
fn network() -> impl Strategy<Value = IpNet> {
    let ipv4 = (0_u32..64, 22_u8..=32).prop_map(|(host, prefix)| {
        let address = std::net::Ipv4Addr::from_bits(10 << 24 | host);
        ipnet::Ipv4Net::new_assert(address, prefix).trunc().into()
    });
    let ipv6 = (0_u128..4, 0_u128..4, 61_u8..=66).prop_map(|(net, host, prefix)| {
        let address = 0x2001_0db8 << 96 | net << 64 | host << 62;
        let address = std::net::Ipv6Addr::from_bits(address);
        ipnet::Ipv6Net::new_assert(address, prefix).trunc().into()
    });
    prop_oneof![ipv4, ipv6]
}

fn change() -> impl Strategy<Value = ListChange> {
    let list = prop_oneof![Just(ListKind::Allow), Just(ListKind::Deny)];
    (list, network(), any::<bool>()).prop_map(|(list, network, listed)| ListChange {
        list,
        network,
        listed,
    })
}

/// What the kernel holds after a difference was written.
fn write(held: &mut BTreeMap<NetworkEntry, Network>, difference: &Difference) {
    for (entry, network) in &difference.set {
        assert_ne!(held.insert(*entry, *network), Some(*network), "{entry:?}");
    }
    for entry in &difference.gone {
        assert!(held.remove(entry).is_some(), "{entry:?}");
    }
}

fn contents(networks: &Networks) -> BTreeMap<NetworkEntry, Network> {
    networks.iter().map(|(entry, all)| (*entry, *all)).collect()
}

proptest! {
    #[test]
    fn changes_lead_where_a_fresh_start_does(
        steps in prop::collection::vec(prop::collection::vec(change(), 1..6), 1..40)
    ) {
        let mut networks = networks(&[], &[]);
        let mut held = contents(&networks);
        let mut lists: [BTreeSet<IpNet>; 2] = Default::default();
        for changes in steps {
            let before = networks.clone();
            let done = networks.change(&changes);
            write(&mut held, &done.difference);
            for change in &changes {
                let list = &mut lists[change.list as usize];
                if change.listed {
                    list.insert(change.network);
                } else {
                    list.remove(&change.network);
                }
            }
            let [allow, deny] = [0, 1].map(|list| lists[list].iter().copied().collect::<Vec<_>>());
            let fresh = self::networks(&allow, &deny);
            prop_assert_eq!(&networks, &fresh);
            prop_assert_eq!(&held, &contents(&fresh));
            prop_assert_eq!(networks.listed(), allow.len() + deny.len());
            let mut by_comparison = contents(&before);
            write(&mut by_comparison, &fresh.difference(&before));
            prop_assert_eq!(&by_comparison, &held);
            let mut back = networks.clone();
            back.change(&done.undo);
            prop_assert_eq!(back, before);
        }
    }
}
