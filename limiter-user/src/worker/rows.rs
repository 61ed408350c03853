//! The worker's part of the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::desk::{Desk, now_ns};
use super::hearing::Hearing;
use super::link::Link;
use crate::adapters::origin::Row;
use crate::adapters::{Figures, LatencyRow};
use crate::control::api::{AnswerRow, OriginRows, Requests};
use crate::engine::{Engine, Mode, Tally};
use crate::metrics::{counters, gauges};
use crate::policy::Action;

/// What the worker tells of itself.
#[derive(Debug)]
pub(super) struct WorkerRows {
    desk: Arc<Desk>,
    link: Arc<Link>,
    hearing: Arc<Hearing>,
    started_ns: u64,
    /// Rules that the log has been told of.
    told: Mutex<BTreeSet<Arc<str>>>,
}

impl WorkerRows {
    pub(super) fn new(desk: Arc<Desk>, link: Arc<Link>, hearing: Arc<Hearing>) -> Self {
        Self {
            desk,
            link,
            hearing,
            started_ns: now_ns(),
            told: Mutex::default(),
        }
    }

    /// What hears events.
    pub(super) fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    /// Where events come from.
    pub(super) fn origins(&self) -> OriginRows {
        OriginRows {
            origins: self.hearing.rows(now_ns()),
        }
    }

    /// What is probably not meant, in words; what is new is logged.
    pub(super) fn warnings(&self) -> Vec<String> {
        let now_ns = now_ns();
        let mut warnings = self.hearing.warnings(now_ns);
        let idle = self
            .desk
            .with(|engine, _| idle(engine, self.started_ns, now_ns));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|rule| idle.contains(rule));
        for rule in idle {
            let warning = format!(
                "rule {rule} has matched nothing for a day; `limiter origins` shows what comes in, \
                 its `requests`, `hosts` and `count` say what it takes"
            );
            if told.insert(rule) {
                tracing::warn!("{warning}");
            }
            warnings.push(warning);
        }
        warnings
    }

    /// What those who ask are answered, and what is heard; nothing of the rules.
    pub(super) fn requests(&self) -> Requests {
        let mut origins = self.hearing.rows(now_ns());
        for row in &mut origins {
            row.keys.clear();
        }
        let challenges = self.hearing.challenges().into_iter();
        Requests {
            rules: Vec::new(),
            origins,
            answers: self.answers(),
            decisions: self.latency(),
            challenges: challenges
                .map(|(outcome, count)| (outcome.to_owned(), count))
                .collect(),
        }
    }

    fn answers(&self) -> Vec<AnswerRow> {
        let of = |(endpoint, figures): (&str, &Figures)| {
            let statuses = figures.statuses().into_iter();
            let rows = statuses.map(|row| AnswerRow {
                endpoint: endpoint.to_owned(),
                status: row.status,
                answers: row.answers,
            });
            rows.collect::<Vec<_>>()
        };
        self.hearing.figures().flat_map(of).collect()
    }

    /// How long decisions took, whoever asked.
    fn latency(&self) -> Option<LatencyRow> {
        let latencies = self.hearing.figures().map(|(_, it)| it.latency());
        latencies.reduce(|mut all, one| {
            all.add(&one);
            all
        })
    }

    /// As OpenMetrics, with the mark at the end; `answers` are those of the metrics
    /// endpoint by status.
    ///
    /// # Errors
    /// The text cannot be written, which takes a defect.
    pub(super) fn text(&self, answers: &BTreeMap<u16, u64>) -> Result<String, fmt::Error> {
        let tallies = self.desk.with(|engine, _| {
            let tallies = engine.tallies();
            let tallies = tallies.map(|(name, mode, tally)| (Arc::clone(name), mode, tally));
            tallies.collect()
        });
        let scrape = Scrape {
            tallies,
            answers: answers.clone(),
            dropped_changes: self.link.dropped_changes(),
            origins: self.hearing.rows(now_ns()),
            asked: self.answers(),
            latency: self.latency(),
            challenges: self.hearing.challenges(),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape));
        let mut written = String::new();
        text::encode(&mut written, &registry)?;
        Ok(written)
    }
}

/// For so long a rule may match nothing.
const IDLE_NS: u64 = 86_400_000_000_000;

/// The rules that are at work and have matched nothing for long.
fn idle(engine: &Engine, started_ns: u64, now_ns: u64) -> BTreeSet<Arc<str>> {
    let tallies = engine.tallies();
    let idle = tallies.filter(|(_, mode, tally)| {
        let last_ns = tally.matched_ns.max(started_ns);
        *mode != Mode::Off && now_ns.saturating_sub(last_ns) > IDLE_NS
    });
    idle.map(|(rule, ..)| Arc::clone(rule)).collect()
}

#[derive(Debug)]
struct Scrape {
    tallies: Vec<(Arc<str>, Mode, Tally)>,
    answers: BTreeMap<u16, u64>,
    dropped_changes: u64,
    origins: Vec<Row>,
    asked: Vec<AnswerRow>,
    latency: Option<LatencyRow>,
    /// What became of challenges, by the word for it.
    challenges: Vec<(&'static str, u64)>,
}

impl Scrape {
    fn origins(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let by = |pick: fn(&Row) -> u64| {
            let rows = self.origins.iter();
            rows.map(move |row| ([("origin", row.name.as_str())], pick(row)))
        };
        let help = "Events that were understood";
        counters(encoder, "limiter_events", help, by(|row| row.understood))?;
        let help = "Lines, datagrams and bodies that came";
        counters(encoder, "limiter_events_read", help, by(|row| row.read))?;
        let help = "Lines, datagrams and bodies that are no events of the format";
        let rows = by(|row| row.not_understood);
        counters(encoder, "limiter_events_not_understood", help, rows)?;
        let help = "Datagrams of senders that are not listed, questions of those who may not ask";
        counters(encoder, "limiter_events_forged", help, by(|row| row.forged))?;
        let dropped = self.origins.iter().map(|row| row.dropped).sum();
        let dropped = [
            ([("stage", "read")], dropped),
            ([("stage", "audit")], self.dropped_changes),
        ];
        let help = "Events, and what follows from them, that nobody had room for";
        counters(encoder, "limiter_events_dropped", help, dropped.into_iter())?;
        let help = "How long before it was heard the last event of an origin happened";
        let name = "limiter_events_lag";
        let kind = MetricType::Gauge;
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for row in &self.origins {
            if let Some(lag_ns) = row.lag_ns {
                let labels = [("origin", row.name.as_str())];
                let seconds = Duration::from_nanos(lag_ns).as_secs_f64();
                ConstGauge::new(seconds).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Bytes of a log that wait to be read";
        let rows = by(|row| row.behind_bytes);
        gauges(encoder, "limiter_events_behind_bytes", help, rows)
    }

    fn decisions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(latency) = &self.latency else {
            return Ok(());
        };
        let name = "limiter_decision_duration";
        let help = "From a whole question to its decision";
        let kind = MetricType::Histogram;
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
        let buckets = latency.buckets.iter();
        let bounded = buckets.map(|(us, count)| (seconds(us.saturating_mul(1_000)), *count));
        let within: u64 = latency.buckets.iter().map(|(_, count)| count).sum();
        let beyond = (f64::INFINITY, latency.count.saturating_sub(within));
        let buckets: Vec<(f64, u64)> = bounded.chain([beyond]).collect();
        family.encode_histogram::<NoLabelSet>(
            seconds(latency.sum_ns),
            latency.count,
            &buckets,
            None,
        )
    }

    fn by_rule(
        &self,
        pick: impl Fn(&Tally) -> u64,
    ) -> impl Iterator<Item = ([(&str, &str); 1], u64)> {
        let tallies = self.tallies.iter();
        tallies.map(move |(rule, _, tally)| ([("rule", &**rule)], pick(tally)))
    }

    fn rules(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Pick = fn(&Tally) -> u64;
        let counts: [(&str, &str, Pick); 8] = [
            ("limiter_rule_matched", "Events that a rule selects", |it| {
                it.matched
            }),
            ("limiter_rule_counted", "Events that a rule counted", |it| {
                it.counted
            }),
            (
                "limiter_rule_over",
                "Requests that a rule's action applied to",
                |it| it.over,
            ),
            (
                "limiter_rule_not_from",
                "Requests whose source is outside a rule's `from`",
                |it| it.not_from,
            ),
            (
                "limiter_rule_key_absent",
                "Events that lacked a part of a rule's key",
                |it| it.key_absent,
            ),
            ("limiter_rule_full", "Actions that found no room", |it| {
                it.full
            }),
            ("limiter_rule_evicted", "Keys that had to make room", |it| {
                it.evicted
            }),
            (
                "limiter_rule_evicted_under_count",
                "Keys that had to make room while something counted for them",
                |it| it.evicted_under_count,
            ),
        ];
        for (name, help, pick) in counts {
            counters(encoder, name, help, self.by_rule(pick))?;
        }
        let levels: [(&str, &str, Pick); 4] = [
            ("limiter_rule_keys", "Keys that a rule follows", |it| {
                it.tracked
            }),
            (
                "limiter_rule_keys_active",
                "Keys with an active action",
                |it| it.active,
            ),
            ("limiter_rule_blocked", "Sources that a rule blocks", |it| {
                it.blocked
            }),
            (
                "limiter_rule_memory_bytes",
                "Memory of a rule's tables",
                |it| it.bytes,
            ),
        ];
        for (name, help, pick) in levels {
            gauges(encoder, name, help, self.by_rule(pick))?;
        }
        let decisions = self.tallies.iter().flat_map(|(rule, _, tally)| {
            let by_action = Action::ALL.iter().zip(tally.by_action);
            by_action
                .map(move |(action, count)| ([("rule", &**rule), ("action", action.name())], count))
        });
        let help = "Requests that a rule decided, by action";
        counters(encoder, "limiter_decisions", help, decisions)?;
        let modes = self.tallies.iter().flat_map(|(rule, mode, _)| {
            Mode::ALL.map(|it| {
                (
                    [("rule", &**rule), ("mode", it.name())],
                    u64::from(it == *mode),
                )
            })
        });
        let help = "Whether a rule is at work, only counts, or is switched off";
        gauges(encoder, "limiter_rule_mode", help, modes)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.rules(encoder)?;
        self.origins(encoder)?;
        self.decisions(encoder)?;
        let metrics = self.answers.iter();
        let metrics = metrics.map(|(status, count)| ("metrics", *status, *count));
        let asked = self.asked.iter();
        let asked = asked.map(|row| (row.endpoint.as_str(), row.status, row.answers));
        let answers: Vec<(&str, String, u64)> = metrics
            .chain(asked)
            .map(|(endpoint, status, count)| (endpoint, status.to_string(), count))
            .collect();
        let rows = answers.iter().map(|(endpoint, status, count)| {
            (
                [("endpoint", *endpoint), ("status", status.as_str())],
                *count,
            )
        });
        let help = "Answers over HTTP";
        counters(encoder, "limiter_http_requests", help, rows)?;
        let rows = self.challenges.iter();
        let rows = rows.map(|(outcome, count)| ([("outcome", *outcome)], *count));
        let help = "Puzzles that were posed, and what came of them";
        counters(encoder, "limiter_challenges", help, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Prefixes;
    use crate::event::Event;
    use crate::policy::{NoFiles, parse};

    #[test]
    fn a_rule_that_matches_nothing_for_a_day_is_idle() {
        let rule = "[[rule]]\nname = 'login'\ncount = 'requests'\nkey = ['source']\n\
                    limit = 5\nperiod = '1m'\naction = 'reject'\n";
        let loaded = parse("policy", &format!("[edge]\n{rule}"), &NoFiles).unwrap();
        let prefixes = Prefixes { ipv4: 32, ipv6: 64 };
        let mut engine = Engine::new(&loaded.policy.decide.unwrap(), prefixes, &[0; 16]);
        let names = |engine: &Engine, now_ns| idle(engine, 1_000, now_ns).len();
        assert_eq!(names(&engine, 1_000 + IDLE_NS), 0);
        assert_eq!(names(&engine, 1_001 + IDLE_NS), 1);
        let event = Event::of([192, 0, 2, 1].into());
        engine.report(&event, 2_000 + IDLE_NS);
        assert_eq!(names(&engine, 2_000 + 2 * IDLE_NS), 0);
        assert_eq!(names(&engine, 2_001 + 2 * IDLE_NS), 1);
        engine.set_mode("login", Mode::Off);
        assert_eq!(names(&engine, 2_001 + 2 * IDLE_NS), 0);
    }
}
