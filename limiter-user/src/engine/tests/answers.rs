//! What a decision tells.

use super::*;

fn limited(limit: u64) -> Rule {
    rule(
        "r",
        Count::Requests,
        vec![tier(limit, MINUTE, Action::Reject)],
    )
}

#[test]
fn remaining_is_after_this_request() {
    let mut engine = engine(vec![limited(60)]);
    let decision = engine.ask(&get(CLIENT), START);
    assert_eq!((decision.limit, decision.remaining), (Some(60), Some(59)));
    assert_eq!(decision.shown.as_deref(), Some("r"));
    assert_eq!(decision.rule, None);
}

#[test]
fn retry_after_is_rounded_up_and_at_least_one_and_reset_is_now_and_it() {
    let mut engine = engine(vec![limited(1)]);
    engine.ask(&get(CLIENT), START + S / 2);
    for (now_ns, expected_s) in [(START + S, 60), (START + MINUTE, 1)] {
        let decision = engine.ask(&get(CLIENT), now_ns);
        assert_eq!(decision.retry_after_s, Some(expected_s));
        assert_eq!(decision.reset_s, Some(now_ns / S + expected_s));
        assert_eq!(decision.remaining, Some(0));
    }
}

#[test]
fn headers_show_the_source_keyed_rule_with_the_least_left_and_never_an_account() {
    let mut wide = limited(100);
    wide.name = "wide".to_owned();
    let account = Rule {
        key: vec![KeyPart::Account],
        name: "account".to_owned(),
        ..limited(2)
    };
    let both = Rule {
        key: vec![KeyPart::Source, KeyPart::Account],
        name: "both".to_owned(),
        ..limited(3)
    };
    let mut engine = engine(vec![wide, account, both, limited(10)]);
    let decision = engine.ask(&login(CLIENT, "alice"), START);
    assert_eq!((decision.limit, decision.remaining), (Some(10), Some(9)));
    assert_eq!(decision.shown.as_deref(), Some("r"));
}

#[test]
fn a_rule_whose_response_tells_no_limit_is_shown_only_where_no_other_is() {
    let mut silent = limited(5);
    silent.name = "silent".to_owned();
    silent.response.headers = LimitHeaders::None;
    let mut both = engine(vec![silent.clone(), limited(60)]);
    assert_eq!(both.ask(&get(CLIENT), START).limit, Some(60));
    let decision = engine(vec![silent]).ask(&get(CLIENT), START);
    assert_eq!(decision.shown.as_deref(), Some("silent"));
}

#[test]
fn a_decision_is_written_in_the_words_of_the_language() {
    let mut engine = engine(vec![limited(1)]);
    let pass = serde_json::to_value(engine.ask(&get(CLIENT), START)).unwrap();
    let start_s = START / S;
    let expected = serde_json::json!({
        "action": "pass", "rule": null, "until": null, "delay_ms": 0, "retry_after_s": null,
        "limit": 1, "remaining": 0, "reset": start_s + 60, "simulated": null,
    });
    assert_eq!(pass, expected);
    let refusal = serde_json::to_value(engine.ask(&get(CLIENT), START)).unwrap();
    let expected = serde_json::json!({
        "action": "reject", "rule": "r", "until": start_s + 60, "delay_ms": 0, "retry_after_s": 60,
        "limit": 1, "remaining": 0, "reset": start_s + 60, "simulated": null,
    });
    assert_eq!(refusal, expected);
}

#[test]
fn changes_tell_of_counted_failures_actions_rungs_refusals_and_ends() {
    let mut ladder = lockout();
    if let Course::Ladder(ladder) = &mut ladder {
        ladder.rungs[0].effect.notify_owner = true;
    }
    let mut engine = engine(vec![by_account("lock", ladder)]);
    engine.reports(&failed(login(CLIENT, "alice")), 5, START);
    engine.ask(&login(CLIENT, "alice"), START + S);
    engine.upkeep(START + HOUR);
    let changes: Vec<_> = engine.changes().collect();
    let whats: Vec<_> = changes
        .iter()
        .map(|change| (change.at_ns, change.what))
        .collect();
    let until_ns = START + 15 * MINUTE;
    let began = What::Began {
        action: Action::Reject,
        until_ns,
        rung: 1,
        simulated: false,
        notify_owner: true,
    };
    let refused = What::Refused {
        action: Action::Reject,
        reason: None,
        simulated: false,
    };
    let mut expected = vec![(START, What::Counted); 5];
    expected.extend([
        (START, began),
        (START + S, refused),
        (until_ns, What::Ended),
    ]);
    assert_eq!(whats, expected);
    let cause = changes[0].event.as_ref().unwrap();
    assert_eq!(cause.source, address(CLIENT));
    assert_eq!(cause.account.as_deref(), Some("alice"));
}

#[test]
fn changes_that_nobody_takes_are_counted_and_dropped() {
    let mut engine = engine(vec![limited(1)]);
    engine.passing(&get(CLIENT), 70_002, START);
    assert_eq!(
        engine.changes().count() as u64 + engine.dropped_changes(),
        70_002
    );
}
