//! The packets that are measured, and what must become of them.

use crate::{
    limiter::Limiter,
    policies::{HOST_V4, HOST_V6, SHARED, Shape, TIGHT, WEB, blocked},
};
use anyhow::{Context as _, Result};
use ipnet::IpNet;
use limiter_tests::frames::{ACK, Frame, SYN, Tag, Upper};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where measured packets come from.
pub(crate) const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The same of IPv6.
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
/// Somebody else.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
/// The length of a frame where its headers leave room: the shortest on a wire,
/// without checksum.
const SHORTEST: usize = 60;

/// A packet of one kind.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
    /// What it meets when it is not the first: action, reason and limit.
    pub(crate) expected: &'static str,
}

impl Case {
    fn new(name: &'static str, frame: &Frame, expected: &'static str) -> Self {
        let frame = frame.clone().padded(SHORTEST).build();
        Self {
            name,
            frame,
            expected,
        }
    }

    /// Makes the source a known one, and uses up what little it may have.
    pub(crate) fn warm(&self, limiter: &Limiter) -> Result<()> {
        limiter.plane.test_run(&self.frame, 100)?;
        Ok(())
    }
}

/// The first row: a known source that passes.
pub(crate) fn passing() -> Vec<u8> {
    from(SOURCE.into(), WEB, ACK).padded(SHORTEST).build()
}

/// All rows, the first one first.
pub(crate) fn cases(shape: &Shape) -> Result<Vec<Case>> {
    let listed = |networks: std::collections::BTreeSet<IpNet>| {
        let first = networks.into_iter().find(|it| it.addr().is_ipv4());
        first.map(|it| it.addr()).context("no IPv4 network listed")
    };
    let passing = from(SOURCE.into(), WEB, ACK);
    let tagged = passing.clone().tag(Tag::Service(5)).tag(Tag::Customer(6));
    let v6 = from(SOURCE_V6.into(), WEB, ACK);
    let allowed = from(listed(shape.allow())?, WEB, ACK);
    let denied = from(listed(shape.deny())?, WEB, ACK);
    Ok(vec![
        Case::new("known, passes", &passing, "pass limit web"),
        Case::new(
            "over the limit",
            &from(SOURCE.into(), TIGHT, ACK),
            "drop limit:packets tight",
        ),
        Case::new("blocked", &from(blocked(0).addr(), WEB, ACK), "drop block"),
        Case::new("allowed", &allowed, "pass allow"),
        Case::new("denied", &denied, "drop deny"),
        Case::new("IPv6", &v6, "pass limit web"),
        Case::new("two VLAN tags", &tagged, "pass limit web"),
        Case::new("TCP SYN", &from(SOURCE.into(), WEB, SYN), "pass limit web"),
        Case::new(
            "a port with `to`",
            &from(SOURCE.into(), SHARED, ACK),
            "pass limit here",
        ),
    ])
}

/// A TCP packet to the host.
pub(crate) fn from(source: IpAddr, to: u16, flags: u8) -> Frame {
    let host = if source.is_ipv4() { HOST_V4 } else { HOST_V6 };
    let host = host.parse().unwrap_or(source);
    let upper = Upper::Tcp {
        from: 40_000,
        to,
        flags,
    };
    Frame::new(source, host, upper)
}
