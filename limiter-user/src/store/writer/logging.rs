//! The audit log's part of the writer: rows in, and what is to be kept no longer out.

use std::time::Duration;

use rusqlite::Transaction;

use super::Writer;
use crate::keeper::Now;
use crate::store::audit::{self, Batch, Erasure, Log};
use crate::store::error::StoreError;

/// How often what is to be kept no longer is looked for.
const FORGET: Duration = Duration::from_mins(1);

/// The same while rows are written: the file grows.
const FORGET_BUSY: Duration = Duration::from_secs(1);

/// How often it is tried again to empty what others still read.
const AGAIN: Duration = Duration::from_millis(200);

impl Writer {
    /// Writes a batch, or gives it back.
    pub(super) fn write_audit(&mut self, mut batch: Batch, now: Now) {
        let written = self.with_log(now, |log, transaction| log.write(transaction, &batch));
        match written {
            Ok(()) => {
                self.erasures.append(&mut batch.erasures);
                let busy = now.after(FORGET_BUSY).instant;
                self.chores_due = self.chores_due.min(busy);
                let has_all_held = self.log.as_ref().is_some_and(Log::has_all_held);
                self.shared.audit(|queue| {
                    if !has_all_held {
                        queue.want_all_held();
                    }
                    if queue.written(batch) {
                        tracing::info!("the audit log is written again");
                    }
                });
            }
            Err(error) => {
                let trouble = error.to_string();
                self.shared.audit(|queue| {
                    if queue.give_back(batch, trouble.clone(), now.instant) {
                        tracing::warn!("the audit log is not written: {trouble}");
                    }
                });
            }
        }
    }

    /// Deletes some of what is to be deleted, if that is due.
    pub(super) fn do_chores(&mut self, now: Now) {
        if !self.erasures.is_empty() {
            self.chores_due = now.instant;
            if let Some(at) = self.erasures.iter().position(|it| !it.is_deleted) {
                self.is_rewritten = false;
                if let Err(error) = self.erase_some(at, now) {
                    let erasure = self.erasures.swap_remove(at);
                    // Whoever waited may have gone.
                    let _gone = erasure.done.send(Err(error.to_string()));
                }
                return;
            }
            match self.wipe(now) {
                Ok(true) => self.answer_erasures(|erasure| Ok(erasure.rows)),
                Ok(false) => self.chores_due = now.after(AGAIN).instant,
                Err(error) => {
                    let error = format!("deleted, but not overwritten: {error}");
                    self.answer_erasures(|_| Err(error.clone()));
                }
            }
        } else if now.instant >= self.chores_due {
            let is_more = match self.shared.bounds() {
                Some(bounds) => self.with_log(now, |log, transaction| {
                    log.forget(transaction, bounds, audit::time_to_ms(now.wall))
                }),
                None => Ok(false),
            };
            let pause = match is_more {
                Ok(true) => Duration::ZERO,
                Ok(false) => FORGET,
                Err(error) => {
                    tracing::debug!(%error, "old rows of the audit log stay for now");
                    FORGET
                }
            };
            self.chores_due = now.after(pause).instant;
        }
    }

    /// Deletes some rows of an account.
    fn erase_some(&mut self, at: usize, now: Now) -> Result<(), StoreError> {
        let Some(account) = self.erasures.get(at).map(|it| it.account.clone()) else {
            return Ok(());
        };
        let erased = self.with_log(now, |log, transaction| log.erase(transaction, &account));
        let (rows, is_more) = erased?;
        if let Some(erasure) = self.erasures.get_mut(at) {
            erasure.rows += rows;
            erasure.is_deleted = !is_more;
        }
        Ok(())
    }

    /// Leaves no trace of what was deleted; whether nobody was in the way.
    fn wipe(&mut self, now: Now) -> Result<bool, StoreError> {
        self.open(now)?;
        let is_rewritten = self.is_rewritten;
        self.change(|database| match is_rewritten {
            true => Ok(()),
            false => database.rewrite(),
        })?;
        self.is_rewritten = true;
        self.change(|database| database.wipe())
    }

    fn answer_erasures(&mut self, answer: impl Fn(&Erasure) -> Result<u64, String>) {
        for erasure in self.erasures.drain(..) {
            let answer = answer(&erasure);
            if let Ok(rows) = answer {
                tracing::info!(rows, "an account is erased from the audit log");
            }
            // Whoever waited may have gone.
            let _gone = erasure.done.send(answer);
        }
    }

    /// Changes the log, which is opened if it is not.
    fn with_log<R>(
        &mut self,
        now: Now,
        change: impl FnOnce(&mut Log, &Transaction<'_>) -> rusqlite::Result<R>,
    ) -> Result<R, StoreError> {
        if !self.has_read {
            // Its keeper has it opened, and puts in force what is found.
            return Err(StoreError::NotRead);
        }
        self.open(now)?;
        let mut log = match self.log.take() {
            Some(log) => log,
            None => {
                let secret = self.place.secret(audit::SECRET)?;
                // What came since the start waits, however long ago that is.
                let since = if self.has_log { now } else { self.started };
                let (since_ms, is_start) = (audit::time_to_ms(since.wall), !self.has_log);
                let open = |transaction: &Transaction<'_>| {
                    Log::open(transaction, &secret, since_ms, is_start)
                };
                self.change(|database| database.change(open))?
            }
        };
        self.has_log = true;
        let changed = self.change(|database| {
            let change = |transaction: &Transaction<'_>| change(&mut log, transaction);
            database.change(change)
        });
        match &changed {
            Ok(_) => self.log = Some(log),
            // Everything is to be stored anew, in another file.
            Err(error) if error.is_corruption() => self.fail(error),
            Err(_) => {}
        }
        changed
    }
}
