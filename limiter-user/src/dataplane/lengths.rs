//! The prefix lengths at which a packet looks for blocks.

use super::error::Error;
use limiter_common::{
    address::Family,
    block::{LENGTHS, Length, Lengths},
    filter::is_wide,
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Source prefix lengths, at which the kernel blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourcePrefixes {
    pub(super) ipv4: u32,
    pub(super) ipv6: u32,
}

impl Default for SourcePrefixes {
    fn default() -> Self {
        Self { ipv4: 32, ipv6: 64 }
    }
}

impl SourcePrefixes {
    pub(super) const fn families(self) -> [(Family, u32); 2] {
        [(Family::Ipv4, self.ipv4), (Family::Ipv6, self.ipv6)]
    }

    pub(super) const fn of(self, family: Family) -> u32 {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

const fn lengths_place(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

/// Whether blocks of this length are asked for.
pub(super) fn has_length(lengths: &Lengths, (family, prefix): (Family, u32)) -> bool {
    let of = lengths.of(family);
    of.lengths[..of.count as usize].contains(&Length::new(family, prefix))
}

/// Notes whether any of the lengths in use is wide: only then do packets ask for
/// more than their neighbourhood.
pub(super) fn note_wide(lengths: &mut Lengths, used: &HashSet<(Family, u32)>) {
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut of_family = used.iter().filter(|(it, _)| *it == family);
        let any = of_family.any(|(_, prefix)| is_wide(family, *prefix));
        lengths.families[lengths_place(family)].wide = u32::from(any);
    }
}

/// Adds a prefix length, in the place of one that is not `used`, if there is
/// one. All others stay where they are: packets read them meanwhile.
pub(super) fn add_length(
    lengths: &mut Lengths,
    used: &HashSet<(Family, u32)>,
    family: Family,
    prefix: u32,
) -> Result<(), Error> {
    let is_known = has_length(lengths, (family, prefix));
    let of = &mut lengths.families[lengths_place(family)];
    of.wide |= u32::from(is_wide(family, prefix));
    if is_known {
        return Ok(());
    }
    let count = of.count as usize;
    let is_used = |length: &Length| used.contains(&(family, length.prefix & 0xffff));
    let place = of.lengths[..count]
        .iter()
        .position(|length| !is_used(length))
        .unwrap_or(count);
    if place == LENGTHS {
        return Err(Error::TooManyLengths {
            prefix,
            capacity: LENGTHS,
        });
    }
    of.lengths[place] = Length::new(family, prefix);
    of.count = of.count.max(place as u32 + 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_ask_for_wide_blocks_while_there_are_any() {
        let v4 = |prefix| (Family::Ipv4, prefix);
        let mut lengths = Lengths::NONE;
        let wide = |lengths: &Lengths| lengths.families.map(|family| family.wide);
        add_length(&mut lengths, &HashSet::from([v4(32)]), Family::Ipv4, 32).unwrap();
        assert_eq!(wide(&lengths), [0, 0]);
        let both = HashSet::from([v4(32), v4(16)]);
        add_length(&mut lengths, &both, Family::Ipv4, 16).unwrap();
        assert_eq!(wide(&lengths), [1, 0]);
        // The last block of a /16 has ended; its length keeps its place.
        note_wide(&mut lengths, &HashSet::from([v4(32)]));
        assert_eq!(wide(&lengths), [0, 0]);
        add_length(&mut lengths, &both, Family::Ipv4, 16).unwrap();
        assert_eq!(wide(&lengths), [1, 0]);
        assert_eq!(lengths.of(Family::Ipv4).count, 2);
    }
}
