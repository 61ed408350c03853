//! What rules did with requests in the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::cli::requests::most_lag_ns;
use crate::control::api::{Requests, RuleRow};
use crate::policy::Action;

/// Rates are those of so much time: what happens now and then would else be seen for a
/// second only, and rules would change places all the time.
const SPAN: Duration = Duration::from_secs(10);

/// Readings that are kept at most, should they come faster than they do.
const READINGS: usize = 32;

/// A number a second; `None`: nothing is known yet.
pub(super) type Rate = Option<f64>;

/// What was read in the last seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(VecDeque<(Instant, Requests)>);

/// What is done now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Now {
    /// Those that do most first.
    pub(super) rules: Vec<RuleNow>,
    /// Requests that were asked about; `None` also where nobody can ask.
    pub(super) asked: Rate,
    /// Within which nearly all were decided.
    pub(super) within_us: Option<u64>,
    /// What was decided, from the weakest action.
    pub(super) by_action: [Rate; Action::ALL.len()],
    pub(super) understood: Rate,
    pub(super) not_understood: Rate,
    /// Events that nobody had time for.
    pub(super) dropped: Rate,
    /// How late events were heard within the last minute, at most.
    pub(super) lag_ns: Option<u64>,
    /// Challenges.
    pub(super) posed: Rate,
    pub(super) solved: Rate,
}

/// What a rule does now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RuleNow {
    pub(super) name: String,
    pub(super) mode: String,
    pub(super) matched: Rate,
    pub(super) counted: Rate,
    pub(super) over: Rate,
    pub(super) by_action: [Rate; Action::ALL.len()],
    /// Keys with an active action.
    pub(super) active: u64,
    /// Sources that it blocks.
    pub(super) blocked: u64,
}

impl Recent {
    /// Takes in what was read `now`; `None`: nothing can be.
    pub(super) fn record(&mut self, requests: Option<Requests>, now: Instant) {
        let Some(requests) = requests else {
            self.0.clear();
            return;
        };
        // Those of another process say nothing about this one's.
        if self.0.back().is_some_and(|(_, last)| fell(last, &requests)) {
            self.0.clear();
        }
        self.0.push_back((now, requests));
        let is_old = |(then, _): &(Instant, Requests)| now.saturating_duration_since(*then) >= SPAN;
        while self.0.len() > READINGS || self.0.get(1).is_some_and(is_old) {
            self.0.pop_front();
        }
    }

    /// What was read last.
    pub(super) fn last(&self) -> Option<&Requests> {
        self.0.back().map(|(_, last)| last)
    }

    /// What is done now; `None`: that is not known.
    pub(super) fn now(&self) -> Option<Now> {
        let ((then, before), (now, last)) = (self.0.front()?, self.0.back()?);
        let seconds = now.saturating_duration_since(*then).as_secs_f64();
        let rate = |before: u64, after: u64| -> Rate {
            (seconds > 0.0).then(|| after.saturating_sub(before) as f64 / seconds)
        };
        let sum = |pick: fn(&crate::adapters::origin::Row) -> u64| {
            let of = |all: &Requests| all.origins.iter().map(pick).sum();
            rate(of(before), of(last))
        };
        let challenges = |outcome: &str| {
            let of = |all: &Requests| all.challenges.get(outcome).copied().unwrap_or_default();
            rate(of(before), of(last))
        };
        let decisions = last.decisions.as_ref().zip(before.decisions.as_ref());
        let mut rules: Vec<RuleNow> = last
            .rules
            .iter()
            .map(|row| {
                rule(
                    before.rules.iter().find(|it| it.name == row.name),
                    row,
                    rate,
                )
            })
            .collect();
        rules.sort_by(|a, b| {
            b.weight()
                .partial_cmp(&a.weight())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let by_action = std::array::from_fn(|action| {
            let of = rules.iter().map(|rule| rule.by_action[action]);
            of.sum::<Rate>()
        });
        Some(Now {
            rules,
            asked: decisions.and_then(|(last, before)| rate(before.count, last.count)),
            within_us: decisions
                .and_then(|(last, before)| last.since(before).nearly_all_within_us()),
            by_action,
            understood: sum(|row| row.understood),
            not_understood: sum(|row| row.not_understood),
            dropped: sum(|row| row.dropped),
            lag_ns: most_lag_ns(last),
            posed: challenges("posed"),
            solved: challenges("solved"),
        })
    }
}

impl RuleNow {
    /// Requests that it decides.
    pub(super) fn decided(&self) -> Rate {
        self.by_action.into_iter().sum()
    }

    /// What it does comes first, then what it would do, what it holds, and what it sees.
    fn weight(&self) -> [f64; 5] {
        [
            self.decided().unwrap_or_default(),
            self.over.unwrap_or_default(),
            self.active.max(self.blocked) as f64,
            self.counted.unwrap_or_default(),
            self.matched.unwrap_or_default(),
        ]
    }
}

/// A rule that was not there before began at zero.
fn rule(before: Option<&RuleRow>, row: &RuleRow, rate: impl Fn(u64, u64) -> Rate) -> RuleNow {
    let before = before.map(|row| row.tally).unwrap_or_default();
    let now = row.tally;
    RuleNow {
        name: row.name.clone(),
        mode: row.mode.clone(),
        matched: rate(before.matched, now.matched),
        counted: rate(before.counted, now.counted),
        over: rate(before.over, now.over),
        by_action: std::array::from_fn(|action| {
            rate(before.by_action[action], now.by_action[action])
        }),
        active: now.active,
        blocked: now.blocked,
    }
}

/// Whether a counter has fallen.
fn fell(before: &Requests, after: &Requests) -> bool {
    let of_rules = before.rules.iter().any(|row| {
        let now = after.rules.iter().find(|it| it.name == row.name);
        now.is_some_and(|now| now.tally.matched < row.tally.matched)
    });
    let of_origins = before.origins.iter().any(|row| {
        let now = after.origins.iter().find(|it| it.name == row.name);
        now.is_some_and(|now| now.read < row.read)
    });
    let decided = |all: &Requests| all.decisions.as_ref().map_or(0, |it| it.count);
    of_rules || of_origins || decided(after) < decided(before)
}
