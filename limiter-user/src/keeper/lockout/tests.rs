use super::*;
use crate::keeper::fake::policy;

const EDGE: &str = "[edge]\ninterfaces = [\"eth0\"]\n";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn connection(peer: &str, local: &str) -> Connection {
    Connection {
        peer: peer.parse().unwrap(),
        local: local.parse().unwrap(),
    }
}

fn v4() -> Connection {
    connection("198.51.100.7:50122", "192.0.2.1:22")
}

fn v6() -> Connection {
    connection("[2001:db8::7]:50122", "[2001:db8:1::1]:22")
}

/// Rules of a policy whose lists are as in the file.
fn rules(text: &str) -> Rules {
    let policy = policy(&format!("{EDGE}{text}"));
    let edge = &policy.edge;
    Rules::new(&policy, edge.allow.clone(), edge.deny.clone())
}

/// Who is cut off by going from the one policy to the other.
fn cut(before: &Rules, after: &Rules) -> Vec<(Connection, Cause, Option<IpNet>)> {
    let cuts = cuts(Some(before), after, &[v4(), v6()]).unwrap();
    let cuts = cuts.into_iter();
    cuts.map(|it| (it.connection, it.cause, it.network))
        .collect()
}

fn block(network: &str) -> BlockState {
    BlockState {
        network: net(network),
        owner: Owner::Operator,
        limit: None,
        remaining: std::time::Duration::from_secs(60),
        dry: false,
    }
}

#[test]
fn denies_cut_off_unless_allowed_or_not_enforced() {
    let open = rules("");
    for (deny, connection) in [("198.51.100.0/24", v4()), ("2001:db8::/64", v6())] {
        let after = rules(&format!("deny = [{deny:?}]\n"));
        let expected = [(connection, Cause::Deny, Some(net(deny)))];
        assert_eq!(cut(&open, &after), expected);
        assert_eq!(cut(&after, &after), [], "it was cut off before");
    }
    for text in [
        "deny = [\"198.51.100.8\", \"203.0.113.0/24\"]",
        "allow = [\"198.51.100.7\"]\ndeny = [\"198.51.100.0/24\"]",
        "enforce = false\ndeny = [\"198.51.100.0/24\"]",
    ] {
        assert_eq!(cut(&open, &rules(text)), [], "{text}");
    }
    // An allow that goes, a dry run that ends.
    let after = rules("deny = [\"198.51.100.0/24\"]");
    for before in [
        "allow = [\"198.51.100.7\"]\ndeny = [\"198.51.100.0/24\"]",
        "enforce = false\ndeny = [\"198.51.100.0/24\"]",
    ] {
        assert_eq!(cut(&rules(before), &after).len(), 1, "{before}");
    }
}

#[test]
fn gates_cut_off_and_budgets_do_not() {
    let limit = |rest: &str| {
        let ssh = "[[edge.limit]]\nname = \"ssh\"\nprotocol = \"tcp\"\nports = [22]\n";
        rules(&format!("{ssh}{rest}\n"))
    };
    let small = "packets = { rate = \"1/h\", burst = 1 }";
    let open = rules("");
    let gate = Cause::Gate("ssh".to_owned());
    let of = |from: &str| limit(&format!("from = [{from:?}]\n{small}"));
    assert_eq!(
        cut(&open, &of("10.0.0.0/8")),
        [(v4(), gate.clone(), None), (v6(), gate.clone(), None)]
    );
    assert_eq!(cut(&open, &of("198.51.100.0/24")), [(v6(), gate, None)]);
    assert_eq!(cut(&open, &limit(small)), []);
    // A gate to another destination is none here.
    let elsewhere = "to = [\"192.0.2.9\"]\nfrom = [\"10.0.0.0/8\"]";
    assert_eq!(cut(&open, &limit(&format!("{elsewhere}\n{small}"))), []);
}

#[test]
fn blocks_cut_off_what_ssh_ports_do_not_spare() {
    let spared = rules("");
    let other = rules("[edge.safety]\nssh_ports = [2222]\n");
    let blocked = |rules: &Rules, block| Rules {
        blocks: vec![block],
        ..rules.clone()
    };
    let network = "198.51.0.0/16";
    let whole = block(network);
    assert_eq!(cut(&spared, &blocked(&spared, whole.clone())), []);
    let expected = [(v4(), Cause::Block, Some(net(network)))];
    assert_eq!(cut(&other, &blocked(&other, whole.clone())), expected);
    // A reload that spares it no longer.
    let [before, after] = [&spared, &other].map(|rules| blocked(rules, whole.clone()));
    assert_eq!(cut(&before, &after), expected);
    assert_eq!(cut(&after, &after), []);
    let dry = BlockState {
        dry: true,
        ..whole.clone()
    };
    assert_eq!(cut(&other, &blocked(&other, dry)), []);
    // Confined to a limit that there is not, and one of the kernel's own.
    let mut confined = BlockState {
        limit: Some("https".to_owned()),
        ..block("198.51.100.7/32")
    };
    assert_eq!(cut(&other, &blocked(&other, confined.clone())), []);
    confined.owner = Owner::Kernel;
    assert_eq!(cut(&other, &blocked(&other, confined)).len(), 1);
}

#[test]
fn what_is_new_is_named_first() {
    let before = rules("allow = [\"198.51.100.7\"]\ndeny = [\"198.51.0.0/16\"]");
    let after = rules("deny = [\"198.51.0.0/16\", \"198.51.100.0/24\"]");
    let cut = cut(&before, &after);
    assert_eq!(cut[0].2, Some(net("198.51.100.0/24")));
}

#[test]
fn peers_find_their_networks() {
    let peers = Peers::of(&[v4(), v6(), v4()]);
    for (network, inside) in [
        ("0.0.0.0/0", true),
        ("198.51.100.7/32", true),
        ("198.51.100.8/32", false),
        ("198.51.100.0/30", false),
        ("2001:db8::/32", true),
        ("2001:db8::8/125", false),
        ("::/0", true),
        ("255.255.255.255/32", false),
        ("ffff::/16", false),
    ] {
        assert_eq!(peers.any_in(&net(network)), inside, "{network}");
        let around = peers.around().any(|it| it == net(network));
        assert_eq!(around, inside, "{network}");
    }
    assert_eq!(peers.around().count(), 33 + 129);
    assert!(!Peers::default().any_in(&net("::/0")));
}
