//! The engine with those around it: what hears events, decides, and has sent on what
//! follows from that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::link::Link;
use super::message::Rules;
use crate::adapters::Judge;
use crate::challenge::Solved;
use crate::challenge::captcha::Question;
use crate::courier::Answer;
use crate::engine::{Change, Cleared, Decision, Engine, Order, Prefixes, What};
use crate::event::Event;
use crate::keeper::unix_nanos;
use crate::policy::{Decide, NoFiles, PolicyError, parse};

/// Where decisions are made. All adapters share one.
#[derive(Debug)]
pub(super) struct Desk {
    engine: Mutex<Engine>,
    link: Arc<Link>,
}

/// The rules of a policy, as the engine takes them.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) decide: Option<Decide>,
    pub(super) prefixes: Prefixes,
}

impl InForce {
    /// Reads the text that the daemon has read before.
    pub(super) fn of(rules: &Rules) -> Result<Self, PolicyError> {
        let policy = parse("the policy", &rules.text, &NoFiles)?.policy;
        let prefixes = Prefixes {
            ipv4: policy.edge.ipv4_prefix,
            ipv6: policy.edge.ipv6_prefix,
        };
        let decide = policy.decide.map(|mut decide| {
            decide.enforce &= rules.is_enforced;
            decide.pages = rules.pages.clone();
            decide.challenge_keys = rules.challenge_keys.clone();
            decide
        });
        Ok(Self { decide, prefixes })
    }
}

impl Desk {
    pub(super) const fn new(engine: Engine, link: Arc<Link>) -> Self {
        Self {
            engine: Mutex::new(engine),
            link,
        }
    }

    /// Does something with the engine, and has sent on what follows.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Engine, u64) -> R) -> R {
        let mut engine = self.engine();
        let done = work(&mut engine, now_ns());
        self.send_on(&mut engine);
        done
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // A panic in the engine is a defect. The next event finds it as it was left, which
        // is better than none.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_on(&self, engine: &mut Engine) {
        let orders: Vec<Order> = engine.orders().collect();
        let changes: Vec<Change> = engine.changes().collect();
        let begins = |change: &Change| matches!(change.what, What::Began { .. });
        let begun = changes.iter().any(begins);
        self.link.hand_over(orders.into_iter(), changes.into_iter());
        if begun {
            // At once: a worker that dies has told what it has begun.
            self.link.hold(engine.held_changes(now_ns()));
        }
    }

    /// Puts other rules in force.
    pub(super) fn follow(&self, in_force: &InForce, rules: &Rules) {
        let none = Decide::default();
        let decide = in_force.decide.as_ref().unwrap_or(&none);
        self.with(|engine, _| {
            engine.reload(decide, in_force.prefixes);
            switch(engine, rules);
        });
    }

    /// What is due with time.
    pub(super) fn tick(&self) {
        self.with(|engine, now_ns| {
            engine.upkeep(now_ns);
            // While nobody else has the engine: what changes next must not overtake it.
            self.link.hold(engine.held_changes(now_ns));
            self.link.exist(engine.existing());
        });
    }
}

/// Has every rule be as somebody has switched it, or on.
pub(super) fn switch(engine: &mut Engine, rules: &Rules) {
    let names: Vec<Arc<str>> = engine
        .tallies()
        .map(|(name, ..)| Arc::clone(name))
        .collect();
    for name in names {
        let mode = rules.modes.get(&*name).copied().unwrap_or_default();
        let _is_there = engine.set_mode(&name, mode);
    }
}

impl Judge for Desk {
    fn ask(&self, event: &Event, cleared: &[Cleared]) -> Decision {
        self.with(|engine, now_ns| engine.ask_cleared(event, cleared, now_ns))
    }

    fn passed(&self, solved: &Solved) {
        let Solved {
            rule, part, key, ..
        } = solved;
        self.with(|engine, now_ns| engine.passed(rule, *part, *key, now_ns));
    }

    fn verify(&self, question: Question) -> oneshot::Receiver<Answer> {
        self.link.verify(question)
    }

    fn report(&self, events: &[Event]) {
        self.with(|engine, now_ns| {
            for event in events {
                engine.report(event, now_ns);
            }
        });
    }

    fn report_past(&self, events: &[Event]) {
        self.with(|engine, now_ns| {
            for event in events {
                engine.report_past(event, now_ns);
            }
        });
    }
}

/// Nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> u64 {
    unix_nanos(SystemTime::now())
}
