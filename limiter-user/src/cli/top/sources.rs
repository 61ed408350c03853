//! The busiest sources, and what is done to each.

use std::collections::HashMap;
use std::time::Instant;

use ipnet::IpNet;

use super::history::Fate;
use crate::cli::show::reason;
use crate::cli::words::duration;
use crate::control::api::{BlockRow, ListRow, OutcomeRow, SourceRow, Sources};
use crate::keeper::shown;

/// The source and the limit: what a line is about, wherever it stands.
pub(super) type Name = (IpNet, String);

/// What was read about sources at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) sources: Vec<SourceRow>,
    /// How many there are in all.
    pub(super) total: u64,
    /// `None`: too many to look at.
    pub(super) blocks: Option<Vec<BlockRow>>,
    pub(super) allow: Option<Vec<ListRow>>,
    pub(super) deny: Option<Vec<ListRow>>,
}

impl Reading {
    /// The sources, and nothing yet of blocks and lists.
    pub(super) fn of(sources: Sources) -> Self {
        Self {
            total: sources.total,
            sources: sources.sources,
            ..Self::default()
        }
    }
}

/// A source on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: Name,
    /// Packets a second, whatever became of them.
    pub(super) rate: u64,
    pub(super) passed: u64,
    pub(super) dropped: u64,
    /// What is done to it, in words, and how grave that is.
    pub(super) treatment: (Fate, String),
}

/// The sources as they were read last, and what they had before.
#[derive(Clone, Debug, Default)]
pub(super) struct Busiest {
    pub(super) rows: Vec<Row>,
    pub(super) total: u64,
    /// Blocks and lists were too many to look at.
    pub(super) is_partial: bool,
    before: HashMap<Name, (u64, u64)>,
    read: Option<Instant>,
}

impl Busiest {
    /// Takes in what was read `now`.
    pub(super) fn record(&mut self, reading: &Reading, now: Instant) {
        let before = std::mem::take(&mut self.before);
        self.rows = reading
            .sources
            .iter()
            .map(|source| {
                let name = (source.source, source.limit.clone());
                let (passed, dropped) = match before.get(&name) {
                    // An entry that was made anew began at zero.
                    Some((passed, _)) if *passed > source.passed => (0, 0),
                    Some(before) => *before,
                    // What it did before it was seen says nothing of now.
                    None => (source.passed, source.dropped),
                };
                let lately = Lately {
                    passed: source.passed - passed,
                    dropped: source.dropped.saturating_sub(dropped),
                };
                Row {
                    rate: source.packets_per_second.unwrap_or_default(),
                    passed: source.passed,
                    dropped: source.dropped,
                    treatment: treatment(source, &lately, reading),
                    name,
                }
            })
            .collect();
        self.before = reading
            .sources
            .iter()
            .map(|source| {
                let name = (source.source, source.limit.clone());
                (name, (source.passed, source.dropped))
            })
            .collect();
        self.total = reading.total;
        let parts = [
            reading.blocks.is_none(),
            reading.allow.is_none(),
            reading.deny.is_none(),
        ];
        self.is_partial = parts.contains(&true);
        self.read = Some(now);
    }

    /// When it was read.
    pub(super) const fn read(&self) -> Option<Instant> {
        self.read
    }
}

/// What became of a source's packets since it was read before.
struct Lately {
    passed: u64,
    dropped: u64,
}

/// What is done to a source: in the order of the packet path, lists first.
fn treatment(source: &SourceRow, lately: &Lately, reading: &Reading) -> (Fate, String) {
    let covers = |network: &IpNet| network.contains(&source.source);
    let on = |list: &Option<Vec<ListRow>>| -> Option<String> {
        let found = list.as_ref()?.iter().find(|row| covers(&row.network))?;
        Some(shown(found.network))
    };
    if let Some(network) = on(&reading.allow) {
        return (Fate::Passed, format!("allowed ({network})"));
    }
    if let Some(network) = on(&reading.deny) {
        return (Fate::Dropped, format!("denied ({network})"));
    }
    let is_meant = |block: &&BlockRow| {
        let limit = block.limit.as_ref();
        let is_whole = block.owner == "kernel" || limit.is_none_or(|limit| *limit == source.limit);
        is_whole && covers(&block.network)
    };
    if let Some(block) = reading.blocks.iter().flatten().find(is_meant) {
        let left = duration(block.remaining_seconds);
        let (fate, word) = match block.dry {
            true => (Fate::WouldDrop, "would be blocked"),
            false => (Fate::Dropped, "blocked"),
        };
        return (fate, format!("{word} by {}, {left} left", block.owner));
    }
    match &source.last_refusal {
        Some(refusal) if lately.dropped > 0 => refused(refusal, lately),
        Some(refusal) => (
            Fate::Passed,
            format!("passes; was over {}", reason(refusal)),
        ),
        None => (Fate::Passed, "passes".to_owned()),
    }
}

fn refused(refusal: &OutcomeRow, lately: &Lately) -> (Fate, String) {
    let all = lately.passed.saturating_add(lately.dropped);
    // Rounded up: a share that is not zero is not shown as zero.
    let percent = (u128::from(lately.dropped) * 100).div_ceil(u128::from(all.max(1)));
    let fate = Fate::of(refusal);
    let word = match fate {
        Fate::WouldDrop => "would drop",
        Fate::Passed | Fate::Dropped => "drops",
    };
    (fate, format!("{word} {percent} %: {}", reason(refusal)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn source(passed: u64, dropped: u64) -> SourceRow {
        SourceRow {
            source: "192.0.2.1/32".parse().unwrap(),
            limit: "https".to_owned(),
            packets_per_second: Some(7),
            passed,
            dropped,
            last_refusal: (dropped > 0).then(|| OutcomeRow {
                verdict: "drop".to_owned(),
                reason: "limit".to_owned(),
                budget: Some("packets".to_owned()),
            }),
        }
    }

    fn reading(source: SourceRow) -> Reading {
        let some = Some(Vec::new());
        Reading {
            sources: vec![source],
            total: 1,
            blocks: Some(Vec::new()),
            allow: some.clone(),
            deny: some,
        }
    }

    fn block(network: &str, owner: &str, limit: Option<&str>) -> BlockRow {
        BlockRow {
            network: network.parse().unwrap(),
            owner: owner.to_owned(),
            limit: limit.map(str::to_owned),
            remaining_seconds: 61,
            expires: String::new(),
            dry: false,
            reason: None,
            since: None,
            uid: None,
            rule: None,
        }
    }

    #[test]
    fn the_share_is_that_of_lately() {
        let mut busiest = Busiest::default();
        let now = Instant::now();
        let mut words = |source, seconds| {
            busiest.record(&reading(source), now + Duration::from_secs(seconds));
            busiest.rows[0].treatment.1.clone()
        };
        assert_eq!(words(source(5, 0), 0), "passes");
        assert_eq!(words(source(5, 0), 1), "passes");
        assert_eq!(words(source(6, 3), 2), "drops 75 %: limit (packets)");
        assert_eq!(words(source(9, 3), 3), "passes; was over limit (packets)");
        // Evicted, and made anew.
        assert_eq!(words(source(1, 1), 4), "drops 50 %: limit (packets)");
    }

    #[test]
    fn lists_and_blocks_come_first() {
        let mut reading = reading(source(5, 1));
        let words = |reading: &Reading| {
            let lately = Lately {
                passed: 0,
                dropped: 0,
            };
            treatment(&reading.sources[0], &lately, reading)
        };
        reading.blocks = Some(vec![block("192.0.2.1/32", "operator", Some("dns"))]);
        assert_eq!(words(&reading).1, "passes; was over limit (packets)");
        let kernels = block("192.0.2.0/24", "kernel", Some("dns"));
        reading.blocks = Some(vec![kernels]);
        let blocked = (Fate::Dropped, "blocked by kernel, 1m 1s left".to_owned());
        assert_eq!(words(&reading), blocked);
        let listed = ListRow {
            network: "192.0.0.0/16".parse().unwrap(),
            origin: "file".to_owned(),
            since: String::new(),
            remaining_seconds: None,
            expires: None,
            reason: None,
            uid: None,
            overruled_by: None,
        };
        reading.deny = Some(vec![listed.clone()]);
        assert_eq!(words(&reading).1, "denied (192.0.0.0/16)");
        reading.allow = Some(vec![listed]);
        assert_eq!(words(&reading).0, Fate::Passed);
    }
}
