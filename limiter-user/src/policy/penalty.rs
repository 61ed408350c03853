//! `algorithm = "boruta"`: a product of factors that delays, then rejects.

use std::time::Duration;

use super::reader::{Section, Value};
use super::report::{At, Place, Read};
use super::steps::Boruta;
use super::tier_keys::Keys;
use super::units::Problem;

const HOUR: Duration = Duration::from_hours(1);
const MAX_PENALTY_MS: u64 = 600_000;

/// Keys that only boruta has, by their names.
pub(super) type BorutaKeys = [(&'static str, Option<At<u64>>); 4];

/// `faithful` is 1 or 0 here.
pub(super) fn boruta_keys(section: &Section<'_>) -> Read<BorutaKeys> {
    let ms = |key| section.read(key, |v| Ok(v.at(v.integer(1..=MAX_PENALTY_MS)?)));
    let (penalty, timeout) = (ms("penalty"), ms("timeout"));
    let memory = section.read("memory", |v| Ok(v.at(v.integer(1..=10_000)?)));
    let faithful = section.read("faithful", |v| Ok(v.at(u64::from(v.boolean()?))));
    Ok([
        ("penalty", penalty?),
        ("timeout", timeout?),
        ("memory", memory?),
        ("faithful", faithful?),
    ])
}

/// boruta's limiter, as `keys` and `boruta` of the rule say it.
pub(super) fn boruta(rule: &Value<'_>, keys: &Keys, boruta: &BorutaKeys) -> Read<Boruta> {
    let error = |place: &Place, message: String, help: &str| {
        Err(rule.error_at(place, Problem::new(message, help)))
    };
    let [penalty, timeout, memory, faithful] = boruta.each_ref().map(|(_, at)| at.as_ref());
    let misplaced = [
        ("action", keys.action.as_ref().map(|at| &at.place)),
        ("for", keys.lasting.as_ref().map(|at| &at.place)),
        ("then", keys.then.as_ref().map(|at| &at.place)),
        ("wait", keys.wait.as_ref().map(|at| &at.place)),
        ("exceeds", keys.exceeds.as_ref().map(|at| &at.place)),
        ("rate", keys.rate.as_ref().map(|at| &at.place)),
        ("burst", keys.burst.as_ref().map(|at| &at.place)),
        ("delay", keys.delay.as_ref().map(|at| &at.place)),
        ("notify", keys.notify.as_ref().map(|at| &at.place)),
    ];
    if let Some((name, at)) = misplaced.iter().find_map(|(name, at)| Some((name, (*at)?))) {
        let help = "boruta delays, and rejects from its timeout on; remove it";
        return error(at, format!("`{name}` beside boruta"), help);
    }
    let needed = [
        ("limit", keys.limit.is_none()),
        ("period", keys.period.is_none()),
        ("penalty", penalty.is_none()),
        ("timeout", timeout.is_none()),
    ];
    let (Some(limit), Some(period), Some(penalty), Some(timeout)) =
        (&keys.limit, &keys.period, penalty, timeout)
    else {
        let missing = needed
            .iter()
            .find(|(_, lacks)| *lacks)
            .map_or("?", |(name, _)| name);
        let help = "boruta needs limit, period, penalty and timeout (in milliseconds)";
        return error(&rule.place, format!("no `{missing}`"), help);
    };
    if limit.value > 100_000 {
        let message = format!("`limit` cannot be `{}` with boruta", limit.value);
        return error(&limit.place, message, "allowed: 1 to 100000");
    }
    if period.value > HOUR {
        return error(
            &period.place,
            "too long a period for boruta".to_owned(),
            "allowed: 1s to 1h",
        );
    }
    let memory = memory.map_or(50, |at| at.value);
    Ok(Boruta {
        limit: limit.value,
        period: period.value,
        penalty_ms: penalty.value,
        timeout_ms: timeout.value,
        memory: u32::try_from(memory).unwrap_or(u32::MAX),
        faithful: faithful.is_some_and(|at| at.value == 1),
    })
}
