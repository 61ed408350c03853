//! `GET /v1/observation`: reads the sources again and again for a while.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::Semaphore;

use super::api::{Observation, ObservedLimit, Refusal};
use crate::keeper::{Handle, Ruling, Stopped};
use crate::observe::{Observer, Reading};

/// Time between two readings, where they are cheap.
const INTERVAL: Duration = Duration::from_secs(1);

/// The keeper reads for an observation in this part of its time at most: a
/// reading of a million sources takes a second in which it does nothing else,
/// and locks buckets of the table that packets want to write to.
const SHARE: u32 = 10;

/// Observations at once: each takes memory and the keeper's time.
pub(super) const fn places() -> Semaphore {
    Semaphore::const_new(1)
}

/// Watches the sources for `lasting`. Who hangs up ends it.
///
/// # Errors
/// Another observation is under way, the data plane cannot be read, or the
/// daemon is ending.
pub(super) async fn observe(
    keeper: &Handle,
    places: &Semaphore,
    lasting: Duration,
) -> Result<Observation, Refusal> {
    let Ok(_place) = places.try_acquire() else {
        let detail = "somebody else is observing the sources";
        let help = "try again when they are done";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Refusal::new(status, detail, help));
    };
    let mut observer = Observer::default();
    let mut begun = None;
    loop {
        let (reading, cost) = read(keeper).await?;
        let begun = *begun.get_or_insert(reading.taken);
        // Some hundred thousand entries: not on a thread that serves others.
        let recorded = tokio::task::spawn_blocking(move || {
            observer.record(&reading);
            observer
        });
        observer = recorded
            .await
            .map_err(|_| super::server::stopped(Stopped))?;
        match pause(lasting.saturating_sub(begun.elapsed()), cost) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => break,
        }
    }
    let ruling = keeper.ask(|keeper| keeper.ruling()).await;
    let ruling = ruling.map_err(super::server::stopped)?;
    tokio::task::spawn_blocking(move || report(&observer, ruling))
        .await
        .map_err(|_| super::server::stopped(Stopped))
}

/// A reading, and how long it took.
async fn read(keeper: &Handle) -> Result<(Reading, Duration), Refusal> {
    let read = keeper
        .ask(|keeper| {
            let begun = Instant::now();
            keeper
                .reading(begun)
                .map(|reading| (reading, begun.elapsed()))
        })
        .await;
    read.map_err(super::server::stopped)?
}

/// How long to wait for the next reading, if there is to be one. The last
/// interval is no shorter than half of the others: short ones exaggerate.
fn pause(left: Duration, cost: Duration) -> Option<Duration> {
    let interval = INTERVAL.max(cost * SHARE);
    match left {
        Duration::ZERO => None,
        left if left < interval * 3 / 2 => Some(left),
        _ => Some(interval),
    }
}

fn report(observer: &Observer, ruling: Ruling) -> Observation {
    let limits = ruling.limits.iter().map(|(limit, budgets)| ObservedLimit {
        budgets: budgets.clone(),
        ..observer.limit_observed(limit, |source| ruling.is_exempt(source))
    });
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Observation {
        watched_ms: millis(observer.watched()),
        readings: observer.readings(),
        longest_interval_ms: millis(observer.longest_interval()),
        enforce: ruling.enforce,
        restarted: observer.restarted(),
        not_followed: observer.not_followed(),
        limits: limits.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_interval_is_short_and_a_dear_reading_is_rare() {
        let millis = Duration::from_millis;
        let cheap = millis(5);
        assert_eq!(pause(millis(0), cheap), None);
        assert_eq!(pause(millis(1_400), cheap), Some(millis(1_400)));
        assert_eq!(pause(millis(1_600), cheap), Some(millis(1_000)));
        assert_eq!(pause(millis(60_000), millis(900)), Some(millis(9_000)));
    }
}
