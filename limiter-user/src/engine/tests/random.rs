//! Random rules and events: nothing panics, and what is promised of all holds.

use proptest::prelude::*;

use super::*;
use crate::policy::{Boruta, TokenBucket, units::Rate};

const ACTIONS: [Action; 5] = [
    Action::Throttle,
    Action::JsChallenge,
    Action::Captcha,
    Action::Reject,
    Action::Block,
];

fn any_tier() -> impl Strategy<Value = Tier> {
    let algorithm = prop_oneof![
        Just(Algorithm::SlidingLog),
        Just(Algorithm::SlidingWindow),
        Just(Algorithm::FixedWindow),
    ];
    let lasting = proptest::option::of(1_u64..100);
    let parts = (
        1_u64..6,
        1_u64..90,
        algorithm,
        any::<bool>(),
        0_usize..5,
        lasting,
        any::<bool>(),
    );
    (parts, any::<bool>(), any::<bool>()).prop_map(|(parts, simulate, then)| {
        let (limit, period_s, algorithm, exceeds, action, lasting_s, is_bucket) = parts;
        let mut tier = tier(limit, period_s * S, ACTIONS[action]);
        tier.gauge = match is_bucket {
            true => Gauge::TokenBucket(TokenBucket {
                rate: Rate {
                    amount: limit,
                    per_ns: period_s * S,
                },
                burst: limit,
                delay: exceeds.then_some(limit / 2),
            }),
            false => Gauge::Window(Window {
                exceeds,
                algorithm,
                ..window(limit, period_s * S)
            }),
        };
        tier.effect.simulate = simulate;
        let is_reject = tier.effect.action == Action::Reject;
        tier.effect.then = (then && is_reject).then_some(Action::Captcha);
        tier.lasting = lasting_s.map(Duration::from_secs);
        tier
    })
}

fn any_course() -> impl Strategy<Value = Course> {
    let boruta = |(limit, memory, faithful)| {
        Course::Boruta(Boruta {
            limit,
            period: Duration::from_secs(1),
            penalty_ms: 500,
            timeout_ms: 2_000,
            memory,
            faithful,
        })
    };
    prop_oneof![
        proptest::collection::vec(any_tier(), 1..4).prop_map(Course::Tiers),
        (1_u64..50).prop_map(|decay_s| Course::Ladder(Ladder {
            rungs: vec![rung(2, 9 * S, 5 * S), rung(3, 30 * S, 60 * S)],
            decay: Duration::from_secs(decay_s),
        })),
        (1_u64..4, 1_u32..9, any::<bool>()).prop_map(boruta),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let count = prop_oneof![
        Just(Count::Requests),
        Just(Count::Attempts),
        Just(Count::Failures),
        Just(statuses(401)),
        Just(Count::ScoreHeader("x-limiter-not".to_owned())),
        Just(Count::Distinct(KeyPart::Account)),
    ];
    let key = prop_oneof![
        Just(vec![KeyPart::Source]),
        Just(vec![KeyPart::Account]),
        Just(vec![KeyPart::Source, KeyPart::Path]),
        Just(Vec::new()),
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let sizes = (1_u32..6, 1_u32..6, 0_u8..100);
    (any_course(), count, key, flags, sizes).prop_map(|(course, count, key, flags, sizes)| {
        let (reserve, count_refused, challenge, applies) = flags;
        let (tracked, blocked, jitter_percent) = sizes;
        Rule {
            course,
            key,
            reserve,
            count_refused,
            jitter_percent,
            tracked,
            blocked,
            keys_per_source: tracked,
            on_success: if challenge {
                OnSuccess::Halve
            } else {
                OnSuccess::Reset
            },
            shared: if challenge {
                Shared::Challenge
            } else {
                Shared::Block
            },
            requests: if applies {
                requests(&["POST *"])
            } else {
                Vec::new()
            },
            apply: if applies {
                requests(&["GET *"])
            } else {
                Vec::new()
            },
            ..rule("r", count, Vec::new())
        }
    })
}

/// What is done, the event, and how long after the one before.
#[derive(Clone, Debug)]
struct Step {
    verb: u8,
    event: Event,
    wait_ns: u64,
}

fn any_step() -> impl Strategy<Value = Step> {
    let texts = (1_u8..5, 0_u8..4, 0_u8..3, proptest::option::of(0_u8..6));
    let told = (
        prop_oneof![Just(200_u16), Just(401)],
        0_u8..3,
        any::<bool>(),
    );
    let time = (
        prop_oneof![Just(0), 0..3 * S, 0..100 * S],
        proptest::option::of(any::<u64>()),
    );
    (0_u8..8, texts, told, time).prop_map(|(verb, texts, told, time)| {
        let (host, account, path, id) = texts;
        let (status, outcome, is_get) = told;
        let source = format!("192.0.2.{host}");
        let event = if is_get {
            get(&source)
        } else {
            login(&source, &format!("a{account}"))
        };
        let event = Event {
            id: id.map(|id| format!("{id}").into()),
            at_ns: time.1,
            status: Some(status),
            path: Some(format!("/{path}").into()),
            outcome: [None, Some(Outcome::Failure), Some(Outcome::Success)][usize::from(outcome)],
            ..event
        };
        Step {
            verb,
            event,
            wait_ns: time.0,
        }
    })
}

fn take(engine: &mut Engine, step: &Step, now_ns: u64) -> Option<Decision> {
    match step.verb {
        0..=3 => return Some(engine.ask(&step.event, now_ns)),
        4 | 5 => engine.report(&step.event, now_ns),
        6 => return Some(engine.replay(&step.event)),
        _ => engine.passes(&step.event, "r", 0, now_ns),
    }
    None
}

proptest! {
    #[test]
    fn the_same_events_give_the_same_decisions_and_nothing_panics(
        rules in proptest::collection::vec(any_rule(), 1..4),
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let run = || {
            let mut engine = engine(rules.clone());
            let mut now_ns = START;
            let mut seen = Vec::new();
            for step in &steps {
                now_ns += step.wait_ns;
                let decision = take(&mut engine, step, now_ns);
                seen.push((decision, engine.orders().collect::<Vec<_>>(), engine.changes().collect::<Vec<_>>()));
            }
            let held: Vec<_> = (1..5)
                .map(|host| engine.explain(address(&format!("192.0.2.{host}")), now_ns))
                .collect();
            let snapshot = engine.snapshot(now_ns);
            let restored = engine.restore(&snapshot, now_ns);
            engine.reload(&decide(rules.clone()), EDGE);
            (seen, held, snapshot, restored)
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn what_is_decided_is_consistent(
        rules in proptest::collection::vec(any_rule(), 1..4),
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let mut engine = engine(rules.clone());
        let mut now_ns = START;
        for step in &steps {
            now_ns += step.wait_ns;
            let event = Event { at_ns: Some(now_ns), ..step.event.clone() };
            let step = Step { event, ..step.clone() };
            let Some(decision) = take(&mut engine, &step, now_ns) else { continue };
            prop_assert_eq!(decision.retry_after_s.is_some(), decision.refuses());
            prop_assert_eq!(decision.delay_ms > 0, decision.action == Some(Action::Throttle));
            if decision.action.is_some() {
                prop_assert!(decision.until_ns.is_some_and(|until_ns| until_ns > now_ns), "{decision:?}");
            }
            prop_assert!(decision.remaining <= decision.limit);
        }
        for tally in engine.tallies() {
            prop_assert!(tally.2.tracked <= 5 && tally.2.active <= 5 && tally.2.blocked <= 5);
        }
    }

    #[test]
    fn one_rule_more_never_makes_a_decision_weaker(
        rules in proptest::collection::vec(any_rule(), 1..3),
        more in any_rule(),
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        // Both hear the same; what is refused counts, and a success, which a refused request
        // cannot have, takes nothing back: so that decisions do not feed back.
        let hearing = |rule: &Rule| Rule {
            count_refused: true,
            reserve: false,
            on_success: OnSuccess::Keep,
            ..rule.clone()
        };
        let few: Vec<_> = rules.iter().map(hearing).filter(no_boruta).collect();
        let mut all = few.clone();
        all.push(Rule { name: "more".to_owned(), ..hearing(&more) });
        let (mut few, mut all) = (engine(few), engine(all));
        let mut now_ns = START;
        for step in &steps {
            now_ns += step.wait_ns;
            let event = Event { id: None, at_ns: Some(now_ns), ..step.event.clone() };
            let weaker = few.replay(&event);
            let stronger = all.replay(&event);
            prop_assert!(weaker.action <= stronger.action, "{weaker:?} {stronger:?}");
        }
    }

    #[test]
    fn remaining_never_rises_unless_time_passes(
        limit in 1_u64..9,
        algorithm in prop_oneof![
            Just(Algorithm::SlidingLog), Just(Algorithm::SlidingWindow), Just(Algorithm::FixedWindow)
        ],
        waits in proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0..40 * S], 1..60),
    ) {
        let gauge = Gauge::Window(Window { algorithm, ..window(limit, MINUTE) });
        let mut engine = engine(vec![rule("r", Count::Requests, vec![Tier { gauge, ..tier(1, S, Action::Reject) }])]);
        let (mut now_ns, mut before) = (START, None);
        for wait_ns in waits {
            now_ns += wait_ns;
            let remaining = engine.ask(&get(CLIENT), now_ns).remaining.unwrap();
            if let Some(before) = before.filter(|_| wait_ns == 0) {
                prop_assert!(remaining <= before);
            }
            before = Some(remaining);
        }
    }
}

fn no_boruta(rule: &Rule) -> bool {
    !matches!(rule.course, Course::Boruta(_))
}
