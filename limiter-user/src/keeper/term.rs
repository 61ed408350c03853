//! What is in force for a time: a policy that awaits its confirmation, or a pause.
//! The program itself ends either; here it is ordered, told, and what a roll-back
//! leaves is put in order.

#[cfg(test)]
mod tests;

use std::time::Duration;

use hyper::StatusCode;

use super::restore::effective;
use super::{By, Keeper, Now, in_full, refused, seconds_left, timestamp};
use crate::control::api::{Refusal, Reloaded, TermRow};
use crate::dataplane::model::Term;
use crate::policy::{Loaded, Policy, PolicyError, units::duration_text};
use crate::store::Unconfirmed;
use crate::store::audit::ByHand;

/// What is in force until it ends.
#[derive(Debug)]
pub(super) struct Temporary {
    term: Term,
    until: Now,
    /// Who ordered it; `None`: it was taken over.
    uid: Option<u32>,
    /// What is in force then, where that is another policy.
    before: Option<Before>,
    /// Its end was told, and what follows failed.
    is_told: bool,
}

/// The policy of before.
#[derive(Debug)]
pub(super) struct Before {
    policy: Policy,
    text: String,
}

impl Keeper {
    /// The text that the policy in force was read from.
    pub fn set_text(&mut self, text: String) {
        self.text = text;
    }

    /// Says that the policy file was not put in force by the start, since nobody has
    /// confirmed what it says.
    pub fn set_rolled_back(&mut self, tried: String) {
        self.rejected = Some(tried);
        self.load.error = Some(format!(
            "what {} says was to be confirmed and was not",
            self.config.display()
        ));
    }

    /// Puts a policy in force as [`Keeper::reload`] does, for `lasting`; then the one
    /// of now is in force again, unless it is [confirmed](Keeper::confirm).
    ///
    /// # Errors
    /// Those of [`Keeper::reload`]; it changes what cannot be rolled back, or could
    /// not be remembered by a restart.
    pub fn try_policy(
        &mut self,
        loaded: Result<Loaded, PolicyError>,
        lasting: Duration,
        by: By,
        now: Now,
    ) -> Result<Reloaded, Refusal> {
        self.load(loaded, Some(lasting), by, now)
    }

    /// Lets the policy that is tried stay.
    ///
    /// # Errors
    /// None is tried, or its time is over.
    pub fn confirm(&mut self, by: By, now: Now) -> Result<Reloaded, Refusal> {
        match self.temporary.as_ref().map(|it| it.term) {
            Some(Term::Unconfirmed) => {}
            other => return Err(nothing_to_confirm(other)),
        }
        if !self.plane.keep().map_err(refused)? {
            self.end_term(now);
            return Err(nothing_to_confirm(None));
        }
        self.temporary = None;
        self.load.error = None;
        self.keep_audit();
        self.note_by_hand(by.hand("confirm", now));
        let mut notices: Vec<String> = self.forget_trial().into_iter().collect();
        // What waited for it: blocks by limits, names that are gone, interfaces.
        let policy = effective(&self.policy, &self.allow, &self.deny);
        if let Err(error) = self.plane.apply(&policy) {
            let error = in_full(&*error);
            notices.push(format!(
                "limits do not block before the next reload, which may fail: {error}"
            ));
        }
        let detached = self.detach_others(&policy, &mut notices);
        let attached = self.attach_confirmed(&mut notices, now);
        // Blocks may have ended with their limits, or with a dry run.
        self.record_everything(now);
        tracing::info!(uid = by.uid, pid = by.pid, "policy confirmed");
        for notice in &notices {
            tracing::warn!("{notice}");
        }
        Ok(self.reloaded(attached, detached, notices, now))
    }

    /// Attaches to what a policy means that was tried without. What cannot be attached
    /// to is tried again, as what comes later.
    fn attach_confirmed(&mut self, notices: &mut Vec<String>, now: Now) -> Vec<String> {
        let before = self.attached_names();
        self.settle_links();
        let present = match (self.interfaces)() {
            Ok(present) => present,
            Err(error) => {
                notices.push(format!("interfaces are not known: {error}"));
                return Vec::new();
            }
        };
        self.attach_to_meant(&present, now);
        let mut attached = self.attached_names();
        for row in self.rows_of_interfaces(&present) {
            if let Some(cause) = row.cause {
                notices.push(format!("{} is not attached: {cause}", row.interface));
            }
        }
        attached.retain(|name| !before.contains(name));
        attached
    }

    /// Lets everything pass for `lasting`; what would be dropped is counted. A policy
    /// that is tried is rolled back first.
    ///
    /// # Errors
    /// The data plane refuses.
    pub fn pause(&mut self, lasting: Duration, by: By, now: Now) -> Result<Reloaded, Refusal> {
        let was_tried = self.policy_before().is_some();
        let is_paused = matches!(&self.temporary, Some(it) if it.term == Term::Paused);
        if is_paused && self.plane.prolong(lasting).map_err(refused)? {
            self.note_pause(lasting, Some(by.uid), now);
        } else {
            self.end_term(now);
            self.let_pass(lasting, Some(by.uid), now)?;
        }
        self.note_by_hand(ByHand {
            detail: Some(format!("for {}", duration_text(lasting))),
            ..by.hand("pause", now)
        });
        tracing::warn!(
            uid = by.uid,
            pid = by.pid,
            lasting = duration_text(lasting),
            "paused: everything passes"
        );
        let notice = was_tried.then(|| "the policy that was tried is rolled back".to_owned());
        Ok(self.reloaded(Vec::new(), Vec::new(), notice.into_iter().collect(), now))
    }

    fn let_pass(&mut self, lasting: Duration, uid: Option<u32>, now: Now) -> Result<(), Refusal> {
        let mut policy = effective(&self.policy, &self.allow, &self.deny);
        policy.edge.enforce = false;
        (self.plane)
            .apply_for(&policy, lasting, Term::Paused)
            .map_err(refused)?;
        self.note_pause(lasting, uid, now);
        Ok(())
    }

    fn note_pause(&mut self, lasting: Duration, uid: Option<u32>, now: Now) {
        self.temporary = Some(Temporary {
            term: Term::Paused,
            until: now.after(lasting),
            uid,
            before: None,
            is_told: false,
        });
    }

    /// Ends a pause, or rolls a policy back that is tried, before its time.
    ///
    /// # Errors
    /// There is neither.
    pub fn resume(&mut self, by: By, now: Now) -> Result<Reloaded, Refusal> {
        if self.temporary.is_none() {
            let detail = "nothing is paused, and no policy awaits its confirmation";
            let help = "`limiter status` shows what is in force";
            return Err(Refusal::new(StatusCode::CONFLICT, detail, help));
        }
        tracing::info!(uid = by.uid, pid = by.pid, "resume");
        self.note_by_hand(by.hand("resume", now));
        self.end_term(now);
        if self.temporary.is_some() {
            let detail = "the policy of before is in force, without what was changed meanwhile";
            let help = "see the daemon's log; `limiter reload` puts the file in force";
            return Err(Refusal::new(StatusCode::CONFLICT, detail, help));
        }
        Ok(self.reloaded(Vec::new(), Vec::new(), Vec::new(), now))
    }

    /// How long it is until something in force ends.
    pub(super) fn term_ends_in(&self, now: Now) -> Option<Duration> {
        let temporary = self.temporary.as_ref().filter(|it| !it.is_told)?;
        let left = temporary.until.instant;
        Some(left.saturating_duration_since(now.instant))
    }

    /// Notes that what was in force for a time has ended.
    pub(super) fn note_end_of_term(&mut self, now: Now) {
        if self.temporary.is_none() {
            return;
        }
        match self.plane.term_left() {
            Ok(Some(_)) => {}
            Ok(None) => self.end_term(now),
            Err(error) => tracing::warn!(%error, "whether the term is over cannot be told"),
        }
    }

    /// Puts in force what is to be when a term has ended or is ended: the program may
    /// have gone back already, and knows nothing of what was changed since.
    fn end_term(&mut self, now: Now) {
        let Some(mut temporary) = self.temporary.take() else {
            return;
        };
        if let Some(before) = temporary.before.take() {
            self.allow.set_file(&before.policy.edge.allow);
            self.deny.set_file(&before.policy.edge.deny);
            self.policy = before.policy;
            self.rejected = Some(std::mem::replace(&mut self.text, before.text));
            self.load.error = Some(format!(
                "what {} says was not confirmed and is rolled back",
                self.config.display()
            ));
        }
        if !temporary.is_told {
            match temporary.term {
                Term::Unconfirmed => tracing::error!("policy not confirmed: rolled back"),
                Term::Paused => tracing::info!("the pause is over"),
            }
        }
        let policy = effective(&self.policy, &self.allow, &self.deny);
        if let Err(error) = self.plane.apply(&policy) {
            if !temporary.is_told {
                let error = in_full(&*error);
                tracing::error!(
                    error,
                    "the policy of before is in force without what was changed meanwhile; trying again"
                );
            }
            temporary.is_told = true;
            self.temporary = Some(temporary);
            return;
        }
        let mut notices = Vec::new();
        for interface in self.detach_others(&policy, &mut notices) {
            tracing::info!(interface, "detached: the policy does not name it");
        }
        for notice in notices {
            tracing::warn!("{notice}");
        }
        self.record_everything(now);
    }

    /// Whether what the program of the daemon before does is a pause.
    pub(super) fn is_still_paused(&self) -> bool {
        let left = self.plane.term_left();
        matches!(left, Ok(Some((Term::Paused, _))))
    }

    /// Goes on with what the daemon before had put in force for a time.
    pub(super) fn take_over_term(&mut self, now: Now) {
        match self.plane.term_before() {
            Some((Term::Paused, left)) => {
                if self.is_still_paused() {
                    self.note_pause(left, None, now);
                } else if let Err(refusal) = self.let_pass(left, None, now) {
                    tracing::error!(cause = refusal.detail, "the pause has ended");
                    return;
                }
                tracing::warn!("still paused: everything passes");
            }
            Some((Term::Unconfirmed, _)) if self.rejected.is_some() => {
                tracing::warn!("a policy was tried: the start has rolled it back");
            }
            Some((Term::Unconfirmed, _)) => {
                let error = "a policy was tried, and the start has put the file in force";
                tracing::error!("{error}");
                self.load.error = Some(error.to_owned());
            }
            None => {}
        }
    }

    /// The policy that is in force again unless the one of now is confirmed.
    pub(super) fn policy_before(&self) -> Option<&Policy> {
        let before = self.temporary.as_ref()?.before.as_ref()?;
        Some(&before.policy)
    }

    /// Why no policy can be loaded now.
    pub(super) fn check_settled(&self, now: Now) -> Result<(), Refusal> {
        let Some(row) = self.term_row(now) else {
            return Ok(());
        };
        if self.temporary.as_ref().is_some_and(|it| it.is_told) {
            // It is over, and what was to follow failed: a reload may help.
            return Ok(());
        }
        let left = duration_text(Duration::from_secs(row.remaining_seconds));
        let (detail, help) = match self.temporary.as_ref().map(|it| it.term) {
            Some(Term::Paused) => (
                format!("limiter is paused for another {left}"),
                "`limiter resume` first",
            ),
            _ => (
                format!("the policy in force awaits its confirmation for another {left}"),
                "`limiter confirm` it, or `limiter resume` the one of before, first",
            ),
        };
        Err(Refusal::new(StatusCode::CONFLICT, detail, help))
    }

    /// Refuses to put in force for good what was tried and not confirmed.
    pub(super) fn check_is_meant(&self, text: &str, by: By) -> Result<(), Refusal> {
        if by.is_forced || self.rejected.as_deref() != Some(text) {
            return Ok(());
        }
        let detail = format!(
            "what {} says was tried, not confirmed, and rolled back",
            self.config.display()
        );
        let help = "change it, try it again (--confirm), or repeat with --force";
        Err(Refusal::new(StatusCode::CONFLICT, detail, help))
    }

    /// Refuses to try what only a restart could take back.
    pub(super) fn check_can_be_tried(&self, policy: &Policy) -> Result<(), Refusal> {
        let (old, new) = (&self.policy, policy);
        let differs = [
            (
                "edge.ipv4_prefix",
                old.edge.ipv4_prefix != new.edge.ipv4_prefix,
            ),
            (
                "edge.ipv6_prefix",
                old.edge.ipv6_prefix != new.edge.ipv6_prefix,
            ),
            (
                "state.directory",
                old.state.directory != new.state.directory,
            ),
        ];
        let Some((key, _)) = differs.into_iter().find(|(_, differs)| *differs) else {
            return Ok(());
        };
        let detail = format!("{key} changed, which cannot be rolled back by itself");
        let help = "reload without --confirm, or leave it as it was";
        Err(Refusal::new(StatusCode::CONFLICT, detail, help))
    }

    /// Writes down that a policy is tried, so that a restart does not confirm it.
    pub(super) fn remember_trial(&self, tried: &str) -> Result<(), Refusal> {
        let trial = Unconfirmed {
            tried: tried.to_owned(),
            before: self.text.clone(),
        };
        trial
            .remember(&self.policy.state.directory)
            .map_err(|error| {
                let detail = format!(
                    "cannot write down in {} that the policy is tried, so that a restart would \
                     confirm it: {error}",
                    self.policy.state.directory.display()
                );
                let help = "mend that, or reload without --confirm";
                Refusal::new(StatusCode::CONFLICT, detail, help)
            })
    }

    /// Takes back that a policy is tried, which it is not after all; one that was before
    /// is not confirmed by that.
    pub(super) fn remember_no_trial(&mut self) {
        match self.rejected.clone() {
            Some(rejected) => {
                // It was written a moment ago.
                let _written = self.remember_trial(&rejected);
            }
            None => {
                let _forgotten = self.forget_trial();
            }
        }
    }

    /// Forgets what was tried: a restart puts in force what the file says. Returns what
    /// one should know if that fails.
    pub(super) fn forget_trial(&mut self) -> Option<String> {
        self.rejected = None;
        let directory = &self.policy.state.directory;
        let error = Unconfirmed::forget(directory).err()?;
        let directory = directory.display();
        Some(format!(
            "a restart would roll the policy back: remove unconfirmed.json in {directory} ({error})"
        ))
    }

    /// Notes that another policy is in force until it is confirmed.
    pub(super) fn note_trial(&mut self, before: Policy, text: String, until: Now, by: By) {
        self.temporary = Some(Temporary {
            term: Term::Unconfirmed,
            until,
            uid: Some(by.uid),
            before: Some(Before {
                policy: before,
                text,
            }),
            is_told: false,
        });
    }

    /// Whether drops are drops: the policy says so, and limiter is not paused.
    pub(super) fn is_enforced(&self) -> bool {
        let term = self.temporary.as_ref().map(|it| it.term);
        self.policy.edge.enforce && term != Some(Term::Paused)
    }

    /// What is in force for a time, in a word.
    pub(super) fn term_word(&self) -> Option<&'static str> {
        self.temporary.as_ref().map(|it| word(it.term))
    }

    /// What is in force for a time.
    pub(super) fn term_row(&self, now: Now) -> Option<TermRow> {
        let temporary = self.temporary.as_ref()?;
        Some(TermRow {
            term: word(temporary.term).to_owned(),
            until: timestamp(temporary.until.wall),
            remaining_seconds: seconds_left(self.term_ends_in(now).unwrap_or_default()),
            uid: temporary.uid,
        })
    }
}

const fn word(term: Term) -> &'static str {
    match term {
        Term::Unconfirmed => "unconfirmed",
        Term::Paused => "paused",
    }
}

fn nothing_to_confirm(term: Option<Term>) -> Refusal {
    let (detail, help) = match term {
        Some(_) => (
            "limiter is paused: there is no policy to confirm",
            "`limiter resume` ends the pause",
        ),
        None => (
            "no policy awaits its confirmation: its time may be over, and the one of before in force",
            "`limiter status` shows it; `limiter reload --confirm 60s` tries the file again",
        ),
    };
    Refusal::new(StatusCode::CONFLICT, detail, help)
}
