//! The sources that a rule blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::table::{Key, Place, Table, Worth};
use crate::policy::Action;

/// A blocked source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) source: IpNet,
    pub(super) until_ns: u64,
    /// When the last order to the NIC runs out, or when one may be given again; 0: there
    /// was none.
    pub(super) ordered_ns: u64,
    /// Whether the NIC did not take the last order.
    pub(super) order_refused: bool,
    /// Whether it is of an engine before, and its order may be out.
    pub(super) restored: bool,
    /// The tier or rung.
    pub(super) part: usize,
    /// [`Action::Block`], or the challenge that a shared source gets in its place.
    pub(super) action: Action,
    pub(super) simulate: bool,
}

/// The blocked sources of a rule, by the key of the source.
#[derive(Debug)]
pub(super) struct Blocks {
    table: Table,
    /// Stored ones that went.
    gone: Vec<IpNet>,
}

const WORDS: usize = 6;
const SIMULATE: u64 = 1 << 8;
const IPV4: u64 = 1 << 9;
const REFUSED: u64 = 1 << 10;
const RESTORED: u64 = 1 << 11;

impl Block {
    /// Whether an order for it is out.
    pub(super) const fn is_ordered(&self, now_ns: u64) -> bool {
        self.ordered_ns > now_ns && !self.order_refused
    }

    /// Whether one may be, so that it must be taken back.
    pub(super) const fn may_be_ordered(&self, now_ns: u64) -> bool {
        self.is_ordered(now_ns) || self.restored
    }
}

impl Blocks {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            table: Table::new(capacity, WORDS, None),
            gone: Vec::new(),
        }
    }

    pub(super) const fn held(&self) -> usize {
        self.table.held()
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.bytes() + self.gone.capacity() * size_of::<IpNet>()
    }

    /// The block of a source that has not ended.
    pub(super) fn find(&self, key: Key, now_ns: u64) -> Option<(Place, Block)> {
        let place = self.table.find(key)?;
        let block = unpack(self.table.state(place));
        (block.until_ns > now_ns).then_some((place, block))
    }

    /// Adds or lengthens a block; the later end and the stronger action are kept, and a
    /// simulated one changes nothing about a real one.
    /// `None`: there is no room. Whether the key is a new one.
    pub(super) fn add(&mut self, key: Key, mut block: Block, now_ns: u64) -> Option<(Place, bool)> {
        if let Some(place) = self.table.find(key) {
            let before = unpack(self.table.state(place));
            if before.until_ns > now_ns && !before.simulate && block.simulate {
                return Some((place, false));
            }
            if before.until_ns > now_ns && before.simulate == block.simulate {
                block.until_ns = block.until_ns.max(before.until_ns);
                block.action = block.action.max(before.action);
            }
            block.ordered_ns = before.ordered_ns;
            block.order_refused = before.order_refused;
            block.restored = before.restored;
            pack(self.table.state_mut(place), block);
            self.table.change(place);
            return Some((place, false));
        }
        let place = self.table.insert(key, 0, now_ns, |_| Worth::Much)?;
        self.table.pin(place);
        self.table.change(place);
        pack(self.table.state_mut(place), block);
        Some((place, true))
    }

    /// Notes that an order is out; `until_ns` 0: that none is any more.
    pub(super) fn ordered(&mut self, place: Place, until_ns: u64) {
        let state = self.table.state_mut(place);
        state[1] = until_ns;
        state[4] &= !(REFUSED | RESTORED);
    }

    /// Notes of a block that it is ordered as another one is.
    pub(super) fn take_order(&mut self, place: Place, of: Block) {
        let block = Block {
            ordered_ns: of.ordered_ns,
            order_refused: of.order_refused,
            restored: of.restored,
            ..self.get(place)
        };
        pack(self.table.state_mut(place), block);
    }

    /// Notes that an order was not taken, and when one may be given again.
    pub(super) fn refused(&mut self, place: Place, again_ns: u64) {
        let state = self.table.state_mut(place);
        state[1] = again_ns;
        state[4] |= REFUSED;
    }

    /// The block at a place, if it still is this key's.
    pub(super) fn at(&self, place: Place, key: Key) -> Option<Block> {
        let is_there = self.table.is_at(place, key);
        is_there.then(|| unpack(self.table.state(place)))
    }

    pub(super) fn remove(&mut self, place: Place) {
        if self.table.is_stored(place) {
            self.gone.push(unpack(self.table.state(place)).source);
        }
        self.table.remove(place);
    }

    /// How many changes wait to be stored.
    pub(super) const fn unstored(&self) -> usize {
        self.table.unstored()
    }

    /// The stored blocks that went since this was last asked.
    pub(super) fn take_gone(&mut self) -> Vec<IpNet> {
        self.table.take_gone();
        std::mem::take(&mut self.gone)
    }

    /// The places with a change since this was last asked.
    pub(super) fn take_changed(&mut self) -> Vec<Place> {
        self.table.take_changed()
    }

    /// Notes whether the database will have a block. Whether it had.
    pub(super) fn store(&mut self, place: Place, is_stored: bool) -> bool {
        self.table.store(place, is_stored)
    }

    pub(super) fn get(&self, place: Place) -> Block {
        unpack(self.table.state(place))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Place, Key, Block)> + '_ {
        let block = |place| {
            (
                place,
                self.table.key(place),
                unpack(self.table.state(place)),
            )
        };
        self.table.places().map(block)
    }
}

fn pack(state: &mut [u64], block: Block) {
    let (bits, family) = match block.source.addr() {
        IpAddr::V4(address) => (u128::from(u32::from(address)), IPV4),
        IpAddr::V6(address) => (u128::from(address), 0),
    };
    state[0] = block.until_ns;
    state[1] = block.ordered_ns;
    state[2] = (bits >> 64) as u64;
    state[3] = bits as u64;
    state[4] = u64::from(block.source.prefix_len())
        | if block.simulate { SIMULATE } else { 0 }
        | if block.order_refused { REFUSED } else { 0 }
        | if block.restored { RESTORED } else { 0 }
        | family
        | (block.action as u64) << 16;
    state[5] = block.part as u64;
}

fn unpack(state: &[u64]) -> Block {
    let bits = u128::from(state[2]) << 64 | u128::from(state[3]);
    let address = match state[4] & IPV4 {
        0 => IpAddr::V6(Ipv6Addr::from(bits)),
        _ => IpAddr::V4(Ipv4Addr::from(bits as u32)),
    };
    Block {
        source: IpNet::new(address, (state[4] & 0xff) as u8).unwrap_or(address.into()),
        until_ns: state[0],
        ordered_ns: state[1],
        part: state[5] as usize,
        action: action(state[4] >> 16),
        simulate: state[4] & SIMULATE != 0,
        order_refused: state[4] & REFUSED != 0,
        restored: state[4] & RESTORED != 0,
    }
}

fn action(number: u64) -> Action {
    let all = [
        Action::Throttle,
        Action::JsChallenge,
        Action::Captcha,
        Action::Reject,
        Action::Block,
    ];
    all.into_iter()
        .find(|action| *action as u64 == number)
        .unwrap_or(Action::Block)
}
