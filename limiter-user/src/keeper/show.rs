//! What the keeper tells.

use std::cmp::Reverse;
use std::time::Instant;

use hyper::StatusCode;

use super::lists::Cover;
use super::{Keeper, ListKind, Now, seconds_left, timestamp, unix_seconds, unreadable};
use crate::control::api::{
    BlockRow, Blocks, CounterRow, FloodRow, InterfaceRow, List, ListFileRow, MapRow, OutcomeRow,
    Refusal, ReloadState, SourceRow, Sources, Stats, Status,
};
use crate::dataplane::model::{
    AttachedMode, BlockState, Counter, MapUse, SourceCount, SourceState,
};
use crate::notify;
use crate::policy::Description;
use crate::store::audit;
use crate::worker::Worker;
use crate::worker::supervisor;
use limiter_common::{block::Owner, verdict::Outcome};

/// The most sources that one answer holds.
const MAX_SOURCES: usize = 100_000;

/// What metrics are made of, read at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The counters.
    pub counters: Vec<Counter>,
    /// Blocks in force of every owner.
    pub blocks: [(Owner, u64); 3],
    /// Blocks that found no room, ever.
    pub blocks_refused: u64,
    /// Blocks of rules that were refused or found no room, since the start.
    pub rule_blocks_refused: u64,
    /// Connections of blocked sources that were closed, since the start.
    pub connections_closed: u64,
    /// The process that hears events.
    pub worker: supervisor::Health,
    /// How those fare who are told what happens.
    pub notify: notify::Health,
    /// How full the tables are.
    pub maps: Vec<MapUse>,
    /// How new sources are treated.
    pub flood: FloodRow,
    /// Whether changes are stored.
    pub state_writable: bool,
    /// How the audit log fares.
    pub audit: audit::Health,
    /// Where the program sits.
    pub interfaces: Vec<InterfaceRow>,
    /// Whether it outlasts the daemon.
    pub is_pinned: bool,
    /// The list files.
    pub list_files: Vec<ListFileRow>,
    /// The limits of the policy.
    pub limits: Vec<String>,
    /// What is in force for a time ([`crate::control::api::TermRow::term`]).
    pub term: Option<&'static str>,
    /// Whether the last attempt to load the policy worked.
    pub reload_successful: bool,
    /// When one worked for the last time, in seconds since 1970.
    pub reload_succeeded_unix: u64,
}

impl Keeper {
    /// How things stand.
    ///
    /// # Errors
    /// The data plane cannot be read.
    pub fn status(&self, now: Now) -> Result<Status, Refusal> {
        let maps = self.plane.capacities().map_err(unreadable)?;
        let running = now.instant.saturating_duration_since(self.started.instant);
        let blocks = blocks_by_owner(&maps);
        let (pins, pins_error) = self.pins();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: timestamp(self.started.wall),
            uptime_seconds: running.as_secs(),
            config: self.config.display().to_string(),
            enforce: self.is_enforced(),
            term: self.term_row(now),
            reload: ReloadState {
                successful: self.load.error.is_none(),
                succeeded: timestamp(self.load.succeeded),
                succeeded_unix: unix_seconds(self.load.succeeded),
                error: self.load.error.clone(),
            },
            interfaces: self.interface_rows()?,
            limits: self.limit_names(),
            blocks: blocks
                .map(|(owner, count)| (owner.name().to_owned(), count))
                .into(),
            blocks_refused: self.blocks_refused,
            flood: self.flood_row(),
            captures: self.captures.under_way(),
            state: self.state_row(),
            audit: self.audit_row(),
            allow: self.allow.len() as u64,
            deny: self.deny.len() as u64,
            list_files: self.list_file_rows(),
            maps: maps.iter().map(map_row).collect(),
            metrics: self.metrics.clone(),
            pins,
            pins_error,
            rules: self.rule_names().map(str::to_owned).collect(),
            rules_enforce: self.policy.decide.as_ref().map(|it| it.enforce),
            switched: self.switched(),
            worker: self.worker_row(),
            notify: self.notify_rows(),
            warnings: Vec::new(),
            requests: None,
        })
    }

    /// How things stand, in a line for whoever has no room for more.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let maps = self.plane.capacities().map_err(unreadable);
        let (Ok(maps), Ok(rows)) = (maps, self.interface_rows()) else {
            return "the tables cannot be read; see the log".to_owned();
        };
        let names = |present| {
            let rows = rows.iter().filter(|row| row.present == present);
            let names: Vec<&str> = rows.map(|row| row.interface.as_str()).collect();
            names.join(", ")
        };
        let mut line = match (names(true), self.is_enforced()) {
            (there, _) if there.is_empty() => "attached nowhere".to_owned(),
            (there, true) => format!("guarding {there}"),
            (there, false) => format!("watching {there}, dropping nothing"),
        };
        let gone = names(false);
        if !gone.is_empty() {
            line.push_str(&format!(" ({gone} vanished)"));
        }
        let blocks: u64 = blocks_by_owner(&maps).iter().map(|(_, count)| count).sum();
        let count = |count: u64, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let limits = count(self.policy.edge.limits.len() as u64, "limit");
        line.push_str(&format!(": {limits}, {}", count(blocks, "block")));
        if let Some(term) = self.term_word() {
            line.push_str("; ");
            line.push_str(term);
        }
        if self.load.error.is_some() {
            line.push_str("; the last reload was refused");
        }
        line
    }

    /// The policy in force, without what was added to the lists at run time.
    #[must_use]
    pub fn policy_in_force(&self) -> Description {
        Description::of(&self.policy)
    }

    /// The counters that are not zero.
    ///
    /// # Errors
    /// The data plane cannot be read.
    pub fn stats(&self) -> Result<Stats, Refusal> {
        let counters = self.plane.counters().map_err(unreadable)?;
        let mut counters: Vec<CounterRow> = counters
            .into_iter()
            .filter(|counter| counter.packets > 0)
            .map(|counter| CounterRow {
                outcome: outcome_row(counter.outcome),
                interface: counter.interface,
                limit: counter.limit,
                packets: counter.packets,
                bytes: counter.bytes,
            })
            .collect();
        counters.sort_by(|a, b| {
            let key = |row: &CounterRow| {
                let OutcomeRow {
                    verdict,
                    reason,
                    budget,
                } = row.outcome.clone();
                (
                    row.interface.clone(),
                    row.limit.clone(),
                    reason,
                    verdict,
                    budget,
                )
            };
            key(a).cmp(&key(b))
        });
        Ok(Stats { counters })
    }

    /// What each source has sent so far, to measure rates against.
    ///
    /// # Errors
    /// The data plane cannot be read.
    pub fn sample_sources(&self, now: Now) -> Result<Sample, Refusal> {
        let counts = self.plane.source_counts().map_err(unreadable)?;
        let packets = |it: &SourceCount| (it.key, it.passed + it.dropped);
        let mut packets: Vec<_> = counts.iter().map(packets).collect();
        packets.sort_unstable();
        Ok(Sample {
            taken: now.instant,
            packets,
        })
    }

    /// The `count` busiest sources since `before`; then those with the most
    /// drops, then the most packets.
    ///
    /// # Errors
    /// `count` is above 100,000, or the data plane cannot be read.
    pub fn sources(&self, count: usize, before: &Sample, now: Now) -> Result<Sources, Refusal> {
        if count > MAX_SOURCES {
            let help = format!("allowed: up to {MAX_SOURCES}");
            let detail = format!("{count} sources are too many for one answer");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, detail, help));
        }
        let mut counts = self.plane.source_counts().map_err(unreadable)?;
        let total = counts.len() as u64;
        counts.sort_unstable_by_key(|it| it.key);
        let mut busiest: Vec<(u64, SourceCount)> = before.rates(&counts, now);
        let order =
            |(rate, it): &(u64, SourceCount)| (Reverse((*rate, it.dropped, it.passed)), it.key);
        // Out of a million only those that are shown are put in order.
        if count < busiest.len() {
            busiest.select_nth_unstable_by_key(count, order);
            busiest.truncate(count);
        }
        busiest.sort_unstable_by_key(order);
        let rows = busiest.iter().filter_map(|(rate, it)| {
            Some(SourceRow {
                packets_per_second: Some(*rate),
                ..source_row(self.plane.source(it)?)
            })
        });
        let sources = rows.collect();
        Ok(Sources { total, sources })
    }

    /// The blocks in force, the one that ends last first.
    ///
    /// # Errors
    /// The data plane cannot be read.
    pub fn blocks(&mut self, now: Now) -> Result<Blocks, Refusal> {
        let mut states = self.plane.blocks().map_err(unreadable)?;
        // What ended in the meantime needs no note any more.
        self.forget_notes(&states);
        states.sort_by_key(|state| (Reverse(state.remaining), state.network));
        let blocks = states.iter().map(|state| self.block_row(state, now));
        Ok(Blocks {
            blocks: blocks.collect(),
        })
    }

    /// A list with the entries of file and run time.
    #[must_use]
    pub fn list_rows(&self, kind: ListKind, now: Now) -> List {
        let list = match kind {
            ListKind::Allow => &self.allow,
            ListKind::Deny => &self.deny,
        };
        let mut entries = list.rows(now, self.load.succeeded);
        if kind == ListKind::Deny {
            let allow = Cover::new(self.allow.networks());
            for entry in &mut entries {
                entry.overruled_by = allow.of(entry.network);
            }
        }
        List { entries }
    }

    /// What metrics are made of.
    ///
    /// # Errors
    /// The data plane cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let maps = self.plane.capacities().map_err(unreadable)?;
        Ok(Snapshot {
            counters: self.plane.counters().map_err(unreadable)?,
            blocks: blocks_by_owner(&maps),
            blocks_refused: self.blocks_refused,
            rule_blocks_refused: self.rules.refused,
            connections_closed: self.connections_closed(),
            worker: self
                .rules
                .worker
                .as_ref()
                .map(Worker::health)
                .unwrap_or_default(),
            notify: self.notifier().map(|it| it.health()).unwrap_or_default(),
            flood: self.flood_row(),
            state_writable: self.state_row().writable,
            audit: self.audit().health(),
            maps,
            interfaces: self.interface_rows()?,
            list_files: self.list_file_rows(),
            limits: self.limit_names(),
            is_pinned: self.is_pinned(),
            term: self.term_word(),
            reload_successful: self.load.error.is_none(),
            reload_succeeded_unix: unix_seconds(self.load.succeeded),
        })
    }

    pub(super) fn block_row(&self, state: &BlockState, now: Now) -> BlockRow {
        let name = (state.network, state.limit.clone());
        let note = self
            .notes
            .get(&name)
            .filter(|_| state.owner != Owner::Kernel);
        BlockRow {
            network: state.network,
            owner: state.owner.name().to_owned(),
            limit: state.limit.clone(),
            remaining_seconds: seconds_left(state.remaining),
            expires: timestamp(now.after(state.remaining).wall),
            dry: state.dry,
            reason: note.and_then(|note| match note.rule() {
                Some(rule) => Some(rule.in_words()),
                None => note.reason.clone(),
            }),
            since: note.map(|note| timestamp(note.since)),
            uid: note.and_then(|note| note.uid),
            rule: note.and_then(|note| note.rule().cloned()),
        }
    }

    fn limit_names(&self) -> Vec<String> {
        let limits = self.policy.edge.limits.iter();
        limits.map(|limit| limit.name.clone()).collect()
    }

    fn interface_rows(&self) -> Result<Vec<InterfaceRow>, Refusal> {
        let present = (self.interfaces)().map_err(|error| unreadable(error.into()))?;
        Ok(self.rows_of_interfaces(&present))
    }
}

/// The blocks of each owner, which has a quota and so a line of its own among
/// the tables. Listing all blocks to count them would make scrapes dear.
fn blocks_by_owner(maps: &[MapUse]) -> [(Owner, u64); 3] {
    [Owner::Operator, Owner::Rule, Owner::Kernel].map(|owner| {
        let quota = maps
            .iter()
            .find(|map| map.map.strip_prefix("blocks_") == Some(owner.name()));
        (owner, quota.and_then(|map| map.entries).unwrap_or(0))
    })
}

/// The word for a mode in answers and metrics.
pub(super) fn mode_name(mode: AttachedMode) -> &'static str {
    match mode {
        AttachedMode::Native => "native",
        AttachedMode::Generic => "generic",
    }
}

fn map_row(map: &MapUse) -> MapRow {
    MapRow {
        map: map.map.to_owned(),
        capacity: map.capacity,
        entries: map.entries,
    }
}

pub(super) fn outcome_row(outcome: Outcome) -> OutcomeRow {
    let reason = outcome.reason();
    OutcomeRow {
        verdict: outcome.action().name().to_owned(),
        reason: reason.name().to_owned(),
        budget: reason.budget().name().map(str::to_owned),
    }
}

/// What each source had sent at some time.
#[derive(Clone, Debug)]
pub struct Sample {
    taken: Instant,
    /// Packets by [`SourceCount::key`], in the order of the keys: a million are
    /// compared with a million one after the other, which a table that is
    /// looked up takes ten times as long for.
    packets: Vec<((u64, u32), u64)>,
}

impl Sample {
    /// Of each count, in the order of their keys, packets a second since then,
    /// rounded. A source that came since began with none.
    fn rates(&self, counts: &[SourceCount], now: Now) -> Vec<(u64, SourceCount)> {
        let elapsed = now.instant.saturating_duration_since(self.taken);
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let mut before = self.packets.iter().peekable();
        let rate = |count: &SourceCount| {
            while before.next_if(|(key, _)| *key < count.key).is_some() {}
            let known = before.next_if(|(key, _)| *key == count.key);
            let base = known.map_or(0, |(_, packets)| *packets);
            let packets = (count.passed + count.dropped).saturating_sub(base);
            ((packets as f64 / seconds).round() as u64, *count)
        };
        counts.iter().map(rate).collect()
    }
}

pub(super) fn source_row(state: SourceState) -> SourceRow {
    SourceRow {
        source: state.source,
        limit: state.limit,
        packets_per_second: None,
        passed: state.passed,
        dropped: state.dropped,
        last_refusal: state.last_refusal.map(outcome_row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::fake::keeper;
    use std::{path::PathBuf, time::Duration};

    #[test]
    fn the_busiest_sources_come_first_and_the_others_are_only_counted() {
        let now = Now::read();
        let (keeper, told) = keeper(PathBuf::from("limiter.toml"), now);
        let state = |host: u8, packets| SourceState {
            source: std::net::IpAddr::from([192, 0, 2, host]).into(),
            limit: "https".to_owned(),
            passed: packets,
            dropped: 0,
            unsettled: 0,
            last_refusal: None,
        };
        let tell = |states: &[SourceState]| told.lock().unwrap().sources = states.to_vec();
        tell(&[state(1, 10), state(2, 1_000), state(3, 5)]);
        let before = keeper.sample_sources(now).unwrap();
        tell(&[state(1, 50), state(2, 1_000), state(3, 5), state(4, 16)]);
        let later = now.after(Duration::from_secs(2));
        let shown = |count| {
            let sources = keeper.sources(count, &before, later).unwrap();
            assert_eq!(sources.total, 4);
            let rows = sources.sources.into_iter();
            rows.map(|row| (row.source.to_string(), row.packets_per_second))
                .collect::<Vec<_>>()
        };
        let named = |host: u8, rate| (format!("192.0.2.{host}/32"), Some(rate));
        assert_eq!(shown(2), [named(1, 20), named(4, 8)]);
        let all = [named(1, 20), named(4, 8), named(2, 0), named(3, 0)];
        assert_eq!(shown(9), all);
        assert_eq!(shown(0), []);
    }
}
