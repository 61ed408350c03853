//! The presets, walked through the texts that they were made from, a file each: every
//! sentence of a text that promises something is a test here, or stands in the table at the top
//! of its file with the place where it is kept.
//!
//! A preset is read as `limiter init` prints it, and its engine hears what a proxy asks
//! and reports: a question with an id, and what the origin answered to what was let through.

#![cfg(test)]

mod boruta;
mod cloudflare;
mod cloudflare_content;
mod kratos;
mod kratos_around;
mod loginwith;
mod loginwith_choices;
mod opensearch;

use limiter_user::engine::{
    Change, Cleared, Decision, Engine, MOST_CLEARED, Ordered, Prefixes, Tally, What,
};
use limiter_user::event::Event;
use limiter_user::policy::{Action, NoFiles, Policy, Rule, parse, template};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
const MINUTE: u64 = 60 * S;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A midnight.
const START: u64 = 20_000 * DAY;

const CLIENT: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// A preset at work.
struct Site {
    engine: Engine,
    policy: Policy,
    text: String,
    asked: u64,
}

/// An action that began: which, when it ends, the rung it reached, and whether the owner is
/// told.
type Began = (Action, u64, u64, bool);

impl Site {
    fn of(preset: &str) -> Self {
        Self::with(preset, &[])
    }

    /// A preset with some of its keys set.
    fn with(preset: &str, set: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let set: Vec<(String, String)> = set.iter().map(owned).collect();
        let text = template(Some(preset), &set).unwrap();
        let policy = parse("limiter.toml", &text, &NoFiles).unwrap().policy;
        let edge = Prefixes {
            ipv4: policy.edge.ipv4_prefix,
            ipv6: policy.edge.ipv6_prefix,
        };
        let decide = policy.decide.as_ref().unwrap();
        let engine = Engine::new(decide, edge, b"sixteen bytes it");
        Self {
            engine,
            policy,
            text,
            asked: 0,
        }
    }

    fn rule(&self, name: &str) -> &Rule {
        let rules = &self.policy.decide.as_ref().unwrap().rules;
        rules.iter().find(|rule| rule.name == name).unwrap()
    }

    /// Whether the file says so in a comment, however its lines are broken.
    fn remarks(&self, words: &str) -> bool {
        let comments = self.text.lines().filter_map(|line| line.strip_prefix('#'));
        let joined = comments.map(str::trim).collect::<Vec<_>>().join(" ");
        joined.contains(words)
    }

    fn ask(&mut self, request: &Event, now_ns: u64) -> Decision {
        self.engine.ask(request, now_ns)
    }

    /// What is done with a request, which the origin answers with this status if it is
    /// let through.
    fn serve(&mut self, request: &Event, status: u16, now_ns: u64) -> Option<Action> {
        let request = self.numbered(request);
        let decision = self.engine.ask(&request, now_ns);
        self.answer(&request, &decision, status, now_ns);
        decision.action
    }

    /// The same for a client that solves what it is asked to; the challenge, if nothing
    /// stronger follows.
    fn serve_solving(&mut self, request: &Event, status: u16, now_ns: u64) -> Option<Action> {
        let request = self.numbered(request);
        let (asked, decision, met) = self.solving(&request, now_ns);
        self.answer(&asked, &decision, status, now_ns);
        decision.action.or(met)
    }

    /// Asks for a client that solves whatever it is asked to, under another id each time if
    /// it has one; what was asked at last, the decision, and the first challenge that was met.
    fn solving(&mut self, request: &Event, now_ns: u64) -> (Event, Decision, Option<Action>) {
        let mut cleared: Vec<Cleared> = Vec::new();
        loop {
            let request = match request.id {
                Some(_) => self.numbered(request),
                None => request.clone(),
            };
            let decision = self.engine.ask_cleared(&request, &cleared, now_ns);
            let met = cleared.first().map(|it| it.challenge);
            let Some(bound) = &decision.bound else {
                return (request, decision, met);
            };
            assert!(cleared.len() < MOST_CLEARED, "{decision:?}");
            let (rule, part) = decision.rule.as_deref().zip(decision.part).unwrap();
            self.engine.passed(rule, part, bound.key, now_ns);
            cleared.push(Cleared {
                rule: rule.into(),
                key: bound.key,
                challenge: decision.action.unwrap(),
                bits: u8::MAX,
            });
        }
    }

    /// How many of so many, one after the other at the same time, are let through.
    fn served(&mut self, request: &Event, status: u16, count: usize, now_ns: u64) -> usize {
        let mut let_through = 0;
        for _ in 0..count {
            let action = self.serve(request, status, now_ns);
            let_through += usize::from(action.is_none_or(|action| action == Action::Throttle));
        }
        let_through
    }

    /// How many of so many are let through that are all asked about before any is answered.
    fn at_once(&mut self, requests: impl Iterator<Item = Event>, now_ns: u64) -> usize {
        let numbered: Vec<_> = requests.map(|request| self.numbered(&request)).collect();
        let let_through = |request: &&Event| !self.engine.ask(request, now_ns).refuses();
        numbered.iter().filter(let_through).count()
    }

    /// A request of which only the answer is heard, as from a log.
    fn told(&mut self, request: &Event, status: u16, now_ns: u64) {
        self.engine.report(&answered(status, request), now_ns);
    }

    fn numbered(&mut self, request: &Event) -> Event {
        self.asked += 1;
        Event {
            id: Some(self.asked.to_string().into()),
            ..request.clone()
        }
    }

    fn answer(&mut self, request: &Event, decision: &Decision, status: u16, now_ns: u64) {
        if !decision.refuses() {
            self.engine.report(&answered(status, request), now_ns);
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        self.engine.changes().collect()
    }

    /// The actions that a rule began since its changes were last taken.
    fn began(&mut self, rule: &str) -> Vec<Began> {
        let began = |change: Change| match change.what {
            What::Began {
                action,
                until_ns,
                rung,
                notify_owner,
                ..
            } if *change.rule == *rule => Some((action, until_ns, rung, notify_owner)),
            _ => None,
        };
        self.engine.changes().filter_map(began).collect()
    }

    /// Whom the NIC should drop since this was last asked, and until when.
    fn ordered(&mut self) -> Vec<(String, u64)> {
        let orders = self.engine.orders();
        orders
            .filter_map(|order| match order.what {
                Ordered::Block { until_ns, .. } => Some((order.source.to_string(), until_ns)),
                Ordered::Withdraw => None,
            })
            .collect()
    }

    fn tally(&self, rule: &str) -> Tally {
        let mut tallies = self.engine.tallies();
        tallies.find(|(name, ..)| ***name == *rule).unwrap().2
    }
}

/// `"METHOD path"` from a client that is the peer.
fn request(line: &str, source: &str) -> Event {
    let (method, path) = line.split_once(' ').unwrap();
    let source = source.parse().unwrap();
    Event {
        method: Some(method.into()),
        path: Some(path.into()),
        peer: Some(source),
        ..Event::of(source)
    }
}

fn by(account: &str, request: Event) -> Event {
    Event {
        account: Some(account.into()),
        ..request
    }
}

fn answered(status: u16, request: &Event) -> Event {
    Event {
        status: Some(status),
        ..request.clone()
    }
}

/// An address of its own for each number.
fn address(number: usize) -> String {
    format!("198.18.{}.{}", number / 250, number % 250 + 1)
}
