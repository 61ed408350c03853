//! The thread that writes: what waits is written together, and nobody waits
//! for the disk who does not want to.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::database::{Database, Place};
use super::error::StoreError;
use crate::keeper::Now;
use crate::keeper::records::{Change, Progress, Receipt, Saved};

/// Rows that wait at most. Two imports of as many blocks as one answer holds.
const WAITING_ROWS: usize = 400_000;

/// A disk that takes longer for what it was given is in trouble.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between the keeper and the writer.
#[derive(Debug, Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Order>,
    rows: usize,
    /// The number of the last change that was handed over.
    handed: u64,
    /// A change was lost: only everything at once makes up for it.
    is_broken: bool,
    is_closing: bool,
    /// Since when the writer is at work.
    busy_since: Option<Instant>,
    saved: Option<Saved>,
}

#[derive(Debug)]
pub(super) struct Order {
    number: u64,
    change: Change,
    now: Now,
}

impl Shared {
    /// Takes a change that is to be written.
    pub(super) fn hand_over(&self, change: Change, now: Now) {
        let mut queue = self.lock();
        queue.handed += 1;
        let number = queue.handed;
        let is_all = matches!(change, Change::Everything(_));
        if is_all {
            // It has what waits.
            queue.waiting.clear();
            queue.rows = 0;
            queue.is_broken = false;
        }
        if !queue.is_broken && !is_all && queue.rows + change.rows() > WAITING_ROWS {
            let words = "the disk does not keep up; look at its load and its health";
            self.lose(&mut queue, words.to_owned());
            return;
        }
        if queue.is_broken {
            self.progress.send_modify(|it| it.handled = number);
            return;
        }
        queue.rows += change.rows();
        queue.waiting.push(Order {
            number,
            change,
            now,
        });
        self.wake.notify_one();
    }

    /// For the last change that was handed over.
    pub(super) fn receipt(&self) -> Receipt {
        Receipt::new(self.lock().handed, self.progress.subscribe())
    }

    /// Why nothing is stored at present, and what to do.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        if let Some(trouble) = &self.progress.borrow().trouble {
            return Some(trouble.clone());
        }
        let since = self.lock().busy_since?;
        let is_late = now.saturating_duration_since(since) > PATIENCE;
        let seconds = PATIENCE.as_secs();
        is_late.then(|| format!("the disk does not answer for {seconds} s; look at its health"))
    }

    /// What was found stored, if that is news.
    pub(super) fn saved(&self) -> Option<Saved> {
        self.lock().saved.take()
    }

    /// Nothing more will be handed over.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.wake.notify_one();
    }

    fn found(&self, saved: Saved) {
        self.lock().saved = Some(saved);
    }

    /// Gives up what waits, but for everything at once and what came after it.
    fn lose(&self, queue: &mut Queue, trouble: String) {
        let first = queue.waiting.first();
        let has_all = first.is_some_and(|it| matches!(it.change, Change::Everything(_)));
        if !has_all {
            queue.waiting.clear();
            queue.rows = 0;
            queue.is_broken = true;
        }
        let lost = match queue.waiting.first() {
            Some(order) => order.number - 1,
            None => queue.handed,
        };
        self.progress.send_modify(|it| {
            if it.trouble.as_ref() != Some(&trouble) {
                tracing::warn!("changes are not stored: {trouble}");
            }
            it.handled = it.handled.max(lost);
            it.trouble = Some(trouble);
        });
    }

    pub(super) fn store(&self, last: u64) {
        let mut queue = self.lock();
        queue.busy_since = None;
        self.progress.send_modify(|it| {
            it.stored = last;
            it.handled = it.handled.max(last);
            if !queue.is_broken && it.trouble.take().is_some() {
                tracing::info!("changes are stored again");
            }
        });
    }

    /// What is to be written next; `None`: nothing more.
    pub(super) fn next(&self) -> Option<Vec<Order>> {
        let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.is_closing;
        let queue = self.wake.wait_while(self.lock(), idle);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.rows = 0;
        queue.busy_since = Some(Instant::now());
        let waiting = std::mem::take(&mut queue.waiting);
        (!waiting.is_empty()).then_some(waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to the database of a place, and opens it again where that failed.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    place: Place,
    database: Option<Database>,
    /// What was stored before has been read. Until then nothing may take its
    /// place.
    has_read: bool,
}

impl Writer {
    /// Opens the database and reads it, as far as either can be done.
    pub(super) fn new(shared: Arc<Shared>, place: Place, now: Now) -> Self {
        let mut writer = Self {
            shared,
            place,
            database: None,
            has_read: false,
        };
        if let Err(error) = writer.begin(now) {
            writer
                .shared
                .lose(&mut writer.shared.lock(), error.to_string());
        }
        writer
    }

    fn begin(&mut self, now: Now) -> Result<(), StoreError> {
        match self.place.open(now) {
            Ok(database) => {
                let saved = database.read(&self.place.boot_id)?;
                self.database = Some(database);
                self.read(saved);
                Ok(())
            }
            Err(error) => {
                if error.is_about_writing()
                    && let Ok(Some(saved)) = self.place.read_only()
                {
                    self.read(Some(saved));
                }
                Err(error)
            }
        }
    }

    fn read(&mut self, saved: Option<Saved>) {
        self.has_read = true;
        if let Some(saved) = saved {
            self.shared.found(saved);
        }
    }

    /// Writes what is handed over until nothing more can be.
    pub(super) fn run(mut self) {
        while let Some(orders) = self.shared.next() {
            let Some(last) = orders.last().map(|order| order.number) else {
                continue;
            };
            match self.write(&orders) {
                Ok(()) => self.shared.store(last),
                Err(error) => {
                    let mut queue = self.shared.lock();
                    queue.busy_since = None;
                    self.shared.lose(&mut queue, error.to_string());
                }
            }
        }
    }

    fn write(&mut self, orders: &[Order]) -> Result<(), StoreError> {
        let Some(first) = orders.first() else {
            return Ok(());
        };
        let mut database = match self.database.take() {
            Some(database) => database,
            None => self.place.open(first.now)?,
        };
        if !self.has_read {
            let saved = database.read(&self.place.boot_id)?;
            self.has_read = true;
            if let Some(saved) = saved {
                self.shared.found(saved);
                self.database = Some(database);
                return Err(StoreError::TakingBack);
            }
        }
        let changes = orders.iter().map(|order| (&order.change, order.now));
        database.write(changes, &self.place.boot_id)?;
        // One that failed is opened anew, and looked through.
        self.database = Some(database);
        Ok(())
    }
}
