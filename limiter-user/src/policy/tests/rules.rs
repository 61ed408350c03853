//! Defaults of `[decide]` and `[[rule]]`, and what each key comes to.

use std::time::Duration;

use super::super::units::Rate;
use super::super::*;
use super::loaded;
use crate::event::formats::Format;

fn decide(text: &str) -> Decide {
    loaded(text).policy.decide.unwrap()
}

fn rule(text: &str) -> Rule {
    decide(&format!("[[rule]]\nname = 'login'\n{text}\n"))
        .rules
        .remove(0)
}

fn tiers(text: &str) -> Vec<Tier> {
    match rule(text).course {
        Course::Tiers(tiers) => tiers,
        other => panic!("{other:?}"),
    }
}

const PLAIN: &str = "limit = 5\nperiod = '5m'\naction = 'reject'\n";
const MINUTE: Duration = Duration::from_mins(1);

fn window(limit: u64, period: Duration, algorithm: Algorithm) -> Window {
    Window {
        limit,
        period,
        exceeds: false,
        algorithm,
    }
}

fn effect(action: Action, wait_ms: u64) -> Effect {
    Effect {
        action,
        wait_ms,
        then: None,
        simulate: false,
        notify_owner: false,
        difficulty_bits: None,
    }
}

#[test]
fn nothing_decides_where_nothing_is_said() {
    assert_eq!(loaded("[edge]").policy.decide, None);
}

#[test]
fn an_empty_section_is_the_defaults() {
    let expected = Decide {
        spoe: None,
        listen: Listen::Tcp("127.0.0.1:4480".parse().unwrap()),
        api: Api::Unix("/run/limiter/api.sock".into()),
        group: None,
        feedback: vec![],
        logs: vec![],
        trusted_proxies: vec![],
        client_header: "X-Forwarded-For".to_owned(),
        local_proxy: true,
        exempt: vec![],
        enforce: true,
        accounts: Accounts {
            from: vec![],
            nfkc: true,
            ignore_case: true,
            trim: true,
            owner_header: None,
        },
        challenge: Challenge {
            solve_within: 5 * MINUTE,
            clearance: 30 * MINUTE,
            contact: None,
            captcha: None,
            keys: None,
            rotate: Some(Duration::from_hours(24)),
        },
        rules: vec![],
        pages: Pages::default(),
        challenge_keys: crate::challenge::Keys::default(),
    };
    assert_eq!(decide("[decide]"), expected);
}

#[test]
fn a_rule_alone_has_the_defaults() {
    let tier = Tier {
        gauge: Gauge::Window(window(5, 5 * MINUTE, Algorithm::SlidingLog)),
        effect: effect(Action::Reject, 10_000),
        lasting: None,
    };
    let expected = Rule {
        name: "login".to_owned(),
        requests: vec![],
        hosts: vec![],
        backends: vec![],
        from: None,
        count: Count::Requests,
        failure: None,
        success: None,
        key: vec![KeyPart::Source],
        absent: Absent::Skip,
        ipv4_prefix: None,
        ipv6_prefix: None,
        except: vec![],
        course: Course::Tiers(vec![tier]),
        jitter_percent: 0,
        on_success: OnSuccess::Keep,
        reserve: false,
        count_refused: false,
        apply: vec![],
        simulate: false,
        shared: Shared::Challenge,
        block_limit: None,
        clears: vec![],
        tracked: 100_000,
        blocked: 100_000,
        keys_per_source: 1_000,
        response: Response {
            status: 429,
            headers: LimitHeaders::XRatelimit,
            body: Body::ProblemJson,
        },
    };
    assert_eq!(rule(PLAIN), expected);
}

#[test]
fn a_gate_alone_is_a_rule() {
    let found = rule("hosts = ['a']\nfrom = ['10.0.0.0/8', '::1']\n");
    let networks = ["10.0.0.0/8", "::1/128"].map(|text| text.parse().unwrap());
    assert_eq!(found.from, Some(networks.to_vec()));
    assert!(found.is_gate_alone());
    for (source, is_in) in [("10.255.0.1", true), ("11.0.0.1", false), ("::2", false)] {
        assert_eq!(found.admits(source.parse().unwrap()), is_in, "{source}");
    }
    let counting = rule(&format!("{PLAIN}from = ['10.0.0.0/8']\n"));
    assert!(!counting.is_gate_alone());
    assert_eq!(rule(PLAIN).from, None);
}

#[test]
fn every_key_of_the_section() {
    let found = decide(
        r#"[decide]
listen = "unix:/run/limiter/check.sock"
api = { listen = "127.0.0.1:4481", token_file = "/etc/limiter/token" }
group = "www-data"
feedback = ["unix:/run/a", { unix = "/run/b", format = "nginx-json", direct = true }, { udp = "[::1]:514", from = ["10.0.0.5"] }]
logs = [{ path = "/var/log/x", format = "fields", direct = true, fields = { source = "/client/ip", account = "/user", headers.User-Agent = "/agent", response_headers = { "X-A.b" = "/b" } } }]
trusted_proxies = ["127.0.0.0/8"]
client_header = "CF-Connecting-IP"
local_proxy = false
exempt = ["10.0.0.0/8"]
enforce = false
[decide.accounts]
from = ["basic", "header:X-User", "response_header:X-Account", "cookie:u", "query:login", "form:user",
  "json:/user/name", "jwt:sub", "jwt:email@header:X-Token", "jwt:sub@cookie:session"]
nfkc = false
ignore_case = false
trim = false
[[rule]]
name = "a"
limit = 1
period = "1s"
action = "reject"
"#,
    );
    assert_eq!(found.listen, Listen::Unix("/run/limiter/check.sock".into()));
    let Api::Tcp { listen, token_file } = &found.api else {
        panic!("{:?}", found.api);
    };
    assert_eq!(listen.port(), 4481);
    assert_eq!(token_file.to_str(), Some("/etc/limiter/token"));
    assert_eq!(found.group.as_deref(), Some("www-data"));
    let feedback: Vec<_> = found
        .feedback
        .iter()
        .map(|it| (&it.at, it.format.clone(), it.direct))
        .collect();
    let udp = Datagrams::Udp {
        listen: "[::1]:514".parse().unwrap(),
        from: vec!["10.0.0.5/32".parse().unwrap()],
    };
    assert_eq!(
        feedback,
        [
            (&Datagrams::Unix("/run/a".into()), Format::Json, false),
            (&Datagrams::Unix("/run/b".into()), Format::NginxJson, true),
            (&udp, Format::Json, false),
        ]
    );
    let [log] = &found.logs[..] else { panic!() };
    assert!(matches!(log.format, Format::Fields(_)));
    assert!(log.direct);
    let fields: Vec<(&str, &str)> = log.fields.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(
        fields,
        [
            ("account", "/user"),
            ("headers.User-Agent", "/agent"),
            ("response_headers.X-A.b", "/b"),
            ("source", "/client/ip"),
        ]
    );
    assert_eq!(found.client_header, "CF-Connecting-IP");
    assert!(!found.local_proxy && !found.enforce);
    assert_eq!(found.trusted_proxies.len() + found.exempt.len(), 2);
    let token = |claim: &str, place| AccountPlace::Token {
        claim: claim.to_owned(),
        place,
    };
    assert_eq!(
        found.accounts.from,
        [
            AccountPlace::Basic,
            AccountPlace::Header("x-user".to_owned()),
            AccountPlace::ResponseHeader("x-account".to_owned()),
            AccountPlace::Cookie("u".to_owned()),
            AccountPlace::Query("login".to_owned()),
            AccountPlace::Form("user".to_owned()),
            AccountPlace::Json("/user/name".to_owned()),
            token("sub", TokenPlace::Bearer),
            token("email", TokenPlace::Header("x-token".to_owned())),
            token("sub", TokenPlace::Cookie("session".to_owned())),
        ]
    );
    assert!(!found.accounts.nfkc && !found.accounts.ignore_case && !found.accounts.trim);
}

#[test]
fn requests_hosts_and_backends_select() {
    let found = rule(&format!(
        "{PLAIN}requests = ['GET /a', 'POST /api/*/login', '/sessions/{{id}}']\n\
         apply = ['*.html']\nhosts = ['*.Example.com.']\nbackends = ['internal']"
    ));
    for (method, path, is_selected, applies) in [
        (Some("GET"), Some("/a"), true, true),
        (Some("HEAD"), Some("/a"), true, true),
        (Some("POST"), Some("/a"), false, false),
        (None, Some("/a"), false, false),
        (Some("GET"), None, false, false),
        (Some("POST"), Some("/api/v1/x/login"), true, true),
        (Some("DELETE"), Some("/sessions/7"), true, true),
        (None, Some("/sessions/7"), true, true),
        (None, Some("/sessions/7/8"), false, false),
        (Some("GET"), Some("/x/y.html"), false, true),
    ] {
        assert_eq!(
            found.selects(method, path),
            is_selected,
            "{method:?} {path:?}"
        );
        assert_eq!(found.applies(method, path), applies, "{method:?} {path:?}");
    }
    assert!(found.selects_host(Some("www.example.com")));
    assert!(!found.selects_host(Some("example.com")) && !found.selects_host(None));
    assert!(found.selects_backend(Some("internal")));
    assert!(!found.selects_backend(Some("ldap")) && !found.selects_backend(None));
    let all = rule(PLAIN);
    assert!(all.selects(None, None) && all.selects_host(None) && all.selects_backend(None));
}

#[test]
fn what_counts() {
    let count = |text: &str| rule(&format!("{PLAIN}key = []\ncount = {text}")).count;
    assert_eq!(count("'requests'"), Count::Requests);
    assert_eq!(count("'attempts'"), Count::Attempts);
    assert_eq!(
        count("{ score_header = 'X-Cost' }"),
        Count::ScoreHeader("x-cost".to_owned())
    );
    assert_eq!(
        count("{ distinct = 'account' }"),
        Count::Distinct(KeyPart::Account)
    );
    let Count::Statuses(statuses) = count("{ statuses = ['5xx', 401, '403', '400-402'] }") else {
        panic!();
    };
    assert_eq!(statuses.ranges(), [400..=403, 500..=599]);
    assert!(statuses.contains(402) && !statuses.contains(404) && statuses.contains(599));
    let Count::ResponseHeader(header) =
        count("{ response_header = { name = 'X-CF-Block', value = 'low ' } }")
    else {
        panic!();
    };
    assert!(header.matches("x-cf-block", " low"));
    assert!(!header.matches("X-CF-Block", "Low") && !header.matches("X-Other", "low"));
    let any_case = rule(&format!(
        "{PLAIN}ignore_case = true\ncount = {{ response_header = {{ name = 'X', value = 'low' }} }}"
    ));
    let Count::ResponseHeader(header) = &any_case.count else {
        panic!();
    };
    assert!(header.matches("X", "LOW"));
    assert_eq!(any_case.shared, Shared::Block);
}

#[test]
fn outcomes_fit_where_all_that_is_asked_fits() {
    let found = rule(&format!(
        "{PLAIN}count = 'failures'\nfailure = {{ statuses = [302], location = '*error*' }}"
    ));
    let pattern = found.failure.unwrap();
    let location = |value: &str| vec![(Box::from("Location"), Box::from(value))];
    assert!(pattern.matches(Some(302), &location("/login?error=1")));
    assert!(!pattern.matches(Some(200), &location("/login?error=1")));
    assert!(!pattern.matches(Some(302), &location("/home")));
    assert!(!pattern.matches(Some(302), &[]) && !pattern.matches(None, &location("error")));
}

#[test]
fn keys_have_parts() {
    let text = "key = ['source', 'header:X-Api-Key', 'cookie:sid', 'query:q']\nabsent = 'share'\n\
        ipv4_prefix = 24\nipv6_prefix = 48";
    let found = rule(&format!("{PLAIN}{text}"));
    assert_eq!(
        found.key,
        [
            KeyPart::Source,
            KeyPart::Header("x-api-key".to_owned()),
            KeyPart::Cookie("sid".to_owned()),
            KeyPart::Query("q".to_owned()),
        ]
    );
    assert_eq!((found.ipv4_prefix, found.ipv6_prefix), (Some(24), Some(48)));
    assert_eq!(found.absent, Absent::Share);
    assert_eq!(rule(&format!("{PLAIN}key = []")).key, []);
}

#[test]
fn what_the_rule_says_holds_for_all_its_tiers() {
    let found = tiers(
        "period = '1m'\naction = 'captcha'\nexceeds = true\ntiers = [{ limit = 4 }, \
         { limit = 10, period = '5m', exceeds = false, simulate = true }, \
         { limit = 20, period = '1h', action = 'block', for = '1d', algorithm = 'fixed_window' }]",
    );
    let told: Vec<_> = found
        .iter()
        .map(|tier| {
            let Gauge::Window(window) = &tier.gauge else {
                panic!();
            };
            let effect = &tier.effect;
            (
                window.threshold(),
                window.period.as_secs(),
                effect.action,
                effect.simulate,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (5, 60, Action::Captcha, false),
            (10, 300, Action::Captcha, true),
            (21, 3_600, Action::Block, false),
        ]
    );
    assert_eq!(found[2].lasting, Some(Duration::from_hours(24)));
    let simulated = tiers(
        "simulate = true\ntiers = [{ limit = 1, period = '1s', action = 'reject', simulate = false }]",
    );
    assert!(simulated[0].effect.simulate);
}

#[test]
fn small_limits_and_attempts_are_counted_exactly() {
    let algorithm = |text: &str| {
        let text =
            format!("period = '1m'\naction = 'reject'\nfailure = {{ statuses = [401] }}\n{text}");
        match &tiers(&text)[0].gauge {
            Gauge::Window(window) => window.algorithm,
            Gauge::TokenBucket(_) => panic!(),
        }
    };
    assert_eq!(algorithm("limit = 50"), Algorithm::SlidingLog);
    assert_eq!(algorithm("limit = 51"), Algorithm::SlidingWindow);
    assert_eq!(
        algorithm("limit = 51\ncount = 'failures'"),
        Algorithm::SlidingLog
    );
    assert_eq!(
        algorithm("limit = 51\ncount = 'attempts'"),
        Algorithm::SlidingLog
    );
    assert_eq!(
        algorithm("limit = 5\nalgorithm = 'fixed_window'"),
        Algorithm::FixedWindow
    );
}

#[test]
fn ladders() {
    let found = rule(
        "key = ['account']\naction = 'reject'\nladder = [{ limit = 5, period = '5m', for = '15m' }, \
         { limit = 60, period = '1h', for = '1h', notify = 'owner', then = 'captcha' }]\n\
         ladder_decay = '12h'\njitter = 10\non_success = 'halve'",
    );
    let Course::Ladder(ladder) = &found.course else {
        panic!("{:?}", found.course);
    };
    let second = Rung {
        window: window(60, 60 * MINUTE, Algorithm::SlidingLog),
        effect: Effect {
            notify_owner: true,
            then: Some(Action::Captcha),
            ..effect(Action::Reject, 1_000)
        },
        lasting: Duration::from_hours(1),
    };
    assert_eq!(ladder.rungs[1], second);
    assert_eq!(ladder.decay, Duration::from_hours(12));
    assert_eq!(
        (found.jitter_percent, found.on_success),
        (10, OnSuccess::Halve)
    );
}

#[test]
fn token_buckets_and_throttles() {
    let found = tiers("algorithm = 'token_bucket'\nrate = '10/s'\naction = 'reject'");
    let second_ns = 1_000_000_000;
    let rate = Rate {
        amount: 10,
        per_ns: second_ns,
    };
    let bucket = TokenBucket {
        rate,
        burst: 10,
        delay: None,
    };
    assert_eq!(found[0].gauge, Gauge::TokenBucket(bucket));
    let found = tiers(
        "algorithm = 'token_bucket'\nrate = '10/s'\nburst = 21\ndelay = 0\naction = 'throttle'",
    );
    let bucket = TokenBucket {
        rate,
        burst: 21,
        delay: Some(0),
    };
    assert_eq!(found[0].gauge, Gauge::TokenBucket(bucket));
    assert_eq!(found[0].effect.wait_ms, 100);
    let found = tiers("limit = 60\nperiod = '1m'\naction = 'throttle'");
    assert_eq!(found[0].effect.wait_ms, 1_000);
    let found = tiers("limit = 60\nperiod = '1m'\naction = 'throttle'\nwait = 250");
    assert_eq!(found[0].effect.wait_ms, 250);
}

#[test]
fn boruta_delays_and_rejects() {
    let text = "algorithm = 'boruta'\nlimit = 10\nperiod = '1s'\npenalty = 500\ntimeout = 5_000\n";
    let expected = Boruta {
        limit: 10,
        period: Duration::from_secs(1),
        penalty_ms: 500,
        timeout_ms: 5_000,
        memory: 50,
        faithful: false,
    };
    assert_eq!(rule(text).course, Course::Boruta(expected));
    let faithful = Boruta {
        memory: 5,
        faithful: true,
        ..expected
    };
    let text = format!("{text}memory = 5\nfaithful = true");
    assert_eq!(rule(&text).course, Course::Boruta(faithful));
}

#[test]
fn a_rule_that_only_clears_needs_no_limit() {
    let found = decide(&format!(
        "[[rule]]\nname = 'login'\n{PLAIN}[[rule]]\nname = 'done'\nkey = ['account']\n\
         requests = ['POST /reset']\ncount = {{ statuses = [200] }}\nclears = ['login']\n"
    ));
    assert_eq!(found.rules[1].clears, ["login"]);
    assert_eq!(found.rules[1].course, Course::Tiers(vec![]));
}

#[test]
fn what_awaits_an_outcome_reserves() {
    let reserves = |text: &str| rule(&format!("{PLAIN}{text}")).reserve;
    assert!(reserves(
        "count = 'failures'\nfailure = { statuses = [401] }"
    ));
    assert!(reserves("count = 'attempts'") && reserves("count = { statuses = [401] }"));
    assert!(!reserves("count = 'requests'") && !reserves("count = 'attempts'\nreserve = false"));
}

#[test]
fn the_rest_of_a_rule() {
    let text = "[[edge.limit]]\nname = 'https'\nprotocol = 'tcp'\nports = [443]\npackets = '1/s'\n\
         [[rule]]\nname = 'a'\nlimit = 5\nperiod = '1m'\naction = 'block'\nfor = '1h'\nblock_limit = 'https'\n\
         except = ['192.0.2.0/24']\ncount_refused = true\nsimulate = true\nshared = 'block'\n\
         tracked = 500\nblocked = 50\nkeys_per_source = 5\n\
         response = { status = 403, headers = 'none', body = '/etc/limiter/no.html' }\n";
    let found = decide(text).rules.remove(0);
    assert_eq!(found.block_limit.as_deref(), Some("https"));
    assert_eq!(found.except, ["192.0.2.0/24".parse().unwrap()]);
    assert!(found.count_refused && found.simulate);
    assert_eq!(found.shared, Shared::Block);
    assert_eq!(
        (found.tracked, found.blocked, found.keys_per_source),
        (500, 50, 5)
    );
    assert_eq!(
        found.response,
        Response {
            status: 403,
            headers: LimitHeaders::None,
            body: Body::File("/etc/limiter/no.html".into()),
        }
    );
    let small = rule(&format!("{PLAIN}tracked = 5"));
    assert_eq!(small.keys_per_source, 5);
}

#[test]
fn actions_are_ordered_by_strength() {
    let actions = [
        Action::Throttle,
        Action::JsChallenge,
        Action::Captcha,
        Action::Reject,
        Action::Block,
    ];
    assert!(actions.is_sorted());
}
