//! Who is refused, strength, simulate.

use super::*;

fn at_login(action: Action, lasting_ns: u64) -> Rule {
    Rule {
        requests: requests(&["POST /login"]),
        ..rule(
            "r",
            Count::Requests,
            vec![tier(1, MINUTE, action).lasting(lasting_ns)],
        )
    }
}

#[test]
fn an_action_applies_to_the_requests_that_the_rule_selects() {
    let mut engine = engine(vec![at_login(Action::Reject, HOUR)]);
    engine.ask(&login(CLIENT, "alice"), START);
    assert!(engine.ask(&login(CLIENT, "alice"), START).refuses());
    assert!(!engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn apply_widens_it_and_counts_nothing_more() {
    let rule = Rule {
        apply: requests(&["GET /"]),
        ..at_login(Action::Reject, HOUR)
    };
    let mut engine = engine(vec![rule]);
    assert_eq!(engine.passing(&get(CLIENT), 5, START), 5);
    engine.ask(&login(CLIENT, "alice"), START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
    assert_eq!(engine.tally_of("r").counted, 1);
}

#[test]
fn block_applies_to_the_whole_source() {
    let mut engine = engine(vec![at_login(Action::Block, HOUR)]);
    engine.ask(&login(CLIENT, "alice"), START);
    let decision = engine.ask(&get(CLIENT), START + S);
    assert_eq!(decision.action, Some(Action::Block));
    assert_eq!(decision.until_ns, Some(START + HOUR));
    assert!(!engine.ask(&get(OTHER), START + S).refuses());
    assert!(!engine.ask(&get(CLIENT), START + HOUR).refuses());
}

#[test]
fn a_block_without_for_lasts_while_the_count_stays_at_the_limit() {
    let rule = rule("r", Count::Requests, vec![tier(2, MINUTE, Action::Block)]);
    let mut engine = engine(vec![rule]);
    engine.ask(&get(CLIENT), START);
    engine.ask(&get(CLIENT), START + 10 * S);
    assert_eq!(
        engine.ask(&get(CLIENT), START + 10 * S).until_ns,
        Some(START + MINUTE)
    );
    assert_eq!(engine.ordered(), [(CLIENT.to_owned(), START + MINUTE)]);
    assert!(!engine.ask(&get(CLIENT), START + MINUTE).refuses());
}

#[test]
fn it_is_ordered_at_the_nic_at_most_once_while_active() {
    let rule = Rule {
        block_limit: Some("https".to_owned()),
        ..at_login(Action::Block, HOUR)
    };
    let mut engine = engine(vec![rule]);
    engine.ask(&login(CLIENT, "alice"), START);
    let expected = Order {
        source: "192.0.2.1/32".parse().unwrap(),
        rule: "r".into(),
        limit: Some("https".into()),
        what: Ordered::Block {
            until_ns: START + HOUR,
            part: 0,
            rung: 0,
            cause: Cause {
                source: address(CLIENT),
                account: Some("alice".into()),
                path: Some("/login".into()),
                status: None,
                owner: None,
            },
        },
    };
    assert_eq!(engine.orders().collect::<Vec<_>>(), [expected]);
    for second in 0..50 {
        engine.ask(&get(CLIENT), START + second * S);
    }
    assert_eq!(engine.orders().count(), 0);
}

#[test]
fn a_block_that_is_lengthened_is_ordered_again_when_the_first_order_has_run_out() {
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR)];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    let report = with_status(401, get(CLIENT));
    engine.report(&report, START);
    engine.report(&report, START + 10 * S);
    assert_eq!(engine.orders().count(), 1);
    assert_eq!(
        engine.action(&get(CLIENT), START + HOUR),
        Some(Action::Block)
    );
    assert_eq!(
        engine.ordered(),
        [(CLIENT.to_owned(), START + HOUR + 10 * S)]
    );
}

#[test]
fn who_is_not_the_peer_is_blocked_but_not_at_the_nic() {
    let mut engine = engine(vec![at_login(Action::Block, HOUR)]);
    for peer in [None, Some(address("10.0.0.9"))] {
        engine.ask(
            &Event {
                peer,
                ..login(CLIENT, "alice")
            },
            START,
        );
        assert_eq!(
            engine.action(
                &Event {
                    peer,
                    ..get(CLIENT)
                },
                START
            ),
            Some(Action::Block)
        );
    }
    assert_eq!(engine.orders().count(), 0);
    // Nor does it stay so when the source comes as the peer.
    engine.ask(&get(CLIENT), START);
    assert_eq!(engine.orders().count(), 1);
}

#[test]
fn the_strongest_applies_and_among_equals_the_longest() {
    let all = [
        Action::Throttle,
        Action::JsChallenge,
        Action::Captcha,
        Action::Reject,
        Action::Block,
    ];
    for weaker in 0..all.len() {
        for stronger in weaker..all.len() {
            let rule = |name: &str, action, lasting_ns| {
                rule(
                    name,
                    Count::Requests,
                    vec![tier(1, MINUTE, action).lasting(lasting_ns)],
                )
            };
            let rules = vec![
                rule("stronger", all[stronger], HOUR),
                rule(
                    "weaker",
                    all[weaker],
                    if weaker == stronger { MINUTE } else { DAY },
                ),
            ];
            let mut engine = engine(rules);
            engine.ask(&get(CLIENT), START);
            let decision = engine.ask(&get(CLIENT), START);
            assert_eq!(decision.action, Some(all[stronger]));
            assert_eq!(decision.rule.as_deref(), Some("stronger"));
            assert_eq!(decision.until_ns, Some(START + HOUR));
        }
    }
}

#[test]
fn delays_are_not_added() {
    let slow = |name: &str, wait_ms| {
        let mut tier = tier(1, MINUTE, Action::Throttle);
        tier.effect.wait_ms = wait_ms;
        rule(name, Count::Requests, vec![tier])
    };
    let mut engine = engine(vec![slow("a", 300), slow("b", 200)]);
    engine.ask(&get(CLIENT), START);
    assert_eq!(engine.ask(&get(CLIENT), START).delay_ms, 300);
}

#[test]
fn passing_a_challenge_zeroes_its_own_tier_only() {
    let tiers = vec![
        tier(2, MINUTE, Action::Captcha).lasting(HOUR),
        tier(4, HOUR, Action::Reject).lasting(DAY),
    ];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    let report = with_status(401, get(CLIENT));
    engine.reports(&report, 2, START);
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Captcha));
    engine.passes(&get(CLIENT), "r", 1, START);
    engine.passes(&get(CLIENT), "other", 0, START);
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Captcha));
    engine.passes(&get(CLIENT), "r", 0, START);
    assert_eq!(engine.action(&get(CLIENT), START), None);
    // The other tier still has its two.
    engine.reports(&report, 2, START);
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Reject));
    engine.passes(&get(CLIENT), "r", 0, START);
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Reject));
}

#[test]
fn passing_a_challenge_spares_nobody_else_one() {
    let mut shared = rule("r", statuses(401), vec![tier(1, HOUR, Action::Captcha)]);
    shared.key = Vec::new();
    let mut engine = engine(vec![shared]);
    engine.report(&with_status(401, get(CLIENT)), START);
    let decision = engine.ask(&get(CLIENT), START);
    engine.passed("r", 0, decision.bound.unwrap().key, START);
    assert_eq!(engine.action(&get(OTHER), START), Some(Action::Captcha));
}

#[test]
fn passing_a_challenge_never_zeroes_account_keys() {
    let tiers = vec![tier(1, MINUTE, Action::Captcha).lasting(HOUR)];
    let mut engine = engine(vec![by_account("lock", Course::Tiers(tiers))]);
    engine.report(&failed(login(CLIENT, "alice")), START);
    engine.passes(&login(CLIENT, "alice"), "lock", 0, START);
    assert_eq!(
        engine.action(&login(CLIENT, "alice"), START),
        Some(Action::Captcha)
    );
}

#[test]
fn a_solved_challenge_counts_for_its_request_alone() {
    let tiers = vec![
        tier(1, MINUTE, Action::Captcha),
        tier(2, MINUTE, Action::Reject),
    ];
    let mut engine = engine(vec![by_account("lock", Course::Tiers(tiers))]);
    let guess = |number: usize| with_id(&number.to_string(), login(CLIENT, "alice"));
    engine.report(&failed(guess(0)), START);
    let key = engine.bench_key(&guess(0), "lock").unwrap();
    let harder = |rule: &str, key, challenge, bits| {
        let rule = rule.into();
        [Cleared {
            rule,
            key,
            challenge,
            bits,
        }]
    };
    let solved = |rule: &str, key, challenge| harder(rule, key, challenge, 21);
    let captcha = solved("lock", key, Action::Captcha);
    let asked = engine.ask(&guess(5), START);
    assert_eq!(asked.bound.unwrap().key, key);
    for other in [
        solved("other", key, Action::Captcha),
        solved("lock", key ^ 1, Action::Captcha),
        harder("lock", key, Action::Captcha, 20),
    ] {
        let decision = engine.ask_cleared(&guess(6), &other, START);
        assert_eq!(
            (decision.action, decision.cleared),
            (Some(Action::Captcha), 0)
        );
    }
    let weaker = engine.ask_cleared(&guess(1), &solved("lock", key, Action::JsChallenge), START);
    assert_eq!(weaker.action, Some(Action::Captcha));
    let solved = engine.ask_cleared(&guess(2), &captcha, START);
    assert_eq!((solved.action, solved.cleared), (None, 1));
    assert_eq!(engine.action(&guess(3), START), Some(Action::Reject));
    // It was let through, so it counts.
    engine.report(&failed(guess(2)), START);
    let decision = engine.ask_cleared(&guess(4), &captcha, START);
    assert_eq!(decision.action, Some(Action::Reject));
}

#[test]
fn then_offers_a_challenge_to_those_who_were_refused() {
    let mut tier = tier(2, MINUTE, Action::Reject);
    tier.effect.then = Some(Action::Captcha);
    let mut engine = engine(vec![rule("r", Count::Requests, vec![tier])]);
    engine.passing(&get(CLIENT), 2, START);
    engine.passing(&get(OTHER), 2, START);
    assert_eq!(engine.action(&get(CLIENT), START + S), Some(Action::Reject));
    assert_eq!(
        engine.action(&get(CLIENT), START + MINUTE),
        Some(Action::Captcha)
    );
    assert_eq!(engine.action(&get(OTHER), START + MINUTE), None);
    engine.passes(&get(CLIENT), "r", 0, START + MINUTE);
    assert_eq!(engine.action(&get(CLIENT), START + MINUTE), None);
}

#[test]
fn a_stronger_rule_takes_no_challenge_from_those_who_were_refused() {
    let mut offering = tier(2, MINUTE, Action::Reject);
    offering.effect.then = Some(Action::Captcha);
    let stronger = tier(2, MINUTE, Action::Block);
    let mut engine = engine(vec![
        rule("r", Count::Requests, vec![offering]),
        rule("s", Count::Requests, vec![stronger]),
    ]);
    engine.passing(&get(CLIENT), 2, START);
    assert_eq!(engine.action(&get(CLIENT), START + S), Some(Action::Block));
    assert_eq!(
        engine.action(&get(CLIENT), START + MINUTE),
        Some(Action::Captcha)
    );
}

#[test]
fn a_simulated_rule_counts_and_does_nothing() {
    let simulated = Rule {
        simulate: true,
        ..at_login(Action::Block, HOUR)
    };
    let mut engine = engine(vec![simulated]);
    engine.ask(&login(CLIENT, "alice"), START);
    let decision = engine.ask(&get(CLIENT), START);
    assert_eq!(
        (decision.action, decision.simulated),
        (None, Some(Action::Block))
    );
    assert_eq!(decision.rule.as_deref(), Some("r"));
    assert_eq!(engine.orders().count(), 0);
    assert_eq!(engine.tally_of("r").over, 1);
}

#[test]
fn a_simulated_tier_leaves_the_others_at_work() {
    let mut simulated = tier(1, MINUTE, Action::Reject);
    simulated.effect.simulate = true;
    let tiers = vec![simulated, tier(2, MINUTE, Action::Captcha)];
    let mut engine = engine(vec![rule("r", Count::Requests, tiers)]);
    engine.ask(&get(CLIENT), START);
    let decision = engine.ask(&get(CLIENT), START);
    assert_eq!(
        (decision.action, decision.simulated),
        (None, Some(Action::Reject))
    );
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Captcha));
}

#[test]
fn enforce_false_simulates_every_rule() {
    let mut policy = decide(vec![at_login(Action::Reject, HOUR)]);
    policy.enforce = false;
    let mut engine = Engine::new(&policy, EDGE, &SECRET);
    engine.ask(&login(CLIENT, "alice"), START);
    let decision = engine.ask(&login(CLIENT, "alice"), START);
    assert_eq!(
        (decision.action, decision.simulated),
        (None, Some(Action::Reject))
    );
}

#[test]
fn a_rule_can_be_switched_at_run_time() {
    let mut engine = engine(vec![at_login(Action::Reject, HOUR)]);
    engine.ask(&login(CLIENT, "alice"), START);
    assert!(engine.set_mode("r", Mode::Simulate));
    let decision = engine.ask(&login(CLIENT, "alice"), START);
    assert_eq!(
        (decision.action, decision.simulated),
        (None, Some(Action::Reject))
    );
    engine.set_mode("r", Mode::Off);
    assert_eq!(
        engine.ask(&login(CLIENT, "alice"), START),
        Decision::default()
    );
    engine.set_mode("r", Mode::On);
    assert!(engine.ask(&login(CLIENT, "alice"), START).refuses());
    assert!(!engine.set_mode("other", Mode::Off));
}

#[test]
fn passing_a_challenge_leaves_those_of_other_rules() {
    let challenge = |name: &str| {
        let tiers = vec![tier(1, MINUTE, Action::Captcha).lasting(HOUR)];
        rule(name, statuses(401), tiers)
    };
    let mut engine = engine(vec![challenge("a"), challenge("b")]);
    engine.report(&with_status(401, get(CLIENT)), START);
    let decision = engine.ask(&get(CLIENT), START);
    engine.passes(
        &get(CLIENT),
        &decision.rule.unwrap(),
        decision.part.unwrap(),
        START,
    );
    let decision = engine.ask(&get(CLIENT), START);
    assert_eq!(decision.rule.as_deref(), Some("b"));
}

#[test]
fn among_equals_the_longest_applies_whatever_they_would_make_others_wait() {
    let reject = |name: &str, wait_ms, lasting_ns| {
        let mut tier = tier(1, MINUTE, Action::Reject).lasting(lasting_ns);
        tier.effect.wait_ms = wait_ms;
        rule(name, Count::Requests, vec![tier])
    };
    let mut engine = engine(vec![
        reject("short", 9_000, MINUTE),
        reject("long", 100, HOUR),
    ]);
    engine.ask(&get(CLIENT), START);
    let decision = engine.ask(&get(CLIENT), START);
    assert_eq!(decision.rule.as_deref(), Some("long"));
}

#[test]
fn a_neighbour_of_the_peer_is_not_blocked_at_the_nic() {
    let mut engine = engine(vec![at_login(Action::Block, HOUR)]);
    let event = |event| Event {
        peer: Some(address("2001:db8::1")),
        ..event
    };
    engine.ask(&event(login("2001:db8::2", "alice")), START);
    assert_eq!(
        engine.action(&event(get("2001:db8::2")), START),
        Some(Action::Block)
    );
    assert_eq!(engine.orders().count(), 0);
}

#[test]
fn a_block_is_ordered_anew_by_a_report_too() {
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR)];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    engine.report(&with_status(401, get(CLIENT)), START);
    engine.report(&with_status(401, get(CLIENT)), START + S);
    assert_eq!(engine.orders().count(), 1);
    engine.report(&with_status(200, get(CLIENT)), START + HOUR);
    assert_eq!(engine.ordered(), [(CLIENT.to_owned(), START + HOUR + S)]);
}

#[test]
fn an_order_that_the_nic_did_not_take_is_given_again_after_a_minute() {
    let mut engine = engine(vec![at_login(Action::Block, HOUR)]);
    engine.ask(&login(CLIENT, "alice"), START);
    let order = engine.orders().next().unwrap();
    assert!(engine.explain(address(CLIENT), START)[0].at_nic);
    engine.refused(&order, START);
    assert!(!engine.explain(address(CLIENT), START)[0].at_nic);
    engine.ask(&get(CLIENT), START + MINUTE - 1);
    assert_eq!(engine.orders().count(), 0);
    engine.ask(&get(CLIENT), START + MINUTE);
    assert_eq!(engine.orders().count(), 1);
    assert!(engine.explain(address(CLIENT), START + MINUTE)[0].at_nic);
}

#[test]
fn a_block_that_lasts_longer_than_the_rule_blocks_by_now_is_ordered_in_parts() {
    let lasting = |lasting_ns| {
        let tiers = vec![tier(1, MINUTE, Action::Block).lasting(lasting_ns)];
        rule("r", statuses(401), tiers)
    };
    let mut engine = engine(vec![lasting(DAY)]);
    engine.report(&with_status(401, get(CLIENT)), START);
    let held = engine.snapshot(START);
    let mut engine = super::engine(vec![lasting(HOUR)]);
    assert!(engine.restore(&held, START) > 0);
    for hour in 0..24 {
        let now_ns = START + hour * HOUR;
        engine.ask(&get(CLIENT), now_ns);
        assert_eq!(engine.ordered(), [(CLIENT.to_owned(), now_ns + HOUR)]);
        engine.ask(&get(CLIENT), now_ns + HOUR - 1);
        assert_eq!(engine.orders().count(), 0);
    }
    assert!(!engine.ask(&get(CLIENT), START + DAY).refuses());
}

#[test]
fn an_order_that_followed_one_that_was_refused_stands() {
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR)];
    let confined = |limit: Option<&str>| Rule {
        block_limit: limit.map(str::to_owned),
        ..rule("r", statuses(401), tiers.clone())
    };
    let mut engine = engine(vec![confined(None)]);
    engine.report(&with_status(401, get(CLIENT)), START);
    let first = engine.orders().next().unwrap();
    // Taken back by hand, and ordered again for longer, before it is heard that it was refused.
    engine.unblock(address(CLIENT), START);
    engine.report(&with_status(401, get(CLIENT)), START + S);
    let order = engine.orders().next_back().unwrap();
    engine.refused(&first, START + S);
    assert!(engine.explain(address(CLIENT), START + S)[0].at_nic);
    // The same block, confined to a limit since.
    engine.reload(&decide(vec![confined(Some("https"))]), EDGE);
    engine.ask(&get(CLIENT), START + S);
    let confined = engine.orders().next_back().unwrap();
    engine.refused(&order, START + S);
    assert!(engine.explain(address(CLIENT), START + S)[0].at_nic);
    engine.refused(&confined, START + S);
    assert!(!engine.explain(address(CLIENT), START + S)[0].at_nic);
}

#[test]
fn what_is_simulated_changes_nothing_about_a_real_block() {
    let mut simulated = tier(2, MINUTE, Action::Block).lasting(DAY);
    simulated.effect.simulate = true;
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR), simulated];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    engine.reports(&with_status(401, get(CLIENT)), 2, START);
    let decision = engine.ask(&get(CLIENT), START);
    assert_eq!(decision.action, Some(Action::Block));
    assert_eq!(decision.until_ns, Some(START + HOUR));
}

#[test]
fn an_order_tells_the_rung_and_the_event_behind_it() {
    let mut rungs = vec![rung(2, HOUR, HOUR), rung(1, HOUR, DAY)];
    for rung in &mut rungs {
        rung.effect.action = Action::Block;
    }
    let decay = Duration::from_nanos(DAY);
    let rule = Rule {
        course: Course::Ladder(Ladder { rungs, decay }),
        ..rule("r", statuses(401), Vec::new())
    };
    let mut engine = engine(vec![rule]);
    let mut orders = Vec::new();
    for (number, now_ns) in [(0, START), (1, START), (2, START + 2 * HOUR)] {
        let event = login(CLIENT, &format!("user {number}"));
        engine.report(&with_status(401, event), now_ns);
        orders.extend(engine.orders());
    }
    let told = orders.into_iter().map(|order| match order.what {
        Ordered::Block {
            part, rung, cause, ..
        } => (part, rung, cause.account.unwrap(), cause.status),
        Ordered::Withdraw => unreachable!(),
    });
    let expected = [
        (0, 1, "user 1".into(), Some(401)),
        (1, 2, "user 2".into(), Some(401)),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

/// A source that is blocked, and ordered at the NIC.
fn blocked(rules: Vec<Rule>) -> Engine {
    let mut engine = engine(rules);
    engine.ask(&login(CLIENT, "alice"), START);
    assert_eq!(engine.ordered().len(), 1);
    engine
}

fn withdrawn() -> [String; 1] {
    [CLIENT.to_owned()]
}

#[test]
fn a_block_that_ends_before_its_time_is_taken_back_at_the_nic() {
    let rules = || vec![at_login(Action::Block, HOUR)];
    let mut engine = blocked(rules());
    engine.unblock(address(CLIENT), START);
    assert_eq!(engine.withdrawn(), withdrawn());
    for mode in [Mode::Off, Mode::Simulate] {
        let mut engine = blocked(rules());
        engine.set_mode("r", mode);
        assert_eq!(engine.withdrawn(), withdrawn());
        engine.set_mode("r", mode);
        assert_eq!(engine.withdrawn(), [""; 0]);
        // When the rule is at work again, so is its block.
        engine.set_mode("r", Mode::On);
        engine.ask(&get(CLIENT), START + S);
        assert_eq!(engine.ordered(), [(CLIENT.to_owned(), START + HOUR)]);
    }
}

#[test]
fn what_a_reload_ends_is_taken_back_at_the_nic() {
    let rules = || vec![at_login(Action::Block, HOUR)];
    let with = |change: fn(&mut Decide)| {
        let mut policy = decide(rules());
        change(&mut policy);
        policy
    };
    let ends = [
        with(|policy| policy.rules.clear()),
        with(|policy| policy.rules[0].key = vec![KeyPart::Peer]),
        with(|policy| policy.enforce = false),
        with(|policy| policy.exempt = vec!["192.0.2.0/24".parse().unwrap()]),
    ];
    for policy in ends {
        let mut engine = blocked(rules());
        engine.reload(&policy, EDGE);
        assert_eq!(engine.withdrawn(), withdrawn());
    }
    let mut engine = blocked(rules());
    engine.reload(&decide(rules()), EDGE);
    assert_eq!(engine.orders().count(), 0);
}

#[test]
fn a_block_that_runs_out_or_never_was_at_the_nic_is_not_taken_back() {
    let mut engine = blocked(vec![at_login(Action::Block, HOUR)]);
    engine.upkeep(START + HOUR);
    engine.unblock(address(CLIENT), START + HOUR);
    let refused = |engine: &mut Engine| {
        let order = engine.orders().next().unwrap();
        engine.refused(&order, START);
    };
    let mut engine_refused = super::engine(vec![at_login(Action::Block, HOUR)]);
    engine_refused.ask(&login(CLIENT, "alice"), START);
    refused(&mut engine_refused);
    engine_refused.unblock(address(CLIENT), START);
    for mut engine in [engine, engine_refused] {
        assert_eq!(engine.orders().count(), 0);
    }
}

#[test]
fn clears_and_unlock_take_back_the_block_that_is_for_an_account_at_a_source() {
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR)];
    let by_both = || Rule {
        key: vec![KeyPart::Source, KeyPart::Account],
        requests: requests(&["POST /login"]),
        ..rule("r", Count::Requests, tiers.clone())
    };
    let mut engine = blocked(vec![by_both()]);
    let dropped = engine.unlock("alice", START);
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0].action, Some((Action::Block, START + HOUR)));
    assert_eq!(engine.withdrawn(), withdrawn());
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    let done = Rule {
        requests: requests(&["POST /done"]),
        clears: vec!["r".to_owned()],
        ..rule(
            "done",
            Count::Requests,
            vec![tier(9, MINUTE, Action::Reject)],
        )
    };
    let mut engine = blocked(vec![by_both(), done]);
    let event = Event {
        path: Some("/done".into()),
        ..login(CLIENT, "alice")
    };
    engine.report(&event, START);
    assert_eq!(engine.withdrawn(), withdrawn());
}

#[test]
fn an_untimed_block_for_an_account_at_a_source_does_not_come_back_after_unblock() {
    let tiers = vec![tier(2, HOUR, Action::Block)];
    let mut engine = engine(vec![Rule {
        key: vec![KeyPart::Source, KeyPart::Account],
        ..rule("r", Count::Failures, tiers)
    }]);
    for account in ["alice", "bob"] {
        engine.reports(&failed(login(CLIENT, account)), 2, START);
    }
    engine.report(&failed(login(OTHER, "alice")), START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
    assert_eq!(engine.unblock(address(CLIENT), START), ["r".into()]);
    for account in ["alice", "bob"] {
        assert!(!engine.ask(&login(CLIENT, account), START).refuses());
    }
    // What is counted of others still is.
    engine.report(&failed(login(OTHER, "alice")), START);
    assert!(engine.ask(&login(OTHER, "alice"), START).refuses());
}

#[test]
fn what_began_in_a_dry_run_is_not_done_when_it_is_over() {
    let rules = || {
        let ladder = Rule {
            key: vec![KeyPart::Account],
            ..rule("lock", Count::Failures, Vec::new())
        };
        vec![
            at_login(Action::Block, HOUR),
            Rule {
                course: lockout(),
                ..ladder
            },
        ]
    };
    let mut dry = decide(rules());
    dry.enforce = false;
    let mut engine = Engine::new(&dry, EDGE, &SECRET);
    let alice = || login(CLIENT, "alice");
    engine.ask(&alice(), START);
    engine.reports(&failed(alice()), 5, START);
    assert_eq!(engine.ask(&alice(), START).simulated, Some(Action::Block));
    let elsewhere = engine.ask(&login(OTHER, "alice"), START);
    assert_eq!(elsewhere.simulated, Some(Action::Reject));
    assert_eq!(engine.snapshot(START).blocks.len(), 0);
    engine.reload(&decide(rules()), EDGE);
    for event in [get(CLIENT), login("192.0.2.3", "alice")] {
        let decision = engine.ask(&event, START + S);
        assert_eq!((decision.action, decision.simulated), (None, None));
    }
    assert_eq!(engine.tally_of("lock").active, 0);
    // Nor are the rungs that were reached by it held against anybody.
    engine.reports(&failed(login("192.0.2.3", "alice")), 5, START + S);
    let decision = engine.ask(&login("192.0.2.4", "alice"), START + S);
    assert_eq!(decision.until_ns, Some(START + S + 15 * MINUTE));
}

#[test]
fn a_real_action_outlasts_a_dry_run_in_between() {
    let tiers = vec![tier(1, MINUTE, Action::Reject).lasting(HOUR)];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    engine.report(&with_status(401, get(CLIENT)), START);
    engine.set_mode("r", Mode::Simulate);
    engine.report(&with_status(401, get(CLIENT)), START + MINUTE);
    engine.report(&with_status(401, get(OTHER)), START + MINUTE);
    engine.set_mode("r", Mode::On);
    let decision = engine.ask(&get(CLIENT), START + 2 * MINUTE);
    assert_eq!(decision.until_ns, Some(START + HOUR));
    assert!(!engine.ask(&get(OTHER), START + 2 * MINUTE).refuses());
}
