//! What this process may do, and so what `run` started the same way may.

use std::fs;

use super::finding::{About, Finding, Level};

const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Rights, as far as they are to be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The set of effective capabilities, a bit for each.
    pub(super) effective: Option<u64>,
    /// Whether the user namespace is the one that the kernel started with.
    pub(super) is_first_namespace: Option<bool>,
}

impl Facts {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = fs::read_to_string("/proc/self/uid_map").ok();
        Self {
            effective: effective(&status),
            is_first_namespace: map.as_deref().map(is_identity),
        }
    }

    pub(super) fn has(&self, capability: u32) -> bool {
        self.effective.is_some_and(|set| set >> capability & 1 != 0)
    }

    /// CAP_SYS_ADMIN stands for the two that were once part of it.
    fn missing(&self) -> Vec<&'static str> {
        let is_admin = self.has(SYS_ADMIN);
        let needed = [
            ("CAP_BPF", is_admin || self.has(BPF)),
            ("CAP_NET_ADMIN", self.has(NET_ADMIN)),
            ("CAP_PERFMON", is_admin || self.has(PERFMON)),
        ];
        let missing = needed.into_iter().filter(|(_, has)| !has);
        missing.map(|(name, _)| name).collect()
    }

    /// Whether programs can be loaded.
    pub(super) fn may_load(&self) -> bool {
        self.missing().is_empty() && self.is_first_namespace != Some(false)
    }

    /// Whether file systems can be mounted and programs of others be named.
    pub(super) fn is_admin(&self) -> bool {
        self.has(SYS_ADMIN)
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut about = About::new("rights");
        if self.is_first_namespace == Some(false) {
            about.mend(
                Level::Stops,
                "this is a user namespace of its own, whose capabilities are not good for BPF",
                "run limiter outside of it, on the host",
            );
        }
        let missing = self.missing();
        match self.effective {
            None => about.note("/proc/self/status does not show the capabilities"),
            Some(_) if missing.is_empty() => {
                about.ok("CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are there");
            }
            Some(_) => about.mend(
                Level::Stops,
                format!(
                    "without {} `run` could not start as this process was started",
                    missing.join(", ")
                ),
                "sudo limiter doctor",
            ),
        }
        about.findings()
    }
}

/// The line `CapEff` of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|it| it.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// Whether `/proc/PID/uid_map` maps every user to itself.
fn is_identity(map: &str) -> bool {
    let words: Vec<&str> = map.split_whitespace().collect();
    words == ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tlimiter\nCapInh:\t0000000000000000\nCapEff:\t";

    fn with(set: &str) -> Facts {
        Facts {
            effective: effective(&format!("{STATUS}{set}\nCapBnd:\t000001ffffffffff\n")),
            is_first_namespace: Some(true),
        }
    }

    #[test]
    fn all_that_is_needed_is_there() {
        for set in [
            "000001ffffffffff",
            "000000c000001000",
            // CAP_SYS_ADMIN and CAP_NET_ADMIN.
            "0000000000201000",
        ] {
            let facts = with(set);
            assert!(facts.may_load(), "{set}");
            assert_eq!(facts.judge()[0].level, Level::Ok, "{set}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let found = with("0000000000000000").judge();
        assert_eq!(found[0].level, Level::Stops);
        assert!(
            found[0]
                .what
                .contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON")
        );
        let found = with("0000008000001000").judge();
        assert!(found[0].what.contains("without CAP_PERFMON `run`"));
        assert!(found[0].mend.is_some());
        assert_eq!(Facts::default().judge()[0].level, Level::Note);
    }

    #[test]
    fn a_user_namespace_is_no_place_for_bpf() {
        let facts = Facts {
            is_first_namespace: Some(is_identity("         0       1000          1\n")),
            ..with("000001ffffffffff")
        };
        assert!(!facts.may_load());
        assert_eq!(facts.judge()[0].level, Level::Stops);
        assert!(is_identity("         0          0 4294967295\n"));
    }
}
