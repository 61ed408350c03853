//! Which slot of the tables a limit's name has.
//!
//! The slot is part of the key of every entry, so a name keeps its slot over
//! reloads and with it its buckets.

use limiter_common::{
    bucket::Bucket,
    layout::{Former, LIMITS, Limit},
};

/// The names that hold slots, and the budgets that they last had.
#[derive(Clone, Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    /// Names that are gone keep their slots.
    holds: bool,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    name: Option<String>,
    buckets: [Bucket; 3],
    version: u16,
    since: u16,
    former: Former,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            slots: vec![Slot::default(); LIMITS],
            holds: false,
        }
    }
}

impl Slots {
    /// Those that have these names, and had no budgets yet.
    pub fn of_names<'a>(names: impl IntoIterator<Item = (usize, &'a str)>) -> Self {
        let mut slots = Self::default();
        for (place, name) in names {
            if let Some(slot) = slots.slots.get_mut(place) {
                slot.name = Some(name.to_owned());
            }
        }
        slots
    }

    /// Takes over the budgets, versions and former budgets that an
    /// [`Image`](super::Image) was compiled to, where they are later than those
    /// known: the next is compiled as if it had been done here.
    pub fn adopt(&mut self, limits: &[Limit], formers: &[Former]) {
        for ((slot, limit), former) in self.slots.iter_mut().zip(limits).zip(formers) {
            let later = limit.version.wrapping_sub(slot.version);
            if slot.version != 0 && !(1..0x8000).contains(&later) {
                continue;
            }
            slot.buckets = limit.buckets;
            slot.version = limit.version;
            slot.since = limit.since;
            slot.former = *former;
        }
    }

    /// The same for a policy that may have to give way to the one of before: names
    /// that are gone keep their slots.
    #[must_use]
    pub fn holding(&self) -> Self {
        Self {
            holds: true,
            ..self.clone()
        }
    }

    /// The same where only the names that `stay` do so.
    #[must_use]
    pub fn released(&self, stay: impl Fn(&str) -> bool) -> Self {
        let mut slots = self.slots.clone();
        for slot in &mut slots {
            slot.name = slot.name.take().filter(|name| stay(name));
        }
        Self {
            slots,
            holds: false,
        }
    }

    /// The slots in use with their names.
    pub fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(place, slot)| Some((place, slot.name.as_deref()?)))
    }

    /// Gives every limit, named in the policy's order, its slot; at most
    /// [`LIMITS`] of them. Names that are gone lose theirs.
    pub(super) fn assign<'a>(
        &mut self,
        limits: impl Iterator<Item = (&'a str, [Bucket; 3])>,
    ) -> Vec<u8> {
        let limits: Vec<_> = limits.collect();
        let before: Vec<bool> = self.slots.iter().map(|slot| slot.name.is_some()).collect();
        for slot in &mut self.slots {
            if !self.holds
                && !limits
                    .iter()
                    .any(|(name, _)| slot.name.as_deref() == Some(*name))
            {
                slot.name = None;
            }
        }
        limits
            .into_iter()
            .filter_map(|(name, buckets)| {
                let place = self.find(name).or_else(|| self.free(&before))?;
                self.slots[place].take(name, buckets);
                u8::try_from(place).ok()
            })
            .collect()
    }

    /// The slot of `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.name.as_deref() == Some(name))
    }

    /// The name that holds `slot`.
    pub fn name(&self, slot: usize) -> Option<&str> {
        self.slots.get(slot)?.name.as_deref()
    }

    /// A free slot, if possible one that was free before too: packets under
    /// way may still use the others.
    fn free(&self, before: &[bool]) -> Option<usize> {
        let free = |place: &usize| self.slots[*place].name.is_none();
        (0..LIMITS)
            .filter(free)
            .min_by_key(|place| (before[*place], *place))
    }

    pub(super) fn versions(&self, slot: usize) -> (u16, u16) {
        (self.slots[slot].version, self.slots[slot].since)
    }

    pub(super) fn former(&self, slot: usize) -> Former {
        self.slots[slot].former
    }
}

impl Slot {
    fn take(&mut self, name: &str, buckets: [Bucket; 3]) {
        let same_name = self.name.as_deref() == Some(name);
        if same_name && self.buckets == buckets {
            return;
        }
        self.former = if same_name {
            Former {
                buckets: self.buckets,
                version: self.version,
                reserved: [0; 6],
            }
        } else {
            Former::default()
        };
        // 0 is what a new entry says before anybody has filled it.
        self.version = self.version.wrapping_add(1).max(1);
        if !same_name {
            self.name = Some(name.to_owned());
            self.since = self.version;
        }
        self.buckets = buckets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u64) -> [Bucket; 3] {
        let packets = Bucket::new(rate, 1_000_000_000, rate, 0).unwrap();
        [Bucket::NONE, packets, Bucket::NONE]
    }

    #[test]
    fn a_name_keeps_its_slot_and_a_change_its_former_budgets() {
        let mut slots = Slots::default();
        let first = slots.assign([("a", bucket(1)), ("b", bucket(2))].into_iter());
        let second = slots.assign([("b", bucket(3)), ("c", bucket(4))].into_iter());
        assert_eq!(second[0], first[1]);
        assert_ne!(second[1], first[0], "packets under way may still use it");
        let b = usize::from(first[1]);
        assert_eq!(slots.former(b).buckets, bucket(2));
        assert_eq!(slots.former(b).version, 1);
        assert_eq!(slots.versions(b), (2, 1));
        assert_eq!(slots.find("a"), None);
    }

    #[test]
    fn a_slot_taken_over_starts_anew() {
        let mut slots = Slots::default();
        let names: Vec<String> = (0..LIMITS).map(|i| format!("old{i}")).collect();
        slots.assign(names.iter().map(|name| (name.as_str(), bucket(1))));
        let taken = slots.assign([("new", bucket(1))].into_iter());
        let slot = usize::from(taken[0]);
        assert_eq!(slots.versions(slot), (2, 2));
        assert_eq!(slots.former(slot), Former::default());
    }
}
