//! OpenSearch's failure listeners.
//!
//! | sentence | kept |
//! |---|---|
//! | limits on calls manage traffic; on failed logins they help against guessing | here |
//! | by username, by address, or both | here |
//! | allowed_tries, time_window_seconds, block_expiry_seconds | here |
//! | max_blocked_clients, max_tracked_clients bound the memory | here; over millions of keys: `engine::tests::capacity` |
//! | more tries take more heap | so here, a stamp a try: `engine::count::log` |
//! | challenge: false is to be set first | not needed: a request without credentials is no failure, here |
//! | authentication_backend: internal | here |

use super::*;
use limiter_user::engine::Mode;
use limiter_user::policy::{Body, LimitHeaders};

const BY_NAME: &str = "internal_authentication_backend_limiting";
const BY_ADDRESS: &str = "ip_rate_limiting";

/// A login of a name at the internal backend.
fn login(name: &str, source: &str) -> Event {
    Event {
        backend: Some("internal".into()),
        ..by(name, request("GET /_search", source))
    }
}

/// The preset with one of its listeners alone.
fn only(rule: &str, set: &[(&str, &str)]) -> Site {
    let mut site = Site::with("opensearch", set);
    let other = if rule == BY_NAME { BY_ADDRESS } else { BY_NAME };
    assert!(site.engine.set_mode(other, Mode::Off));
    site
}

/// Whether a login is let through.
fn passes(site: &mut Site, login: &Event, now_ns: u64) -> bool {
    !site.ask(login, now_ns).refuses()
}

#[test]
fn a_name_that_failed_is_refused_to_every_machine() {
    let mut site = Site::of("opensearch");
    for number in 0..3 {
        let guess = login("alice", &address(number));
        assert_eq!(site.serve(&guess, 401, START), None, "{number}");
    }
    for number in 3..30 {
        let decision = site.ask(&login("alice", &address(number)), START);
        assert_eq!(decision.action, Some(Action::Reject));
        assert_eq!(decision.until_ns, Some(START + MINUTE));
    }
    assert!(passes(&mut site, &login("bob", &address(30)), START));
    // As there, it looks like a wrong password.
    let response = &site.rule(BY_NAME).response;
    assert_eq!((response.status, &response.body), (401, &Body::Empty));
    assert_eq!(response.headers, LimitHeaders::None);
}

#[test]
fn three_tries_within_sixty_seconds_are_allowed_and_counted_for_so_long() {
    for (third_ns, refused) in [(MINUTE - 1, true), (MINUTE, false)] {
        let mut site = only(BY_NAME, &[]);
        let guess = login("alice", CLIENT);
        for now_ns in [0, S, third_ns] {
            assert_eq!(site.serve(&guess, 401, START + now_ns), None);
        }
        assert_eq!(passes(&mut site, &guess, START + third_ns), !refused);
    }
}

#[test]
fn only_failures_are_tries_and_a_success_takes_none_of_them_back() {
    let mut site = only(BY_NAME, &[]);
    let attempt = login("alice", CLIENT);
    assert_eq!(site.served(&attempt, 200, 100, START), 100);
    assert_eq!(site.served(&attempt, 403, 100, START), 100);
    for status in [401, 401, 200] {
        assert_eq!(site.serve(&attempt, status, START), None);
    }
    assert_eq!(site.serve(&attempt, 401, START), None);
    assert!(!passes(&mut site, &attempt, START));
    assert!(site.remarks("A success forgives nothing, as there."));
}

#[test]
fn after_the_block_the_name_starts_anew_and_trying_meanwhile_does_not_lengthen_it() {
    let mut site = only(BY_NAME, &[]);
    let guess = login("alice", CLIENT);
    assert_eq!(site.served(&guess, 401, 50, START), 3);
    for second in 0..60 {
        assert!(site.serve(&guess, 401, START + second * S).is_some());
    }
    assert!(!passes(&mut site, &guess, START + MINUTE - 1));
    assert_eq!(site.served(&guess, 401, 50, START + MINUTE), 3);
}

#[test]
fn the_listener_hears_its_own_authentication_backend_alone() {
    let of = |backend: Option<&str>, source: &str| Event {
        backend: backend.map(Into::into),
        ..login("alice", source)
    };
    let mut site = only(BY_NAME, &[]);
    for backend in [Some("ldap"), None] {
        assert_eq!(site.served(&of(backend, CLIENT), 401, 50, START), 50);
    }
    for number in 0..3 {
        site.told(&of(Some("internal"), &address(number)), 401, START);
    }
    assert!(passes(&mut site, &of(Some("ldap"), CLIENT), START));
    // Who asks before the login cannot know the backend, and need not.
    assert!(!passes(&mut site, &of(None, CLIENT), START));
    assert!(site.remarks("take this line out"));
    let every = format!("rule.{BY_NAME}.backends");
    let mut site = only(BY_NAME, &[(every.as_str(), "[]")]);
    assert_eq!(site.served(&of(None, CLIENT), 401, 50, START), 3);
}

#[test]
fn a_proxy_finds_the_name_where_http_basic_authentication_has_it() {
    let mut site = Site::of("opensearch");
    for number in 0..3 {
        let mut guess = login("", &address(number));
        guess.account = None;
        guess.headers = vec![("Authorization".into(), "Basic YWxpY2U6eA==".into())];
        site.told(&guess, 401, START);
    }
    assert!(!passes(&mut site, &login("alice", CLIENT), START));
}

#[test]
fn a_machine_whose_login_failed_is_blocked_for_three_minutes_with_all_its_names() {
    let mut site = Site::of("opensearch");
    assert_eq!(site.serve(&login("alice", CLIENT), 401, START), None);
    let until_ns = START + 180 * S;
    assert_eq!(site.ordered(), [(format!("{CLIENT}/32"), until_ns)]);
    let next = login("bob", CLIENT);
    let decision = site.ask(&next, until_ns - 1);
    assert_eq!(decision.action, Some(Action::Block));
    assert_eq!(decision.rule.as_deref(), Some(BY_ADDRESS));
    assert!(passes(&mut site, &login("alice", OTHER), START));
    assert!(passes(&mut site, &next, until_ns));
}

#[test]
fn an_address_may_be_given_more_tries_within_its_window() {
    let set = |key: &str| format!("rule.{BY_ADDRESS}.{key}");
    let (limit, period, lasting) = (set("limit"), set("period"), set("for"));
    for (third_ns, blocked) in [(MINUTE - 1, true), (MINUTE, false)] {
        let mut site = only(
            BY_ADDRESS,
            &[
                (limit.as_str(), "3"),
                (period.as_str(), "60s"),
                (lasting.as_str(), "60s"),
            ],
        );
        for (name, now_ns) in [("alice", 0), ("bob", S), ("carol", third_ns)] {
            assert_eq!(site.serve(&login(name, CLIENT), 401, START + now_ns), None);
        }
        let next = login("dave", CLIENT);
        assert_eq!(passes(&mut site, &next, START + third_ns), !blocked);
        assert!(passes(&mut site, &next, START + third_ns + MINUTE));
    }
}

#[test]
fn a_request_without_credentials_is_no_failed_login() {
    let mut site = Site::of("opensearch");
    let mut bare = login("", CLIENT);
    bare.account = None;
    bare.headers = vec![("Host".into(), "search.example".into())];
    bare.response_headers = vec![("WWW-Authenticate".into(), "Basic".into())];
    assert_eq!(site.served(&bare, 401, 50, START), 50);
    // Of one whose headers nobody told, it cannot be known.
    bare.headers.clear();
    assert_eq!(site.served(&bare, 401, 50, START), 1);
    assert!(site.remarks("a request without credentials is no failure here"));
}

#[test]
fn of_fifty_guesses_at_once_three_pass() {
    let guesses = (0..50).map(|number| login("alice", &address(number)));
    assert_eq!(Site::of("opensearch").at_once(guesses, START), 3);
}

#[test]
fn no_more_clients_are_tracked_than_said() {
    for (rule, limit) in [(BY_NAME, "3"), (BY_ADDRESS, "3")] {
        let (tracked, tries) = (format!("rule.{rule}.tracked"), format!("rule.{rule}.limit"));
        let mut site = only(rule, &[(tracked.as_str(), "100"), (tries.as_str(), limit)]);
        for number in 0..5_000 {
            let guess = login(&format!("user {number}"), &address(number));
            site.told(&guess, 401, START);
        }
        let tally = site.tally(rule);
        assert_eq!(tally.tracked, 100);
        assert_eq!(tally.evicted_under_count, 4_900);
    }
    let site = Site::of("opensearch");
    let bounds =
        [BY_NAME, BY_ADDRESS].map(|rule| (site.rule(rule).tracked, site.rule(rule).blocked));
    assert_eq!(bounds, [(100_000, 100_000); 2]);
}

#[test]
fn no_more_clients_are_blocked_than_said_and_those_who_are_stay_blocked() {
    for rule in [BY_NAME, BY_ADDRESS] {
        let (blocked, tries) = (format!("rule.{rule}.blocked"), format!("rule.{rule}.limit"));
        let mut site = only(rule, &[(blocked.as_str(), "2"), (tries.as_str(), "1")]);
        let guess = |number| login(&format!("user {number}"), &address(number));
        for number in 0..4 {
            site.told(&guess(number), 401, START);
        }
        for number in 0..2 {
            assert!(!passes(&mut site, &guess(number), START + S), "{rule}");
        }
        assert_eq!(site.tally(rule).active, 2);
        assert!(site.tally(rule).full >= 2);
    }
}
