//! Whom a rule lets in (`from`), whatever else it does.

use super::*;
use crate::engine::Reason;

/// Outside of what [`gated`] lets in.
const OUTSIDE: &str = "198.51.100.7";
const INSIDE: &str = "10.1.2.3";

fn networks(texts: &[&str]) -> Vec<ipnet::IpNet> {
    let network = |text: &&str| crate::policy::parse_network(text).unwrap();
    texts.iter().map(network).collect()
}

/// A rule for the login, over two requests a minute, that lets in 10.0.0.0/8.
fn gated() -> Rule {
    Rule {
        requests: requests(&["POST /login"]),
        from: Some(networks(&["10.0.0.0/8"])),
        ..rule(
            "inside",
            Count::Requests,
            vec![tier(2, MINUTE, Action::Reject)],
        )
    }
}

fn ask(engine: &mut Engine, source: &str) -> Decision {
    engine.ask(&login(source, "alice"), START)
}

#[track_caller]
fn expect_shut_out(decision: &Decision) {
    assert_eq!(decision.action, Some(Action::Reject), "{decision:?}");
    assert_eq!(decision.reason, Some(Reason::NotFrom), "{decision:?}");
    assert_eq!(decision.rule.as_deref(), Some("inside"));
    // It opens to nobody by waiting, and nobody outside is told what is left.
    let told = [decision.until_ns, decision.retry_after_s, decision.limit];
    assert_eq!(told, [None; 3], "{decision:?}");
    assert_eq!((decision.remaining, decision.reset_s), (None, None));
}

#[test]
fn who_is_outside_is_refused_and_counts_nowhere() {
    let all = rule(
        "all",
        Count::Requests,
        vec![tier(9, MINUTE, Action::Reject)],
    );
    let mut engine = engine(vec![all, gated()]);
    for _ in 0..5 {
        expect_shut_out(&ask(&mut engine, OUTSIDE));
    }
    // What else it asks for is no business of the rule.
    let decision = engine.ask(&get(OUTSIDE), START);
    assert_eq!((decision.action, decision.remaining), (None, Some(8)));
    let inside = ask(&mut engine, INSIDE);
    assert_eq!((inside.action, inside.remaining), (None, Some(1)));
    assert!(!ask(&mut engine, INSIDE).refuses());
    let over = ask(&mut engine, INSIDE);
    assert_eq!((over.action, over.reason), (Some(Action::Reject), None));
    assert!(over.retry_after_s.is_some());
    let tally = engine.tally_of("inside");
    assert_eq!((tally.not_from, tally.matched, tally.over), (5, 8, 6));
    assert_eq!((tally.counted, tally.tracked), (2, 1));
    assert_eq!(engine.tally_of("all").counted, 3);
}

#[test]
fn an_ipv4_address_written_as_ipv6_is_the_same() {
    let mut engine = engine(vec![gated()]);
    assert!(!ask(&mut engine, "::ffff:10.1.2.3").refuses());
    expect_shut_out(&ask(&mut engine, "::ffff:198.51.100.7"));
}

/// Who the client is counts, and not which proxy it came by.
#[test]
fn the_peer_opens_no_gate() {
    let mut engine = engine(vec![gated()]);
    let by_proxy = |source| Event {
        peer: Some(address(INSIDE)),
        ..login(source, "alice")
    };
    expect_shut_out(&engine.ask(&by_proxy(OUTSIDE), START));
    assert!(!engine.ask(&by_proxy("10.9.9.9"), START).refuses());
}

#[test]
fn who_is_exempt_is_not_counted_and_shut_out_all_the_same() {
    for (exempt, except) in [(&[OUTSIDE, INSIDE][..], &[][..]), (&[], &[OUTSIDE, INSIDE])] {
        let rule = Rule {
            except: networks(except),
            ..gated()
        };
        let mut engine = Engine::new(
            &Decide {
                exempt: networks(exempt),
                ..decide(vec![rule])
            },
            EDGE,
            &SECRET,
        );
        for _ in 0..4 {
            expect_shut_out(&ask(&mut engine, OUTSIDE));
            assert!(!ask(&mut engine, INSIDE).refuses());
        }
        let tally = engine.tally_of("inside");
        assert_eq!((tally.not_from, tally.counted), (4, 0));
    }
}

#[test]
fn a_gate_alone_follows_nobody() {
    let mut engine = engine(vec![Rule {
        course: Course::Tiers(Vec::new()),
        ..gated()
    }]);
    expect_shut_out(&ask(&mut engine, OUTSIDE));
    assert_eq!(engine.passing(&login(INSIDE, "alice"), 100, START), 100);
    let tally = engine.tally_of("inside");
    assert_eq!((tally.matched, tally.counted, tally.tracked), (101, 0, 0));
}

/// `apply` widens the action, and not whom the rule is for.
#[test]
fn what_only_the_action_applies_to_is_open() {
    let mut engine = engine(vec![Rule {
        apply: requests(&["GET /"]),
        ..gated()
    }]);
    assert!(!engine.ask(&get(OUTSIDE), START).refuses());
    expect_shut_out(&ask(&mut engine, OUTSIDE));
}

#[test]
fn a_key_that_lacks_a_part_opens_no_gate() {
    let mut engine = engine(vec![Rule {
        key: vec![KeyPart::Header("x-token".to_owned())],
        ..gated()
    }]);
    expect_shut_out(&ask(&mut engine, OUTSIDE));
    assert_eq!(engine.tally_of("inside").not_from, 1);
}

#[test]
fn of_a_simulated_rule_the_gate_is_too() {
    let simulated = vec![Rule {
        simulate: true,
        ..gated()
    }];
    let dry = Decide {
        enforce: false,
        ..decide(vec![gated()])
    };
    let mut switched = engine(vec![gated()]);
    switched.set_mode("inside", Mode::Simulate);
    for mut engine in [
        engine(simulated),
        Engine::new(&dry, EDGE, &SECRET),
        switched,
    ] {
        let decision = ask(&mut engine, OUTSIDE);
        assert_eq!(decision.action, None);
        assert_eq!(decision.simulated, Some(Action::Reject));
        assert_eq!(decision.reason, Some(Reason::NotFrom));
        assert_eq!(decision.rule.as_deref(), Some("inside"));
        assert_eq!(decision.remaining, Some(1));
        assert_eq!(engine.tally_of("inside").not_from, 1);
    }
    // A dry tier leaves the gate shut.
    let mut dry_tier = tier(2, MINUTE, Action::Reject);
    dry_tier.effect.simulate = true;
    let mut engine = engine(vec![Rule {
        course: Course::Tiers(vec![dry_tier]),
        ..gated()
    }]);
    expect_shut_out(&ask(&mut engine, OUTSIDE));
    engine.set_mode("inside", Mode::Off);
    assert_eq!(ask(&mut engine, OUTSIDE), Decision::default());
}

#[test]
fn a_block_is_stronger_and_all_else_is_not() {
    let other = |action| Rule {
        requests: requests(&["POST /login"]),
        ..rule("other", Count::Requests, vec![tier(1, MINUTE, action)])
    };
    let open = Rule {
        from: None,
        ..other(Action::Block)
    };
    let mut engine = engine(vec![gated(), open]);
    engine.set_mode("inside", Mode::Off);
    ask(&mut engine, OUTSIDE);
    engine.set_mode("inside", Mode::On);
    let decision = ask(&mut engine, OUTSIDE);
    assert_eq!(decision.action, Some(Action::Block));
    assert_eq!((decision.reason, decision.retry_after_s), (None, Some(60)));
    for action in [Action::Captcha, Action::Reject] {
        let mut engine = super::engine(vec![other(action), gated()]);
        engine.set_mode("inside", Mode::Off);
        ask(&mut engine, OUTSIDE);
        engine.set_mode("inside", Mode::On);
        expect_shut_out(&ask(&mut engine, OUTSIDE));
    }
}

/// Who knocks too often is blocked, where the policy says that refusals count.
#[test]
fn refusals_count_where_the_rule_says_so() {
    let mut engine = engine(vec![Rule {
        count_refused: true,
        course: Course::Tiers(vec![tier(3, MINUTE, Action::Block).lasting(HOUR)]),
        ..gated()
    }]);
    for _ in 0..3 {
        expect_shut_out(&ask(&mut engine, OUTSIDE));
    }
    assert_eq!(ask(&mut engine, OUTSIDE).action, Some(Action::Block));
}

/// A report is of what was served, and refuses nobody; of what was refused it counts nothing.
#[test]
fn replayed_events_are_refused_and_reports_are_not() {
    let mut engine = engine(vec![gated()]);
    expect_shut_out(&engine.replay(&login(OUTSIDE, "alice")));
    let asked = Event {
        id: Some("1".into()),
        ..login(OUTSIDE, "alice")
    };
    expect_shut_out(&engine.ask(&asked, START));
    engine.report(&asked, START);
    assert_eq!(engine.tally_of("inside").counted, 0);
    engine.report(&login(OUTSIDE, "alice"), START);
    let tally = engine.tally_of("inside");
    assert_eq!((tally.counted, tally.not_from), (1, 2));
}

#[test]
fn it_is_written_down_and_explained() {
    let mut engine = engine(vec![gated()]);
    let decision = serde_json::to_value(ask(&mut engine, OUTSIDE)).unwrap();
    assert_eq!(decision["reason"], "not_from", "{decision}");
    let changes: Vec<_> = engine.changes().map(|it| it.what).collect();
    let refused = What::Refused {
        action: Action::Reject,
        reason: Some(Reason::NotFrom),
        simulated: false,
    };
    assert_eq!(changes, [refused]);
    let [explained] = &engine.explain(address(OUTSIDE), START)[..] else {
        unreachable!("one rule holds something");
    };
    assert!(explained.shut_out && !explained.simulated, "{explained:?}");
    assert_eq!(engine.explain(address(INSIDE), START), []);
    engine.set_mode("inside", Mode::Off);
    assert_eq!(engine.explain(address(OUTSIDE), START), []);
}

#[test]
fn a_gate_that_a_reload_moves_leaves_the_counts() {
    let mut engine = engine(vec![gated()]);
    ask(&mut engine, INSIDE);
    let moved = Rule {
        from: Some(networks(&["10.1.0.0/16", "198.51.100.0/24"])),
        ..gated()
    };
    engine.reload(&decide(vec![moved]), EDGE);
    assert_eq!(ask(&mut engine, INSIDE).remaining, Some(0));
    assert_eq!(ask(&mut engine, OUTSIDE).remaining, Some(1));
    expect_shut_out(&ask(&mut engine, "10.2.0.1"));
}
