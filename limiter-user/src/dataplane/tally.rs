//! Counters: the kernel's, by row and slot, under the names that the rows and
//! slots had when they were counted.

use super::{TALLIES, error::Error, ledger::Row, model::Counter, sys::Table};
use crate::image::Slots;
use limiter_common::{
    layout::Tally,
    verdict::{NO_LIMIT, Outcome},
};
use std::collections::{HashMap, HashSet};

/// Sums by interface row, limit (without one: empty) and outcome.
pub(super) type Totals = HashMap<(u32, String, u32), Tally>;

/// Counters that are kept for limits that are gone.
const MOST_RETIRED: usize = 4_096;

/// The counters.
#[derive(Debug)]
pub(super) struct Tallies {
    table: Table<u32, Tally>,
    cpus: usize,
    /// What each counter showed when its slot's name left.
    baseline: HashMap<u32, Tally>,
    /// What was counted under names that are gone: by interface row, name and
    /// outcome.
    retired: Totals,
}

impl Tallies {
    pub(super) fn new(table: Table<u32, Tally>, cpus: usize) -> Self {
        Self {
            table,
            cpus,
            baseline: HashMap::new(),
            retired: Totals::new(),
        }
    }

    /// Takes over what another process put aside.
    pub(super) fn adopt(&mut self, row: &Row) {
        let tally = |packets, bytes| Tally { packets, bytes };
        let baseline = row.baseline.iter();
        self.baseline = baseline
            .map(|(index, packets, bytes)| (*index, tally(*packets, *bytes)))
            .collect();
        let retired = row.retired.iter();
        self.retired = retired
            .map(|(row, name, outcome, packets, bytes)| {
                ((*row, name.clone(), *outcome), tally(*packets, *bytes))
            })
            .collect();
    }

    /// Writes down what was put aside.
    pub(super) fn note(&self, row: &mut Row) {
        let baseline = self.baseline.iter();
        row.baseline = baseline
            .map(|(index, tally)| (*index, tally.packets, tally.bytes))
            .collect();
        let retired = self.retired.iter();
        row.retired = retired
            .map(|((row, name, outcome), tally)| {
                (*row, name.clone(), *outcome, tally.packets, tally.bytes)
            })
            .collect();
    }

    /// Counters that are not zero, of the first `rows` interfaces.
    pub(super) fn read<'a>(
        &self,
        rows: u32,
        slots: &Slots,
        interface: impl Fn(u32) -> Option<&'a str>,
    ) -> Result<Vec<Counter>, Error> {
        let all = self.totals(rows, slots)?;
        Ok(all
            .into_iter()
            .filter_map(|((row, limit, outcome), tally)| {
                Some(Counter {
                    interface: interface(row).map(str::to_owned),
                    limit: (!limit.is_empty()).then_some(limit),
                    outcome: Outcome::from_index(outcome)?,
                    packets: tally.packets,
                    bytes: tally.bytes,
                })
            })
            .collect())
    }

    /// What was counted in the first `rows` interfaces, now and under names that are
    /// gone.
    pub(super) fn totals(&self, rows: u32, slots: &Slots) -> Result<Totals, Error> {
        let mut all = self.retired.clone();
        for (index, tally) in self.since_baseline(rows)? {
            let (row, slot, outcome) = parts(index);
            let name = if slot == NO_LIMIT {
                String::new()
            } else {
                slots.name(slot as usize).unwrap_or_default().to_owned()
            };
            add(all.entry((row, name, outcome)).or_default(), tally);
        }
        Ok(all)
    }

    /// Begins with what was counted elsewhere.
    pub(super) fn carry(&mut self, totals: Totals) {
        self.retired = totals;
        self.fold();
    }

    /// Puts aside what was counted under names that `after` does not have in
    /// the same slot any more.
    pub(super) fn retire(&mut self, rows: u32, before: &Slots, after: &Slots) -> Result<(), Error> {
        for (index, tally) in self.since_baseline(rows)? {
            let (row, slot, outcome) = parts(index);
            let place = slot as usize;
            let Some(name) = before.name(place) else {
                continue;
            };
            if slot == NO_LIMIT || after.name(place) == Some(name) {
                continue;
            }
            add(
                self.retired
                    .entry((row, name.to_owned(), outcome))
                    .or_default(),
                tally,
            );
            add(self.baseline.entry(index).or_default(), tally);
        }
        self.fold();
        Ok(())
    }

    /// Keeps what was counted under names that are gone within bounds: the names
    /// with the fewest packets become one without a name.
    fn fold(&mut self) {
        if self.retired.len() <= MOST_RETIRED {
            return;
        }
        let mut names = HashMap::<String, u64>::new();
        for ((_, name, _), tally) in &self.retired {
            *names.entry(name.clone()).or_default() += tally.packets;
        }
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable_by_key(|(_, packets)| *packets);
        let few: HashSet<String> = names
            .iter()
            .take(names.len().div_ceil(2))
            .map(|(name, _)| name.clone())
            .collect();
        for ((row, name, outcome), tally) in std::mem::take(&mut self.retired) {
            let name = if few.contains(&name) {
                String::new()
            } else {
                name
            };
            add(self.retired.entry((row, name, outcome)).or_default(), tally);
        }
    }

    /// Puts aside what was counted in a row, under no interface's name.
    pub(super) fn vacate(&mut self, row: u32, rows: u32, slots: &Slots) -> Result<(), Error> {
        for (index, tally) in self.since_baseline(rows)? {
            let (of, slot, outcome) = parts(index);
            if of != row {
                continue;
            }
            let name = match slot {
                NO_LIMIT => "",
                slot => slots.name(slot as usize).unwrap_or_default(),
            };
            let key = (0, name.to_owned(), outcome);
            add(self.retired.entry(key).or_default(), tally);
            add(self.baseline.entry(index).or_default(), tally);
        }
        let before = std::mem::take(&mut self.retired);
        for ((of, name, outcome), tally) in before {
            let of = if of == row { 0 } else { of };
            add(self.retired.entry((of, name, outcome)).or_default(), tally);
        }
        self.fold();
        Ok(())
    }

    fn since_baseline(&self, rows: u32) -> Result<Vec<(u32, Tally)>, Error> {
        let tallies = self
            .table
            .read(self.cpus, (rows * TALLIES) as usize)
            .map_err(Error::system("reading counters"))?;
        Ok(tallies
            .into_iter()
            .map(|(index, cpus)| {
                let mut sum = Tally::default();
                cpus.into_iter().for_each(|cpu| add(&mut sum, cpu));
                let base = self.baseline.get(&index).copied().unwrap_or_default();
                sum.packets -= base.packets;
                sum.bytes -= base.bytes;
                (index, sum)
            })
            .filter(|(_, tally)| tally.packets != 0)
            .collect())
    }
}

const fn parts(index: u32) -> (u32, u32, u32) {
    let (row, rest) = (index / TALLIES, index % TALLIES);
    (row, rest / Outcome::COUNT, rest % Outcome::COUNT)
}

pub(super) const fn add(sum: &mut Tally, tally: Tally) {
    sum.packets += tally.packets;
    sum.bytes += tally.bytes;
}
