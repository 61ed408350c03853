//! The way of every event: whose it is, what is counted of it, who hears it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::api::random_id;
use super::origin::{Origin, Origins};
use super::{Judge, Proxies, wall_ms};
use crate::challenge::captcha::Finding;
use crate::challenge::{Challenges, Moment, Pending, Redeemed, Solved, Unsolved};
use crate::courier::Answer;
use crate::engine::{Cleared, Decision, account};
use crate::event::Event;
use crate::event::reader::Tally;
use crate::policy::Decide;
use crate::seldom::Seldom;

/// What a provider of CAPTCHAs may take beyond its time-out, to be found and told.
const SLACK: Duration = Duration::from_secs(2);

/// How often the log says that one cannot be asked.
const SAID: Duration = Duration::from_secs(10);

/// What all adapters hand their events to.
pub struct Intake {
    judge: Arc<dyn Judge>,
    proxies: RwLock<Arc<Proxies>>,
    origins: Origins,
    challenges: Challenges,
    began: Instant,
    away: Seldom,
}

impl Intake {
    /// For the `[decide]` of a policy.
    #[must_use]
    pub fn new(judge: Arc<dyn Judge>, decide: &Decide) -> Self {
        Self {
            judge,
            proxies: RwLock::new(Arc::new(Proxies::of(decide))),
            origins: Origins::of(decide),
            challenges: Challenges::new(decide, wall_ms(), run()),
            began: Instant::now(),
            away: Seldom::new(SAID),
        }
    }

    /// Goes by another policy from now on. Origins that it does not name are
    /// forgotten; the others keep their counts.
    pub fn reload(&self, decide: &Decide) {
        let proxies = Arc::new(Proxies::of(decide));
        *self.proxies.write().unwrap_or_else(PoisonError::into_inner) = proxies;
        self.origins.reload(decide);
        self.challenges.reload(decide);
    }

    /// All origins.
    #[must_use]
    pub const fn origins(&self) -> &Origins {
        &self.origins
    }

    /// What clients have to compute.
    #[must_use]
    pub const fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Takes a solution ([`Challenges::redeem`]); what it was for is told to the judge. An answer
    /// to a CAPTCHA waits for its provider. `id` is random.
    ///
    /// # Errors
    /// It buys nothing.
    pub async fn redeem(
        &self,
        solution: &str,
        host: Option<&str>,
        id: u128,
    ) -> Result<Solved, Unsolved> {
        let now = self.moment(wall_ms());
        let solved = match self.challenges.redeem(solution, host, now, id)? {
            Redeemed::Solved(solved) => solved,
            Redeemed::Pending(pending) => {
                let finding = self.finding(&pending).await;
                pending.settle(&finding, self.moment(wall_ms()), id)?
            }
        };
        self.judge.passed(&solved);
        Ok(solved)
    }

    /// What a provider makes of an answer.
    async fn finding(&self, pending: &Pending<'_>) -> Finding {
        let captcha = pending.captcha();
        let asked = self.judge.verify(pending.question());
        let answer = match tokio::time::timeout(captcha.timeout + SLACK, asked).await {
            Ok(Ok(answer)) => answer,
            _ => Answer::Later("nobody answers".to_owned()),
        };
        let finding = pending.judge(&answer);
        if let Finding::Away(why) = &finding
            && let Some(left_out) = self.away.due(Instant::now())
        {
            let (provider, on_failure) = (captcha.provider.name(), captcha.on_failure.name());
            tracing::warn!(
                provider,
                why,
                on_failure,
                left_out,
                "the provider of CAPTCHAs does not say what an answer is worth"
            );
        }
        finding
    }

    /// This time by both clocks.
    fn moment(&self, wall_ms: u64) -> Moment {
        let steady_ms = self.began.elapsed().as_millis();
        Moment {
            wall_ms,
            steady_ms: u64::try_from(steady_ms).unwrap_or(u64::MAX),
        }
    }

    /// Counts what an origin has read since the last call, and reports the events
    /// among it. `now_ns` is nanoseconds since the Unix epoch.
    pub fn hear(&self, origin: &Origin, tally: Tally, events: &mut [Event], now_ns: u64) {
        let events = self.take_in(origin, tally, events, now_ns);
        if !events.is_empty() {
            self.judge.report(&events);
        }
    }

    /// The same, of what was written while nobody heard it.
    pub fn hear_past(&self, origin: &Origin, tally: Tally, events: &mut [Event], now_ns: u64) {
        let events = self.take_in(origin, tally, events, now_ns);
        if !events.is_empty() {
            self.judge.report_past(&events);
        }
    }

    /// Those that are to be judged.
    fn take_in<'a>(
        &self,
        origin: &Origin,
        tally: Tally,
        events: &'a mut [Event],
        now_ns: u64,
    ) -> Cow<'a, [Event]> {
        self.settle(events);
        origin.count(tally, events, now_ns);
        if events.iter().any(is_preflight) {
            let judged = events.iter().filter(|event| !is_preflight(event));
            return judged.cloned().collect();
        }
        Cow::Borrowed(events)
    }

    /// Whether who connects from this address may ask and report as a proxy: this host may, and
    /// the proxies that are trusted.
    #[must_use]
    pub fn may_ask(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.proxies().trusts(address)
    }

    /// Asks about a request, which is one that the origin has read.
    pub fn ask(&self, origin: &Origin, tally: Tally, event: &mut Event, now_ns: u64) -> Decision {
        let events = std::slice::from_mut(event);
        self.settle(events);
        origin.count_question(tally, events, now_ns);
        if is_preflight(event) {
            return Decision::default();
        }
        let ask = |cleared: &[Cleared]| self.judge.ask(event, cleared);
        let now = self.moment(now_ns / 1_000_000);
        self.challenges.ask(event, now, ask)
    }

    /// The client that an event is of.
    #[must_use]
    pub fn client(&self, event: &Event) -> IpAddr {
        self.proxies().client(event)
    }

    fn settle(&self, events: &mut [Event]) {
        let proxies = self.proxies();
        for event in events {
            proxies.settle(event);
        }
    }

    fn proxies(&self) -> Arc<Proxies> {
        Arc::clone(&self.proxies.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What tells the puzzles of this run from others; without random numbers the time does.
fn run() -> u64 {
    let random = random_id().map(|id| id as u64);
    random.unwrap_or_else(wall_ms)
}

/// Whether a browser asks what a script may ask (the Fetch standard's CORS-preflight
/// request). It is neither counted nor refused: the script would learn nothing of why.
fn is_preflight(event: &Event) -> bool {
    event.method.as_deref() == Some("OPTIONS")
        && account::header(&event.headers, "access-control-request-method").is_some()
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}
