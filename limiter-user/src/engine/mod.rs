//! The rules at work: hears events, counts them by key, and decides.
//!
//! Pure and deterministic: time is an argument, in nanoseconds since the Unix epoch,
//! and so is the secret that keys are hashed with. What follows from an event beyond
//! its decision waits to be taken: [`Engine::orders`] to the NIC, and
//! [`Engine::changes`] for the audit log.
//!
//! An event is decided before it is counted. A question that carries an id is kept, so that
//! its report counts under the same keys, once for each rule.

pub(crate) mod account;
mod blocks;
mod clearing;
pub mod count;
mod counting;
mod course;
mod crowd;
mod decision;
mod existing;
mod hand;
mod held;
mod index;
mod judging;
mod key;
mod links;
mod ordering;
mod questions;
mod reload;
mod snapshot;
mod table;
mod telling;
#[cfg(test)]
mod tests;
mod unit;
mod upkeep;
mod view;
mod words;

use std::collections::BinaryHeap;
use std::sync::Arc;

use ipnet::IpNet;

pub use account::normalised_account;
pub use clearing::{Cleared, MOST_CLEARED};
pub use decision::{Bound, Cause, Change, Decision, Order, Ordered, Reason, Tally, What};
pub use hand::{AgainstAccount, Explained, Idle};
pub use held::HeldChanges;
pub use key::Prefixes;
pub use reload::Continuity;
pub use snapshot::{HeldBlock, HeldChange, HeldKey, Snapshot};
pub use table::{Evictions, Key};
pub use unit::Mode;

use crate::event::Event;
use crate::policy::{Accounts, Decide};
use clearing::Clearing;
use counting::Stage;
use course::Reached;
use crowd::Crowd;
use existing::Existing;
use judging::Hit;
use key::{Hasher, Shape};
use questions::{Mark, Questions};
use reload::Aside;
use unit::Unit;
use upkeep::End;
use view::{Scratch, View};

/// How far an event's own time may be off before its arrival stands for it.
const SKEW_NS: u64 = 5_000_000_000;

/// Changes and orders kept until they are taken; more are counted and dropped.
const MOST_CHANGES: usize = 1 << 16;

/// A response with this header was made by limiter, and is not the origin's.
pub const OWN_RESPONSE_HEADER: &str = "x-limiter";

/// The rules at work.
#[derive(Debug)]
pub struct Engine {
    accounts: Accounts,
    exempt: Vec<IpNet>,
    enforce: bool,
    units: Vec<Unit>,
    /// How keys are made; rules share them.
    shapes: Vec<Shape>,
    hasher: Hasher,
    questions: Questions,
    crowd: Crowd,
    existing: Existing,
    /// When actions end, the earliest first.
    ends: BinaryHeap<End>,
    orders: Vec<Order>,
    changes: Vec<Change>,
    dropped_changes: u64,
    /// Whether all that is active is to be stored anew.
    is_all_due: bool,
    /// What rules held that the last reload took away, with their definitions.
    aside: Vec<Aside>,
    /// The latest time of any event.
    latest_ns: u64,
    // Kept from event to event, so that none is allocated for each.
    scratch: Scratch,
    keys: Vec<Option<Option<Key>>>,
    hits: Vec<Hit>,
    /// Rules whose gate does not let the source in.
    gated: Vec<usize>,
    /// Rules whose key lacks an account that nobody can tell.
    unclear: Vec<usize>,
    marks: Vec<Mark>,
    reached: Vec<Reached>,
}

impl Engine {
    /// The rules of a policy with nothing counted. `edge` are the prefixes of rules that name
    /// none; the secret must stay the same for what is restored to be found again.
    #[must_use]
    pub fn new(decide: &Decide, edge: Prefixes, secret: &[u8; 16]) -> Self {
        let mut engine = Self {
            accounts: decide.accounts.clone(),
            exempt: decide.exempt.clone(),
            enforce: decide.enforce,
            units: Vec::new(),
            shapes: Vec::new(),
            hasher: Hasher::new(secret),
            questions: Questions::new(decide.rules.len()),
            crowd: Crowd::new(),
            existing: Existing::default(),
            ends: BinaryHeap::new(),
            orders: Vec::new(),
            changes: Vec::new(),
            dropped_changes: 0,
            is_all_due: true,
            aside: Vec::new(),
            latest_ns: 0,
            scratch: Scratch::default(),
            keys: Vec::new(),
            hits: Vec::new(),
            gated: Vec::new(),
            unclear: Vec::new(),
            marks: Vec::new(),
            reached: Vec::new(),
        };
        engine.build(decide, edge);
        engine
    }

    /// Decides about a request, and counts it where requests count. With an id its
    /// report can be joined to it, and where rules reserve, it counts as failed until its
    /// outcome is known, for 30 s at most.
    ///
    /// An id is one question's. Who repeats one within ten minutes may hide a failure behind a
    /// harmless request: then where rules reserve both count as failed, and no report is
    /// joined to either.
    pub fn ask(&mut self, event: &Event, now_ns: u64) -> Decision {
        self.ask_cleared(event, &[], now_ns)
    }

    /// Decides about a request that comes with challenges solved before: these, and weaker
    /// ones of the same rule and key, are not asked of it again. All else is as with
    /// [`ask`](Self::ask), so that who solves challenges still counts.
    pub fn ask_cleared(&mut self, event: &Event, brought: &[Cleared], now_ns: u64) -> Decision {
        let at_ns = when(event, now_ns);
        self.question(event, at_ns, Stage::Question, Clearing::of(brought))
    }

    /// Question and report at once, by the event's own time, or the latest known if it
    /// has none: for logs that are replayed.
    pub fn replay(&mut self, event: &Event) -> Decision {
        let at_ns = event.at_ns.unwrap_or(self.latest_ns);
        self.question(event, at_ns, Stage::Replay, Clearing::of(&[]))
    }

    /// Hears what became of a request, and counts it. What was asked under the same id
    /// is joined to it; what was not asked is counted as a request too.
    pub fn report(&mut self, event: &Event, now_ns: u64) {
        self.hear(event, when(event, now_ns), Stage::Report);
    }

    /// The same, of what was written down while nobody heard: it happened when it says, however
    /// long ago, but not later than now. Where its key has counted later events, it counts with
    /// them, unless it is older than these by a whole period.
    pub fn report_past(&mut self, event: &Event, now_ns: u64) {
        self.upkeep(now_ns);
        let at_ns = event.at_ns.map_or(now_ns, |at_ns| at_ns.min(now_ns));
        self.hear(event, at_ns, Stage::Past);
    }

    fn hear(&mut self, event: &Event, now_ns: u64, stage: Stage) {
        self.upkeep(now_ns);
        let id = self.id_of(event);
        let found = id.and_then(|id| self.questions.find(id));
        let repeated = found.is_some_and(|at| self.questions.repeated(at));
        let Some(at) = found.filter(|_| !repeated) else {
            if !is_own(event) {
                let mut scratch = std::mem::take(&mut self.scratch);
                let view = View::new(event, None, &self.accounts, &mut scratch);
                self.count_report(&view, now_ns, stage, None, repeated);
                self.scratch = scratch;
            }
            return;
        };
        if self.questions.refused(at) || is_own(event) {
            self.release(at);
            return;
        }
        self.questions.hear(at, event.outcome);
        let mut scratch = std::mem::take(&mut self.scratch);
        let lent = self.questions.lend(at);
        let view = View::new(event, Some(lent.asked()), &self.accounts, &mut scratch);
        self.settle(at, &view);
        self.count_report(&view, now_ns, stage, Some(at), false);
        self.questions.give_back(at, lent);
        self.scratch = scratch;
    }

    fn question(
        &mut self,
        event: &Event,
        now_ns: u64,
        stage: Stage,
        clearing: Clearing<'_>,
    ) -> Decision {
        self.upkeep(now_ns);
        let id = self.id_of(event).filter(|_| stage == Stage::Question);
        let before = id.and_then(|id| self.questions.find(id));
        if let Some(before) = before {
            self.displace(before, now_ns);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let view = View::new(event, None, &self.accounts, &mut scratch);
        let id = id.map(|id| (id, before.is_some()));
        let decision = self.decide(&view, now_ns, stage, clearing, id);
        self.scratch = scratch;
        decision
    }

    /// What joins questions and reports; an empty id is none.
    fn id_of(&mut self, event: &Event) -> Option<Key> {
        let id = event.id.as_deref().filter(|id| !id.is_empty())?;
        Some(self.hasher.text(id.as_bytes()))
    }

    /// What the NIC is to do since this was last asked, in this order.
    pub fn orders(&mut self) -> std::vec::Drain<'_, Order> {
        self.orders.drain(..)
    }

    /// What should be written down since this was last asked.
    pub fn changes(&mut self) -> std::vec::Drain<'_, Change> {
        self.changes.drain(..)
    }

    /// Accounts that a success has shown to exist since this was last asked, normalised.
    pub fn existing(&mut self) -> Vec<String> {
        self.existing.take()
    }

    /// Changes that nobody took in time.
    #[must_use]
    pub const fn dropped_changes(&self) -> u64 {
        self.dropped_changes
    }

    /// What each rule has counted, in the order of the policy.
    pub fn tallies(&self) -> impl Iterator<Item = (&Arc<str>, Mode, Tally)> {
        let tally = |unit: &Unit| unit.tally();
        self.units
            .iter()
            .map(move |unit| (&unit.name, unit.mode, tally(unit)))
    }

    /// Switches a rule on, off or to dry run until the policy changes it; whether there
    /// is such a rule. What it blocks at the NIC is taken back when nothing is done any more, and
    /// what began in a dry run ends with it.
    pub fn set_mode(&mut self, rule: &str, mode: Mode) -> bool {
        let Some(index) = self.units.iter().position(|unit| *unit.name == *rule) else {
            return false;
        };
        self.units[index].mode = mode;
        self.switch(index);
        true
    }

    fn note(
        &mut self,
        unit: usize,
        key: Key,
        part: usize,
        at_ns: u64,
        what: What,
        view: Option<&View<'_>>,
    ) {
        if self.changes.len() >= MOST_CHANGES {
            self.dropped_changes += 1;
            return;
        }
        self.changes.push(Change {
            at_ns,
            rule: Arc::clone(&self.units[unit].name),
            key,
            part,
            what,
            event: view.map(View::cause),
        });
    }
}

/// When an event happened: its own word, unless that is more than 5 s off.
fn when(event: &Event, now_ns: u64) -> u64 {
    event
        .at_ns
        .filter(|at_ns| at_ns.abs_diff(now_ns) <= SKEW_NS)
        .unwrap_or(now_ns)
}

fn is_own(event: &Event) -> bool {
    account::header(&event.response_headers, OWN_RESPONSE_HEADER).is_some()
}
