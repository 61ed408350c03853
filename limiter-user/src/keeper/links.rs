//! Interfaces are followed: the program goes to those that the policy means
//! whenever they are there, and what is not as it should be is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use super::interfaces::{Present, is_glob, resolve};
use super::reload::fits;
use super::show::mode_name;
use super::{Keeper, Now, PlaneError, in_full, timestamp};
use crate::control::api::InterfaceRow;
use crate::dataplane::model::Attachment;
use crate::policy::Mode;

/// Interfaces that the program is put on in one go; the others wait for the
/// next tick, and orders come between.
const AT_ONCE: usize = 16;

/// How long to wait before attaching is tried for the second time; twice as
/// long before each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest wait.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// For how long an interface that only a glob means is missed.
const MISSED: Duration = Duration::from_hours(1);

/// The state of an interface that the operator, or somebody else, let go of.
pub(super) const DETACHED: &str = "detached";

/// What the keeper knows of interfaces beside where the program sits.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Meant by the policy and without the program, by name.
    absent: BTreeMap<String, Absent>,
    /// Let go of by the operator or somebody else, until a reload; with the mode of before.
    released: BTreeMap<String, String>,
    /// The operator let go of all, of those to come too.
    all_released: bool,
    /// Down, by index, and since when.
    down: BTreeMap<u32, SystemTime>,
    /// Interfaces that come and go are followed: the start is over.
    is_following: bool,
    /// Some had to wait for the next go.
    are_left: bool,
}

#[derive(Clone, Debug)]
struct Absent {
    since: Now,
    /// In which the program sat, or will be tried first.
    mode: String,
    failure: Option<Failure>,
}

/// The interface is there and cannot be attached to.
#[derive(Clone, Debug)]
struct Failure {
    cause: String,
    again: Instant,
    wait: Duration,
}

impl Links {
    fn is_released(&self, name: &str) -> bool {
        self.all_released || self.released.contains_key(name)
    }

    fn miss(&mut self, name: &str, mode: &str, now: Now) {
        let absent = self.absent.entry(name.to_owned()).or_insert_with(|| {
            tracing::warn!(interface = name, "interface is missing");
            Absent {
                since: now,
                mode: mode.to_owned(),
                failure: None,
            }
        });
        absent.failure = None;
    }

    fn fail(&mut self, name: &str, mode: &str, cause: String, now: Now) {
        let absent = self.absent.entry(name.to_owned()).or_insert(Absent {
            since: now,
            mode: mode.to_owned(),
            failure: None,
        });
        let before = absent.failure.take();
        if before.as_ref().is_none_or(|before| before.cause != cause) {
            tracing::error!(interface = name, cause, "interface cannot be attached to");
        }
        let wait = before.map_or(FIRST_RETRY, |before| (before.wait * 2).min(LAST_RETRY));
        absent.failure = Some(Failure {
            cause,
            again: now.instant + wait,
            wait,
        });
    }

    /// Whether it was there once.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.absent.contains_key(name) || self.released.contains_key(name)
    }

    fn is_waiting(&self, name: &str, now: Now) -> bool {
        let failure = self.absent.get(name).and_then(|it| it.failure.as_ref());
        failure.is_some_and(|failure| now.instant < failure.again)
    }

    /// Whether something is due without any news of the kernel's.
    fn are_due(&self, now: Now) -> bool {
        let mut failures = self.absent.values().filter_map(|it| it.failure.as_ref());
        self.are_left || failures.any(|failure| now.instant >= failure.again)
    }

    /// The operator let go of these, or of all.
    pub(super) fn release(&mut self, rows: Vec<InterfaceRow>, all: bool) {
        for row in rows {
            self.absent.remove(&row.interface);
            self.released.insert(row.interface, row.mode);
        }
        self.all_released |= all;
    }

    /// After a reload or a confirmation: only what is missed is expected to get the program.
    pub(super) fn settle(&mut self, is_missed: impl Fn(&str) -> bool) {
        self.released.clear();
        self.all_released = false;
        self.absent.retain(|name, _| is_missed(name));
    }

    /// Forgets what only a glob means, after a while, and beyond a bound.
    fn forget(&mut self, is_named: impl Fn(&str) -> bool, capacity: usize, now: Now) {
        let age = |it: &Absent| now.instant.saturating_duration_since(it.since.instant);
        self.absent
            .retain(|name, it| is_named(name) || it.failure.is_some() || age(it) < MISSED);
        while self.absent.len() > capacity {
            let oldest = self.absent.iter().filter(|(name, _)| !is_named(name));
            let oldest = oldest.min_by_key(|(_, it)| it.since.instant);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.absent.remove(&name);
        }
    }
}

impl Keeper {
    /// Compares the interfaces that there are with those that the policy means
    /// and those that the program sits on: what vanished is missed, what came
    /// back or is new is attached to, what was renamed keeps the program.
    ///
    /// Called when the kernel says that an interface has changed, about once a
    /// second at most.
    pub fn follow_interfaces(&mut self, now: Now) {
        self.links.is_following = true;
        match (self.interfaces)() {
            Ok(present) => {
                self.note_changes(&present, now);
                self.attach_to_meant(&present, now);
            }
            Err(error) => tracing::warn!(%error, "interfaces are not followed"),
        }
    }

    /// Tries again what failed, when it is due.
    pub(super) fn retry_interfaces(&mut self, now: Now) {
        if self.links.is_following && self.links.are_due(now) {
            self.follow_interfaces(now);
        }
    }

    /// Notes where somebody else has taken the program off. They will have had a reason.
    pub(super) fn note_taken_off(&mut self) {
        let gone = match self.plane.forget_detached() {
            Ok(gone) => gone,
            Err(error) => {
                let error = in_full(&*error);
                tracing::debug!(error, "whether the program is attached cannot be told");
                return;
            }
        };
        for Attachment {
            interface, mode, ..
        } in gone
        {
            tracing::error!(
                interface,
                "somebody else has taken the program off; `limiter reload` puts it there again"
            );
            let mode = mode_name(mode).to_owned();
            self.links.released.insert(interface, mode);
        }
    }

    /// Notes which interfaces that the program sits on vanished, have another
    /// name, or are down.
    pub(super) fn note_changes(&mut self, present: &[Present], now: Now) {
        let mut renamed = Vec::new();
        let attached = self.plane.attachments();
        self.links
            .down
            .retain(|index, _| attached.iter().any(|it| it.index == *index));
        for attachment in attached {
            match present.iter().find(|it| it.index == attachment.index) {
                None => self.lose(&attachment, now),
                Some(there) => {
                    self.note_carrier(there, now);
                    if there.name != attachment.interface {
                        renamed.push((attachment.interface, there));
                    }
                }
            }
        }
        for (old, there) in renamed {
            let (index, new) = (there.index, &there.name);
            match self.plane.rename(index, new) {
                Ok(()) => {
                    tracing::info!(interface = new, old, "interface renamed");
                    self.links.absent.remove(new);
                }
                Err(error) => {
                    let error = in_full(&*error);
                    tracing::warn!(error, interface = new, old, "counted under the old name");
                }
            }
        }
    }

    fn note_carrier(&mut self, there: &Present, now: Now) {
        let (index, name) = (there.index, &there.name);
        let was_up = !self.links.down.contains_key(&index);
        if was_up == there.is_up {
            return;
        }
        if there.is_up {
            tracing::info!(interface = name, "interface is up");
            self.links.down.remove(&index);
        } else {
            tracing::warn!(interface = name, "interface is down");
            self.links.down.insert(index, now.wall);
        }
    }

    /// The interface has gone, and the program with it.
    fn lose(&mut self, attachment: &Attachment, now: Now) {
        let name = &attachment.interface;
        if let Err(error) = self.plane.detach(name) {
            let error = in_full(&*error);
            tracing::debug!(error, interface = name, "forgetting a vanished interface");
        }
        self.links.miss(name, mode_name(attachment.mode), now);
    }

    /// Puts the program on what the policy means and the operator did not let
    /// go of.
    pub(super) fn attach_to_meant(&mut self, present: &[Present], now: Now) {
        // What is tried comes nowhere: that would not be rolled back.
        let edge = &self.policy_before().unwrap_or(&self.policy).edge;
        let (mode, patterns) = (edge.mode, edge.interfaces.clone());
        let capacity = edge.tables.interfaces as usize;
        let resolved = resolve(&patterns, present);
        let wanted = match mode {
            Mode::Generic => "generic",
            Mode::Auto | Mode::Native => "native",
        };
        for name in resolved.unknown {
            if !self.links.is_released(&name) {
                self.links.miss(&name, wanted, now);
            }
        }
        // What failed and has vanished since is no failure any more.
        self.links.absent.retain(|name, it| {
            it.failure.is_none() || present.iter().any(|there| there.name == *name)
        });
        let attached: BTreeSet<String> = self.attached_names().into_iter().collect();
        self.links.are_left = false;
        let mut tried = 0;
        for name in resolved.names {
            if attached.contains(&name) {
                self.links.absent.remove(&name);
                continue;
            }
            if self.links.is_released(&name) || self.links.is_waiting(&name, now) {
                continue;
            }
            if tried == AT_ONCE {
                self.links.are_left = true;
                break;
            }
            tried += 1;
            match self.attach_fitting(&name, mode) {
                Ok(attachment) => {
                    let mode = mode_name(attachment.mode);
                    let cause = attachment.fallback.unwrap_or_default();
                    tracing::info!(interface = name, mode, cause, "attached");
                    self.links.absent.remove(&name);
                }
                Err(cause) => self.links.fail(&name, wanted, cause, now),
            }
        }
        let is_named = |name: &str| patterns.iter().any(|it| it == name && !is_glob(it));
        self.links.forget(is_named, capacity, now);
    }

    fn attach_fitting(&mut self, name: &str, mode: Mode) -> Result<Attachment, String> {
        let words = |error: PlaneError| in_full(&*error);
        let mtu = self.plane.mtu(name).map_err(words)?;
        fits(&self.policy, name, mtu).map_err(|refusal| refusal.detail)?;
        self.plane.attach(name, mode).map_err(words)
    }

    /// Whether an interface vanished while it was dealt with; another one may
    /// have its name.
    pub(super) fn has_vanished(&self, index: Option<u32>) -> bool {
        let present = (self.interfaces)();
        self.links.is_following
            && present.is_ok_and(|present| !present.iter().any(|it| Some(it.index) == index))
    }

    pub(super) fn attached_names(&self) -> Vec<String> {
        let attached = self.plane.attachments().into_iter();
        attached.map(|it| it.interface).collect()
    }

    /// How things stand with every interface that the program sits on or
    /// should sit on.
    pub(super) fn rows_of_interfaces(&self, present: &[Present]) -> Vec<InterfaceRow> {
        let mut rows: Vec<InterfaceRow> = Vec::new();
        for attached in self.plane.attachments() {
            let there = present.iter().find(|it| it.index == attached.index);
            let (state, since) = match there {
                None => ("missing", None),
                Some(there) if there.is_up => ("attached", None),
                Some(_) => ("down", self.links.down.get(&attached.index)),
            };
            rows.push(InterfaceRow {
                present: there.is_some(),
                interface: attached.interface,
                index: attached.index,
                mode: mode_name(attached.mode).to_owned(),
                fallback: attached.fallback,
                state: state.to_owned(),
                since: since.map(|since| timestamp(*since)),
                cause: None,
            });
        }
        let row = |name: &str, mode: &str, state: &str| InterfaceRow {
            interface: name.to_owned(),
            index: 0,
            mode: mode.to_owned(),
            fallback: None,
            present: present.iter().any(|it| it.name == name),
            state: state.to_owned(),
            since: None,
            cause: None,
        };
        for (name, absent) in &self.links.absent {
            let cause = absent.failure.as_ref().map(|it| it.cause.clone());
            let state = if cause.is_some() { "failed" } else { "missing" };
            rows.push(InterfaceRow {
                cause,
                since: Some(timestamp(absent.since.wall)),
                ..row(name, &absent.mode, state)
            });
        }
        let released = self.links.released.iter();
        rows.extend(released.map(|(name, mode)| row(name, mode, DETACHED)));
        rows
    }
}

#[cfg(test)]
mod tests;
