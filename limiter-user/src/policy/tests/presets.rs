//! The presets have the numbers of the systems that they stand for.

use std::time::Duration;

use super::super::*;
use super::loaded;

fn rules(preset: &str) -> Vec<Rule> {
    let text = template(Some(preset), &[]).unwrap();
    loaded(&text).policy.decide.unwrap().rules
}

fn rule(preset: &str, name: &str) -> Rule {
    let found = rules(preset).into_iter().find(|rule| rule.name == name);
    found.unwrap_or_else(|| panic!("{preset} {name}"))
}

/// Of each tier or rung: the count that reaches it, the period and the time of
/// the action in seconds, and the action.
fn steps(rule: &Rule) -> Vec<(u64, u64, Option<u64>, Action)> {
    let of = |window: &Window, effect: &Effect, lasting: Option<Duration>| {
        let lasting = lasting.map(|it| it.as_secs());
        (
            window.threshold(),
            window.period.as_secs(),
            lasting,
            effect.action,
        )
    };
    match &rule.course {
        Course::Tiers(tiers) => {
            let windows = tiers.iter().filter_map(|tier| match &tier.gauge {
                Gauge::Window(window) => Some(of(window, &tier.effect, tier.lasting)),
                Gauge::TokenBucket(_) => None,
            });
            windows.collect()
        }
        Course::Ladder(ladder) => {
            let rungs = ladder.rungs.iter();
            rungs
                .map(|it| of(&it.window, &it.effect, Some(it.lasting)))
                .collect()
        }
        Course::Boruta(_) => Vec::new(),
    }
}

fn bucket(rule: &Rule) -> (u64, u64) {
    let Course::Tiers(tiers) = &rule.course else {
        panic!("{rule:?}");
    };
    let Gauge::TokenBucket(bucket) = &tiers[0].gauge else {
        panic!("{rule:?}");
    };
    (bucket.rate.amount, bucket.burst)
}

#[test]
fn protect_login_blocks_after_more_than_five_attempts() {
    let rule = rule("protect-login", "protect-login");
    assert_eq!(steps(&rule), [(6, 300, Some(900), Action::Block)]);
    assert_eq!(rule.key, [KeyPart::Source]);
}

#[test]
fn cloudflare_has_steps() {
    assert_eq!(
        steps(&rule("cloudflare-login", "login")),
        [
            (4, 60, None, Action::JsChallenge),
            (10, 300, None, Action::Captcha),
            (20, 3_600, Some(86_400), Action::Block),
        ]
    );
    for (name, seconds) in [("low", 300), ("medium", 900), ("high", 3_600)] {
        let rule = rule("cloudflare-headers", &format!("origin-{name}"));
        assert_eq!(steps(&rule), [(1, 1, Some(seconds), Action::Block)]);
        let Count::ResponseHeader(header) = &rule.count else {
            panic!("{rule:?}");
        };
        assert!(header.matches("x-cf-block", name));
        assert_eq!(rule.shared, Shared::Block);
    }
    let hours = Some(4 * 3_600);
    for (preset, name, step) in [
        (
            "cloudflare-not-found",
            "not-found",
            (10, 60, None, Action::Captcha),
        ),
        (
            "cloudflare-enumeration",
            "profiles-missed",
            (10, 60, None, Action::JsChallenge),
        ),
        (
            "cloudflare-enumeration",
            "profiles-found",
            (25, 60, None, Action::Captcha),
        ),
        (
            "cloudflare-enumeration",
            "profiles",
            (50, 600, hours, Action::Block),
        ),
        (
            "cloudflare-scraping",
            "thumbs-missed",
            (10, 60, None, Action::Captcha),
        ),
        (
            "cloudflare-scraping",
            "thumbs",
            (25, 60, None, Action::Captcha),
        ),
        (
            "cloudflare-scraping",
            "images",
            (76, 60, hours, Action::Block),
        ),
        (
            "cloudflare-scraping",
            "images-missed",
            (5, 60, None, Action::Captcha),
        ),
    ] {
        assert_eq!(steps(&rule(preset, name)), [step], "{preset} {name}");
    }
}

#[test]
fn loginwith_locks_longer_and_longer() {
    for name in ["login-account", "reset-account", "mfa-account"] {
        let rule = rule("loginwith", name);
        assert_eq!(
            steps(&rule),
            [
                (5, 300, Some(900), Action::Reject),
                (5, 3_600, Some(3_600), Action::Reject),
                (5, 86_400, Some(86_400), Action::Reject),
            ]
        );
        assert_eq!(rule.key, [KeyPart::Account]);
        let Course::Ladder(ladder) = &rule.course else {
            panic!("{rule:?}");
        };
        let told: Vec<bool> = ladder
            .rungs
            .iter()
            .map(|it| it.effect.notify_owner)
            .collect();
        assert_eq!(told, [false, false, true]);
    }
    let source = rule("loginwith", "login-source");
    assert_eq!(source.count, Count::Attempts);
    assert_eq!(steps(&source), [(100, 60, Some(300), Action::Block)]);
    for name in ["login-captcha-account", "login-captcha-source"] {
        assert_eq!(
            steps(&rule("loginwith", name)),
            [(3, 900, None, Action::Captcha)]
        );
    }
}

#[test]
fn kratos_has_three_buckets() {
    for (name, limit, method, path) in [
        ("kratos-low", 60, "GET", "/sessions/whoami"),
        ("kratos-medium", 30, "DELETE", "/sessions/7"),
        ("kratos-high", 10, "POST", "/admin/identities"),
    ] {
        let rule = rule("kratos", name);
        assert_eq!(steps(&rule), [(limit, 60, None, Action::Reject)]);
        assert!(rule.selects(Some(method), Some(path)), "{name}");
        assert_eq!(rule.response.body, Body::OryJson);
        assert_eq!(rule.response.headers, LimitHeaders::XRatelimit);
    }
    assert_eq!(bucket(&rule("kratos", "kratos-public-rate")), (10, 21));
    assert_eq!(bucket(&rule("kratos", "kratos-admin-rate")), (1, 6));
    assert_eq!(
        steps(&rule("kratos", "kratos-captcha")),
        [(4, 600, None, Action::Captcha)]
    );
    let inside = vec!["10.0.0.0/8".parse().unwrap()];
    for name in ["kratos-high", "kratos-admin-host"] {
        assert_eq!(rule("kratos", name).from.as_ref(), Some(&inside), "{name}");
    }
    assert!(rule("kratos", "kratos-admin-host").is_gate_alone());
    for rule in rules("kratos") {
        let except: Vec<String> = rule.except.iter().map(ToString::to_string).collect();
        let is_public = !rule.name.starts_with("kratos-high")
            && !rule.name.starts_with("kratos-admin")
            && rule.key == [KeyPart::Source];
        let expected: &[&str] = match is_public {
            true => &["10.0.0.0/8", "203.0.113.0/24"],
            false => &[],
        };
        assert_eq!(except, expected, "{}", rule.name);
    }
}

#[test]
fn opensearch_has_two_listeners() {
    let name = rule("opensearch", "internal_authentication_backend_limiting");
    assert_eq!(steps(&name), [(3, 60, Some(60), Action::Reject)]);
    assert_eq!(
        (&name.key[..], &name.backends[..]),
        (&[KeyPart::Account][..], &["internal".to_owned()][..])
    );
    let address = rule("opensearch", "ip_rate_limiting");
    assert_eq!(steps(&address), [(1, 20, Some(180), Action::Block)]);
    for rule in [name, address] {
        assert_eq!((rule.tracked, rule.blocked), (100_000, 100_000));
    }
}

#[test]
fn boruta_delays_and_then_rejects() {
    let rule = rule("boruta", "boruta");
    let Course::Boruta(boruta) = &rule.course else {
        panic!("{rule:?}");
    };
    assert_eq!((boruta.limit, boruta.period.as_secs()), (10, 1));
    assert_eq!((boruta.penalty_ms, boruta.timeout_ms), (500, 5_000));
    assert_eq!(rule.response.body, Body::Empty);
}
