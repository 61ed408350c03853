//! What processes take.

use anyhow::{Context as _, Result};
use std::{collections::BTreeMap, fs};

/// What a process, those below it and those of them that have ended took of the CPUs.
pub(crate) fn cpu_seconds(id: u32) -> Result<f64> {
    let ticks: u64 = family(id)?.iter().map(|process| process.ticks).sum();
    // USER_HZ, the same on every Linux.
    Ok(ticks as f64 / 100.0)
}

/// Resident memory of the largest of the processes below one, in bytes: of a daemon that is the worker,
/// which reads what strangers send.
pub(crate) fn most_resident_below(id: u32) -> Result<u64> {
    let below = family(id)?.into_iter().filter(|process| process.id != id);
    let sizes = below.map(|process| resident(process.id));
    let sizes = sizes.collect::<Result<Vec<u64>>>()?;
    sizes.into_iter().max().context("no process below")
}

struct Process {
    id: u32,
    parent: u32,
    /// Of it and of its children that have ended.
    ticks: u64,
}

/// A process and those below it.
fn family(id: u32) -> Result<Vec<Process>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("listing the processes")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        if let Ok(text) = fs::read_to_string(format!("/proc/{id}/stat")) {
            let (parent, ticks) = stat(&text)?;
            all.insert(id, Process { id, parent, ticks });
        }
    }
    let is_below = |mut one: u32| {
        while one != id {
            match all.get(&one) {
                Some(process) => one = process.parent,
                None => return false,
            }
        }
        true
    };
    let own: Vec<u32> = all.keys().copied().filter(|id| is_below(*id)).collect();
    Ok(own.iter().filter_map(|id| all.remove(id)).collect())
}

/// A process's parent, and its ticks with those of children that have ended.
fn stat(text: &str) -> Result<(u32, u64)> {
    // The name before it may have anything in it.
    let (_, rest) = text.rsplit_once(") ").context("no name in stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let parent = fields.get(1).context("no parent in stat")?.parse()?;
    let ticks = fields.get(11..15).context("no times in stat")?;
    let ticks = ticks.iter().map(|ticks| ticks.parse::<u64>());
    Ok((parent, ticks.sum::<Result<u64, _>>()?))
}

fn resident(id: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"));
    let text = text.with_context(|| format!("reading what process {id} takes"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no VmRSS")?.parse()?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let fields = "S 7 1 1 0 -1 0 0 0 0 0 12 34 5 6 20 0 1 0 100";
        assert_eq!(stat(&format!("9 (a) b) {fields}")).unwrap(), (7, 57));
        let own = std::process::id();
        assert!(resident(own).unwrap() > 1 << 16);
        assert!(cpu_seconds(own).unwrap() >= 0.0);
    }
}
