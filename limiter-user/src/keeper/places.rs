//! Where the program may be put: what the judgement of places refuses, and what
//! it advises against.

use hyper::StatusCode;

use crate::control::api::Refusal;
use crate::nic::Link;
use crate::nic::place::{self, Weight};

/// Judges the program's being on all of `names`; returns what is unwise.
///
/// # Errors
/// On one of them packets would be misread or judged twice, or the kernel
/// allows no program there.
pub(super) fn check(names: &[String], links: &[Link]) -> Result<Vec<String>, Refusal> {
    let mut notices = Vec::new();
    for link in links.iter().filter(|link| names.contains(&link.name)) {
        for found in place::judge(link, links, names) {
            match found.weight {
                Weight::Unsafe => {
                    let refusal = Refusal::new(StatusCode::CONFLICT, found.what, found.mend);
                    return Err(refusal.at(format!("interface {}", link.name)));
                }
                Weight::Unwise => {
                    notices.push(format!("{}: {}; {}", link.name, found.what, found.mend));
                }
                Weight::Remark => {}
            }
        }
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use netlink_packet_route::link::{BondMode, BondXmitHashPolicy, InfoKind, InfoPortKind};

    use super::super::Now;
    use super::super::fake::{keeper, policy};
    use super::*;
    use crate::nic::samples;

    /// The interfaces of the fake, hung together: eth0 in the bond eth1, and a
    /// VLAN of that name on eth0.
    fn attach(links: Vec<Link>, names: &str) -> (Result<Vec<String>, Refusal>, Vec<String>) {
        let (mut keeper, told) = keeper(PathBuf::from("/etc/limiter/limiter.toml"), Now::read());
        told.lock().unwrap().links = links;
        let wanted = policy(&format!("[edge]\ninterfaces = [{names}]\n"));
        let mut notices = Vec::new();
        let attached = keeper.attach_new(&wanted, &mut notices);
        let on = told.lock().unwrap().attached.len();
        assert_eq!(on, attached.as_ref().map_or(0, Vec::len), "attached half");
        (attached, notices)
    }

    #[test]
    fn a_port_of_a_bond_is_refused_before_anything_is_attached() {
        let mut bond = samples::bond(3, BondMode::ActiveBackup, BondXmitHashPolicy::Layer2);
        bond.name = "eth1".to_owned();
        let links = vec![samples::port(2, "eth0", 3, InfoPortKind::Bond), bond];
        let (attached, _) = attach(links.clone(), "\"eth1\", \"eth0\"");
        let refusal = attached.unwrap_err();
        assert_eq!(refusal.status, 409);
        assert_eq!(refusal.place, "interface eth0");
        assert!(refusal.detail.contains("a port of the bond `eth1`"));
        assert!(refusal.help.contains("name `eth1`"));
        let (attached, notices) = attach(links, "\"eth1\"");
        assert_eq!(attached.unwrap(), ["eth1"]);
        assert!(notices.iter().all(|it| !it.contains("bond")), "{notices:?}");
    }

    #[test]
    fn a_vlan_is_refused_beside_its_parent_and_advised_against_alone() {
        let links = vec![
            samples::link(2, "eth0", Vec::new()),
            samples::stacked(3, "eth1", 2, InfoKind::Vlan),
        ];
        let (attached, _) = attach(links.clone(), "\"eth0\", \"eth1\"");
        let refusal = attached.unwrap_err();
        assert_eq!(refusal.place, "interface eth1");
        assert!(refusal.detail.contains("judged and charged twice"));
        let (attached, notices) = attach(links, "\"eth1\"");
        assert_eq!(attached.unwrap(), ["eth1"]);
        assert!(notices[0].starts_with("eth1: a VLAN has no native mode"));
        assert!(notices[0].ends_with("name `eth0` in edge.interfaces instead"));
    }
}
