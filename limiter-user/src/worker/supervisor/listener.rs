//! The thread that hears a worker: looks at what it says, and passes that on.
//!
//! The worker reads what strangers send. It is believed as little as that: a message is
//! bounded, an order must be one that the rules in force could give, and there are only so
//! many a second.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::Shared;
use super::captchas::Captchas;
use super::obeying::Obeying;
use super::positions::PositionWriter;
use super::requests::{Asking, Request};
use crate::adapters::origin::log_name_of;
use crate::engine::{Change, HeldBlock, HeldChange, HeldKey, Order, Ordered};
use crate::event::follow::Position;
use crate::worker::held::Held;
use crate::worker::message::{FromWorker, ToWorker};
use crate::worker::outgoing::Outgoing;
use crate::worker::rate::Rate;

/// Orders a second that are looked at, and at once.
const ORDERS: (f64, f64) = (20_000.0, 50_000.0);

/// Rows a second for the audit log, and at once: more than a disk takes. As many names of accounts:
/// much of one is not at the cost of the other. What is held has a bound in what the rules can
/// hold; a change of it that is left out would be missing until all of it is told.
const ROWS: (f64, f64) = (400_000.0, 800_000.0);

/// Names of accounts in a message, and bytes of one.
const NAMES: usize = 4_096;
const NAME_BYTES: usize = 1_024;

/// How much of each kind may come.
#[derive(Debug)]
struct Rates {
    orders: Rate,
    changes: Rate,
    names: Rate,
}

/// What hears a worker, and the one after it.
#[derive(Debug)]
pub(super) struct Listener {
    shared: Arc<Shared>,
    obeying: Obeying,
    requests: mpsc::SyncSender<Asking>,
    positions: PositionWriter,
    captchas: Captchas,
    is_ready: Option<oneshot::Sender<()>>,
    rates: Rates,
    /// What the rules hold. Only this thread has it: nobody waits while it is copied.
    held: Held,
    /// What was held before, which takes the place of nothing until it is known.
    recalled: Option<mpsc::Receiver<Held>>,
    /// What was recalled, until the worker holds it.
    late: Held,
    /// All that is held, as far as it has come.
    coming: Held,
    /// The way to the worker that is heard.
    current: Option<Arc<Outgoing>>,
}

/// What a listener passes on to.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) obeying: Obeying,
    pub(super) requests: mpsc::SyncSender<Asking>,
    pub(super) positions: PositionWriter,
    pub(super) captchas: Captchas,
    pub(super) is_ready: oneshot::Sender<()>,
}

/// What was held when the daemon before ended.
#[derive(Debug)]
pub(super) enum Before {
    Known(Held),
    /// It comes when it could be read.
    Later(mpsc::Receiver<Held>),
}

impl Listener {
    pub(super) fn new(shared: Arc<Shared>, ways: Ways, before: Before) -> Self {
        let (held, recalled) = match before {
            Before::Known(held) => (held, None),
            Before::Later(recalled) => (Held::default(), Some(recalled)),
        };
        let rate = |(per_second, burst)| Rate::new(per_second, burst);
        Self {
            shared,
            obeying: ways.obeying,
            requests: ways.requests,
            positions: ways.positions,
            captchas: ways.captchas,
            is_ready: Some(ways.is_ready),
            rates: Rates {
                orders: rate(ORDERS),
                changes: rate(ROWS),
                names: rate(ROWS),
            },
            held,
            recalled,
            late: Held::default(),
            coming: Held::default(),
            current: None,
        }
    }

    /// Whom it hears from now on; `None`: nobody.
    pub(super) fn turn_to(&mut self, worker: Option<Arc<Outgoing>>) {
        self.current = worker;
        // The next one begins with it.
        self.late = Held::default();
    }

    /// What is held, for a worker that begins.
    pub(super) fn held(&self) -> impl Iterator<Item = ToWorker> + use<> {
        self.held.messages()
    }

    /// Does what a message says, as far as it may.
    pub(super) fn hear(&mut self, message: FromWorker) {
        self.recall();
        match message {
            FromWorker::Ready => {
                tracing::debug!("the process that hears events serves");
                if let Some(is_ready) = self.is_ready.take() {
                    let _gone = is_ready.send(());
                }
            }
            FromWorker::Orders(orders) => self.carry_out(orders),
            FromWorker::Changes(changes) => self.record(changes),
            FromWorker::Exist(accounts) => self.note_accounts(accounts),
            FromWorker::Held(changes) => self.hold(changes),
            FromWorker::Recalled => self.late = Held::default(),
            FromWorker::HeldAll {
                is_first,
                keys,
                blocks,
                is_last,
            } => {
                if is_first {
                    self.coming = Held::default();
                }
                self.hold_more(keys, blocks);
                if is_last {
                    self.held = std::mem::take(&mut self.coming);
                    self.held.add(self.late.clone(), &self.shared.most());
                    self.store_all();
                }
            }
            FromWorker::Positions(positions) => self.note_positions(positions),
            FromWorker::Scrape { id } => self.request(Request::Scrape { id }),
            FromWorker::Open { id, log, renamed } => {
                self.request(Request::Open { id, log, renamed });
            }
            FromWorker::Verify { id, question } => {
                let captcha = self.shared.state().captcha.clone();
                if let Some(outgoing) = &self.current {
                    self.captchas.ask(id, &question, captcha.as_ref(), outgoing);
                }
            }
            FromWorker::Answer { id, json } => {
                let who = self.shared.state().questions.remove(&id);
                match who {
                    Some(who) if who.changes => self.obeying.answer(who.answer, json),
                    Some(who) => {
                        // Who asked has lost patience.
                        let _gone = who.answer.send(json);
                    }
                    None => {}
                }
            }
        }
    }

    fn record(&mut self, mut changes: Vec<Change>) {
        let taken = self.rates.changes.take(changes.len(), Instant::now());
        self.too_many(changes.len() - taken);
        changes.truncate(taken);
        let most = self.shared.most();
        changes.retain(|change| most.contains_key(&*change.rule));
        self.shared.state().health.unknown_rows += (taken - changes.len()) as u64;
        if let Some(notifier) = &self.shared.settings.notifier {
            changes.iter().for_each(|change| notifier.hear(change));
        }
        self.shared.settings.audit.record(changes);
    }

    fn note_accounts(&mut self, accounts: Vec<String>) {
        let now = SystemTime::now();
        let wanted = accounts.len().min(NAMES);
        let taken = self.rates.names.take(wanted, Instant::now());
        let accounts = accounts.into_iter().take(taken);
        for account in accounts.filter(|it| it.len() <= NAME_BYTES) {
            self.shared.settings.audit.account_exists(&account, now);
        }
    }

    fn hold(&mut self, mut changes: Vec<HeldChange>) {
        let most = self.shared.most();
        changes.retain(|change| {
            let takes = self.held.takes(change, &most);
            if takes {
                self.held.apply(change.clone());
            }
            takes
        });
        if self.recalled.is_some() {
            return;
        }
        let audit = &self.shared.settings.audit;
        audit.hold(changes);
        if audit.wants_all_held() {
            self.store_all();
        }
    }

    fn hold_more(&mut self, keys: Vec<HeldKey>, blocks: Vec<HeldBlock>) {
        let keys = keys.into_iter().map(HeldChange::Key);
        let blocks = blocks.into_iter().map(HeldChange::Block);
        let most = self.shared.most();
        for change in keys.chain(blocks) {
            if self.coming.takes(&change, &most) {
                self.coming.apply(change);
            }
        }
    }

    /// Has all that is held take the place of what is stored, once that is known.
    fn store_all(&self) {
        if self.recalled.is_none() {
            self.shared.settings.audit.hold_all(self.held.snapshot());
        }
    }

    /// Takes over what was held before, where that was not known and is now. What is held
    /// since counts more.
    fn recall(&mut self) {
        let recalled = self.recalled.as_ref();
        let Some(before) = recalled.and_then(|recalled| recalled.try_recv().ok()) else {
            return;
        };
        self.recalled = None;
        let added = self.held.add(before, &self.shared.most());
        if let Some(outgoing) = &self.current {
            for message in added.messages() {
                outgoing.send(message, Vec::new());
            }
            self.late = added;
        }
        self.store_all();
    }

    fn note_positions(&self, positions: BTreeMap<String, Position>) {
        let mut state = self.shared.state();
        let logs: Vec<String> = state.logs.iter().map(|path| log_name_of(path)).collect();
        let known = positions
            .into_iter()
            .filter(|(name, _)| logs.contains(name));
        state.positions.extend(known);
        state.positions.retain(|name, _| logs.contains(name));
        let reached = state.positions.clone();
        drop(state);
        self.positions.write(reached);
    }

    fn request(&self, request: Request) {
        if let Some(outgoing) = &self.current {
            // One that asks faster than it can be served gets nothing.
            let _full = self.requests.try_send((request, Arc::clone(outgoing)));
        }
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        // In their order: what is taken back was ordered before. That is never too much, since
        // there is one for each block at most.
        let now = Instant::now();
        let mut taken = Vec::with_capacity(orders.len());
        for order in orders {
            let is_block = matches!(order.what, Ordered::Block { .. });
            if is_block && self.rates.orders.take(1, now) == 0 {
                self.too_many(1);
                self.refuse(order, "too many blocks are ordered in a second".to_owned());
            } else {
                taken.push(order);
            }
        }
        let refused = self.obeying.pass_on(taken, &self.current);
        self.too_many(refused.len());
        for (order, why) in refused {
            self.refuse(order, why);
        }
    }

    fn refuse(&self, order: Order, why: String) {
        if let Some(outgoing) = &self.current {
            outgoing.send(ToWorker::Refused(Box::new(order), why), Vec::new());
        }
    }

    fn too_many(&self, count: usize) {
        self.shared.state().health.too_many += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Settings, Worker};
    use super::*;
    use crate::daemon::logging;
    use crate::engine::{Snapshot, What};
    use crate::keeper::fake::{self, Told};
    use crate::keeper::{Handle, Now};
    use crate::store::PositionFile;
    use crate::worker::held::{Most, Room};
    use crate::worker::message::Rules;

    struct Host {
        _runtime: tokio::runtime::Runtime,
        _state: tempfile::TempDir,
        requests: mpsc::Receiver<Asking>,
        worker: Worker,
        listener: Listener,
    }

    impl Host {
        fn new(before: Before) -> Self {
            let state = tempfile::tempdir().unwrap();
            let worker = Worker::new(Settings {
                log: (logging::Format::Text, logging::Level::Info),
                secret: [0; 16],
                token: None,
                sockets: Vec::new(),
                group: None,
                state: state.path().to_owned(),
                audit: Told::default().audit,
                notifier: None,
                courier: None,
                positions: PositionFile::of(state.path()),
            });
            let room = Room { keys: 9, blocks: 9 };
            let most = Most::from([("login".to_owned(), room)]);
            let rules = Rules {
                text: "with a rule".to_owned(),
                ..Rules::default()
            };
            worker.follow(rules, vec![PathBuf::from("/a")], most);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap();
            let (keeper, _told) = fake::keeper("limiter.toml".into(), Now::read());
            let (keeper, _ended) = Handle::spawn(keeper).unwrap();
            let (asking, requests) = mpsc::sync_channel(1);
            let ways = Ways {
                obeying: Obeying::start(keeper, runtime.handle().clone(), |_, _| ()).unwrap(),
                requests: asking,
                positions: PositionWriter::start(PositionFile::of(state.path())).unwrap(),
                captchas: Captchas::default(),
                is_ready: oneshot::channel().0,
            };
            Self {
                listener: Listener::new(Arc::clone(&worker.shared), ways, before),
                _runtime: runtime,
                _state: state,
                requests,
                worker,
            }
        }

        fn hold(&mut self, number: u64) {
            let change = HeldChange::Key(key(number));
            self.listener.hear(FromWorker::Held(vec![change]));
        }

        fn held(&self) -> Vec<HeldKey> {
            self.listener.held.snapshot().keys
        }
    }

    fn key(number: u64) -> HeldKey {
        HeldKey {
            rule: "login".to_owned(),
            key: format!("{number:032x}"),
            rungs: 1,
            quiet_ns: 0,
            until_ns: vec![1],
            of: None,
        }
    }

    #[test]
    fn too_many_rows_are_not_at_the_cost_of_what_is_held() {
        let mut host = Host::new(Before::Known(Held::default()));
        host.listener.rates.changes = Rate::new(0.0, 0.0);
        host.listener.rates.names = Rate::new(0.0, 0.0);
        host.hold(1);
        assert_eq!(host.held(), [key(1)]);
    }

    #[test]
    fn what_could_not_be_read_is_taken_over_later() {
        let (recalling, recalled) = mpsc::channel();
        let mut host = Host::new(Before::Later(recalled));
        host.hold(1);
        assert!(host.listener.recalled.is_some());
        let before = Snapshot {
            keys: vec![key(0), key(1)],
            blocks: Vec::new(),
        };
        recalling.send(Held::of(before)).unwrap();
        host.hold(2);
        assert!(host.listener.recalled.is_none());
        assert_eq!(host.held(), [key(0), key(1), key(2)]);
    }

    #[test]
    fn all_that_is_held_does_not_undo_what_the_worker_has_not_heard_of() {
        let (recalling, recalled) = mpsc::channel();
        let mut host = Host::new(Before::Later(recalled));
        let (here, _there) = crate::worker::channel::pair().unwrap();
        let outgoing = Arc::new(Outgoing::start(here).unwrap());
        host.listener.turn_to(Some(outgoing));
        let before = Snapshot {
            keys: vec![key(0)],
            blocks: Vec::new(),
        };
        recalling.send(Held::of(before)).unwrap();
        let all = |number| FromWorker::HeldAll {
            is_first: true,
            keys: vec![key(number)],
            blocks: Vec::new(),
            is_last: true,
        };
        // It was on its way.
        host.listener.hear(all(1));
        assert_eq!(host.held(), [key(0), key(1)]);
        host.listener.hear(FromWorker::Recalled);
        host.listener.hear(all(2));
        assert_eq!(host.held(), [key(2)]);
    }

    #[test]
    fn what_a_rule_did_and_holds_that_is_just_gone_is_not_lost() {
        let mut host = Host::new(Before::Known(Held::default()));
        let change = |rule: &str| Change {
            at_ns: 1,
            rule: rule.into(),
            key: 0,
            part: 0,
            what: What::Ended,
            event: None,
        };
        let unknown = |host: &mut Host, rule: &str| {
            let before = host.worker.health().unknown_rows;
            host.listener.hear(FromWorker::Changes(vec![change(rule)]));
            host.worker.health().unknown_rows - before
        };
        let policy = |text: &str| Rules {
            text: text.to_owned(),
            ..Rules::default()
        };
        let follow = |host: &Host, text| host.worker.follow(policy(text), Vec::new(), Most::new());
        assert_eq!(unknown(&mut host, "other"), 1);
        follow(&host, "without rules");
        // Somebody switches a rule: no other policy.
        follow(&host, "without rules");
        assert_eq!(unknown(&mut host, "login"), 0);
        host.hold(1);
        assert_eq!(host.held(), [key(1)]);
        follow(&host, "still without");
        assert_eq!(unknown(&mut host, "login"), 1);
        host.hold(2);
        assert_eq!(host.held(), [key(1)]);
        let before = host.worker.shared.state().before.clone();
        assert_eq!(before, Some(policy("without rules")));
    }

    #[test]
    fn a_log_is_the_one_of_its_name() {
        let mut host = Host::new(Before::Known(Held::default()));
        let logs = vec![PathBuf::from("/b"), PathBuf::from("/a")];
        host.worker.follow(Rules::default(), logs, Most::new());
        let log = |name: &str| host.worker.shared.log(name);
        assert_eq!(log("log:/a"), Some(PathBuf::from("/a")));
        assert_eq!(log("log:/etc/shadow"), None);
        // Nobody is heard, so that nobody gets an answer.
        let name = "log:/a".to_owned();
        host.listener.hear(FromWorker::Open {
            id: 1,
            log: name,
            renamed: None,
        });
        assert!(host.requests.try_recv().is_err());
    }
}
