//! What drivers do when an XDP program is put on their interface, and what they
//! want first.
//!
//! From the kernel's sources, which the table names. A driver that is not in it
//! is not known, and nothing is guessed about it.

/// What attaching does to an interface that carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attaching {
    /// Nothing that a packet would notice, or a pause too short to lose one.
    Smooth,
    /// The queues are made anew: packets of that moment are lost, the link
    /// stays.
    Queues,
    /// The interface is stopped or reset, and started again: the carrier may be
    /// gone for seconds.
    Interface,
}

/// What is known of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// As `ethtool -i` says.
    pub name: &'static str,
    /// What attaching in native mode does; `None`: it has no native mode.
    pub attaching: Option<Attaching>,
    /// The largest MTU, where it is fixed.
    pub(super) mtu_max: Option<u32>,
    /// Whether LRO has to be off.
    pub(super) no_lro: bool,
    /// What they must be like.
    pub(super) queues: Queues,
}

/// What a driver wants of its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queues {
    /// Whatever there is.
    Any,
    /// At most half of those there may be, as the other half transmits.
    Half,
    /// No separate ones for receiving and transmitting.
    Combined,
    /// A transmitting one for every second possible CPU.
    HalfOfCpus,
    /// At most twice as many CPUs as this.
    CpusAtMost(u32),
}

const fn driver(name: &'static str, attaching: Attaching) -> Driver {
    Driver {
        name,
        attaching: Some(attaching),
        mtu_max: None,
        no_lro: false,
        queues: Queues::Any,
    }
}

const fn without_native(name: &'static str) -> Driver {
    Driver {
        attaching: None,
        ..driver(name, Attaching::Smooth)
    }
}

/// Read in Linux 5.19 to 6.12.
const DRIVERS: &[Driver] = &[
    // bnxt_xdp_set in drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c: bnxt_close_nic
    // and bnxt_open_nic without the link; "channels must be combined"; EOPNOTSUPP.
    Driver {
        queues: Queues::Combined,
        ..driver("bnxt_en", Attaching::Queues)
    },
    // No ndo_bpf in drivers/net/ethernet/intel/e1000e/netdev.c.
    without_native("e1000e"),
    // ena_xdp_set in drivers/net/ethernet/amazon/ena/ena_xdp.c: ena_down and
    // ena_up; "at most half of the maximum allowed channel count"; EINVAL.
    Driver {
        queues: Queues::Half,
        ..driver("ena", Attaching::Interface)
    },
    // i40e_xdp_setup in drivers/net/ethernet/intel/i40e/i40e_main.c:
    // i40e_prep_for_reset and i40e_reset_and_rebuild; EINVAL for the MTU.
    driver("i40e", Attaching::Interface),
    // ice_xdp_setup_prog in drivers/net/ethernet/intel/ice/ice_main.c: ice_down
    // and ice_up; ice_vsi_determine_xdp_res; ENOMEM.
    Driver {
        queues: Queues::HalfOfCpus,
        ..driver("ice", Attaching::Interface)
    },
    // igb_xdp_setup in drivers/net/ethernet/intel/igb/igb_main.c: igb_close and
    // igb_open; EINVAL for the MTU.
    driver("igb", Attaching::Interface),
    // igc_xdp_set_prog in drivers/net/ethernet/intel/igc/igc_xdp.c: igc_close and
    // igc_open, only the rings in later versions; ETH_DATA_LEN; EOPNOTSUPP.
    Driver {
        mtu_max: Some(1_500),
        ..driver("igc", Attaching::Interface)
    },
    // ixgbe_xdp_setup in drivers/net/ethernet/intel/ixgbe/ixgbe_main.c:
    // ixgbe_setup_tc, which closes and opens; ring_is_rsc_enabled, EINVAL;
    // IXGBE_MAX_XDP_QS (64) twice, ENOMEM.
    Driver {
        no_lro: true,
        queues: Queues::CpusAtMost(128),
        ..driver("ixgbe", Attaching::Interface)
    },
    // mlx5e_xdp_set in drivers/net/ethernet/mellanox/mlx5/core/en_main.c:
    // mlx5e_safe_switch_channels; mlx5e_xdp_allowed, EINVAL for LRO and the MTU.
    Driver {
        no_lro: true,
        ..driver("mlx5_core", Attaching::Queues)
    },
    // No ndo_bpf in drivers/net/ethernet/realtek/r8169_main.c.
    without_native("r8169"),
    // No ndo_bpf in drivers/net/ethernet/broadcom/tg3.c.
    without_native("tg3"),
    // tun_xdp_set in drivers/net/tun.c.
    driver("tun", Attaching::Smooth),
    // veth_xdp_set in drivers/net/veth.c: ENOSPC for queues, ERANGE for the MTU.
    driver("veth", Attaching::Smooth),
    // virtnet_xdp_set in drivers/net/virtio_net.c: napi_disable and
    // napi_enable; EOPNOTSUPP for the host's GRO_HW. Too few queues are none
    // of an obstacle since commit 97c2c69e1926 (5.13).
    driver("virtio_net", Attaching::Smooth),
];

/// What is known of the driver of this name.
#[must_use]
pub fn known(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_stands_there_once() {
        let names: std::collections::BTreeSet<_> = DRIVERS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), DRIVERS.len());
        assert_eq!(
            known("ixgbe").unwrap().attaching,
            Some(Attaching::Interface)
        );
        assert_eq!(known("novel"), None);
    }
}
