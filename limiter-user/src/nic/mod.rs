//! Interfaces, as the kernel tells of them: what they are, how they hang
//! together, what stands in the way of XDP. Nothing is changed.
//!
//! What the kernel answers is parsed by functions of bytes, so that recorded
//! answers go the way of live ones.

pub mod driver;
mod ethtool;
mod generic;
pub mod interrupts;
pub mod link;
mod netdev;
pub mod obstacles;
pub mod place;
pub mod sockets;
mod talk;

use std::io;

pub use ethtool::{Channels, Switch};
pub use link::{Bond, Link};

/// An interface with what its driver says of it. What the kernel did not tell
/// is `None`: it is older, or the driver has no word for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// What every interface has.
    pub link: Link,
    /// The driver's name.
    pub driver: Option<String>,
    /// What the driver can do with XDP: a word of `NETDEV_XDP_ACT_*` (Linux
    /// 6.3).
    pub xdp_features: Option<u64>,
    /// Queues in use and how many there may be.
    pub channels: Option<Channels>,
    /// Large receive offload, which joins packets in the NIC and spoils
    /// them for forwarding.
    pub lro: Option<Switch>,
    /// The same as GRO does it, undone without loss.
    pub gro_hw: Option<Switch>,
    /// Of a virtio device, what it and the driver agreed on, a bit for each
    /// `VIRTIO_NET_F_*`.
    pub virtio: Option<u64>,
}

/// `NETDEV_XDP_ACT_BASIC`: native mode.
const BASIC: u64 = 1;
/// `NETDEV_XDP_ACT_RX_SG`: frames of several buffers.
const SEVERAL_BUFFERS: u64 = 32;

impl Nic {
    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// Whether the driver runs XDP programs itself, where the kernel says.
    #[must_use]
    pub fn has_native(&self) -> Option<bool> {
        self.xdp_features.map(|word| word & BASIC != 0)
    }

    /// Whether the driver hands frames of several buffers to the program, where
    /// the kernel says.
    #[must_use]
    pub fn has_several_buffers(&self) -> Option<bool> {
        self.xdp_features.map(|word| word & SEVERAL_BUFFERS != 0)
    }

    /// Whether the driver runs programs, and hands them frames of one buffer
    /// only; false where the kernel does not say. A bond is as its ports are.
    #[must_use]
    pub fn takes_one_buffer(&self) -> bool {
        let says_one = self.has_several_buffers() == Some(false);
        self.has_native() == Some(true) && says_one && self.link.bond.is_none()
    }

    /// Queues that receive.
    #[must_use]
    pub fn receive_queues(&self) -> u32 {
        let channels = self.channels.map(|it| it.combined + it.receive);
        channels
            .filter(|queues| *queues > 0)
            .unwrap_or(self.link.receive_queues)
    }
}

/// Every interface of this network namespace, by index.
///
/// # Errors
/// The kernel does not say.
pub fn links() -> io::Result<Vec<Link>> {
    link::read()
}

/// What the driver says of an interface. A question that the kernel or the
/// driver does not know stays without an answer.
#[must_use]
pub fn ask(link: Link) -> Nic {
    let driver = ethtool::driver(&link.name);
    let mut nic = Nic {
        driver,
        ..Nic::default()
    };
    if let Ok(family) = generic::family("netdev") {
        nic.xdp_features = netdev::xdp_features(family, link.index).ok().flatten();
    }
    if let Ok(family) = generic::family("ethtool") {
        let features = ethtool::features(family, link.index).unwrap_or_default();
        nic.lro = features.switch("rx-lro");
        nic.gro_hw = features.switch("rx-gro-hw");
        nic.channels = ethtool::channels(family, link.index).ok();
    }
    nic.virtio = link.parent.as_ref().and_then(virtio);
    nic.link = link;
    nic
}

fn virtio(parent: &link::Parent) -> Option<u64> {
    let file = format!("/sys/bus/virtio/devices/{}/features", parent.name);
    let text = (parent.bus == "virtio").then(|| std::fs::read_to_string(file).ok())?;
    Some(virtio_features(&text?))
}

/// A digit for each bit, the lowest first.
fn virtio_features(text: &str) -> u64 {
    let digits = text.trim().bytes().take(64).enumerate();
    let set = digits.filter(|(_, digit)| *digit == b'1');
    set.fold(0, |word, (bit, _)| word | 1 << bit)
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
