//! Networks as text, and sets of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::diagnostic::quote;
use super::report::{At, Place};
use super::units::Problem;

pub(super) const NETWORK_HELP: &str =
    "allowed: a network or address, such as 10.0.0.0/8, 192.0.2.7, 2001:db8::/32";

/// Reads `10.0.0.0/8`, or an address as the network of it alone.
///
/// # Errors
/// What is neither, has bits set outside its prefix, or writes IPv4 as IPv6.
pub fn parse_network(text: &str) -> Result<IpNet, Problem> {
    let written: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text
            .parse()
            .map_err(|_| Problem::new(format!("{} is not a network", quote(text)), NETWORK_HELP))?,
    };
    if let Some(mapped) = ipv4_inside(written) {
        return Err(Problem::new(
            format!("{} is IPv4 written as IPv6", quote(text)),
            format!("no packet carries such an address; write `{mapped}`"),
        ));
    }
    let network = written.trunc();
    if network != written {
        return Err(Problem::new(
            format!("{} has bits set outside its prefix", quote(text)),
            format!(
                "write `{network}`, or `{}` for the one address",
                written.addr()
            ),
        ));
    }
    Ok(network)
}

/// The IPv4 network behind one inside ::ffff:0:0/96.
fn ipv4_inside(network: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(network) = network else {
        return None;
    };
    let address = Ipv6Addr::to_ipv4_mapped(&network.addr())?;
    let prefix = network.prefix_len().checked_sub(96)?;
    Ipv4Net::new(address, prefix).ok().map(|net| net.trunc())
}

/// A set that finds what covers a network in one look-up per prefix length in
/// use, so that a million entries can be checked against each other.
#[derive(Default)]
pub(super) struct NetworkSet {
    places: BTreeMap<IpNet, Place>,
    prefixes: BTreeSet<u8>,
}

impl NetworkSet {
    pub(super) fn insert(&mut self, network: At<IpNet>) {
        self.prefixes.insert(network.value.prefix_len());
        self.places.entry(network.value).or_insert(network.place);
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// In the order of the networks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&IpNet, &Place)> {
        self.places.iter()
    }

    /// The widest entry that holds all of `network`, and where it stands.
    pub(super) fn covering(&self, network: &IpNet) -> Option<(&IpNet, &Place)> {
        self.prefixes
            .range(..=network.prefix_len())
            .find_map(|prefix| {
                let wider = IpNet::new(network.addr(), *prefix).ok()?.trunc();
                self.places.get_key_value(&wider)
            })
    }

    pub(super) fn to_sorted(&self) -> Vec<IpNet> {
        self.places.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
            ("::fffe:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(parse_network(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn refusals_say_what_was_meant() {
        for (text, expected) in [
            ("10.0.0.1/8", "write `10.0.0.0/8`, or `10.0.0.1` for"),
            ("2001:db8::1/32", "write `2001:db8::/32`"),
            ("::ffff:192.0.2.7", "write `192.0.2.7/32`"),
            ("::ffff:192.0.2.0/120", "write `192.0.2.0/24`"),
            ("10.0.0.0/33", "allowed: a network"),
            ("example.com", "allowed: a network"),
            ("10.0.0.0/8 ", "allowed: a network"),
            ("", "allowed: a network"),
        ] {
            let problem = parse_network(text).unwrap_err();
            assert!(problem.help.contains(expected), "{text}: {problem}");
        }
    }
}
