//! Cloudflare's rate limiting: logins, and what the origin says in a header.
//!
//! | sentence | kept |
//! |---|---|
//! | traffic may be challenged instead of blocked; JavaScript challenge, CAPTCHA, block, simulate | here; the pages that challenge: where refusals are rendered |
//! | simulated requests are not charged, plans have so many rules | nobody is charged; a policy has up to 256 rules |
//! | counting by what the origin's response has | here |
//! | attacks on layers 3 and 4 | limits of the edge, `limiter-user/tests/flood.rs` and the tests of the data plane |
//! | lists of addresses that age out, feeds of bad reputation | blocks that age out: here; feeds: `edge.deny_files` |
//! | enumeration, scraping | `cloudflare_content` |

use super::*;

const SIGNIN: &str = "POST /signin";
const LOGIN: &str = "POST /login";

fn protected() -> Site {
    Site::with("protect-login", &[("path", "/signin")])
}

#[test]
fn who_tries_to_log_in_more_than_five_times_in_five_minutes_is_blocked_for_fifteen() {
    let mut site = protected();
    let signin = request(SIGNIN, CLIENT);
    for second in 0..5 {
        assert_eq!(site.serve(&signin, 401, START + second * S), None);
    }
    // Five are not more than five.
    assert_eq!(
        site.serve(&request("GET /", CLIENT), 200, START + 5 * S),
        None
    );
    assert!(site.ordered().is_empty());
    // The sixth is. It passes itself, and blocks from there on.
    assert_eq!(site.serve(&signin, 401, START + 6 * S), None);
    let until_ns = START + 6 * S + 15 * MINUTE;
    assert_eq!(site.ordered(), [(format!("{CLIENT}/32"), until_ns)]);
    for line in [SIGNIN, "GET /"] {
        let decision = site.ask(&request(line, CLIENT), START + 7 * S);
        assert_eq!(decision.action, Some(Action::Block), "{line}");
        assert_eq!(decision.until_ns, Some(until_ns));
    }
    assert_eq!(
        site.serve(&request(SIGNIN, OTHER), 401, START + 7 * S),
        None
    );
    assert!(site.remarks("More than 5: the sixth still passes, and what comes after it does not."));
}

#[test]
fn an_attempt_five_minutes_ago_is_not_within_five_minutes() {
    for (sixth_ns, blocked) in [(5 * MINUTE - 1, true), (5 * MINUTE, false)] {
        let mut site = protected();
        let signin = request(SIGNIN, CLIENT);
        site.serve(&signin, 401, START);
        site.served(&signin, 401, 4, START + MINUTE);
        assert_eq!(site.serve(&signin, 401, START + sixth_ns), None);
        assert_eq!(site.ordered().len(), usize::from(blocked), "{sixth_ns}");
        let next = site.serve(&signin, 401, START + sixth_ns);
        assert_eq!(next, blocked.then_some(Action::Block));
    }
}

#[test]
fn after_fifteen_minutes_it_starts_anew_however_hard_it_was_tried_meanwhile() {
    let mut site = protected();
    let signin = request(SIGNIN, CLIENT);
    assert_eq!(site.served(&signin, 401, 1_000, START), 6);
    let until_ns = START + 15 * MINUTE;
    for second in 0..15 * 60 {
        let action = site.serve(&signin, 401, START + second * S);
        assert_eq!(action, Some(Action::Block));
    }
    assert_eq!(site.serve(&signin, 401, until_ns - 1), Some(Action::Block));
    assert_eq!(site.served(&signin, 401, 1_000, until_ns), 6);
}

#[test]
fn the_page_that_was_entered_is_the_one_that_is_protected() {
    let mut site = protected();
    for line in [LOGIN, "GET /signin", "POST /signin/help"] {
        assert_eq!(
            site.served(&request(line, CLIENT), 200, 50, START),
            50,
            "{line}"
        );
    }
    let spelled = request("POST //sign%69n?next=/", CLIENT);
    assert_eq!(site.served(&spelled, 401, 50, START), 6);
    // As it comes, it is /login.
    let mut site = Site::of("protect-login");
    assert_eq!(site.served(&request(LOGIN, CLIENT), 401, 50, START), 6);
}

#[test]
fn of_fifty_attempts_at_once_no_more_pass_than_one_after_the_other() {
    let fifty = |line| (0..50).map(move |_| request(line, CLIENT));
    assert_eq!(protected().at_once(fifty(SIGNIN), START), 6);
    assert_eq!(Site::of("cloudflare-login").at_once(fifty(LOGIN), START), 4);
}

#[test]
fn a_person_who_is_wrong_three_times_and_resets_the_password_meets_nothing() {
    let mut site = Site::of("cloudflare-login");
    assert_eq!(site.served(&request(LOGIN, CLIENT), 401, 3, START), 3);
    assert_eq!(
        site.serve(&request("POST /forgot", CLIENT), 200, START),
        None
    );
    assert_eq!(
        site.serve(&request(LOGIN, CLIENT), 200, START + MINUTE),
        None
    );
}

#[test]
fn both_401_and_403_tell_a_failed_login_and_only_of_posts_to_the_page() {
    let mut site = Site::of("cloudflare-login");
    let login = request(LOGIN, CLIENT);
    for line in ["GET /login", "POST /other"] {
        assert_eq!(site.served(&request(line, CLIENT), 401, 50, START), 50);
    }
    assert_eq!(site.served(&login, 200, 50, START), 50);
    for status in [401, 403, 401, 403] {
        assert_eq!(site.serve(&login, status, START), None);
    }
    assert_eq!(site.serve(&login, 401, START), Some(Action::JsChallenge));
}

#[test]
fn four_failures_in_a_minute_are_challenged_and_a_challenge_is_a_way_in() {
    let mut site = Site::of("cloudflare-login");
    let login = request(LOGIN, CLIENT);
    site.served(&login, 401, 4, START);
    assert_eq!(
        site.serve(&login, 401, START + MINUTE - 1),
        Some(Action::JsChallenge)
    );
    // Only the login is, and only until the four are older than a minute.
    assert_eq!(site.serve(&request("GET /", CLIENT), 200, START + S), None);
    assert_eq!(site.ask(&login, START + MINUTE).action, None);
    let (_, decision, met) = site.solving(&login, START + S);
    assert_eq!((decision.action, met), (None, Some(Action::JsChallenge)));
    assert_eq!(site.serve(&login, 200, START + S), None);
}

#[test]
fn who_goes_on_failing_is_challenged_then_shown_a_captcha_then_blocked_for_a_day() {
    let mut site = Site::of("cloudflare-login");
    let login = request(LOGIN, CLIENT);
    let mut met = Vec::new();
    for failures in 0..=20 {
        // Slow enough for ten in five minutes, fast enough for four in one.
        let now_ns = START + failures * 5 * S;
        if let Some(action) = site.serve_solving(&login, 401, now_ns) {
            met.push((failures, action));
        }
    }
    let (js, captcha) = (Action::JsChallenge, Action::Captcha);
    let expected = [
        (4, js),
        (8, js),
        (10, captcha),
        (12, js),
        (16, js),
        (20, Action::Block),
    ];
    assert_eq!(met, expected);
    let until_ns = START + 19 * 5 * S + DAY;
    assert_eq!(site.ordered(), [(format!("{CLIENT}/32"), until_ns)]);
    assert_eq!(site.ask(&login, until_ns - 1).action, Some(Action::Block));
    assert_eq!(site.ask(&login, until_ns).action, None);
}

#[test]
fn a_bot_that_cycles_through_names_gets_twenty_tries_a_day() {
    let mut site = Site::of("cloudflare-login");
    let mut let_through = 0;
    for second in 0..24 * 3_600 {
        let login = by(&format!("user {second}"), request(LOGIN, CLIENT));
        let action = site.serve(&login, 401, START + second * S);
        let_through += u32::from(action.is_none());
    }
    assert_eq!(let_through, 20);
    // Nobody was ever shut out for three.
    assert_eq!(site.began("login").last().unwrap().0, Action::Block);
}

#[test]
fn a_rule_that_is_tried_in_simulation_tells_what_it_would_do_and_does_nothing() {
    let mut site = Site::with("cloudflare-login", &[("rule.login.simulate", "true")]);
    let login = request(LOGIN, CLIENT);
    let mut told = Vec::new();
    for second in 0..60 {
        let decision = site.ask(&login, START + second * S);
        assert_eq!(decision.action, None);
        told.extend(decision.simulated.filter(|action| !told.contains(action)));
        site.told(&login, 401, START + second * S);
    }
    assert_eq!(told, [Action::JsChallenge, Action::Captcha, Action::Block]);
    assert!(site.ordered().is_empty());
    assert_eq!(site.tally("login").counted, 60);
}

fn named(value: &str, request: &Event) -> Event {
    Event {
        response_headers: vec![("X-CF-Block".into(), value.into())],
        ..answered(200, request)
    }
}

#[test]
fn the_origin_blocks_by_a_header_for_five_fifteen_or_sixty_minutes_at_once() {
    for (value, minutes) in [("low", 5), ("medium", 15), ("high", 60), ("High", 60)] {
        for line in ["GET /", "DELETE /any/thing"] {
            let mut site = Site::of("cloudflare-headers");
            let first = request(line, CLIENT);
            assert_eq!(site.ask(&first, START).action, None);
            site.engine.report(&named(value, &first), START);
            // The order is out before there is a next request.
            let until_ns = START + minutes * MINUTE;
            assert_eq!(site.ordered(), [(format!("{CLIENT}/32"), until_ns)]);
            let next = request("GET /elsewhere", CLIENT);
            assert_eq!(site.ask(&next, START).action, Some(Action::Block));
            assert_eq!(site.ask(&request(line, OTHER), START).action, None);
            // Nobody has to take it off a list again.
            assert_eq!(site.ask(&next, until_ns - 1).action, Some(Action::Block));
            assert_eq!(site.ask(&next, until_ns).action, None);
        }
    }
}

#[test]
fn another_value_or_no_header_blocks_nobody() {
    let mut site = Site::of("cloudflare-headers");
    let visit = request("GET /", CLIENT);
    for value in ["", "none", "lowest"] {
        site.engine.report(&named(value, &visit), START);
    }
    assert_eq!(site.served(&visit, 403, 100, START), 100);
}

#[test]
fn a_repeat_offender_is_blocked_for_longer_and_never_for_less() {
    let mut site = Site::of("cloudflare-headers");
    let visit = request("GET /", CLIENT);
    // Answers to what was under way when the first came.
    for value in ["low", "high", "medium"] {
        site.engine.report(&named(value, &visit), START);
    }
    let decision = site.ask(&visit, START + 16 * MINUTE);
    assert_eq!(decision.rule.as_deref(), Some("origin-high"));
    assert_eq!(decision.until_ns, Some(START + HOUR));
    assert_eq!(site.ask(&visit, START + HOUR).action, None);
}
