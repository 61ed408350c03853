//! What counts.

use super::*;
use crate::policy::{HeaderPattern, OutcomePattern};

fn reject(limit: u64, count: Count) -> Engine {
    engine(vec![rule(
        "r",
        count,
        vec![tier(limit, MINUTE, Action::Reject)],
    )])
}

#[test]
fn an_event_is_decided_before_it_is_counted() {
    let mut engine = reject(1, Count::Requests);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn a_request_counts_when_it_is_asked_about_and_not_again_when_it_is_reported() {
    let mut engine = reject(2, Count::Requests);
    let event = with_id("1", get(CLIENT));
    engine.ask(&event, START);
    engine.reports(&with_status(200, event), 5, START);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    assert_eq!(engine.tally_of("r").counted, 2);
}

#[test]
fn a_request_that_was_never_asked_about_counts_when_it_is_reported() {
    let mut engine = reject(2, Count::Requests);
    engine.reports(&with_status(200, get(CLIENT)), 2, START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn a_status_counts_when_it_is_reported_joined_by_id() {
    let mut engine = reject(1, statuses(401));
    engine.ask(&with_id("1", get(CLIENT)), START);
    // The report names another source: the question's counts.
    engine.report(
        &with_id("1", with_status(401, Event::of(address(OTHER)))),
        START,
    );
    assert!(engine.ask(&get(CLIENT), START).refuses());
    assert!(!engine.ask(&get(OTHER), START).refuses());
}

#[test]
fn an_event_counts_once_per_rule() {
    let mut engine = reject(2, statuses(401));
    engine.ask(&with_id("1", get(CLIENT)), START);
    engine.reports(&with_id("1", with_status(401, get(CLIENT))), 9, START);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn whoever_repeats_an_id_is_counted_anew() {
    let mut engine = reject(3, Count::Requests);
    assert_eq!(engine.passing(&with_id("1", get(CLIENT)), 9, START), 3);
}

#[test]
fn a_report_finds_the_account_and_path_of_its_question() {
    let lock = Rule {
        requests: requests(&["POST /login"]),
        ..by_account("lock", Course::Tiers(vec![tier(1, MINUTE, Action::Reject)]))
    };
    let mut engine = engine(vec![lock]);
    engine.ask(&with_id("1", login(CLIENT, " Alice")), START);
    engine.report(&with_id("1", failed(Event::of(address(CLIENT)))), START);
    let change = engine
        .changes()
        .find(|change| change.what == What::Counted)
        .unwrap();
    let cause = change.event.unwrap();
    assert_eq!(cause.account.as_deref(), Some("alice"));
    assert_eq!(cause.path.as_deref(), Some("/login"));
    assert!(engine.ask(&login(OTHER, "alice"), START).refuses());
}

#[test]
fn attempts_counts_what_was_asked_whatever_came_of_it() {
    let mut engine = reject(3, Count::Attempts);
    for (id, status) in [("1", 200), ("2", 401), ("3", 500)] {
        engine.ask(&with_id(id, get(CLIENT)), START);
        engine.report(&with_id(id, with_status(status, get(CLIENT))), START);
    }
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn failures_counts_what_failed() {
    let mut engine = reject(1, Count::Failures);
    engine.report(&succeeded(login(CLIENT, "alice")), START);
    engine.report(&login(CLIENT, "alice"), START);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    engine.report(&failed(login(CLIENT, "alice")), START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn header_names_ignore_case_and_values_are_trimmed_and_compared_exactly() {
    let pattern = |value: Option<&str>, ignore_case| {
        Count::ResponseHeader(HeaderPattern {
            name: "x-cf-block".to_owned(),
            value: value.map(ToOwned::to_owned),
            ignore_case,
        })
    };
    for (pattern, value, counts) in [
        (pattern(Some("low"), false), " low ", true),
        (pattern(Some("low"), false), "Low", false),
        (pattern(Some("low"), true), "Low", true),
        (pattern(Some("low"), false), "lower", false),
        (pattern(None, false), "", true),
    ] {
        let mut engine = reject(1, pattern);
        engine.report(
            &with_response_header("X-CF-Block", value, get(CLIENT)),
            START,
        );
        assert_eq!(engine.ask(&get(CLIENT), START).refuses(), counts, "{value}");
    }
}

#[test]
fn refused_requests_count_in_no_rule_unless_it_opts_in() {
    for (count_refused, expected) in [(false, 2), (true, 5)] {
        let first = rule(
            "first",
            Count::Requests,
            vec![tier(2, MINUTE, Action::Reject)],
        );
        let second = Rule {
            count_refused,
            ..rule(
                "second",
                Count::Requests,
                vec![tier(100, MINUTE, Action::Reject)],
            )
        };
        let mut engine = engine(vec![first, second]);
        engine.passing(&get(CLIENT), 5, START);
        assert_eq!(engine.tally_of("first").counted, 2);
        assert_eq!(engine.tally_of("second").counted, expected);
    }
}

#[test]
fn responses_that_limiter_made_are_never_taken_for_the_origins() {
    let mut engine = reject(1, statuses(429));
    let own = with_response_header("X-Limiter", "r", with_status(429, get(CLIENT)));
    engine.report(&own, START);
    assert!(!engine.ask(&get(CLIENT), START).refuses());

    let refusing = rule(
        "refusing",
        Count::Requests,
        vec![tier(1, MINUTE, Action::Reject)],
    );
    let errors = rule(
        "errors",
        statuses(429),
        vec![tier(1, MINUTE, Action::Block)],
    );
    let mut engine = super::engine(vec![refusing, errors]);
    engine.ask(&get(CLIENT), START);
    assert!(engine.ask(&with_id("1", get(CLIENT)), START).refuses());
    engine.report(&with_id("1", with_status(429, get(CLIENT))), START);
    assert_eq!(engine.tally_of("errors").counted, 0);
}

fn with_patterns() -> Engine {
    let pattern = |status: u16, location: Option<&str>| {
        Some(OutcomePattern {
            statuses: Some(Statuses::new(vec![status..=status])),
            location: location.map(Pattern::wildcard),
            response_header: None,
        })
    };
    engine(vec![Rule {
        failure: pattern(302, Some("*error*")),
        success: pattern(303, None),
        on_success: OnSuccess::Reset,
        ..by_account("lock", Course::Tiers(vec![tier(2, MINUTE, Action::Reject)]))
    }])
}

#[test]
fn patterns_tell_the_outcome_and_what_matches_neither_counts_as_neither() {
    let mut engine = with_patterns();
    let wrong = with_response_header(
        "Location",
        "/login?error=1",
        with_status(302, login(CLIENT, "alice")),
    );
    let right = with_response_header(
        "Location",
        "/home",
        with_status(302, login(CLIENT, "alice")),
    );
    engine.reports(&right, 5, START);
    engine.report(&wrong, START);
    assert_eq!(engine.tally_of("lock").counted, 1);
    engine.report(&with_status(303, login(CLIENT, "alice")), START);
    engine.report(&wrong, START);
    assert!(!engine.ask(&login(CLIENT, "alice"), START).refuses());
}

#[test]
fn the_applications_own_word_wins_over_patterns() {
    let mut engine = with_patterns();
    let wrong = with_response_header(
        "Location",
        "/login?error=1",
        with_status(302, login(CLIENT, "alice")),
    );
    engine.reports(&succeeded(wrong), 2, START);
    engine.reports(&failed(with_status(303, login(CLIENT, "alice"))), 1, START);
    assert_eq!(engine.tally_of("lock").counted, 1);
}

#[test]
fn credential_less_requests_are_no_failures() {
    let rule = Rule {
        failure: Some(OutcomePattern {
            statuses: Some(Statuses::new(vec![401..=401])),
            location: None,
            response_header: None,
        }),
        ..rule("r", Count::Failures, vec![tier(1, MINUTE, Action::Reject)])
    };
    let mut engine = engine(vec![rule]);
    let mut event = with_status(401, get(CLIENT));
    event.headers = vec![("Accept".into(), "*/*".into())];
    engine.report(&event, START);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    event.headers = vec![("Authorization".into(), "Basic YWxpY2U6eA==".into())];
    engine.report(&event, START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn backends_confine_a_rule_to_events_of_those() {
    let rule = Rule {
        backends: vec!["internal".to_owned()],
        ..by_account("lock", Course::Tiers(vec![tier(1, MINUTE, Action::Reject)]))
    };
    let mut engine = engine(vec![rule]);
    let of = |backend: &str| Event {
        backend: Some(backend.into()),
        ..login(CLIENT, "alice")
    };
    engine.report(&failed(of("ldap")), START);
    assert_eq!(engine.tally_of("lock").counted, 0);
    engine.report(&failed(of("internal")), START);
    assert!(engine.ask(&of("internal"), START).refuses());
    assert!(!engine.ask(&of("ldap"), START).refuses());
}

#[test]
fn a_question_need_not_tell_the_backend_to_be_refused_or_reserved() {
    let rule = Rule {
        backends: vec!["internal".to_owned()],
        ..by_account("lock", Course::Tiers(vec![tier(2, MINUTE, Action::Reject)]))
    };
    let mut engine = engine(vec![rule]);
    let guess = |number: usize| with_id(&number.to_string(), login(CLIENT, "alice"));
    let of = |backend: &str, number| Event {
        backend: Some(backend.into()),
        ..failed(guess(number))
    };
    let passed = (0..9).filter(|number| !engine.ask(&guess(*number), START).refuses());
    assert_eq!(passed.count(), 2);
    // Of another backend, or of none: neither counts.
    engine.report(&of("ldap", 0), START);
    engine.report(&failed(guess(1)), START);
    assert_eq!(engine.tally_of("lock").counted, 0);
    assert!(!engine.ask(&guess(10), START).refuses());
    engine.report(&of("internal", 10), START);
    engine.report(&of("internal", 11), START);
    assert!(engine.ask(&login(OTHER, "alice"), START).refuses());
    assert_eq!(engine.tally_of("lock").matched, 12);
}

#[test]
fn a_score_header_counts_as_much_as_it_says() {
    let mut engine = reject(10, Count::ScoreHeader("x-cost".to_owned()));
    for (value, counted) in [
        ("0", 0),
        ("1000001", 0),
        ("many", 0),
        ("", 0),
        (" 4 ", 1),
        ("6", 2),
    ] {
        engine.report(&with_response_header("X-Cost", value, get(CLIENT)), START);
        assert_eq!(engine.tally_of("r").counted, counted, "{value}");
    }
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn distinct_counts_different_values() {
    let mut engine = reject(3, Count::Distinct(KeyPart::Account));
    for account in ["alice", "ALICE", "bob", "alice "] {
        assert!(!engine.ask(&login(CLIENT, account), START).refuses());
    }
    engine.ask(&login(CLIENT, "carol"), START);
    assert!(engine.ask(&login(CLIENT, "alice"), START).refuses());
    assert!(!engine.ask(&login(OTHER, "alice"), START).refuses());
}

#[test]
fn on_success_keeps_resets_or_halves() {
    for (on_success, further) in [
        (OnSuccess::Keep, 1),
        (OnSuccess::Halve, 3),
        (OnSuccess::Reset, 5),
    ] {
        let lock = Rule {
            on_success,
            ..by_account("lock", lockout())
        };
        let mut engine = engine(vec![lock]);
        engine.reports(&failed(login(CLIENT, "alice")), 4, START);
        engine.report(&succeeded(login(CLIENT, "alice")), START);
        engine.reports(&failed(login(CLIENT, "alice")), further - 1, START);
        assert!(
            !engine.ask(&login(CLIENT, "alice"), START).refuses(),
            "{on_success:?}"
        );
        engine.report(&failed(login(CLIENT, "alice")), START);
        assert!(
            engine.ask(&login(CLIENT, "alice"), START).refuses(),
            "{on_success:?}"
        );
    }
}

#[test]
fn clears_lets_a_counted_event_clear_others() {
    let reset = Rule {
        requests: requests(&["POST /reset/done"]),
        key: vec![KeyPart::Account],
        clears: vec!["lock".to_owned()],
        ..rule(
            "reset",
            Count::Requests,
            vec![tier(1_000, DAY, Action::Reject)],
        )
    };
    let lock = Rule {
        requests: requests(&["POST /login"]),
        ..by_account("lock", lockout())
    };
    let mut engine = engine(vec![reset, lock]);
    engine.reports(&failed(login(CLIENT, "alice")), 5, START);
    engine.reports(&failed(login(CLIENT, "bob")), 5, START);
    assert!(engine.ask(&login(CLIENT, "alice"), START).refuses());
    let done = Event {
        path: Some("/reset/done".into()),
        ..login(CLIENT, "alice")
    };
    engine.report(&done, START);
    assert!(!engine.ask(&login(CLIENT, "alice"), START).refuses());
    assert!(engine.ask(&login(CLIENT, "bob"), START).refuses());
    assert!(engine.changes().any(|change| change.what == What::Cleared));
}

#[test]
fn live_events_more_than_five_seconds_off_use_the_time_of_arrival() {
    for (off_ns, until_ns) in [(5 * S, START - 5 * S + MINUTE), (5 * S + 1, START + MINUTE)] {
        let mut engine = reject(1, Count::Requests);
        engine.ask(&at(START - off_ns, get(CLIENT)), START);
        assert_eq!(engine.ask(&get(CLIENT), START).until_ns, Some(until_ns));
    }
}

#[test]
fn replayed_events_use_their_own_time_and_are_question_and_report_at_once() {
    let mut engine = reject(2, statuses(401));
    let failed = |seconds| at(START + seconds * S, with_status(401, get(CLIENT)));
    assert!(!engine.replay(&failed(0)).refuses());
    assert!(!engine.replay(&failed(59)).refuses());
    assert!(engine.replay(&failed(59)).refuses());
    assert!(!engine.replay(&failed(60)).refuses());
    assert!(engine.replay(&failed(60)).refuses());
}

#[test]
fn a_report_without_the_header_of_the_key_counts_under_that_of_its_question() {
    for part in [KeyPart::Header("x-key".into()), KeyPart::Cookie("c".into())] {
        let by_header = Rule {
            key: vec![part],
            ..rule("r", statuses(401), vec![tier(1, MINUTE, Action::Reject)])
        };
        let mut engine = engine(vec![by_header]);
        let mut event = get(CLIENT);
        event.headers = vec![
            ("X-Key".into(), "a".into()),
            ("Cookie".into(), "c=a".into()),
        ];
        engine.ask(&with_id("1", event.clone()), START);
        engine.report(&with_id("1", with_status(401, get(CLIENT))), START);
        assert!(engine.ask(&event, START).refuses());
    }
}

fn failing_with_401() -> Engine {
    let failure = OutcomePattern {
        statuses: Some(Statuses::new(vec![401..=401])),
        location: None,
        response_header: None,
    };
    engine(vec![Rule {
        failure: Some(failure),
        ..rule("r", Count::Failures, vec![tier(1, MINUTE, Action::Reject)])
    }])
}

#[test]
fn a_posted_login_that_is_answered_with_a_challenge_is_a_failure() {
    let mut engine = failing_with_401();
    let event = Event {
        account: None,
        ..with_status(401, login(CLIENT, ""))
    };
    let event = with_response_header("WWW-Authenticate", "Basic", event);
    engine.report(&event, START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn credentials_of_the_question_are_those_of_its_report() {
    let mut engine = failing_with_401();
    let mut event = with_id("1", get(CLIENT));
    event.headers = vec![("Authorization".into(), "Basic YWxpY2U6eA==".into())];
    engine.ask(&event, START);
    engine.report(&with_id("1", with_status(401, get(CLIENT))), START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn where_the_headers_are_not_known_a_request_is_not_taken_for_credential_less() {
    let mut engine = failing_with_401();
    engine.report(&with_status(401, get(CLIENT)), START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn the_applications_own_word_wins_over_patterns_of_a_later_report() {
    let ok = OutcomePattern {
        statuses: Some(Statuses::new(vec![200..=200])),
        location: None,
        response_header: None,
    };
    let lock = Rule {
        success: Some(ok),
        on_success: OnSuccess::Reset,
        ..by_account("lock", Course::Tiers(vec![tier(2, MINUTE, Action::Reject)]))
    };
    let mut engine = engine(vec![lock]);
    for id in ["1", "2"] {
        let event = || with_id(id, login(CLIENT, "alice"));
        assert!(!engine.ask(&event(), START).refuses());
        engine.report(&failed(event()), START);
        engine.report(&with_status(200, event()), START);
    }
    assert!(engine.ask(&login(CLIENT, "alice"), START).refuses());
}

#[test]
fn a_success_is_noted_once_for_each_question() {
    let lock = Rule {
        on_success: OnSuccess::Halve,
        ..by_account("lock", lockout())
    };
    let mut engine = engine(vec![lock]);
    engine.reports(&failed(login(CLIENT, "alice")), 4, START);
    let event = || with_id("1", login(CLIENT, "alice"));
    engine.ask(&event(), START);
    engine.reports(&succeeded(event()), 5, START);
    engine.reports(&failed(login(CLIENT, "alice")), 3, START);
    assert!(engine.ask(&login(CLIENT, "alice"), START).refuses());
}

/// As with Traefik, which gives no id to question and report.
#[test]
fn what_was_asked_about_without_an_id_counts_once() {
    let mut engine = engine(vec![
        rule("all", Count::Requests, vec![tier(9, HOUR, Action::Reject)]),
        rule("login", statuses(401), vec![tier(9, HOUR, Action::Reject)]),
    ]);
    let request = login(CLIENT, "ann");
    let answered = with_status(401, request.clone());
    let asked = Event {
        asked: true,
        ..answered.clone()
    };
    for _ in 0..3 {
        assert!(!engine.ask(&request, START).refuses());
        engine.report(&asked, START);
    }
    let all = engine.tally_of("all");
    assert_eq!((all.matched, all.counted), (3, 3));
    assert_eq!(engine.tally_of("login").counted, 3);
    // What nobody has asked about counts when it is heard of.
    engine.report(&answered, START);
    assert_eq!(engine.tally_of("all").counted, 4);
}
