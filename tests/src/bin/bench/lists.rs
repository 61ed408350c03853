//! Section `lists`: how long large changes take, ordered of a running daemon,
//! and whether a packet is misjudged meanwhile.

use crate::{
    report::{Column, Row, Table},
    rounds::{Contestant, interleave},
    site::{Order, Site},
};
use anyhow::{Context as _, Result};
use ipnet::IpNet;
use limiter_tests::process::Scratch;
use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// Networks of a large list.
const MANY: u32 = 100_000;
/// Of those of a policy, so many are allowed.
const ALLOWED: u32 = MANY / 10;

/// Measures every change by the command line and as a bare request, each with
/// a daemon of its own.
pub(crate) fn run(rounds: usize) -> Result<Table> {
    let files = Files::write()?;
    let files = &files;
    let contestants = Change::ALL.map(|change| {
        Contestant::new(change.name(), move || {
            let ways = [change.measure(files, false)?, change.measure(files, true)?];
            let judged: u64 = ways.iter().map(|way| way.judged).sum();
            let misjudged: u64 = ways.iter().map(|way| way.misjudged).sum();
            let [command, request] = ways.map(|way| way.lasted.as_secs_f64() * 1e3);
            Ok(vec![command, request, judged as f64, misjudged as f64])
        })
    });
    let series = interleave(contestants.into(), rounds)?;
    Ok(Table {
        section: "lists",
        title: "milliseconds until a large change is in force".to_owned(),
        columns: vec![
            Column::new("command, ms", 0),
            Column::new("request, ms", 0),
            Column::new("packets meanwhile", 0),
            Column::new("misjudged", 0),
        ],
        rows: series
            .iter()
            .map(|own| Row::of(own, 4, Vec::new()))
            .collect(),
        notes: notes(),
    })
}

fn notes() -> Vec<String> {
    [
        "command: `limiter` from its start to its end; request: from connecting to the control \
         socket to the last byte of the answer, which is not looked at",
        "networks: /22 to /32 and /48 to /128, mixed; a policy's: a tenth allowed, nine tenths \
         denied, by files; the policy replaced shares none with the one that replaces it, nor with \
         the one before, whose tables are used again",
        "meanwhile: packets of both runs, from sources that are allowed, denied, blocked or none of \
         these before, during and after the change, some 2,000 a second of each; misjudged are \
         those that met any other verdict or reason",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What is ordered.
#[derive(Clone, Copy)]
enum Change {
    BlockAddresses,
    BlockNetworks,
    Deny,
    DenyMore,
    DenyOne,
    Replace,
    Renew,
}

impl Change {
    const ALL: [Self; 7] = [
        Self::BlockAddresses,
        Self::BlockNetworks,
        Self::Deny,
        Self::DenyMore,
        Self::DenyOne,
        Self::Replace,
        Self::Renew,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::BlockAddresses => "block import: 100,000 addresses",
            Self::BlockNetworks => "block import: 100,000 networks",
            Self::Deny => "deny import: 100,000 networks",
            Self::DenyMore => "deny import: as many more",
            Self::DenyOne => "deny add: one more",
            Self::Replace => "reload: 100,000 networks by as many others",
            Self::Renew => "reload: the same 100,000 networks",
        }
    }

    /// The order; what comes before it is not measured.
    fn measure(self, files: &Files, bare: bool) -> Result<crate::site::Measured> {
        let import = |list, file: &Path| Order::import(list, file);
        let [first, second] = &files.denied;
        let policies = match self {
            Self::Replace => &files.policies[..],
            Self::Renew => &files.policies[..1],
            _ => &[],
        };
        let site = Site::new(policies.first().map_or("", String::as_str))?;
        let order = match self {
            Self::BlockAddresses => import("block", &files.addresses),
            Self::BlockNetworks => import("block", first),
            Self::Deny => import("deny", first),
            Self::DenyMore | Self::DenyOne => {
                site.order(&import("deny", first)?)?;
                if matches!(self, Self::DenyMore) {
                    import("deny", second)
                } else {
                    Ok(Order::add("deny", "100.64.0.1"))
                }
            }
            Self::Replace | Self::Renew => {
                let [between @ .., last] = policies else {
                    anyhow::bail!("no policy to reload");
                };
                for policy in between.iter().skip(1) {
                    site.write_policy(policy)?;
                    site.order(&Order::Reload)?;
                }
                site.write_policy(last)?;
                Ok(Order::Reload)
            }
        }?;
        site.measure(&order, bare)
    }
}

/// What is imported, and what policies name.
struct Files {
    addresses: PathBuf,
    denied: [PathBuf; 2],
    /// Their parts of `[edge]`.
    policies: [String; 3],
    _scratch: Scratch,
}

impl Files {
    fn write() -> Result<Self> {
        let scratch = Scratch::new()?;
        let write = |name: &str, networks: &mut dyn Iterator<Item = IpNet>| {
            let mut text = String::new();
            for network in networks {
                writeln!(text, "{network}")?;
            }
            let path = scratch.path(name);
            fs::write(&path, text).context("writing a list")?;
            Ok::<_, anyhow::Error>(path)
        };
        let denied = |set: u8| {
            let mut networks = shuffled(MANY).map(|number| network(set, number));
            write(&format!("deny-{set}"), &mut networks)
        };
        let policy = |set: u8| {
            let mut networks = shuffled(MANY).map(|number| network(set, number));
            let deny = (MANY - ALLOWED) as usize;
            let deny = write(
                &format!("policy-deny-{set}"),
                &mut networks.by_ref().take(deny),
            )?;
            let apart = |number| network(set + 3, number);
            let mut allowed = shuffled(ALLOWED).map(apart);
            let allow = write(&format!("policy-allow-{set}"), &mut allowed)?;
            Ok::<_, anyhow::Error>(format!(
                "deny_files = [{deny:?}]\nallow_files = [{allow:?}]\n"
            ))
        };
        Ok(Self {
            addresses: write("addresses", &mut shuffled(MANY).map(address))?,
            denied: [denied(0)?, denied(1)?],
            policies: [policy(0)?, policy(1)?, policy(2)?],
            _scratch: scratch,
        })
    }
}

/// The numbers below `count`, in no order.
fn shuffled(count: u32) -> impl Iterator<Item = u32> {
    const PRIME: u64 = 7_919;
    (0..count).map(move |place| (u64::from(place) * PRIME % u64::from(count)) as u32)
}

/// An address of which the neighbours are not listed.
fn address(number: u32) -> IpNet {
    IpNet::from(std::net::IpAddr::from(Ipv4Addr::from_bits(
        (11 << 24) + 4 * number,
    )))
}

/// A network of one of six sets. Of each set, some lie in others; no two sets
/// have one in common.
fn network(set: u8, number: u32) -> IpNet {
    let place = number / 10;
    let ipv4 = |first: u8, prefix: u8| {
        let first = u32::from(first + 8 * set) << 24;
        let address = Ipv4Addr::from_bits(first + (place << (32 - prefix)));
        ipnet::Ipv4Net::new_assert(address, prefix).into()
    };
    let ipv6 = |first: u16, prefix: u8| {
        let first = u128::from(first + u16::from(set)) << 112;
        let address = Ipv6Addr::from_bits(first + (u128::from(place) << (128 - prefix)));
        ipnet::Ipv6Net::new_assert(address, prefix).into()
    };
    match number % 10 {
        0..=3 => {
            let first = u32::from(16 + 8 * set) << 24;
            let address = first + 4 * (4 * place + number % 10);
            std::net::IpAddr::from(Ipv4Addr::from_bits(address)).into()
        }
        4 => ipv4(17, 28),
        5 => ipv4(17, 24),
        6 => ipv4(18, 22),
        7 => ipv6(0x2a00, 48),
        8 => ipv6(0x2a10, 64),
        _ => ipv6(0x2a10, 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_network_twice() {
        let all: HashSet<IpNet> = (0..6)
            .flat_map(|set| (0..MANY).map(move |number| network(set, number)))
            .collect();
        assert_eq!(all.len(), 6 * MANY as usize);
        let numbers: HashSet<u32> = shuffled(MANY).collect();
        assert_eq!(numbers.len(), MANY as usize);
    }

    #[test]
    fn none_contains_a_source_that_is_watched() {
        for set in 0..6 {
            for network in (0..MANY).map(|number| network(set, number)) {
                for (source, _) in crate::site::WATCHED {
                    let source: std::net::IpAddr = source.parse().unwrap();
                    assert!(!network.contains(&source), "{network} has {source}");
                }
            }
        }
    }
}
