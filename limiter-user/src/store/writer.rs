//! The thread that writes: what waits is written together, and nobody waits
//! for the disk who does not want to.

mod logging;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::audit::{self, Bounds};
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
    audit: audit::Queue,
    bounds: Option<Bounds>,
}

/// What is to be written next.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) orders: Vec<Order>,
    pub(super) audit: Option<audit::Batch>,
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

    /// What is to be written next, or nothing at `until`; `None`: nothing more.
    pub(super) fn next(&self, until: Instant) -> Option<Work> {
        let mut queue = self.lock();
        queue.busy_since = None;
        loop {
            let now = Instant::now();
            let due = match queue.is_closing && !queue.audit.is_troubled() {
                true => queue.audit.due(now).map(|_| now),
                false => queue.audit.due(now).filter(|_| !queue.is_closing),
            };
            let is_due = due.is_some_and(|due| due <= now);
            if is_due || !queue.waiting.is_empty() {
                queue.rows = 0;
                queue.busy_since = Some(now);
                let orders = std::mem::take(&mut queue.waiting);
                let audit = is_due.then(|| queue.audit.take());
                return Some(Work { orders, audit });
            }
            if queue.is_closing {
                return None;
            }
            if until <= now {
                queue.busy_since = Some(now);
                return Some(Work::default());
            }
            let wait = due.map_or(until, |due| due.min(until)) - now;
            let woken = self.wake.wait_timeout(queue, wait);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Puts something into the queue of the audit log, or looks at it.
    pub(super) fn audit(&self, change: impl FnOnce(&mut audit::Queue)) {
        let mut queue = self.lock();
        let now = Instant::now();
        let before = queue.audit.due(now);
        change(&mut queue.audit);
        let after = queue.audit.due(now);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.wake.notify_one();
        }
    }

    /// Sets how much of the audit log is kept.
    pub(super) fn set_bounds(&self, bounds: Bounds) {
        self.lock().bounds = Some(bounds);
    }

    fn bounds(&self) -> Option<Bounds> {
        self.lock().bounds
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
    /// The audit log of the database, once something was written to it.
    log: Option<audit::Log>,
    /// The log was opened before, by this daemon.
    has_log: bool,
    /// Since then rows are taken in.
    started: Now,
    /// Those that are deleted wait until that is in the file.
    erasures: Vec<audit::Erasure>,
    /// The file was written anew since the last of them was deleted.
    is_rewritten: bool,
    chores_due: Instant,
}

impl Writer {
    /// Opens the database and reads it, as far as either can be done.
    pub(super) fn new(shared: Arc<Shared>, place: Place, now: Now) -> Self {
        let mut writer = Self {
            shared,
            place,
            database: None,
            has_read: false,
            log: None,
            has_log: false,
            started: now,
            erasures: Vec::new(),
            is_rewritten: false,
            chores_due: now.instant,
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
        while let Some(work) = self.shared.next(self.chores_due) {
            if let Some(last) = work.orders.last().map(|order| order.number) {
                match self.write(&work.orders) {
                    Ok(()) => self.shared.store(last),
                    Err(error) => self.fail(&error),
                }
            }
            if let Some(batch) = work.audit {
                self.write_audit(batch, Now::read());
            }
            self.do_chores(Now::read());
        }
        if let (Some(_), Some(database)) = (&self.log, &mut self.database) {
            // Then the next one takes it that something may be missing.
            let _noted = database.change(|transaction| audit::close(transaction));
        }
    }

    fn write(&mut self, orders: &[Order]) -> Result<(), StoreError> {
        let Some(first) = orders.first() else {
            return Ok(());
        };
        if self.open(first.now)? {
            return Err(StoreError::TakingBack);
        }
        let changes = orders.iter().map(|order| (&order.change, order.now));
        let boot_id = self.place.boot_id.clone();
        self.change(|database| database.write(changes, &boot_id))
    }

    /// Opens the database if it is not; whether what was stored in it is only found now.
    fn open(&mut self, now: Now) -> Result<bool, StoreError> {
        if self.database.is_none() {
            self.database = Some(self.place.open(now)?);
        }
        if let Some(database) = self.database.take_if(|_| !self.has_read) {
            let saved = database.read(&self.place.boot_id)?;
            let is_found = saved.is_some();
            self.database = Some(database);
            self.read(saved);
            return Ok(is_found);
        }
        Ok(false)
    }

    /// Changes the open database. One that failed is opened anew, and looked through.
    fn change<R>(
        &mut self,
        change: impl FnOnce(&mut Database) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let Some(mut database) = self.database.take() else {
            return Err(StoreError::TakingBack);
        };
        let log = self.log.take();
        let changed = change(&mut database);
        match &changed {
            Ok(_) => (self.database, self.log) = (Some(database), log),
            Err(error) if error.is_corruption() => self.place.suspect(),
            Err(_) => {}
        }
        changed
    }

    fn fail(&self, error: &StoreError) {
        let mut queue = self.shared.lock();
        self.shared.lose(&mut queue, error.to_string());
    }
}
