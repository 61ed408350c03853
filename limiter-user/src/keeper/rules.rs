//! The rules at work: what the worker is told of them, and what is done to them by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::StatusCode;

use super::{By, Keeper, Now};
use crate::control::api::{Changed, Refusal, WorkerRow};
use crate::engine::Mode;
use crate::policy::Rule;
use crate::store::audit::ByHand;
use crate::worker::message::Rules;
use crate::worker::{Room, Worker};

/// The rules' side of the keeper.
#[derive(Default)]
pub(super) struct AtWork {
    /// Who hears events; `None` before it is started.
    pub(super) worker: Option<Worker>,
    /// Rules that somebody has switched.
    pub(super) modes: BTreeMap<String, Mode>,
    /// Blocks of rules that found no room, or were refused.
    pub(super) refused: u64,
}

impl Keeper {
    /// Says who hears events, and what the rules are.
    pub fn set_worker(&mut self, worker: Worker) {
        self.rules.worker = Some(worker);
        self.tell_rules();
    }

    /// Tells the worker what the rules are, if it does not know it yet.
    pub(super) fn tell_rules(&mut self) {
        let Some(worker) = self.rules.worker.clone() else {
            return;
        };
        let pages = self.policy.decide.as_ref().map(|it| it.pages.clone());
        let rules = Rules {
            text: self.text.clone(),
            is_enforced: self.term_word() != Some("paused"),
            modes: self.rules.modes.clone(),
            pages: pages.unwrap_or_default(),
        };
        if worker.knows(&rules) {
            return;
        }
        let decide = self.policy.decide.iter();
        let logs = decide.clone().flat_map(|decide| &decide.logs);
        let logs: Vec<PathBuf> = logs.map(|log| log.path.clone()).collect();
        let rows = decide.flat_map(|decide| &decide.rules);
        let room = |rule: &Rule| Room {
            keys: rule.tracked as usize,
            blocks: rule.tracked.max(rule.blocked) as usize,
        };
        let most = rows.map(|rule| (rule.name.clone(), room(rule)));
        worker.follow(rules, logs, most.collect());
        self.judge_held_blocks(Now::read());
    }

    /// Switches a rule until it is switched again or the daemon ends.
    ///
    /// # Errors
    /// There is no such rule.
    pub fn switch_rule(&mut self, name: &str, mode: Mode, by: By) -> Result<Changed, Refusal> {
        if self.rule(name).is_none() {
            let names: Vec<&str> = self.rule_names().collect();
            let help = match names.as_slice() {
                [] => "the policy has none".to_owned(),
                names => format!("the policy has: {}", names.join(", ")),
            };
            let detail = format!("there is no rule `{name}`");
            return Err(Refusal::new(StatusCode::NOT_FOUND, detail, help));
        }
        match mode {
            Mode::On => self.rules.modes.remove(name),
            other => self.rules.modes.insert(name.to_owned(), other),
        };
        tracing::info!(
            uid = by.uid,
            pid = by.pid,
            rule = name,
            ?mode,
            "rule switched"
        );
        self.tell_rules();
        Ok(Changed {
            changed: 1,
            ..Changed::default()
        })
    }

    /// How the process fares that hears events.
    pub(super) fn worker_row(&self) -> WorkerRow {
        let health = self.rules.worker.as_ref().map(Worker::health);
        let health = health.unwrap_or_default();
        WorkerRow {
            pid: health.pid,
            restarts: health.restarts,
            last_end: health.last_end,
        }
    }

    /// The rules that somebody has switched, with the words for how.
    pub(super) fn switched(&self) -> BTreeMap<String, String> {
        let modes = self.rules.modes.iter();
        modes
            .map(|(rule, mode)| (rule.clone(), mode.name().to_owned()))
            .collect()
    }

    /// Who hears events.
    #[must_use]
    pub fn worker(&self) -> Option<Worker> {
        self.rules.worker.clone()
    }

    /// Writes down who has released an account, and why.
    pub fn note_unlocked(&self, account: String, rules: &[String], reason: String, by: By) {
        let rules = rules.join(" ");
        tracing::info!(
            uid = by.uid,
            pid = by.pid,
            rules,
            reason,
            "account unlocked"
        );
        self.note_by_hand(ByHand {
            account: Some(account),
            detail: Some(rules),
            reason: Some(reason),
            ..by.hand("account unlock", Now::read())
        });
    }

    /// Writes down who had rules drop what they held against a source that was not blocked
    /// at the NIC.
    pub fn note_released(&self, network: String, rules: &[String], by: By, now: Now) {
        self.note_by_hand(ByHand {
            subject: Some(network),
            detail: Some(rules.join(" ")),
            ..by.hand("block del", now)
        });
    }

    pub(super) fn rule(&self, name: &str) -> Option<&Rule> {
        let decide = self.policy.decide.as_ref()?;
        decide.rules.iter().find(|rule| rule.name == name)
    }

    pub(super) fn rule_names(&self) -> impl Iterator<Item = &str> {
        let decide = self.policy.decide.iter();
        let rules = decide.flat_map(|decide| &decide.rules);
        rules.map(|rule| rule.name.as_str())
    }
}
