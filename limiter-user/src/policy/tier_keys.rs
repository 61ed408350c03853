//! The keys of one tier or rung, as they are written.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limit::bounded_duration;
use super::reader::{Section, Value};
use super::report::{At, Place, Read};
use super::steps::{Action, Algorithm};
use super::units::{Measure, Rate};
use super::words::{ACTIONS, CHALLENGES, WINDOWS};

const SECOND: Duration = Duration::from_secs(1);
/// The longest period and the longest action.
const LONGEST: Duration = Duration::from_hours(365 * 24);
const MAX_LIMIT: u64 = 1_000_000_000;
const MAX_WAIT_MS: u64 = 60_000;
/// Beyond it a phone computes for the better part of an hour.
const MAX_DIFFICULTY_BITS: u64 = 28;
const DURATION_HELP: &str = "allowed: a duration, such as 1m";

/// How a tier measures, as it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Window(Algorithm),
    TokenBucket,
    Boruta,
}

const WAYS: [(&str, Way); 5] = [
    (WINDOWS[0].0, Way::Window(WINDOWS[0].1)),
    (WINDOWS[1].0, Way::Window(WINDOWS[1].1)),
    (WINDOWS[2].0, Way::Window(WINDOWS[2].1)),
    ("token_bucket", Way::TokenBucket),
    ("boruta", Way::Boruta),
];

/// The keys of one tier. Those of the rule itself hold for all its tiers that
/// do not have their own.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) limit: Option<At<u64>>,
    pub(super) period: Option<At<Duration>>,
    pub(super) exceeds: Option<At<bool>>,
    pub(super) algorithm: Option<At<Way>>,
    pub(super) rate: Option<At<Rate>>,
    pub(super) burst: Option<At<u64>>,
    pub(super) delay: Option<At<u64>>,
    pub(super) action: Option<At<Action>>,
    pub(super) wait: Option<At<u64>>,
    pub(super) lasting: Option<At<Duration>>,
    pub(super) then: Option<At<Action>>,
    pub(super) simulate: Option<At<bool>>,
    pub(super) notify: Option<At<()>>,
    pub(super) difficulty: Option<At<u8>>,
}

impl Keys {
    pub(super) fn read(section: &Section<'_>) -> Read<Self> {
        let integer = |range: RangeInclusive<u64>| move |v: &Value<'_>| Ok(v.at(v.integer(range)?));
        let boolean = |v: &Value<'_>| Ok(v.at(v.boolean()?));
        let rate = |v: &Value<'_>| {
            let help = Measure::Count.rate_help();
            Ok(v.at(v.text(help, |text| Measure::Count.parse_rate(text))?))
        };
        let limit = section.read("limit", integer(1..=MAX_LIMIT));
        let period = section.read("period", duration);
        let exceeds = section.read("exceeds", boolean);
        let algorithm = section.read("algorithm", |v| Ok(v.at(v.word(&WAYS)?)));
        let rate = section.read("rate", rate);
        let burst = section.read("burst", integer(1..=MAX_LIMIT));
        let delay = section.read("delay", integer(0..=MAX_LIMIT));
        let action = section.read("action", |v| Ok(v.at(v.word(&ACTIONS)?)));
        let wait = section.read("wait", integer(1..=MAX_WAIT_MS));
        let lasting = section.read("for", duration);
        let then = section.read("then", |v| Ok(v.at(v.word(&CHALLENGES)?)));
        let simulate = section.read("simulate", boolean);
        let difficulty = section.read(
            "difficulty",
            |v| Ok(v.at(v.small(1..=MAX_DIFFICULTY_BITS)?)),
        );
        let notify = section.read("notify", |v| Ok(v.at(v.word(&[("owner", ())])?)));
        Ok(Self {
            limit: limit?,
            period: period?,
            exceeds: exceeds?,
            algorithm: algorithm?,
            rate: rate?,
            burst: burst?,
            delay: delay?,
            action: action?,
            wait: wait?,
            lasting: lasting?,
            then: then?,
            simulate: simulate?,
            notify: notify?,
            difficulty: difficulty?,
        })
    }

    /// These, and those of the rule where these are absent.
    pub(super) fn or(self, rule: &Self) -> Self {
        let simulates = |keys: &Self| keys.simulate.as_ref().is_some_and(|at| at.value);
        let simulate = if simulates(rule) {
            &rule.simulate
        } else {
            &self.simulate
        };
        Self {
            simulate: simulate.clone(),
            limit: self.limit.or_else(|| rule.limit.clone()),
            period: self.period.or_else(|| rule.period.clone()),
            exceeds: self.exceeds.or_else(|| rule.exceeds.clone()),
            algorithm: self.algorithm.or_else(|| rule.algorithm.clone()),
            rate: self.rate.or_else(|| rule.rate.clone()),
            burst: self.burst.or_else(|| rule.burst.clone()),
            delay: self.delay.or_else(|| rule.delay.clone()),
            action: self.action.or_else(|| rule.action.clone()),
            wait: self.wait.or_else(|| rule.wait.clone()),
            lasting: self.lasting.or_else(|| rule.lasting.clone()),
            then: self.then.or_else(|| rule.then.clone()),
            notify: self.notify.or_else(|| rule.notify.clone()),
            difficulty: self.difficulty.or_else(|| rule.difficulty.clone()),
        }
    }

    /// Any key but `simulate` and `notify`, which mean something without tiers.
    pub(super) fn first_place(&self) -> Option<&Place> {
        let numbers = [&self.limit, &self.burst, &self.delay, &self.wait];
        let times = [&self.period, &self.lasting];
        let actions = [&self.action, &self.then];
        let numbers = numbers.into_iter().flatten().map(|at| &at.place);
        let times = times.into_iter().flatten().map(|at| &at.place);
        let actions = actions.into_iter().flatten().map(|at| &at.place);
        let rest = [
            self.exceeds.as_ref().map(|at| &at.place),
            self.algorithm.as_ref().map(|at| &at.place),
            self.rate.as_ref().map(|at| &at.place),
            self.difficulty.as_ref().map(|at| &at.place),
        ];
        numbers
            .chain(times)
            .chain(actions)
            .chain(rest.into_iter().flatten())
            .next()
    }
}

/// A period, or how long something lasts.
pub(super) fn duration(value: &Value<'_>) -> Read<At<Duration>> {
    let read = |text: &str| bounded_duration(text, SECOND..=LONGEST);
    Ok(value.at(value.text(DURATION_HELP, read)?))
}
