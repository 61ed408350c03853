//! Tiers, ladders, and boruta's penalty: when a rule acts, and how.

use std::time::Duration;

use super::MAX_TIERS;
use super::diagnostic::quote;
use super::penalty::{boruta, boruta_keys};
use super::reader::{Section, Value};
use super::report::{Place, Read};
use super::select::bounded;
use super::steps::{
    Action, Algorithm, Course, Effect, Gauge, Ladder, Rung, Tier, TokenBucket, Window,
};
use super::tier_keys::{Keys, Way, duration};
use super::units::Problem;
use super::words::{ACTIONS, word_of};

const DAY: Duration = Duration::from_hours(24);
/// A sliding log keeps a time for each event.
const MAX_LOG: u64 = 10_000;
/// Up to this limit events are counted exactly unless the policy says otherwise.
const EXACT_LIMIT: u64 = 50;
const TIERS_HELP: &str =
    r#"allowed: tables such as { limit = 10, period = "5m", action = "captcha" }"#;
const ACT_HELP: &str = "give it limit, period and action, or tiers, or a ladder, or a gate (from)";

/// A course with the places that errors and warnings about it point to.
pub(super) struct PlacedCourse {
    pub(super) course: Course,
    /// Where each tier or rung stands, in their order.
    pub(super) tiers: Vec<TierPlaces>,
}

pub(super) struct TierPlaces {
    pub(super) whole: Place,
    pub(super) action: Place,
    pub(super) notify: Place,
}

/// Reads the course of the rule in `section`. `exact` says whether its events
/// are counted exactly unless it says otherwise, `does_more` whether it does
/// something even if it never acts.
pub(super) fn course(
    rule: &Value<'_>,
    section: &Section<'_>,
    exact: bool,
    does_more: bool,
) -> Read<PlacedCourse> {
    let keys = Keys::read(section);
    let tiers = section.read("tiers", |v| Ok((v.place.clone(), tables(v)?)));
    let ladder = section.read("ladder", |v| Ok((v.place.clone(), tables(v)?)));
    let decay = section.read("ladder_decay", duration);
    let own = boruta_keys(section);
    let (keys, tiers, ladder, decay, own) = (keys?, tiers?, ladder?, decay?, own?);
    let reader = Reader { rule, exact };
    let is_boruta = keys
        .algorithm
        .as_ref()
        .is_some_and(|at| at.value == Way::Boruta);
    if let Some((name, place)) = own
        .iter()
        .find_map(|(name, at)| Some((name, &at.as_ref()?.place)))
        && !is_boruta
    {
        let message = format!("`{name}` without boruta");
        let help = r#"add algorithm = "boruta", or remove it"#;
        return Err(rule.error_at(place, Problem::new(message, help)));
    }
    if let (Some(decay), None) = (&decay, &ladder) {
        let problem = Problem::new(
            "`ladder_decay` without `ladder`",
            "add a ladder, or remove it",
        );
        return Err(rule.error_at(&decay.place, problem));
    }
    match (tiers, ladder) {
        (Some(_), Some((place, _))) => {
            let help = "tiers count side by side, a ladder one rung at a time; write two rules";
            Err(rule.error_at(
                &place,
                Problem::new("`tiers` and `ladder` in one rule", help),
            ))
        }
        (Some((place, _)), None) | (None, Some((place, _))) if is_boruta => {
            let help = "remove them, or the algorithm";
            let problem = Problem::new("boruta has neither tiers nor a ladder", help);
            Err(rule.error_at(&place, problem))
        }
        (Some((_, tiers)), None) => reader.tiers(tiers, &keys),
        (None, Some((_, rungs))) => {
            let decay = decay.map_or(DAY, |at| at.value);
            reader.ladder(rungs, &keys, decay)
        }
        (None, None) if is_boruta => Ok(PlacedCourse {
            course: Course::Boruta(boruta(rule, &keys, &own)?),
            tiers: Vec::new(),
        }),
        (None, None) if does_more && keys.first_place().is_none() => Ok(PlacedCourse {
            course: Course::Tiers(Vec::new()),
            tiers: Vec::new(),
        }),
        (None, None) if keys.first_place().is_none() => {
            Err(rule.error(Problem::new("this rule never acts", ACT_HELP)))
        }
        (None, None) => {
            let (tier, places) = reader.tier(&rule.place, &keys)?;
            Ok(PlacedCourse {
                course: Course::Tiers(vec![tier]),
                tiers: vec![places],
            })
        }
    }
}

/// The tables of `tiers` or `ladder`, and where each stands.
type Tables = Vec<(Place, Read<Keys>)>;

fn tables(value: &Value<'_>) -> Read<Tables> {
    let tables = bounded(value, TIERS_HELP, MAX_TIERS, |item| {
        Ok((item.place.clone(), Keys::read(&item.section()?)))
    })?;
    if tables.is_empty() {
        let message = format!("`{}` is empty", value.key());
        return Err(value.error(Problem::new(message, TIERS_HELP)));
    }
    Ok(tables)
}

struct Reader<'a, 'v> {
    rule: &'a Value<'v>,
    exact: bool,
}

impl Reader<'_, '_> {
    fn error<T>(&self, place: &Place, message: impl Into<String>, help: &str) -> Read<T> {
        Err(self.rule.error_at(place, Problem::new(message, help)))
    }

    fn tiers(&self, tables: Tables, rule: &Keys) -> Read<PlacedCourse> {
        let read: Vec<Read<_>> = tables
            .into_iter()
            .map(|(place, keys)| self.tier(&place, &keys?.or(rule)))
            .collect();
        let read: Read<Vec<_>> = read.into_iter().collect();
        let (read, tiers) = read?.into_iter().unzip();
        let course = Course::Tiers(read);
        Ok(PlacedCourse { course, tiers })
    }

    fn ladder(&self, tables: Tables, rule: &Keys, decay: Duration) -> Read<PlacedCourse> {
        let read: Vec<Read<_>> = tables
            .into_iter()
            .map(|(place, keys)| self.rung(&place, &keys?.or(rule)))
            .collect();
        let read: Read<Vec<_>> = read.into_iter().collect();
        let (rungs, tiers) = read?.into_iter().unzip();
        let course = Course::Ladder(Ladder { rungs, decay });
        Ok(PlacedCourse { course, tiers })
    }

    fn tier(&self, place: &Place, keys: &Keys) -> Read<(Tier, TierPlaces)> {
        let gauge = self.gauge(place, keys);
        let effect = self.effect(place, keys, gauge.as_ref().ok());
        let tier = Tier {
            gauge: gauge?,
            effect: effect?,
            lasting: keys.lasting.as_ref().map(|at| at.value),
        };
        Ok((tier, places(place, keys)))
    }

    fn rung(&self, place: &Place, keys: &Keys) -> Read<(Rung, TierPlaces)> {
        let gauge = match self.gauge(place, keys) {
            Ok(Gauge::TokenBucket(_)) => {
                let at = keys.algorithm.as_ref().map_or(place, |at| &at.place);
                let help = "allowed: sliding_log, sliding_window, fixed_window";
                self.error(at, "a ladder counts in periods", help)
            }
            Ok(Gauge::Window(window)) => Ok(window),
            Err(reported) => Err(reported),
        };
        let effect = self.effect(place, keys, None);
        let Some(lasting) = &keys.lasting else {
            let help = r#"say how long its action lasts, such as for = "15m""#;
            return self.error(place, "a rung without `for`", help);
        };
        let rung = Rung {
            window: gauge?,
            effect: effect?,
            lasting: lasting.value,
        };
        Ok((rung, places(place, keys)))
    }

    fn gauge(&self, place: &Place, keys: &Keys) -> Read<Gauge> {
        match keys.algorithm.as_ref().map(|at| (at.value, &at.place)) {
            Some((Way::Boruta, at)) => {
                let help = "write algorithm = \"boruta\" in the rule itself";
                self.error(at, "boruta has neither tiers nor a ladder", help)
            }
            Some((Way::TokenBucket, _)) => Ok(Gauge::TokenBucket(self.bucket(place, keys)?)),
            Some((Way::Window(algorithm), _)) => self.window(place, keys, Some(algorithm)),
            None => self.window(place, keys, None),
        }
    }

    fn window(&self, place: &Place, keys: &Keys, way: Option<Algorithm>) -> Read<Gauge> {
        let numbers = [("burst", &keys.burst), ("delay", &keys.delay)];
        let numbers = numbers
            .into_iter()
            .filter_map(|(name, at)| Some((name, &at.as_ref()?.place)));
        let rate = keys.rate.as_ref().map(|at| ("rate", &at.place));
        if let Some((name, at)) = rate.into_iter().chain(numbers).next() {
            let help = r#"add algorithm = "token_bucket", or write limit and period"#;
            return self.error(at, format!("`{name}` without a token bucket"), help);
        }
        let (Some(limit), Some(period)) = (&keys.limit, &keys.period) else {
            let missing = if keys.limit.is_none() {
                "limit"
            } else {
                "period"
            };
            let help = r#"write how many in which time, such as limit = 10, period = "5m""#;
            return self.error(place, format!("no `{missing}`"), help);
        };
        let algorithm = way.unwrap_or(match self.exact || limit.value <= EXACT_LIMIT {
            true => Algorithm::SlidingLog,
            false => Algorithm::SlidingWindow,
        });
        if algorithm == Algorithm::SlidingLog && limit.value > MAX_LOG {
            let message = format!("a limit of {} is too much for a sliding log", limit.value);
            let help = r#"allowed: up to 10000; or add algorithm = "sliding_window""#;
            return self.error(&limit.place, message, help);
        }
        Ok(Gauge::Window(Window {
            limit: limit.value,
            period: period.value,
            exceeds: keys.exceeds.as_ref().is_some_and(|at| at.value),
            algorithm,
        }))
    }

    fn bucket(&self, place: &Place, keys: &Keys) -> Read<TokenBucket> {
        let misplaced = [
            ("limit", keys.limit.as_ref().map(|at| &at.place)),
            ("period", keys.period.as_ref().map(|at| &at.place)),
            ("exceeds", keys.exceeds.as_ref().map(|at| &at.place)),
        ];
        if let Some((name, at)) = misplaced.iter().find_map(|(name, at)| Some((name, (*at)?))) {
            let help = "a token bucket has rate, burst and delay";
            return self.error(at, format!("`{name}` beside a token bucket"), help);
        }
        let Some(rate) = &keys.rate else {
            let help = r#"write how fast it refills, such as rate = "10/s""#;
            return self.error(place, "no `rate`", help);
        };
        let second_ns = 1_000_000_000;
        let burst = match &keys.burst {
            Some(burst) => burst.value,
            None => rate.value.tokens_in(second_ns).max(1),
        };
        if let Some(delay) = keys.delay.as_ref().filter(|delay| delay.value >= burst) {
            let message = format!(
                "a delay after {} never comes in a burst of {burst}",
                delay.value
            );
            let help = "allowed: less than the burst; without `delay` nobody waits";
            return self.error(&delay.place, message, help);
        }
        Ok(TokenBucket {
            rate: rate.value,
            burst,
            delay: keys.delay.as_ref().map(|at| at.value),
        })
    }

    fn effect(&self, place: &Place, keys: &Keys, gauge: Option<&Gauge>) -> Read<Effect> {
        let Some(action) = &keys.action else {
            let help = "allowed: throttle, js_challenge, captcha, reject, block";
            return self.error(place, "no `action`", help);
        };
        if let Some(then) = &keys.then
            && action.value != Action::Reject
        {
            let message = format!("`then` after {}", quote(word_of(&ACTIONS, &action.value)));
            let help = "allowed after reject alone: who was refused may pass a challenge";
            return self.error(&then.place, message, help);
        }
        if let Some(wait) = &keys.wait
            && action.value != Action::Throttle
        {
            let message = format!("`wait` with {}", quote(word_of(&ACTIONS, &action.value)));
            return self.error(&wait.place, message, "allowed with throttle alone");
        }
        if let Some(difficulty) = &keys.difficulty
            && matches!(action.value, Action::Throttle | Action::Reject)
            && keys.then.is_none()
        {
            let action = quote(word_of(&ACTIONS, &action.value));
            let message = format!("`difficulty` with {action}");
            let help = "allowed where there is a challenge: js_challenge, captcha, block, then";
            return self.error(&difficulty.place, message, help);
        }
        let spread_ms = match gauge {
            Some(Gauge::Window(window)) => {
                u64::try_from(window.period.as_millis()).unwrap_or(u64::MAX) / window.limit
            }
            Some(Gauge::TokenBucket(bucket)) => {
                u64::try_from(bucket.rate.time_for_ns(1) / 1_000_000).unwrap_or(u64::MAX)
            }
            None => 1_000,
        };
        Ok(Effect {
            action: action.value,
            wait_ms: keys
                .wait
                .as_ref()
                .map_or(spread_ms.clamp(1, 10_000), |at| at.value),
            then: keys.then.as_ref().map(|at| at.value),
            simulate: keys.simulate.as_ref().is_some_and(|at| at.value),
            notify_owner: keys.notify.is_some(),
            difficulty_bits: keys.difficulty.as_ref().map(|at| at.value),
        })
    }
}

fn places(whole: &Place, keys: &Keys) -> TierPlaces {
    TierPlaces {
        whole: whole.clone(),
        action: keys.action.as_ref().map_or(whole, |at| &at.place).clone(),
        notify: keys.notify.as_ref().map_or(whole, |at| &at.place).clone(),
    }
}
