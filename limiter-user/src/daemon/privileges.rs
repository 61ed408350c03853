//! What the daemon may do, which becomes less on the way: first it has what it
//! was started with, and uses three capabilities of that; then it has no other.

use std::collections::HashSet;

use anyhow::{Context as _, anyhow};
use caps::{CapSet, Capability};

/// What is kept, and for what.
const KEPT: [(Capability, &str); 3] = [
    (Capability::CAP_BPF, "to load the program and its maps"),
    (
        Capability::CAP_NET_ADMIN,
        "to attach it to network interfaces",
    ),
    (
        Capability::CAP_PERFMON,
        "for the verifier to follow the program's pointers",
    ),
];

/// The capabilities that this process was started with. Of this thread: to be
/// had before there are others, which then inherit what is left.
#[derive(Debug)]
pub(super) struct Privileges {
    permitted: HashSet<Capability>,
}

impl Privileges {
    /// Puts all but the three out of effect; see [`Privileges::with`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn begin() -> anyhow::Result<Self> {
        let permitted = caps::read(None, CapSet::Permitted).context(FAILED)?;
        let begun = Self { permitted };
        begun.effect(&[])?;
        Ok(begun)
    }

    /// Does something with `more` capabilities, where they were given.
    ///
    /// # Errors
    /// Those of the work are inside; the kernel refuses to change capabilities.
    pub(super) fn with<R>(
        &self,
        more: &[Capability],
        work: impl FnOnce() -> R,
    ) -> anyhow::Result<R> {
        self.effect(more)?;
        let done = work();
        self.effect(&[])?;
        Ok(done)
    }

    /// Whether all of these were given.
    pub(super) fn permit(&self, these: &[Capability]) -> bool {
        these.iter().all(|it| self.permitted.contains(it))
    }

    fn effect(&self, more: &[Capability]) -> anyhow::Result<()> {
        let wanted: HashSet<Capability> = kept().chain(more.iter().copied()).collect();
        let effective = wanted.intersection(&self.permitted).copied().collect();
        caps::set(None, CapSet::Effective, &effective).context(FAILED)
    }

    /// Says which of the three are missing, if any.
    ///
    /// # Errors
    /// They are; with the remedy.
    pub(super) fn require(&self) -> anyhow::Result<()> {
        let missing = |(it, _): &&(Capability, &str)| !self.permitted.contains(it);
        let missing: Vec<String> = KEPT
            .iter()
            .filter(missing)
            .map(|(it, purpose)| format!("{it} ({purpose})"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(anyhow!(
            "not permitted: missing {}; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON \
             (AmbientCapabilities= of a systemd unit, `setpriv --ambient-caps`; a container must be given them)",
            missing.join(" and ")
        ))
    }

    /// Gives up every capability but the three, in every set and for good; what
    /// would be executed got none at all.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn end(self) -> anyhow::Result<()> {
        nix::sys::prctl::set_no_new_privs().context(FAILED)?;
        // Only who may change the bounding set can shrink it. It says what a
        // program that is executed may gain, which is nothing from here on.
        if self.permitted.contains(&Capability::CAP_SETPCAP) {
            self.effect(&[Capability::CAP_SETPCAP])?;
            let bounding = caps::read(None, CapSet::Bounding).context(FAILED)?;
            for other in bounding.difference(&kept().collect()) {
                caps::drop(None, CapSet::Bounding, *other).context(FAILED)?;
            }
        }
        self.effect(&[])?;
        let left = caps::read(None, CapSet::Effective).context(FAILED)?;
        caps::set(None, CapSet::Permitted, &left).context(FAILED)?;
        caps::clear(None, CapSet::Inheritable).context(FAILED)?;
        caps::clear(None, CapSet::Ambient).context(FAILED)
    }
}

const FAILED: &str = "giving up capabilities";

fn kept() -> impl Iterator<Item = Capability> {
    KEPT.into_iter().map(|(it, _)| it)
}
