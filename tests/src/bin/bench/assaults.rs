//! The attacks of section `established`: what is sent, and from where it
//! claims to come.

use crate::policies::WEB;
use limiter_tests::{
    flood::Sources,
    frames::{ACK, Frame, SYN, Upper},
    veth::Veth,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first of a million bots.
const BOTS: Ipv4Addr = Ipv4Addr::new(64, 0, 0, 0);
/// The one /48 of an attack, 2001:db8:b07::.
const PREFIX: [u16; 3] = [0x2001, 0xdb8, 0xb07];

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assault {
    /// TCP flags of each packet.
    flags: u8,
    from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// All that IPv4 has, at random: each is seen about once.
    Anywhere,
    /// A million IPv4 addresses, at random.
    Botnet,
    /// Any /64 of 2000::/3, at random.
    AnywhereV6,
    /// The 65,536 /64s of one /48, at random.
    OnePrefix,
    /// The same, and they came before the attack.
    KnownPrefix,
}

impl Assault {
    /// All that are measured.
    pub(crate) const ALL: [Self; 9] = {
        const fn of(flags: u8, from: From) -> Assault {
            Assault { flags, from }
        }
        [
            of(ACK, From::Anywhere),
            of(ACK, From::Botnet),
            of(SYN, From::Anywhere),
            of(SYN, From::Botnet),
            of(ACK, From::AnywhereV6),
            of(ACK, From::OnePrefix),
            of(ACK, From::KnownPrefix),
            of(SYN, From::AnywhereV6),
            of(SYN, From::OnePrefix),
        ]
    };

    pub(crate) fn name(self) -> String {
        let flags = if self.flags == SYN { "SYNs" } else { "ACKs" };
        let from = match self.from {
            From::Anywhere => "2³² sources",
            From::Botnet => "1 M sources",
            From::AnywhereV6 => "IPv6, any /64",
            From::OnePrefix => "IPv6, one /48",
            From::KnownPrefix => "IPv6, one known /48",
        };
        format!("{flags}, {from}")
    }

    pub(crate) const fn is_ipv6(self) -> bool {
        !matches!(self.from, From::Anywhere | From::Botnet)
    }

    /// Who fills the table beforehand: the attack's own sources, but not those
    /// of one /48, who come all at once.
    pub(crate) const fn vanguard(self) -> Self {
        let from = match self.from {
            From::OnePrefix => From::AnywhereV6,
            other => other,
        };
        Self { from, ..self }
    }

    pub(crate) fn sources(self) -> Sources {
        let random = |first, count| Sources::Random { first, count };
        match self.from {
            From::Anywhere => random(0, 0),
            From::Botnet => random(u32::from(BOTS), 1_000_000),
            From::AnywhereV6 => Sources::AnyGlobal,
            // The second word of the source ends the /48 and begins the /64.
            From::OnePrefix | From::KnownPrefix => random(u32::from(PREFIX[2]) << 16, 1 << 16),
        }
    }

    /// What is copied.
    pub(crate) fn frame(self, pair: &Veth) -> Vec<u8> {
        let source: IpAddr = match self.from {
            From::Anywhere | From::Botnet => BOTS.into(),
            From::AnywhereV6 | From::OnePrefix | From::KnownPrefix => {
                let [a, b, c] = PREFIX;
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 1).into()
            }
        };
        packet(pair, source, self.flags)
    }
}

/// A TCP packet of no connection to the limited port.
pub(crate) fn packet(pair: &Veth, source: IpAddr, flags: u8) -> Vec<u8> {
    let upper = Upper::Tcp {
        from: 40_000,
        to: WEB,
        flags,
    };
    let (left, right) = (&pair.left, &pair.right);
    let frame = Frame::new(source, right.address(source), upper);
    frame.macs(left.mac, right.mac).padded(60).build()
}
