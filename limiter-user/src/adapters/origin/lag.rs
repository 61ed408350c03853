//! How far behind an origin is.

/// A slot of the minute that is looked back at.
const SLOT_NS: u64 = 5_000_000_000;

const SLOTS: usize = 12;

/// How long before they arrived events happened, by their own time.
#[derive(Clone, Debug, Default)]
pub(super) struct Lag {
    last_ns: Option<u64>,
    /// The number of a slot since the epoch, and the maximum in it.
    slots: [(u64, u64); SLOTS],
}

impl Lag {
    /// An event that happened at `at_ns` arrived at `now_ns`. One of the future is
    /// not behind.
    pub(super) fn note(&mut self, at_ns: u64, now_ns: u64) {
        let lag_ns = now_ns.saturating_sub(at_ns);
        self.last_ns = Some(lag_ns);
        let number = now_ns / SLOT_NS;
        let slot = &mut self.slots[(number % SLOTS as u64) as usize];
        if slot.0 != number {
            *slot = (number, 0);
        }
        slot.1 = slot.1.max(lag_ns);
    }

    /// That of the last event that had a time.
    pub(super) const fn last_ns(&self) -> Option<u64> {
        self.last_ns
    }

    /// The maximum over the last minute; `None` where no event came in it.
    pub(super) fn most_ns(&self, now_ns: u64) -> Option<u64> {
        let number = now_ns / SLOT_NS;
        let is_recent = |slot: u64| slot <= number && slot + SLOTS as u64 > number;
        // A slot that was never used has the number 0.
        let used = self.slots.iter().filter(|(slot, _)| *slot != 0);
        used.filter(|(slot, _)| is_recent(*slot))
            .map(|(_, most)| *most)
            .max()
    }
}
