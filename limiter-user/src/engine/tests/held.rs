//! What is stored, change by change, and what is held against accounts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{HeldBlock, HeldChange, HeldChanges, HeldKey, Snapshot};
use super::*;

/// What a database has.
#[derive(Debug, Default, PartialEq)]
struct Stored {
    keys: BTreeMap<(String, String), HeldKey>,
    blocks: BTreeMap<(String, String), HeldBlock>,
}

impl Stored {
    fn of(snapshot: Snapshot) -> Self {
        let mut stored = Self::default();
        let keys = snapshot.keys.into_iter().map(HeldChange::Key);
        let blocks = snapshot.blocks.into_iter().map(HeldChange::Block);
        stored.fold(keys.chain(blocks));
        stored
    }

    fn fold(&mut self, changes: impl IntoIterator<Item = HeldChange>) {
        for change in changes {
            match change {
                HeldChange::Key(held) => {
                    let name = (held.rule.clone(), held.key.clone());
                    self.keys.insert(name, held);
                }
                HeldChange::KeyGone { rule, key } => {
                    assert!(self.keys.remove(&(rule, key)).is_some());
                }
                HeldChange::Block(held) => {
                    let name = (held.rule.clone(), held.source.to_string());
                    self.blocks.insert(name, held);
                }
                HeldChange::BlockGone { rule, source } => {
                    let name = (rule, source.to_string());
                    assert!(self.blocks.remove(&name).is_some());
                }
            }
        }
    }

    fn hear(&mut self, changes: HeldChanges) {
        match changes {
            HeldChanges::Some(changes) => self.fold(changes),
            HeldChanges::All(snapshot) => *self = Self::of(snapshot),
        }
    }
}

/// Rules of all kinds, with tables so small that keys go.
fn rules(tracked: u32) -> Vec<Rule> {
    let mut ladder = lockout();
    if let Course::Ladder(ladder) = &mut ladder {
        ladder.decay = Duration::from_nanos(HOUR);
        for rung in &mut ladder.rungs {
            rung.window.limit = 2;
        }
    }
    let both = vec![
        tier(3, HOUR, Action::Block),
        tier(2, MINUTE, Action::Captcha).lasting(10 * MINUTE),
    ];
    let small = |rule: Rule| Rule {
        tracked,
        keys_per_source: tracked,
        blocked: 3,
        ..rule
    };
    vec![
        small(by_account("lock", ladder)),
        small(rule(
            "block",
            statuses(401),
            vec![tier(2, MINUTE, Action::Block).lasting(5 * MINUTE)],
        )),
        small(Rule {
            key: vec![KeyPart::Source, KeyPart::Account],
            ..rule("both", Count::Failures, both)
        }),
    ]
}

fn guess(number: u8) -> Event {
    let source = format!("192.0.2.{}", number % 3);
    let event = login(&source, &format!("user {}", number % 5));
    with_status(401, failed(event))
}

proptest! {
    #[test]
    fn the_changes_add_up_to_the_snapshot(
        tracked in 2_u32..9,
        steps in proptest::collection::vec((0_u8..15, 0_u8..14, 0_u64..40), 1..250),
    ) {
        let mut engine = engine(rules(tracked));
        let (mut stored, mut now_ns) = (Stored::default(), START);
        for (number, what, minutes) in steps {
            let event = guess(number);
            match what {
                0..6 => engine.report(&event, now_ns),
                6 => { engine.ask(&event, now_ns); }
                7 => { engine.unlock(event.account.as_deref().unwrap(), now_ns); }
                8 => { engine.unblock(event.source, now_ns); }
                9 => engine.passes(&event, "both", 1, now_ns),
                10 => now_ns += minutes * MINUTE,
                11 => {
                    let mode = [Mode::On, Mode::Simulate, Mode::Off][number as usize % 3];
                    engine.set_mode(["lock", "block", "both"][minutes as usize % 3], mode);
                }
                12 if minutes < 4 => {
                    let mut policy = decide(rules(tracked));
                    policy.rules.retain(|_| minutes > 2);
                    engine.reload(&policy, EDGE);
                    engine.reload(&decide(rules(tracked)), EDGE);
                }
                _ => stored.hear(engine.held_changes(now_ns)),
            }
        }
        stored.hear(engine.held_changes(now_ns));
        prop_assert_eq!(&stored, &Stored::of(engine.snapshot(now_ns)));
        // Time alone ends all of it.
        now_ns += 90 * DAY;
        stored.hear(engine.held_changes(now_ns));
        prop_assert_eq!(stored, Stored::default());
    }
}

#[test]
fn what_does_not_change_is_not_told_again() {
    let mut engine = engine(rules(9));
    engine.reports(&guess(0), 2, START);
    let all = engine.held_changes(START);
    assert!(matches!(all, HeldChanges::All(all) if all.keys.len() == 3));
    assert_eq!(engine.held_changes(START), HeldChanges::Some(Vec::new()));
    engine.ask(&guess(0), START + S);
    assert_eq!(engine.held_changes(START), HeldChanges::Some(Vec::new()));
}

#[test]
fn so_many_changes_that_all_comes_anew() {
    let lock = Rule {
        tracked: 100_000,
        blocked: 100_000,
        keys_per_source: 100_000,
        ..rules(9).remove(0)
    };
    let mut engine = engine(vec![lock]);
    engine.held_changes(START);
    for number in 0..70_000 {
        let event = failed(login(CLIENT, &format!("user {number}")));
        engine.reports(&event, 2, START);
    }
    let all = engine.held_changes(START);
    assert!(matches!(all, HeldChanges::All(all) if all.keys.len() == 70_000));
    assert_eq!(engine.held_changes(START), HeldChanges::Some(Vec::new()));
}

#[test]
fn an_account_is_shown_with_all_that_is_held_against_it() {
    let mut engine = engine(rules(9));
    engine.reports(&guess(0), 2, START);
    engine.report(&guess(5), START);
    let against = engine.account(" USER 0", START);
    let told: Vec<_> = against
        .iter()
        .map(|it| (&*it.rule, it.counted, it.limit, it.rungs, it.action))
        .collect();
    // Of the account everywhere, and of the two sources that it was tried from.
    assert_eq!(
        told[0],
        ("lock", 2, 2, 1, Some((Action::Reject, START + 15 * MINUTE)))
    );
    let mut at_sources = told[1..].to_vec();
    at_sources.sort();
    assert_eq!(
        at_sources,
        [
            ("both", 1, 2, 0, None),
            (
                "both",
                2,
                2,
                0,
                Some((Action::Captcha, START + 10 * MINUTE))
            ),
        ]
    );
    assert_eq!(engine.account("nobody", START), []);
    assert_eq!(engine.unlock("user 0", START), against);
    assert_eq!(engine.account("user 0", START), []);
}

#[test]
fn what_is_restored_is_found_by_its_account_and_taken_back_at_the_nic() {
    let both = || vec![rules(9).remove(2)];
    let mut before = engine(both());
    before.reports(&guess(0), 3, START);
    let mut after = engine(both());
    assert_eq!(after.restore(&before.snapshot(START), START), 2);
    let rules: Vec<_> = after.unlock("user 0", START).into_iter().collect();
    assert_eq!(rules.len(), 1);
    assert_eq!(after.unblock(address("192.0.2.0"), START), ["both".into()]);
    assert_eq!(after.withdrawn(), ["192.0.2.0"]);
}
