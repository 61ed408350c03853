//! What the worker orders, on its way to the keeper. A block that the keeper is too busy for
//! is refused, which the worker makes up for; one that is taken back waits until the keeper
//! has time, for nobody would take it back again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::engine::{Order, Ordered};
use crate::keeper::{Handle, Now, Refused};

/// How long the keeper may be too busy for blocks.
const OBEYED: Duration = Duration::from_secs(5);

/// The wait before it is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// Blocks to be taken back that may wait; more are refused.
const MOST: usize = 65_536;

/// Of these at once: the keeper has other things to do.
const AT_ONCE: usize = 512;

/// Which block of a rule: its source, the rule, and the limit that it is confined to.
type Name = (IpNet, String, Option<String>);

/// The way of orders to the keeper.
#[derive(Debug)]
pub(super) struct Obeying {
    keeper: Handle,
    runtime: tokio::runtime::Handle,
    /// What is taken back, while the keeper is too busy: of a block once.
    waiting: Mutex<BTreeMap<Name, Order>>,
}

impl Obeying {
    pub(super) const fn new(keeper: Handle, runtime: tokio::runtime::Handle) -> Self {
        Self {
            keeper,
            runtime,
            waiting: Mutex::new(BTreeMap::new()),
        }
    }

    /// Has these carried out, in their order; gives what is not done, and why.
    pub(super) fn carry_out(&self, orders: Vec<Order>) -> Vec<Refused> {
        self.carry_out_within(orders, OBEYED)
    }

    fn carry_out_within(&self, orders: Vec<Order>, time: Duration) -> Vec<Refused> {
        if orders.is_empty() {
            return Vec::new();
        }
        let mut waiting = self.waiting();
        // What waits for one of these blocks was ordered before.
        let names: Vec<Name> = orders.iter().map(name).collect();
        let before = names.iter().filter_map(|name| waiting.get(name).cloned());
        let all: Vec<Order> = before.chain(orders.iter().cloned()).collect();
        let deadline = Instant::now() + time;
        loop {
            match self.ask(all.clone()) {
                Ok(refused) => {
                    for name in &names {
                        waiting.remove(name);
                    }
                    return refused;
                }
                Err(why) if Instant::now() >= deadline => {
                    return keep(&mut waiting, orders, &why);
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// Tries again what waits, unless the keeper has no time still, or orders are on their
    /// way to it.
    pub(super) fn try_again(&self) {
        // Each time anew: orders go in between.
        while let Ok(mut waiting) = self.waiting.try_lock() {
            let names: Vec<Name> = waiting.keys().take(AT_ONCE).cloned().collect();
            let orders: Vec<Order> = waiting.values().take(AT_ONCE).cloned().collect();
            // What it refuses, others have made void.
            if orders.is_empty() || self.ask(orders).is_err() {
                return;
            }
            for name in names {
                waiting.remove(&name);
            }
        }
    }

    fn ask(&self, orders: Vec<Order>) -> Result<Vec<Refused>, String> {
        let asked = (self.keeper).ask(move |keeper| keeper.obey_rules(orders, Now::read()));
        let answered = self.runtime.block_on(asked);
        answered.map_err(|error| error.to_string())
    }

    /// Held while the keeper is asked: two orders about a block stay in their order.
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Name, Order>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has what is taken back wait; gives the rest, as refused for this reason.
fn keep(waiting: &mut BTreeMap<Name, Order>, orders: Vec<Order>, why: &str) -> Vec<Refused> {
    let mut refused = Vec::new();
    for order in orders {
        let name = name(&order);
        let has_room = waiting.len() < MOST || waiting.contains_key(&name);
        if matches!(order.what, Ordered::Withdraw) && has_room {
            waiting.insert(name, order);
        } else {
            refused.push((order, why.to_owned()));
        }
    }
    refused
}

fn name(order: &Order) -> Name {
    let limit = order.limit.as_deref().map(str::to_owned);
    (order.source, order.rule.to_string(), limit)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::engine::Cause;
    use crate::keeper::fake::{self, POLICY, Shared};
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
            },
        };
        Order { what, ..order }
    }

    struct Host {
        runtime: tokio::runtime::Runtime,
        keeper: Handle,
        told: Shared,
        obeying: Obeying,
    }

    impl Host {
        fn new() -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap();
            let policy = fake::policy(&format!("{POLICY}{RULE}"));
            let told = fake::Told {
                room: 1_000,
                ..fake::Told::default()
            };
            let (keeper, told) = fake::begun("limiter.toml".into(), policy, told, Now::read());
            let (keeper, _ended) = Handle::spawn(keeper).unwrap();
            Self {
                obeying: Obeying::new(keeper.clone(), runtime.handle().clone()),
                runtime,
                keeper,
                told,
            }
        }

        /// Has the keeper take nothing until the value is dropped.
        fn busy(&self) -> mpsc::Sender<()> {
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
            // Until no more may wait.
            while {
                let mut asked = Box::pin(self.keeper.ask(|_| ()));
                let asked = std::future::poll_fn(move |context| {
                    std::task::Poll::Ready(asked.as_mut().poll(context).is_pending())
                });
                self.runtime.block_on(asked)
            } {}
            release
        }

        /// Waits until it has done all that waited.
        fn free(&self, release: mpsc::Sender<()>) {
            drop(release);
            while self.runtime.block_on(self.keeper.ask(|_| ())).is_err() {
                std::thread::yield_now();
            }
        }

        fn blocked(&self) -> Vec<String> {
            let told = self.told.lock().unwrap();
            let blocks = told.blocks.iter();
            blocks.map(|it| it.network.to_string()).collect()
        }

        fn at_once(&self, orders: Vec<Order>) -> Vec<Order> {
            let refused = self.obeying.carry_out_within(orders, Duration::ZERO);
            refused.into_iter().map(|(order, _)| order).collect()
        }
    }

    #[test]
    fn what_is_taken_back_waits_for_a_busy_keeper() {
        let host = Host::new();
        let other = "198.51.100.8/32";
        assert_eq!(host.at_once(vec![block(CLIENT)]), []);
        assert_eq!(host.blocked(), [CLIENT]);
        let release = host.busy();
        let refused = block(other);
        let orders = vec![withdraw(CLIENT), withdraw(CLIENT), refused.clone()];
        assert_eq!(host.at_once(orders), [refused]);
        assert_eq!(host.obeying.waiting().len(), 1);
        host.obeying.try_again();
        assert_eq!(host.obeying.waiting().len(), 1);
        host.free(release);
        host.obeying.try_again();
        assert!(host.obeying.waiting().is_empty());
        assert_eq!(host.blocked(), [""; 0]);
    }

    #[test]
    fn a_later_block_is_not_taken_back() {
        let host = Host::new();
        assert_eq!(host.at_once(vec![block(CLIENT)]), []);
        let release = host.busy();
        assert_eq!(host.at_once(vec![withdraw(CLIENT)]), []);
        host.free(release);
        assert_eq!(host.at_once(vec![block(CLIENT)]), []);
        host.obeying.try_again();
        assert_eq!(host.blocked(), [CLIENT]);
    }

    #[test]
    fn only_so_many_wait() {
        let mut waiting = BTreeMap::new();
        let source = |number: u32| format!("{}/32", std::net::Ipv4Addr::from(number));
        let many = (0..=MOST as u32).map(|it| withdraw(&source(it))).collect();
        let refused = keep(&mut waiting, many, "busy");
        assert_eq!((waiting.len(), refused.len()), (MOST, 1));
        let known = keep(&mut waiting, vec![withdraw(&source(0))], "busy");
        assert!(known.is_empty());
    }
}
