//! What a decision tells: of the limit, and of what is done.

use std::sync::Arc;

use super::Engine;
use super::course::Shown;
use super::decision::{Bound, Decision, Reason, SECOND_NS};
use super::judging::Say;
use super::table::Key;
use super::view::View;
use crate::policy::{Action, LimitHeaders};

impl Engine {
    /// A decision that passes, with what headers tell: of the rules keyed by source, the
    /// one with the least left. A rule whose response has no such headers is behind all others.
    pub(super) fn show(&self, now_ns: u64) -> Decision {
        let mut decision = Decision::default();
        let mut least: Option<(Shown, usize)> = None;
        let weight = |shown: &Shown, unit: usize| {
            let is_silent = self.units[unit].rule.response.headers == LimitHeaders::None;
            (is_silent, shown.remaining, shown.limit)
        };
        for hit in self.hits.iter().filter(|hit| hit.selected) {
            let unit = &self.units[hit.unit];
            if !unit.by_source || unit.by_account {
                continue;
            }
            let (state, key_ns) = match hit.place {
                Some(place) => (
                    unit.table.state(place),
                    now_ns.max(unit.table.last_ns(place)),
                ),
                None => (unit.blank.as_slice(), now_ns),
            };
            let Some(shown) = unit.course.shown(state, key_ns) else {
                continue;
            };
            if least.is_none_or(|(held, unit)| weight(&shown, hit.unit) < weight(&held, unit)) {
                least = Some((shown, hit.unit));
            }
        }
        if let Some((shown, unit)) = least {
            decision.limit = Some(shown.limit);
            decision.remaining = Some(shown.remaining);
            decision.reset_s = Some(shown.reset_ns.div_ceil(SECOND_NS));
            decision.shown = Some(Arc::clone(&self.units[unit].name));
        }
        decision
    }
}

fn bound(key: Key, view: &View<'_>) -> Bound {
    Bound {
        key,
        host: view.host.map(Arc::from),
        resend: !matches!(view.method, Some("GET" | "HEAD") | None),
    }
}

/// Writes what is done with a request into its decision.
pub(super) fn tell(decision: &mut Decision, say: Say, view: &View<'_>, now_ns: u64) {
    decision.action = Some(say.action);
    decision.bound = say.action.is_challenge().then(|| bound(say.key, view));
    if say.reason == Some(Reason::NotFrom) {
        // No waiting helps, and what is left is no business of who is outside.
        (decision.limit, decision.remaining) = (None, None);
        (decision.reset_s, decision.shown) = (None, None);
        return;
    }
    decision.until_ns = Some(say.until_ns);
    if say.action == Action::Throttle {
        decision.delay_ms = say.delay_ns.div_ceil(1_000_000);
        return;
    }
    let wait_ns = say.until_ns.saturating_sub(now_ns);
    let retry_after_s = wait_ns.div_ceil(SECOND_NS).max(1);
    decision.retry_after_s = Some(retry_after_s);
    if decision.limit.is_some() {
        decision.remaining = Some(0);
        decision.reset_s = Some((now_ns / SECOND_NS).saturating_add(retry_after_s));
    }
}
