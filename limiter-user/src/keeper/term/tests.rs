use std::time::Duration;

use crate::control::api::{Entry, Refusal, Reloaded};
use crate::dataplane::model::Term;
use crate::keeper::fake::{Shared, Told, begun, policy};
use crate::keeper::{By, Keeper, ListKind, Now};
use crate::nic::sockets::Connection;
use crate::policy::{NoFiles, parse};
use crate::store::Unconfirmed;

const BY: By = By::user(1_000, Some(42));
const MINUTE: Duration = Duration::from_mins(1);

/// A policy of one limit, with its state in a directory of the test's.
fn text(directory: &tempfile::TempDir, limit: &str, more: &str) -> String {
    let directory = directory.path().display();
    format!(
        "[edge]\ninterfaces = [\"eth0\"]\nallow = [\"10.0.0.0/8\"]\n{more}\n[[edge.limit]]\n\
         name = \"{limit}\"\npackets = {{ rate = \"10/s\", burst = 10 }}\n[state]\n\
         directory = \"{directory}\"\n"
    )
}

fn begin(directory: &tempfile::TempDir, told: Told, now: Now) -> (Keeper, Shared, String) {
    let before = text(directory, "web", "");
    let config = directory.path().join("limiter.toml");
    let (mut keeper, told) = begun(config, policy(&before), told, now);
    keeper.set_text(before.clone());
    keeper.start(false, now).unwrap();
    (keeper, told, before)
}

fn room() -> Told {
    Told {
        room: 1_000,
        connections: Some(Vec::new()),
        ..Told::default()
    }
}

fn try_it(keeper: &mut Keeper, text: &str, now: Now) -> Result<Reloaded, Refusal> {
    keeper.try_policy(parse("limiter.toml", text, &NoFiles), MINUTE, BY, now)
}

fn limits(told: &Shared) -> Vec<String> {
    let told = told.lock().unwrap();
    let limits = &told.policy.as_ref().unwrap().edge.limits;
    limits.iter().map(|limit| limit.name.clone()).collect()
}

fn term(keeper: &Keeper, now: Now) -> Option<(String, u64)> {
    let term = keeper.status(now).unwrap().term?;
    assert_eq!(term.uid, Some(BY.uid));
    Some((term.term, term.remaining_seconds))
}

#[test]
fn what_is_confirmed_stays() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let (mut keeper, told, before) = begin(&directory, room(), now);
    let tried = text(&directory, "api", "deny = [\"192.0.2.1\"]");
    let reloaded = try_it(&mut keeper, &tried, now).unwrap();
    assert_eq!(reloaded.term.unwrap().remaining_seconds, 60);
    assert_eq!(limits(&told), ["api"]);
    assert_eq!(told.lock().unwrap().term, Some((Term::Unconfirmed, MINUTE)));
    let later = now.after(Duration::from_secs(20));
    assert_eq!(term(&keeper, later), Some(("unconfirmed".to_owned(), 40)));
    let trial = Unconfirmed { tried, before };
    let recall = || Unconfirmed::recall(directory.path()).unwrap();
    assert_eq!(recall(), Some(trial));

    keeper.confirm(BY, later).unwrap();
    assert_eq!((term(&keeper, later), recall()), (None, None));
    keeper.tick(now.after(MINUTE * 2));
    assert_eq!(limits(&told), ["api"]);
    assert_eq!(told.lock().unwrap().lists.1.len(), 1);
    assert!(keeper.status(later).unwrap().reload.successful);
    let again = keeper.confirm(BY, later).unwrap_err();
    assert!(again.detail.starts_with("no policy awaits"), "{again:?}");
}

#[test]
fn what_is_not_confirmed_is_rolled_back_and_what_came_since_stays() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let (mut keeper, told, before) = begin(&directory, room(), now);
    let tried = text(&directory, "api", "deny = [\"192.0.2.1\"]");
    try_it(&mut keeper, &tried, now).unwrap();
    let entry = Entry {
        network: "198.51.100.7".to_owned(),
        ..Entry::default()
    };
    let allow = ListKind::Allow;
    keeper.add_to_list(allow, &[entry], BY, now).unwrap();

    // The program has gone back by itself.
    told.lock().unwrap().term = None;
    let later = now.after(MINUTE);
    keeper.tick(later);
    assert_eq!(limits(&told), ["web"]);
    let lists = told.lock().unwrap().lists.clone();
    assert_eq!((lists.0.len(), lists.1.len()), (2, 0));
    let status = keeper.status(later).unwrap();
    assert!(status.term.is_none() && !status.reload.successful);
    assert!(status.reload.error.unwrap().ends_with("rolled back"));
    let refusal = keeper.confirm(BY, later).unwrap_err();
    assert!(refusal.detail.contains("its time may be over"));
    // A restart must not confirm it.
    let trial = Unconfirmed::recall(directory.path()).unwrap().unwrap();
    assert_eq!((&trial.tried, &trial.before), (&tried, &before));

    // Nor an order that does not say so, such as a hook's.
    let reload =
        |keeper: &mut Keeper, by| keeper.reload(parse("limiter.toml", &tried, &NoFiles), by, later);
    let refusal = reload(&mut keeper, BY).unwrap_err();
    assert!(
        refusal
            .detail
            .ends_with("tried, not confirmed, and rolled back")
    );
    assert_eq!(limits(&told), ["web"]);
    let forced = By {
        is_forced: true,
        ..BY
    };
    reload(&mut keeper, forced).unwrap();
    assert_eq!(limits(&told), ["api"]);
    assert_eq!(Unconfirmed::recall(directory.path()).unwrap(), None);
}

#[test]
fn a_confirmation_that_comes_too_late_says_so() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let (mut keeper, told, _) = begin(&directory, room(), now);
    try_it(&mut keeper, &text(&directory, "api", ""), now).unwrap();
    told.lock().unwrap().term = None;
    let refusal = keeper.confirm(BY, now.after(MINUTE)).unwrap_err();
    assert!(refusal.detail.contains("its time may be over"));
    assert_eq!(limits(&told), ["web"]);
}

#[test]
fn one_thing_at_a_time() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let (mut keeper, told, before) = begin(&directory, room(), now);
    let tried = text(&directory, "api", "");
    try_it(&mut keeper, &tried, now).unwrap();
    for lasting in [None, Some(MINUTE)] {
        let loaded = parse("limiter.toml", &before, &NoFiles);
        let refusal = keeper.load(loaded, lasting, BY, now).unwrap_err();
        assert!(
            refusal
                .detail
                .contains("awaits its confirmation for another")
        );
    }
    // Nor in the moment when its time is over and that is not yet noticed.
    let loaded = parse("limiter.toml", &tried, &NoFiles);
    let refusal = keeper.reload(loaded, BY, now.after(MINUTE)).unwrap_err();
    assert!(refusal.detail.contains("awaits its confirmation"));
    // In need everything passes, whatever is under way.
    let paused = keeper.pause(MINUTE, BY, now).unwrap();
    assert_eq!(paused.notices, ["the policy that was tried is rolled back"]);
    assert_eq!(limits(&told), ["web"]);
    let refusal = try_it(&mut keeper, &tried, now).unwrap_err();
    assert_eq!(refusal.detail, "limiter is paused for another 1m");
    let refusal = keeper.confirm(BY, now).unwrap_err();
    assert!(refusal.detail.starts_with("limiter is paused"));
    keeper.resume(BY, now).unwrap();
    try_it(&mut keeper, &tried, now).unwrap();
    keeper.resume(BY, now).unwrap();
    assert_eq!(limits(&told), ["web"]);
    keeper.resume(BY, now).unwrap_err();
}

#[test]
fn a_pause_ends_by_itself_and_outlasts_the_daemon() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let (mut keeper, told, _) = begin(&directory, room(), now);
    let is_enforced = |told: &Shared| {
        let told = told.lock().unwrap();
        told.policy.as_ref().unwrap().edge.enforce
    };
    keeper.pause(MINUTE, BY, now).unwrap();
    assert!(!is_enforced(&told));
    let status = keeper.status(now).unwrap();
    assert_eq!((status.enforce, status.reload.successful), (false, true));
    assert_eq!(term(&keeper, now), Some(("paused".to_owned(), 60)));
    told.lock().unwrap().term = None;
    keeper.tick(now.after(MINUTE));
    assert!(is_enforced(&told) && keeper.status(now).unwrap().enforce);

    let left = Duration::from_secs(7);
    let told = Told {
        term_before: Some((Term::Paused, left)),
        ..room()
    };
    let (keeper, told, _) = begin(&directory, told, now);
    assert!(!is_enforced(&told));
    let row = keeper.status(now).unwrap().term.unwrap();
    assert_eq!((row.remaining_seconds, row.uid), (7, None));
    // One that goes on by itself is not even interrupted.
    let told = Told {
        term: Some((Term::Paused, left)),
        term_before: Some((Term::Paused, left)),
        ..room()
    };
    let (mut keeper, told, _) = begin(&directory, told, now);
    assert!(told.lock().unwrap().policy.is_none());
    assert!(!keeper.status(now).unwrap().enforce);
    keeper.pause(MINUTE, BY, now).unwrap();
    assert!(told.lock().unwrap().policy.is_none());
    assert_eq!(told.lock().unwrap().term, Some((Term::Paused, MINUTE)));
    keeper.resume(BY, now).unwrap();
    assert!(is_enforced(&told));
    let told = Told {
        term_before: Some((Term::Unconfirmed, left)),
        ..room()
    };
    let (keeper, told, _) = begin(&directory, told, now);
    let status = keeper.status(now).unwrap();
    assert!(is_enforced(&told) && status.term.is_none());
    // Nobody said what was before: that is told.
    assert!(
        status
            .reload
            .error
            .unwrap()
            .starts_with("a policy was tried")
    );
}

/// What is ordered while a policy is tried holds under the one of before, too.
#[test]
fn orders_cut_nobody_off_afterwards() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let ssh = Connection::new(
        ("192.0.2.9".parse().unwrap(), 50_000),
        ("192.0.2.1".parse().unwrap(), 22),
    );
    let told = Told {
        connections: Some(vec![ssh]),
        ..room()
    };
    let (mut keeper, _, before) = begin(&directory, told, now);
    let tried = before.replace("10.0.0.0/8", "192.0.2.0/24");
    try_it(&mut keeper, &tried, now).unwrap();
    let everybody = Entry {
        network: "0.0.0.0/0".to_owned(),
        ..Entry::default()
    };
    let deny = ListKind::Deny;
    let refusal = keeper.add_to_list(deny, &[everybody], BY, now).unwrap_err();
    assert!(refusal.detail.contains("SSH connection"), "{refusal:?}");
}

#[test]
fn what_cannot_be_rolled_back_is_refused_or_said() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let (mut keeper, told, before) = begin(&directory, room(), now);
    let refused = |keeper: &mut Keeper, text: &str| try_it(keeper, text, now).unwrap_err().detail;
    for (key, value) in [("ipv4_prefix", 24), ("ipv6_prefix", 56)] {
        let text = text(&directory, "web", &format!("{key} = {value}"));
        let expected = format!("edge.{key} changed, which cannot be rolled back by itself");
        assert_eq!(refused(&mut keeper, &text), expected);
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let text_there = text(&elsewhere, "web", "");
    assert!(refused(&mut keeper, &text_there).starts_with("state.directory changed"));
    drop(elsewhere);

    let other = before.replace("eth0", "lo");
    let reloaded = try_it(&mut keeper, &other, now).unwrap();
    assert_eq!(
        reloaded.notices,
        [
            "lo is attached to when `limiter confirm` comes",
            "eth0 stays attached until `limiter confirm`",
        ]
    );
    let attached = |told: &Shared| {
        let told = told.lock().unwrap();
        let names = told.attached.iter().map(|it| it.interface.clone());
        names.collect::<Vec<_>>()
    };
    // Whatever comes, it goes nowhere else meanwhile.
    keeper.follow_interfaces(now);
    assert_eq!(attached(&told), ["eth0"]);
    keeper.resume(BY, now).unwrap();
    assert_eq!(attached(&told), ["eth0"]);
    try_it(&mut keeper, &other, now).unwrap();
    let confirmed = keeper.confirm(BY, now).unwrap();
    assert_eq!(
        (confirmed.attached, confirmed.detached),
        (vec!["lo".to_owned()], vec!["eth0".to_owned()])
    );
    assert_eq!(attached(&told), ["lo"]);

    // A directory that nothing can be written to: a restart would confirm it.
    std::fs::remove_dir_all(directory.path()).unwrap();
    let detail = refused(&mut keeper, &before);
    assert!(
        detail.contains("so that a restart would confirm it"),
        "{detail}"
    );
    assert_eq!(attached(&told), ["lo"]);
}

#[test]
fn a_roll_back_that_fails_is_tried_again() {
    let (directory, now) = (tempfile::tempdir().unwrap(), Now::read());
    let (mut keeper, told, _) = begin(&directory, room(), now);
    try_it(&mut keeper, &text(&directory, "api", ""), now).unwrap();
    {
        let mut told = told.lock().unwrap();
        (told.term, told.failure) = (None, Some("no room"));
    }
    keeper.tick(now.after(MINUTE));
    assert_eq!(limits(&told), ["api"]);
    let refusal = keeper.resume(BY, now.after(MINUTE)).unwrap_err();
    assert!(
        refusal
            .detail
            .contains("without what was changed meanwhile")
    );
    told.lock().unwrap().failure = None;
    keeper.tick(now.after(MINUTE));
    assert_eq!(limits(&told), ["web"]);
    assert!(keeper.status(now).unwrap().term.is_none());
}
