//! What a driver can do with XDP: the family `netdev` (Linux 6.3).

use std::io;

use netlink_packet_core::{DefaultNla, parse_u64};

use super::generic::{self, Message};

const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

/// A word of `NETDEV_XDP_ACT_*`.
pub(super) fn xdp_features(family: u16, index: u32) -> io::Result<Option<u64>> {
    let answer = generic::ask(Message {
        family,
        command: DEV_GET,
        attributes: vec![DefaultNla::new(IFINDEX, index.to_ne_bytes().to_vec())],
    })?;
    Ok(read_xdp_features(&answer))
}

/// The word in an answer.
pub(super) fn read_xdp_features(answer: &Message) -> Option<u64> {
    let word = generic::attribute(&answer.attributes, XDP_FEATURES)?;
    parse_u64(&word).ok()
}
