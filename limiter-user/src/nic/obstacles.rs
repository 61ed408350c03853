//! What keeps a program from being attached in native mode, as far as it shows
//! beforehand.

use super::driver::{Driver, Queues, known};
use super::{Nic, interrupts};

/// The machine that an interface is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that may ever be there.
    pub cpus: u32,
    /// Bytes in a page.
    pub page_bytes: u32,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn read() -> Self {
        let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible");
        let cpus = interrupts::cpus(&possible.unwrap_or_default()).len();
        // SAFETY: a question without pointers.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Self {
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX).max(1),
            page_bytes: u32::try_from(page_bytes).unwrap_or(4_096),
        }
    }
}

/// Where an obstacle lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The driver, or the bond's mode.
    Driver,
    /// Large receive offload.
    Lro,
    /// What the host of a virtual machine does.
    Host,
    /// The size of frames.
    Mtu,
    /// The number or the kind of queues.
    Queues,
}

/// Something that keeps a program from being attached in native mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Where it lies.
    pub cause: Cause,
    /// What, in words that can follow on "native mode fails: ".
    pub what: String,
    /// The command that takes it away.
    pub mend: Option<String>,
    /// What the kernel answers then.
    pub errors: &'static [i32],
}

/// What keeps a program from being attached to `nic` in native mode, as far as
/// can be known before it is tried.
#[must_use]
pub fn obstacles(nic: &Nic, machine: Machine) -> Vec<Obstacle> {
    let known = nic.driver.as_deref().and_then(known);
    let found = [
        no_native(nic, known),
        lro(nic, known),
        host_offload(nic),
        mtu(nic, known, machine),
        queues(nic, known, machine),
    ];
    found.into_iter().flatten().collect()
}

fn obstacle(
    cause: Cause,
    what: String,
    mend: Option<String>,
    errors: &'static [i32],
) -> Option<Obstacle> {
    Some(Obstacle {
        cause,
        what,
        mend,
        errors,
    })
}

fn no_native(nic: &Nic, known: Option<&Driver>) -> Option<Obstacle> {
    let errors = &[libc::EOPNOTSUPP];
    if let Some(bond) = nic.link.bond {
        if bond.has_native {
            return None;
        }
        let what = format!("a bond in mode {} runs no program natively", bond.mode);
        return obstacle(Cause::Driver, what, None, errors);
    }
    let knows_none = known.is_some_and(|driver| driver.attaching.is_none());
    if nic.has_native() == Some(false) || (nic.has_native().is_none() && knows_none) {
        let name = nic.driver.as_deref();
        let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
        return obstacle(
            Cause::Driver,
            format!("its driver{name} has no XDP"),
            None,
            errors,
        );
    }
    None
}

fn lro(nic: &Nic, known: Option<&Driver>) -> Option<Obstacle> {
    let is_on = nic.lro.is_some_and(|lro| lro.on);
    if !is_on || !known?.no_lro {
        return None;
    }
    let what = "large receive offload (LRO) is on".to_owned();
    let mend = format!("ethtool -K {} lro off", nic.name());
    obstacle(Cause::Lro, what, Some(mend), &[libc::EINVAL])
}

/// virtio_net: what the host may join or leave unchecked, and the bit by which
/// the guest turns that off.
const GUEST_OFFLOADS: u64 = 1 << 1 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 54 | 1 << 55;
const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;

fn host_offload(nic: &Nic) -> Option<Obstacle> {
    let agreed = nic.virtio?;
    if agreed & GUEST_OFFLOADS == 0 || agreed & CTRL_GUEST_OFFLOADS != 0 {
        return None;
    }
    let what = "the host leaves checksums to the guest or joins packets for it (GRO_HW), and does \
                not let it turn that off (ctrl_guest_offloads)";
    let mend = "on the host, for qemu: -device virtio-net-pci,ctrl_guest_offloads=on";
    obstacle(
        Cause::Host,
        what.to_owned(),
        Some(mend.to_owned()),
        &[libc::EOPNOTSUPP],
    )
}

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: u32 = 14;

/// An MTU that every driver's XDP takes.
const COMMON_MTU: u32 = 1_500;

fn mtu(nic: &Nic, known: Option<&Driver>, machine: Machine) -> Option<Obstacle> {
    let mtu = nic.link.mtu;
    let errors = &[libc::EINVAL, libc::ERANGE, libc::EOPNOTSUPP];
    let mend = format!("ip link set {} mtu {COMMON_MTU}", nic.name());
    if let Some(most) = known.and_then(|driver| driver.mtu_max)
        && mtu > most
    {
        let what = format!("its MTU is {mtu}, and its driver's XDP takes {most} at most");
        return obstacle(Cause::Mtu, what, Some(mend), errors);
    }
    if nic.takes_one_buffer() && mtu.saturating_add(ETHERNET_BYTES) > machine.page_bytes {
        let what = format!(
            "its MTU is {mtu}, and its driver's XDP takes no frame of more than a page ({} bytes)",
            machine.page_bytes
        );
        return obstacle(Cause::Mtu, what, Some(mend), errors);
    }
    None
}

fn queues(nic: &Nic, known: Option<&Driver>, machine: Machine) -> Option<Obstacle> {
    let channels = nic.channels;
    let name = nic.name();
    match known?.queues {
        Queues::Any => None,
        Queues::Half => {
            let channels = channels.filter(|it| it.combined > it.combined_max / 2)?;
            let half = channels.combined_max / 2;
            let what = format!(
                "{} of {} queues are in use, and its driver's XDP needs half of them for itself",
                channels.combined, channels.combined_max
            );
            let mend = (half > 0).then(|| format!("ethtool -L {name} combined {half}"));
            obstacle(Cause::Queues, what, mend, &[libc::EINVAL])
        }
        Queues::Combined => {
            let channels = channels.filter(|it| it.combined == 0 && it.receive > 0)?;
            let what = "its queues receive or transmit, and its driver's XDP wants combined ones";
            let mend = format!("ethtool -L {name} rx 0 tx 0 combined {}", channels.receive);
            obstacle(
                Cause::Queues,
                what.to_owned(),
                Some(mend),
                &[libc::EOPNOTSUPP],
            )
        }
        Queues::HalfOfCpus => {
            let made = nic.link.transmit_queues;
            if made == 0 || made >= machine.cpus / 2 {
                return None;
            }
            let what = format!(
                "it has {made} transmit queues, and its driver's XDP needs one for every second \
                 of {} CPUs",
                machine.cpus
            );
            obstacle(Cause::Queues, what, None, &[libc::ENOMEM])
        }
        Queues::CpusAtMost(most) if machine.cpus > most => {
            let what = format!(
                "its driver's XDP has transmit queues for {most} CPUs at most, and this machine \
                 may have {}",
                machine.cpus
            );
            obstacle(Cause::Queues, what, None, &[libc::ENOMEM])
        }
        Queues::CpusAtMost(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{BondMode, BondXmitHashPolicy};

    use super::super::samples;
    use super::*;

    const MACHINE: Machine = Machine {
        cpus: 8,
        page_bytes: 4_096,
    };
    /// BASIC, REDIRECT, NDO_XMIT, XSK_ZEROCOPY, RX_SG.
    const ALL: Option<u64> = Some(0b10_1111);
    const NO_SG: Option<u64> = Some(0b00_0111);

    #[track_caller]
    fn is(nic: &Nic, expected: &[(&str, Option<&str>, i32)]) {
        let found = obstacles(nic, MACHINE);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, (what, mend, error)) in found.iter().zip(expected) {
            assert!(found.what.contains(what), "{what:?} in {found:?}");
            assert_eq!(found.mend.as_deref(), *mend);
            assert!(found.errors.contains(error), "{found:?}");
        }
    }

    #[test]
    fn nothing_is_in_the_way() {
        for name in [
            "ixgbe",
            "i40e",
            "ice",
            "mlx5_core",
            "virtio_net",
            "ena",
            "bnxt_en",
            "igb",
        ] {
            let mut nic = samples::hardware(name, ALL, (4, 8), &[]);
            is(&nic, &[]);
            // Nor where the kernel is too old to say.
            nic.xdp_features = None;
            is(&nic, &[]);
        }
    }

    #[test]
    fn drivers_without_xdp() {
        for name in ["tg3", "r8169", "e1000e"] {
            let words = format!("its driver ({name}) has no XDP");
            for features in [None, Some(0)] {
                let nic = samples::hardware(name, features, (1, 1), &[]);
                is(&nic, &[(&words, None, libc::EOPNOTSUPP)]);
            }
        }
        // What the kernel says goes before what is known.
        is(&samples::hardware("tg3", ALL, (1, 1), &[]), &[]);
        is(&samples::hardware("novel", None, (1, 1), &[]), &[]);
    }

    #[test]
    fn lro_where_the_driver_minds() {
        for name in ["ixgbe", "mlx5_core"] {
            let nic = samples::hardware(name, ALL, (4, 8), &["rx-lro"]);
            is(
                &nic,
                &[("LRO", Some("ethtool -K eth0 lro off"), libc::EINVAL)],
            );
        }
        let nic = samples::hardware("bnxt_en", ALL, (4, 8), &["rx-lro"]);
        is(&nic, &[]);
    }

    #[test]
    fn frames_that_are_too_large() {
        let mut nic = samples::hardware("igb", NO_SG, (4, 8), &[]);
        nic.link.mtu = 9_000;
        let what = "its MTU is 9000, and its driver's XDP takes no frame of more than a page";
        is(
            &nic,
            &[(what, Some("ip link set eth0 mtu 1500"), libc::EINVAL)],
        );
        nic.link.mtu = 4_082;
        is(&nic, &[]);
        nic.link.mtu = 4_083;
        assert_eq!(obstacles(&nic, MACHINE).len(), 1);
        nic.xdp_features = ALL;
        is(&nic, &[]);
        nic.driver = Some("igc".to_owned());
        nic.link.mtu = 1_501;
        is(
            &nic,
            &[(
                "takes 1500",
                Some("ip link set eth0 mtu 1500"),
                libc::EOPNOTSUPP,
            )],
        );
    }

    #[test]
    fn queues_that_do_not_suffice() {
        let nic = samples::hardware("ena", ALL, (8, 8), &[]);
        let mend = Some("ethtool -L eth0 combined 4");
        is(&nic, &[("8 of 8 queues are in use", mend, libc::EINVAL)]);

        let mut nic = samples::hardware("bnxt_en", ALL, (0, 8), &[]);
        let channels = nic.channels.as_mut().unwrap();
        (channels.receive, channels.transmit) = (4, 4);
        let mend = Some("ethtool -L eth0 rx 0 tx 0 combined 4");
        is(&nic, &[("wants combined ones", mend, libc::EOPNOTSUPP)]);

        let mut nic = samples::hardware("ice", ALL, (1, 1), &[]);
        nic.link.transmit_queues = 3;
        is(&nic, &[("3 transmit queues", None, libc::ENOMEM)]);

        let nic = samples::hardware("ixgbe", ALL, (8, 63), &[]);
        let machine = Machine {
            cpus: 256,
            ..MACHINE
        };
        let found = obstacles(&nic, machine);
        assert!(found[0].what.contains("for 128 CPUs at most"), "{found:?}");
    }

    #[test]
    fn a_host_that_joins_packets() {
        let mut nic = samples::hardware("virtio_net", ALL, (4, 4), &["rx-gro-hw"]);
        let all = GUEST_OFFLOADS | CTRL_GUEST_OFFLOADS;
        for (agreed, is_in_the_way) in [
            (Some(GUEST_OFFLOADS), true),
            (Some(1 << 1), true),
            (Some(all), false),
            (Some(1), false),
            (None, false),
        ] {
            nic.virtio = agreed;
            let found = obstacles(&nic, MACHINE);
            assert_eq!(!found.is_empty(), is_in_the_way, "{agreed:x?}");
        }
    }

    #[test]
    fn bonds_by_their_mode() {
        let bond = |mode| Nic {
            link: samples::bond(5, mode, BondXmitHashPolicy::Layer2),
            driver: Some("bonding".to_owned()),
            ..Nic::default()
        };
        is(&bond(BondMode::ActiveBackup), &[]);
        let what = "a bond in mode balance-alb";
        is(
            &bond(BondMode::BalanceAlb),
            &[(what, None, libc::EOPNOTSUPP)],
        );
    }
}
