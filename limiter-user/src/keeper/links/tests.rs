//! Interfaces that come and go under the keeper.

use std::path::PathBuf;

use super::*;
use crate::keeper::By;
use crate::keeper::fake::{POLICY, Shared, keeper};
use crate::policy::{NoFiles, parse};

const BY: By = By::user(1000, None);

/// A keeper of `interfaces` that follows those there are.
fn following(interfaces: &str, there: &[(&str, u32)]) -> (Keeper, Shared, Now) {
    let now = Now::read();
    let (mut keeper, told) = keeper(PathBuf::from("limiter.toml"), now);
    change(&told, there);
    reload(&mut keeper, interfaces, now).unwrap();
    keeper.follow_interfaces(now);
    (keeper, told, now)
}

fn reload(
    keeper: &mut Keeper,
    interfaces: &str,
    now: Now,
) -> Result<crate::control::api::Reloaded, crate::control::api::Refusal> {
    let text = POLICY.replace("[\"eth0\"]", interfaces);
    keeper.reload(parse("limiter.toml", &text, &NoFiles), BY, now)
}

/// These interfaces there are from now on; those with a `!` are down.
fn change(told: &Shared, there: &[(&str, u32)]) {
    let present = there.iter().map(|(name, index)| Present {
        name: name.trim_end_matches('!').to_owned(),
        index: *index,
        is_up: !name.ends_with('!'),
    });
    told.lock().unwrap().present = Some(present.collect());
}

/// `name index state` of each row.
fn rows(keeper: &Keeper, now: Now) -> Vec<String> {
    let rows = keeper.status(now).unwrap().interfaces.into_iter();
    rows.map(|row| format!("{} {} {}", row.interface, row.index, row.state))
        .collect()
}

fn after(now: Now, seconds: u64) -> Now {
    now.after(Duration::from_secs(seconds))
}

#[test]
fn what_vanishes_is_missed_and_attached_to_when_it_is_back() {
    let (mut keeper, told, now) = following("[\"eth0\", \"eth1\"]", &[("eth0", 2), ("eth1", 3)]);
    assert_eq!(rows(&keeper, now), ["eth0 2 attached", "eth1 3 attached"]);
    change(&told, &[("eth1", 3)]);
    // Before the kernel's word has come.
    assert_eq!(rows(&keeper, now), ["eth0 2 missing", "eth1 3 attached"]);
    let later = after(now, 5);
    keeper.follow_interfaces(later);
    assert_eq!(rows(&keeper, later), ["eth1 3 attached", "eth0 0 missing"]);
    let row = keeper.status(later).unwrap().interfaces.remove(1);
    assert_eq!(row.since, Some(timestamp(later.wall)));
    assert_eq!((row.mode.as_str(), row.present), ("generic", false));
    // Again and again: it is missed since then.
    keeper.follow_interfaces(after(now, 9));
    let row = keeper.status(later).unwrap().interfaces.remove(1);
    assert_eq!(row.since, Some(timestamp(later.wall)));

    change(&told, &[("eth1", 3), ("eth0", 9)]);
    keeper.follow_interfaces(after(now, 10));
    assert_eq!(rows(&keeper, now), ["eth1 3 attached", "eth0 9 attached"]);
    // Gone and back between two looks: another one of the same name.
    change(&told, &[("eth1", 10), ("eth0", 9)]);
    keeper.follow_interfaces(after(now, 11));
    assert_eq!(rows(&keeper, now), ["eth0 9 attached", "eth1 10 attached"]);
}

#[test]
fn a_new_interface_that_a_glob_means_is_attached_to() {
    let (mut keeper, told, now) = following("[\"veth*\"]", &[("lo", 1)]);
    assert!(rows(&keeper, now).is_empty());
    let names: Vec<String> = (0..40).map(|number| format!("veth{number}")).collect();
    let there: Vec<(&str, u32)> = names.iter().map(String::as_str).zip(2..).collect();
    change(&told, &there);
    keeper.follow_interfaces(now);
    assert_eq!(told.lock().unwrap().attached.len(), AT_ONCE);
    for second in 1..=3 {
        keeper.tick(after(now, second));
    }
    assert_eq!(told.lock().unwrap().attached.len(), 40);
    // Those that have gone are missed for a while, the latest of them.
    change(&told, &[]);
    keeper.follow_interfaces(now);
    assert_eq!(rows(&keeper, now).len(), 16);
    keeper.follow_interfaces(after(now, 3_600));
    assert!(rows(&keeper, now).is_empty());
}

#[test]
fn a_renamed_interface_keeps_the_program() {
    let (mut keeper, told, now) = following("[\"eth0\", \"eth1\"]", &[("eth0", 2), ("eth1", 3)]);
    change(&told, &[("wan", 2), ("eth1", 3)]);
    keeper.follow_interfaces(now);
    // The policy still means one called `eth0`.
    let expected = ["wan 2 attached", "eth1 3 attached", "eth0 0 missing"];
    assert_eq!(rows(&keeper, now), expected);
    // Exchanged names.
    change(&told, &[("eth1", 2), ("eth0", 3)]);
    keeper.follow_interfaces(now);
    assert_eq!(rows(&keeper, now), ["eth1 2 attached", "eth0 3 attached"]);
}

#[test]
fn down_and_up_are_told() {
    let (mut keeper, told, now) = following("[\"eth0\"]", &[("eth0", 2)]);
    change(&told, &[("eth0!", 2)]);
    keeper.follow_interfaces(after(now, 3));
    keeper.follow_interfaces(after(now, 4));
    let row = keeper.status(now).unwrap().interfaces.remove(0);
    assert_eq!(row.state, "down");
    assert_eq!(row.since, Some(timestamp(after(now, 3).wall)));
    change(&told, &[("eth0", 2)]);
    keeper.follow_interfaces(after(now, 5));
    assert_eq!(rows(&keeper, now), ["eth0 2 attached"]);
}

#[test]
fn what_fails_is_tried_again_more_and_more_seldom() {
    let (mut keeper, told, now) = following("[\"eth0\"]", &[("eth0", 2)]);
    change(&told, &[]);
    keeper.follow_interfaces(now);
    change(&told, &[("eth0", 5)]);
    told.lock().unwrap().failure = Some("the driver refuses");
    keeper.follow_interfaces(now);
    let row = keeper.status(now).unwrap().interfaces.remove(0);
    assert_eq!(
        (row.state.as_str(), row.cause.as_deref()),
        ("failed", Some("the driver refuses"))
    );
    // At 1, 3 and 7 s, and not in between.
    for (second, wait) in [(1, 2), (3, 4), (7, 8)] {
        keeper.tick(after(now, second - 1));
        keeper.tick(after(now, second));
        let failure = keeper.links.absent["eth0"].failure.clone().unwrap();
        assert_eq!(failure.wait, Duration::from_secs(wait));
    }
    told.lock().unwrap().failure = None;
    keeper.tick(after(now, 14));
    assert_eq!(rows(&keeper, now), ["eth0 0 failed"]);
    keeper.tick(after(now, 15));
    assert_eq!(rows(&keeper, now), ["eth0 5 attached"]);
}

#[test]
fn what_the_operator_detached_stays_so_until_a_reload() {
    let (mut keeper, told, now) = following("[\"eth*\"]", &[("eth0", 2), ("eth1", 3)]);
    keeper.detach(Some("eth0"), BY, Now::read()).unwrap();
    keeper.follow_interfaces(now);
    assert_eq!(rows(&keeper, now), ["eth1 3 attached", "eth0 0 detached"]);
    assert_eq!(
        keeper
            .detach(Some("eth0"), BY, Now::read())
            .unwrap_err()
            .status,
        404
    );
    // Also when it was away.
    change(&told, &[("eth1", 3)]);
    keeper.follow_interfaces(now);
    change(&told, &[("eth1", 3), ("eth0", 4), ("eth2", 5)]);
    keeper.follow_interfaces(now);
    let expected = ["eth1 3 attached", "eth2 5 attached", "eth0 0 detached"];
    assert_eq!(rows(&keeper, now), expected);
    // All: those to come too.
    assert_eq!(
        keeper.detach(None, BY, Now::read()).unwrap().detached.len(),
        2
    );
    change(&told, &[("eth1", 3), ("eth0", 4), ("eth7", 6)]);
    keeper.follow_interfaces(now);
    assert!(told.lock().unwrap().attached.is_empty());
    reload(&mut keeper, "[\"eth*\"]", now).unwrap();
    assert_eq!(told.lock().unwrap().attached.len(), 3);
}

/// A limit can be changed while a cable is out.
#[test]
fn a_reload_does_not_wait_for_what_is_missing() {
    let (mut keeper, told, now) = following("[\"eth0\", \"eth1\"]", &[("eth0", 2), ("eth1", 3)]);
    change(&told, &[("eth1", 3)]);
    let reloaded = reload(&mut keeper, "[\"eth0\", \"eth1\"]", now).unwrap();
    let told_so = |notice: &String| notice.starts_with("eth0 is missing");
    assert!(reloaded.notices.iter().any(told_so), "{reloaded:?}");
    assert_eq!(rows(&keeper, now), ["eth1 3 attached", "eth0 0 missing"]);
    // A name that was never there is an error, as at the start.
    let refusal = reload(&mut keeper, "[\"eth0\", \"eht1\"]", now).unwrap_err();
    assert!(refusal.detail.contains("`eht1`"), "{refusal:?}");
    // What the policy no longer means is not missed.
    reload(&mut keeper, "[\"eth1\"]", now).unwrap();
    assert_eq!(rows(&keeper, now), ["eth1 3 attached"]);
}

#[test]
fn what_somebody_else_takes_off_stays_off_until_a_reload() {
    let interfaces = "[\"eth0\", \"eth1\"]";
    let (mut keeper, told, now) = following(interfaces, &[("eth0", 2), ("eth1", 3)]);
    told.lock().unwrap().taken_off = vec!["eth0".to_owned()];
    keeper.tick(now);
    told.lock().unwrap().taken_off.clear();
    keeper.follow_interfaces(now);
    let rows = keeper.status(now).unwrap().interfaces;
    let state = |name: &str| {
        let row = rows.iter().find(|row| row.interface == name).unwrap();
        row.state.clone()
    };
    assert_eq!(
        (state("eth0").as_str(), state("eth1").as_str()),
        ("detached", "attached")
    );
    let reloaded = reload(&mut keeper, interfaces, now).unwrap();
    assert_eq!(reloaded.attached, ["eth0"]);
}

#[test]
fn a_start_waits_for_what_was_there_once() {
    let now = Now::read();
    let (mut keeper, told) = keeper(PathBuf::from("limiter.toml"), now);
    change(&told, &[("lo", 1)]);
    keeper.start(false, now).unwrap_err();
    told.lock().unwrap().known = vec!["eth0".to_owned()];
    assert!(keeper.start(false, now).unwrap().is_empty());
    keeper.follow_interfaces(now);
    let rows = keeper.status(now).unwrap().interfaces;
    assert_eq!(
        (rows[0].interface.as_str(), rows[0].state.as_str()),
        ("eth0", "missing")
    );
    change(&told, &[("lo", 1), ("eth0", 2)]);
    keeper.follow_interfaces(now);
    assert_eq!(keeper.attached_names(), ["eth0"]);
}
