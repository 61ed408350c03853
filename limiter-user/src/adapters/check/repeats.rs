//! Questions that a proxy asks again for the same request: nginx runs `auth_request` anew
//! at each internal redirect (`try_files`, `index`, `error_page`), under the same id.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::Decision;
use crate::event::Event;
use crate::policy::Action;

/// How long a request may be on its way: an origin that nginx gives up on after its 60 s
/// leads to `error_page`.
const WINDOW: Duration = Duration::from_secs(90);

/// Questions kept at most; the oldest go first.
const MOST: usize = 1 << 16;

/// How often one question may come: nginx redirects a request ten times at most. What comes
/// more often is another question under an id that is not its own.
const MOST_REPEATS: u8 = 10;

/// Decisions of the last questions.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_question: HashMap<u64, First>,
    /// In the order in which they were asked.
    order: VecDeque<(Instant, u64)>,
}

/// What a question was answered when it was first asked.
#[derive(Debug)]
struct First {
    decision: Decision,
    repeats: u8,
}

/// What tells a question from others, hashed with a secret of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question(u64);

impl Repeats {
    /// What an event asks; `None`: without an id nobody can tell.
    pub(super) fn question(&self, event: &Event) -> Option<Question> {
        let id = event.id.as_deref()?;
        let asked = (
            (id, event.peer, &event.method, &event.path, &event.host),
            (&event.headers, &event.body),
        );
        Some(Question(self.hasher.hash_one(asked)))
    }

    /// What it was answered before, if it was asked. Who was throttled has waited since.
    pub(super) fn find(&self, question: Question, now: Instant) -> Option<Decision> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(now);
        let first = kept.by_question.get_mut(&question.0)?;
        if first.repeats == MOST_REPEATS {
            return None;
        }
        first.repeats += 1;
        let mut decision = first.decision.clone();
        if decision.action == Some(Action::Throttle) {
            decision.action = None;
        }
        Some(decision)
    }

    /// Keeps what it was answered.
    pub(super) fn keep(&self, question: Question, decision: &Decision, now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(now);
        let first = First {
            decision: decision.clone(),
            repeats: 0,
        };
        if kept.by_question.insert(question.0, first).is_none() {
            kept.order.push_back((now, question.0));
        }
    }
}

impl Kept {
    fn forget(&mut self, now: Instant) {
        while let Some((asked, question)) = self.order.front() {
            let is_old = now.saturating_duration_since(*asked) >= WINDOW;
            if !is_old && self.order.len() < MOST {
                return;
            }
            let _first = self.by_question.remove(question);
            let _place = self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, path: &str) -> Event {
        Event {
            id: Some(id.into()),
            path: Some(path.into()),
            ..Event::of([192, 0, 2, 1].into())
        }
    }

    fn decision(action: Action) -> Decision {
        Decision {
            action: Some(action),
            delay_ms: 700,
            ..Decision::default()
        }
    }

    #[test]
    fn a_repeat_is_what_is_the_same_in_all() {
        let repeats = Repeats::default();
        let question = |id: &str, path: &str| repeats.question(&event(id, path)).unwrap();
        let first = question("1", "/a");
        assert_eq!(first, question("1", "/a"));
        assert_ne!(first, question("1", "/b"));
        assert_ne!(first, question("2", "/a"));
        assert_eq!(repeats.question(&Event::of([192, 0, 2, 1].into())), None);
        let now = Instant::now();
        assert_eq!(repeats.find(first, now), None);
        repeats.keep(first, &decision(Action::Reject), now);
        for _ in 0..MOST_REPEATS {
            assert_eq!(repeats.find(first, now), Some(decision(Action::Reject)));
        }
        assert_eq!(repeats.find(first, now), None);
    }

    #[test]
    fn who_has_waited_passes() {
        let repeats = Repeats::default();
        let first = repeats.question(&event("1", "/a")).unwrap();
        let now = Instant::now();
        repeats.keep(first, &decision(Action::Throttle), now);
        assert_eq!(repeats.find(first, now).unwrap().action, None);
    }

    #[test]
    fn what_is_old_or_too_much_goes() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let question = |number: usize| repeats.question(&event(&number.to_string(), "/")).unwrap();
        for number in 0..=MOST {
            repeats.keep(question(number), &Decision::default(), now);
        }
        assert_eq!(repeats.find(question(0), now), None);
        assert!(repeats.find(question(MOST), now).is_some());
        assert_eq!(repeats.find(question(MOST), now + WINDOW), None);
        assert!(repeats.kept.lock().unwrap().by_question.is_empty());
    }
}
