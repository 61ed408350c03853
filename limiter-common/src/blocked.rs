//! Whether a block holds for a packet.

use crate::{
    address::{Address, Family},
    block::{BlockKey, DRY, LENGTHS},
    class::Class,
    filter::FilterBits,
    layout::ENFORCE,
    tables::Tables,
    time::Time,
    verdict::NO_LIMIT,
};

/// Whether a block may hold for a packet of `class` from `source`: 1 or 0. Of most
/// sources the filter's word knows that none can.
#[inline(always)]
pub(crate) fn may_be_blocked<T: Tables>(tables: &T, source: Address, class: Class) -> u32 {
    let Some(lengths) = tables.lengths() else {
        return 0;
    };
    let has_wide = lengths.of(source.family).wide != 0;
    let may = !class.is_spared() && (has_wide || is_set(tables, near(tables, source)));
    u32::from(may)
}

/// Looks for a block that holds for `source` under the limit in `slot`
/// ([`NO_LIMIT`]: under none). Returns the slot that it is confined to, or
/// [`NO_LIMIT`].
///
/// The filter is asked first; only a set bit leads to the tables.
#[inline(always)]
pub fn search_blocks<T: Tables>(tables: &T, source: Address, now: Time, slot: u32) -> Option<u32> {
    let policy = tables.policy()?;
    let enforced = policy.flags & ENFORCE != 0;
    let lengths = tables.lengths()?;
    let lengths = lengths.of(source.family);
    let is_near = is_set(tables, near(tables, source));
    let mut any = false;
    let mut i = 0;
    while i < LENGTHS {
        if i as u32 >= lengths.count {
            break;
        }
        let length = &lengths.lengths[i];
        let key = length.key(source, 0);
        let hit = if length.wide == 0 {
            is_near
        } else {
            is_set(tables, FilterBits::of_wide(&key, tables.seed()))
        };
        if hit {
            if holds(tables, &key, now, enforced) {
                return Some(NO_LIMIT);
            }
            if holds(tables, &length.key(source, slot + 1), now, enforced) {
                return Some(slot);
            }
            any = true;
        }
        i += 1;
    }
    if !any {
        return None;
    }
    let source = source.source(match source.family {
        Family::Ipv4 => policy.ipv4_mask,
        Family::Ipv6 => policy.ipv6_mask,
    });
    let dry = tables.kernel_blocks(source)?.find(source, now.step())?;
    (!dry || !enforced).then_some(NO_LIMIT)
}

/// The bit of the filter for all blocks around `source` that are not wide.
#[inline(always)]
fn near<T: Tables>(tables: &T, source: Address) -> FilterBits {
    FilterBits::of_address(source, tables.seed())
}

#[inline(always)]
fn is_set<T: Tables>(tables: &T, filter: FilterBits) -> bool {
    match tables.filter(filter.word) {
        Some(word) => word.load() & filter.bits != 0,
        None => false,
    }
}

/// True if there is a block of exactly this key and it is in force. A dry one
/// is only while the policy is not enforced.
#[inline(always)]
fn holds<T: Tables>(tables: &T, key: &BlockKey, now: Time, enforced: bool) -> bool {
    match tables.block(key) {
        Some(block) => block.expires_step > now.step() && (block.flags & DRY == 0 || !enforced),
        None => false,
    }
}
