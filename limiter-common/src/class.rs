//! From a packet's protocol and port to the limits that can match it.
//!
//! One table of 16-bit words answers for every packet: the slot of the one
//! limit that matches first wherever the packet goes, or, where `to` has a
//! say, a set of candidates, of which the first that is also in the set of the
//! destination wins (the bit-vector scheme of Lakshman and Stiliadis, 1998).

/// Entries of the table for one generation: TCP ports, UDP ports, protocols
/// without ports, and a place for packets whose protocol could not be found.
pub const CLASSES: u32 = 2 * 65_536 + 512;

/// Sets of candidates of one generation at most.
pub const CANDIDATES: u32 = 8_192;

/// One word of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Class(pub u16);

const TO: u16 = 1 << 15;
const SPARED: u16 = 1 << 14;
const VALUE: u16 = SPARED - 1;

/// What a class says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// No limit matches.
    None,
    /// The limit in this slot.
    Limit(u32),
    /// The first of candidate set `.0` that the destination allows.
    Candidates(u32),
}

impl Class {
    /// No limit, no port spared: what an empty policy is made of.
    pub const NONE: Self = Self(VALUE);

    /// The word for `matches`; `spared`: blocks do not apply (`ssh_ports`).
    pub const fn new(matches: Match, spared: bool) -> Self {
        let word = match matches {
            Match::None => VALUE,
            Match::Limit(slot) => slot as u16 & VALUE,
            Match::Candidates(set) => TO | (set as u16 & VALUE),
        };
        Self(word | if spared { SPARED } else { 0 })
    }

    /// What it says.
    #[inline(always)]
    pub const fn matches(self) -> Match {
        let value = (self.0 & VALUE) as u32;
        if self.0 & TO != 0 {
            Match::Candidates(value)
        } else if self.0 & VALUE == VALUE {
            Match::None
        } else {
            Match::Limit(value)
        }
    }

    /// True if blocks do not apply to it.
    #[inline(always)]
    pub const fn is_spared(self) -> bool {
        self.0 & SPARED != 0
    }
}

/// What decides a packet's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
    /// An IP protocol without ports, or one whose ports could not be read.
    Protocol(u8),
    /// More extension headers than are followed: only `any` matches.
    Unknown,
}

impl Selector {
    /// Its index in the table, below [`CLASSES`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Tcp(port) => port as u32,
            Self::Udp(port) => 65_536 + port as u32,
            Self::Protocol(protocol) => 131_072 + protocol as u32,
            Self::Unknown => 131_072 + 256,
        }
    }
}

/// The rank of the first limit in both sets.
#[inline(always)]
pub fn first_common(a: &crate::layout::LimitSet, b: &crate::layout::LimitSet) -> Option<u32> {
    let mut word = 0;
    while word < a.len() {
        let common = a[word] & b[word];
        if common != 0 {
            return Some(word as u32 * 64 + lowest_bit(common));
        }
        word += 1;
    }
    None
}

/// `trailing_zeros` of a non-zero word in a handful of steps; the BPF
/// instruction set has none, and the compiler's own expansion wants a table in
/// memory.
#[inline(always)]
const fn lowest_bit(word: u64) -> u32 {
    let mut bits = 0;
    let mut rest = word;
    let mut width = 32;
    while width > 0 {
        if rest & ((1 << width) - 1) == 0 {
            rest >>= width;
            bits += width;
        }
        width /= 2;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_again_what_was_put_in() {
        for matches in [
            Match::None,
            Match::Limit(0),
            Match::Limit(255),
            Match::Candidates(0),
            Match::Candidates(CANDIDATES - 1),
        ] {
            for spared in [false, true] {
                let class = Class::new(matches, spared);
                assert_eq!((class.matches(), class.is_spared()), (matches, spared));
            }
        }
        assert_eq!(Class::NONE.matches(), Match::None);
    }

    #[test]
    fn the_lowest_common_bit_is_the_first_limit() {
        for bit in 0..256 {
            let mut a = [0; 4];
            let mut b = [0; 4];
            a[bit / 64] |= 1 << (bit % 64);
            b[bit / 64] |= 1 << (bit % 64);
            a[3] |= 1 << 63;
            b[3] |= 1 << 63;
            assert_eq!(first_common(&a, &b), Some(bit as u32));
        }
        assert_eq!(first_common(&[1, 0, 0, 0], &[2, 0, 0, 0]), None);
    }

    #[test]
    fn selectors_do_not_share_a_place() {
        assert_eq!(Selector::Tcp(65_535).index() + 1, Selector::Udp(0).index());
        assert_eq!(
            Selector::Udp(65_535).index() + 1,
            Selector::Protocol(0).index()
        );
        assert!(Selector::Unknown.index() < CLASSES);
        assert!(Selector::Unknown.index() > Selector::Protocol(255).index());
    }
}
