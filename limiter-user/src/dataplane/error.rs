//! What can go wrong between the control plane and the kernel, in words.

use super::pins::PinsError;
use crate::image::ImageError;
use std::io;

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel lacks what the program needs.
    #[error(
        "this kernel is {release}, and limiter needs Linux 5.19 or later \
         (helper bpf_map_lookup_percpu_elem); boot a newer kernel"
    )]
    OldKernel {
        /// As `uname -r` says.
        release: String,
    },
    /// A capability is missing.
    #[error("{what}: not permitted; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Permission {
        /// What was tried.
        what: String,
    },
    /// The tables do not fit.
    #[error(
        "the tables of this policy take {needed_mib} MiB and {available_mib} MiB are free; \
         lower edge.sources ({sources}) or edge.tables"
    )]
    Memory {
        /// What the tables take, in MiB, rounded up.
        needed_mib: u64,
        /// What is free, in MiB.
        available_mib: u64,
        /// `edge.sources`.
        sources: u32,
    },
    /// The program would not load.
    #[error("the XDP program cannot be loaded: {reason}")]
    Load {
        /// aya's words, the verifier's last lines among them.
        reason: String,
    },
    /// There is no such interface.
    #[error("there is no interface `{interface}`; `ip link` shows those there are")]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// Somebody else's program is there.
    #[error(
        "an XDP program ({program}) is already on `{interface}`; limiter does not replace it: \
         look at it with `bpftool net show dev {interface}`, and take it off if it is yours to"
    )]
    ForeignProgram {
        /// The name.
        interface: String,
        /// Its id, and its name where this user may know it.
        program: String,
    },
    /// The driver refused.
    #[error(
        "the program cannot be attached to `{interface}` in {mode} mode: {reason}{}",
        other_mode(mode)
    )]
    Attach {
        /// The name.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// The kernel's words and what usually helps.
        reason: String,
    },
    /// The kernel would not put the new program in the place of the old one.
    #[error(
        "the program on `{interface}` cannot be replaced: {source}; the one of before stays: \
         `limiter detach {interface}`, then start again"
    )]
    Replace {
        /// The name.
        interface: String,
        /// The kernel's words.
        source: io::Error,
    },
    /// More interfaces than there are counters for.
    #[error(
        "no room for interface `{interface}`: edge.tables.interfaces is {capacity}; \
         raise it and restart"
    )]
    TooManyInterfaces {
        /// The name.
        interface: String,
        /// `edge.tables.interfaces`.
        capacity: u32,
    },
    /// A name that no limit has.
    #[error("there is no limit `{limit}`; `limiter status` names those there are")]
    NoLimit {
        /// The name.
        limit: String,
    },
    /// The limits of two policies do not fit.
    #[error(
        "the policy in force and the new one have {needed} limits together and {capacity} fit; \
         reload without --confirm"
    )]
    TooManyTogether {
        /// How many there are.
        needed: usize,
        /// How many fit.
        capacity: usize,
    },
    /// A quota is full.
    #[error(
        "the {owner} quota of {capacity} blocks is full; delete some (`limiter block list`), \
         or raise edge.tables.blocks_{owner} and restart"
    )]
    BlocksFull {
        /// Whose.
        owner: &'static str,
        /// How many fit.
        capacity: u32,
    },
    /// Too many prefix lengths among blocks.
    #[error(
        "blocks of {capacity} different prefix lengths are in force and /{prefix} would be one \
         more; use one of those there are, or `deny`"
    )]
    TooManyLengths {
        /// The one too many.
        prefix: u32,
        /// How many may differ.
        capacity: usize,
    },
    /// Too many list entries.
    #[error("{needed} list entries, and {capacity} fit; raise edge.tables.lists and restart")]
    ListsFull {
        /// Entries wanted, those for inner workings counted.
        needed: usize,
        /// Entries that fit.
        capacity: u32,
    },
    /// Maps and links cannot be kept, or those kept not be had.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The policy cannot be compiled.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A system call failed in a way that nobody foresaw.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The error.
        source: io::Error,
    },
}

/// What to do where the driver is the obstacle.
fn other_mode(mode: &str) -> &'static str {
    match mode {
        "native" => "; edge.mode = \"auto\" falls back to generic mode, which is slower",
        _ => "",
    }
}

impl Error {
    /// An unforeseen failure of `what`; missing permission is told apart.
    pub(super) fn system(what: &str) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| {
            let what = what.to_owned();
            if source.kind() == io::ErrorKind::PermissionDenied {
                Self::Permission { what }
            } else {
                Self::System { what, source }
            }
        }
    }
}
