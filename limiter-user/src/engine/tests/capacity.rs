//! Capacities.

use super::*;

fn accounts(engine: &mut Engine, source: &str, range: std::ops::Range<u32>, now_ns: u64) {
    for number in range {
        engine.report(&failed(login(source, &format!("user{number}"))), now_ns);
        engine.changes().count();
    }
}

fn lock(tracked: u32, blocked: u32, keys_per_source: u32) -> Engine {
    engine(vec![Rule {
        tracked,
        blocked,
        keys_per_source,
        ..by_account("lock", lockout())
    }])
}

#[test]
fn full_the_least_recently_active_key_goes_and_is_counted() {
    let mut engine = lock(3, 3, 3);
    engine.reports(&failed(login(CLIENT, "alice")), 4, START);
    accounts(&mut engine, OTHER, 0..2, START);
    engine.report(&failed(login(OTHER, "user0")), START + S);
    accounts(&mut engine, "192.0.2.3", 7..8, START + S);
    let tally = engine.tally_of("lock");
    assert_eq!(
        (tally.evicted, tally.evicted_under_count, tally.tracked),
        (1, 1, 3)
    );
    engine.report(&failed(login(CLIENT, "alice")), START + S);
    assert!(!engine.ask(&login(CLIENT, "alice"), START + S).refuses());
}

#[test]
fn keys_with_an_active_action_never_go() {
    let mut engine = lock(100, 100, 100);
    for number in 0..50 {
        let event = failed(login(CLIENT, &format!("locked{number}")));
        engine.reports(&event, 5, START);
    }
    for source in 0..20 {
        let range = source * 1_000..(source + 1) * 1_000;
        accounts(&mut engine, &format!("198.51.100.{source}"), range, START);
    }
    for number in 0..50 {
        assert!(
            engine
                .ask(&login(OTHER, &format!("locked{number}")), START)
                .refuses()
        );
    }
    assert_eq!(engine.tally_of("lock").tracked, 100);
}

#[test]
fn new_keys_per_source_are_capped() {
    let mut engine = lock(1_000, 1_000, 10);
    engine.reports(&failed(login(CLIENT, "victim")), 4, START);
    accounts(&mut engine, OTHER, 0..20_000, START);
    assert_eq!(engine.tally_of("lock").tracked, 11);
    engine.report(&failed(login(CLIENT, "victim")), START);
    assert!(engine.ask(&login(CLIENT, "victim"), START).refuses());
}

#[test]
fn keys_that_count_no_more_make_room_without_being_counted_as_evicted() {
    let mut engine = engine(vec![rule(
        "r",
        statuses(401),
        vec![tier(5, MINUTE, Action::Reject)],
    )]);
    for number in 0..5_000_u64 {
        let source = format!("10.0.{}.{}", number / 256, number % 256);
        engine.report(&with_status(401, get(&source)), START + number * S);
    }
    let tally = engine.tally_of("r");
    assert!(tally.tracked <= 61, "{tally:?}");
    assert_eq!(tally.evicted, 0);
}

#[test]
fn a_full_block_table_refuses_and_counts() {
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR)];
    let mut engine = engine(vec![Rule {
        blocked: 2,
        ..rule("r", Count::Requests, tiers)
    }]);
    for host in 1..=4 {
        engine.ask(&get(&format!("192.0.2.{host}")), START);
    }
    let tally = engine.tally_of("r");
    assert_eq!((tally.blocked, tally.full), (2, 2));
    assert_eq!(engine.orders().count(), 2);
    assert!(
        engine
            .changes()
            .any(|change| matches!(change.what, What::Full { .. }))
    );
    // When there is room again, others are blocked again.
    engine.ask(&get("192.0.2.9"), START + HOUR);
    assert_eq!(
        engine.action(&get("192.0.2.9"), START + HOUR),
        Some(Action::Block)
    );
}

#[test]
fn when_all_keys_have_an_active_action_new_ones_are_counted_as_untracked() {
    let mut engine = lock(1, 1, 1);
    engine.reports(&failed(login(CLIENT, "alice")), 5, START);
    engine.reports(&failed(login(OTHER, "carol")), 5, START);
    assert_eq!(engine.tally_of("lock").untracked, 5);
    assert!(!engine.ask(&login(OTHER, "carol"), START).refuses());
    engine.reports(&failed(login(OTHER, "carol")), 5, START + 3 * DAY);
    assert!(
        engine
            .ask(&login(OTHER, "carol"), START + 3 * DAY)
            .refuses()
    );
}

#[test]
fn one_source_that_locks_all_it_can_leaves_room_for_the_accounts_of_others() {
    let mut engine = lock(100, 100, 100);
    for number in 0..300 {
        let event = failed(login(CLIENT, &format!("junk{number}")));
        engine.reports(&event, 5, START);
    }
    let tally = engine.tally_of("lock");
    assert!(tally.active <= 87, "{tally:?}");
    engine.reports(&failed(login(OTHER, "alice")), 5, START);
    assert!(engine.ask(&login(OTHER, "alice"), START).refuses());
}

#[test]
fn locked_accounts_count_among_the_keys_of_who_locked_them() {
    let mut engine = lock(1_000, 1_000, 10);
    for number in 0..50 {
        let event = failed(login(CLIENT, &format!("junk{number}")));
        engine.reports(&event, 5, START);
    }
    assert_eq!(engine.tally_of("lock").active, 10);
    // What more it tries could not be counted.
    assert!(engine.ask(&login(CLIENT, "alice"), START).refuses());
    assert!(!engine.ask(&login(OTHER, "alice"), START).refuses());
}

#[test]
fn a_source_cannot_wipe_out_its_own_counts_and_rungs_by_junk() {
    let mut engine = lock(1_000, 1_000, 10);
    engine.reports(&failed(login(CLIENT, "alice")), 4, START);
    engine.reports(&failed(login(CLIENT, "bob")), 5, START);
    let later_ns = START + 15 * MINUTE;
    engine.reports(&failed(login(CLIENT, "alice")), 4, later_ns);
    accounts(&mut engine, CLIENT, 0..1_000, later_ns);
    engine.report(&failed(login(CLIENT, "alice")), later_ns);
    assert!(engine.ask(&login(CLIENT, "alice"), later_ns).refuses());
    engine.reports(&failed(login(CLIENT, "bob")), 5, later_ns);
    let until_ns = engine.ask(&login(CLIENT, "bob"), later_ns).until_ns;
    assert_eq!(until_ns, Some(later_ns + HOUR));
}

#[test]
fn methods_can_be_made_at_will() {
    let by_method = Rule {
        key: vec![KeyPart::Source, KeyPart::Method],
        keys_per_source: 10,
        ..rule("r", statuses(401), vec![tier(5, MINUTE, Action::Reject)])
    };
    let mut engine = engine(vec![by_method]);
    for number in 0..500 {
        let event = Event {
            method: Some(format!("M{number}").into()),
            ..with_status(401, get(CLIENT))
        };
        engine.report(&event, START);
    }
    assert_eq!(engine.tally_of("r").tracked, 10);
}

#[test]
fn long_questions_take_no_more_memory_than_many() {
    let mut engine = engine(vec![by_account("lock", lockout())]);
    let long = |number: usize| Event {
        path: Some(format!("/login?{}", "x".repeat(100_000)).into()),
        ..with_id(&number.to_string(), login(CLIENT, &number.to_string()))
    };
    for number in 0..1_000 {
        engine.ask(&long(number), START);
    }
    assert!(engine.questions.forgotten >= 600);
    // The latest is there: its report counts under the account that it was asked for.
    let report = failed(with_id("999", Event::of(address(OTHER))));
    engine.report(&report, START);
    assert_eq!(engine.tally_of("lock").counted, 1);
    engine.report(&failed(with_id("0", Event::of(address(OTHER)))), START);
    assert_eq!(engine.tally_of("lock").counted, 1);
}

#[test]
fn a_rule_tells_when_it_last_matched() {
    let rule = Rule {
        requests: requests(&["POST /login"]),
        ..rule("r", Count::Requests, vec![tier(9, MINUTE, Action::Reject)])
    };
    let mut engine = engine(vec![rule]);
    engine.ask(&get(CLIENT), START);
    assert_eq!(engine.tally_of("r").matched_ns, 0);
    engine.ask(&login(CLIENT, "alice"), START + S);
    engine.ask(&get(CLIENT), START + MINUTE);
    assert_eq!(engine.tally_of("r").matched_ns, START + S);
}
