//! The rules at work: what the worker is told of them, and what is done to them by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::StatusCode;

use super::{By, Keeper, Now, unix_nanos};
use crate::challenge::Keys;
use crate::control::api::{Changed, Refusal, WorkerRow};
use crate::engine::{Continuity, Mode, Prefixes};
use crate::notify::Notifier;
use crate::policy::{KeyPart, Policy, Rule};
use crate::store::audit::ByHand;
use crate::store::{CHALLENGE_KEYS, KeyFile};
use crate::worker::message::Rules;
use crate::worker::{Room, Worker};

/// The rules' side of the keeper.
#[derive(Default)]
pub(super) struct AtWork {
    /// Who hears events; `None` before it is started.
    pub(super) worker: Option<Worker>,
    /// Who tells of what happens; `None` before it is started.
    pub(super) notifier: Option<Notifier>,
    /// Rules that somebody has switched.
    pub(super) modes: BTreeMap<String, Mode>,
    /// Blocks of rules that found no room, or were refused.
    pub(super) refused: u64,
    /// Where the keys of challenges are; `None`: nobody has them kept.
    pub(super) key_file: Option<KeyFile>,
    /// The keys as they were when that file was looked at last: which, when in seconds since the
    /// Unix epoch, and what it had.
    pub(super) keys: Option<(PathBuf, u64, Keys)>,
}

impl Keeper {
    /// Says who hears events, and what the rules are.
    pub fn set_worker(&mut self, worker: Worker) {
        self.rules.worker = Some(worker);
        self.tell_rules();
    }

    /// Has the keys of challenges kept in their file.
    pub fn keep_challenge_keys(&mut self) {
        self.rules.key_file = Some(KeyFile::default());
    }

    /// The keys that challenges are signed with now, where the rules pose any. Their file is looked
    /// at once a second: it may be on another host.
    fn challenge_keys(&mut self, now: Now) -> Keys {
        let Some(file) = &mut self.rules.key_file else {
            return Keys::default();
        };
        let decide = self.policy.decide.as_ref();
        let Some(decide) = decide.filter(|it| it.challenges()) else {
            return Keys::default();
        };
        let challenge = &decide.challenge;
        let usual = || self.policy.state.directory.join(CHALLENGE_KEYS);
        let path = challenge.keys.clone().unwrap_or_else(usual);
        let life = challenge.clearance.max(challenge.solve_within);
        let now_s = unix_nanos(now.wall) / 1_000_000_000;
        let known = self.rules.keys.as_ref();
        if let Some((.., keys)) = known.filter(|(of, at_s, _)| *of == path && *at_s == now_s) {
            return keys.clone();
        }
        let keys = file.keys(&path, challenge.rotate, life, now_s);
        self.rules.keys = Some((path, now_s, keys.clone()));
        keys
    }

    /// Says who tells of what happens.
    pub fn set_notifier(&mut self, notifier: Notifier) {
        self.rules.notifier = Some(notifier);
        self.tell_rules();
    }

    /// Who tells of what happens.
    #[must_use]
    pub fn notifier(&self) -> Option<Notifier> {
        self.rules.notifier.clone()
    }

    /// Tells the worker what the rules are, and the notifier whom to tell, if they do not know
    /// it yet.
    pub(super) fn tell_rules(&mut self) {
        if let Some(notifier) = &self.rules.notifier {
            notifier.follow(&self.policy);
        }
        let Some(worker) = self.rules.worker.clone() else {
            return;
        };
        let decide = self.policy.decide.as_ref();
        worker.verify_by(decide.and_then(|it| it.challenge.captcha.clone()));
        let challenge_keys = self.challenge_keys(Now::read());
        let pages = self.policy.decide.as_ref().map(|it| it.pages.clone());
        let rules = Rules {
            text: self.text.clone(),
            is_enforced: self.term_word() != Some("paused"),
            modes: self.rules.modes.clone(),
            pages: pages.unwrap_or_default(),
            challenge_keys,
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
    pub fn switch_rule(
        &mut self,
        name: &str,
        mode: Mode,
        by: By,
        now: Now,
    ) -> Result<Changed, Refusal> {
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
        let order = match mode {
            Mode::On => "rule enable",
            Mode::Simulate => "rule simulate",
            Mode::Off => "rule disable",
        };
        self.note_by_hand(ByHand {
            rule: Some(name.to_owned()),
            subject: Some(name.to_owned()),
            ..by.hand(order, now)
        });
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
        rules(&self.policy).map(|rule| rule.name.as_str())
    }
}

/// What a policy does to what the rules of the one before have counted and hold, where that is
/// not kept.
pub(super) fn changes_of_rules(before: &Policy, after: &Policy) -> Vec<String> {
    let change = |rule: &Rule| {
        let name = &rule.name;
        let Some(same) = rules(after).find(|other| other.name == *name) else {
            return Some(format!(
                "rule `{name}` is gone: what it counted and holds is dropped, its blocks too"
            ));
        };
        let continuity = Continuity::between((rule, prefixes(before)), (same, prefixes(after)));
        match continuity {
            Continuity::All => None,
            Continuity::Actions => Some(format!(
                "rule `{name}` changed: it counts from zero; locks, blocks and rungs stay"
            )),
            Continuity::Nothing => Some(format!(
                "rule `{name}` has another key or other tiers: what it counted and holds is \
                 dropped, its blocks too"
            )),
        }
    };
    rules(before)
        .filter_map(change)
        .chain(change_of_accounts(before, after))
        .collect()
}

/// What becomes of what is held against accounts that are compared otherwise.
fn change_of_accounts(before: &Policy, after: &Policy) -> Option<String> {
    let compared = |policy: &Policy| {
        let accounts = policy.decide.as_ref().map(|decide| &decide.accounts);
        accounts.map(|it| (it.nfkc, it.ignore_case, it.trim))
    };
    let (before_so, after_so) = (compared(before)?, compared(after)?);
    let stays = |rule: &Rule| {
        rule.key.contains(&KeyPart::Account) && rules(before).any(|it| it.name == rule.name)
    };
    let holds = before_so != after_so && rules(after).any(stays);
    holds.then(|| {
        "decide.accounts compares accounts otherwise: what rules count and hold against one that is \
         written otherwise by it stays with the old writing, and does not meet it any more"
            .to_owned()
    })
}

fn rules(policy: &Policy) -> impl Iterator<Item = &Rule> {
    policy.decide.iter().flat_map(|decide| &decide.rules)
}

const fn prefixes(policy: &Policy) -> Prefixes {
    Prefixes {
        ipv4: policy.edge.ipv4_prefix,
        ipv6: policy.edge.ipv6_prefix,
    }
}
