//! boruta's rate limiting.
//!
//! | sentence | kept |
//! |---|---|
//! | an authorization server must limit requests; ten a second | here |
//! | a product of factors over the past, times a constant, delays and then rejects | here; the formula over random requests: `engine::count::boruta` |
//! | by the remote address, counted by each instance | here |
//! | count, time_unit, penality, timeout | here |
//! | OAuth, OpenID and metadata endpoints; pages for end users are not done yet | here |
//! | 429 with an empty body | here as far as the policy says it; rendered where refusals are |

use super::*;

fn token(source: &str) -> Event {
    request("POST /oauth/token", source)
}

/// The delay of one more request, in milliseconds, after so many in each of the last
/// seconds, the latest last; `None`: it is rejected.
fn delay_ms(site: &mut Site, counts: &[usize]) -> Option<u64> {
    for (second, count) in counts.iter().enumerate() {
        for _ in 0..*count {
            site.told(&token(CLIENT), 200, START + second as u64 * S);
        }
    }
    let now_ns = START + (counts.len() as u64 - 1) * S;
    let decision = site.ask(&token(CLIENT), now_ns);
    (decision.action != Some(Action::Reject)).then_some(decision.delay_ms)
}

#[test]
fn up_to_ten_requests_a_second_pass_for_good() {
    let mut site = Site::of("boruta");
    for request in 0..10 * 600 {
        let now_ns = START + request * 100 * MS;
        assert_eq!(site.serve(&token(CLIENT), 200, now_ns), None);
    }
}

#[test]
fn beyond_that_it_waits_longer_and_longer_until_it_is_rejected_at_five_seconds() {
    // Of floating-point operations in boruta's own order: 11 give 549, and not 550.
    for (requests, expected) in [
        (0, Some(0)),
        (10, Some(0)),
        (11, Some(549)),
        (15, Some(750)),
        (20, Some(1_000)),
        (50, Some(2_500)),
        (99, Some(4_950)),
        (100, None),
        (600, None),
    ] {
        assert_eq!(
            delay_ms(&mut Site::of("boruta"), &[requests]),
            expected,
            "{requests}"
        );
    }
}

#[test]
fn what_waits_is_throttled_and_passes() {
    let mut site = Site::of("boruta");
    assert_eq!(site.served(&token(CLIENT), 200, 11, START), 11);
    let decision = site.ask(&token(CLIENT), START);
    assert_eq!(decision.action, Some(Action::Throttle));
    assert!(!decision.refuses());
}

#[test]
fn the_past_seconds_multiply_each_other_up_and_down() {
    for (counts, expected) in [
        // Repeated bursts: 1.5 * 1.5 * 500, and again times 1.5.
        (&[15, 15][..], Some(1_125)),
        (&[15, 15, 15][..], Some(1_687)),
        (&[20, 20, 20][..], Some(4_000)),
        (&[20, 20, 20, 20][..], None),
        // A second without requests is neutral, one with few is credit.
        (&[20, 0, 0, 11][..], Some(1_099)),
        (&[20, 5, 11][..], Some(549)),
        (&[1, 100][..], Some(0)),
    ] {
        assert_eq!(
            delay_ms(&mut Site::of("boruta"), counts),
            expected,
            "{counts:?}"
        );
    }
    assert!(Site::of("boruta").remarks("seconds with fewer requests are a credit"));
}

#[test]
fn the_credit_of_quiet_seconds_can_be_taken_away() {
    let clamped = || Site::with("boruta", &[("rule.boruta.faithful", "false")]);
    assert_eq!(delay_ms(&mut clamped(), &[1, 99]), Some(4_950));
    assert_eq!(delay_ms(&mut clamped(), &[1, 100]), None);
}

#[test]
fn fifty_seconds_are_looked_at() {
    let burst = |quiet: usize| {
        let mut counts = vec![20];
        counts.extend(vec![0; quiet]);
        counts
    };
    assert_eq!(delay_ms(&mut Site::of("boruta"), &burst(49)), Some(1_000));
    assert_eq!(delay_ms(&mut Site::of("boruta"), &burst(50)), Some(0));
}

#[test]
fn who_is_rejected_recovers_because_rejected_requests_do_not_count() {
    let mut site = Site::of("boruta");
    assert_eq!(delay_ms(&mut site, &[100]), None);
    for second in 0..50 {
        let action = site.ask(&token(CLIENT), START + second * S).action;
        assert_eq!(action, Some(Action::Reject), "{second}");
    }
    assert_eq!(site.ask(&token(CLIENT), START + 50 * S).action, None);
}

#[test]
fn it_is_by_address() {
    let mut site = Site::of("boruta");
    assert_eq!(delay_ms(&mut site, &[100]), None);
    assert_eq!(site.ask(&token(OTHER), START).action, None);
}

#[test]
fn each_instance_counts_for_itself() {
    let (mut one, mut other) = (Site::of("boruta"), Site::of("boruta"));
    assert_eq!(delay_ms(&mut one, &[100]), None);
    assert_eq!(delay_ms(&mut other, &[10]), Some(0));
}

#[test]
fn its_endpoints_share_the_count_and_other_pages_are_not_limited() {
    let limited = [
        "POST /oauth/introspect",
        "POST /oauth/revoke",
        "GET /oauth/userinfo",
        "POST /oauth/pushed_authorization_request",
        "GET /openid/jwks",
        "POST /openid/credential",
        "POST /openid/defered-credential",
        "GET /.well-known/openid-configuration",
        "GET /.well-known/oauth-authorization-server",
        "GET /.well-known/openid-credential-issuer",
    ];
    for line in limited {
        let mut site = Site::of("boruta");
        assert_eq!(delay_ms(&mut site, &[100]), None);
        let visit = request(line, CLIENT);
        assert_eq!(
            site.ask(&visit, START).action,
            Some(Action::Reject),
            "{line}"
        );
    }
    let mut site = Site::of("boruta");
    assert_eq!(delay_ms(&mut site, &[100]), None);
    for line in ["GET /users/log_in", "POST /users/log_in", "GET /"] {
        assert_eq!(
            site.served(&request(line, CLIENT), 200, 500, START),
            500,
            "{line}"
        );
    }
    assert!(site.remarks("The pages for end users are not limited, as there."));
}

#[test]
fn a_rejection_is_a_429_with_nothing_in_it() {
    use limiter_user::policy::{Body, LimitHeaders};
    let site = Site::of("boruta");
    let response = &site.rule("boruta").response;
    assert_eq!((response.status, &response.body), (429, &Body::Empty));
    assert_eq!(response.headers, LimitHeaders::None);
}
