//! What sources send, found out by reading their counts again and again.
//!
//! Pure: readings and their times come from the caller. What happens between
//! two readings is not seen, so all figures are those of whole intervals.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::control::api::{ObservedLimit, Spread};
use crate::dataplane::model::{Counter, SourceState};
use limiter_common::verdict::{Action, Reason};

/// Sources (each under each limit) that are followed at most; some 30 MB. Who
/// comes later is counted and not followed.
const MAX_FOLLOWED: usize = 1 << 18;

/// The tables at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When.
    pub taken: Instant,
    /// The tracked sources.
    pub sources: Vec<SourceState>,
    /// The counters.
    pub counters: Vec<Counter>,
}

/// What a limit let pass and refused, over all sources.
#[derive(Clone, Debug, Default)]
struct Total {
    packets: u64,
    bytes: u64,
    refused: BTreeMap<String, u64>,
}

/// A source under a limit.
#[derive(Clone, Copy, Debug)]
struct Track {
    /// The reading in which it was seen last.
    reading: u64,
    /// Its packets at that time.
    packets: u64,
    /// Those among them that never become fewer, while its entry lasts.
    settled: u64,
    /// The most packets of an interval.
    most: u64,
    /// The most packets a second, of any interval.
    peak: f64,
}

/// Follows sources over readings.
#[derive(Debug)]
pub struct Observer {
    most_followed: usize,
    readings: u64,
    begun: Option<Instant>,
    last: Option<Instant>,
    longest: Duration,
    limits: Vec<String>,
    tracks: HashMap<(IpNet, u16), Track>,
    not_followed: u64,
    restarted: u64,
    totals: [HashMap<String, Total>; 2],
}

impl Default for Observer {
    fn default() -> Self {
        Self::following(MAX_FOLLOWED)
    }
}

impl Observer {
    /// An observer that follows so many sources at most.
    #[must_use]
    pub fn following(most_followed: usize) -> Self {
        Self {
            most_followed,
            readings: 0,
            begun: None,
            last: None,
            longest: Duration::ZERO,
            limits: Vec::new(),
            tracks: HashMap::new(),
            not_followed: 0,
            restarted: 0,
            totals: [HashMap::new(), HashMap::new()],
        }
    }

    /// How long it has been watching.
    #[must_use]
    pub fn watched(&self) -> Duration {
        match (self.begun, self.last) {
            (Some(begun), Some(last)) => last.saturating_duration_since(begun),
            _ => Duration::ZERO,
        }
    }

    /// The longest time between two readings.
    #[must_use]
    pub const fn longest_interval(&self) -> Duration {
        self.longest
    }

    /// Readings taken in.
    #[must_use]
    pub const fn readings(&self) -> u64 {
        self.readings
    }

    /// Sources that were too many to be followed, at most at one time.
    #[must_use]
    pub const fn not_followed(&self) -> u64 {
        self.not_followed
    }

    /// How often a source's count began anew, because it had been pushed out
    /// of the table: what it sent before is not in the figures.
    #[must_use]
    pub const fn restarted(&self) -> u64 {
        self.restarted
    }

    /// Takes in a reading; they come in the order of time.
    pub fn record(&mut self, reading: &Reading) {
        let interval = self
            .last
            .map(|last| reading.taken.saturating_duration_since(last));
        self.longest = self.longest.max(interval.unwrap_or_default());
        self.readings += 1;
        let mut not_followed = 0;
        for state in &reading.sources {
            if !self.follow(state, interval) {
                not_followed += 1;
            }
        }
        self.not_followed = self.not_followed.max(not_followed);
        self.begun = self.begun.or(Some(reading.taken));
        self.last = Some(reading.taken);
        let totals = totals(&reading.counters);
        if self.readings == 1 {
            self.totals[0] = totals;
        } else {
            self.totals[1] = totals;
        }
    }

    /// False if there is no room for it.
    fn follow(&mut self, state: &SourceState, interval: Option<Duration>) -> bool {
        let packets = state.passed.saturating_add(state.dropped);
        let settled = packets.saturating_sub(state.unsettled);
        let Some(limit) = self.limit(&state.limit) else {
            return false;
        };
        let name = (state.source, limit);
        let room = self.tracks.len() < self.most_followed;
        let before = self.tracks.get(&name).copied();
        if before.is_none() && !room {
            return false;
        }
        let mut track = before.unwrap_or(Track {
            reading: 0,
            packets: 0,
            settled: 0,
            most: 0,
            peak: 0.0,
        });
        let is_known = before.is_some() && track.reading + 1 == self.readings;
        let is_anew = before.is_some() && (!is_known || settled < track.settled);
        self.restarted += u64::from(is_anew);
        // A source that was not there in the last reading began with nothing.
        let base = match is_known && !is_anew {
            true => track.packets,
            false => 0,
        };
        if let Some(interval) = interval {
            let sent = packets.saturating_sub(base);
            track.most = track.most.max(sent);
            track.peak = track
                .peak
                .max(sent as f64 / interval.as_secs_f64().max(1e-3));
        }
        track.reading = self.readings;
        // What this reading missed is not new in the next one.
        track.packets = packets.max(base);
        track.settled = settled;
        self.tracks.insert(name, track);
        true
    }

    /// The number of a limit; there are 256 at a time, and reloads bring more.
    fn limit(&mut self, name: &str) -> Option<u16> {
        let known = self.limits.iter().position(|limit| limit == name);
        let place = known.unwrap_or(self.limits.len());
        let number = u16::try_from(place).ok()?;
        if known.is_none() {
            self.limits.push(name.to_owned());
        }
        Some(number)
    }

    /// What was seen of a limit. Sources that `is_exempt` are left out.
    pub fn limit_observed(&self, limit: &str, is_exempt: impl Fn(IpNet) -> bool) -> ObservedLimit {
        let number = self.limits.iter().position(|known| known == limit);
        let number = number.and_then(|place| u16::try_from(place).ok());
        let seen: Vec<(&IpNet, &Track)> = self
            .tracks
            .iter()
            .filter(|((source, of), track)| {
                Some(*of) == number && track.most > 0 && !is_exempt(*source)
            })
            .map(|((source, _), track)| (source, track))
            .collect();
        let busiest = seen
            .iter()
            .max_by(|a, b| a.1.peak.total_cmp(&b.1.peak).then(b.0.cmp(a.0)));
        let total = self.total(limit);
        ObservedLimit {
            limit: limit.to_owned(),
            sources: seen.len() as u64,
            packets_per_second: spread(seen.iter().map(|(_, track)| track.peak.ceil() as u64)),
            packets_at_once: seen.iter().map(|(_, track)| track.most).max().unwrap_or(0),
            busiest: busiest.map(|(source, _)| **source),
            packets: total.packets,
            bytes: total.bytes,
            refused: total.refused,
            budgets: BTreeMap::new(),
        }
    }

    /// What was added to a limit's counters.
    fn total(&self, limit: &str) -> Total {
        let [before, after] = self.totals.each_ref().map(|totals| totals.get(limit));
        let Some(after) = after else {
            return Total::default();
        };
        let nothing = Total::default();
        let before = before.unwrap_or(&nothing);
        let refused = after.refused.iter().map(|(budget, packets)| {
            let old = before.refused.get(budget).copied().unwrap_or_default();
            (budget.clone(), packets.saturating_sub(old))
        });
        Total {
            packets: after.packets.saturating_sub(before.packets),
            bytes: after.bytes.saturating_sub(before.bytes),
            refused: refused.filter(|(_, packets)| *packets > 0).collect(),
        }
    }
}

/// Packets within and over each limit. What lists and blocks decided is not
/// the limit's.
fn totals(counters: &[Counter]) -> HashMap<String, Total> {
    let mut totals = HashMap::<String, Total>::new();
    for counter in counters {
        let (Some(limit), Reason::Limit(budget)) = (&counter.limit, counter.outcome.reason())
        else {
            continue;
        };
        let total = totals.entry(limit.clone()).or_default();
        total.packets += counter.packets;
        total.bytes += counter.bytes;
        if let (Some(budget), true) = (budget.name(), counter.outcome.action() != Action::Pass) {
            *total.refused.entry(budget.to_owned()).or_default() += counter.packets;
        }
    }
    totals
}

/// The middle, the highest but one in a hundred, and the highest: each is a
/// value that occurred (nearest rank). Zeros where there is none.
#[must_use]
pub fn spread(values: impl IntoIterator<Item = u64>) -> Spread {
    let mut sorted: Vec<u64> = values.into_iter().collect();
    sorted.sort_unstable();
    let rank = |percent: usize| {
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied().unwrap_or(0)
    };
    Spread {
        p50: rank(50),
        p99: rank(99),
        max: rank(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limiter_common::verdict::{Budget, Outcome};

    fn state(source: &str, limit: &str, packets: u64) -> SourceState {
        SourceState {
            source: source.parse().unwrap(),
            limit: limit.to_owned(),
            passed: packets / 2,
            dropped: packets - packets / 2,
            unsettled: 0,
            last_refusal: None,
        }
    }

    /// A reading may miss what was moved to the entry while it was taken.
    #[test]
    fn a_reading_that_misses_some_is_no_new_beginning() {
        let mut observer = Observer::default();
        let begin = Instant::now();
        let readings = [(10, 0), (1_010, 500), (520, 0), (1_640, 0)];
        for (second, (packets, unsettled)) in (0..).zip(readings) {
            let mut source = state("192.0.2.1/32", "web", packets);
            source.unsettled = unsettled;
            observer.record(&Reading {
                taken: begin + Duration::from_secs(second),
                sources: vec![source],
                counters: Vec::new(),
            });
        }
        assert_eq!(observer.restarted(), 0);
        let (_, track) = observer.tracks.iter().next().unwrap();
        assert_eq!(track.most, 1_000);
    }

    struct Watch {
        observer: Observer,
        now: Instant,
    }

    impl Watch {
        fn new() -> Self {
            let now = Instant::now();
            let observer = Observer::following(3);
            Self { observer, now }
        }

        fn read(&mut self, seconds: u64, sources: Vec<SourceState>, counters: Vec<Counter>) {
            self.now += Duration::from_secs(seconds);
            let taken = self.now;
            self.observer.record(&Reading {
                taken,
                sources,
                counters,
            });
        }

        fn sources(&mut self, seconds: u64, sources: &[(&str, u64)]) {
            let states = sources.iter().map(|(source, n)| state(source, "web", *n));
            self.read(seconds, states.collect(), Vec::new());
        }

        fn web(&self) -> ObservedLimit {
            self.observer.limit_observed("web", |_| false)
        }
    }

    const A: &str = "192.0.2.1/32";
    const B: &str = "192.0.2.2/32";

    #[test]
    fn each_source_counts_with_its_busiest_interval() {
        let mut watch = Watch::new();
        watch.sources(0, &[(A, 1_000_000)]);
        watch.sources(1, &[(A, 1_000_050), (B, 7)]);
        watch.sources(2, &[(A, 1_000_250), (B, 7)]);
        let web = watch.web();
        assert_eq!((web.sources, web.busiest), (2, A.parse().ok()));
        let spread = Spread {
            p50: 7,
            p99: 100,
            max: 100,
        };
        assert_eq!(web.packets_per_second, spread);
        assert_eq!(web.packets_at_once, 200);
        assert_eq!(watch.observer.watched(), Duration::from_secs(3));
        assert_eq!(watch.observer.longest_interval(), Duration::from_secs(2));
        // Whom no limit holds says nothing about one.
        let exempt = watch
            .observer
            .limit_observed("web", |source| source == A.parse().unwrap());
        assert_eq!((exempt.sources, exempt.busiest), (1, B.parse().ok()));
        // Who sent nothing meanwhile is no source that was seen.
        assert_eq!(watch.observer.limit_observed("dns", |_| false).sources, 0);
    }

    #[test]
    fn a_source_that_was_pushed_out_begins_at_zero() {
        let mut watch = Watch::new();
        watch.sources(0, &[(A, 100), (B, 100)]);
        watch.sources(1, &[(A, 5), (B, 100)]);
        watch.sources(1, &[(B, 100)]);
        // More than before, and yet all of it is new.
        watch.sources(1, &[(A, 30), (B, 100)]);
        let web = watch.web();
        assert_eq!((web.sources, web.packets_at_once), (1, 30));
        assert_eq!(watch.observer.restarted(), 2);
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut watch = Watch::new();
        watch.sources(0, &[]);
        let sources = [(A, 1), (B, 2), ("192.0.2.3/32", 3), ("192.0.2.4/32", 4)];
        watch.sources(1, &sources);
        watch.sources(1, &sources);
        assert_eq!(watch.observer.not_followed(), 1);
        assert_eq!(watch.web().packets_per_second.max, 3);
    }

    #[test]
    fn a_limits_own_counters_are_compared() {
        let counter = |action, budget, packets: u64| Counter {
            interface: None,
            limit: Some("web".to_owned()),
            outcome: Outcome::new(action, Reason::Limit(budget)),
            packets,
            bytes: packets * 100,
        };
        let mut watch = Watch::new();
        let passed = |packets| counter(Action::Pass, Budget::Within, packets);
        let refused = |packets| counter(Action::WouldDrop, Budget::Connections, packets);
        watch.read(0, Vec::new(), vec![passed(10)]);
        watch.read(1, Vec::new(), vec![passed(30), refused(4)]);
        let web = watch.web();
        assert_eq!((web.packets, web.bytes), (24, 2_400));
        assert_eq!(web.refused, [("connections".to_owned(), 4)].into());
    }

    #[test]
    fn ranks_are_values_that_occurred() {
        let of = |values: &[u64]| {
            let Spread { p50, p99, max } = spread(values.iter().copied());
            [p50, p99, max]
        };
        assert_eq!(of(&[]), [0, 0, 0]);
        assert_eq!(of(&[7]), [7, 7, 7]);
        assert_eq!(of(&[3, 1, 2]), [2, 3, 3]);
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), [50, 99, 100]);
    }
}
