//! Reload, restart, and what is done by hand.

use super::*;

fn rules() -> Vec<Rule> {
    let block = vec![tier(3, MINUTE, Action::Block).lasting(HOUR)];
    vec![
        by_account("lock", lockout()),
        rule("block", statuses(401), block),
    ]
}

/// An account that is locked, a source that is blocked, and counts below the limit.
fn filled() -> Engine {
    let mut engine = engine(rules());
    engine.reports(&failed(login(OTHER, "alice")), 5, START);
    engine.reports(&failed(login(OTHER, "bob")), 4, START);
    engine.reports(&with_status(401, get(CLIENT)), 3, START);
    engine.orders().count();
    engine
}

#[test]
fn counters_survive_a_reload_for_rules_that_did_not_change() {
    let mut engine = filled();
    let mut changed = rules();
    changed.reverse();
    changed[0].response.status = 403;
    changed.push(rule(
        "new",
        Count::Requests,
        vec![tier(1_000, MINUTE, Action::Reject)],
    ));
    engine.ask(&with_id("1", login(OTHER, "bob")), START);
    engine.reload(&decide(changed), EDGE);
    assert!(engine.ask(&login(OTHER, "alice"), START).refuses());
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Block));
    // What was reserved before still is, and is joined to its report.
    assert!(engine.ask(&login(OTHER, "bob"), START).refuses());
    engine.report(&with_id("1", failed(login(OTHER, "bob"))), START);
    assert_eq!(
        engine.ask(&login(OTHER, "bob"), START).until_ns,
        Some(START + 15 * MINUTE)
    );
    // And ends still come.
    engine.upkeep(START + DAY);
    assert_eq!(engine.tally_of("lock").active, 0);
    assert_eq!(engine.tally_of("block").blocked, 0);
}

#[test]
fn a_rule_that_changed_counts_from_zero_and_holds_what_it_held() {
    let mut engine = filled();
    let mut changed = rules();
    changed[0].on_success = OnSuccess::Halve;
    changed[1].count_refused = true;
    engine.reload(&decide(changed), EDGE);
    assert!(engine.ask(&login(OTHER, "alice"), START).refuses());
    let held = engine.ask(&get(CLIENT), START);
    assert_eq!(held.until_ns, Some(START + HOUR));
    // It is ordered at the NIC, still.
    assert_eq!(engine.orders().count(), 0);
    engine.report(&failed(login(OTHER, "bob")), START);
    assert!(!engine.ask(&login(OTHER, "bob"), START).refuses());
    // The rung that was reached is, too.
    let now_ns = START + 15 * MINUTE;
    engine.reports(&failed(login(OTHER, "alice")), 5, now_ns);
    assert_eq!(
        engine.ask(&login(OTHER, "alice"), now_ns).until_ns,
        Some(now_ns + HOUR)
    );
    engine.upkeep(START + 9 * DAY);
    assert_eq!(engine.tally_of("block").blocked, 0);
}

#[test]
fn a_rule_with_another_key_or_other_tiers_holds_nothing() {
    let changes: [fn(&mut Rule, &mut Prefixes); 3] = [
        |_, edge| edge.ipv4 = 24,
        |rule, _| rule.key.push(KeyPart::Path),
        |rule, _| {
            let more = tier(9, MINUTE, Action::Reject);
            rule.course = Course::Tiers(vec![tier(3, MINUTE, Action::Block).lasting(HOUR), more]);
        },
    ];
    for change in changes {
        let (mut engine, mut other, mut edge) = (filled(), rules(), EDGE);
        change(&mut other[1], &mut edge);
        engine.reload(&decide(other.clone()), edge);
        assert!(!engine.ask(&get(CLIENT), START).refuses());
        assert_eq!(engine.withdrawn(), [CLIENT.to_owned()]);
        // Nor with another reload.
        other.push(rule(
            "more",
            Count::Requests,
            vec![tier(99, MINUTE, Action::Reject)],
        ));
        engine.reload(&decide(other), edge);
        assert!(!engine.ask(&get(CLIENT), START).refuses());
    }
}

#[test]
fn a_block_that_became_a_rejection_is_taken_back_at_the_nic() {
    let mut engine = filled();
    let mut milder = rules();
    milder[1].course = Course::Tiers(vec![tier(3, MINUTE, Action::Reject).lasting(HOUR)]);
    engine.reload(&decide(milder), EDGE);
    assert_eq!(engine.withdrawn(), [CLIENT.to_owned()]);
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Reject));
}

#[test]
fn a_block_that_is_confined_otherwise_is_ordered_anew() {
    let mut engine = filled();
    let mut confined = rules();
    confined[1].block_limit = Some("https".to_owned());
    engine.reload(&decide(confined), EDGE);
    let order = engine.orders().next().unwrap();
    assert_eq!((order.limit, order.what), (None, Ordered::Withdraw));
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Block));
    let order = engine.orders().next().unwrap();
    assert_eq!(order.limit.as_deref(), Some("https"));
    assert!(matches!(order.what, Ordered::Block { until_ns, .. } if until_ns == START + HOUR));
}

#[test]
fn a_policy_that_is_rolled_back_holds_what_it_held() {
    let mut engine = filled();
    engine.reload(&decide(Vec::new()), EDGE);
    assert_eq!(engine.withdrawn(), [CLIENT.to_owned()]);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    // The same rules again, as where somebody pauses, are no step further.
    engine.reload(&decide(Vec::new()), EDGE);
    engine.reload(&decide(rules()), EDGE);
    assert!(engine.ask(&login(OTHER, "alice"), START).refuses());
    assert_eq!(engine.action(&get(CLIENT), START), Some(Action::Block));
    assert_eq!(engine.ordered(), [(CLIENT.to_owned(), START + HOUR)]);
    // With other rules in between it is forgotten.
    engine.reload(&decide(Vec::new()), EDGE);
    let other = rule(
        "other",
        Count::Requests,
        vec![tier(99, MINUTE, Action::Reject)],
    );
    engine.reload(&decide(vec![other]), EDGE);
    engine.reload(&decide(rules()), EDGE);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn actions_rungs_and_blocks_survive_a_restart() {
    let text = serde_json::to_string(&filled().snapshot(START)).unwrap();
    let mut engine = engine(rules());
    let snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(engine.restore(&snapshot, START + S), 3);
    assert!(engine.ask(&login(OTHER, "alice"), START + S).refuses());
    assert_eq!(
        engine.ask(&get(CLIENT), START + S).until_ns,
        Some(START + HOUR)
    );
    assert_eq!(engine.orders().count(), 1);
    // The ladder stands where it stood.
    let now_ns = START + 15 * MINUTE;
    engine.reports(&failed(login(OTHER, "alice")), 5, now_ns);
    assert_eq!(
        engine.ask(&login(OTHER, "alice"), now_ns).until_ns,
        Some(now_ns + HOUR)
    );
}

#[test]
fn what_is_not_done_after_a_restart_is_taken_back_at_the_nic() {
    let snapshot = filled().snapshot(START);
    let mut dry = decide(rules());
    dry.enforce = false;
    let dry = Engine::new(&dry, EDGE, &SECRET);
    let mut off = engine(rules());
    off.set_mode("block", Mode::Off);
    for mut engine in [dry, off] {
        engine.restore(&snapshot, START);
        assert_eq!(engine.withdrawn(), [CLIENT.to_owned()]);
    }
}

#[test]
fn what_has_ended_since_or_is_of_another_rule_is_not_restored() {
    let snapshot = filled().snapshot(START);
    let mut other = engine(vec![rule(
        "other",
        statuses(401),
        vec![tier(3, MINUTE, Action::Block)],
    )]);
    assert_eq!(other.restore(&snapshot, START), 0);
    // The block is over; the rungs of two accounts are not.
    let mut late = engine(rules());
    late.restore(&snapshot, START + HOUR);
    assert!(!late.ask(&get(CLIENT), START + HOUR).refuses());
    let mut much_later = engine(rules());
    assert_eq!(much_later.restore(&snapshot, START + 9 * DAY), 0);
}

#[test]
fn unlock_releases_an_account() {
    let mut engine = filled();
    let dropped = engine.unlock(" ALICE", START);
    let rules: Vec<_> = dropped.iter().map(|it| &*it.rule).collect();
    assert_eq!(rules, ["lock"]);
    assert!(!engine.ask(&login(OTHER, "alice"), START).refuses());
    assert_eq!(engine.unlock("alice", START), []);
    // Its rungs are gone too.
    engine.reports(&failed(login(OTHER, "alice")), 5, START);
    assert_eq!(
        engine.ask(&login(OTHER, "alice"), START).until_ns,
        Some(START + 15 * MINUTE)
    );
}

#[test]
fn unblock_releases_a_source() {
    let mut engine = filled();
    assert_eq!(engine.unblock(address(CLIENT), START), ["block".into()]);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
    assert_eq!(engine.unblock(address(CLIENT), START), []);
}

#[test]
fn unblock_releases_a_source_whatever_key_it_was_blocked_for() {
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR)];
    let mut engine = engine(vec![Rule {
        key: vec![KeyPart::Source, KeyPart::Account],
        ..rule("r", Count::Failures, tiers)
    }]);
    engine.report(&failed(login(CLIENT, "alice")), START);
    assert_eq!(engine.unblock(address(CLIENT), START), ["r".into()]);
    assert!(!engine.ask(&login(CLIENT, "alice"), START).refuses());
}

#[test]
fn clears_takes_back_the_block_too() {
    let tiers = vec![tier(1, MINUTE, Action::Block).lasting(HOUR)];
    let done = Rule {
        requests: requests(&["POST /done"]),
        clears: vec!["r".to_owned()],
        ..rule(
            "done",
            Count::Requests,
            vec![tier(9, MINUTE, Action::Reject)],
        )
    };
    let mut engine = engine(vec![rule("r", statuses(401), tiers), done]);
    engine.report(&with_status(401, get(CLIENT)), START);
    assert!(engine.ask(&get(CLIENT), START).refuses());
    let event = Event {
        path: Some("/done".into()),
        ..login(CLIENT, "alice")
    };
    engine.report(&event, START);
    assert!(!engine.ask(&get(CLIENT), START).refuses());
}

#[test]
fn explain_tells_what_is_held_against_a_source() {
    let mut engine = filled();
    let explained = engine.explain(address(CLIENT), START);
    assert_eq!(explained.len(), 1);
    assert_eq!(&*explained[0].rule, "block");
    assert_eq!(explained[0].blocked, Some((Action::Block, START + HOUR)));
    assert!(explained[0].at_nic);
    engine.report(&with_status(401, get("192.0.2.7")), START);
    let explained = engine.explain(address("192.0.2.7"), START);
    assert_eq!(
        (explained[0].blocked, explained[0].remaining),
        (None, Some(2))
    );
    assert_eq!(engine.explain(address("192.0.2.8"), START), []);
    assert_eq!(explained[0].idle, None);
    engine.set_mode("block", Mode::Off);
    let explained = engine.explain(address(CLIENT), START);
    assert_eq!(explained[0].idle, Some(super::super::Idle::Off));
    assert!(!explained[0].at_nic);
}

#[test]
fn more_keys_than_one_source_may_bring_survive_a_restart() {
    let small = || {
        vec![Rule {
            keys_per_source: 4,
            ..by_account("lock", lockout())
        }]
    };
    let mut before = engine(small());
    for host in 1..=100 {
        let event = login(&format!("192.0.2.{host}"), &format!("a{host}"));
        before.reports(&failed(event), 5, START);
    }
    let snapshot = before.snapshot(START);
    let mut after = engine(small());
    assert_eq!(after.restore(&snapshot, START), snapshot.keys.len());
    for key in 1..=snapshot.keys.len() {
        let event = login("203.0.113.1", &format!("a{key}"));
        assert!(after.ask(&event, START).refuses(), "{key}");
    }
}

#[test]
fn what_is_held_of_a_rule_that_is_gone_comes_back_after_a_restart_too() {
    let mut engine = filled();
    let other = rule(
        "other",
        Count::Requests,
        vec![tier(99, MINUTE, Action::Reject)],
    );
    let trial = decide(vec![other]);
    engine.held_changes(START);
    engine.reload(&trial, EDGE);
    let crate::engine::HeldChanges::All(held) = engine.held_changes(START) else {
        panic!("all is stored anew where a rule is gone");
    };
    let mut after = Engine::new(&trial, EDGE, &SECRET);
    after.take_aside(&decide(rules()), EDGE, &held);
    assert_eq!(after.restore(&held, START), 0);
    assert!(!after.ask(&get(CLIENT), START).refuses());
    assert_eq!(after.snapshot(START), held);
    after.reload(&decide(rules()), EDGE);
    assert!(after.ask(&login(OTHER, "alice"), START).refuses());
    assert_eq!(after.action(&get(CLIENT), START), Some(Action::Block));
    // With other definitions it does not.
    let mut other = rules();
    other[1].ipv4_prefix = Some(24);
    let mut after = Engine::new(&trial, EDGE, &SECRET);
    after.take_aside(&decide(rules()), EDGE, &held);
    after.reload(&decide(other), EDGE);
    assert!(after.ask(&login(OTHER, "alice"), START).refuses());
    assert!(!after.ask(&get(CLIENT), START).refuses());
}

#[test]
fn what_is_restored_late_is_held_over_what_only_counts() {
    let held = filled().snapshot(START);
    let mut engine = engine(rules());
    engine.report(&failed(login(OTHER, "alice")), START);
    assert_eq!(engine.restore(&held, START), 3);
    assert_eq!(
        engine.ask(&login(OTHER, "alice"), START).until_ns,
        Some(START + 15 * MINUTE)
    );
    // Not over what is held since.
    engine.reports(&failed(login(OTHER, "alice")), 5, START + HOUR);
    engine.restore(&held, START + HOUR);
    assert_eq!(
        engine.ask(&login(OTHER, "alice"), START + HOUR).until_ns,
        Some(START + 2 * HOUR)
    );
}
