//! Why a program could not be attached, in words.

use crate::nic::{
    self, Nic,
    obstacles::{Machine, obstacles},
};
use std::io;

/// The kernel answers with a number; what it means, the interface itself shows.
pub(super) fn in_words(error: &io::Error, index: u32) -> String {
    let links = nic::links().unwrap_or_default();
    let link = links.into_iter().find(|link| link.index == index);
    let nic = link.map(nic::ask).unwrap_or_default();
    explain(error, &nic, Machine::read())
}

fn explain(error: &io::Error, nic: &Nic, machine: Machine) -> String {
    let number = error.raw_os_error().unwrap_or(0);
    if nic.link.port_of.as_deref() == Some("bond") {
        return "it is a port of a bond, which takes the program for all its ports".to_owned();
    }
    let mut found = obstacles(nic, machine);
    found.retain(|obstacle| obstacle.errors.contains(&number));
    if found.is_empty() {
        return by_number(error, nic);
    }
    let words = found.into_iter().map(|it| match it.mend {
        Some(mend) => format!("{} (`{mend}`)", it.what),
        None => it.what,
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Where the interface shows nothing that would be in the way.
fn by_number(error: &io::Error, nic: &Nic) -> String {
    let mtu = match nic.link.mtu {
        0 => String::new(),
        mtu => format!(" ({mtu})"),
    };
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => match &nic.driver {
            Some(name) => format!("its driver ({name}) has no XDP, or not as it is set up now"),
            None => "its driver has no XDP".to_owned(),
        },
        Some(libc::ERANGE) => format!("its MTU{mtu} is too large for its driver's XDP"),
        Some(libc::ENOSPC) if nic.driver.as_deref() == Some("veth") => format!(
            "its peer sends on more queues than it receives on ({}): `ethtool -L {} rx N`, or \
             fewer at the peer",
            nic.receive_queues(),
            nic.name()
        ),
        Some(libc::ENOMEM | libc::ENOSPC) => {
            "its driver has too few queues or too little memory".to_owned()
        }
        Some(libc::EEXIST) => "an interface that stands on it has a program".to_owned(),
        Some(libc::ENOTCONN) => "its peer is gone".to_owned(),
        Some(libc::EINVAL) => format!(
            "its driver finds the request invalid: its MTU{mtu}, LRO or its queues may be the \
             reason; `dmesg` may say"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::samples;
    use netlink_packet_route::link::InfoPortKind;

    const MACHINE: Machine = Machine {
        cpus: 8,
        page_bytes: 4_096,
    };

    #[track_caller]
    fn says(number: i32, nic: &Nic, part: &str) {
        let words = explain(&io::Error::from_raw_os_error(number), nic, MACHINE);
        assert!(words.contains(part), "{part:?} in {words:?}");
    }

    #[test]
    fn what_the_interface_shows_explains_the_number() {
        let nic = samples::hardware("mlx5_core", Some(1), (4, 8), &["rx-lro"]);
        says(libc::EINVAL, &nic, "LRO) is on (`ethtool -K eth0 lro off`)");
        // Another number has another reason.
        says(libc::ENOMEM, &nic, "too few queues or too little memory");
        let nic = samples::hardware("ena", Some(1), (8, 8), &[]);
        says(libc::EINVAL, &nic, "`ethtool -L eth0 combined 4`");
        let nic = samples::hardware("tg3", Some(0), (1, 1), &[]);
        says(libc::EOPNOTSUPP, &nic, "its driver (tg3) has no XDP");
        let mut nic = samples::hardware("igb", Some(1), (4, 8), &[]);
        nic.link.mtu = 9_000;
        says(libc::EINVAL, &nic, "its MTU is 9000");
        nic.link = samples::port(2, "eth0", 5, InfoPortKind::Bond);
        says(libc::EINVAL, &nic, "a port of a bond");
    }

    #[test]
    fn where_it_shows_nothing_the_number_has_to_do() {
        let nic = samples::hardware("novel", None, (4, 8), &[]);
        for (number, part) in [
            (libc::EOPNOTSUPP, "(novel) has no XDP, or not as it is"),
            (libc::ERANGE, "its MTU (1500) is too large"),
            (libc::ENOSPC, "too few queues"),
            (libc::EEXIST, "stands on it has a program"),
            (libc::EINVAL, "`dmesg` may say"),
            (libc::EIO, "Input/output error"),
        ] {
            says(number, &nic, part);
        }
        says(libc::EOPNOTSUPP, &Nic::default(), "its driver has no XDP");
        let veth = samples::hardware("veth", Some(1), (1, 4), &[]);
        says(libc::ENOSPC, &veth, "`ethtool -L eth0 rx N`");
    }
}
