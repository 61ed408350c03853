//! Keys, exempt and shared sources.

use super::*;
use crate::policy::{AccountPlace, TokenPlace};

fn reject_one(key: Vec<KeyPart>) -> Rule {
    Rule {
        key,
        ..rule("r", Count::Requests, vec![tier(1, MINUTE, Action::Reject)])
    }
}

/// Whether the second event has the key of the first.
fn share(rule: Rule, first: &Event, second: &Event) -> bool {
    let mut engine = engine(vec![rule]);
    assert!(!engine.ask(first, START).refuses());
    engine.ask(second, START).refuses()
}

#[test]
fn no_parts_are_one_counter_for_all() {
    assert!(share(reject_one(Vec::new()), &get(CLIENT), &get(OTHER)));
}

#[test]
fn a_request_that_lacks_a_part_is_not_counted_and_counts_as_key_absent() {
    let mut engine = engine(vec![reject_one(vec![KeyPart::Source, KeyPart::Account])]);
    assert_eq!(engine.passing(&get(CLIENT), 5, START), 5);
    let tally = engine.tally_of("r");
    assert_eq!((tally.matched, tally.counted, tally.key_absent), (5, 0, 5));
}

#[test]
fn absent_share_pools_them() {
    let pooled = Rule {
        absent: Absent::Share,
        ..reject_one(vec![KeyPart::Account])
    };
    assert!(share(pooled.clone(), &get(CLIENT), &get(OTHER)));
    assert!(!share(pooled, &get(CLIENT), &login(CLIENT, "")));
}

#[test]
fn an_empty_value_is_a_value() {
    let with = |value: &str| Event {
        headers: vec![("X-Key".into(), value.into())],
        ..get(CLIENT)
    };
    let rule = || reject_one(vec![KeyPart::Header("x-key".to_owned())]);
    assert!(share(rule(), &with(""), &with("")));
    assert!(!share(rule(), &with(""), &with("a")));
    assert!(!share(rule(), &with(""), &get(CLIENT)));
}

#[test]
fn parts_do_not_run_into_each_other() {
    let with = |host: &str, account: &str| Event {
        host: Some(host.into()),
        ..login(CLIENT, account)
    };
    let rule = || reject_one(vec![KeyPart::Host, KeyPart::Account]);
    assert!(!share(rule(), &with("ab", "c"), &with("a", "bc")));
    assert!(share(
        rule(),
        &with("A.example", "c"),
        &with("a.example", "c")
    ));
}

#[test]
fn accounts_are_normalised() {
    let rule = || reject_one(vec![KeyPart::Account]);
    for (typed, same) in [
        ("Alice", true),
        ("  alice\t", true),
        ("ＡＬＩＣＥ", true),
        ("alicé", false),
    ] {
        assert_eq!(
            share(rule(), &login(CLIENT, "alice"), &login(OTHER, typed)),
            same,
            "{typed}"
        );
    }
    assert!(share(
        rule(),
        &login(CLIENT, "STRASSE\u{301}"),
        &login(OTHER, "strasse\u{301}")
    ));
    assert!(share(
        rule(),
        &login(CLIENT, "e\u{301}"),
        &login(OTHER, "É")
    ));
}

#[test]
fn how_accounts_are_normalised_is_configurable() {
    let mut policy = decide(vec![reject_one(vec![KeyPart::Account])]);
    policy.accounts = Accounts {
        from: Vec::new(),
        nfkc: false,
        ignore_case: false,
        trim: false,
        owner_header: None,
    };
    let mut engine = Engine::new(&policy, EDGE, &SECRET);
    for typed in ["alice", "Alice", " alice", "ａlice"] {
        assert!(
            !engine.ask(&login(CLIENT, typed), START).refuses(),
            "{typed}"
        );
    }
}

#[test]
fn the_account_is_found_where_the_policy_says() {
    let mut policy = decide(vec![reject_one(vec![KeyPart::Account])]);
    policy.accounts.from = vec![
        AccountPlace::Basic,
        AccountPlace::Header("x-user".to_owned()),
        AccountPlace::Cookie("user".to_owned()),
        AccountPlace::Query("user".to_owned()),
    ];
    let mut engine = Engine::new(&policy, EDGE, &SECRET);
    engine.ask(&login(CLIENT, "alice"), START);
    let header = |name: &str, value: &str| Event {
        headers: vec![(name.into(), value.into())],
        ..get(OTHER)
    };
    // alice:x
    assert!(
        engine
            .ask(&header("authorization", "basic YWxpY2U6eA=="), START)
            .refuses()
    );
    assert!(engine.ask(&header("X-User", "alice"), START).refuses());
    assert!(
        engine
            .ask(&header("Cookie", "a=b; user=alice"), START)
            .refuses()
    );
    let query = Event {
        path: Some("/?a=b&user=al%69ce".into()),
        ..get(OTHER)
    };
    assert!(engine.ask(&query, START).refuses());
    assert!(
        !engine
            .ask(&header("authorization", "Basic !"), START)
            .refuses()
    );
}

#[test]
fn long_keys_are_told_apart() {
    let long = |end: &str| login(CLIENT, &("x".repeat(100_000) + end));
    assert!(share(
        reject_one(vec![KeyPart::Account]),
        &long("a"),
        &long("a")
    ));
    assert!(!share(
        reject_one(vec![KeyPart::Account]),
        &long("a"),
        &long("b")
    ));
}

#[test]
fn a_source_takes_the_rules_own_prefix_if_given() {
    let wide = || Rule {
        ipv4_prefix: Some(24),
        ..reject_one(vec![KeyPart::Source])
    };
    assert!(share(wide(), &get(CLIENT), &get(OTHER)));
    assert!(!share(wide(), &get(CLIENT), &get("192.0.3.1")));
    assert!(!share(
        reject_one(vec![KeyPart::Source]),
        &get(CLIENT),
        &get(OTHER)
    ));
    let rule = || reject_one(vec![KeyPart::Source]);
    assert!(share(rule(), &get("2001:db8::1"), &get("2001:db8::2")));
    assert!(!share(rule(), &get("2001:db8::1"), &get("2001:db8:0:1::1")));
    assert!(share(rule(), &get(CLIENT), &get("::ffff:192.0.2.1")));
}

#[test]
fn paths_are_compared_in_their_normal_form() {
    let path = |path: &str| Event {
        path: Some(path.into()),
        ..get(CLIENT)
    };
    let rule = || reject_one(vec![KeyPart::Path]);
    assert!(share(rule(), &path("/a/b"), &path("/x/..//a/./%62?q")));
    assert!(!share(rule(), &path("/a/b"), &path("/A/b")));
    let selecting = Rule {
        requests: requests(&["GET /a/*"]),
        ..reject_one(vec![KeyPart::Source])
    };
    assert!(share(selecting, &path("/a/b"), &path("/c/../a/x")));
}

#[test]
fn exempt_sources_meet_no_rule_with_a_source_key() {
    let mut policy = decide(vec![
        reject_one(vec![KeyPart::Source]),
        Rule {
            name: "account".to_owned(),
            ..reject_one(vec![KeyPart::Account])
        },
    ]);
    policy.exempt = vec!["192.0.2.0/24".parse().unwrap()];
    let mut engine = Engine::new(&policy, EDGE, &SECRET);
    assert_eq!(engine.passing(&get(CLIENT), 5, START), 5);
    assert_eq!(engine.passing(&login(CLIENT, "alice"), 5, START), 1);
    assert_eq!(engine.passing(&get("198.51.100.1"), 5, START), 1);
}

#[test]
fn an_exempt_source_is_never_blocked() {
    let lock = by_account(
        "lock",
        Course::Tiers(vec![tier(1, MINUTE, Action::Block).lasting(HOUR)]),
    );
    let mut policy = decide(vec![lock]);
    policy.exempt = vec!["192.0.2.0/24".parse().unwrap()];
    let mut engine = Engine::new(&policy, EDGE, &SECRET);
    engine.report(&failed(login(CLIENT, "alice")), START);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    assert_eq!(engine.orders().count(), 0);
}

#[test]
fn except_is_a_rules_own() {
    let except = Rule {
        except: vec!["192.0.2.1/32".parse().unwrap()],
        ..reject_one(Vec::new())
    };
    let mut engine = engine(vec![except]);
    assert_eq!(engine.passing(&get(CLIENT), 5, START), 5);
    assert_eq!(engine.passing(&get(OTHER), 5, START), 1);
}

/// A rule that blocks a source at its third failure, and what it does to an office.
fn after_days_of_logins(accounts: &[&str], days: u64, failures: usize) -> Option<Action> {
    let tiers = vec![tier(3, HOUR, Action::Block).lasting(DAY)];
    let block = Rule {
        shared: Shared::Challenge,
        ..rule("r", Count::Failures, tiers)
    };
    let mut engine = engine(vec![block]);
    for day in 0..=days {
        for account in accounts {
            engine.report(&succeeded(login(CLIENT, account)), START + day * DAY);
        }
        // One a day is not three an hour.
        for count in 0..failures {
            let now_ns = START + day * DAY + (count as u64 + 1) * HOUR;
            engine.report(&failed(login(CLIENT, "mallory")), now_ns);
        }
    }
    let now_ns = START + days * DAY + 20 * HOUR;
    engine.reports(&failed(login(CLIENT, "mallory")), 3, now_ns);
    let began = engine.changes().rev().find_map(|change| match change.what {
        What::Began { action, .. } => Some(action),
        _ => None,
    });
    let action = engine.action(&get(CLIENT), now_ns);
    assert_eq!(began, action, "what is written down is what is done");
    action
}

#[test]
fn a_source_where_others_have_long_been_logging_in_is_challenged_instead_of_blocked() {
    assert_eq!(
        after_days_of_logins(&["alice", "bob"], 2, 0),
        Some(Action::Captcha)
    );
    assert_eq!(
        after_days_of_logins(&["alice", "bob"], 0, 0),
        Some(Action::Block)
    );
    assert_eq!(after_days_of_logins(&[], 2, 0), Some(Action::Block));
    // One is no crowd.
    assert_eq!(after_days_of_logins(&["alice"], 2, 0), Some(Action::Block));
    // Its own account is no other one.
    assert_eq!(
        after_days_of_logins(&["mallory", "alice"], 2, 0),
        Some(Action::Block)
    );
    assert_eq!(
        after_days_of_logins(&["mallory"], 2, 0),
        Some(Action::Block)
    );
    // Eight failures a day for one success.
    assert_eq!(after_days_of_logins(&["alice"], 2, 8), Some(Action::Block));
}

#[test]
fn unless_the_origin_itself_named_it_by_header() {
    let header = Count::ResponseHeader(crate::policy::HeaderPattern {
        name: "x-cf-block".to_owned(),
        value: None,
        ignore_case: false,
    });
    let tiers = vec![tier(1, HOUR, Action::Block).lasting(DAY)];
    let block = Rule {
        shared: Shared::Challenge,
        ..rule("r", header, tiers)
    };
    let mut engine = engine(vec![block]);
    for day in 0..3 {
        engine.report(&succeeded(login(CLIENT, "alice")), START + day * DAY);
    }
    engine.report(
        &with_response_header("X-CF-Block", "high", get(CLIENT)),
        START + 3 * DAY,
    );
    assert_eq!(
        engine.action(&get(CLIENT), START + 3 * DAY),
        Some(Action::Block)
    );
}

/// A rule that blocks, and an office of which two have been logging in for two days.
fn office(key: Vec<KeyPart>) -> Engine {
    let tiers = vec![tier(3, HOUR, Action::Block).lasting(DAY)];
    let block = Rule {
        shared: Shared::Challenge,
        key,
        ..rule("r", Count::Failures, tiers)
    };
    let mut engine = engine(vec![block]);
    for day in 0..3 {
        for account in ["alice", "bob"] {
            engine.report(&succeeded(login(CLIENT, account)), START + day * DAY);
        }
    }
    engine
}

#[test]
fn passing_the_challenge_of_a_shared_source_frees_it() {
    for key in [
        vec![KeyPart::Source],
        vec![KeyPart::Source, KeyPart::Account],
    ] {
        let mut engine = office(key);
        let now_ns = START + 2 * DAY + 2 * HOUR;
        let event = login(CLIENT, "mallory");
        engine.reports(&failed(event.clone()), 3, now_ns);
        let decision = engine.ask(&get(CLIENT), now_ns);
        assert_eq!(decision.action, Some(Action::Captcha));
        let (rule, part) = (decision.rule.unwrap(), decision.part.unwrap());
        let key = decision.bound.unwrap().key;
        // That one was solved before does not.
        let held = [Cleared {
            rule: rule.as_ref().into(),
            key,
            challenge: Action::Captcha,
            bits: u8::MAX,
        }];
        let asked = engine.ask_cleared(&get(CLIENT), &held, now_ns);
        assert_eq!((asked.action, asked.cleared), (Some(Action::Captcha), 0));
        engine.passed(&rule, part, key, now_ns);
        assert_eq!(engine.action(&get(CLIENT), now_ns), None);
        assert_eq!(engine.action(&event, now_ns), None);
    }
}

#[test]
fn logins_of_weeks_ago_make_no_crowd() {
    let mut engine = office(vec![KeyPart::Source]);
    let now_ns = START + 20 * DAY;
    engine.reports(&failed(login(CLIENT, "mallory")), 3, now_ns);
    assert_eq!(engine.action(&get(CLIENT), now_ns), Some(Action::Block));
}

#[test]
fn a_basic_account_is_read_as_applications_do() {
    let mut policy = decide(vec![reject_one(vec![KeyPart::Account])]);
    policy.accounts.from = vec![AccountPlace::Basic];
    let mut engine = Engine::new(&policy, EDGE, &SECRET);
    engine.ask(&login(CLIENT, "alice"), START);
    // alice:x without padding, with other trailing bits, and with a password in Latin-1.
    for credentials in ["YWxpY2U6eA", "YWxpY2U6eB==", "YWxpY2U6/w=="] {
        let event = Event {
            headers: vec![(
                "Authorization".into(),
                format!("Basic {credentials}").into(),
            )],
            ..get(OTHER)
        };
        assert!(engine.ask(&event, START).refuses(), "{credentials}");
    }
}

#[test]
fn a_host_is_the_same_with_the_dot_of_the_root() {
    let host = |host: &str| Event {
        host: Some(host.into()),
        ..get(CLIENT)
    };
    let by_host = reject_one(vec![KeyPart::Host]);
    assert!(share(by_host, &host("example.com"), &host("Example.com.")));
}

#[test]
fn parameters_that_are_given_twice_differently_share_one_key() {
    let path = |path: &str| Event {
        path: Some(path.into()),
        ..get(CLIENT)
    };
    let rule = || reject_one(vec![KeyPart::Query("user".to_owned())]);
    assert!(share(
        rule(),
        &path("/?user=alice&user=a"),
        &path("/?user=alice&user=b")
    ));
    assert!(share(
        rule(),
        &path("/?user=alice&user=alice"),
        &path("/?user=alice")
    ));
}

/// One that looks for accounts in forms, and then in a token.
fn in_forms(rules: Vec<Rule>) -> Engine {
    let mut policy = decide(rules);
    let token = AccountPlace::Token {
        claim: "sub".to_owned(),
        place: TokenPlace::Cookie("token".to_owned()),
    };
    policy.accounts.from = vec![AccountPlace::Form("user".to_owned()), token];
    Engine::new(&policy, EDGE, &SECRET)
}

fn with_body(kind: &str, body: &str) -> Event {
    Event {
        method: Some("POST".into()),
        path: Some("/login".into()),
        headers: vec![("Content-Type".into(), kind.into())],
        body: Some(crate::event::Body {
            bytes: body.as_bytes().into(),
            is_whole: true,
        }),
        ..get(CLIENT)
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn an_account_in_a_form_is_a_key() {
    let mut engine = in_forms(vec![reject_one(vec![KeyPart::Account])]);
    assert_eq!(engine.action(&with_body(FORM, "user=ann"), START), None);
    let again = with_body(FORM, "user=%41nn");
    assert_eq!(engine.action(&again, START), Some(Action::Reject));
    assert_eq!(engine.action(&with_body(FORM, "user=bob"), START), None);
    // Nobody's login.
    assert_eq!(engine.passing(&with_body(FORM, "a=b"), 3, START), 3);
}

#[test]
fn who_sends_a_body_that_may_be_read_otherwise_is_challenged() {
    let login = Rule {
        requests: requests(&["POST /login"]),
        ..reject_one(vec![KeyPart::Account])
    };
    let simulated = Rule {
        name: "s".to_owned(),
        simulate: true,
        ..login.clone()
    };
    let by_source = reject_one(vec![KeyPart::Source]);
    let unclear = with_body("multipart/form-data", "user=ann");
    let mut engine = in_forms(vec![login.clone()]);
    let decision = engine.ask(&unclear, START);
    assert_eq!(decision.action, Some(Action::JsChallenge));
    assert_eq!(decision.rule.as_deref(), Some("r"));
    assert!(decision.retry_after_s.is_some());
    // Who has solved it passes, nobody else does, and nothing was counted for an account.
    let cleared = [Cleared {
        rule: "r".into(),
        key: decision.bound.unwrap().key,
        challenge: Action::JsChallenge,
        bits: 18,
    }];
    let solved = engine.ask_cleared(&unclear, &cleared, START);
    assert_eq!((solved.action, solved.cleared), (None, 1));
    let other = Event {
        source: address(OTHER),
        ..unclear.clone()
    };
    let decision = engine.ask_cleared(&other, &cleared, START);
    assert_eq!(decision.action, Some(Action::JsChallenge));
    let tally = engine.tally_of("r");
    assert_eq!((tally.counted, tally.key_absent, tally.over), (0, 3, 2));
    // Elsewhere, and where no rule asks for the account, nothing happens.
    let elsewhere = Event {
        path: Some("/upload".into()),
        ..unclear.clone()
    };
    assert_eq!(engine.action(&elsewhere, START), None);
    assert_eq!(in_forms(vec![by_source]).action(&unclear, START), None);
    let decision = in_forms(vec![simulated]).ask(&unclear, START);
    assert_eq!(decision.action, None);
    assert_eq!(decision.simulated, Some(Action::JsChallenge));
}

/// Anybody can write a token in anybody's name.
#[test]
fn what_a_token_claims_locks_nobody_else() {
    // {"sub":"ann"}
    let with_token = |source: &str| Event {
        headers: vec![("Cookie".into(), "token=e30.eyJzdWIiOiJhbm4ifQ.e30".into())],
        ..get(source)
    };
    let mut engine = in_forms(vec![
        reject_one(vec![KeyPart::Account]),
        Rule {
            name: "both".to_owned(),
            ..reject_one(vec![KeyPart::Source, KeyPart::Account])
        },
    ]);
    assert_eq!(engine.action(&with_token(CLIENT), START), None);
    let refused = engine.ask(&with_token(CLIENT), START);
    assert_eq!(refused.rule.as_deref(), Some("both"));
    assert_eq!(engine.action(&with_token(OTHER), START), None);
    assert_eq!(engine.tally_of("r").key_absent, 3);
    // The owner, whose name the application has, is not locked.
    assert_eq!(engine.action(&login("192.0.2.3", "ann"), START), None);
}
