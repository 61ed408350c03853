//! Another policy takes the place of the one in force, or nothing changes.

use std::time::Duration;

use hyper::StatusCode;

use super::auditing::bounds;
use super::interfaces::{resolve, unknown};
use super::list_files::losses;
use super::places;
use super::restore::effective;
use super::rules::changes_of_rules;
use super::show::mode_name;
use super::{By, Keeper, Now, in_full, refused, unreadable};
use crate::control::api::{DiagnosticRow, Refusal, Reloaded};
use crate::dataplane::model::{AttachedMode, Attachment, Term};
use crate::policy::{
    Diagnostic, Loaded, Mode, Policy, PolicyError, Severity, escape, units::duration_text,
};
use crate::store::audit::ByHand;

impl Keeper {
    /// Puts a policy that was read from the file in force, or keeps the old
    /// one and says why.
    ///
    /// # Errors
    /// The file has errors, an interface is not known or cannot be attached
    /// to, or the policy does not fit or would cut an SSH connection off: the old
    /// one stays in force.
    pub fn reload(
        &mut self,
        loaded: Result<Loaded, PolicyError>,
        by: By,
        now: Now,
    ) -> Result<Reloaded, Refusal> {
        self.load(loaded, None, by, now)
    }

    /// The same, for `lasting` or for good.
    pub(super) fn load(
        &mut self,
        loaded: Result<Loaded, PolicyError>,
        lasting: Option<Duration>,
        by: By,
        now: Now,
    ) -> Result<Reloaded, Refusal> {
        let outcome = match loaded {
            Ok(loaded) => self.adopt(loaded, lasting, by, now).map_err(old_stays),
            Err(error) => Err(invalid(&error)),
        };
        match &outcome {
            Ok(reloaded) => {
                // Blocks may have ended with their limits, or with a dry run.
                self.record_everything(now);
                self.load.succeeded = now.wall;
                self.load.error = None;
                let confirm = lasting.map(|it| format!("confirm within {}", duration_text(it)));
                self.note_by_hand(ByHand {
                    subject: Some(self.config.display().to_string()),
                    detail: confirm,
                    ..by.hand("reload", now)
                });
                tracing::info!(
                    uid = by.uid,
                    pid = by.pid,
                    limits = reloaded.limits,
                    rules = reloaded.rules,
                    confirm_within = lasting.map(duration_text),
                    "policy reloaded"
                );
                for notice in &reloaded.notices {
                    tracing::warn!("{notice}");
                }
                for warning in &reloaded.warnings {
                    tracing::warn!("{}", in_one_line(warning));
                }
            }
            Err(refusal) => {
                self.load.error = Some(refusal.detail.clone());
                tracing::error!(
                    uid = by.uid,
                    pid = by.pid,
                    reason = refusal.detail,
                    "policy not reloaded: the old one stays in force"
                );
                for diagnostic in &refusal.diagnostics {
                    tracing::error!("{}", in_one_line(diagnostic));
                }
            }
        }
        outcome
    }

    fn adopt(
        &mut self,
        loaded: Loaded,
        lasting: Option<Duration>,
        by: By,
        now: Now,
    ) -> Result<Reloaded, Refusal> {
        let Loaded {
            policy,
            warnings,
            text,
        } = loaded;
        self.check_settled(now)?;
        if policy.edge.interfaces.is_empty() && !self.policy.edge.interfaces.is_empty() {
            return Err(half_written());
        }
        let mut notices = fixed(&self.policy, &policy);
        notices.extend(changes_of_rules(&self.policy, &policy));
        let lists = self.lists();
        let present = (self.interfaces)().map_err(|error| unreadable(error.into()))?;
        self.note_changes(&present, now);
        notices.extend(self.cut_by_policy(&policy, &present, by)?);
        let attached = match lasting {
            None => {
                self.check_is_meant(&text, by)?;
                self.attach_new(&policy, &mut notices)?
            }
            Some(_) => {
                self.check_can_be_tried(&policy)?;
                let (names, _) = self.check_interfaces(&policy, &mut notices)?;
                notices.extend(self.waiting_for_confirmation(&policy, &names));
                if bounds(&policy) != bounds(&self.policy) {
                    let notice = "what the audit log is not to keep any more is deleted when \
                                  `limiter confirm` comes";
                    notices.push(notice.to_owned());
                }
                self.remember_trial(&text)?;
                Vec::new()
            }
        };
        // The data plane switches limits and lists at once, so that it gets
        // the run-time entries as if the file had them.
        let effective_policy = effective(&policy, &self.allow, &self.deny);
        let applied = match lasting {
            None => self.plane.apply(&effective_policy),
            Some(lasting) => (self.plane).apply_for(&effective_policy, lasting, Term::Unconfirmed),
        };
        if let Err(error) = applied {
            self.undo(&attached);
            if lasting.is_some() {
                self.remember_no_trial();
            }
            return Err(refused(error));
        }
        self.allow.set_file(&policy.edge.allow);
        self.deny.set_file(&policy.edge.deny);
        let policy = keep_fixed(&self.policy, policy);
        let before = std::mem::replace(&mut self.policy, policy.clone());
        let text = std::mem::replace(&mut self.text, text);
        let detached = match lasting {
            None => {
                self.temporary = None;
                self.keep_audit();
                notices.extend(self.forget_trial());
                let detached = self.detach_others(&policy, &mut notices);
                self.settle_links();
                detached
            }
            Some(lasting) => {
                self.note_trial(before, text, now.after(lasting), by);
                Vec::new()
            }
        };
        notices.extend(losses(&lists, &self.lists()));
        Ok(Reloaded {
            warnings: warnings.iter().map(diagnostic_row).collect(),
            ..self.reloaded(attached, detached, notices, now)
        })
    }

    /// The answer of whoever has put a policy in force.
    pub(super) fn reloaded(
        &self,
        attached: Vec<String>,
        detached: Vec<String>,
        notices: Vec<String>,
        now: Now,
    ) -> Reloaded {
        Reloaded {
            limits: self.policy.edge.limits.len() as u64,
            rules: self.rule_names().count() as u64,
            attached,
            detached,
            notices,
            warnings: Vec::new(),
            term: self.term_row(now),
        }
    }

    /// Only what is missed is expected to get the program from now on.
    pub(super) fn settle_links(&mut self) {
        let patterns = &self.policy.edge.interfaces;
        let there = self.attached_names();
        self.links
            .settle(|name| names(patterns, name) && !there.iter().any(|it| it == name));
    }

    /// The interfaces that a policy which is tried does not come to, and does not leave:
    /// that could not be rolled back.
    fn waiting_for_confirmation(&self, policy: &Policy, names: &[String]) -> Vec<String> {
        let (meant, attached) = (self.meant(policy), self.attached_names());
        let new = names.iter().filter(|name| !attached.contains(name));
        let new = new.map(|name| format!("{name} is attached to when `limiter confirm` comes"));
        let gone = attached.iter().filter(|name| !meant.contains(name));
        let gone = gone.map(|name| format!("{name} stays attached until `limiter confirm`"));
        new.chain(gone).collect()
    }

    /// Refuses a policy that cuts SSH connections off; by force, says so.
    fn cut_by_policy(
        &self,
        policy: &Policy,
        present: &[super::Present],
        by: By,
    ) -> Result<Vec<String>, Refusal> {
        let mut guarded = self.guarded(Some(by), Some(policy));
        let attached = self.attached_names();
        let named = resolve(&policy.edge.interfaces, present).names;
        if named.iter().any(|name| !attached.contains(name)) {
            guarded = guarded.somewhere_new();
        }
        let after = guarded.rules_of(policy, &self.allow, &self.deny);
        guarded.check(&after)
    }

    /// Attaches to what the policy names, puts it in force where it `is_in_force` not
    /// yet, and detaches from all else: over what another daemon left, a start is a
    /// reload.
    ///
    /// # Errors
    /// Those of [`Keeper::reload`].
    pub fn start(&mut self, is_in_force: bool, now: Now) -> Result<Vec<String>, Refusal> {
        let policy = self.policy.clone();
        let mut notices = Vec::new();
        let attached = self.attach_new(&policy, &mut notices)?;
        let effective_policy = effective(&policy, &self.allow, &self.deny);
        // Nor is one put in force whose turn comes after a pause.
        let is_in_force = is_in_force || self.is_still_paused();
        let begun = self.plane.take_over().and_then(|()| match is_in_force {
            true => Ok(()),
            false => self.plane.apply(&effective_policy),
        });
        if let Err(error) = begun {
            self.undo(&attached);
            return Err(refused(error));
        }
        self.take_over_term(now);
        self.keep_audit();
        // Blocks may have ended with their limits.
        self.record_everything(now);
        for interface in self.detach_others(&policy, &mut notices) {
            tracing::info!(interface, "detached: the policy does not name it any more");
        }
        // Not to start would leave the host without any protection.
        notices.extend(self.already_cut_off());
        for notice in notices {
            tracing::warn!("{notice}");
        }
        let attached = self.plane.attachments().into_iter();
        Ok(attached.map(|attached| attached.interface).collect())
    }

    /// Attaches to what the policy names, all or none.
    ///
    /// # Errors
    /// A name is not known or an interface cannot be attached to; those that
    /// were attached to before are as they were.
    pub(super) fn attach_new(
        &mut self,
        policy: &Policy,
        notices: &mut Vec<String>,
    ) -> Result<Vec<String>, Refusal> {
        let (names, present) = self.check_interfaces(policy, notices)?;
        self.attach_all(names, &present, policy.edge.mode, notices)
    }

    /// The interfaces that there are of those that a policy means, and all there are.
    ///
    /// # Errors
    /// A name is not known, or the program cannot sit on one.
    fn check_interfaces(
        &self,
        policy: &Policy,
        notices: &mut Vec<String>,
    ) -> Result<(Vec<String>, Vec<super::Present>), Refusal> {
        let present = (self.interfaces)().map_err(|error| unreadable(error.into()))?;
        let mut resolved = resolve(&policy.edge.interfaces, &present);
        // What was there once comes back, and is attached to then; it may have gone
        // this very moment.
        let attached = self.attached_names();
        resolved.unknown.retain(|name| {
            let is_known =
                self.links.knows(name) || self.plane.knows(name) || attached.contains(name);
            if is_known {
                notices.push(missed(name));
            }
            !is_known
        });
        if !resolved.unknown.is_empty() {
            let detail = unknown(&resolved.unknown, &present);
            let help = "mend the name, or write a glob, which may match nothing";
            return Err(Refusal::new(StatusCode::CONFLICT, detail, help));
        }
        let index_of = |name: &str| present.iter().find(|i| i.name == name).map(|i| i.index);
        for name in &resolved.names {
            match self.plane.mtu(name) {
                Ok(mtu) => fits(policy, name, mtu)?,
                Err(_) if self.has_vanished(index_of(name)) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        notices.extend(resolved.notices);
        match self.plane.links() {
            Ok(links) => notices.extend(places::check(&resolved.names, &links)?),
            Err(error) => notices.push(format!(
                "bonds and VLANs are not recognised, as the kernel does not tell: {}",
                in_full(&*error)
            )),
        }
        Ok((resolved.names, present))
    }

    fn attach_all(
        &mut self,
        names: Vec<String>,
        present: &[super::Present],
        mode: Mode,
        notices: &mut Vec<String>,
    ) -> Result<Vec<String>, Refusal> {
        let index_of = |name: &str| present.iter().find(|i| i.name == name).map(|i| i.index);
        let mut done = Vec::new();
        for name in names {
            let old = self.plane.attachments();
            let old = old.iter().find(|attached| attached.interface == name);
            if let Some(old) = old {
                if index_of(&name) == Some(old.index) {
                    notices.extend(other_mode(old, mode));
                    continue;
                }
                // An interface of this name was removed, and the program with
                // it; what has the name now is another one.
                if let Err(error) = self.plane.detach(&name) {
                    tracing::debug!(%error, interface = name, "forgetting a vanished interface");
                }
            }
            match self.plane.attach(&name, mode) {
                Ok(attached) => {
                    let mode = mode_name(attached.mode);
                    tracing::info!(interface = name, mode, "attached");
                    if let Some(cause) = attached.fallback {
                        notices.push(format!("{name}: attached in generic mode: {cause}"));
                    }
                    done.push(name);
                }
                // The follower has not heard of it yet.
                Err(_) if self.has_vanished(index_of(&name)) => notices.push(missed(&name)),
                Err(error) => {
                    self.undo(&done);
                    return Err(refused(error).at(format!("interface {name}")));
                }
            }
        }
        Ok(done)
    }

    fn undo(&mut self, attached: &[String]) {
        for name in attached {
            if let Err(error) = self.plane.detach(name) {
                let error = in_full(&*error);
                tracing::error!(error, interface = name, "cannot detach again");
            }
        }
    }

    pub(super) fn detach_others(
        &mut self,
        policy: &Policy,
        notices: &mut Vec<String>,
    ) -> Vec<String> {
        let kept = self.meant(policy);
        let mut detached = Vec::new();
        for name in self.attached_names() {
            if kept.contains(&name) {
                continue;
            }
            match self.plane.detach(&name) {
                Ok(()) => detached.push(name),
                Err(error) => {
                    let error = in_full(&*error);
                    notices.push(format!("{name}: cannot be detached: {error}"));
                }
            }
        }
        detached
    }

    /// The interfaces that the program sits on and a policy means.
    fn meant(&self, policy: &Policy) -> Vec<String> {
        let attached = self.plane.attachments().into_iter();
        let as_present: Vec<super::Present> = attached
            .map(|attached| super::Present {
                name: attached.interface,
                index: attached.index,
                is_up: true,
            })
            .collect();
        resolve(&policy.edge.interfaces, &as_present).names
    }
}

fn missed(name: &str) -> String {
    format!("{name} is missing: it is attached to when it is there")
}

/// Whether names and globs of a policy mean this interface.
fn names(patterns: &[String], name: &str) -> bool {
    let there = [super::Present {
        name: name.to_owned(),
        index: 0,
        is_up: true,
    }];
    !resolve(patterns, &there).names.is_empty()
}

/// Says so where the program sits otherwise than it was to: it stays there.
fn other_mode(attached: &Attachment, wanted: Mode) -> Option<String> {
    let is_right = match wanted {
        Mode::Auto => true,
        Mode::Native => attached.mode == AttachedMode::Native,
        Mode::Generic => attached.mode == AttachedMode::Generic,
    };
    let name = &attached.interface;
    (!is_right).then(|| {
        format!(
            "{name} stays attached in {} mode, which is not that of edge.mode; `limiter detach {name}`, \
             then `limiter reload` attaches it anew (its packets pass unfiltered in between)",
            mode_name(attached.mode)
        )
    })
}

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: u64 = 14;

/// Refuses a byte burst that the largest frame of an interface does not fit
/// in: such frames would never pass.
pub(crate) fn fits(policy: &Policy, interface: &str, mtu: u32) -> Result<(), Refusal> {
    let largest = u64::from(mtu) + ETHERNET_BYTES;
    for limit in &policy.edge.limits {
        if let Some(bytes) = limit.bytes
            && bytes.burst < largest
        {
            let detail = format!(
                "limit `{}` has a byte burst of {}, and interface `{interface}` carries frames of \
                 {largest} bytes (its MTU is {mtu}), which would never pass",
                limit.name, bytes.burst
            );
            let help = format!(
                "raise bytes.burst to {largest} or more, or lower the MTU \
                 (`ip link set {interface} mtu 1500`)"
            );
            return Err(Refusal::new(StatusCode::CONFLICT, detail, help));
        }
    }
    Ok(())
}

/// What differs and cannot change while the daemon runs.
fn fixed(old: &Policy, new: &Policy) -> Vec<String> {
    let differs = [
        ("edge.tables", old.edge.tables != new.edge.tables),
        ("edge.sources", old.edge.sources != new.edge.sources),
        ("metrics.listen", old.metrics != new.metrics),
        ("control", old.control != new.control),
        (
            "state.directory",
            old.state.directory != new.state.directory,
        ),
    ];
    let differs = differs.into_iter().chain(fixed_of_rules(old, new));
    let mut notices: Vec<String> = differs
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| format!("{key} changed, which takes effect when the daemon is restarted"))
        .collect();
    if old.state.pins != new.state.pins {
        notices.push(format!(
            "state.pins changed, which takes effect when the daemon is stopped, \
             `limiter detach --pins {}` run, and the daemon started",
            old.state.pins.display()
        ));
    }
    notices
}

/// The sockets for events, which are made at the start.
fn fixed_of_rules(old: &Policy, new: &Policy) -> Vec<(&'static str, bool)> {
    let Some(new) = &new.decide else {
        return Vec::new();
    };
    let Some(old) = &old.decide else {
        return vec![("where events come in ([decide])", true)];
    };
    vec![
        ("decide.listen", old.listen != new.listen),
        ("decide.spoe", old.spoe != new.spoe),
        ("decide.api", old.api != new.api),
        ("decide.group", old.group != new.group),
        ("decide.feedback", old.feedback != new.feedback),
    ]
}

/// What stays as it was although the file says otherwise, so that the next
/// reload says so again.
fn keep_fixed(old: &Policy, new: Policy) -> Policy {
    let mut in_force = new;
    in_force.edge.tables = old.edge.tables.clone();
    in_force.edge.sources = old.edge.sources;
    in_force.metrics = old.metrics.clone();
    in_force.control = old.control.clone();
    in_force.state.pins.clone_from(&old.state.pins);
    in_force.state.directory.clone_from(&old.state.directory);
    in_force
}

/// A file that is read while an editor rewrites it is short or empty, and
/// valid. Nobody stops the protection that way on purpose.
fn half_written() -> Refusal {
    let detail = "the policy names no interfaces, and the one in force does: \
                  it looks as if the file was read while it was being written";
    let help = "reload again once it is whole, or `limiter detach` to let go of the interfaces";
    Refusal::new(StatusCode::CONFLICT, detail, help)
}

/// Says so where the policy is right and cannot be put in force.
fn old_stays(mut refusal: Refusal) -> Refusal {
    if !refusal.help.is_empty() {
        refusal.help.push_str("; ");
    }
    refusal.help.push_str("the old policy stays in force");
    refusal
}

/// The answer to a policy with errors.
#[must_use]
fn invalid(error: &PolicyError) -> Refusal {
    let errors = error.diagnostics.iter();
    let errors = errors.filter(|d| d.severity == Severity::Error).count();
    let first = error.diagnostics.first();
    let first = first.map(|first| format!("{}: {}", first.file, first.message));
    let detail = match errors {
        0 | 1 => format!("the policy has an error: {}", first.unwrap_or_default()),
        _ => format!(
            "the policy has {errors} errors, first {}",
            first.unwrap_or_default()
        ),
    };
    let help = "mend the file (`limiter check FILE`), then reload; the old policy stays in force";
    let mut refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, detail, help);
    refusal.diagnostics = error.diagnostics.iter().map(diagnostic_row).collect();
    refusal
}

/// A diagnostic for the log: where, what, and what to do.
pub(crate) fn in_one_line(row: &DiagnosticRow) -> String {
    let place = match (row.line, row.column) {
        (Some(line), Some(column)) => format!(":{line}:{column}"),
        _ => String::new(),
    };
    let help = if row.help.is_empty() { "" } else { "; " };
    escape(&format!(
        "{}{place}: {}{help}{}",
        row.file, row.message, row.help
    ))
}

/// A diagnostic as it goes over the socket.
#[must_use]
pub(crate) fn diagnostic_row(diagnostic: &Diagnostic) -> DiagnosticRow {
    DiagnosticRow {
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
        .to_owned(),
        file: diagnostic.file.clone(),
        line: diagnostic.position.map(|position| position.line),
        column: diagnostic.position.map(|position| position.column),
        message: diagnostic.message.clone(),
        help: diagnostic.help.clone(),
        text: diagnostic.to_string(),
    }
}
