//! The adapters with real sockets and files, before a real engine.

mod api;
mod check;
mod datagrams;
mod logs;
mod origin;
mod proxies;

use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Intake, Judge, wall_ns};
use crate::challenge::captcha::Question;
use crate::challenge::{Keys, Solved};
use crate::courier::Answer;
use crate::engine::{Cleared, Decision, Engine, Prefixes};
use crate::event::Event;
use crate::policy::{Decide, NoFiles, parse};

/// Nothing here takes so long, unless it never comes.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) const RULES: &str = "
[[rule]]
name = 'login'
requests = ['POST /login']
count = { statuses = [401] }
tiers = [{ limit = 3, period = '1h', action = 'reject', for = '1h' }]
";

/// The `[decide]` of a policy.
pub(super) fn decide(text: &str) -> Decide {
    let loaded = parse("limiter.toml", text, &NoFiles);
    let loaded = loaded.unwrap_or_else(|fault| panic!("{text}\n{fault}"));
    let mut decide = loaded.policy.decide.unwrap();
    let keys = Keys::default().rotated(1, 60, 60, [7; 32]);
    decide.challenge_keys = keys.unwrap_or_default();
    decide
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An engine that everybody may call, and that remembers what it heard.
#[derive(Debug)]
pub(super) struct Bench {
    engine: Mutex<Engine>,
    heard: Mutex<Vec<Event>>,
    /// The lengths of all reports.
    reports: Mutex<Vec<usize>>,
    more: Condvar,
    /// What providers of CAPTCHAs say; without it they say nothing.
    pub(super) verdict: Mutex<Option<Answer>>,
}

impl Bench {
    fn new(decide: &Decide) -> Arc<Self> {
        let edge = Prefixes { ipv4: 32, ipv6: 64 };
        Arc::new(Self {
            engine: Mutex::new(Engine::new(decide, edge, b"sixteen bytes it")),
            heard: Mutex::default(),
            reports: Mutex::default(),
            more: Condvar::new(),
            verdict: Mutex::default(),
        })
    }

    /// Waits until so many events were heard, and gives them.
    pub(super) fn heard(&self, least: usize) -> Vec<Event> {
        let guard = self.heard.lock().unwrap();
        let too_few = |heard: &mut Vec<Event>| heard.len() < least;
        let waited = self.more.wait_timeout_while(guard, DEADLINE, too_few);
        let (heard, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "{} of {least} events", heard.len());
        heard.clone()
    }
}

impl Judge for Bench {
    fn ask(&self, event: &Event, cleared: &[Cleared]) -> Decision {
        let mut engine = self.engine.lock().unwrap();
        engine.ask_cleared(event, cleared, wall_ns())
    }

    fn passed(&self, solved: &Solved) {
        let mut engine = self.engine.lock().unwrap();
        engine.passed(&solved.rule, solved.part, solved.key, wall_ns());
    }

    fn verify(&self, _question: Question) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        if let Some(verdict) = self.verdict.lock().unwrap().clone() {
            answer.send(verdict).unwrap();
        }
        answered
    }

    fn report(&self, events: &[Event]) {
        self.hear(events, Engine::report);
    }

    fn report_past(&self, events: &[Event]) {
        self.hear(events, Engine::report_past);
    }
}

impl Bench {
    fn hear(&self, events: &[Event], report: fn(&mut Engine, &Event, u64)) {
        let mut engine = self.engine.lock().unwrap();
        for event in events {
            report(&mut engine, event, wall_ns());
        }
        drop(engine);
        self.reports.lock().unwrap().push(events.len());
        self.heard.lock().unwrap().extend_from_slice(events);
        self.more.notify_all();
    }
}

/// An intake before a bench.
pub(super) fn intake(text: &str) -> (Arc<Bench>, Arc<Intake>) {
    let decide = decide(text);
    let bench = Bench::new(&decide);
    let judge: Arc<dyn Judge> = Arc::clone(&bench) as _;
    (bench, Arc::new(Intake::new(judge, &decide)))
}
