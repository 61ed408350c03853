//! How other threads ask the keeper.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Chore, Keeper, Now};

/// Orders that may wait at once. More than there can be connections.
const WAITING: usize = 256;

/// How often what is due with time is done.
const TICK: Duration = Duration::from_secs(1);

/// How often samples are fetched while somebody captures: before the ring is
/// full of those that come at a thousand a second of each of a few refusals.
const COLLECT: Duration = Duration::from_millis(50);

/// How often it is looked whether what should end now has ended: the program's clock
/// goes in steps.
const AGAIN: Duration = Duration::from_millis(10);

type Order = Box<dyn FnOnce(&mut Keeper) + Send>;

/// The keeper's thread has ended, or has more orders waiting than it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is ending or too busy")]
pub struct Stopped;

/// Asks the keeper; clones ask the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: SyncSender<Order>,
}

impl Handle {
    /// Gives `keeper` a thread of its own, which ends with the last handle.
    /// The second value becomes ready when the thread has ended, for whatever
    /// reason.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn spawn(keeper: Keeper) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (orders, waiting) = sync_channel(WAITING);
        let (ending, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                // Dropped when this thread ends, also by a panic.
                let _ending = ending;
                serve(keeper, &waiting);
            })?;
        Ok((Self { orders }, ended))
    }

    /// Lets the keeper do something, and waits for the answer.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn ask<R: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Keeper) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (answer, answered) = oneshot::channel();
        let order: Order = Box::new(move |keeper| {
            // Whoever asked may have gone; the order was given all the same.
            let _gone = answer.send(verb(keeper));
        });
        self.orders.try_send(order).map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

/// When what is due with time is done: one chore a turn, so that an order waits for one at
/// most.
struct Chores {
    due: Instant,
    left: std::slice::Iter<'static, Chore>,
}

impl Chores {
    fn new(now: Instant) -> Self {
        Self {
            due: now + TICK,
            left: [].iter(),
        }
    }

    /// How long an order may be waited for before the next is due.
    fn wait(&self, now: Instant) -> Duration {
        match self.left.len() {
            0 => self.due.saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    fn next(&mut self, now: Instant) -> Option<Chore> {
        if self.left.len() == 0 && now >= self.due {
            self.left = Chore::ALL.iter();
            self.due = now + TICK;
        }
        self.left.next().copied()
    }
}

fn serve(mut keeper: Keeper, orders: &Receiver<Order>) {
    let mut chores = Chores::new(Instant::now());
    loop {
        let mut wait = chores.wait(Instant::now());
        if keeper.is_capturing() {
            wait = wait.min(COLLECT);
        }
        if let Some(left) = keeper.term_ends_in(Now::read()) {
            wait = wait.min(left.max(AGAIN));
        }
        match orders.recv_timeout(wait) {
            Ok(order) => {
                // The program may have gone back by itself, and an order is for what
                // is in force.
                keeper.note_end_of_term(Now::read());
                order(&mut keeper);
                keeper.tell_rules();
            }
            Err(RecvTimeoutError::Timeout) => {
                keeper.note_end_of_term(Now::read());
                keeper.tell_rules();
                keeper.forsake_captures(Now::read());
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if keeper.is_capturing() {
            keeper.collect(Now::read());
        }
        if let Some(chore) = chores.next(Instant::now()) {
            keeper.do_chore(chore, Now::read());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_waits_for_one_chore_at_most() {
        let begin = Instant::now();
        let mut chores = Chores::new(begin);
        assert_eq!(chores.wait(begin), TICK);
        assert_eq!(chores.next(begin), None);
        let due = begin + TICK;
        let mut done = Vec::new();
        // A turn each, between which there is a look at the orders.
        while done.len() < Chore::ALL.len() {
            assert_eq!(chores.wait(due), Duration::ZERO);
            done.extend(chores.next(due));
        }
        assert_eq!(done, Chore::ALL);
        assert_eq!(chores.next(due), None);
        assert_eq!(chores.wait(due), TICK);
        assert_eq!(chores.next(due + TICK), Some(Chore::ALL[0]));
    }
}
