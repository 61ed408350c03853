//! For how long.

use super::*;

#[test]
fn without_for_it_applies_while_the_count_stays_at_the_limit() {
    let mut engine = engine(vec![rule(
        "r",
        Count::Requests,
        vec![tier(2, MINUTE, Action::Reject)],
    )]);
    engine.ask(&get(CLIENT), START);
    engine.ask(&get(CLIENT), START + 10 * S);
    let decision = engine.ask(&get(CLIENT), START + 20 * S);
    assert_eq!(decision.until_ns, Some(START + MINUTE));
    assert!(!engine.ask(&get(CLIENT), START + MINUTE).refuses());
    assert!(engine.ask(&get(CLIENT), START + MINUTE).refuses());
}

#[test]
fn with_for_it_lasts_from_the_event_that_reached_the_limit_and_the_count_starts_from_zero() {
    let tiers = vec![tier(3, MINUTE, Action::Reject).lasting(10 * S)];
    let mut engine = engine(vec![rule("r", Count::Requests, tiers)]);
    assert_eq!(engine.passing(&get(CLIENT), 3, START), 3);
    assert_eq!(
        engine.ask(&get(CLIENT), START + S).until_ns,
        Some(START + 10 * S)
    );
    // All three are still in the period, and count no more.
    assert_eq!(engine.passing(&get(CLIENT), 9, START + 10 * S), 3);
}

#[test]
fn overlapping_actions_keep_the_later_end() {
    let tiers = vec![tier(2, MINUTE, Action::Reject).lasting(HOUR)];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    let report = with_status(401, get(CLIENT));
    engine.reports(&report, 2, START);
    engine.reports(&report, 2, START + MINUTE);
    assert_eq!(
        engine.ask(&get(CLIENT), START + MINUTE).until_ns,
        Some(START + MINUTE + HOUR)
    );
}

#[test]
fn tiers_count_separately_and_side_by_side() {
    let tiers = vec![
        tier(2, MINUTE, Action::JsChallenge).lasting(S),
        tier(4, 5 * MINUTE, Action::Captcha).lasting(S),
        tier(6, HOUR, Action::Reject).lasting(DAY),
    ];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    let mut actions = Vec::new();
    for second in 0..6 {
        let now_ns = START + second * 2 * S;
        engine.report(&with_status(401, get(CLIENT)), now_ns);
        actions.push(engine.action(&get(CLIENT), now_ns));
    }
    let expected = [
        None,
        Some(Action::JsChallenge),
        None,
        Some(Action::Captcha),
        None,
        Some(Action::Reject),
    ];
    assert_eq!(actions, expected);
}

fn fail(engine: &mut Engine, count: usize, now_ns: u64) {
    engine.reports(&failed(login(CLIENT, "alice")), count, now_ns);
}

fn until(engine: &mut Engine, now_ns: u64) -> Option<u64> {
    engine.ask(&login(CLIENT, "alice"), now_ns).until_ns
}

#[test]
fn a_ladder_climbs_from_15_minutes_to_an_hour_to_a_day_and_its_last_rung_repeats() {
    let mut engine = engine(vec![by_account("lock", lockout())]);
    let mut now_ns = START;
    for lasting_ns in [15 * MINUTE, HOUR, DAY, DAY] {
        fail(&mut engine, 4, now_ns);
        assert_eq!(until(&mut engine, now_ns), None);
        fail(&mut engine, 1, now_ns);
        assert_eq!(until(&mut engine, now_ns), Some(now_ns + lasting_ns));
        now_ns += lasting_ns;
        assert_eq!(until(&mut engine, now_ns), None);
    }
    let rungs: Vec<_> = engine
        .began()
        .into_iter()
        .map(|(_, _, rung)| rung)
        .collect();
    assert_eq!(rungs, [1, 2, 3, 3]);
}

#[test]
fn a_ladder_counts_for_one_rung_at_a_time() {
    let mut engine = engine(vec![by_account("lock", lockout())]);
    fail(&mut engine, 5, START);
    // What comes in during the action, asked before it, is not held against the next rung.
    fail(&mut engine, 50, START + S);
    assert_eq!(until(&mut engine, START + S), Some(START + 15 * MINUTE));
    assert_eq!(until(&mut engine, START + 15 * MINUTE), None);
    fail(&mut engine, 4, START + 15 * MINUTE);
    assert_eq!(until(&mut engine, START + 15 * MINUTE), None);
}

#[test]
fn a_ladder_falls_by_one_rung_for_each_decay_without_a_counted_event_after_its_action() {
    for (quiet_ns, expected_ns) in [(DAY - 1, HOUR), (DAY, 15 * MINUTE)] {
        let mut engine = engine(vec![by_account("lock", lockout())]);
        fail(&mut engine, 5, START);
        let now_ns = START + 15 * MINUTE + quiet_ns;
        fail(&mut engine, 5, now_ns);
        assert_eq!(until(&mut engine, now_ns), Some(now_ns + expected_ns));
    }
}

#[test]
fn a_counted_event_starts_the_quiet_time_anew() {
    let mut engine = engine(vec![by_account("lock", lockout())]);
    fail(&mut engine, 5, START);
    let end_ns = START + 15 * MINUTE;
    fail(&mut engine, 1, end_ns + DAY - 1);
    let now_ns = end_ns + DAY + HOUR;
    fail(&mut engine, 5, now_ns);
    assert_eq!(until(&mut engine, now_ns), Some(now_ns + HOUR));
}

#[test]
fn jitter_only_lengthens() {
    let tiers = vec![tier(1, MINUTE, Action::Reject).lasting(100 * S)];
    let jittering = Rule {
        jitter_percent: 20,
        ..rule("r", Count::Requests, tiers)
    };
    let mut engine = engine(vec![jittering]);
    let mut lengths: Vec<_> = (1..100)
        .map(|host| {
            let event = get(&format!("192.0.2.{host}"));
            engine.ask(&event, START);
            engine.ask(&event, START).until_ns.unwrap() - START
        })
        .collect();
    lengths.sort_unstable();
    assert!(
        lengths[0] >= 100 * S && lengths[98] <= 120 * S,
        "{lengths:?}"
    );
    assert!(lengths[98] - lengths[0] > 10 * S, "{lengths:?}");
}

#[test]
fn a_rung_that_is_come_down_to_does_not_read_the_counts_of_another() {
    let mut first = rung(5, 5 * MINUTE, MINUTE);
    first.window.algorithm = Algorithm::FixedWindow;
    let mut engine = engine(vec![by_account(
        "lock",
        Course::Ladder(Ladder {
            rungs: vec![first, rung(5, 9 * DAY, HOUR)],
            decay: Duration::from_nanos(DAY),
        }),
    )]);
    fail(&mut engine, 5, START);
    // Four for the second rung, whose log is no window of the first.
    fail(&mut engine, 4, START + HOUR);
    let now_ns = START + HOUR + DAY;
    let decision = engine.ask(&login(CLIENT, "alice"), now_ns);
    assert!(!decision.refuses(), "{decision:?}");
    fail(&mut engine, 4, now_ns);
    assert_eq!(until(&mut engine, now_ns), None);
    fail(&mut engine, 1, now_ns);
    assert_eq!(until(&mut engine, now_ns), Some(now_ns + MINUTE));
}

#[test]
fn what_is_told_late_happened_when_it_says() {
    let tiers = vec![tier(3, MINUTE, Action::Block).lasting(HOUR)];
    let by_source = |what| rule("r", what, tiers.clone());
    let at = |seconds: u64| Event {
        at_ns: Some(START + seconds * S),
        ..with_status(401, get(CLIENT))
    };
    let now_ns = START + 2 * HOUR;
    // The block that followed then is over by now, and the NIC hears nothing of it.
    let mut engine = engine(vec![by_source(statuses(401))]);
    for second in 0..3 {
        engine.report_past(&at(second), now_ns);
    }
    assert_eq!(engine.orders().count(), 0);
    assert!(!engine.ask(&get(CLIENT), now_ns).refuses());
    // One of half an hour ago has another half to go.
    for second in 5_400..5_403 {
        engine.report_past(&at(second), now_ns);
    }
    assert_eq!(
        engine.ordered(),
        [(CLIENT.to_owned(), START + 5_402 * S + HOUR)]
    );
    // Failures of long ago do not add to those of now, nor do they become later ones.
    let mut engine = super::engine(vec![by_source(statuses(401))]);
    engine.report_past(&at(0), now_ns);
    engine.report_past(&at(120), now_ns);
    engine.report(&with_status(401, get(CLIENT)), now_ns);
    assert!(!engine.ask(&get(CLIENT), now_ns).refuses());
    // What comes from the future is of now.
    engine.report_past(&at(9_000), now_ns);
    engine.report(&with_status(401, get(CLIENT)), now_ns);
    assert!(engine.ask(&get(CLIENT), now_ns).refuses());
}

#[test]
fn what_is_told_late_does_not_count_with_what_came_a_period_after_it() {
    let tiers = vec![
        tier(3, MINUTE, Action::Captcha),
        tier(5, HOUR, Action::Reject),
    ];
    let mut engine = engine(vec![rule("r", statuses(401), tiers)]);
    let now_ns = START + HOUR;
    let report = with_status(401, get(CLIENT));
    engine.report(&report, now_ns);
    for second in [60, 30, 59] {
        engine.report_past(&super::at(now_ns - second * S, report.clone()), now_ns);
        let action = (second == 59).then_some(Action::Captcha);
        assert_eq!(engine.action(&get(CLIENT), now_ns), action);
    }
    // For the hour all four count, and are written down.
    assert_eq!(engine.tally_of("r").counted, 4);
    engine.report_past(&super::at(now_ns - HOUR, report.clone()), now_ns);
    assert_eq!(engine.action(&get(CLIENT), now_ns), Some(Action::Captcha));
    engine.report_past(&super::at(now_ns - HOUR + 1, report), now_ns);
    assert_eq!(engine.action(&get(CLIENT), now_ns), Some(Action::Reject));
}

#[test]
fn what_was_written_before_a_restart_or_a_reload_counts_at_its_own_time() {
    let rules = || vec![by_account("lock", lockout())];
    let now_ns = START + 2 * HOUR;
    let restarted = || {
        let mut before = engine(rules());
        fail(&mut before, 5, START);
        let mut after = engine(rules());
        assert_eq!(after.restore(&before.snapshot(now_ns), now_ns), 1);
        after
    };
    let reloaded = || {
        let mut engine = engine(rules());
        fail(&mut engine, 5, START);
        engine.upkeep(now_ns);
        let mut changed = rules();
        changed[0].on_success = OnSuccess::Halve;
        engine.reload(&decide(changed), EDGE);
        engine
    };
    for mut engine in [restarted(), reloaded()] {
        // Four for the second rung, which are more than an hour old, and one of now.
        for minute in 20..24 {
            let failure = super::at(START + minute * MINUTE, failed(login(CLIENT, "alice")));
            engine.report_past(&failure, now_ns);
        }
        fail(&mut engine, 1, now_ns);
        assert_eq!(until(&mut engine, now_ns), None);
        fail(&mut engine, 4, now_ns);
        assert_eq!(until(&mut engine, now_ns), Some(now_ns + HOUR));
    }
}
