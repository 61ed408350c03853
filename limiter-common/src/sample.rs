//! Samples of refused packets: which are wanted, how many are taken, and what
//! of a packet lies in the ring buffer.

use crate::{
    atomic::Word,
    verdict::{Budget, Outcome, Reason},
};

/// Bytes of a frame in a sample at most: a whole frame at an MTU of 1,500, with
/// two VLAN tags.
pub const FRAME_BYTES: usize = 1_536;

/// Bytes of the ring buffer: some 330 samples.
pub const RING_BYTES: usize = 512 << 10;

/// Refusals that there are: [`Outcome`]s other than pass.
pub const REFUSALS: u32 = Outcome::COUNT - FIRST;

/// The first outcome that is a refusal.
const FIRST: u32 = Outcome::COUNT / 3;

/// Samples of one refusal that may be taken at once, when none was for a while;
/// beyond that it is one a clock step.
pub const SAMPLES_AT_ONCE: u64 = 64;

/// A set of refusals, dropped packets and those that would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Refusals(u32);

impl Refusals {
    /// No packet.
    pub const NONE: Self = Self(0);
    /// Every refused packet.
    pub const ALL: Self = Self(u32::MAX);

    /// Those for the reason of this name; `None` if packets are never refused
    /// for it, or there is no such reason.
    pub fn named(name: &str) -> Option<Self> {
        let mut set = 0;
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            if can_refuse(reason) && reason.name() == name {
                // Dropped, and would be.
                set |= 1 << place | 1 << (place as u32 + FIRST);
            }
        }
        (set != 0).then_some(Self(set))
    }

    /// The names of the reasons that packets are refused for.
    pub fn names() -> impl Iterator<Item = &'static str> {
        // The budgets of reason `limit` stand side by side.
        let mut before = "";
        let reasons = Reason::ALL.into_iter().filter(|reason| can_refuse(*reason));
        reasons.filter_map(move |reason| {
            let is_new = before != reason.name();
            before = reason.name();
            is_new.then_some(before)
        })
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a packet with this outcome is one of them.
    #[inline(always)]
    pub const fn contain(self, outcome: Outcome) -> bool {
        match place(outcome) {
            Some(place) => self.0 >> place & 1 != 0,
            None => false,
        }
    }
}

/// The place of a refusal among all, below [`REFUSALS`]; `None`: it passes.
#[inline(always)]
pub const fn place(outcome: Outcome) -> Option<u32> {
    outcome.index().checked_sub(FIRST)
}

/// Whether packets are ever refused for `reason`.
const fn can_refuse(reason: Reason) -> bool {
    match reason {
        Reason::Martian
        | Reason::Unparsed
        | Reason::Deny
        | Reason::Block
        | Reason::NotFrom
        | Reason::Limit(Budget::Connections | Budget::Packets | Budget::Bytes)
        | Reason::Total
        | Reason::UnknownSource => true,
        Reason::NotIp
        | Reason::Neighbour
        | Reason::Control
        | Reason::Allow
        | Reason::Limit(Budget::Within)
        | Reason::NoLimit => false,
    }
}

/// How many samples of one refusal are taken, over all CPUs: so that a flood
/// costs no more than one that nobody samples, and drowns no other refusal.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Meter(
    /// The clock step up to which samples are used up.
    Word,
);
const _: () = assert!(size_of::<Meter>() == 8);

impl Meter {
    /// True if a sample may be taken in clock step `step`.
    #[inline(always)]
    pub fn admits(&self, step: u64) -> bool {
        let used = self.0.load();
        let earliest = step.saturating_sub(SAMPLES_AT_ONCE);
        let next = if used > earliest { used } else { earliest };
        // Whoever loses the race leaves the sample to the other CPU.
        next < step && self.0.replace(used, next + 1)
    }
}

/// A refused packet in the ring buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sample {
    /// What is known of it.
    pub head: SampleHead,
    /// The frame's first bytes; behind them there is anything.
    pub frame: [u8; FRAME_BYTES],
}
const _: () = assert!(size_of::<Sample>() == 32 + FRAME_BYTES);

/// What is known of a sampled packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SampleHead {
    /// `CLOCK_MONOTONIC`.
    pub ns: u64,
    /// The index of the interface that it came in on.
    pub interface: u32,
    /// The slot of the limit, or [`crate::verdict::NO_LIMIT`].
    pub limit: u32,
    /// [`Outcome::index`].
    pub outcome: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Bytes of [`Sample::frame`] that are the frame's.
    pub captured: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<SampleHead>() == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Action;
    use std::vec::Vec;

    #[test]
    fn refusals_are_what_does_not_pass() {
        let limit = Refusals::named("limit").unwrap();
        let deny = Refusals::named("deny").unwrap();
        for reason in Reason::ALL {
            let pass = Outcome::new(Action::Pass, reason);
            assert!(!Refusals::ALL.contain(pass) && place(pass).is_none());
            for action in [Action::Drop, Action::WouldDrop] {
                let outcome = Outcome::new(action, reason);
                assert!(Refusals::ALL.contain(outcome) && !Refusals::NONE.contain(outcome));
                assert!(place(outcome).unwrap() < REFUSALS);
                let is_over = matches!(reason, Reason::Limit(budget) if budget != Budget::Within);
                assert_eq!(limit.contain(outcome), is_over);
                assert_eq!(deny.contain(outcome), reason == Reason::Deny);
                let either = is_over || reason == Reason::Deny;
                assert_eq!(limit.and(deny).contain(outcome), either);
            }
        }
        for name in ["allow", "no_limit", "not_ip", "Limit", ""] {
            assert_eq!(Refusals::named(name), None);
        }
    }

    #[test]
    fn every_name_is_told_once() {
        let names: Vec<_> = Refusals::names().collect();
        let expected = [
            "martian",
            "unparsed",
            "deny",
            "block",
            "not_from",
            "limit",
            "total",
            "unknown_source",
        ];
        assert_eq!(names, expected);
        let all = names.iter().map(|name| Refusals::named(name).unwrap());
        assert!(all.into_iter().all(|refusals| refusals != Refusals::NONE));
    }

    #[test]
    fn a_burst_of_samples_and_then_one_a_step() {
        let meter = Meter::default();
        let taken = |step, tries: u64| (0..tries).filter(|_| meter.admits(step)).count() as u64;
        assert_eq!(taken(1_000, 500), SAMPLES_AT_ONCE);
        assert_eq!(taken(1_001, 500), 1);
        assert_eq!(taken(1_001, 500), 0);
        assert_eq!(taken(1_011, 500), 10);
        assert_eq!(taken(9_000, 500), SAMPLES_AT_ONCE);
        // A clock that goes back takes none, and loses none.
        assert_eq!(taken(8_999, 500), 0);
        assert_eq!(taken(9_002, 500), 2);
    }
}
