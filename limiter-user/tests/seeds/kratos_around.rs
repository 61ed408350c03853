//! Ory Kratos: what its text puts around the buckets. The table of what stands
//! elsewhere is in `kratos`.

use super::*;
use limiter_user::engine::Reason;
use limiter_user::policy::Course;

const WHOAMI: &str = "GET /sessions/whoami";
const LOGIN: &str = "POST /self-service/login";
const ADMIN: &str = "GET /admin/identities";
const INTERNAL: &str = "10.1.2.3";
const OFFICE: &str = "203.0.113.9";

/// How many of so many at once pass, and of one more at each of the next ten steps.
fn burst_and_rate(site: &mut Site, visit: &Event, step_ns: u64) -> (usize, Vec<usize>) {
    let burst = site.served(visit, 200, 50, START);
    let later = 1..=10;
    let steps = later.map(|step| site.served(visit, 200, 5, START + step * step_ns));
    (burst, steps.collect())
}

#[test]
fn as_with_nginx_twenty_one_pass_at_once_and_then_ten_a_second() {
    let mut site = Site::of("kratos");
    let visit = request(WHOAMI, CLIENT);
    assert_eq!(site.served(&visit, 200, 50, START), 21);
    let mut passed = 0;
    for step in 1..=10 {
        let now_ns = START + step * 100 * MS;
        for _ in 0..5 {
            // Who was refused goes on as a person.
            let (_, decision, _) = site.solving(&visit, now_ns);
            passed += u32::from(!decision.refuses());
        }
    }
    assert_eq!(passed, 10);
    let decision = site.ask(&visit, START + S);
    assert_eq!(decision.rule.as_deref(), Some("kratos-public-rate"));
}

#[test]
fn as_with_nginx_six_admin_requests_pass_at_once_and_then_one_a_second() {
    // Without the bucket of ten a minute, which would end it.
    let mut site = Site::with("kratos", &[("rule.kratos-high.limit", "1000")]);
    let found = burst_and_rate(&mut site, &request(ADMIN, INTERNAL), S);
    assert_eq!(found, (6, vec![1; 10]));
}

#[test]
fn as_with_traefik_the_burst_passes_and_then_the_average() {
    let set = [
        ("rule.kratos-public-rate.burst", "20"),
        ("rule.kratos-admin-rate.burst", "5"),
        ("rule.kratos-high.limit", "1000"),
    ];
    let mut site = Site::with("kratos", &set);
    assert_eq!(site.served(&request(WHOAMI, CLIENT), 200, 50, START), 20);
    let found = burst_and_rate(&mut site, &request(ADMIN, INTERNAL), S);
    assert_eq!(found, (5, vec![1; 10]));
    assert!(site.remarks("with Traefik's average 10, burst 20 write burst = 20"));
}

/// A capture with one TCP SYN to port 4434 from each of these.
fn capture(sources: &[[u8; 4]]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for source in sources {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend(source);
        frame.extend([192, 0, 2, 1, 0x30, 0x39, 0x11, 0x52]);
        frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        for word in [1_700_000_000, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

#[test]
fn the_port_of_the_admin_api_is_open_to_internal_networks_alone() {
    let site = Site::with("kratos", &[("edge.interfaces", r#"["eth0"]"#)]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let outsiders = [[192, 0, 2, 1], [203, 0, 113, 9]];
    std::fs::write(
        file.path(),
        capture(&[[10, 1, 2, 3], outsiders[0], outsiders[1]]),
    )
    .unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    limiter_user::replay::explain(&site.policy, file.path(), true, &mut out, &mut err).unwrap();
    let verdicts: Vec<(String, String)> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let of = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (of("verdict"), of("reason"))
        })
        .collect();
    assert_eq!(verdicts[0].0, "pass");
    for verdict in &verdicts[1..] {
        assert_eq!(*verdict, ("drop".to_owned(), "not_from".to_owned()));
    }
}

#[test]
fn the_paths_and_the_host_of_the_admin_api_are_open_to_internal_networks_alone() {
    let on_host = |source| Event {
        host: Some("admin.example.com".into()),
        ..request("GET /health/alive", source)
    };
    let mut site = Site::of("kratos");
    for source in [CLIENT, OFFICE, INTERNAL] {
        for asked in [request(ADMIN, source), on_host(source)] {
            let decision = site.ask(&asked, START);
            let reason = decision.reason.map(Reason::name);
            let expected = (source != INTERNAL).then_some("not_from");
            assert_eq!(reason, expected, "{source} {decision:?}");
            assert_eq!(decision.refuses(), source != INTERNAL);
        }
    }
}

#[test]
fn the_admin_api_is_limited_more_strictly_and_also_for_those_who_may_use_it() {
    let mut site = Site::of("kratos");
    let admin = request(ADMIN, INTERNAL);
    let passed: usize = (0..60)
        .map(|second| site.served(&admin, 200, 1, START + second * S))
        .sum();
    assert_eq!(passed, 10);
}

#[test]
fn trusted_networks_are_exempt_from_the_public_limits() {
    for source in [INTERNAL, OFFICE] {
        let mut site = Site::of("kratos");
        assert_eq!(site.served(&request(WHOAMI, source), 200, 500, START), 500);
        let login = request(LOGIN, source);
        assert_eq!(site.served(&login, 400, 500, START), 500);
    }
    let mut site = Site::of("kratos");
    assert_eq!(
        site.served(&request(WHOAMI, "203.0.114.9"), 200, 500, START),
        21
    );
}

#[test]
fn an_account_is_locked_after_failed_attempts() {
    let mut site = Site::of("kratos");
    let mut now_ns = START;
    for (rung, lasting_ns) in [(1, 15 * MINUTE), (2, HOUR), (2, HOUR)] {
        for number in 0..5 {
            let guess = by("alice", request(LOGIN, &address(number)));
            site.told(&guess, 400, now_ns);
        }
        let until_ns = now_ns + lasting_ns;
        let began = site.began("kratos-lockout");
        assert_eq!(began, [(Action::Reject, until_ns, rung, false)]);
        let next = by("alice", request(LOGIN, OTHER));
        assert_eq!(site.ask(&next, until_ns - 1).action, Some(Action::Reject));
        assert_eq!(site.ask(&next, until_ns).action, None);
        now_ns = until_ns;
    }
    assert!(site.remarks("the numbers are our choice, and that a quiet day takes one step back"));
    assert!(site.remarks("a success forgives nothing"));
}

#[test]
fn a_success_does_not_forgive_and_a_quiet_day_does() {
    let mut site = Site::of("kratos");
    let guess = by("alice", request(LOGIN, CLIENT));
    for status in [400, 400, 400, 400, 200, 400] {
        site.told(&guess, status, START);
    }
    assert_eq!(site.began("kratos-lockout").len(), 1);
    let again_ns = START + 15 * MINUTE + DAY;
    for _ in 0..5 {
        site.told(&guess, 400, again_ns);
    }
    let expected = (Action::Reject, again_ns + 15 * MINUTE, 1, false);
    assert_eq!(site.began("kratos-lockout"), [expected]);
}

#[test]
fn after_a_429_there_is_a_captcha() {
    let mut site = Site::of("kratos");
    let visit = request(WHOAMI, CLIENT);
    for number in 0..60 {
        site.serve(&visit, 200, START + number * 200 * MS);
    }
    assert_eq!(
        site.serve(&visit, 200, START + 12 * S),
        Some(Action::Reject)
    );
    let free_ns = START + MINUTE;
    assert_eq!(site.serve(&visit, 200, free_ns), Some(Action::Captcha));
    assert_eq!(
        site.serve_solving(&visit, 200, free_ns),
        Some(Action::Captcha)
    );
    assert_eq!(site.serve(&visit, 200, free_ns + S), None);
    // The same after one for the rate.
    let mut site = Site::of("kratos");
    assert_eq!(site.served(&visit, 200, 50, START), 21);
    let free_ns = START + 100 * MS;
    assert_eq!(site.serve(&visit, 200, free_ns), Some(Action::Captcha));
    // Who stayed below was not asked.
    assert_eq!(site.serve(&request(WHOAMI, OTHER), 200, free_ns), None);
}

#[test]
fn more_than_three_failed_attempts_bring_a_captcha() {
    let mut site = Site::of("kratos");
    let guess = |number: u64| by(&format!("user {number}"), request(LOGIN, CLIENT));
    for number in 0..4 {
        // Three are not more than three.
        assert_eq!(site.serve(&guess(number), 400, START + number * S), None);
    }
    let next = guess(4);
    assert_eq!(site.serve(&next, 400, START + 4 * S), Some(Action::Captcha));
    assert_eq!(site.serve(&request(WHOAMI, CLIENT), 200, START), None);
    assert_eq!(
        site.serve_solving(&next, 200, START + 4 * S),
        Some(Action::Captcha)
    );
    assert_eq!(site.serve(&next, 200, START + 5 * S), None);
    // Ten minutes is our time for it.
    let mut site = Site::of("kratos");
    for number in 0..4 {
        site.told(&guess(number), 400, START);
    }
    let action = site.ask(&next, START + 10 * MINUTE - 1).action;
    assert_eq!(action, Some(Action::Captcha));
    assert_eq!(site.ask(&next, START + 10 * MINUTE).action, None);
    assert!(site.remarks("within ten minutes. The time is our choice."));
}

#[test]
fn nobody_is_blocked_outright_so_that_shared_addresses_are_not() {
    let site = Site::of("kratos");
    for rule in &site.policy.decide.as_ref().unwrap().rules {
        let blocks = match &rule.course {
            Course::Tiers(tiers) => tiers.iter().any(|tier| tier.effect.action == Action::Block),
            Course::Ladder(ladder) => ladder
                .rungs
                .iter()
                .any(|it| it.effect.action == Action::Block),
            Course::Boruta(_) => false,
        };
        assert!(!blocks, "{}", rule.name);
    }
}

#[test]
fn users_behind_one_address_can_be_counted_by_account() {
    let set = [
        ("rule.kratos-low.key", r#"["account"]"#),
        ("rule.kratos-public-rate.simulate", "true"),
    ];
    let mut site = Site::with("kratos", &set);
    for account in ["alice", "bob", "carol"] {
        let visit = by(account, request(WHOAMI, CLIENT));
        assert_eq!(site.served(&visit, 200, 100, START), 60, "{account}");
    }
    assert!(site.remarks(r#"key = ["account"] counts by that"#));
}

#[test]
fn behind_a_proxy_it_is_the_client_who_is_counted() {
    let mut site = Site::of("kratos");
    let decide = site.policy.decide.as_ref().unwrap();
    assert_eq!(decide.client_header, "X-Forwarded-For");
    assert_eq!(decide.trusted_proxies, ["127.0.0.0/8".parse().unwrap()]);
    for source in [CLIENT, OTHER] {
        let visit = Event {
            peer: Some("127.0.0.1".parse().unwrap()),
            ..request(WHOAMI, source)
        };
        assert_eq!(site.served(&visit, 200, 50, START), 21);
    }
}

#[test]
fn each_429_is_counted_and_tells_whose_it_was_and_where() {
    let mut site = Site::of("kratos");
    assert_eq!(
        site.served(&request("GET /sessions?page=2", CLIENT), 200, 50, START),
        21
    );
    let reject = Action::Reject as usize;
    assert_eq!(site.tally("kratos-public-rate").by_action[reject], 29);
    let refusals = site.changes().into_iter().filter(|change| {
        let cause = change.event.as_ref().unwrap();
        matches!(
            change.what,
            What::Refused {
                action: Action::Reject,
                ..
            }
        ) && cause.source.to_string() == CLIENT
            && cause.path.as_deref() == Some("/sessions")
    });
    assert_eq!(refusals.count(), 29);
}
