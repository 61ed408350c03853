//! Where in a stack of interfaces the program belongs: what is unsafe, what is
//! merely unwise, and what is right instead.

use super::Link;

/// How bad a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It is right; something about it is worth knowing.
    Remark,
    /// It works, and another place is better.
    Unwise,
    /// Packets would be misread or judged twice, or the kernel refuses.
    Unsafe,
}

/// What is to be said of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// How bad it is.
    pub weight: Weight,
    /// What is the matter.
    pub what: String,
    /// What to do.
    pub mend: String,
}

/// Judges the program's being on `link`, one of `links`, while it is on
/// `chosen` as well (`link` may be among them).
#[must_use]
pub fn judge(link: &Link, links: &[Link], chosen: &[String]) -> Vec<Judgement> {
    let found = [
        headers(link, links),
        bond_port(link, links),
        twice(link, links, chosen),
        kind(link, links),
    ];
    let mut found: Vec<Judgement> = found.into_iter().flatten().collect();
    if found.iter().any(|it| it.weight == Weight::Unsafe) {
        found.retain(|it| it.weight == Weight::Unsafe);
    }
    found
}

fn say(weight: Weight, what: String, mend: String) -> Option<Judgement> {
    Some(Judgement { weight, what, mend })
}

fn name_of(links: &[Link], index: Option<u32>) -> Option<&str> {
    let found = links.iter().find(|link| Some(link.index) == index)?;
    Some(&found.name)
}

/// Instead of this interface, another.
fn instead(other: Option<&str>, otherwise: &str) -> String {
    match other {
        Some(name) => format!("name `{name}` in edge.interfaces instead"),
        None => format!("name {otherwise} in edge.interfaces instead"),
    }
}

fn headers(link: &Link, links: &[Link]) -> Option<Judgement> {
    if link.has_ethernet {
        return None;
    }
    let kind = link.kind.as_deref().unwrap_or("link");
    let what = format!(
        "its packets ({kind}) have no Ethernet header, and the program would misread every one"
    );
    let below = name_of(links, link.below);
    say(
        Weight::Unsafe,
        what,
        instead(below, "the interface that its packets travel over"),
    )
}

/// `dev_xdp_attach` in net/core/dev.c: "XDP program can not be attached to a
/// bond slave", or `EEXIST` where the bond has one.
fn bond_port(link: &Link, links: &[Link]) -> Option<Judgement> {
    if link.port_of.as_deref() != Some("bond") {
        return None;
    }
    let bond = name_of(links, link.master);
    let what = match bond {
        Some(bond) => format!("it is a port of the bond `{bond}`, which takes the program for all"),
        None => "it is a port of a bond, which takes the program for all".to_owned(),
    };
    say(Weight::Unsafe, what, instead(bond, "the bond"))
}

/// Kinds that get their packets from the interface below. The tunnels do too,
/// but from other packets around them.
const STACKED: &[&str] = &[
    "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "dsa",
];

fn is_stacked(link: &Link) -> bool {
    STACKED.contains(&link.kind.as_deref().unwrap_or_default())
}

/// Those whose packets `link` gets.
fn sources<'a>(link: &Link, links: &'a [Link]) -> Vec<&'a Link> {
    let below = link.below.filter(|_| is_stacked(link));
    let index = link.index;
    let gives = |it: &&Link| Some(it.index) == below || it.master == Some(index);
    links.iter().filter(gives).collect()
}

fn twice(link: &Link, links: &[Link], chosen: &[String]) -> Option<Judgement> {
    let mut seen = vec![link.index];
    let mut open = sources(link, links);
    while let Some(source) = open.pop() {
        if seen.contains(&source.index) {
            continue;
        }
        seen.push(source.index);
        if chosen.contains(&source.name) {
            let what = format!(
                "it gets its packets from `{}`, which is named too: they would be judged and \
                 charged twice",
                source.name
            );
            let mend = match link.bond {
                Some(_) => format!("name `{}` alone in edge.interfaces", link.name),
                None => format!("name `{}` alone in edge.interfaces", source.name),
            };
            return say(Weight::Unsafe, what, mend);
        }
        open.extend(sources(source, links));
    }
    None
}

fn kind(link: &Link, links: &[Link]) -> Option<Judgement> {
    let below = name_of(links, link.below);
    match link.kind.as_deref()? {
        "vlan" => say(
            Weight::Unwise,
            "a VLAN has no native mode, and generic mode sees its packets after the kernel has \
             worked on them; the program reads the tags of the interface below"
                .to_owned(),
            instead(below, "the interface below"),
        ),
        kind @ ("macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "macsec") => say(
            Weight::Unwise,
            format!("a {kind} has no native mode: it gets packets that the kernel has worked on"),
            instead(below, "the interface below"),
        ),
        kind @ ("team" | "vrf") => {
            let ports = links.iter().filter(|it| it.master == Some(link.index));
            let ports: Vec<&str> = ports.map(|it| it.name.as_str()).collect();
            let ports = match ports.is_empty() {
                true => "its ports".to_owned(),
                false => format!("`{}`", ports.join("`, `")),
            };
            say(
                Weight::Unwise,
                format!("packets come in at the ports of a {kind}, and there native mode is"),
                instead(None, &ports),
            )
        }
        "bridge" => say(
            Weight::Unwise,
            "a bridge has no native mode, and shows the program only what is for this host"
                .to_owned(),
            instead(None, "the ports that strangers reach"),
        ),
        "bond" if link.bond.is_some_and(|bond| bond.has_native) => say(
            Weight::Remark,
            "in native mode the program is told the port that a packet came in on: counters stand \
             under no interface's name"
                .to_owned(),
            String::new(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{
        BondMode, BondXmitHashPolicy, InfoKind, InfoPortKind, LinkAttribute, LinkLayerType,
    };

    use super::super::samples::{bond, kind, link, of_layer, port, stacked};
    use super::*;

    /// eth0 and eth1 in bond0, eth2 in br0, eth3 in team0; VLANs on eth4 and on
    /// bond0; a macvlan on a VLAN; a tunnel.
    fn host() -> Vec<Link> {
        let of = |it, data| kind(it, data);
        vec![
            link(1, "lo", Vec::new()),
            port(2, "eth0", 10, InfoPortKind::Bond),
            port(3, "eth1", 10, InfoPortKind::Bond),
            port(4, "eth2", 11, InfoPortKind::Bridge),
            port(5, "eth3", 12, InfoPortKind::Team),
            link(6, "eth4", Vec::new()),
            bond(10, BondMode::Ieee8023Ad, BondXmitHashPolicy::Layer34),
            link(11, "br0", vec![of(InfoKind::Bridge, None)]),
            link(12, "team0", vec![of(InfoKind::Team, None)]),
            stacked(13, "eth4.7", 6, InfoKind::Vlan),
            stacked(14, "bond0.7", 10, InfoKind::Vlan),
            stacked(15, "mac0", 13, InfoKind::MacVlan),
            of_layer(
                LinkLayerType::None,
                16,
                "wg0",
                vec![of(InfoKind::Wireguard, None)],
            ),
            link(
                17,
                "veth0",
                vec![LinkAttribute::Link(18), of(InfoKind::Veth, None)],
            ),
            link(
                18,
                "veth1",
                vec![LinkAttribute::Link(17), of(InfoKind::Veth, None)],
            ),
            stacked(19, "vx0", 6, InfoKind::Vxlan),
        ]
    }

    fn of(name: &str, chosen: &[&str]) -> Vec<Judgement> {
        let links = host();
        let link = links.iter().find(|link| link.name == name).unwrap();
        let chosen: Vec<String> = chosen.iter().map(|it| (*it).to_owned()).collect();
        judge(link, &links, &chosen)
    }

    #[track_caller]
    fn says(found: &[Judgement], weight: Weight, what: &str, mend: &str) {
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].weight, weight, "{found:?}");
        assert!(found[0].what.contains(what), "{what:?} in {found:?}");
        assert!(found[0].mend.contains(mend), "{mend:?} in {found:?}");
    }

    #[test]
    fn nothing_is_said_of_what_is_right() {
        for name in ["lo", "eth2", "eth3", "eth4", "vx0"] {
            assert_eq!(of(name, &[name, "eth4"]), [], "{name}");
        }
        // Each end of a pair gets what the other sends.
        assert_eq!(of("veth0", &["veth0", "veth1"]), []);
    }

    #[test]
    fn a_port_of_a_bond_gives_way_to_the_bond() {
        says(
            &of("eth0", &["eth0"]),
            Weight::Unsafe,
            "a port of the bond `bond0`",
            "name `bond0`",
        );
        says(
            &of("bond0", &["bond0"]),
            Weight::Remark,
            "the port that a packet came in on",
            "",
        );
        says(
            &of("bond0", &["bond0", "eth1"]),
            Weight::Unsafe,
            "`eth1`, which is named too",
            "name `bond0` alone",
        );
    }

    #[test]
    fn what_stands_on_another_is_unwise_and_beside_it_unsafe() {
        says(
            &of("eth4.7", &["eth4.7"]),
            Weight::Unwise,
            "reads the tags",
            "name `eth4`",
        );
        says(
            &of("eth4.7", &["eth4.7", "eth4"]),
            Weight::Unsafe,
            "`eth4`, which is named too",
            "name `eth4` alone",
        );
        // Over two steps.
        says(
            &of("mac0", &["mac0", "eth4"]),
            Weight::Unsafe,
            "`eth4`, which is named too",
            "name `eth4` alone",
        );
        says(
            &of("mac0", &["mac0"]),
            Weight::Unwise,
            "macvlan",
            "`eth4.7`",
        );
        says(
            &of("bond0.7", &["bond0.7", "bond0"]),
            Weight::Unsafe,
            "`bond0`, which is named too",
            "name `bond0` alone",
        );
        // The parent is right where it is.
        assert_eq!(of("eth4", &["eth4.7", "eth4"]), []);
    }

    #[test]
    fn masters_and_their_ports() {
        says(
            &of("br0", &["br0"]),
            Weight::Unwise,
            "for this host",
            "the ports",
        );
        says(
            &of("br0", &["br0", "eth2"]),
            Weight::Unsafe,
            "`eth2`, which is named too",
            "name `eth2` alone",
        );
        says(&of("team0", &["team0"]), Weight::Unwise, "a team", "`eth3`");
    }

    #[test]
    fn without_an_ethernet_header_nothing_is_read_right() {
        says(
            &of("wg0", &["wg0"]),
            Weight::Unsafe,
            "(wireguard) have no Ethernet header",
            "travel over",
        );
    }
}
