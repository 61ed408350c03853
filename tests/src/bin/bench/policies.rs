//! The policies that are measured, and what surrounds them: lists and blocks.

use crate::dice::Dice;
use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use limiter_common::block::Owner;
use limiter_user::{
    dataplane::model::BlockRequest,
    policy::{NoFiles, Policy, parse},
};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// Where measured packets go: IPv4.
pub(crate) const HOST_V4: &str = "192.0.2.1";
/// The same of IPv6.
pub(crate) const HOST_V6: &str = "2001:db8::1";
/// A port whose limit no packet exceeds, unless the policy is strict.
pub(crate) const WEB: u16 = 443;
/// A port whose limit every packet but the first exceeds.
pub(crate) const TIGHT: u16 = 444;
/// A port whose limits, of which the first is met, are told apart by `to`.
pub(crate) const SHARED: u16 = 8_080;

/// How large a policy is, and what is in the tables beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Networks in `allow`.
    pub(crate) allow: usize,
    /// Networks in `deny`.
    pub(crate) deny: usize,
    /// Blocks of operators.
    pub(crate) blocks: usize,
    /// Limits.
    pub(crate) limits: usize,
    /// Sources that can be tracked.
    pub(crate) sources: u32,
    /// Whether the limit on [`WEB`] is a packet a minute.
    pub(crate) strict: bool,
}

impl Shape {
    /// A policy of some size.
    pub(crate) const USUAL: Self = Self {
        allow: 1_000,
        deny: 10_000,
        blocks: 1_000,
        limits: 16,
        sources: 65_536,
        strict: false,
    };

    /// One limit, a packet a minute on [`WEB`], and nothing else.
    pub(crate) const STRICT: Self = Self {
        allow: 0,
        deny: 0,
        blocks: 0,
        limits: 1,
        sources: 65_536,
        strict: true,
    };

    pub(crate) fn policy(&self) -> Result<Policy> {
        let mut text = format!(
            "[edge]\ninterfaces = [\"none0\"]\nsources = {}\nallow = {}\ndeny = {}\n",
            self.sources,
            listed(self.allow()),
            listed(self.deny())
        );
        if !self.strict {
            // Where sources come by turns, each is to get its entry.
            text.push_str("[edge.flood]\nnew_sources = \"100000000/s\"\n");
        }
        for number in 0..self.limits {
            text.push_str(&limit(number, self.strict));
        }
        Ok(parse("bench.toml", &text, &NoFiles)?.policy)
    }

    pub(crate) fn allow(&self) -> BTreeSet<IpNet> {
        networks(self.allow, 11..12, 0x2a00)
    }

    pub(crate) fn deny(&self) -> BTreeSet<IpNet> {
        networks(self.deny, 12..60, 0x2a01)
    }

    /// Blocks for an hour: nine of ten of one IPv4 address, the others of a /24
    /// and of an IPv6 /64 by turns.
    pub(crate) fn blocks(&self) -> Vec<BlockRequest> {
        let request = |number: usize| BlockRequest {
            network: blocked(number as u32),
            lasting: Some(Duration::from_hours(1)),
            owner: Owner::Operator,
            limit: None,
        };
        (0..self.blocks).map(request).collect()
    }
}

/// Who is blocked `number`th.
pub(crate) fn blocked(number: u32) -> IpNet {
    let network = Ipv4Addr::from(60 << 24 | number << 8);
    match number % 20 {
        9 => Ipv4Net::new_assert(network, 24).into(),
        19 => Ipv6Net::new_assert(prefix(0x2a02, number), 64).into(),
        _ => Ipv4Net::new_assert(network, 32).into(),
    }
}

/// Budgets that no packet of a bench exceeds. The burst is less than what one
/// run spends: it passes as a whole only if the clock ticks meanwhile.
const AMPLE: &str = "packets = { rate = \"100000000/s\", burst = 400_000 }\n\
     bytes = { rate = \"10GB/s\", burst = \"40MB\" }\n\
     connections = { rate = \"100000000/s\", burst = 400_000 }\n";

/// The limit `number`: first those that are met, then as many as are wanted,
/// every third with `to`.
fn limit(number: usize, strict: bool) -> String {
    let mut text = format!(
        "[[edge.limit]]\nname = \"{}\"\nprotocol = \"tcp\"\n",
        name(number)
    );
    let port = match number {
        0 => WEB.into(),
        1 => TIGHT.into(),
        2 | 3 => SHARED.into(),
        _ => 10_000 + number,
    };
    let _written = writeln!(text, "ports = [{port}]");
    if number == 2 {
        let _written = writeln!(text, "to = [\"{HOST_V4}\", \"{HOST_V6}\"]");
    } else if number > 3 && number.is_multiple_of(3) {
        let _written = writeln!(text, "to = [\"192.0.2.{}\", \"10.9.0.0/16\"]", number % 256);
    }
    text.push_str(match number {
        0 if strict => "packets = { rate = \"1/min\", burst = 1 }\n",
        1 => "packets = { rate = \"1/h\", burst = 1 }\n",
        _ => AMPLE,
    });
    text
}

fn name(number: usize) -> String {
    match number {
        0 => "web".to_owned(),
        1 => "tight".to_owned(),
        2 => "here".to_owned(),
        3 => "elsewhere".to_owned(),
        _ => format!("limit{number}"),
    }
}

/// `count` different networks as lists have them: mostly /24 and single
/// addresses, some wider, one of ten IPv6. Always the same ones.
fn networks(count: usize, first: std::ops::Range<u32>, group: u16) -> BTreeSet<IpNet> {
    let mut dice = Dice::new();
    let mut draw = || (dice.roll() >> 32) as u32;
    let mut all = BTreeSet::new();
    while all.len() < count {
        let (kind, word) = (draw() % 20, draw());
        let network: IpNet = if kind < 2 {
            Ipv6Net::new_assert(prefix(group, word), 48).into()
        } else {
            let bits = match kind {
                2 => 16,
                3 | 4 => 20,
                5..=12 => 24,
                _ => 32,
            };
            let high = first.start + word % (first.end - first.start);
            Ipv4Net::new_assert(Ipv4Addr::from(high << 24 | draw() >> 8), bits).into()
        };
        all.insert(network.trunc());
    }
    all
}

/// An IPv6 /48 or longer of `group`.
fn prefix(group: u16, word: u32) -> Ipv6Addr {
    let [a, b] = [word >> 16, word & 0xffff].map(|half| half as u16);
    Ipv6Addr::new(group, a, b, 0, 0, 0, 0, 0)
}

fn listed(networks: BTreeSet<IpNet>) -> String {
    let quoted: Vec<String> = networks.iter().map(|it| format!("\"{it}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_the_shape_asked_for() {
        let shape = Shape::USUAL;
        let policy = shape.policy().unwrap();
        assert_eq!(policy.edge.allow.len(), shape.allow);
        assert_eq!(policy.edge.deny.len(), shape.deny);
        assert_eq!(policy.edge.limits.len(), shape.limits);
        let with_to = policy.edge.limits.iter().filter(|it| !it.to.is_empty());
        assert!(with_to.count() >= 3);
        let distinct: BTreeSet<IpNet> = shape.blocks().iter().map(|it| it.network).collect();
        assert_eq!(distinct.len(), shape.blocks);
    }
}
