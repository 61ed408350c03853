//! The two lists of sources, and how they change.

use ipnet::IpNet;

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// Never limited, denied or blocked.
    Allow,
    /// Always dropped.
    Deny,
}

/// An entry that comes to a list or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListChange {
    /// The list.
    pub list: ListKind,
    /// The entry.
    pub network: IpNet,
    /// Whether it is on the list from now on.
    pub listed: bool,
}

impl ListKind {
    /// The word used in commands, answers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}
