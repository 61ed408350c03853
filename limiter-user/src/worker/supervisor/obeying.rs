//! What the worker orders, on its way to the keeper, on a thread of its own: whoever hears the
//! worker does not wait for the keeper. What waits is one wish for each block of a rule. A
//! block that finds no room is refused, which the worker makes up for; one that is taken back
//! waits until the keeper has time, for nobody would take it back again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::engine::{Order, Ordered};
use crate::keeper::{Handle, Now, Refused};
use crate::worker::outgoing::Outgoing;

/// The wait before a keeper is asked again that has no time.
const AGAIN: Duration = Duration::from_millis(10);

/// Wishes that may wait so that a block still finds room, and so that what is taken back does.
const MOST: usize = 1 << 16;
const MOST_IN_ALL: usize = 3 << 16;

/// Of these at once: the keeper has other things to do.
const AT_ONCE: usize = 128;

/// Why a block is not made.
const FULL: &str = "too many blocks wait to be made";

/// Which block of a rule: its source, the rule, and the limit that it is confined to.
type Name = (IpNet, String, Option<String>);

/// Who ordered something; `None`: it has gone.
pub(super) type Orderer = Option<Arc<Outgoing>>;

/// The way of orders to the keeper. Its thread ends with this, when nothing waits.
#[derive(Debug)]
pub(super) struct Obeying {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// What waits, in its order.
#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    wishes: HashMap<Name, Wish>,
    /// Nothing follows.
    is_over: bool,
}

#[derive(Debug)]
enum Item {
    /// The wish of this name.
    Wish(Name),
    Answer(Answer),
}

/// An answer, and to whom; it rests on what was ordered before.
type Answer = (oneshot::Sender<String>, String);

/// What is to become of a block of a rule. The last order counts; what is taken back before
/// it is made again must be so also where making it is refused.
#[derive(Debug)]
struct Wish {
    orderer: Orderer,
    withdraw: Option<Order>,
    block: Option<Order>,
}

/// What is to be done next.
enum Step {
    Orders(Vec<Order>, Orderer),
    Answer(Answer),
}

impl Wish {
    const fn of(orderer: Orderer) -> Self {
        Self {
            orderer,
            withdraw: None,
            block: None,
        }
    }

    fn add(&mut self, order: Order) {
        match order.what {
            Ordered::Block { .. } => self.block = Some(order),
            Ordered::Withdraw => {
                self.block = None;
                self.withdraw = Some(order);
            }
        }
    }
}

impl Waiting {
    /// Takes an order, or gives it back: there is no room.
    fn add(&mut self, order: Order, orderer: &Orderer) -> Option<Refused> {
        let name = name(&order);
        if let Some(wish) = self.wishes.get_mut(&name) {
            wish.orderer.clone_from(orderer);
            wish.add(order);
            return None;
        }
        let most = match order.what {
            Ordered::Block { .. } => MOST,
            Ordered::Withdraw => MOST_IN_ALL,
        };
        if self.wishes.len() >= most {
            return Some((order, FULL.to_owned()));
        }
        let mut wish = Wish::of(orderer.clone());
        wish.add(order);
        self.wishes.insert(name.clone(), wish);
        self.items.push_back(Item::Wish(name));
        None
    }

    /// Takes an answer, or orders of one worker.
    fn take(&mut self) -> Option<Step> {
        let mut orders = Vec::new();
        let mut orderer = None;
        while orders.len() < AT_ONCE {
            match self.items.pop_front() {
                Some(Item::Answer(answer)) if orders.is_empty() => {
                    return Some(Step::Answer(answer));
                }
                Some(Item::Wish(name)) => {
                    let Some(wish) = self.wishes.remove(&name) else {
                        continue;
                    };
                    if !orders.is_empty() && !is_same(&wish.orderer, &orderer) {
                        self.wishes.insert(name.clone(), wish);
                        self.items.push_front(Item::Wish(name));
                        break;
                    }
                    orderer = wish.orderer;
                    orders.extend(wish.withdraw.into_iter().chain(wish.block));
                }
                Some(answer) => {
                    self.items.push_front(answer);
                    break;
                }
                None => break,
            }
        }
        (!orders.is_empty()).then_some(Step::Orders(orders, orderer))
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each of its parts is whole between any two statements.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what is to be done next; `None`: nothing follows.
    fn next(&self) -> Option<Step> {
        let mut waiting = self.waiting();
        loop {
            if let Some(step) = waiting.take() {
                return Some(step);
            }
            if waiting.is_over {
                return None;
            }
            let changed = self.changed.wait(waiting);
            waiting = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks the keeper as often as it takes; gives what it refuses.
    fn carry_out(
        &self,
        keeper: &Handle,
        runtime: &tokio::runtime::Handle,
        orders: &[Order],
    ) -> Vec<Refused> {
        loop {
            let these = orders.to_vec();
            let asked = keeper.ask(move |keeper| keeper.obey_rules(these, Now::read()));
            match runtime.block_on(asked) {
                Ok(refused) => return refused,
                Err(_) if self.waiting().is_over => return Vec::new(),
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }
}

impl Obeying {
    /// Has the keeper obey on a thread of its own. What it refuses is told to `refuse`, with
    /// whose order it was.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        keeper: Handle,
        runtime: tokio::runtime::Handle,
        refuse: impl Fn(&Orderer, Vec<Refused>) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let obeying = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("worker-orders".to_owned());
        thread.spawn(move || {
            while let Some(step) = obeying.next() {
                match step {
                    Step::Orders(orders, orderer) => {
                        let refused = obeying.carry_out(&keeper, &runtime, &orders);
                        refuse(&orderer, refused);
                    }
                    Step::Answer((who, json)) => {
                        // Who asked has lost patience.
                        let _gone = who.send(json);
                    }
                }
            }
        })?;
        Ok(Self { shared })
    }

    /// Has these carried out, in their order, after those that wait; gives what finds no room.
    /// Nobody waits for the keeper here.
    pub(super) fn pass_on(&self, orders: Vec<Order>, orderer: &Orderer) -> Vec<Refused> {
        let mut waiting = self.shared.waiting();
        let orders = orders.into_iter();
        let refused = orders.filter_map(|order| waiting.add(order, orderer));
        let refused = refused.collect();
        drop(waiting);
        self.shared.changed.notify_all();
        refused
    }

    /// Gives an answer after what was ordered so far is done.
    pub(super) fn answer(&self, who: oneshot::Sender<String>, json: String) {
        let answer = Item::Answer((who, json));
        self.shared.waiting().items.push_back(answer);
        self.shared.changed.notify_all();
    }
}

impl Drop for Obeying {
    fn drop(&mut self) {
        self.shared.waiting().is_over = true;
        self.shared.changed.notify_all();
    }
}

fn is_same(one: &Orderer, other: &Orderer) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

fn name(order: &Order) -> Name {
    let limit = order.limit.as_deref().map(str::to_owned);
    (order.source, order.rule.to_string(), limit)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;
    use crate::engine::Cause;
    use crate::keeper::fake::{self, POLICY};
    use crate::keeper::unix_nanos;

    const RULE: &str = r#"
[decide]
[[rule]]
name = "long"
count = "requests"
key = ["source"]
limit = 5
period = "1m"
action = "block"
for = "1d"
"#;

    const CLIENT: &str = "198.51.100.7/32";

    fn withdraw(source: &str) -> Order {
        Order {
            source: source.parse().unwrap(),
            rule: "long".into(),
            limit: None,
            what: Ordered::Withdraw,
        }
    }

    fn block(source: &str) -> Order {
        let order = withdraw(source);
        let what = Ordered::Block {
            until_ns: unix_nanos(Now::read().wall) + 60_000_000_000,
            part: 0,
            rung: 0,
            cause: Cause {
                source: order.source.addr(),
                account: None,
                path: None,
                status: None,
                owner: None,
            },
        };
        Order { what, ..order }
    }

    /// How long a loaded machine may need.
    const LATE: Duration = Duration::from_secs(30);

    struct Host {
        runtime: tokio::runtime::Runtime,
        keeper: Handle,
        told: fake::Shared,
        obeying: Obeying,
        refused: mpsc::Receiver<Refused>,
    }

    impl Host {
        fn new() -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_time()
                .build()
                .unwrap();
            let policy = fake::policy(&format!("{POLICY}{RULE}"));
            let told = fake::Told {
                room: 1_000,
                ..fake::Told::default()
            };
            let (keeper, told) = fake::begun("limiter.toml".into(), policy, told, Now::read());
            let (keeper, _ended) = Handle::spawn(keeper).unwrap();
            let (refusing, refused) = mpsc::channel();
            let refuse = move |_: &Orderer, orders: Vec<Refused>| {
                for order in orders {
                    let _over = refusing.send(order);
                }
            };
            let handle = runtime.handle().clone();
            Self {
                obeying: Obeying::start(keeper.clone(), handle, refuse).unwrap(),
                runtime,
                keeper,
                told,
                refused,
            }
        }

        /// Has the keeper do nothing until the value is dropped.
        fn hang(&self) -> mpsc::Sender<()> {
            let (release, released) = mpsc::channel::<()>();
            let (hung, hangs) = mpsc::channel();
            let keeper = self.keeper.clone();
            self.runtime.spawn(async move {
                let hang = keeper.ask(move |_| {
                    hung.send(()).unwrap();
                    let _released = released.recv();
                });
                hang.await
            });
            hangs.recv().unwrap();
            release
        }

        /// Has it take no more either.
        fn fill(&self) {
            while {
                let mut asked = Box::pin(self.keeper.ask(|_| ()));
                let asked = std::future::poll_fn(move |context| {
                    std::task::Poll::Ready(asked.as_mut().poll(context).is_pending())
                });
                self.runtime.block_on(asked)
            } {}
        }

        fn pass_on(&self, orders: Vec<Order>) -> Vec<Order> {
            let refused = self.obeying.pass_on(orders, &None);
            refused.into_iter().map(|(order, _)| order).collect()
        }

        /// Waits until what was ordered is done.
        fn settle(&self) {
            let (answer, answered) = oneshot::channel();
            self.obeying.answer(answer, String::new());
            let waited = self
                .runtime
                .block_on(async { tokio::time::timeout(LATE, answered).await });
            waited.unwrap().unwrap();
        }

        fn blocked(&self) -> Vec<String> {
            let told = self.told.lock().unwrap();
            let blocks = told.blocks.iter();
            blocks.map(|it| it.network.to_string()).collect()
        }
    }

    #[track_caller]
    fn until(is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + LATE;
        while !is_so() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    fn source(number: usize) -> String {
        let number = u32::try_from(number).unwrap();
        format!("{}/32", std::net::Ipv4Addr::from(number))
    }

    #[test]
    fn what_is_taken_back_waits_for_a_busy_keeper() {
        let host = Host::new();
        assert_eq!(host.pass_on(vec![block(CLIENT)]), []);
        host.settle();
        assert_eq!(host.blocked(), [CLIENT]);
        let release = host.hang();
        host.fill();
        assert_eq!(host.pass_on(vec![withdraw(CLIENT), withdraw(CLIENT)]), []);
        drop(release);
        host.settle();
        assert_eq!(host.blocked(), [""; 0]);
    }

    #[test]
    fn a_later_block_is_not_taken_back() {
        let host = Host::new();
        assert_eq!(host.pass_on(vec![block(CLIENT)]), []);
        host.settle();
        let release = host.hang();
        assert_eq!(host.pass_on(vec![withdraw(CLIENT)]), []);
        assert_eq!(host.pass_on(vec![block(CLIENT)]), []);
        drop(release);
        host.settle();
        assert_eq!(host.blocked(), [CLIENT]);
    }

    #[test]
    fn what_the_keeper_refuses_is_told() {
        let host = Host::new();
        let mut other = block(CLIENT);
        other.rule = "nobody's".into();
        assert_eq!(host.pass_on(vec![other.clone()]), []);
        let (refused, why) = host.refused.recv_timeout(LATE).unwrap();
        assert_eq!(refused, other);
        assert_eq!(why, "there is no such rule");
    }

    /// One that hangs has room in its queue: only who waits for its answer notices.
    #[test]
    fn a_keeper_that_hangs_holds_up_nobody_else() {
        let host = Host::new();
        assert_eq!(host.pass_on(vec![block(CLIENT)]), []);
        host.settle();
        let release = host.hang();
        let begin = Instant::now();
        assert_eq!(host.pass_on(vec![withdraw(CLIENT)]), []);
        // It is asked for this, and for nothing that follows.
        until(|| host.obeying.shared.waiting().wishes.is_empty());
        for number in 0..MOST {
            host.pass_on(vec![block(&source(number))]);
        }
        let last = block(&source(MOST));
        assert_eq!(host.pass_on(vec![last.clone()]), [last]);
        assert_eq!(host.pass_on(vec![withdraw(&source(MOST))]), []);
        assert!(begin.elapsed() < LATE);
        drop(release);
        until(|| !host.blocked().contains(&CLIENT.to_owned()));
    }

    #[test]
    fn only_so_many_wait() {
        let mut waiting = Waiting::default();
        for number in 0..MOST_IN_ALL {
            assert!(waiting.add(withdraw(&source(number)), &None).is_none());
        }
        let other = withdraw(&source(MOST_IN_ALL));
        assert!(waiting.add(other, &None).is_some());
        assert!(waiting.add(withdraw(&source(0)), &None).is_none());
        // Of what waits the last order counts.
        assert!(waiting.add(block(&source(0)), &None).is_none());
        assert_eq!(waiting.wishes.len(), MOST_IN_ALL);
    }
}
