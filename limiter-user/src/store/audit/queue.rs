//! What waits to be written. It is bounded, and what finds no room is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::held::{Named, Waiting};
use super::row::{Kind, Row};
use crate::policy::Action;

/// Rows that wait at most.
const MOST: usize = 65_536;

/// Beside them there is room for so many that tell what was done by hand: a flood does not
/// hide who changed what.
const MOST_BY_HAND: usize = 4_096;

/// With so many rows waiting it is a flood: one row then stands for several paths and
/// statuses, and has none.
const FLOOD: usize = MOST / 4;

/// Rows of one transaction: a block that is to be stored waits for no more.
pub(super) const BATCH: usize = 8_192;

/// How long rows wait for others like them.
const GATHER: Duration = Duration::from_secs(1);

/// How often writing is tried again after it has failed.
const RETRY: Duration = Duration::from_secs(5);

/// Accounts that are remembered as known, so that not every success is written down.
const MOST_KNOWN: usize = 65_536;

/// How often it is written down anew that an account exists.
const KNOWN_FOR_MS: i64 = 3_600_000;

/// Rows that were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Gap {
    /// When the first of them happened, in milliseconds since 1970.
    pub(super) first_ms: i64,
    /// The last.
    pub(super) last_ms: i64,
    /// What they stood for; 0: nobody knows.
    pub(super) lost: u64,
}

/// An account that is to be forgotten, and who waits for it.
#[derive(Debug)]
pub(in crate::store) struct Erasure {
    pub(in crate::store) account: String,
    /// Rows that are gone.
    pub(in crate::store) rows: u64,
    /// All are, and what is left is to overwrite them.
    pub(in crate::store) is_deleted: bool,
    pub(in crate::store) done: oneshot::Sender<Result<u64, String>>,
}

/// What is written together.
#[derive(Debug, Default)]
pub(in crate::store) struct Batch {
    pub(in crate::store) rows: Vec<Row>,
    /// Accounts that exist, and when that showed, in milliseconds since 1970.
    pub(super) known: Vec<(Box<str>, i64)>,
    pub(super) gap: Option<Gap>,
    /// What has changed of what the rules hold.
    pub(in crate::store) held: Waiting,
    /// To be done after the rows are written, and not again with them.
    pub(in crate::store) erasures: Vec<Erasure>,
    /// Who waits until all this is written.
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
}

/// How the log fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Rows that wait.
    pub waiting: usize,
    /// Rows written since the start.
    pub written: u64,
    /// What was counted, refused or changed since the start and is in no row, as the
    /// queue was full.
    pub dropped: u64,
    /// Why nothing is written at present, and what to do.
    pub trouble: Option<String>,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(in crate::store) struct Queue {
    batch: Batch,
    /// The latest row like it.
    latest: HashMap<Alike, usize>,
    known: HashMap<Box<str>, i64>,
    /// When what waits is to be written.
    due: Option<Instant>,
    health: Health,
}

/// What rows have in common of which one may stand for all.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Alike {
    second: i64,
    kind: Kind,
    action: Option<Action>,
    simulated: bool,
    rule: Option<Arc<str>>,
    key: Option<u128>,
    source: Option<IpAddr>,
    account: Option<Box<str>>,
}

impl Queue {
    /// Takes a row in.
    pub(super) fn push(&mut self, row: Row, now: Instant) {
        let alike = Alike::of(&row);
        let is_flood = self.batch.rows.len() >= FLOOD;
        let latest = alike.as_ref().and_then(|it| self.latest.get(it));
        if let Some(held) = latest.and_then(|at| self.batch.rows.get_mut(*at))
            && held.take_in(&row, is_flood)
        {
            return;
        }
        if !self.has_room(&row) {
            self.drop_row(&row);
            return;
        }
        if let Some(alike) = alike {
            self.latest.insert(alike, self.batch.rows.len());
        }
        self.batch.rows.push(row);
        self.due.get_or_insert(now + GATHER);
    }

    /// Notes that an account exists.
    pub(super) fn know(&mut self, account: &str, at_ms: i64, now: Instant) {
        match self.known.get_mut(account) {
            Some(before) if (0..KNOWN_FOR_MS).contains(&(at_ms - *before)) => return,
            Some(before) => *before = at_ms,
            None => {
                if self.known.len() >= MOST_KNOWN {
                    self.known.clear();
                }
                self.known.insert(account.into(), at_ms);
            }
        }
        if self.batch.known.len() < MOST {
            let account = super::row::short(account.into());
            self.batch.known.push((account, at_ms));
            self.due.get_or_insert(now + GATHER);
        }
    }

    /// Has changes of what the rules hold stored.
    pub(super) fn hold(&mut self, changes: Vec<Named>, now: Instant) {
        for change in changes {
            self.batch.held.change(change);
        }
        if self.batch.held.is_due() {
            self.due.get_or_insert(now + GATHER);
        }
    }

    /// Has all that the rules hold stored, in place of what was.
    pub(super) fn hold_all(&mut self, all: Waiting, now: Instant) {
        self.batch.held = all;
        self.due.get_or_insert(now + GATHER);
    }

    /// Whether only all that the rules hold makes up for what was lost.
    pub(super) const fn wants_all_held(&self) -> bool {
        self.batch.held.is_broken()
    }

    /// The file has not all that the rules hold, unless that is on its way.
    pub(in crate::store) fn want_all_held(&mut self) {
        self.batch.held.give_up();
    }

    /// Has somebody told when all that waits is written.
    pub(super) fn wait(&mut self, waiter: oneshot::Sender<Result<(), String>>, now: Instant) {
        self.batch.waiters.push(waiter);
        self.hurry(now);
    }

    /// Has an account forgotten after all that waits is written.
    pub(super) fn erase(&mut self, erasure: Erasure, now: Instant) {
        self.known.remove(&*erasure.account);
        self.batch.erasures.push(erasure);
        self.hurry(now);
    }

    /// Has what waits written at once: somebody waits for it.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// What was ordered by hand and waits, in words.
    #[cfg(test)]
    pub(super) fn by_hand(&self) -> Vec<String> {
        let hands = self.batch.rows.iter().filter_map(|row| row.hand.as_deref());
        let words = hands.map(|hand| {
            let told = [&hand.subject, &hand.detail, &hand.reason];
            let told = told.into_iter().flatten().map(|text| format!("; {text}"));
            format!("{} {}{}", hand.uid, hand.order, told.collect::<String>())
        });
        words.collect()
    }

    /// How the log fares.
    pub(super) fn health(&self) -> Health {
        Health {
            waiting: self.batch.rows.len(),
            ..self.health.clone()
        }
    }

    /// Whether writing fails at present.
    pub(in crate::store) const fn is_troubled(&self) -> bool {
        self.health.trouble.is_some()
    }

    /// When it is to be written; `None`: nothing waits.
    pub(in crate::store) fn due(&self, now: Instant) -> Option<Instant> {
        let is_full = self.batch.rows.len() >= BATCH && self.health.trouble.is_none();
        self.due.map(|due| if is_full { now } else { due })
    }

    /// What is to be written next.
    pub(in crate::store) fn take(&mut self) -> Batch {
        self.latest.clear();
        let rest = match self.batch.rows.len() > BATCH {
            true => self.batch.rows.split_off(BATCH),
            false => Vec::new(),
        };
        let held = self.batch.held.take();
        let mut taken = std::mem::take(&mut self.batch);
        self.batch.held = std::mem::replace(&mut taken.held, held);
        if rest.is_empty() && !self.batch.held.is_due() {
            self.due = None;
        } else {
            self.batch.erasures = std::mem::take(&mut taken.erasures);
            self.batch.waiters = std::mem::take(&mut taken.waiters);
            self.batch.rows = rest;
        }
        taken
    }

    /// Notes that a batch is written; whether that ends a trouble.
    pub(in crate::store) fn written(&mut self, batch: Batch) -> bool {
        self.health.written += batch.rows.len() as u64;
        for waiter in batch.waiters {
            // Whoever waits may have gone.
            let _gone = waiter.send(Ok(()));
        }
        self.health.trouble.take().is_some()
    }

    /// Takes back what could not be written, to try it again; whether the trouble is
    /// news.
    pub(in crate::store) fn give_back(
        &mut self,
        mut batch: Batch,
        trouble: String,
        now: Instant,
    ) -> bool {
        self.latest.clear();
        for erasure in batch.erasures.drain(..) {
            // Whoever waits may have gone.
            let _gone = erasure.done.send(Err(trouble.clone()));
        }
        for waiter in batch.waiters.drain(..) {
            let _gone = waiter.send(Err(trouble.clone()));
        }
        let mut newer = std::mem::replace(&mut self.batch, batch);
        let room = MOST - self.batch.rows.len().min(MOST);
        let kept = newer.rows.len().min(room);
        let more = newer.rows.split_off(kept);
        self.batch.rows.append(&mut newer.rows);
        for row in more {
            match self.has_room(&row) {
                true => self.batch.rows.push(row),
                false => self.drop_row(&row),
            }
        }
        newer
            .known
            .truncate(MOST - self.batch.known.len().min(MOST));
        self.batch.known.append(&mut newer.known);
        self.batch.erasures.append(&mut newer.erasures);
        self.batch.waiters.append(&mut newer.waiters);
        newer.held.give_back(std::mem::take(&mut self.batch.held));
        self.batch.held = newer.held;
        if let Some(gap) = newer.gap {
            self.widen(gap);
        }
        self.due = Some(now + RETRY);
        let is_news = self.health.trouble.as_ref() != Some(&trouble);
        self.health.trouble = Some(trouble);
        is_news
    }

    fn has_room(&self, row: &Row) -> bool {
        let most = match row.kind {
            Kind::Hand => MOST + MOST_BY_HAND,
            _ => MOST,
        };
        self.batch.rows.len() < most
    }

    fn drop_row(&mut self, row: &Row) {
        self.health.dropped += row.count;
        self.widen(Gap {
            first_ms: row.at_ms,
            last_ms: row.at_ms,
            lost: row.count,
        });
    }

    fn widen(&mut self, gap: Gap) {
        let held = self.batch.gap.get_or_insert(Gap { lost: 0, ..gap });
        held.first_ms = held.first_ms.min(gap.first_ms);
        held.last_ms = held.last_ms.max(gap.last_ms);
        held.lost += gap.lost;
    }
}

impl Alike {
    /// `None`: it stands for itself.
    fn of(row: &Row) -> Option<Self> {
        (row.kind != Kind::Hand).then(|| Self {
            second: row.at_ms.div_euclid(1_000),
            kind: row.kind,
            action: row.action,
            simulated: row.simulated,
            rule: row.rule.clone(),
            key: row.key,
            source: row.source,
            account: row.account.clone(),
        })
    }
}

impl Row {
    /// Lets this row stand for another that is like it; whether it does.
    fn take_in(&mut self, other: &Self, is_flood: bool) -> bool {
        let is_same = self.path == other.path
            && self.status == other.status
            && self.tier == other.tier
            && self.refused_for == other.refused_for
            && self.rung == other.rung;
        if !is_same && !is_flood {
            return false;
        }
        if self.path != other.path {
            self.path = None;
        }
        if self.status != other.status {
            self.status = None;
        }
        if self.refused_for != other.refused_for {
            self.refused_for = None;
        }
        self.tier = self.tier.max(other.tier);
        self.rung = self.rung.max(other.rung);
        self.until_ms = self.until_ms.max(other.until_ms);
        self.notify_owner |= other.notify_owner;
        self.count += other.count;
        true
    }
}
