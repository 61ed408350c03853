//! The sentences of the language's meaning, one test each.

mod answers;
mod capacity;
mod counting;
mod gates;
mod held;
mod keys;
mod lasting;
mod meaning;
mod random;
mod refusing;
mod state;
mod together;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::view::{Scratch, View};
use super::{Cause, Change, Cleared, Decision, Engine, Key, Mode, Order, Ordered, Prefixes, What};
use crate::challenge::Keys;
use crate::event::{Event, Outcome};
use crate::policy::{
    Absent, Accounts, Action, Algorithm, Api, Body, Challenge, Count, Course, Decide, Effect,
    Gauge, KeyPart, Ladder, LimitHeaders, Listen, OnSuccess, Pages, Pattern, RequestPattern,
    Response, Rule, Rung, Shared, Statuses, Tier, Window,
};

const S: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * S;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A midnight, so that all windows start here.
const START: u64 = 20_000 * DAY;

const EDGE: Prefixes = Prefixes { ipv4: 32, ipv6: 64 };
const SECRET: [u8; 16] = *b"sixteen bytes it";

fn effect(action: Action) -> Effect {
    Effect {
        action,
        wait_ms: if action == Action::Throttle { 100 } else { 0 },
        then: None,
        simulate: false,
        notify_owner: false,
        difficulty_bits: None,
    }
}

fn window(limit: u64, period_ns: u64) -> Window {
    Window {
        limit,
        period: Duration::from_nanos(period_ns),
        exceeds: false,
        algorithm: Algorithm::SlidingLog,
    }
}

/// A tier over a sliding log, without `for`.
fn tier(limit: u64, period_ns: u64, action: Action) -> Tier {
    Tier {
        gauge: Gauge::Window(window(limit, period_ns)),
        effect: effect(action),
        lasting: None,
    }
}

impl Tier {
    fn lasting(mut self, lasting_ns: u64) -> Self {
        self.lasting = Some(Duration::from_nanos(lasting_ns));
        self
    }
}

fn rung(limit: u64, period_ns: u64, lasting_ns: u64) -> Rung {
    Rung {
        window: window(limit, period_ns),
        effect: effect(Action::Reject),
        lasting: Duration::from_nanos(lasting_ns),
    }
}

/// The ladder of the policy's example.
fn lockout() -> Course {
    Course::Ladder(Ladder {
        rungs: vec![
            rung(5, 5 * MINUTE, 15 * MINUTE),
            rung(5, HOUR, HOUR),
            rung(5, DAY, DAY),
        ],
        decay: Duration::from_nanos(DAY),
    })
}

/// A rule over all requests of each source.
fn rule(name: &str, count: Count, tiers: Vec<Tier>) -> Rule {
    Rule {
        name: name.to_owned(),
        requests: Vec::new(),
        hosts: Vec::new(),
        backends: Vec::new(),
        from: None,
        count,
        failure: None,
        success: None,
        key: vec![KeyPart::Source],
        absent: Absent::Skip,
        ipv4_prefix: None,
        ipv6_prefix: None,
        except: Vec::new(),
        course: Course::Tiers(tiers),
        jitter_percent: 0,
        on_success: OnSuccess::Keep,
        reserve: false,
        count_refused: false,
        apply: Vec::new(),
        simulate: false,
        shared: Shared::Block,
        block_limit: None,
        clears: Vec::new(),
        tracked: 1_000,
        blocked: 1_000,
        keys_per_source: 1_000,
        response: Response {
            status: 429,
            headers: LimitHeaders::XRatelimit,
            body: Body::Empty,
        },
    }
}

/// A rule over the failures of each account.
fn by_account(name: &str, course: Course) -> Rule {
    Rule {
        key: vec![KeyPart::Account],
        course,
        reserve: true,
        ..rule(name, Count::Failures, Vec::new())
    }
}

fn requests(texts: &[&str]) -> Vec<RequestPattern> {
    let request = |text: &&str| match text.split_once(' ') {
        Some((method, path)) => RequestPattern {
            method: Some(method.to_owned()),
            path: Pattern::path(path).unwrap(),
        },
        None => RequestPattern {
            method: None,
            path: Pattern::path(text).unwrap(),
        },
    };
    texts.iter().map(request).collect()
}

fn statuses(status: u16) -> Count {
    Count::Statuses(Statuses::new(vec![status..=status]))
}

fn decide(rules: Vec<Rule>) -> Decide {
    Decide {
        spoe: None,
        listen: Listen::Unix(PathBuf::from("/run/check.sock")),
        api: Api::Unix(PathBuf::from("/run/api.sock")),
        group: None,
        feedback: Vec::new(),
        logs: Vec::new(),
        trusted_proxies: Vec::new(),
        client_header: "X-Forwarded-For".to_owned(),
        local_proxy: true,
        exempt: Vec::new(),
        enforce: true,
        accounts: Accounts {
            from: Vec::new(),
            nfkc: true,
            ignore_case: true,
            trim: true,
            owner_header: None,
        },
        challenge: Challenge::default(),
        rules,
        pages: Pages::default(),
        challenge_keys: Keys::default(),
    }
}

fn engine(rules: Vec<Rule>) -> Engine {
    Engine::new(&decide(rules), EDGE, &SECRET)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const CLIENT: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// A GET of `/` by a client that is the peer.
fn get(source: &str) -> Event {
    Event {
        method: Some("GET".into()),
        path: Some("/".into()),
        peer: Some(address(source)),
        ..Event::of(address(source))
    }
}

/// A POST of `/login`.
fn login(source: &str, account: &str) -> Event {
    Event {
        method: Some("POST".into()),
        path: Some("/login".into()),
        account: Some(account.into()),
        ..get(source)
    }
}

fn with_id(id: &str, event: Event) -> Event {
    Event {
        id: Some(id.into()),
        ..event
    }
}

fn with_status(status: u16, event: Event) -> Event {
    Event {
        status: Some(status),
        ..event
    }
}

fn failed(event: Event) -> Event {
    Event {
        outcome: Some(Outcome::Failure),
        ..event
    }
}

fn succeeded(event: Event) -> Event {
    Event {
        outcome: Some(Outcome::Success),
        ..event
    }
}

fn at(at_ns: u64, event: Event) -> Event {
    Event {
        at_ns: Some(at_ns),
        ..event
    }
}

fn with_response_header(name: &str, value: &str, event: Event) -> Event {
    Event {
        response_headers: vec![(name.into(), value.into())],
        ..event
    }
}

impl Engine {
    /// The challenge of a tier is passed by whoever sends this request.
    fn passes(&mut self, event: &Event, rule: &str, part: usize, now_ns: u64) {
        let key = self.bench_key(event, rule);
        if let Some(key) = key {
            self.passed(rule, part, key, now_ns);
        }
    }

    /// The key that a rule makes of an event.
    fn bench_key(&mut self, event: &Event, rule: &str) -> Option<Key> {
        let unit = self.units.iter().find(|unit| *unit.name == *rule)?;
        let mut scratch = Scratch::default();
        let view = View::new(event, None, &self.accounts, &mut scratch);
        self.hasher.key(&self.shapes[unit.shape], &view)
    }

    /// How many of so many requests at once pass.
    fn passing(&mut self, event: &Event, count: usize, now_ns: u64) -> usize {
        (0..count)
            .filter(|_| !self.ask(event, now_ns).refuses())
            .count()
    }

    /// Reports an event so many times.
    fn reports(&mut self, event: &Event, count: usize, now_ns: u64) {
        for _ in 0..count {
            self.report(event, now_ns);
        }
    }

    fn action(&mut self, event: &Event, now_ns: u64) -> Option<Action> {
        self.ask(event, now_ns).action
    }

    fn began(&mut self) -> Vec<(Action, u64, u64)> {
        let began = |change: Change| match change.what {
            What::Began {
                action,
                until_ns,
                rung,
                ..
            } => Some((action, until_ns, rung)),
            _ => None,
        };
        self.changes().filter_map(began).collect()
    }

    /// Whom the NIC is to drop, and until when.
    fn ordered(&mut self) -> Vec<(String, u64)> {
        let block = |order: Order| match order.what {
            Ordered::Block { until_ns, .. } => Some((order.source.addr().to_string(), until_ns)),
            Ordered::Withdraw => None,
        };
        self.orders().filter_map(block).collect()
    }

    /// Whose block it is to take back.
    fn withdrawn(&mut self) -> Vec<String> {
        let withdrawn = |order: &Order| order.what == Ordered::Withdraw;
        let orders = self.orders().filter(withdrawn);
        orders
            .map(|order| order.source.addr().to_string())
            .collect()
    }

    fn tally_of(&self, rule: &str) -> super::Tally {
        let (_, _, tally) = self.tallies().find(|(name, ..)| ***name == *rule).unwrap();
        tally
    }
}
