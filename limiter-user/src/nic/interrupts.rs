//! The interrupts of an interface, and which CPUs take them.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::Link;

/// An interrupt line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// How often each CPU that is online took it.
    pub counts: Vec<u64>,
    /// What its driver called it (`virtio2-input.0`).
    pub name: String,
    /// The CPUs that take it, where the kernel says.
    pub cpus: Option<BTreeSet<u32>>,
}

/// The interrupts of an interface's hardware; none where it has no hardware.
/// `None`: what they are is not to be seen.
#[must_use]
pub fn of(link: &Link) -> Option<Vec<Interrupt>> {
    let Some(parent) = &link.parent else {
        return Some(Vec::new());
    };
    let device = PathBuf::from("/sys/bus")
        .join(&parent.bus)
        .join("devices")
        .join(&parent.name);
    let mut lines = parse(&fs::read_to_string("/proc/interrupts").ok()?);
    let own = message_interrupts(&device);
    lines.retain(|line| own.contains(&line.number) && line.is_for(&link.name, &parent.name));
    for line in &mut lines {
        let file = format!("/proc/irq/{}/effective_affinity_list", line.number);
        line.cpus = fs::read_to_string(file).ok().map(|text| cpus(&text));
    }
    Some(lines)
}

/// The numbers of a device's MSI interrupts; of a virtio device, those of what
/// it sits on.
fn message_interrupts(device: &std::path::Path) -> BTreeSet<u32> {
    let Ok(device) = fs::canonicalize(device) else {
        return BTreeSet::new();
    };
    let places = [Some(device.as_path()), device.parent()];
    let list = places
        .into_iter()
        .flatten()
        .find_map(|place| fs::read_dir(place.join("msi_irqs")).ok());
    let names = list.into_iter().flatten().filter_map(Result::ok);
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

impl Interrupt {
    /// Whether it is raised for packets, and not for the link or for orders to
    /// the device.
    fn is_for(&self, interface: &str, parent: &str) -> bool {
        let name = self.name.to_ascii_lowercase();
        let others = ["config", "control", "async", "misc", "mgmnt", "fdir", "aeq"];
        let is_other = others.iter().any(|other| name.contains(other));
        // Those of ixgbe and others that are the bare name are for the link.
        !is_other && self.name != interface && self.name != parent
    }
}

/// The text of `/proc/interrupts`: a line of CPUs, then lines of a number,
/// counts and words. Those without a number are the processor's own.
#[must_use]
pub fn parse(text: &str) -> Vec<Interrupt> {
    let mut lines = text.lines();
    let cpus = lines.next().map_or(0, |it| it.split_whitespace().count());
    lines.filter_map(|line| interrupt(line, cpus)).collect()
}

fn interrupt(line: &str, cpus: usize) -> Option<Interrupt> {
    let (number, rest) = line.trim_start().split_once(':')?;
    let mut words = rest.split_whitespace();
    let counts = words.by_ref().take(cpus);
    let counts = counts
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()
        .ok()?;
    Some(Interrupt {
        number: number.parse().ok()?,
        counts,
        name: words.last().unwrap_or_default().to_owned(),
        cpus: None,
    })
}

/// A list of CPUs: `0-3,5`.
#[must_use]
pub fn cpus(text: &str) -> BTreeSet<u32> {
    let parts = text.trim().split(',');
    let ranges = parts.filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}
