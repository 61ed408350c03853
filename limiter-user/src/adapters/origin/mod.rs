//! Origins of events: what was counted of each, how far behind it is, and what is
//! probably wrong with it.

mod lag;
mod needs;
mod row;
mod warnings;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::event::formats::Format;
use crate::event::reader::Tally;
use crate::event::{Event, path};
use crate::policy::{Datagrams, Decide, Feedback, LogFile};
use lag::Lag;
use needs::Wants;
pub use row::{KeyRow, OneSource, Row};
pub use warnings::{About, Told, Warning, warnings};

/// The name of the API's origin.
pub const API: &str = "api";

/// The name of the origin that HAProxy's requests are, of `decide.spoe`.
pub const SPOE: &str = "spoe";

/// The name of the origin of what proxies ask about.
pub const CHECK: &str = "check";

/// Events that a rule selects, of which a part of the key is looked for in all.
const ENOUGH: u64 = 100;

/// The name of the origin that a `decide.feedback` is.
#[must_use]
pub fn feedback_name(feedback: &Feedback) -> String {
    match &feedback.at {
        Datagrams::Unix(path) => format!("feedback:unix:{}", path.display()),
        Datagrams::Udp { listen, .. } => format!("feedback:udp:{listen}"),
    }
}

/// The name of the origin that a `decide.logs` is.
#[must_use]
pub fn log_name(log: &LogFile) -> String {
    log_name_of(&log.path)
}

/// The name of the origin that a log of this path is.
#[must_use]
pub fn log_name_of(path: &Path) -> String {
    format!("log:{}", path.display())
}

/// Where events come from: the API, a proxy that asks, a socket or a log.
#[derive(Debug)]
pub struct Origin {
    name: Box<str>,
    /// Of servers; `None`: applications send events as they are.
    format: Option<Format>,
    direct: bool,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

/// What all origins have in common.
#[derive(Debug, Default)]
struct Shared {
    wants: RwLock<Arc<Wants>>,
    /// Whether anybody has asked before it reported.
    asked: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    /// Lines that were not understood since the last that was.
    misread_in_a_row: u64,
    forged: u64,
    forged_ns: Option<u64>,
    behind_bytes: u64,
    trouble: Option<String>,
    missed: Option<String>,
    lag: Lag,
    sources: Sources,
    /// For each part that is wanted.
    keys: Vec<Key>,
    /// Which parts these are.
    wants: Arc<Wants>,
}

/// Whether all events are of one source.
#[derive(Clone, Copy, Debug, Default)]
enum Sources {
    #[default]
    None,
    One(OneSource),
    Many,
}

/// How often a part of a key was there.
#[derive(Clone, Copy, Debug, Default)]
struct Key {
    /// Events that the rule selects; counted up to [`ENOUGH`].
    selected: u64,
    given: bool,
}

impl Shared {
    fn wants(&self) -> Arc<Wants> {
        Arc::clone(&self.wants.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Origin {
    fn new(name: &str, format: Option<Format>, direct: bool, shared: &Arc<Shared>) -> Self {
        Self {
            name: name.into(),
            format,
            direct,
            shared: Arc::clone(shared),
            state: Mutex::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts what was read since the last call, and the events among it.
    pub fn count(&self, tally: Tally, events: &[Event], now_ns: u64) {
        let wants = self.shared.wants();
        let is_asked = self.shared.asked.load(Ordering::Relaxed);
        let mut state = self.state();
        if tally.understood > 0 {
            state.misread_in_a_row = 0;
        } else {
            state.misread_in_a_row += tally.not_understood;
        }
        state.tally.add(tally);
        if !Arc::ptr_eq(&state.wants, &wants) {
            state.keys = vec![Key::default(); wants.wanted.len()];
            state.wants = wants;
        }
        for event in events {
            if let Some(at_ns) = event.at_ns {
                state.lag.note(at_ns, now_ns);
            }
            state.sources.note(event.source, now_ns);
            // What a report lacks, its question may have.
            state.look_for_keys(event, is_asked && event.id.is_some());
        }
    }

    /// As [`count`](Self::count), of requests that somebody asks about.
    pub fn count_question(&self, tally: Tally, events: &[Event], now_ns: u64) {
        self.shared.asked.store(true, Ordering::Relaxed);
        self.count(tally, events, now_ns);
    }

    /// Counts datagrams of senders that are not listed, and questions of those who may not ask.
    pub fn count_forged(&self, messages: u64, now_ns: u64) {
        let mut state = self.state();
        state.forged += messages;
        state.forged_ns = Some(now_ns);
    }

    /// Says how many bytes wait to be read.
    pub fn set_behind(&self, bytes: u64) {
        self.state().behind_bytes = bytes;
    }

    /// Says what keeps it from being read; `None`: nothing does. Tells whether that
    /// is new.
    pub fn set_trouble(&self, trouble: Option<String>) -> bool {
        let mut state = self.state();
        let is_new = state.trouble != trouble;
        state.trouble = trouble;
        is_new
    }

    /// Says why the rest of the file that was read before could not be read.
    pub fn set_missed(&self, why: &str) {
        let mut state = self.state();
        state.missed.get_or_insert_with(|| why.to_owned());
    }

    /// What is known of it.
    #[must_use]
    pub fn row(&self, now_ns: u64) -> Row {
        let state = self.state();
        let keys = state.wants.wanted.iter().zip(&state.keys);
        let keys = keys.map(|(wanted, key)| KeyRow {
            rule: wanted.rule.name.clone(),
            part: wanted.part.to_string(),
            selected: key.selected,
            given: key.given,
        });
        let tally = &state.tally;
        Row {
            name: self.name.clone().into(),
            format: self.format.as_ref().map(ToString::to_string),
            read: tally.read,
            understood: tally.understood,
            other: tally.other,
            not_understood: tally.not_understood,
            dropped: tally.dropped,
            forged: state.forged,
            forged_ns: state.forged_ns,
            misread_in_a_row: state.misread_in_a_row,
            sample: tally.last.as_ref().map(|misread| misread.in_words()),
            lag_ns: state.lag.last_ns(),
            most_lag_ns: state.lag.most_ns(now_ns),
            behind_bytes: state.behind_bytes,
            trouble: state.trouble.clone(),
            missed: state.missed.clone(),
            source: match state.sources {
                Sources::One(source) => Some(source),
                Sources::None | Sources::Many => None,
            },
            keys: keys.collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts that one event has changed in part are better than none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn look_for_keys(&mut self, event: &Event, may_be_joined: bool) {
        let mut normal = None;
        for (wanted, key) in self.wants.wanted.iter().zip(&mut self.keys) {
            if key.given {
                continue;
            }
            let has = self.wants.has(event, &wanted.part);
            if !has && (key.selected >= ENOUGH || may_be_joined) {
                continue;
            }
            let normal = normal.get_or_insert_with(|| event.path.as_deref().map(path::normalise));
            if wanted.is_selected(event, normal.as_deref()) {
                key.selected += 1;
                key.given = has;
            }
        }
    }
}

impl Sources {
    fn note(&mut self, source: IpAddr, now_ns: u64) {
        match self {
            Self::None => {
                *self = Self::One(OneSource {
                    source,
                    events: 1,
                    first_ns: now_ns,
                    last_ns: now_ns,
                });
            }
            Self::One(one) if one.source == source => {
                one.events += 1;
                one.last_ns = now_ns;
            }
            Self::One(_) => *self = Self::Many,
            Self::Many => {}
        }
    }
}

/// All origins of a policy, which are not many: the API, what proxies ask, and what it names.
#[derive(Debug, Default)]
pub struct Origins {
    shared: Arc<Shared>,
    by_name: Mutex<BTreeMap<Box<str>, Arc<Origin>>>,
}

impl Origins {
    /// Those of a policy, in which nothing was counted.
    #[must_use]
    pub fn of(decide: &Decide) -> Self {
        let origins = Self::default();
        origins.reload(decide);
        origins
    }

    /// Those of another policy. What was counted of an origin stays while the policy
    /// names it with the same format.
    pub fn reload(&self, decide: &Decide) {
        let wants = Arc::new(Wants::of(decide));
        *self
            .shared
            .wants
            .write()
            .unwrap_or_else(PoisonError::into_inner) = wants;
        let feedback = decide.feedback.iter();
        let feedback = feedback.map(|it| (feedback_name(it), Some(&it.format), it.direct));
        let logs = decide.logs.iter();
        let logs = logs.map(|it| (log_name(it), Some(&it.format), it.direct));
        let asked = [API, CHECK].map(|name| (name.to_owned(), None, false));
        let spoe = decide.spoe.iter().map(|_| (SPOE.to_owned(), None, false));
        let asked = asked.into_iter().chain(spoe);
        let mut by_name = self.lock();
        let before = std::mem::take(&mut *by_name);
        for (name, format, direct) in asked.chain(feedback).chain(logs) {
            let same = before
                .get(&*name)
                .filter(|origin| (origin.format.as_ref(), origin.direct) == (format, direct));
            let origin = same.cloned().unwrap_or_else(|| {
                Arc::new(Origin::new(&name, format.cloned(), direct, &self.shared))
            });
            by_name.insert(name.into(), origin);
        }
    }

    /// What the rules of the policy want to be told.
    pub(super) fn wants(&self) -> Arc<Wants> {
        self.shared.wants()
    }

    /// One by its name; `None`: the policy does not name it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Origin>> {
        self.lock().get(name).cloned()
    }

    /// What is known of each, in the order of their names; `now_ns` is nanoseconds
    /// since the Unix epoch.
    #[must_use]
    pub fn rows(&self, now_ns: u64) -> Vec<Row> {
        let origins: Vec<_> = self.lock().values().cloned().collect();
        origins.iter().map(|origin| origin.row(now_ns)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Arc<Origin>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
