//! Who is told what happens: owners of accounts, and whom the policy names, by mail and by
//! webhook.
//!
//! What happens comes from the worker's changes and from the keeper; the [`Notifier`] decides
//! who is told and how often, keeps it in a [`queue`] that outlives the daemon, and has the
//! [courier](crate::courier) carry it out.

pub mod message;
pub mod queue;
mod sending;
#[cfg(test)]
mod tests;

use std::hash::Hasher as _;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::courier::{Answer, Courier, Job};
use crate::engine::{Change, What};
use crate::keeper::unix_nanos;
use crate::policy::{Decide, Notify, Policy};
use crate::seldom::Seldom;
use crate::store::OutboxFile;
use queue::{Channel, Kept, Letter, Queue, Tally};

/// Floods are told of at most once in this time: one that comes and goes would use up what
/// may be told in an hour.
const FLOODS_MS: u64 = 900_000;

/// Bytes of an account that are told.
const MOST_ACCOUNT: usize = 512;

/// How often it is said in the log that something is not told.
const SAID: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A rung or tier was reached that says `notify`.
    Rung(Reached),
    /// New sources are too many.
    FloodBegun {
        /// When, in milliseconds since the Unix epoch, as all times here.
        at_ms: u64,
    },
    /// They are few again.
    FloodOver {
        /// When.
        at_ms: u64,
        /// Since when they were too many.
        began_ms: u64,
        /// Packets of sources that were not admitted.
        unknown: u64,
        /// Those of them that were refused.
        refused: u64,
    },
    /// Somebody tries it.
    Test {
        /// When.
        at_ms: u64,
    },
}

/// A rung or tier that says `notify`, and who has reached it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// When.
    pub at_ms: u64,
    /// The rule.
    pub rule: String,
    /// The rung or tier, from 1.
    pub rung: u64,
    /// What is done.
    pub action: String,
    /// Until when.
    pub until_ms: u64,
    /// Who came last.
    pub source: String,
    /// The account, where it may be named.
    pub account: Option<String>,
    /// The address of its owner, where the origin has named it.
    pub owner: Option<String>,
}

impl Happening {
    /// When it happened, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn at_ms(&self) -> u64 {
        match self {
            Self::Rung(reached) => reached.at_ms,
            Self::FloodBegun { at_ms } | Self::FloodOver { at_ms, .. } | Self::Test { at_ms } => {
                *at_ms
            }
        }
    }

    /// What a webhook is told that it is.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Rung(_) => "rung",
            Self::FloodBegun { .. } => "flood_begun",
            Self::FloodOver { .. } => "flood_over",
            Self::Test { .. } => "test",
        }
    }
}

/// Who carries out what leaves this host.
pub trait Deliver: Send + Sync {
    /// Has a job done, and waits for what comes of it.
    fn deliver(&self, job: Job) -> Answer;
}

impl Deliver for Courier {
    fn deliver(&self, job: Job) -> Answer {
        Self::deliver(self, job)
    }
}

/// What of notifications can be seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Of each channel that the policy names: what it did, and how many letters wait.
    pub channels: Vec<(Channel, Tally, usize)>,
    /// How often something was not told, and why.
    pub kept: Vec<(Kept, u64)>,
}

/// What one channel made of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// `mail` or `webhook`
    pub channel: String,
    /// The address, or the URL.
    pub to: String,
    /// Whether it arrived.
    pub sent: bool,
    /// What the server answered, or why none did.
    pub answer: String,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// Whether any policy is known.
    is_following: bool,
    /// What the policy in force says.
    settings: Option<Arc<Notify>>,
    /// And of rules.
    decide: Option<Arc<Decide>>,
    /// The queue has changed so often.
    changes: u64,
    /// When a flood was told of last.
    flood_ms: Option<u64>,
    /// The flood under way was told of.
    is_flood_told: bool,
    is_ending: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Rung when there is something new to do.
    more: Condvar,
    courier: Box<dyn Deliver>,
    outbox: OutboxFile,
    /// Which change of the queue is in the file; held while it is written.
    written: Mutex<u64>,
    /// What accounts are hashed with.
    secret: [u8; 16],
    host: String,
    said: Seldom,
}

/// Tells what happens. Clones are of the same. See the [module](self).
#[derive(Clone)]
pub struct Notifier {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

impl Notifier {
    /// One that goes on with what was left in the outbox. Nothing is sent before
    /// [`start`](Self::start).
    #[must_use]
    pub fn new(
        courier: Box<dyn Deliver>,
        outbox: OutboxFile,
        secret: [u8; 16],
        host: String,
    ) -> Self {
        let stored = match outbox.read() {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "notifications that waited are lost");
                queue::Stored::default()
            }
        };
        let state = State {
            queue: Queue::new(stored),
            ..State::default()
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                more: Condvar::new(),
                courier,
                outbox,
                written: Mutex::new(0),
                secret,
                host,
                said: Seldom::new(SAID),
            }),
        }
    }

    /// Sends what waits, on threads of its own, until [`end`](Self::end).
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(&self) -> io::Result<()> {
        for channel in Channel::ALL {
            let shared = Arc::clone(&self.shared);
            let name = format!("notify-{}", channel.name());
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(move || shared.send(channel))?;
        }
        Ok(())
    }

    /// Has nothing more sent. What is under way may arrive, and come again after the next start.
    pub fn end(&self) {
        self.shared.state().is_ending = true;
        self.shared.more.notify_all();
        self.shared.write();
    }

    /// What the policy in force says. What waits for a channel that it does not name goes on
    /// waiting, for a day at most: a policy that is tried may be gone in a minute.
    pub fn follow(&self, policy: &Policy) {
        let settings = policy.notify.as_ref();
        let mut state = self.shared.state();
        if state.decide.as_deref() != policy.decide.as_ref() {
            state.decide = policy.decide.clone().map(Arc::new);
        }
        if std::mem::replace(&mut state.is_following, true) && state.settings.as_deref() == settings
        {
            return;
        }
        state.settings = settings.cloned().map(Arc::new);
        drop(state);
        self.shared.more.notify_all();
    }

    /// Tells of a change that reached a rung with `notify`. Others are passed over, and what the
    /// policy's rules could not bring about: who says so has read what strangers write.
    pub fn hear(&self, change: &Change) {
        let What::Began {
            action,
            until_ns,
            rung,
            simulated: false,
            notify_owner: true,
        } = change.what
        else {
            return;
        };
        let Some(cause) = &change.event else {
            return;
        };
        let Some(decide) = self.shared.state().decide.clone() else {
            return;
        };
        let rule = decide.rules.iter().find(|rule| rule.name == *change.rule);
        let step = rule.and_then(|rule| rule.course.step(change.part));
        if !step.is_some_and(|(effect, _)| effect.notify_owner) {
            return;
        }
        let owner = cause.owner.as_deref();
        let owner = owner.filter(|it| decide.accounts.owner_header.is_some() && is_address(it));
        let reached = Reached {
            at_ms: change.at_ns / 1_000_000,
            rule: change.rule.to_string(),
            rung: rung.max(change.part as u64 + 1),
            action: action.name().to_owned(),
            until_ms: until_ns / 1_000_000,
            source: cause.source.to_string(),
            account: cause.account.as_deref().map(cut),
            owner: owner.map(str::to_owned),
        };
        self.reached(reached, cause.source, now_ms());
    }

    fn reached(&self, mut reached: Reached, source: IpAddr, now_ms: u64) {
        let hash = |kind: &[u8], text: &str| self.shared.hash(kind, text.as_bytes());
        let mut whose = vec![match &reached.account {
            Some(account) => hash(b"account", account),
            None => hash(b"source", &source.to_string()),
        }];
        // Many names may lead to one person.
        let owner = reached.owner.as_ref();
        whose.extend(owner.map(|owner| hash(b"owner", &owner.to_lowercase())));
        let mut state = self.shared.state();
        let Some(settings) = state.settings.clone() else {
            return;
        };
        if reached.owner.is_none() && !settings.accounts {
            // Passwords get typed into the field of the name: only the origin knows.
            reached.account = None;
        }
        let happening = Happening::Rung(reached);
        self.shared
            .tell(&mut state, &settings, &whose, happening, now_ms);
    }

    /// Forgets what waits about an account, as rules compare it, and that it was told of.
    pub fn erase(&self, account: &str) {
        let account = cut(account);
        let hash = self.shared.hash(b"account", account.as_bytes());
        let mut state = self.shared.state();
        state.queue.erase(&account, hash);
        state.changes += 1;
        drop(state);
        self.shared.write();
    }

    /// New sources are too many.
    pub fn flood_begun(&self, at: SystemTime) {
        let at_ms = unix_nanos(at) / 1_000_000;
        let mut state = self.shared.state();
        let Some(settings) = state.settings.clone() else {
            return;
        };
        let is_soon = |then_ms: u64| then_ms <= at_ms && at_ms < then_ms + FLOODS_MS;
        state.is_flood_told = !state.flood_ms.is_some_and(is_soon);
        if !state.is_flood_told {
            return;
        }
        state.flood_ms = Some(at_ms);
        let happening = Happening::FloodBegun { at_ms };
        state.is_flood_told = self
            .shared
            .tell(&mut state, &settings, &[], happening, at_ms);
    }

    /// They are few again, after a flood that `began` then, with so many packets of unknown
    /// sources and so many of them refused.
    pub fn flood_over(&self, began: SystemTime, at: SystemTime, unknown: u64, refused: u64) {
        let [began_ms, at_ms] = [began, at].map(|time| unix_nanos(time) / 1_000_000);
        let mut state = self.shared.state();
        let Some(settings) = state.settings.clone() else {
            return;
        };
        if !std::mem::take(&mut state.is_flood_told) {
            return;
        }
        let happening = Happening::FloodOver {
            at_ms,
            began_ms,
            unknown,
            refused,
        };
        self.shared
            .tell(&mut state, &settings, &[], happening, at_ms);
    }

    /// Tries every channel at once, past the queue, and waits for what the servers answer.
    /// Empty: the policy names none.
    #[must_use]
    pub fn test(&self) -> Vec<Tried> {
        let Some(settings) = self.shared.state().settings.clone() else {
            return Vec::new();
        };
        let now_ms = now_ms();
        let happening = Happening::Test { at_ms: now_ms };
        let ways = ways(&settings, &happening).into_iter();
        let letters: Vec<Letter> = ways
            .map(|(channel, to)| letter(channel, to, &happening, now_ms))
            .collect();
        let (shared, settings) = (&*self.shared, &*settings);
        std::thread::scope(|scope| {
            let trying: Vec<_> = letters
                .iter()
                .map(|letter| scope.spawn(move || shared.try_out(settings, letter)))
                .collect();
            // One that panicked has said so in the log.
            trying.into_iter().filter_map(|it| it.join().ok()).collect()
        })
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.shared.state();
        let Some(settings) = state.settings.as_deref() else {
            return Health::default();
        };
        let queue = &state.queue;
        let channels = Channel::ALL.into_iter().filter(|it| has(settings, *it));
        Health {
            channels: channels
                .map(|it| (it, queue.tally(it).clone(), queue.waiting(it)))
                .collect(),
            kept: Kept::ALL.map(|why| (why, queue.kept(why))).into(),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each of its parts is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, kind: &[u8], text: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write(kind);
        hasher.write(text);
        hasher.finish()
    }

    /// Puts what may be told into the queue, or says why it may not; whether it may.
    fn tell(
        &self,
        state: &mut State,
        settings: &Notify,
        whose: &[u64],
        happening: Happening,
        now_ms: u64,
    ) -> bool {
        let ways = ways(settings, &happening);
        let channels: Vec<Channel> = ways.iter().map(|(channel, _)| *channel).collect();
        let queue = &mut state.queue;
        let admitted = queue.admit(&channels, whose, settings.per_hour, now_ms);
        let why = match &admitted {
            Ok(open) if open.len() < ways.len() => Some(Kept::Full),
            // That is what it is for.
            Ok(_) | Err(Kept::Account) => None,
            Err(why) => Some(*why),
        };
        if let Some(why) = why
            && let Some(more) = self.said.due(Instant::now())
        {
            let (why, what) = (why.name(), happening.word());
            tracing::warn!(
                why,
                what,
                more,
                "not everybody is notified: it would be too much"
            );
        }
        let Ok(open) = admitted else {
            return false;
        };
        for (channel, to) in ways.into_iter().filter(|(it, _)| open.contains(it)) {
            queue.put(letter(channel, to, &happening, now_ms));
        }
        state.changes += 1;
        self.more.notify_all();
        true
    }
}

/// By which ways something is told, and to which address by mail.
fn ways(settings: &Notify, happening: &Happening) -> Vec<(Channel, Option<String>)> {
    let owner = match happening {
        Happening::Rung(reached) => reached.owner.as_ref(),
        _ => None,
    };
    let channels = Channel::ALL.into_iter().filter(|it| has(settings, *it));
    let to = |channel| match channel {
        Channel::Mail => owner.or(settings.to.as_ref()).cloned().map(Some),
        Channel::Webhook => Some(None),
    };
    let ways = channels.filter_map(|channel| Some((channel, to(channel)?)));
    ways.collect()
}

fn letter(channel: Channel, to: Option<String>, happening: &Happening, now_ms: u64) -> Letter {
    Letter {
        id: sending::random_id(),
        channel,
        to,
        happening: happening.clone(),
        born_ms: now_ms,
        due_ms: now_ms,
        failures: 0,
    }
}

/// The beginning of an account: the worker could say anything, of any length.
fn cut(account: &str) -> String {
    account[..account.floor_char_boundary(MOST_ACCOUNT)].to_owned()
}

/// Whether a policy names this channel.
const fn has(settings: &Notify, channel: Channel) -> bool {
    match channel {
        Channel::Mail => settings.smtp.is_some(),
        Channel::Webhook => settings.webhook.is_some(),
    }
}

/// Whether this is a mail address, and nothing more.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.parse::<lettre::Address>().is_ok()
}

fn now_ms() -> u64 {
    unix_nanos(SystemTime::now()) / 1_000_000
}
