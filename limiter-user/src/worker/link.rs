//! The worker's end of the channel: what waits to be sent, and who waits for an answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::channel::{ChannelError, Sender};
use super::held::pieces;
use super::message::FromWorker;
use crate::challenge::captcha::Question;
use crate::courier::Answer;
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
    orders: VecDeque<Order>,
    changes: VecDeque<Change>,
    /// All that is held; changes come after it.
    held_all: Option<Snapshot>,
    held: VecDeque<HeldChange>,
    exist: VecDeque<String>,
    positions: BTreeMap<String, Position>,
    others: Vec<FromWorker>,
    dropped_changes: u64,
}

/// What was taken together to be sent, one message after the other, with the orders that come
/// meanwhile between them.
type Round = Box<dyn Iterator<Item = FromWorker>>;

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
    verifying: Mutex<(u64, HashMap<u64, oneshot::Sender<Answer>>)>,
}

impl Link {
    pub(super) fn new(sender: Sender<FromWorker>) -> Self {
        Self {
            sender,
            outbox: Mutex::default(),
            more: Condvar::new(),
            waiting: Mutex::default(),
            verifying: Mutex::default(),
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
        let mut round: Round = Box::new(std::iter::empty());
        loop {
            for message in self.next(&mut round) {
                if let Err(error) = self.sender.send(&message, &[]) {
                    return error;
                }
            }
        }
    }

    /// Waits for what is to be sent next: orders, if there are any, and one message else.
    fn next(&self, round: &mut Round) -> impl Iterator<Item = FromWorker> + use<> {
        let mut other = round.next();
        let mut outbox = self.outbox();
        while other.is_none() && outbox.is_empty() {
            outbox = self
                .more
                .wait(outbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let orders = outbox.take_orders();
        let following = other.is_none().then(|| outbox.take_others());
        drop(outbox);
        // What has much in it is cut into pieces here: who has orders does not wait for that.
        if let Some(following) = following {
            *round = following;
            other = round.next();
        }
        orders.into_iter().chain(other)
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

    /// Has the provider of CAPTCHAs asked. Who loses patience drops what this gives.
    pub(super) fn verify(&self, question: Question) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let mut verifying = self
            .verifying
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        verifying.1.retain(|_, who| !who.is_closed());
        verifying.0 += 1;
        let id = verifying.0;
        verifying.1.insert(id, answer);
        drop(verifying);
        self.tell(FromWorker::Verify { id, question });
        answered
    }

    /// Gives its answer to who waits for it.
    pub(super) fn verified(&self, id: u64, answer: Answer) {
        let mut verifying = self
            .verifying
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(who) = verifying.1.remove(&id) {
            // Who waited has lost patience.
            let _gone = who.send(answer);
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

    fn take_orders(&mut self) -> Option<FromWorker> {
        let orders = first(&mut self.orders);
        (!orders.is_empty()).then_some(FromWorker::Orders(orders))
    }

    /// Takes some of all that is no order. An answer comes after what it rests on.
    fn take_others(&mut self) -> Round {
        let exist = first(&mut self.exist);
        let all = self.held_all.take();
        let held = first(&mut self.held);
        let positions = std::mem::take(&mut self.positions);
        let others = std::mem::take(&mut self.others);
        let changes = first(&mut self.changes);
        let exist = (!exist.is_empty()).then_some(FromWorker::Exist(exist));
        let all = all.into_iter().flat_map(pieces);
        let all = all.map(|piece| FromWorker::HeldAll {
            is_first: piece.is_first,
            keys: piece.keys,
            blocks: piece.blocks,
            is_last: piece.is_last,
        });
        let held = (!held.is_empty()).then_some(FromWorker::Held(held));
        let positions = (!positions.is_empty()).then_some(FromWorker::Positions(positions));
        let changes = (!changes.is_empty()).then_some(FromWorker::Changes(changes));
        let round = exist.into_iter().chain(all).chain(held).chain(positions);
        Box::new(round.chain(others).chain(changes))
    }
}

/// Takes the first of a queue, as many as a message takes.
fn first<T>(queue: &mut VecDeque<T>) -> Vec<T> {
    let count = queue.len().min(CHANGES_AT_ONCE);
    queue.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{HeldKey, Ordered};
    use crate::worker::channel;

    fn order() -> Order {
        Order {
            source: "198.51.100.7/32".parse().unwrap(),
            rule: "login".into(),
            limit: None,
            what: Ordered::Withdraw,
        }
    }

    fn held(number: usize) -> HeldKey {
        HeldKey {
            rule: "login".to_owned(),
            key: format!("{number:032x}"),
            rungs: 1,
            quiet_ns: 0,
            until_ns: vec![1],
            of: None,
        }
    }

    fn kind(message: &FromWorker) -> &'static str {
        match message {
            FromWorker::Orders(_) => "orders",
            FromWorker::HeldAll { .. } => "all",
            FromWorker::Held(_) => "held",
            FromWorker::Ready => "ready",
            FromWorker::Exist(_) => "exist",
            other => panic!("{other:?}"),
        }
    }

    struct Sending {
        link: Link,
        round: Round,
    }

    impl Sending {
        fn new() -> Self {
            let (here, _there) = channel::pair().unwrap();
            Self {
                link: Link::new(Sender::new(here).unwrap()),
                round: Box::new(std::iter::empty()),
            }
        }

        fn order(&self, count: usize) {
            let orders = std::iter::repeat_n(order(), count);
            self.link.hand_over(orders, std::iter::empty());
        }

        fn next(&mut self) -> Vec<&'static str> {
            self.link
                .next(&mut self.round)
                .map(|it| kind(&it))
                .collect()
        }
    }

    #[test]
    fn an_order_waits_for_one_piece_at_most() {
        let mut sending = Sending::new();
        let all = Snapshot {
            keys: (0..3_000).map(held).collect(),
            blocks: Vec::new(),
        };
        sending.link.hold(HeldChanges::All(all));
        assert_eq!(sending.next(), ["all"]);
        sending.order(1);
        assert_eq!(sending.next(), ["orders", "all"]);
        assert_eq!(sending.next(), ["all"]);
    }

    #[test]
    fn many_orders_do_not_stop_the_rest() {
        let mut sending = Sending::new();
        sending.order(3 * CHANGES_AT_ONCE);
        sending.link.exist(vec!["ann".to_owned()]);
        sending.link.tell(FromWorker::Ready);
        assert_eq!(sending.next(), ["orders", "exist"]);
        assert_eq!(sending.next(), ["orders", "ready"]);
        assert_eq!(sending.next(), ["orders"]);
    }

    #[test]
    fn an_answer_comes_after_what_it_rests_on() {
        let mut sending = Sending::new();
        let gone = HeldChange::KeyGone {
            rule: "login".to_owned(),
            key: held(1).key,
        };
        sending.order(1);
        sending.link.hold(HeldChanges::Some(vec![gone]));
        sending.link.tell(FromWorker::Ready);
        assert_eq!(sending.next(), ["orders", "held"]);
        assert_eq!(sending.next(), ["ready"]);
    }
}
