//! What the keeper does with orders.

use std::time::Duration;

use super::fake::{POLICY, Shared, keeper, policy};
use super::*;
use crate::control::api::Entry;
use crate::dataplane::model::{BlockState, Counter, FloodState, SourceState};
use crate::policy::{Loaded, NoFiles, parse};
use limiter_common::{
    block::Owner,
    verdict::{Action, Outcome, Reason},
};

const BY: By = By::user(1000, Some(7));

fn fresh() -> (Keeper, Shared, Now) {
    let now = Now::read();
    let (keeper, told) = keeper(PathBuf::from("/etc/limiter/limiter.toml"), now);
    (keeper, told, now)
}

fn entry(network: &str, lasting: Option<&str>) -> Entry {
    Entry {
        network: network.to_owned(),
        lasting: lasting.map(str::to_owned),
        ..Entry::default()
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn load(text: &str) -> Result<Loaded, crate::policy::PolicyError> {
    parse("limiter.toml", text, &NoFiles)
}

#[test]
fn a_block_inside_an_allow_is_refused_and_the_allow_named() {
    let (mut keeper, told, now) = fresh();
    let entries = [entry("192.0.2.1", None), entry("10.1.0.0/16", None)];
    let refusal = keeper.add_blocks(&entries, BY, now).unwrap_err();
    assert_eq!(refusal.status, 409);
    assert!(refusal.detail.contains("10.0.0.0/8"), "{refusal:?}");
    assert_eq!(refusal.place, "entry 2 (10.1.0.0/16)");
    assert!(told.lock().unwrap().blocks.is_empty(), "all or none");

    // What contains an allow is no contradiction.
    keeper
        .add_blocks(&[entry("0.0.0.0/0", None)], BY, now)
        .unwrap();
}

#[test]
fn a_block_remembers_who_and_why() {
    let (mut keeper, _told, now) = fresh();
    let mut first = entry("192.0.2.1", Some("10m"));
    first.reason = Some("scanner".to_owned());
    let changed = keeper.add_blocks(&[first], BY, now).unwrap();
    assert_eq!(changed.blocks[0].reason.as_deref(), Some("scanner"));
    assert_eq!(changed.blocks[0].remaining_seconds, 600);

    let later = now.after(Duration::from_secs(5));
    keeper
        .add_blocks(&[entry("192.0.2.1", Some("1h"))], BY, later)
        .unwrap();
    let block = keeper.blocks(later).unwrap().blocks.remove(0);
    assert_eq!(block.reason.as_deref(), Some("scanner"));
    assert_eq!(block.since, Some(timestamp(now.wall)));
    assert_eq!((block.uid, block.remaining_seconds), (Some(1000), 3600));

    assert_eq!(keeper.status(later).unwrap().blocks["operator"], 1);
    keeper.delete_block("192.0.2.1", None, BY, now).unwrap();
    let refusal = keeper.delete_block("192.0.2.1", None, BY, now).unwrap_err();
    assert_eq!(refusal.status, 404);
}

#[test]
fn blocks_know_the_limits_and_the_networks_that_were_meant() {
    let (mut keeper, _told, now) = fresh();
    let mut confined = entry("192.0.2.0/24", None);
    confined.limit = Some("htps".to_owned());
    let refusal = keeper
        .add_blocks(std::slice::from_ref(&confined), BY, now)
        .unwrap_err();
    assert!(refusal.help.contains("https, admin"), "{refusal:?}");
    confined.limit = Some("https".to_owned());
    keeper.add_blocks(&[confined], BY, now).unwrap();
    let refusal = keeper.delete_block("192.0.2.7", None, BY, now).unwrap_err();
    assert!(
        refusal.help.contains("192.0.2.0/24 --limit https"),
        "{refusal:?}"
    );

    for (wrong, meant) in [
        ("192.0.2.1/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ] {
        let refusal = keeper
            .add_blocks(&[entry(wrong, None)], BY, now)
            .unwrap_err();
        assert!(refusal.help.contains(meant), "{refusal:?}");
    }
    for wrong in ["0s", "9999999d", "x"] {
        let wrong = [entry("192.0.2.1", Some(wrong))];
        assert_eq!(keeper.add_blocks(&wrong, BY, now).unwrap_err().status, 422);
    }
}

#[test]
fn run_time_entries_join_those_of_the_file() {
    let (mut keeper, told, now) = fresh();
    let entries = [
        entry("192.0.2.0/24", Some("1m")),
        entry("203.0.113.9", None),
    ];
    keeper
        .add_to_list(ListKind::Deny, &entries, BY, now)
        .unwrap();
    let deny = |told: &Shared| told.lock().unwrap().lists.1.clone();
    let both = vec![
        net("192.0.2.0/24"),
        net("198.51.100.0/24"),
        net("203.0.113.9/32"),
    ];
    assert_eq!(deny(&told), both);

    keeper.tick(now.after(Duration::from_secs(61)));
    assert_eq!(deny(&told), both[1..]);

    let refusal = keeper
        .delete_from_list(ListKind::Deny, "198.51.100.0/24", BY, now)
        .unwrap_err();
    assert_eq!(refusal.status, 409);
    assert!(refusal.help.contains("limiter.toml"), "{refusal:?}");
    let refusal = keeper
        .delete_from_list(ListKind::Deny, "198.51.100.7", BY, now)
        .unwrap_err();
    assert!(refusal.help.contains("198.51.100.0/24"), "{refusal:?}");
    keeper
        .delete_from_list(ListKind::Deny, "203.0.113.9", BY, now)
        .unwrap();
    assert_eq!(deny(&told), both[1..2]);
}

#[test]
fn an_allow_says_what_it_takes_the_effect_of() {
    let (mut keeper, told, now) = fresh();
    keeper
        .add_blocks(&[entry("198.51.100.7", None)], BY, now)
        .unwrap();
    let changed = keeper
        .add_to_list(ListKind::Allow, &[entry("198.51.0.0/16", None)], BY, now)
        .unwrap();
    assert_eq!(changed.notices.len(), 2, "{changed:?}");
    // It stays on the list: the packet path asks for allows first.
    assert_eq!(told.lock().unwrap().lists.1, [net("198.51.100.0/24")]);
    let deny = keeper.list_rows(ListKind::Deny, now).entries;
    assert_eq!(deny[0].overruled_by, Some(net("198.51.0.0/16")));
    let refusal = keeper
        .add_to_list(ListKind::Deny, &[entry("198.51.1.0/24", None)], BY, now)
        .unwrap_err();
    assert_eq!(refusal.status, 409);
}

#[test]
fn what_the_data_plane_refuses_leaves_the_lists_as_they_were() {
    let (mut keeper, told, now) = fresh();
    told.lock().unwrap().failure = Some("the table is full");
    let refusal = keeper
        .add_to_list(ListKind::Allow, &[entry("192.0.2.1", None)], BY, now)
        .unwrap_err();
    assert_eq!(
        (refusal.status, &*refusal.detail),
        (409, "the table is full")
    );
    assert_eq!(keeper.list_rows(ListKind::Allow, now).entries.len(), 1);
    told.lock().unwrap().failure = None;
    let entries = [entry("192.0.2.1", Some("1m")), entry("192.0.2.1", None)];
    for entries in [&entries[..1], &entries] {
        let added = keeper.add_to_list(ListKind::Deny, entries, BY, now);
        assert_eq!(added.unwrap().changed, entries.len() as u64);
        let rows = keeper.list_rows(ListKind::Deny, now).entries;
        assert_eq!(rows.len(), 2, "{rows:?}");
    }
}

#[test]
fn explain_names_what_decides() {
    let (mut keeper, told, now) = fresh();
    told.lock().unwrap().sources = vec![SourceState {
        source: net("203.0.113.9/32"),
        limit: "https".to_owned(),
        passed: 10,
        dropped: 3,
        unsettled: 0,
        last_refusal: None,
    }];
    keeper
        .add_blocks(&[entry("192.0.2.0/24", None)], BY, now)
        .unwrap();
    let mut confined = entry("203.0.113.9", None);
    confined.limit = Some("https".to_owned());
    keeper.add_blocks(&[confined], BY, now).unwrap();
    for (source, decided_by, words) in [
        ("10.1.2.3", "allow", "allow 10.0.0.0/8, in the policy file"),
        ("198.51.100.7", "deny", "deny 198.51.100.0/24"),
        ("192.0.2.77", "block", "192.0.2.0/24 blocked by uid 1000"),
        ("203.0.113.9", "limit", "blocked for limit https"),
        ("203.0.113.9", "limit", "3 of its packets were over a limit"),
        ("203.0.113.1", "limit", "(`from`) of admin is closed"),
        ("::7", "martian", "::/16"),
        ("2001:db8::1", "limit", "on no list and not blocked"),
    ] {
        let found = keeper.explain(source, now).unwrap();
        assert_eq!(found.decided_by, decided_by, "{found:?}");
        assert!(found.summary.contains(words), "{source}: {}", found.summary);
    }
    assert_eq!(keeper.explain("192.0.0.0/16", now).unwrap().inside, 1);
}

#[test]
fn an_invalid_file_leaves_the_old_policy_in_force() {
    let (mut keeper, told, now) = fresh();
    let wrong = load("[edge]\ninterfaces = [\"eth0\"]\nenforce = 3\nmode = \"x\"");
    let refusal = keeper.reload(wrong, BY, now).unwrap_err();
    assert_eq!(refusal.status, 422);
    assert_eq!(refusal.diagnostics.len(), 2);
    assert!(refusal.diagnostics[0].text.contains("limiter.toml:3:"));
    assert!(told.lock().unwrap().policy.is_none());
    let status = keeper.status(now).unwrap();
    assert!(!status.reload.successful && status.reload.error.is_some());

    let good = keeper.reload(load(POLICY), BY, now).unwrap();
    assert_eq!((good.limits, good.attached), (2, vec!["eth0".to_owned()]));
    assert!(keeper.status(now).unwrap().reload.successful);
}

#[test]
fn a_reload_says_which_rules_begin_anew() {
    let rule = |name: &str, rest: &str| {
        format!("[[rule]]\nname = '{name}'\ncount = 'requests'\naction = 'reject'\n{rest}\n")
    };
    let limit = "limit = 5\nperiod = '1m'";
    let with = |rules: &[String]| load(&format!("{POLICY}\n[decide]\n{}", rules.concat()));
    let (mut keeper, _told, now) = fresh();
    let same = rule("same", &format!("key = ['source']\n{limit}"));
    let key = |key: &str| rule("key", &format!("key = [{key}]\n{limit}"));
    let other = |limit: &str| rule("other", &format!("key = ['source']\n{limit}"));
    let gone = rule("gone", &format!("key = ['source']\n{limit}"));
    let before = [same.clone(), key("'source'"), other(limit), gone];
    keeper.reload(with(&before), BY, now).unwrap();
    let status = "[rule.response]\nstatus = 403\n";
    let after = [
        same + status,
        key("'account'"),
        other("limit = 6\nperiod = '1m'"),
    ];
    let reloaded = keeper.reload(with(&after), BY, now).unwrap();
    assert_eq!(reloaded.rules, 3);
    let rules: Vec<_> = reloaded
        .notices
        .iter()
        .filter(|it| it.starts_with("rule "))
        .collect();
    assert_eq!(
        rules,
        [
            "rule `key` has another key or other tiers: what it counted and holds is dropped, its \
             blocks too",
            "rule `other` changed: it counts from zero; locks, blocks and rungs stay",
            "rule `gone` is gone: what it counted and holds is dropped, its blocks too",
        ]
    );
}

#[test]
fn a_reload_says_that_accounts_are_compared_otherwise() {
    let rule = |key: &str| {
        format!(
            "[[rule]]\nname = 'r'\ncount = 'requests'\naction = 'reject'\nkey = ['{key}']\n\
             limit = 5\nperiod = '1m'\n"
        )
    };
    let with = |accounts: &str, rule: &str| {
        load(&format!(
            "{POLICY}\n[decide]\naccounts = {{ {accounts} }}\n{rule}"
        ))
    };
    for (key, accounts, is_said) in [
        ("account", "ignore_case = false", true),
        ("account", "from = ['basic']", false),
        ("source", "ignore_case = false", false),
    ] {
        let (mut keeper, _told, now) = fresh();
        let rule = rule(key);
        keeper.reload(with("trim = true", &rule), BY, now).unwrap();
        let reloaded = keeper.reload(with(accounts, &rule), BY, now).unwrap();
        let says = |notice: &String| notice.starts_with("decide.accounts");
        assert_eq!(reloaded.notices.iter().any(says), is_said, "{accounts}");
    }
}

#[test]
fn a_reload_keeps_run_time_entries_and_follows_the_interfaces() {
    let (mut keeper, told, now) = fresh();
    keeper.reload(load(POLICY), BY, now).unwrap();
    keeper
        .add_to_list(ListKind::Deny, &[entry("192.0.2.1", None)], BY, now)
        .unwrap();
    let other = POLICY
        .replace("[\"eth0\"]", "[\"eth1\"]\nsources = 2048")
        .replace("deny = [\"198.51.100.0/24\"]", "");
    let reloaded = keeper.reload(load(&other), BY, now).unwrap();
    assert_eq!(reloaded.attached, ["eth1"]);
    assert_eq!(reloaded.detached, ["eth0"]);
    let restart = |notice: &String| notice.contains("edge.sources") && notice.contains("restart");
    assert!(reloaded.notices.iter().any(restart), "{reloaded:?}");
    assert_eq!(told.lock().unwrap().lists.1, [net("192.0.2.1/32")]);
    // As long as it is not restarted, every reload says so.
    let again = keeper.reload(load(&other), BY, now).unwrap();
    assert!(again.notices.iter().any(restart), "{again:?}");
}

#[test]
fn a_file_that_lost_its_interfaces_is_not_put_in_force() {
    let (mut keeper, told, now) = fresh();
    keeper.reload(load(POLICY), BY, now).unwrap();
    let attached = told.lock().unwrap().attached.clone();
    let refusal = keeper.reload(load(""), BY, now).unwrap_err();
    assert!(refusal.detail.contains("no interfaces"), "{refusal:?}");
    assert!(refusal.help.contains("stays in force"), "{refusal:?}");
    assert_eq!(told.lock().unwrap().attached, attached);
}

#[test]
fn all_interfaces_are_attached_or_none() {
    let (mut keeper, told, _now) = fresh();
    let mut wanted = policy(POLICY);
    wanted.edge.interfaces = vec!["eth1".to_owned(), "taken0".to_owned()];
    let refusal = keeper.attach_new(&wanted, &mut Vec::new()).unwrap_err();
    assert_eq!(refusal.place, "interface taken0");
    assert!(told.lock().unwrap().attached.is_empty());
    wanted.edge.interfaces = vec!["eth9".to_owned()];
    let refusal = keeper.attach_new(&wanted, &mut Vec::new()).unwrap_err();
    assert!(refusal.detail.contains("`eth9`; there are: lo, eth0"));
}

#[test]
fn a_byte_burst_has_room_for_the_largest_frame_of_every_interface() {
    let (mut keeper, told, now) = fresh();
    let text = |interfaces: &str, burst: &str| {
        let budget = format!("bytes = {{ rate = \"1MB/s\", burst = {burst} }}\nprotocol = \"tcp\"");
        let text = POLICY.replacen("protocol = \"tcp\"", &budget, 1);
        load(&text.replace("[\"eth0\"]", interfaces))
    };
    let both = "[\"eth0\", \"eth1\"]";
    keeper.reload(text("[\"eth0\"]", "1514"), BY, now).unwrap();
    let refusal = keeper.reload(text(both, "9013"), BY, now).unwrap_err();
    for part in ["`https`", "`eth1`", "9013", "9014", "9000"] {
        assert!(refusal.detail.contains(part), "{part}: {}", refusal.detail);
    }
    assert_eq!(told.lock().unwrap().attached.len(), 1, "nothing attached");
    keeper.reload(text(both, "9014"), BY, now).unwrap();
    assert_eq!(told.lock().unwrap().attached.len(), 2);
    // Also where the program already is.
    keeper.reload(text(both, "9013"), BY, now).unwrap_err();
}

#[test]
fn a_vanished_interface_is_said() {
    let (mut keeper, told, now) = fresh();
    keeper.reload(load(POLICY), BY, now).unwrap();
    assert!(keeper.status(now).unwrap().interfaces[0].present);
    told.lock().unwrap().attached[0].index = 99;
    assert!(!keeper.status(now).unwrap().interfaces[0].present);
    // A reload attaches to the one that has the name now.
    assert_eq!(
        keeper.reload(load(POLICY), BY, now).unwrap().attached,
        ["eth0"]
    );
}

#[test]
fn a_kernel_block_is_not_taken_for_a_confined_one() {
    let (mut keeper, told, now) = fresh();
    told.lock().unwrap().blocks.push(BlockState {
        network: net("203.0.113.9/32"),
        owner: Owner::Kernel,
        limit: Some("https".to_owned()),
        remaining: Duration::from_millis(59_001),
        dry: false,
    });
    let found = keeper.explain("203.0.113.9", now).unwrap();
    assert_eq!(found.decided_by, "block");
    assert!(found.summary.contains("exceeding limit https"));
    assert_eq!(found.blocks[0].remaining_seconds, 60);
}

/// A flood of new sources, its share of the traffic, and its end.
#[test]
fn a_flood_is_told_while_it_lasts() {
    let (mut keeper, told, now) = fresh();
    let at = |seconds| now.after(Duration::from_secs(seconds));
    let count = |unknown, known| {
        let unknown_source = Outcome::new(Action::Drop, Reason::UnknownSource);
        let within = Outcome::new(Action::Pass, Reason::NoLimit);
        let counter = |outcome, packets| Counter {
            interface: None,
            limit: None,
            outcome,
            packets,
            bytes: 0,
        };
        told.lock().unwrap().counters =
            vec![counter(unknown_source, unknown), counter(within, known)];
    };
    let flood = |is_active, admitted| {
        told.lock().unwrap().flood = FloodState {
            is_active,
            admitted,
        };
    };
    count(1_000, 1_000);
    keeper.tick(at(0));
    assert!(!keeper.status(at(0)).unwrap().flood.active);
    flood(true, 7);
    keeper.tick(at(1));
    let row = keeper.status(at(1)).unwrap().flood;
    assert_eq!(
        (row.active, row.admitted, row.unknown_per_second),
        (true, 7, None)
    );
    assert_eq!(row.since, Some(timestamp(at(1).wall)));
    count(1_000 + 6_000, 1_000 + 2_000);
    keeper.tick(at(3));
    let row = keeper.status(at(3)).unwrap().flood;
    assert_eq!(row.unknown_per_second, Some(3_000));
    assert_eq!(row.unknown_percent, Some(75));
    assert_eq!(row.since, Some(timestamp(at(1).wall)), "the same flood");
    flood(false, 9);
    keeper.tick(at(4));
    let row = keeper.status(at(4)).unwrap().flood;
    assert_eq!((row.active, row.since, row.admitted), (false, None, 9));
}

/// The policy of the tests with other contents of a deny file.
fn with_deny_file(lists: &Lists, networks: &[&str]) -> Lists {
    let file = crate::policy::ListFile {
        stamp: crate::policy::Stamp::default(),
        networks: networks.iter().map(|text| (net(text), 1)).collect(),
        skipped: 0,
    };
    let mut deny = crate::policy::ListSources::clone(&lists.deny);
    deny.files.insert(PathBuf::from("/d"), file.into());
    Lists {
        allow: lists.allow.clone(),
        deny: deny.into(),
    }
}

fn news(base: &Lists, networks: &[&str], changes: &[(&str, bool)]) -> News {
    let changes = changes.iter().map(|(network, listed)| ListChange {
        list: ListKind::Deny,
        network: net(network),
        listed: *listed,
    });
    News {
        base: base.clone(),
        next: with_deny_file(base, networks),
        changes: changes.collect(),
    }
}

#[test]
fn followed_files_and_run_time_are_one_set() {
    let (mut keeper, told, now) = fresh();
    let runtime = [entry("192.0.2.1", None), entry("192.0.2.9", None)];
    keeper
        .add_to_list(ListKind::Deny, &runtime, BY, now)
        .unwrap();
    let deny = |told: &Shared| -> Vec<String> {
        let mut lists = told.lock().unwrap().lists.1.clone();
        lists.sort();
        lists.iter().map(ToString::to_string).collect()
    };
    let first = news(
        &keeper.lists(),
        &["192.0.2.1/32", "192.0.2.2/32"],
        &[("192.0.2.1/32", true), ("192.0.2.2/32", true)],
    );
    assert!(keeper.follow_lists(&first).unwrap());
    let all = [
        "192.0.2.1/32",
        "192.0.2.2/32",
        "192.0.2.9/32",
        "198.51.100.0/24",
    ];
    assert_eq!(deny(&told), all);
    // Compared with lists that are no longer in force: nothing happens.
    assert!(!keeper.follow_lists(&first).unwrap());
    let stale = keeper.lists();
    keeper.reload(load(POLICY), BY, now).unwrap();
    let late = news(&stale, &[], &[("192.0.2.2/32", false)]);
    assert!(!keeper.follow_lists(&late).unwrap());

    let again = news(
        &keeper.lists(),
        &["192.0.2.1/32"],
        &[("192.0.2.1/32", true)],
    );
    assert!(keeper.follow_lists(&again).unwrap());
    assert_eq!(keeper.policy().edge.deny.len(), 2);
    // The file lets go of it; run time still names it.
    let gone = news(&keeper.lists(), &[], &[("192.0.2.1/32", false)]);
    assert!(keeper.follow_lists(&gone).unwrap());
    assert_eq!(deny(&told), [all[0], all[2], all[3]]);
    keeper
        .delete_from_list(ListKind::Deny, "192.0.2.1", BY, now)
        .unwrap();
    assert_eq!(deny(&told), all[2..]);
}

#[test]
fn files_that_do_not_fit_leave_the_lists_as_they_were() {
    let (mut keeper, told, now) = fresh();
    told.lock().unwrap().failure = Some("the table is full");
    let lists = keeper.lists();
    let news = news(&lists, &["192.0.2.1/32"], &[("192.0.2.1/32", true)]);
    assert!(keeper.follow_lists(&news).is_err());
    assert!(keeper.lists().are(&lists));
    assert_eq!(keeper.list_rows(ListKind::Deny, now).entries.len(), 1);
}

#[test]
fn a_kept_file_is_told_since_when_and_why() {
    let (mut keeper, _told, now) = fresh();
    let first = news(
        &keeper.lists(),
        &["192.0.2.1/32"],
        &[("192.0.2.1/32", true)],
    );
    keeper.follow_lists(&first).unwrap();
    let kept = |cause: &str| {
        vec![Kept {
            list: ListKind::Deny,
            file: PathBuf::from("/d"),
            cause: cause.to_owned(),
        }]
    };
    keeper.keep_files(kept("it is gone"), now);
    keeper.keep_files(kept("no room"), now.after(Duration::from_secs(9)));
    let rows = keeper.status(now).unwrap().list_files;
    assert_eq!(
        (rows[0].entries, rows[0].cause.as_deref()),
        (1, Some("no room"))
    );
    assert_eq!(rows[0].kept_since, Some(timestamp(now.wall)));
    keeper.keep_files(Vec::new(), now);
    assert_eq!(keeper.status(now).unwrap().list_files[0].cause, None);

    // An order to reload is one: it says what the list loses by it.
    let reloaded = keeper.reload(load(POLICY), BY, now).unwrap();
    let lost = "/d is no deny file any more: its 1 entries are gone";
    assert!(reloaded.notices.iter().any(|notice| notice == lost));
}

#[test]
fn sockets_for_events_are_made_at_the_start() {
    let now = Now::read();
    let (mut keeper, _) = keeper("limiter.toml".into(), now);
    keeper.start(false, now).unwrap();
    let rule = "[[rule]]\nname = \"login\"\ncount = \"requests\"\nkey = [\"source\"]\n\
                limit = 5\nperiod = \"1m\"\naction = \"reject\"\n";
    let with = format!("{POLICY}{rule}");
    let reloaded = keeper.reload(load(&with), BY, now).unwrap();
    assert!(
        reloaded.notices[0].contains("[decide]) changed, which takes effect when"),
        "{reloaded:?}"
    );
    let feedback = format!("{POLICY}[decide]\nfeedback = [\"unix:/run/f\"]\n{rule}");
    let reloaded = keeper.reload(load(&feedback), BY, now).unwrap();
    assert!(
        reloaded.notices[0].contains("decide.feedback changed"),
        "{reloaded:?}"
    );
    let reloaded = keeper.reload(load(&feedback), BY, now).unwrap();
    assert!(reloaded.notices.is_empty(), "{reloaded:?}");
    let reloaded = keeper.reload(load(POLICY), BY, now).unwrap();
    let socket = reloaded.notices.iter().any(|it| it.contains("decide"));
    assert!(!socket, "{reloaded:?}");
}
