//! What was decided about a packet, and why.

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It goes on to the host.
    Pass,
    /// It ends here.
    Drop,
    /// It goes on, and would end here if the policy were enforced.
    WouldDrop,
}

impl Action {
    /// The word used in counters, answers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::WouldDrop => "would_drop",
        }
    }
}

/// Why. The words are the same in counters, `explain` and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// ARP, LLDP and other frames without IP.
    NotIp,
    /// Neighbour discovery (ICMPv6 133 to 137, hop limit 255, code 0).
    Neighbour,
    /// DHCP and path-MTU errors.
    Control,
    /// An IPv6 source inside `::/16`.
    Martian,
    /// The IP header could not be read.
    Unparsed,
    /// The source is on the allow list.
    Allow,
    /// The source is on the deny list.
    Deny,
    /// The source is blocked.
    Block,
    /// The limit's `from` does not name the source.
    NotFrom,
    /// Within, or over, the limit's budgets for one source.
    Limit(Budget),
    /// Over the limit's ceiling for all sources together.
    Total,
    /// The source has no entry and could get none.
    UnknownSource,
    /// No limit matches.
    NoLimit,
}

/// Which budget of a limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Budget {
    /// None: the packet was within all of them.
    Within,
    /// TCP connection attempts.
    Connections,
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
}

impl Budget {
    /// The word used in counters, answers and logs; `None` for [`Budget::Within`].
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Within => None,
            Self::Connections => Some("connections"),
            Self::Packets => Some("packets"),
            Self::Bytes => Some("bytes"),
        }
    }
}

impl Reason {
    /// Every reason; a reason's place here is its number in [`Outcome`].
    pub const ALL: [Self; 16] = [
        Self::NotIp,
        Self::Neighbour,
        Self::Control,
        Self::Martian,
        Self::Unparsed,
        Self::Allow,
        Self::Deny,
        Self::Block,
        Self::NotFrom,
        Self::Limit(Budget::Within),
        Self::Limit(Budget::Connections),
        Self::Limit(Budget::Packets),
        Self::Limit(Budget::Bytes),
        Self::Total,
        Self::UnknownSource,
        Self::NoLimit,
    ];

    /// The word used in counters, answers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Neighbour => "neighbour",
            Self::Control => "control",
            Self::Martian => "martian",
            Self::Unparsed => "unparsed",
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Block => "block",
            Self::NotFrom => "not_from",
            Self::Limit(_) => "limit",
            Self::Total => "total",
            Self::UnknownSource => "unknown_source",
            Self::NoLimit => "no_limit",
        }
    }

    /// Which budget ran out, for [`Reason::Limit`].
    pub const fn budget(self) -> Budget {
        match self {
            Self::Limit(budget) => budget,
            _ => Budget::Within,
        }
    }

    #[inline(always)]
    const fn code(self) -> u8 {
        match self {
            Self::NotIp => 0,
            Self::Neighbour => 1,
            Self::Control => 2,
            Self::Martian => 3,
            Self::Unparsed => 4,
            Self::Allow => 5,
            Self::Deny => 6,
            Self::Block => 7,
            Self::NotFrom => 8,
            Self::Limit(budget) => 9 + budget as u8,
            Self::Total => 13,
            Self::UnknownSource => 14,
            Self::NoLimit => 15,
        }
    }
}

/// An action with its reason in one byte: the index of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Outcome(u8);

impl Outcome {
    /// How many indices there are.
    pub const COUNT: u32 = 48;

    /// The outcome of `action` for `reason`.
    #[inline(always)]
    pub const fn new(action: Action, reason: Reason) -> Self {
        Self(action as u8 * 16 + reason.code())
    }

    /// Its index, below [`Outcome::COUNT`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The outcome of an index that [`Outcome::index`] gave.
    #[inline(always)]
    pub(crate) const fn from_byte(index: u8) -> Self {
        Self(index)
    }

    /// The outcome of an index; `None` if there is none.
    pub const fn from_index(index: u32) -> Option<Self> {
        if index < Self::COUNT {
            Some(Self(index as u8))
        } else {
            None
        }
    }

    /// What happens to the packet.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.0 / 16 {
            0 => Action::Pass,
            1 => Action::Drop,
            _ => Action::WouldDrop,
        }
    }

    /// True unless it is a plain pass.
    #[inline(always)]
    pub(crate) const fn is_refusal(self) -> bool {
        self.0 >= 16
    }

    /// True if [`Budget::Bytes`] ran out.
    #[inline(always)]
    pub(crate) const fn is_of_bytes(self) -> bool {
        self.0 % 16 == Reason::Limit(Budget::Bytes).code()
    }

    /// Why.
    pub const fn reason(self) -> Reason {
        Reason::ALL[(self.0 % 16) as usize]
    }
}

/// The decision about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// What happens, and why.
    pub outcome: Outcome,
    /// The slot of the limit that decided or would have; [`NO_LIMIT`] without.
    pub limit: u32,
    /// What the packet counts in bytes: its frame without padding and checksum.
    pub bytes: u32,
}

/// The limit of a verdict that no limit took part in. It is also the row of
/// the counters of such packets.
pub const NO_LIMIT: u32 = crate::layout::LIMITS as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_names_its_action_and_reason_again() {
        for action in [Action::Pass, Action::Drop, Action::WouldDrop] {
            for (place, reason) in Reason::ALL.into_iter().enumerate() {
                let outcome = Outcome::new(action, reason);
                assert_eq!((outcome.action(), outcome.reason()), (action, reason));
                assert_eq!(reason.code() as usize, place);
                assert_eq!(Outcome::from_index(outcome.index()), Some(outcome));
            }
        }
        assert_eq!(Outcome::from_index(Outcome::COUNT), None);
    }
}
