//! Ory Kratos: the buckets of its endpoints, and what responses tell of them.
//!
//! | sentence | kept |
//! |---|---|
//! | 60, 30 and 10 requests a minute by how sensitive an endpoint is | here |
//! | X-RateLimit-* on every response, Retry-After and JSON on a 429 | the numbers and the policy: here; rendered where refusals are |
//! | clients read the headers, wait, back off | here |
//! | rates and bursts of a proxy, admin only from inside, exempt networks, shared addresses | `kratos_around` |
//! | Apache's `mod_ratelimit` | not done: it shapes bandwidth |
//! | rules, bot scores, geo-blocking of a WAF | the `cloudflare-*` presets; countries as `edge.deny_files`; no bot scores |
//! | lockout, CAPTCHA after a 429 or more than three failures | `kratos_around`; the CAPTCHA's providers: where challenges are rendered |
//! | 429s as a metric, an alert on their rate | that each is counted: `kratos_around`; the metric and its alert: where refusals are rendered |
//! | top addresses and endpoints with 429 | that each refusal tells both: `kratos_around`; the query: `limiter audit` |
//! | responses cached in front, client code, batching | not a limiter's |

use super::*;
use limiter_user::policy::{Body, LimitHeaders};

const WHOAMI: &str = "GET /sessions/whoami";
const INTERNAL: &str = "10.1.2.3";

const LOW: [&str; 3] = [WHOAMI, "GET /sessions", "GET /.well-known/ory/webauthn.js"];
const MEDIUM: [&str; 13] = [
    "GET /self-service/login/browser",
    "GET /self-service/login/api",
    "POST /self-service/login",
    "GET /self-service/registration/browser",
    "POST /self-service/registration",
    "GET /self-service/recovery/browser",
    "POST /self-service/recovery",
    "GET /self-service/verification/browser",
    "POST /self-service/verification",
    "GET /self-service/settings/browser",
    "POST /self-service/settings",
    "GET /self-service/logout/browser",
    "DELETE /sessions/3f2a",
];
const HIGH: [&str; 5] = [
    "POST /admin/identities",
    "GET /admin/identities",
    "DELETE /admin/identities/3f2a",
    "GET /admin/sessions",
    "PATCH /admin/any/other",
];

/// A bucket's rule, its endpoints, limit, how far apart requests are that no burst hinders, and
/// who makes them.
type Bucket = (
    &'static str,
    &'static [&'static str],
    u64,
    u64,
    &'static str,
);

const BUCKETS: [Bucket; 3] = [
    ("kratos-low", &LOW, 60, 200 * MS, CLIENT),
    ("kratos-medium", &MEDIUM, 30, 200 * MS, CLIENT),
    // Insiders only, one a second.
    ("kratos-high", &HIGH, 10, S, INTERNAL),
];

#[test]
fn each_endpoint_lets_sixty_thirty_or_ten_requests_a_minute_pass() {
    for (rule, endpoints, limit, apart_ns, source) in BUCKETS {
        for line in endpoints {
            let mut site = Site::of("kratos");
            let visit = request(line, source);
            for number in 0..limit {
                let action = site.serve(&visit, 200, START + number * apart_ns);
                assert_eq!(action, None, "{line} {number}");
            }
            let decision = site.ask(&visit, START + limit * apart_ns);
            assert_eq!(decision.action, Some(Action::Reject), "{line}");
            assert_eq!(decision.rule.as_deref(), Some(rule));
        }
    }
}

#[test]
fn the_endpoints_of_a_bucket_share_it_and_buckets_share_nothing() {
    for (rule, endpoints, limit, apart_ns, source) in BUCKETS {
        let mut site = Site::of("kratos");
        for (number, line) in (0..limit).zip(endpoints.iter().cycle()) {
            let now_ns = START + number * apart_ns;
            assert_eq!(site.serve(&request(line, source), 200, now_ns), None);
        }
        let now_ns = START + limit * apart_ns;
        for (other, lines, ..) in BUCKETS {
            let refused = site.ask(&request(lines[1], source), now_ns).refuses();
            let is_shut_out = other == "kratos-high" && source != INTERNAL;
            assert_eq!(refused, other == rule || is_shut_out, "{other}");
        }
        assert!(
            !site
                .ask(&request(endpoints[0], "10.9.9.9"), now_ns)
                .refuses()
        );
        assert!(site.remarks("all endpoints of a bucket share its count"));
    }
}

#[test]
fn every_response_tells_the_limit_what_is_left_and_when_it_resets() {
    for (rule, endpoints, limit, _, source) in BUCKETS {
        for line in endpoints {
            let mut site = Site::of("kratos");
            for used in 1..=3 {
                let decision = site.ask(&request(line, source), START);
                assert_eq!(decision.shown.as_deref(), Some(rule), "{line}");
                assert_eq!(decision.limit, Some(limit));
                assert_eq!(decision.remaining, Some(limit - used));
                assert_eq!(decision.reset_s, Some((START + MINUTE) / S));
            }
        }
        let site = Site::of("kratos");
        let response = &site.rule(rule).response;
        assert_eq!(response.headers, LimitHeaders::XRatelimit);
    }
}

#[test]
fn a_429_tells_when_to_retry_that_nothing_is_left_and_the_time_of_the_reset() {
    let mut site = Site::of("kratos");
    for number in 0..60 {
        site.ask(&request(WHOAMI, CLIENT), START + number * 300 * MS);
    }
    // The first leaves the minute 42 seconds from now.
    let now_ns = START + 18 * S;
    let decision = site.ask(&request(WHOAMI, CLIENT), now_ns);
    assert_eq!(decision.action, Some(Action::Reject));
    assert_eq!(decision.retry_after_s, Some(42));
    assert_eq!((decision.limit, decision.remaining), (Some(60), Some(0)));
    assert_eq!(decision.reset_s, Some(now_ns / S + 42));
    for rule in [
        "kratos-low",
        "kratos-medium",
        "kratos-high",
        "kratos-lockout",
    ] {
        let response = &site.rule(rule).response;
        assert_eq!((response.status, &response.body), (429, &Body::OryJson));
    }
}

#[test]
fn a_client_that_waits_as_long_as_it_is_told_comes_in() {
    let mut site = Site::of("kratos");
    let admin = request("GET /admin/sessions", INTERNAL);
    let mut now_ns = START;
    let mut passed = 0;
    for _ in 0..200 {
        let decision = site.ask(&admin, now_ns);
        passed += u32::from(!decision.refuses());
        now_ns += decision.retry_after_s.unwrap_or(0) * S;
    }
    assert!(passed >= 100, "{passed}");
    // Ten a minute it is, however eager.
    let minutes = (now_ns - START).div_ceil(MINUTE) + 1;
    assert!(u64::from(passed) <= 10 * minutes, "{passed} in {minutes}");
}

#[test]
fn a_client_that_doubles_its_delay_comes_in_for_what_is_refused_does_not_count() {
    let mut site = Site::of("kratos");
    for number in 0..30 {
        site.ask(&request(MEDIUM[0], CLIENT), START + number * 100 * MS);
    }
    let mut now_ns = START + 3 * S;
    for attempt in 0..6 {
        assert!(site.ask(&request(MEDIUM[0], CLIENT), now_ns).refuses());
        now_ns += S << attempt;
    }
    let (_, decision, met) = site.solving(&request(MEDIUM[0], CLIENT), now_ns);
    assert_eq!((decision.action, met), (None, Some(Action::Captcha)));
}

#[test]
fn a_client_sees_the_limit_coming_nearer_one_by_one() {
    let mut site = Site::of("kratos");
    let left: Vec<_> = (0..60)
        .map(|number| {
            site.ask(&request(WHOAMI, CLIENT), START + number * 200 * MS)
                .remaining
        })
        .collect();
    let expected: Vec<_> = (0..60).rev().map(Some).collect();
    assert_eq!(left, expected);
}

#[test]
fn a_clock_that_is_wrong_moves_no_window() {
    let mut site = Site::of("kratos");
    for number in 0..60 {
        let visit = Event {
            at_ns: Some(START - number * HOUR),
            ..request(WHOAMI, CLIENT)
        };
        assert_eq!(site.ask(&visit, START + number * 200 * MS).action, None);
    }
    assert!(site.ask(&request(WHOAMI, CLIENT), START + 12 * S).refuses());
}
