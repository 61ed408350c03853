//! Meaning of a limit, and algorithms.

use super::*;
use crate::policy::{Boruta, TokenBucket, units::Rate};

#[test]
fn of_requests_counted_at_60_sixty_pass_and_the_61st_does_not() {
    let mut engine = engine(vec![rule(
        "r",
        Count::Requests,
        vec![tier(60, MINUTE, Action::Reject)],
    )]);
    assert_eq!(engine.passing(&get(CLIENT), 60, START), 60);
    let decision = engine.ask(&get(CLIENT), START);
    assert_eq!(decision.action, Some(Action::Reject));
    assert_eq!(decision.rule.as_deref(), Some("r"));
}

#[test]
fn after_the_5th_failure_at_5_the_next_attempt_is_refused() {
    let tiers = vec![tier(5, MINUTE, Action::Reject)];
    let mut engine = engine(vec![by_account("lock", Course::Tiers(tiers))]);
    engine.reports(&failed(login(CLIENT, "alice")), 4, START);
    assert_eq!(engine.action(&login(CLIENT, "alice"), START), None);
    engine.report(&failed(login(CLIENT, "alice")), START);
    assert_eq!(
        engine.action(&login(CLIENT, "alice"), START),
        Some(Action::Reject)
    );
    assert_eq!(engine.action(&login(CLIENT, "bob"), START), None);
}

#[test]
fn exceeds_moves_it_by_one() {
    let mut tier = tier(60, MINUTE, Action::Reject);
    tier.gauge = Gauge::Window(Window {
        exceeds: true,
        ..window(60, MINUTE)
    });
    let mut engine = engine(vec![rule("r", Count::Requests, vec![tier])]);
    assert_eq!(engine.passing(&get(CLIENT), 100, START), 61);
}

#[test]
fn an_event_of_age_exactly_period_no_longer_counts() {
    let mut engine = engine(vec![rule(
        "r",
        Count::Requests,
        vec![tier(1, MINUTE, Action::Reject)],
    )]);
    assert_eq!(engine.passing(&get(CLIENT), 2, START), 1);
    assert!(engine.ask(&get(CLIENT), START + MINUTE - 1).refuses());
    assert!(!engine.ask(&get(CLIENT), START + MINUTE).refuses());
}

fn with_algorithm(limit: u64, algorithm: Algorithm) -> Engine {
    let gauge = Gauge::Window(Window {
        algorithm,
        ..window(limit, MINUTE)
    });
    let tier = Tier {
        gauge,
        ..tier(limit, MINUTE, Action::Reject)
    };
    engine(vec![rule("r", Count::Requests, vec![tier])])
}

#[test]
fn a_sliding_window_is_compared_unrounded_and_remaining_is_rounded_down() {
    let mut engine = with_algorithm(50, Algorithm::SlidingWindow);
    engine.passing(&get(CLIENT), 42, START);
    // 42 * 45/60 + 18 = 49.5.
    let now_ns = START + MINUTE + 15 * S;
    assert_eq!(engine.passing(&get(CLIENT), 18, now_ns), 18);
    let decision = engine.ask(&get(CLIENT), now_ns);
    assert_eq!((decision.action, decision.remaining), (None, Some(0)));
    assert!(engine.ask(&get(CLIENT), now_ns).refuses());
}

#[test]
fn a_fixed_window_has_a_known_reset() {
    let mut engine = with_algorithm(10, Algorithm::FixedWindow);
    engine.passing(&get(CLIENT), 10, START + 59 * S);
    let decision = engine.ask(&get(CLIENT), START + 59 * S);
    assert_eq!(decision.until_ns, Some(START + MINUTE));
    assert_eq!(decision.reset_s, Some((START + MINUTE) / S));
    assert_eq!(engine.passing(&get(CLIENT), 20, START + MINUTE), 10);
}

#[test]
fn a_token_bucket_admits_its_burst_and_delays_what_is_beyond_delay() {
    let bucket = |delay| TokenBucket {
        rate: Rate {
            amount: 10,
            per_ns: S,
        },
        burst: 4,
        delay,
    };
    let with = |bucket| {
        let gauge = Gauge::TokenBucket(bucket);
        let tier = Tier {
            gauge,
            ..tier(1, S, Action::Reject)
        };
        engine(vec![rule("r", Count::Requests, vec![tier])])
    };
    let mut undelayed = with(bucket(None));
    assert_eq!(undelayed.passing(&get(CLIENT), 9, START), 4);
    assert_eq!(undelayed.passing(&get(CLIENT), 9, START + S / 10), 1);
    let mut delayed = with(bucket(Some(2)));
    let delays: Vec<_> = (0..4)
        .map(|_| delayed.ask(&get(CLIENT), START).delay_ms)
        .collect();
    assert_eq!(delays, [0, 0, 100, 200]);
    assert!(delayed.ask(&get(CLIENT), START).refuses());
}

#[test]
fn a_timed_action_of_a_bucket_begins_with_the_event_that_it_cannot_hold() {
    let gauge = Gauge::TokenBucket(TokenBucket {
        rate: Rate {
            amount: 1,
            per_ns: S,
        },
        burst: 2,
        delay: None,
    });
    let tier = Tier {
        gauge,
        ..tier(1, S, Action::Reject).lasting(HOUR)
    };
    let mut engine = engine(vec![rule("r", Count::Requests, vec![tier])]);
    assert_eq!(engine.passing(&get(CLIENT), 3, START), 2);
    assert_eq!(engine.began(), [(Action::Reject, START + HOUR, 0)]);
    assert!(engine.ask(&get(CLIENT), START + HOUR - 1).refuses());
    assert!(!engine.ask(&get(CLIENT), START + HOUR).refuses());
}

fn boruta(faithful: bool) -> Engine {
    let course = Course::Boruta(Boruta {
        limit: 10,
        period: Duration::from_secs(1),
        penalty_ms: 500,
        timeout_ms: 5_000,
        memory: 50,
        faithful,
    });
    engine(vec![Rule {
        course,
        ..rule("boruta", Count::Requests, Vec::new())
    }])
}

#[test]
fn boruta_throttles_below_timeout_and_rejects_from_there_on() {
    for faithful in [true, false] {
        let mut engine = boruta(faithful);
        assert_eq!(engine.passing(&get(CLIENT), 11, START), 11);
        let decision = engine.ask(&get(CLIENT), START);
        assert_eq!(
            (decision.action, decision.delay_ms),
            (Some(Action::Throttle), 549)
        );
        assert_eq!(decision.retry_after_s, None);
    }
    let mut engine = boruta(false);
    assert_eq!(engine.passing(&get(CLIENT), 1_000, START), 100);
    // A bin weighs until it is out of memory.
    assert!(engine.ask(&get(CLIENT), START + 50 * S - 1).refuses());
    assert!(!engine.ask(&get(CLIENT), START + 50 * S).refuses());
}

#[test]
fn in_boruta_itself_what_waits_counts_when_it_has_waited() {
    let mut engine = boruta(true);
    // From the 20th on they wait for a second, and so count in the next one.
    assert_eq!(engine.passing(&get(CLIENT), 1_000, START), 1_000);
    assert!(engine.ask(&get(CLIENT), START + S).refuses());
}

#[test]
fn quiet_seconds_are_credit_for_boruta_unless_it_is_clamped() {
    for (faithful, expected) in [(true, 0), (false, 549)] {
        let mut engine = boruta(faithful);
        engine.ask(&get(CLIENT), START);
        engine.passing(&get(CLIENT), 11, START + S);
        assert_eq!(engine.ask(&get(CLIENT), START + S).delay_ms, expected);
    }
}
