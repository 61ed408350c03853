//! LoginWith on limiting logins: what its text asks for.
//!
//! | sentence | kept |
//! |---|---|
//! | logins, resets and second factors have limits of their own, by account | here |
//! | locks that grow, the owner told by e-mail | the locks, and that the owner is to be told: here; the mail: notifications |
//! | 100 attempts of an address in a minute lead to a short block | here |
//! | 429 and Retry-After | here as far as a decision tells; rendered where refusals are |
//! | failed attempts are in the audit log, and last week's are counted in seconds | that each is told: here; the query: `limiter audit` |
//! | a CAPTCHA at the third failure | here; the page: where refusals are rendered |
//! | when locks decay, whether a success forgives, how short a block is | `loginwith_choices` |

use super::*;

const LOGIN: &str = "POST /login";

fn login(account: &str, source: &str) -> Event {
    by(account, request(LOGIN, source))
}

#[test]
fn the_rest_of_the_site_is_not_limited() {
    let mut site = Site::of("loginwith");
    for line in ["GET /", "GET /login", "POST /comments"] {
        let visit = by("alice", request(line, CLIENT));
        assert_eq!(site.served(&visit, 401, 500, START), 500, "{line}");
    }
    for number in 0..5 {
        site.told(&login("alice", &address(number)), 401, START);
    }
    assert!(site.ask(&login("alice", CLIENT), START).refuses());
    let visit = by("alice", request("GET /", CLIENT));
    assert_eq!(site.ask(&visit, START).action, None);
}

#[test]
fn ten_thousand_addresses_that_each_try_seldom_never_reach_the_limit_by_address() {
    let mut site = Site::of("loginwith");
    // Two tries an hour each, at ever other accounts.
    for number in 0..20_000_usize {
        let guess = login(&format!("user {number}"), &address(number % 10_000));
        let now_ns = START + number as u64 * (HOUR / 20_000);
        assert_eq!(site.serve(&guess, 401, now_ns), None);
    }
    assert_eq!(site.tally("login-source").over, 0);
}

#[test]
fn one_account_with_many_attempts_is_what_is_caught_from_wherever_they_come() {
    let mut site = Site::of("loginwith");
    for number in 0..5 {
        let guess = login("alice", &address(number));
        site.serve_solving(&guess, 401, START + number as u64 * S);
    }
    let now_ns = START + 10 * S;
    for number in 5..50 {
        let decision = site.ask(&login("Alice ", &address(number)), now_ns);
        assert_eq!(decision.action, Some(Action::Reject));
        assert_eq!(decision.rule.as_deref(), Some("login-account"));
    }
    assert_eq!(site.ask(&login("bob", &address(5)), now_ns).action, None);
}

#[test]
fn five_failures_in_five_minutes_lock_for_fifteen_with_a_429_that_says_when_to_retry() {
    let mut site = Site::of("loginwith");
    let guess = login("alice", CLIENT);
    for minute in 0..5 {
        site.told(&guess, 401, START + minute * MINUTE);
    }
    let locked_ns = START + 4 * MINUTE;
    let decision = site.ask(&guess, locked_ns);
    assert_eq!(decision.action, Some(Action::Reject));
    assert_eq!(decision.retry_after_s, Some(15 * 60));
    assert_eq!(site.rule("login-account").response.status, 429);
    let end_ns = locked_ns + 15 * MINUTE;
    assert_eq!(site.ask(&guess, end_ns - 1).retry_after_s, Some(1));
    assert!(site.ask(&guess, end_ns - 1).action == Some(Action::Reject));
    assert_eq!(site.solving(&guess, end_ns).1.action, None);
}

#[test]
fn a_count_decays_over_its_window() {
    let mut site = Site::of("loginwith");
    let guess = login("alice", CLIENT);
    // The fifth comes when the first is five minutes old.
    for now_ns in [0, 1, 2, 3, 5].map(|minute| START + minute * MINUTE) {
        site.told(&guess, 401, now_ns);
    }
    assert_eq!(site.began("login-account"), []);
    site.told(&guess, 401, START + 6 * MINUTE - 1);
    assert_eq!(site.began("login-account").len(), 1);
}

/// Fails five times as soon as it may, from an address of its own each time.
fn fail_five(site: &mut Site, line: &str, now_ns: u64) {
    for _ in 0..5 {
        site.asked += 1;
        let source = address(usize::try_from(site.asked % 50_000).unwrap());
        let guess = by("alice", request(line, &source));
        let action = site.serve_solving(&guess, 401, now_ns);
        assert_ne!(action, Some(Action::Reject));
    }
}

#[test]
fn five_more_lock_for_an_hour_and_five_more_for_a_day_and_tell_the_owner() {
    for (line, rule) in [
        (LOGIN, "login-account"),
        ("POST /password-reset", "reset-account"),
        ("POST /mfa/totp", "mfa-account"),
    ] {
        let mut site = Site::of("loginwith");
        let mut now_ns = START;
        // The last step repeats.
        for (rung, lasting_ns) in [(1, 15 * MINUTE), (2, HOUR), (3, DAY), (3, DAY)] {
            fail_five(&mut site, line, now_ns);
            let end_ns = now_ns + lasting_ns;
            let told = rung == 3;
            assert_eq!(
                site.began(rule),
                [(Action::Reject, end_ns, rung, told)],
                "{line}"
            );
            let guess = by("alice", request(line, CLIENT));
            assert_eq!(site.ask(&guess, end_ns - 1).action, Some(Action::Reject));
            now_ns = end_ns;
        }
    }
}

#[test]
fn a_patient_attacker_who_solves_every_captcha_gets_five_guesses_a_day() {
    let mut site = Site::of("loginwith");
    let mut guesses = 0;
    for tick in 0..7 * DAY / (10 * S) {
        let guess = login("alice", &address(usize::try_from(tick % 5_000).unwrap()));
        let action = site.serve_solving(&guess, 401, START + tick * 10 * S);
        guesses += u32::from(action != Some(Action::Reject));
    }
    // Five for each of the first two locks, and for the seven of a day that begin.
    assert_eq!(guesses, 45);
}

#[test]
fn a_hundred_attempts_of_an_address_in_a_minute_lead_to_a_short_block() {
    for (attempts, blocked) in [(99, false), (100, true)] {
        let mut site = Site::of("loginwith");
        // A single bot that solves nothing and runs through accounts.
        for attempt in 0..attempts {
            let guess = login(&format!("user {attempt}"), CLIENT);
            site.serve(&guess, 401, START + attempt * 500 * MS);
        }
        let now_ns = START + (attempts - 1) * 500 * MS;
        let end_ns = now_ns + 5 * MINUTE;
        let expected = if blocked {
            vec![(format!("{CLIENT}/32"), end_ns)]
        } else {
            vec![]
        };
        assert_eq!(site.ordered(), expected);
        let home = request("GET /", CLIENT);
        let action = site.ask(&home, end_ns - 1).action;
        assert_eq!(action, blocked.then_some(Action::Block));
        assert_eq!(site.ask(&home, end_ns).action, None);
    }
}

#[test]
fn attempts_of_an_address_count_whatever_comes_of_them() {
    let mut site = Site::of("loginwith");
    assert_eq!(site.served(&login("alice", CLIENT), 200, 200, START), 100);
    assert_eq!(site.ask(&login("alice", OTHER), START).action, None);
}

#[test]
fn resets_and_second_factors_are_locked_by_attempts_at_five_in_five_minutes() {
    for line in [
        "POST /password-reset",
        "POST /password-reset/code",
        "POST /mfa",
    ] {
        let mut site = Site::of("loginwith");
        let attempt = by("alice", request(line, CLIENT));
        // Attempts, right or wrong.
        assert_eq!(site.served(&attempt, 200, 50, START), 5, "{line}");
        let decision = site.ask(&by("alice", request(line, OTHER)), START);
        assert_eq!(decision.until_ns, Some(START + 15 * MINUTE));
        assert_eq!(
            site.ask(&by("bob", request(line, CLIENT)), START).action,
            None
        );
        let mut site = Site::of("loginwith");
        assert_eq!(site.at_once((0..50).map(|_| attempt.clone()), START), 5);
    }
}

#[test]
fn each_account_and_each_endpoint_has_its_own_count() {
    let mut site = Site::of("loginwith");
    let of = |line| by("alice", request(line, CLIENT));
    site.served(&of("POST /mfa"), 401, 5, START);
    assert!(site.ask(&of("POST /mfa"), START).refuses());
    assert!(!site.ask(&of("POST /password-reset"), START).refuses());
    assert!(!site.ask(&of(LOGIN), START).refuses());
}

#[test]
fn every_failed_attempt_is_told_to_the_audit_log_and_not_only_counted() {
    let mut site = Site::of("loginwith");
    for hour in 0..7 * 24 {
        site.told(
            &login("alice", &address(hour)),
            401,
            START + hour as u64 * HOUR,
        );
    }
    let failures = site.changes().into_iter().filter(|change| {
        let cause = change.event.as_ref();
        *change.rule == *"login-account"
            && change.what == What::Counted
            && cause.is_some_and(|it| {
                it.account.as_deref() == Some("alice") && it.path.as_deref() == Some("/login")
            })
    });
    assert_eq!(failures.count(), 7 * 24);
}

#[test]
fn the_third_failure_of_an_account_brings_a_captcha_wherever_it_came_from() {
    let mut site = Site::of("loginwith");
    for number in 0..3 {
        let guess = login("alice", &address(number));
        assert_eq!(site.serve(&guess, 401, START), None);
    }
    let next = login("alice", CLIENT);
    assert_eq!(site.serve(&next, 401, START), Some(Action::Captcha));
    assert_eq!(site.serve(&login("bob", CLIENT), 401, START), None);
    // Whoever attacks meets it each time, and a person still comes in.
    assert_eq!(site.serve_solving(&next, 401, START), Some(Action::Captcha));
    assert_eq!(site.serve(&next, 401, START), Some(Action::Captcha));
    assert_eq!(site.solving(&next, START).1.action, None);
}

#[test]
fn the_third_failure_of_an_address_brings_a_captcha_whatever_the_account() {
    let mut site = Site::of("loginwith");
    for account in ["alice", "bob", "carol"] {
        assert_eq!(site.serve(&login(account, CLIENT), 401, START), None);
    }
    let next = login("dave", CLIENT);
    assert_eq!(site.serve(&next, 401, START), Some(Action::Captcha));
    assert_eq!(site.serve(&login("dave", OTHER), 401, START), None);
    assert_eq!(site.serve_solving(&next, 200, START), Some(Action::Captcha));
    assert_eq!(site.serve(&next, 200, START), None);
}

#[test]
fn who_is_wrong_once_meets_nothing_and_who_is_wrong_three_times_is_not_locked_out() {
    for typos in [1, 2, 3] {
        let mut site = Site::of("loginwith");
        let attempt = login("alice", CLIENT);
        assert_eq!(site.served(&attempt, 401, typos, START), typos);
        let met = (typos == 3).then_some(Action::Captcha);
        assert_eq!(site.serve_solving(&attempt, 200, START), met);
        assert_eq!(site.began("login-account"), []);
    }
}

#[test]
fn of_fifty_guesses_at_once_for_one_account_no_more_pass_than_the_limit() {
    let guesses = || (0..50).map(|number| login("alice", &address(number)));
    // Three before the CAPTCHA.
    assert_eq!(Site::of("loginwith").at_once(guesses(), START), 3);
    // Five where each solves one, and where there is none.
    let mut site = Site::of("loginwith");
    let numbered: Vec<_> = guesses().map(|guess| site.numbered(&guess)).collect();
    let solved = |guess: &&Event| {
        let (_, decision, _) = site.solving(guess, START);
        !decision.refuses()
    };
    assert_eq!(numbered.iter().filter(solved).count(), 5);
    let off = [
        ("rule.login-captcha-account.simulate", "true"),
        ("rule.login-captcha-source.simulate", "true"),
    ];
    assert_eq!(Site::with("loginwith", &off).at_once(guesses(), START), 5);
}
