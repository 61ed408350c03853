//! Memory and clock.

use std::fs;

use super::finding::{About, Finding, Level};

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Bytes that are free or can be made free.
    pub(super) available_bytes: Option<u64>,
    /// What the tables of the policy take, and its `edge.sources`.
    pub(super) needed: Option<(u64, u32)>,
    /// The kernel's clock source.
    pub(super) clock_source: Option<String>,
    /// All that it could take.
    pub(super) clock_sources: Option<String>,
}

const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0";

impl Facts {
    pub(super) fn read(needed: Option<(u64, u32)>) -> Self {
        let read = |name| fs::read_to_string(format!("{CLOCKS}/{name}")).ok();
        let memory = fs::read_to_string("/proc/meminfo").ok();
        Self {
            available_bytes: memory.as_deref().and_then(available_bytes),
            needed,
            clock_source: read("current_clocksource").map(|it| it.trim().to_owned()),
            clock_sources: read("available_clocksource").map(|it| it.trim().to_owned()),
        }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut found = self.memory();
        found.extend(self.clock());
        found
    }

    fn memory(&self) -> Vec<Finding> {
        let mut about = About::new("memory");
        let mib = |bytes: u64| bytes >> 20;
        match (self.available_bytes, self.needed) {
            (None, _) => about.note("/proc/meminfo does not say how much is free"),
            (Some(available), None) => about.mend(
                Level::Note,
                format!(
                    "{} MiB are free; what the tables take, a policy says",
                    mib(available)
                ),
                "limiter doctor --config FILE",
            ),
            (Some(available), Some((needed, sources))) => {
                let takes = mib(needed.next_multiple_of(1 << 20));
                let what = format!(
                    "the tables of the policy take {takes} MiB, and {} are free",
                    mib(available)
                );
                let mend = format!("lower edge.sources ({sources}) or edge.tables");
                match needed {
                    _ if needed > available => about.mend(Level::Stops, what, mend),
                    _ if needed > available / 2 => about.mend(Level::Warning, what, mend),
                    _ => about.ok(what),
                }
            }
        }
        about.findings()
    }

    /// The packet path reads jiffies. The clock source is read for each packet by
    /// others (time stamps), and by limiter where it measures a jiffy.
    fn clock(&self) -> Vec<Finding> {
        let mut about = About::new("clock");
        let slow = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];
        match self.clock_source.as_deref() {
            None => about.note("the clock source is not to be seen"),
            Some(source) if slow.contains(&source) => {
                let others = self.clock_sources.as_deref().unwrap_or_default();
                let better = others.split_whitespace().find(|it| !slow.contains(it));
                let mend = better.map(|name| format!("echo {name} > {CLOCKS}/current_clocksource"));
                let what = format!(
                    "the clock source is {source}, whose reading takes a microsecond; limiter \
                     reads jiffies, but the kernel stamps packets with it"
                );
                about.say(Level::Warning, what, mend);
            }
            Some(source) => about.ok(format!("the clock source is {source}")),
        }
        about.findings()
    }
}

/// The line `MemAvailable` of `/proc/meminfo`.
fn available_bytes(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|it| it.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(needed_mib: u64) -> Facts {
        Facts {
            available_bytes: available_bytes("MemTotal: 2 kB\nMemAvailable:    1048576 kB\n"),
            needed: Some((needed_mib << 20, 65_536)),
            clock_source: Some("tsc".to_owned()),
            clock_sources: Some("tsc hpet acpi_pm".to_owned()),
        }
    }

    #[test]
    fn memory_against_the_policy() {
        for (needed_mib, level) in [
            (100, Level::Ok),
            (512, Level::Ok),
            (600, Level::Warning),
            (1_024, Level::Warning),
            (1_025, Level::Stops),
        ] {
            let found = &facts(needed_mib).memory()[0];
            assert_eq!(found.level, level, "{needed_mib}");
            assert!(found.what.contains(&format!("{needed_mib} MiB, and 1024")));
            assert_eq!(found.mend.is_some(), level != Level::Ok);
        }
        let unknown = Facts::default().memory();
        assert_eq!(unknown[0].level, Level::Note);
        let without_policy = Facts {
            needed: None,
            ..facts(1)
        };
        assert_eq!(without_policy.memory()[0].level, Level::Note);
    }

    #[test]
    fn a_slow_clock_source_and_the_better_one() {
        assert_eq!(facts(1).clock()[0].level, Level::Ok);
        let slow = Facts {
            clock_source: Some("hpet".to_owned()),
            ..facts(1)
        };
        let found = &slow.clock()[0];
        assert_eq!(found.level, Level::Warning);
        assert!(found.mend.as_deref().unwrap().starts_with("echo tsc > "));
        let alone = Facts {
            clock_sources: Some("hpet acpi_pm".to_owned()),
            ..slow
        };
        assert_eq!(alone.clock()[0].mend, None);
        assert_eq!(Facts::default().clock()[0].level, Level::Note);
    }
}
