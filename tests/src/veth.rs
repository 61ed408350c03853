//! Pairs of virtual interfaces between two namespaces.

use crate::{netns::Namespace, wait};
use anyhow::Result;
use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// How a pair is made. Pairs of one namespace need different numbers.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Part of the names, addresses and hardware addresses.
    pub number: u8,
    /// Receive and transmit queues of each end.
    pub queues: u32,
    /// The largest packet.
    pub mtu: u32,
    /// Whether the ends speak IPv6. Without it nothing is sent that a test
    /// did not send.
    pub ipv6: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            number: 1,
            queues: 1,
            mtu: 1500,
            ipv6: true,
        }
    }
}

/// A pair, up, with addresses and the neighbour already known: no ARP.
#[derive(Clone, Debug)]
pub struct Veth {
    /// The end in the first namespace.
    pub left: End,
    /// The end in the second namespace.
    pub right: End,
}

/// One end of a pair.
#[derive(Clone, Debug)]
pub struct End {
    /// Where it is.
    pub namespace: Namespace,
    /// Its name there.
    pub name: String,
    /// Its index there.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// `10.NUMBER.0.1` left, `10.NUMBER.0.2` right, both in a /24.
    pub ipv4: Ipv4Addr,
    /// `fd00:NUMBER::1` left, `fd00:NUMBER::2` right, both in a /64.
    pub ipv6: Ipv6Addr,
}

impl Veth {
    /// Makes a pair between two namespaces. It goes with either of them.
    pub fn new(left: &Namespace, right: &Namespace, options: Options) -> Result<Self> {
        let Options {
            number,
            queues,
            mtu,
            ipv6,
        } = options;
        let mut pair = Self {
            left: End::new(left, number, 1),
            right: End::new(right, number, 2),
        };
        let link = |end: &End| {
            let (name, mac) = (&end.name, text(end.mac));
            format!("name {name} address {mac} mtu {mtu} numrxqueues {queues} numtxqueues {queues}")
        };
        left.ip(&format!(
            "link add {} type veth peer {} netns {}",
            link(&pair.left),
            link(&pair.right),
            right.path().display()
        ))?;
        let (a, b) = (pair.left.clone(), pair.right.clone());
        pair.left.configure(&b, ipv6)?;
        pair.right.configure(&a, ipv6)?;
        for end in [&pair.left, &pair.right] {
            wait::until("the carrier", wait::SOON, || {
                let shown = end.namespace.ip(&format!("link show dev {}", end.name))?;
                Ok(shown.contains("\"operstate\":\"UP\"").then_some(()))
            })?;
        }
        Ok(pair)
    }
}

impl End {
    fn new(namespace: &Namespace, number: u8, side: u8) -> Self {
        Self {
            namespace: namespace.clone(),
            name: format!("veth{number}-{side}"),
            index: 0,
            mac: [2, 0, 0, 0, number, side],
            ipv4: Ipv4Addr::new(10, number, 0, side),
            ipv6: Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, side.into()),
        }
    }

    /// Its address of the family of `other`.
    pub fn address(&self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => self.ipv4.into(),
            IpAddr::V6(_) => self.ipv6.into(),
        }
    }

    fn configure(&mut self, peer: &Self, ipv6: bool) -> Result<()> {
        let name = &self.name;
        // No address of the kernel's own choosing, whose detection would be
        // seen as traffic.
        self.namespace
            .set(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
        let disable = if ipv6 { "0" } else { "1" };
        self.namespace
            .set(&format!("ipv6/conf/{name}/disable_ipv6"), disable)?;
        let mac = text(peer.mac);
        let mut lines = format!(
            "addr add {}/24 dev {name}\nlink set {name} up\n\
             neigh add {} lladdr {mac} dev {name} nud permanent\n",
            self.ipv4, peer.ipv4
        );
        if ipv6 {
            let (own, other) = (self.ipv6, peer.ipv6);
            write!(
                lines,
                "addr add {own}/64 dev {name} nodad\n\
                 neigh add {other} lladdr {mac} dev {name} nud permanent\n"
            )?;
        }
        self.namespace.ip(&lines)?;
        self.index = self.namespace.run(|| index(name))?;
        Ok(())
    }
}

/// The index of an interface in this thread's namespace.
fn index(name: &str) -> Result<u32> {
    let c_name = std::ffi::CString::new(name)?;
    // SAFETY: a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    anyhow::ensure!(index != 0, "no interface {name}");
    Ok(index)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
