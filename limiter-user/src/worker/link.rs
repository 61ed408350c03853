//! The worker's end of the channel: what waits to be sent, and who waits for an answer.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::channel::{ChannelError, Sender};
use super::held::pieces;
use super::message::FromWorker;
use crate::engine::{Change, HeldChange, HeldChanges, Order, Snapshot};
use crate::event::follow::Position;

/// Changes that may wait to be sent; more are counted and dropped.
const MOST_CHANGES: usize = 1 << 17;

/// Changes in a message: orders do not wait longer than for one of these.
const CHANGES_AT_ONCE: usize = 512;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What waits to be sent. Orders go before all else.
#[derive(Debug, Default)]
struct Outbox {
    orders: Vec<Order>,
    changes: std::collections::VecDeque<Change>,
    /// All that is held; changes come after it.
    held_all: Option<Snapshot>,
    held: Vec<HeldChange>,
    exist: Vec<String>,
    positions: BTreeMap<String, Position>,
    others: Vec<FromWorker>,
    dropped_changes: u64,
}

/// What the daemon answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// To a scrape.
    Text(Option<String>),
    /// Files.
    Files(Result<Vec<OwnedFd>, (i32, String)>),
}

/// The worker's end of the channel. See the [module](self).
#[derive(Debug)]
pub(super) struct Link {
    sender: Sender<FromWorker>,
    outbox: Mutex<Outbox>,
    more: Condvar,
    waiting: Mutex<(u64, HashMap<u64, mpsc::SyncSender<Reply>>)>,
}

impl Link {
    pub(super) fn new(sender: Sender<FromWorker>) -> Self {
        Self {
            sender,
            outbox: Mutex::default(),
            more: Condvar::new(),
            waiting: Mutex::default(),
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Each of its parts is whole between any two statements.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what follows from events sent.
    pub(super) fn hand_over(
        &self,
        orders: impl ExactSizeIterator<Item = Order>,
        changes: impl ExactSizeIterator<Item = Change>,
    ) {
        if orders.len() == 0 && changes.len() == 0 {
            return;
        }
        let mut outbox = self.outbox();
        outbox.orders.extend(orders);
        let room = MOST_CHANGES.saturating_sub(outbox.changes.len());
        let surplus = changes.len().saturating_sub(room);
        outbox.dropped_changes += surplus as u64;
        outbox.changes.extend(changes.take(room));
        drop(outbox);
        self.more.notify_one();
    }

    /// Has what is held sent.
    pub(super) fn hold(&self, changes: HeldChanges) {
        let mut outbox = self.outbox();
        match changes {
            HeldChanges::Some(changes) if changes.is_empty() => return,
            HeldChanges::Some(changes) => outbox.held.extend(changes),
            HeldChanges::All(all) => {
                outbox.held.clear();
                outbox.held_all = Some(all);
            }
        }
        drop(outbox);
        self.more.notify_one();
    }

    /// Has accounts named that exist.
    pub(super) fn exist(&self, accounts: Vec<String>) {
        if !accounts.is_empty() {
            self.outbox().exist.extend(accounts);
            self.more.notify_one();
        }
    }

    /// Has sent how far log files were read.
    pub(super) fn positions(&self, positions: BTreeMap<String, Position>) {
        if !positions.is_empty() {
            self.outbox().positions.extend(positions);
            self.more.notify_one();
        }
    }

    /// Has something else sent.
    pub(super) fn tell(&self, message: FromWorker) {
        self.outbox().others.push(message);
        self.more.notify_one();
    }

    /// Changes that found no room.
    pub(super) fn dropped_changes(&self) -> u64 {
        self.outbox().dropped_changes
    }

    /// Sends what waits, until the daemon has gone.
    pub(super) fn send(&self) -> ChannelError {
        loop {
            if let Err(error) = self.send_next() {
                return error;
            }
        }
    }

    fn send_next(&self) -> Result<(), ChannelError> {
        let mut outbox = self.outbox();
        while outbox.is_empty() {
            outbox = self
                .more
                .wait(outbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let messages = outbox.take();
        drop(outbox);
        for message in messages {
            self.sender.send(&message, &[])?;
        }
        Ok(())
    }

    /// The daemon's part of the metrics.
    pub(super) fn scrape(&self) -> Option<String> {
        match self.request(|id| FromWorker::Scrape { id }) {
            Some(Reply::Text(text)) => text,
            _ => None,
        }
    }

    /// The log file that has its name now.
    pub(super) fn open(&self, log: &str) -> io::Result<File> {
        let file = self.file(log, None)?;
        file.ok_or_else(|| io::Error::other("the daemon sent no file"))
    }

    /// The file of a position, if rotation has left it beside that one.
    pub(super) fn renamed(&self, log: &str, position: &Position) -> io::Result<Option<File>> {
        self.file(log, Some(*position))
    }

    fn file(&self, log: &str, renamed: Option<Position>) -> io::Result<Option<File>> {
        let log = log.to_owned();
        match self.request(|id| FromWorker::Open { id, log, renamed }) {
            Some(Reply::Files(Ok(mut files))) => Ok(files.pop().map(File::from)),
            Some(Reply::Files(Err((0, words)))) => Err(io::Error::other(words)),
            Some(Reply::Files(Err((errno, _)))) => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(io::Error::other("the daemon does not answer")),
        }
    }

    fn request(&self, message: impl FnOnce(u64) -> FromWorker) -> Option<Reply> {
        let (answer, answered) = mpsc::sync_channel(1);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.0 += 1;
        let id = waiting.0;
        waiting.1.insert(id, answer);
        drop(waiting);
        self.tell(message(id));
        let reply = answered.recv_timeout(PATIENCE).ok();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.1.remove(&id);
        reply
    }

    /// Gives an answer to who waits for it.
    pub(super) fn answer(&self, id: u64, reply: Reply) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(who) = waiting.1.remove(&id) {
            // Who waited has lost patience.
            let _gone = who.try_send(reply);
        }
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.orders.is_empty()
            && self.changes.is_empty()
            && self.held_all.is_none()
            && self.held.is_empty()
            && self.exist.is_empty()
            && self.positions.is_empty()
            && self.others.is_empty()
    }

    /// What goes next, in its order.
    fn take(&mut self) -> Vec<FromWorker> {
        use std::mem::take;
        let mut messages = Vec::new();
        if !self.orders.is_empty() {
            let rest = self.orders.len().saturating_sub(CHANGES_AT_ONCE);
            let orders = self.orders.drain(..self.orders.len() - rest).collect();
            messages.push(FromWorker::Orders(orders));
        }
        if !self.exist.is_empty() {
            let rest = self.exist.len().saturating_sub(CHANGES_AT_ONCE);
            let exist = self.exist.drain(..self.exist.len() - rest).collect();
            messages.push(FromWorker::Exist(exist));
        }
        let all = self.held_all.take().into_iter().flat_map(pieces);
        messages.extend(all.map(|piece| FromWorker::HeldAll {
            is_first: piece.is_first,
            keys: piece.keys,
            blocks: piece.blocks,
            is_last: piece.is_last,
        }));
        if !self.held.is_empty() {
            let rest = self.held.len().saturating_sub(CHANGES_AT_ONCE);
            let held = self.held.drain(..self.held.len() - rest).collect();
            messages.push(FromWorker::Held(held));
        }
        if !self.positions.is_empty() {
            messages.push(FromWorker::Positions(take(&mut self.positions)));
        }
        // An answer comes after what it rests on.
        messages.append(&mut self.others);
        if !self.changes.is_empty() {
            let rest = self.changes.len().saturating_sub(CHANGES_AT_ONCE);
            let changes = self.changes.drain(..self.changes.len() - rest).collect();
            messages.push(FromWorker::Changes(changes));
        }
        messages
    }
}
