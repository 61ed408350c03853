//! Concurrency: attempts that are under way.

use super::*;
use crate::policy::OutcomePattern;

fn locked(course: Course) -> Engine {
    engine(vec![by_account("lock", course)])
}

fn guess(number: usize) -> Event {
    with_id(&format!("guess {number}"), login(CLIENT, "alice"))
}

#[test]
fn of_fifty_parallel_guesses_only_the_limit_passes() {
    let mut engine = locked(lockout());
    let passed: Vec<_> = (0..50)
        .filter(|number| !engine.ask(&guess(*number), START).refuses())
        .collect();
    assert_eq!(passed.len(), 5);
    for number in passed {
        engine.report(&failed(guess(number)), START + S);
    }
    let until_ns = engine.ask(&guess(99), START + S).until_ns;
    assert_eq!(until_ns, Some(START + S + 15 * MINUTE));
}

#[test]
fn an_attempt_counts_as_failed_until_its_outcome_is_known() {
    let mut engine = locked(lockout());
    for number in 0..5 {
        assert!(!engine.ask(&guess(number), START).refuses());
    }
    assert!(engine.ask(&guess(5), START).refuses());
    engine.report(&succeeded(guess(0)), START);
    assert!(!engine.ask(&guess(6), START).refuses());
    assert!(engine.ask(&guess(7), START).refuses());
}

#[test]
fn or_until_thirty_seconds_have_passed() {
    let mut engine = locked(lockout());
    for number in 0..5 {
        engine.ask(&guess(number), START);
    }
    let decision = engine.ask(&guess(5), START + 30 * S - 1);
    assert_eq!(decision.action, Some(Action::Reject));
    assert_eq!(decision.until_ns, Some(START + 30 * S));
    assert!(!engine.ask(&guess(6), START + 30 * S).refuses());
}

#[test]
fn an_outcome_after_thirty_seconds_still_counts() {
    let mut engine = locked(lockout());
    for number in 0..5 {
        engine.ask(&guess(number), START);
    }
    for number in 0..5 {
        engine.report(&failed(guess(number)), START + MINUTE);
    }
    assert!(engine.ask(&guess(9), START + MINUTE).refuses());
}

#[test]
fn statuses_reserve_too_and_what_does_not_count_is_given_back() {
    let rule = Rule {
        reserve: true,
        ..rule("r", statuses(401), vec![tier(2, MINUTE, Action::Reject)])
    };
    let mut engine = engine(vec![rule]);
    let ask = |number: usize| with_id(&format!("{number}"), get(CLIENT));
    engine.ask(&ask(0), START);
    engine.ask(&ask(1), START);
    assert!(engine.ask(&ask(2), START).refuses());
    engine.report(&with_status(200, ask(0)), START);
    engine.report(&with_status(401, ask(1)), START);
    assert!(!engine.ask(&ask(3), START).refuses());
    assert!(engine.ask(&ask(4), START).refuses());
}

#[test]
fn without_reserve_or_without_an_id_nothing_is_held_back() {
    let mut engine = locked(lockout());
    assert_eq!(engine.passing(&login(CLIENT, "alice"), 50, START), 50);
    let mut engine = super::engine(vec![Rule {
        reserve: false,
        ..by_account("lock", lockout())
    }]);
    let passed = (0..50).filter(|number| !engine.ask(&guess(*number), START).refuses());
    assert_eq!(passed.count(), 50);
}

#[test]
fn a_replayed_event_reserves_nothing() {
    let mut engine = locked(lockout());
    for number in 0..50 {
        assert!(!engine.replay(&at(START, guess(number))).refuses());
    }
    assert!(!engine.ask(&guess(99), START).refuses());
}

#[test]
fn a_flood_of_questions_forgets_the_oldest_and_gives_back_what_it_held() {
    let mut engine = locked(lockout());
    for number in 0..5 {
        engine.ask(&guess(number), START);
    }
    for number in 0..70_000 {
        let event = with_id(
            &format!("{number}"),
            login(OTHER, &format!("a{}", number % 100)),
        );
        engine.ask(&event, START);
    }
    assert!(!engine.ask(&guess(5), START).refuses());
}

#[test]
fn a_failure_cannot_hide_behind_a_repeated_id() {
    let lock = || Rule {
        requests: requests(&["POST /login"]),
        ..by_account("lock", lockout())
    };
    let attempt = || with_id("1", login(CLIENT, "alice"));
    let decoy = || with_id("1", get(CLIENT));
    let answer = |status| with_status(status, with_id("1", Event::of(address(CLIENT))));
    // After it, before it, and twice before it: in any order a guess counts.
    for decoys in 0..3 {
        let mut engine = engine(vec![lock()]);
        let mut now_ns = START;
        for _ in 0..5 {
            for _ in 0..decoys {
                engine.ask(&decoy(), now_ns);
            }
            assert!(!engine.ask(&attempt(), now_ns).refuses(), "{decoys}");
            engine.ask(&decoy(), now_ns);
            engine.report(&succeeded(answer(200)), now_ns);
            engine.report(&failed(answer(401)), now_ns);
            now_ns += 40 * S;
        }
        assert!(engine.ask(&login(CLIENT, "alice"), now_ns).refuses());
    }
}

#[test]
fn an_empty_id_is_none() {
    let mut engine = locked(lockout());
    let event = || with_id("", login(CLIENT, "alice"));
    assert_eq!(engine.passing(&event(), 50, START), 50);
    engine.report(&failed(with_id("", Event::of(address(CLIENT)))), START);
    assert_eq!(engine.tally_of("lock").counted, 0);
}

#[test]
fn a_report_that_tells_no_outcome_gives_nothing_back() {
    let mut engine = locked(lockout());
    for number in 0..5 {
        engine.ask(&guess(number), START);
        engine.report(&with_status(200, guess(number)), START);
    }
    assert!(engine.ask(&guess(9), START).refuses());
    engine.report(&succeeded(guess(0)), START);
    assert!(!engine.ask(&guess(10), START).refuses());
}

#[test]
fn an_answer_that_matches_neither_pattern_counts_as_neither_and_is_waited_for_no_longer() {
    let mut engine = engine(vec![Rule {
        failure: Some(OutcomePattern {
            statuses: Some(Statuses::new(vec![401..=401])),
            location: None,
            response_header: None,
        }),
        ..by_account("lock", lockout())
    }]);
    for number in 0..5 {
        engine.ask(&guess(number), START);
    }
    engine.report(&with_status(500, guess(0)), START);
    engine.report(&guess(1), START);
    assert!(!engine.ask(&guess(5), START).refuses());
    assert!(engine.ask(&guess(6), START).refuses());
    assert_eq!(engine.tally_of("lock").counted, 0);
    // What the application says later still counts.
    engine.report(&failed(guess(0)), START + S);
    assert_eq!(engine.tally_of("lock").counted, 1);
}
