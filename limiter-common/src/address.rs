//! Addresses, prefixes and the 64-bit key that stands for a source.

/// An IP address of either family, left-aligned: an IPv4 address fills the
/// upper half of `hi`, so that a prefix length means the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Which family; its number is the address's first bits in every key.
    pub family: Family,
    /// The first 64 bits, host order.
    pub hi: u64,
    /// The last 64 bits (IPv6), host order; 0 for IPv4.
    pub lo: u64,
}

/// The address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Family {
    /// 32 bits.
    Ipv4 = 4,
    /// 128 bits.
    Ipv6 = 6,
}

impl Family {
    /// Bits of an address: the longest prefix.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

/// What a packet is counted under: the client's address masked to the
/// policy's prefix.
///
/// An IPv6 prefix (at most /64) is its upper half. IPv4 lives at `0:4::/64`,
/// inside `::/16`, where no IPv6 source is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct SourceKey(pub u64);

const IPV4_SOURCE: u64 = 4 << 32;

impl Address {
    /// An IPv4 address from its host-order number.
    #[inline(always)]
    pub const fn v4(address: u32) -> Self {
        Self {
            family: Family::Ipv4,
            hi: (address as u64) << 32,
            lo: 0,
        }
    }

    /// An IPv6 address from its two host-order halves.
    #[inline(always)]
    pub const fn v6(hi: u64, lo: u64) -> Self {
        Self {
            family: Family::Ipv6,
            hi,
            lo,
        }
    }

    /// The address with all bits after the first `prefix` cleared.
    #[inline(always)]
    pub const fn masked(self, prefix: u32) -> Self {
        let (hi, lo) = masks(prefix);
        Self {
            family: self.family,
            hi: self.hi & hi,
            lo: self.lo & lo,
        }
    }

    /// The key of this source where `mask` is the policy's mask of its family
    /// ([`source_mask`]).
    #[inline(always)]
    pub const fn source(self, mask: u64) -> SourceKey {
        match self.family {
            Family::Ipv4 => SourceKey(IPV4_SOURCE | ((self.hi & mask) >> 32)),
            Family::Ipv6 => SourceKey(self.hi & mask),
        }
    }

    /// True for `::/16`: no global address, and where [`SourceKey`] puts IPv4.
    #[inline(always)]
    pub const fn is_martian(self) -> bool {
        matches!(self.family, Family::Ipv6) && self.hi >> 48 == 0
    }

    /// True for `::` (and `0.0.0.0`).
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.hi == 0 && self.lo == 0
    }
}

impl SourceKey {
    /// The address that the key stands for, its host bits zero.
    pub const fn address(self) -> Address {
        if self.0 >> 32 == 4 {
            Address::v4(self.0 as u32)
        } else {
            Address::v6(self.0, 0)
        }
    }
}

/// The mask of a source prefix (at most 64 bits, 32 for IPv4) as
/// [`Address::source`] takes it.
pub const fn source_mask(prefix: u32) -> u64 {
    masks(prefix).0
}

#[inline(always)]
const fn masks(prefix: u32) -> (u64, u64) {
    if prefix == 0 {
        (0, 0)
    } else if prefix <= 64 {
        (u64::MAX << (64 - prefix), 0)
    } else if prefix < 128 {
        (u64::MAX, u64::MAX << (128 - prefix))
    } else {
        (u64::MAX, u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_clear_what_follows_the_prefix() {
        let address = Address::v4(0xc0a8_0a0b);
        assert_eq!(address.masked(24), Address::v4(0xc0a8_0a00));
        assert_eq!(address.masked(32), address);
        assert_eq!(address.masked(0), Address::v4(0));
        let address = Address::v6(0x2001_0db8_1111_2222, 0x3333_4444_5555_6666);
        assert_eq!(address.masked(64), Address::v6(address.hi, 0));
        assert_eq!(address.masked(96).lo, 0x3333_4444_0000_0000);
        assert_eq!(address.masked(128), address);
    }

    #[test]
    fn a_source_key_names_its_network_again() {
        let v4 = Address::v4(0x0a01_0203);
        assert_eq!(
            v4.source(source_mask(24)).address(),
            Address::v4(0x0a01_0200)
        );
        let v6 = Address::v6(0x2001_0db8_1111_2222, 7);
        assert_eq!(
            v6.source(source_mask(56)).address(),
            Address::v6(0x2001_0db8_1111_2200, 0)
        );
    }
}
