//! The rules behind a block, as they are stored in the place of its reason: several may hold
//! one source, and each lets it go by itself, also after a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::orders::RuleHold;
use crate::control::api::RuleBlockRow;

/// A rule's part in a block that is stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredHold {
    #[serde(flatten)]
    row: RuleBlockRow,
    /// How long before the block it ends.
    #[serde(default)]
    earlier_ns: u64,
}

/// These parts in a block that lasts until then, as text.
pub(super) fn stored_holds(holds: &[RuleHold], until: Duration) -> Option<String> {
    let holds = holds.iter().map(|hold| StoredHold {
        row: hold.row.clone(),
        earlier_ns: nanos(until.saturating_sub(hold.until)),
    });
    serde_json::to_string(&holds.collect::<Vec<_>>()).ok()
}

/// The parts in a block that lasts until then; none: the text is a reason in words.
pub(super) fn holds_of(text: &str, until: Duration) -> Vec<RuleHold> {
    // One alone is how they were stored before there were more.
    let stored: Vec<StoredHold> = serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(text).map(|hold| vec![hold]))
        .unwrap_or_default();
    let holds = stored.into_iter().map(|hold| RuleHold {
        row: hold.row,
        until: until.saturating_sub(Duration::from_nanos(hold.earlier_ns)),
    });
    holds.collect()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::SampleRow;

    fn row(rule: &str) -> RuleBlockRow {
        RuleBlockRow {
            rule: rule.to_owned(),
            step: 1,
            is_ladder: false,
            sample: SampleRow {
                source: "198.51.100.7".parse().unwrap(),
                path: Some("/login".to_owned()),
                status: None,
            },
        }
    }

    #[test]
    fn each_rule_ends_as_long_before_the_block_as_it_did() {
        let hold = |rule, until_s| RuleHold {
            row: row(rule),
            until: Duration::from_secs(until_s),
        };
        let holds = [hold("long", 1_000), hold("short", 400)];
        let text = stored_holds(&holds, Duration::from_secs(1_000)).unwrap();
        // Another boot, where the clock begins anew.
        let found = holds_of(&text, Duration::from_secs(700));
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.row.clone(), it.until.as_secs()))
            .collect();
        assert_eq!(found, [(row("long"), 700), (row("short"), 100)]);
        // What has ended by then has.
        assert_eq!(
            holds_of(&text, Duration::from_secs(500))[1].until,
            Duration::ZERO
        );
    }

    #[test]
    fn one_rule_alone_and_words_are_understood() {
        let until = Duration::from_secs(9);
        let alone = serde_json::to_string(&row("long")).unwrap();
        let found = holds_of(&alone, until);
        assert_eq!((found.len(), found[0].until), (1, until));
        assert_eq!(found[0].row, row("long"));
        for words in ["", "scanner", "[]", "{}", "[1]", "null"] {
            assert!(holds_of(words, until).is_empty(), "{words}");
        }
    }
}
