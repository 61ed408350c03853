//! The places for connections, and who has to leave when they are taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How often the wait for a place looks who has become idle.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Place {
    /// Requests that are being answered.
    busy: u32,
    /// Since when there are none.
    since: Instant,
    leave: Arc<Notify>,
}

/// All places of a listener.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    places: Mutex<(u64, HashMap<u64, Place>)>,
    freed: Notify,
}

/// The place of one connection; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    leave: Arc<Notify>,
}

/// While it lives, its connection is not idle.
#[derive(Debug)]
pub(crate) struct Busy {
    seats: Arc<Seats>,
    number: u64,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Place>)> {
        // The map is whole between any two of its operations.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `most` places are taken; the connection that has
    /// been idle for longest, and for at least `idle`, is sent away.
    pub(crate) async fn make_room(&self, most: usize, idle: Duration) {
        loop {
            if self.taken() < most {
                return;
            }
            self.send_away(idle);
            // Either way the loop looks again.
            let _freed = timeout(LOOK, self.freed.notified()).await;
        }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().1.len()
    }

    /// Sends the connection away that has been idle for longest, and for at
    /// least `idle`, if there is one.
    pub(crate) fn send_away(&self, idle: Duration) {
        let now = Instant::now();
        let guard = self.lock();
        let longest = guard
            .1
            .values()
            .filter(|place| place.busy == 0 && now.duration_since(place.since) >= idle)
            .min_by_key(|place| place.since);
        if let Some(place) = longest {
            place.leave.notify_one();
        }
    }

    pub(crate) fn take(self: &Arc<Self>) -> Seat {
        let leave = Arc::new(Notify::new());
        let mut guard = self.lock();
        guard.0 += 1;
        let number = guard.0;
        let place = Place {
            busy: 0,
            since: Instant::now(),
            leave: Arc::clone(&leave),
        };
        guard.1.insert(number, place);
        drop(guard);
        Seat {
            seats: Arc::clone(self),
            number,
            leave,
        }
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.lock().1.get_mut(&number) {
            change(place);
        }
    }
}

impl Seat {
    /// Says that a request is being answered.
    pub(crate) fn busy(&self) -> Busy {
        self.seats.change(self.number, |place| place.busy += 1);
        Busy {
            seats: Arc::clone(&self.seats),
            number: self.number,
        }
    }

    /// Waits until the connection has to go: its place is needed, or it has
    /// been idle for `stall`.
    pub(crate) async fn cut(&self, stall: Duration) {
        let mut wait = stall;
        loop {
            if timeout(wait, self.leave.notified()).await.is_ok() {
                return;
            }
            let mut idle = Duration::ZERO;
            self.seats.change(self.number, |place| {
                if place.busy == 0 {
                    idle = place.since.elapsed();
                }
            });
            if idle >= stall {
                return;
            }
            wait = stall.saturating_sub(idle);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().1.remove(&self.number);
        self.seats.freed.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.seats.change(self.number, |place| {
            place.busy = place.busy.saturating_sub(1);
            place.since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_one_idle_for_longest_makes_room() {
        let seats = Arc::new(Seats::default());
        let (old, young, busy) = (seats.take(), seats.take(), seats.take());
        let _working = busy.busy();
        tokio::time::advance(IDLE * 2).await;
        drop(young.busy());
        tokio::select! {
            () = old.cut(IDLE * 60) => {}
            () = young.cut(IDLE * 60) => panic!("the younger one was cut"),
            () = busy.cut(IDLE * 60) => panic!("the busy one was cut"),
            () = seats.make_room(3, IDLE) => panic!("there was no room"),
        }
        drop(old);
        seats.make_room(3, IDLE).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_stalls_is_cut_and_who_works_is_not() {
        let seats = Arc::new(Seats::default());
        let seat = seats.take();
        let working = seat.busy();
        let cut = timeout(IDLE * 10, seat.cut(IDLE)).await;
        assert!(cut.is_err());
        drop(working);
        let begin = Instant::now();
        seat.cut(IDLE).await;
        assert!(begin.elapsed() >= IDLE && begin.elapsed() < IDLE * 3);
    }
}
