//! What a driver says of its queues and of what it joins packets with.

use std::{io, os::fd::AsRawFd as _};

use netlink_packet_core::{DefaultNla, parse_u32};

use super::generic::{self, Message, attribute, inside, nested};

const CHANNELS_GET: u8 = 17;
const FEATURES_GET: u8 = 11;

/// In every request: which interface.
const HEADER: u16 = 1;
const HEADER_INDEX: u16 = 1;

const FEATURES_HW: u16 = 2;
const FEATURES_ACTIVE: u16 = 4;
const FEATURES_NOCHANGE: u16 = 5;

const BITSET_NOMASK: u16 = 1;
const BITSET_BITS: u16 = 3;
const BITSET_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

const RECEIVE_MAX: u16 = 2;
const COMBINED_MAX: u16 = 5;
const RECEIVE: u16 = 6;
const TRANSMIT: u16 = 7;
const COMBINED: u16 = 9;

/// A feature of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Whether it is on.
    pub on: bool,
    /// Whether nobody can change that.
    pub fixed: bool,
}

/// Queues. `combined` receive and transmit with one interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// In use, receiving and transmitting.
    pub combined: u32,
    /// In use, receiving only.
    pub receive: u32,
    /// In use, transmitting only.
    pub transmit: u32,
    /// How many combined ones there may be.
    pub combined_max: u32,
    /// How many receiving ones there may be.
    pub receive_max: u32,
}

/// Names of features: those that are on, that can be changed, and that
/// never change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    active: Vec<String>,
    changeable: Vec<String>,
    fixed: Vec<String>,
}

impl Features {
    /// A feature by its name; `None` where the kernel told of none at all.
    pub(super) fn switch(&self, name: &str) -> Option<Switch> {
        let has = |names: &[String]| names.iter().any(|it| it == name);
        let told = !self.active.is_empty() || !self.changeable.is_empty();
        told.then(|| Switch {
            on: has(&self.active),
            fixed: !has(&self.changeable) || has(&self.fixed),
        })
    }
}

fn question(family: u16, command: u8, index: u32) -> Message {
    let which = DefaultNla::new(HEADER_INDEX, index.to_ne_bytes().to_vec());
    Message {
        family,
        command,
        attributes: vec![nested(HEADER, &[which])],
    }
}

/// The features of an interface.
pub(super) fn features(family: u16, index: u32) -> io::Result<Features> {
    let answer = generic::ask(question(family, FEATURES_GET, index))?;
    Ok(read_features(&answer))
}

/// The features in an answer.
pub(super) fn read_features(answer: &Message) -> Features {
    let names = |kind| {
        let set = attribute(&answer.attributes, kind).unwrap_or_default();
        names_of(&set)
    };
    Features {
        active: names(FEATURES_ACTIVE),
        changeable: names(FEATURES_HW),
        fixed: names(FEATURES_NOCHANGE),
    }
}

/// The names in a set of bits. One without a mask lists what is set; one with a
/// mask lists the mask, and tells what is set by a flag.
fn names_of(set: &[u8]) -> Vec<String> {
    let lists_all = !inside(set).any(|(kind, _)| kind == BITSET_NOMASK);
    let bits = inside(set).filter(|(kind, _)| *kind == BITSET_BITS);
    let bits = bits.flat_map(|(_, list)| inside(list));
    bits.filter(|(kind, _)| *kind == BITSET_BIT)
        .filter(|(_, bit)| !lists_all || inside(bit).any(|(kind, _)| kind == BIT_VALUE))
        .filter_map(|(_, bit)| inside(bit).find(|(kind, _)| *kind == BIT_NAME))
        .map(|(_, name)| {
            String::from_utf8_lossy(name)
                .trim_end_matches('\0')
                .to_owned()
        })
        .collect()
}

/// The queues of an interface; an error where its driver has no say in them.
pub(super) fn channels(family: u16, index: u32) -> io::Result<Channels> {
    let answer = generic::ask(question(family, CHANNELS_GET, index))?;
    Ok(read_channels(&answer))
}

/// The queues in an answer.
pub(super) fn read_channels(answer: &Message) -> Channels {
    let count = |kind| {
        let value = attribute(&answer.attributes, kind);
        value.and_then(|it| parse_u32(&it).ok()).unwrap_or(0)
    };
    Channels {
        combined: count(COMBINED),
        receive: count(RECEIVE),
        transmit: count(TRANSMIT),
        combined_max: count(COMBINED_MAX),
        receive_max: count(RECEIVE_MAX),
    }
}

const GET_DRIVER: u32 = 3;
const NAME_BYTES: usize = 32;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; NAME_BYTES],
    others: [u8; 5 * NAME_BYTES],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

/// The name of the driver. Netlink does not tell it: the oldest of ethtool's
/// calls does.
pub(super) fn driver(interface: &str) -> Option<String> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).ok();
    let socket = socket.or_else(|| std::net::UdpSocket::bind("[::]:0").ok())?;
    let mut info = DriverInfo {
        command: GET_DRIVER,
        driver: [0; NAME_BYTES],
        others: [0; 5 * NAME_BYTES],
    };
    // SAFETY: integers and pointers, for which zeroes are values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let places = request.ifr_name.iter_mut();
    if interface.len() >= places.len() {
        return None;
    }
    for (place, byte) in places.zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut info).cast();
    // SAFETY: the request and what it points to live through the call, and the
    // kernel writes no more than `DriverInfo` for this command.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    if result != 0 {
        return None;
    }
    let name = info.driver.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    (!name.is_empty()).then_some(name)
}
