//! What became of packets, second by second, for the last minutes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::cli::show::reason;
use crate::control::api::{CounterRow, OutcomeRow};

/// How far back it goes.
pub(super) const SPAN_SECONDS: usize = 300;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Passed,
    WouldDrop,
    Dropped,
}

impl Fate {
    pub(super) const ALL: [Self; 3] = [Self::Passed, Self::Dropped, Self::WouldDrop];

    pub(super) fn of(outcome: &OutcomeRow) -> Self {
        match outcome.verdict.as_str() {
            "drop" => Self::Dropped,
            "would_drop" => Self::WouldDrop,
            _ => Self::Passed,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Dropped => "dropped",
            Self::WouldDrop => "would drop",
        }
    }
}

/// What is counted together: a fate, and why.
pub(super) type Kind = (Fate, String);

type Packets = BTreeMap<Kind, u64>;

/// Packets a second of every kind, one place for each second; a second of
/// which nothing is known has none.
#[derive(Clone, Debug)]
pub(super) struct History {
    start: Instant,
    /// The second, counted from `start`, of the last place.
    last_second: u64,
    seconds: VecDeque<Option<Packets>>,
    /// The counters as they were read last.
    before: Option<(Instant, Packets)>,
}

/// A line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) fate: Fate,
    /// Why; empty: all of this fate.
    pub(super) why: String,
    /// Packets a second, the youngest last.
    pub(super) rates: Vec<Option<u64>>,
}

impl Series {
    /// Packets a second just now.
    pub(super) fn now(&self) -> Option<u64> {
        self.rates.last().copied().flatten()
    }

    /// The most packets a second.
    pub(super) fn peak(&self) -> u64 {
        self.rates.iter().flatten().copied().max().unwrap_or(0)
    }

    fn sum(&self) -> u64 {
        self.rates.iter().flatten().sum()
    }

    /// The rates in at most `bars` bars, each the highest of its seconds. A
    /// second stays in its bar until it leaves on the left.
    pub(super) fn bars(&self, bars: usize, last_second: u64) -> Vec<Option<u64>> {
        let each = SPAN_SECONDS.div_ceil(bars.max(1)) as u64;
        let first = (last_second + 1).saturating_sub(self.rates.len() as u64);
        let mut highest = BTreeMap::<u64, Option<u64>>::new();
        for (second, rate) in (first..).zip(&self.rates) {
            let bar = highest.entry(second / each).or_default();
            *bar = (*bar).max(*rate);
        }
        let bars_now: Vec<_> = highest.into_values().collect();
        bars_now[bars_now.len().saturating_sub(bars)..].to_vec()
    }
}

impl History {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            last_second: 0,
            seconds: VecDeque::new(),
            before: None,
        }
    }

    /// The second of the youngest place.
    pub(super) const fn last_second(&self) -> u64 {
        self.last_second
    }

    /// Takes in the counters as they are `now`: what was added since the last
    /// time is spread over the seconds since then. Counters that fell are those
    /// of another daemon: of the time between the two nothing is known.
    pub(super) fn record(&mut self, counters: &[CounterRow], now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        let is_new = second > self.last_second;
        if !is_new && self.before.is_some() {
            return;
        }
        let mut packets = Packets::new();
        for row in counters {
            let kind = (Fate::of(&row.outcome), reason(&row.outcome));
            *packets.entry(kind).or_default() += row.packets;
        }
        let rates = self.before.as_ref().and_then(|(then, before)| {
            rates(
                before,
                &packets,
                now.saturating_duration_since(*then).as_secs_f64(),
            )
        });
        let gap = usize::try_from(second - self.last_second).unwrap_or(SPAN_SECONDS);
        for _ in 0..gap.min(SPAN_SECONDS) {
            self.seconds.push_back(rates.clone());
        }
        let excess = self.seconds.len().saturating_sub(SPAN_SECONDS);
        self.seconds.drain(..excess);
        self.last_second = second;
        self.before = Some((now, packets));
    }

    /// All of each fate, then what was refused by reason and at last what
    /// passed by reason; the most packets first.
    pub(super) fn series(&self) -> Vec<Series> {
        let mut kinds: Vec<&Kind> = self
            .seconds
            .iter()
            .flatten()
            .flat_map(BTreeMap::keys)
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        let all = Fate::ALL.into_iter().filter(|fate| {
            *fate != Fate::WouldDrop || kinds.iter().any(|kind| kind.0 == Fate::WouldDrop)
        });
        let mut rows: Vec<Series> = all
            .map(|fate| self.one(fate, "", |kind| kind.0 == fate))
            .collect();
        let mut parts: Vec<Series> = kinds
            .into_iter()
            .map(|kind| self.one(kind.0, &kind.1, |other| other == kind))
            .collect();
        parts.sort_by_key(|part| (part.fate == Fate::Passed, std::cmp::Reverse(part.sum())));
        rows.append(&mut parts);
        rows
    }

    fn one(&self, fate: Fate, why: &str, is_meant: impl Fn(&Kind) -> bool) -> Series {
        let rate = |packets: &Packets| {
            let meant = packets.iter().filter(|(kind, _)| is_meant(kind));
            meant.map(|(_, rate)| rate).sum()
        };
        Series {
            fate,
            why: why.to_owned(),
            rates: self
                .seconds
                .iter()
                .map(|second| second.as_ref().map(rate))
                .collect(),
        }
    }
}

/// Packets a second of every kind that had any; `None` where a counter fell.
fn rates(before: &Packets, after: &Packets, seconds: f64) -> Option<Packets> {
    let fell = before
        .iter()
        .any(|(kind, packets)| after.get(kind).is_none_or(|now| now < packets));
    if fell {
        return None;
    }
    let rate = |(kind, packets): (&Kind, &u64)| {
        let added = packets - before.get(kind).copied().unwrap_or_default();
        let rate = (added as f64 / seconds.max(1e-3)).round() as u64;
        (added > 0).then(|| (kind.clone(), rate))
    };
    Some(after.iter().filter_map(rate).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(verdict: &str, reason: &str, packets: u64) -> CounterRow {
        CounterRow {
            interface: Some("eth0".to_owned()),
            limit: None,
            outcome: OutcomeRow {
                verdict: verdict.to_owned(),
                reason: reason.to_owned(),
                budget: None,
            },
            packets,
            bytes: 0,
        }
    }

    #[test]
    fn what_was_added_is_spread_over_the_time_since() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut history = History::new(start);
        history.record(&[row("pass", "allow", 100)], at(200));
        history.record(&[row("pass", "allow", 200)], at(1_200));
        // Another read in the same second waits for the next.
        history.record(&[row("pass", "allow", 300)], at(1_900));
        let later = [row("pass", "allow", 600), row("drop", "limit", 90)];
        history.record(&later, at(3_200));
        let series = history.series();
        let names: Vec<_> = series.iter().map(|s| (s.fate, s.why.as_str())).collect();
        let (passed, dropped) = (Fate::Passed, Fate::Dropped);
        assert_eq!(
            names,
            [
                (passed, ""),
                (dropped, ""),
                (dropped, "limit"),
                (passed, "allow")
            ]
        );
        assert_eq!(series[0].rates, [Some(100), Some(200), Some(200)]);
        assert_eq!(series[2].rates, [Some(0), Some(45), Some(45)]);
        assert_eq!((series[0].now(), series[0].peak()), (Some(200), 200));
    }

    #[test]
    fn of_a_restart_nothing_is_known() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::new(start);
        history.record(&[row("pass", "allow", 100)], at(0));
        history.record(&[row("pass", "allow", 150)], at(1));
        history.record(&[row("pass", "allow", 7)], at(3));
        history.record(&[row("pass", "allow", 17)], at(4));
        let rates = history.series()[0].rates.clone();
        assert_eq!(rates, [Some(50), None, None, Some(10)]);
        // Longer than the whole span: no more places than there are.
        history.record(&[row("pass", "allow", 18)], at(1_000_000));
        assert_eq!(history.series()[0].rates.len(), SPAN_SECONDS);
    }

    #[test]
    fn a_bar_is_the_highest_of_its_seconds() {
        let series = Series {
            fate: Fate::Passed,
            why: String::new(),
            rates: vec![Some(1), None, Some(5), None, None, None, Some(7)],
        };
        // Three seconds to a bar; the seconds are 4 to 10.
        assert_eq!(series.bars(100, 10), [Some(1), Some(5), Some(7)]);
        assert_eq!(series.bars(1, 10), [Some(7)]);
        assert_eq!(series.bars(0, 10), []);
    }
}
