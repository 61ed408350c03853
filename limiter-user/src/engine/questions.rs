//! Questions that wait for their report.

use std::net::IpAddr;

use super::index::Index;
use super::links::{Ends, Links};
use super::table::Key;
use super::view::{Asked, View};
use crate::event::Outcome;

/// For how long an attempt that was let through counts as failed, unless its outcome
/// is known earlier.
pub(super) const RESERVE_NS: u64 = 30_000_000_000;

/// For how long a report finds its question.
const JOIN_NS: u64 = 600_000_000_000;

/// Questions kept at most, and less where many rules make them larger.
const MOST: usize = 1 << 16;
const MOST_MARKS: usize = 1 << 20;
/// What they may hold of text, in bytes: paths may be as long as an event.
const MOST_TEXT: usize = 32 << 20;

/// What a place may keep of it for the next question; of all places together less than what they
/// may hold.
const KEPT_TEXT: usize = 256;

/// What is known of a question under one rule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// The key; `None`: the question lacked a part.
    pub(super) key: Option<Key>,
    /// Whether it counted.
    pub(super) counted: bool,
    /// Whether it is reserved.
    pub(super) reserved: bool,
    /// Whether what became of it is known, and was noted.
    pub(super) noted: bool,
}

#[derive(Debug)]
struct Question {
    id: Key,
    asked_ns: u64,
    refused: bool,
    reserved: bool,
    /// Whether its id was another question's before.
    repeated: bool,
    /// Whether it had `Authorization`; `None`: its headers are not known.
    authorized: Option<bool>,
    /// The application's own word.
    outcome: Option<Outcome>,
    /// Whether its source's logins were noted.
    noted: bool,
    source: IpAddr,
    peer: Option<IpAddr>,
    /// Method, host, path, account, backend, one behind the other.
    text: String,
    ends: [Option<usize>; 5],
}

/// What was asked, while a report is joined to it.
#[derive(Debug)]
pub(super) struct Lent {
    authorized: Option<bool>,
    outcome: Option<Outcome>,
    source: IpAddr,
    peer: Option<IpAddr>,
    text: String,
    ends: [Option<usize>; 5],
}

impl Lent {
    pub(super) fn asked(&self) -> Asked<'_> {
        let mut from = 0;
        let [method, host, path, account, backend] = self.ends.map(|end| {
            let text = self.text.get(from..end?);
            from = end?;
            text
        });
        Asked {
            source: self.source,
            peer: self.peer,
            method,
            host,
            path,
            account,
            backend,
            authorized: self.authorized,
            outcome: self.outcome,
        }
    }
}

/// The questions, in a store that is reused.
#[derive(Debug)]
pub(super) struct Questions {
    stride: usize,
    slots: Vec<Question>,
    marks: Vec<Mark>,
    free: Vec<u32>,
    index: Index,
    links: Links,
    waiting: Ends,
    /// Of those with something reserved.
    reserving_links: Links,
    reserving: Ends,
    held: usize,
    /// Bytes of text that they hold, and that places keep for the next.
    text: usize,
    /// Questions that had to go before their time.
    pub(super) forgotten: u64,
}

impl Questions {
    /// For so many rules.
    pub(super) fn new(rules: usize) -> Self {
        Self {
            stride: rules,
            slots: Vec::new(),
            marks: Vec::new(),
            free: Vec::new(),
            index: Index::new(),
            links: Links::default(),
            waiting: Ends::default(),
            reserving_links: Links::default(),
            reserving: Ends::default(),
            held: 0,
            text: 0,
            forgotten: 0,
        }
    }

    /// Keeps a question with one mark for each rule. No other with its id is there.
    pub(super) fn ask(
        &mut self,
        id: Key,
        view: &View<'_>,
        now_ns: u64,
        refused: bool,
        repeated: bool,
        marks: &[Mark],
    ) {
        let at = self.free.pop().unwrap_or_else(|| self.extend());
        let slot = &mut self.slots[at as usize];
        let reserved = marks.iter().any(|mark| mark.reserved);
        (slot.id, slot.asked_ns) = (id, now_ns);
        (slot.refused, slot.reserved, slot.repeated) = (refused, reserved, repeated);
        (slot.authorized, slot.outcome, slot.noted) = (view.authorized, None, false);
        (slot.source, slot.peer) = (view.source, view.peer);
        let kept = slot.text.capacity();
        slot.text.clear();
        let texts = [
            view.method,
            view.host,
            view.raw_path,
            view.account,
            view.backend,
        ];
        for (end, text) in slot.ends.iter_mut().zip(texts) {
            *end = text.map(|text| {
                slot.text.push_str(text);
                slot.text.len()
            });
        }
        self.text += slot.text.capacity() - kept;
        let from = at as usize * self.stride;
        self.marks[from..from + self.stride].copy_from_slice(marks);
        self.index.insert(id as u32, at);
        self.links.push(&mut self.waiting, at);
        if reserved {
            self.reserving_links.push(&mut self.reserving, at);
        }
        self.held += 1;
    }

    pub(super) fn find(&self, id: Key) -> Option<u32> {
        self.index
            .find(id as u32, |at| self.slots[at as usize].id == id)
    }

    pub(super) fn refused(&self, at: u32) -> bool {
        self.slots[at as usize].refused
    }

    pub(super) fn repeated(&self, at: u32) -> bool {
        self.slots[at as usize].repeated
    }

    /// Notes the application's own word; the first one stands.
    pub(super) fn hear(&mut self, at: u32, outcome: Option<Outcome>) {
        let slot = &mut self.slots[at as usize];
        slot.outcome = slot.outcome.or(outcome);
    }

    /// Whether its source's logins are yet to be noted; they are from now on.
    pub(super) fn is_first_noted(&mut self, at: u32) -> bool {
        !std::mem::replace(&mut self.slots[at as usize].noted, true)
    }

    /// Lends out what was asked; it is to be [given back](Self::give_back).
    pub(super) fn lend(&mut self, at: u32) -> Lent {
        let slot = &mut self.slots[at as usize];
        Lent {
            authorized: slot.authorized,
            outcome: slot.outcome,
            source: slot.source,
            peer: slot.peer,
            text: std::mem::take(&mut slot.text),
            ends: slot.ends,
        }
    }

    pub(super) fn give_back(&mut self, at: u32, lent: Lent) {
        self.slots[at as usize].text = lent.text;
    }

    pub(super) fn marks(&self, at: u32) -> &[Mark] {
        let from = at as usize * self.stride;
        &self.marks[from..from + self.stride]
    }

    pub(super) fn mark_mut(&mut self, at: u32, rule: usize) -> &mut Mark {
        &mut self.marks[at as usize * self.stride + rule]
    }

    /// A question whose reservations have lasted for their time; they must be
    /// [settled](Self::settle).
    pub(super) fn overdue(&self, now_ns: u64) -> Option<u32> {
        let at = self.reserving.last()?;
        let end_ns = self.slots[at as usize].asked_ns.saturating_add(RESERVE_NS);
        (end_ns <= now_ns).then_some(at)
    }

    /// The question's reservation under one rule is released.
    pub(super) fn settle_one(&mut self, at: u32, rule: usize) {
        self.mark_mut(at, rule).reserved = false;
        if self.marks(at).iter().all(|mark| !mark.reserved) {
            self.settle(at);
        }
    }

    /// The question's reservations are released.
    pub(super) fn settle(&mut self, at: u32) {
        if self.slots[at as usize].reserved {
            self.slots[at as usize].reserved = false;
            self.reserving_links.unlink(&mut self.reserving, at);
        }
        let from = at as usize * self.stride;
        for mark in &mut self.marks[from..from + self.stride] {
            mark.reserved = false;
        }
    }

    /// A question that has to go: too old, or the oldest of too many or too long ones. It must be
    /// settled and [forgotten](Self::forget).
    pub(super) fn outdated(&self, now_ns: u64) -> Option<u32> {
        let at = self.waiting.last()?;
        let end_ns = self.slots[at as usize].asked_ns.saturating_add(JOIN_NS);
        let most = MOST.min(MOST_MARKS / self.stride.max(1));
        let is_full = self.held >= most || self.text > MOST_TEXT;
        (end_ns <= now_ns || is_full).then_some(at)
    }

    pub(super) fn forget(&mut self, at: u32, now_ns: u64) {
        let slot = &mut self.slots[at as usize];
        if slot.asked_ns.saturating_add(JOIN_NS) > now_ns {
            self.forgotten += 1;
        }
        self.index.remove(slot.id as u32, at);
        // A long text is not kept for the next question.
        if slot.text.capacity() > KEPT_TEXT {
            self.text -= slot.text.capacity();
            slot.text = String::new();
        }
        self.links.unlink(&mut self.waiting, at);
        self.free.push(at);
        self.held -= 1;
    }

    /// Fits the marks to other rules: `from[new]` says which rule of before a rule is.
    pub(super) fn remap(&mut self, from: &[Option<usize>]) {
        let before = std::mem::take(&mut self.marks);
        let rows = self.slots.len();
        self.marks = (0..rows)
            .flat_map(|row| from.iter().map(move |rule| (row, *rule)))
            .map(|(row, rule)| rule.map_or_else(Mark::default, |it| before[row * self.stride + it]))
            .collect();
        self.stride = from.len();
    }

    fn extend(&mut self) -> u32 {
        let places = self.slots.len();
        self.slots.push(Question {
            id: 0,
            asked_ns: 0,
            refused: false,
            reserved: false,
            repeated: false,
            authorized: None,
            outcome: None,
            noted: false,
            source: IpAddr::from([0; 4]),
            peer: None,
            text: String::new(),
            ends: [None; 5],
        });
        self.marks
            .resize(self.marks.len() + self.stride, Mark::default());
        if places == self.links.len() {
            self.links.resize((places * 2).max(64));
            self.reserving_links.resize((places * 2).max(64));
        }
        places as u32
    }
}
