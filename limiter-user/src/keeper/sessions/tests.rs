use std::path::PathBuf;
use std::sync::Arc;

use crate::control::api::{Changed, Entry, Reloaded};
use crate::image::{ListChange, ListKind};
use crate::keeper::fake::{POLICY, Shared, keeper};
use crate::keeper::list_files::News;
use crate::keeper::{By, Keeper, Now};
use crate::nic::sockets::Connection;
use crate::policy::{NoFiles, parse};

use super::*;

const BY: By = By::user(1000, None);

fn connection(peer: &str, local: &str) -> Connection {
    Connection {
        peer: peer.parse().unwrap(),
        local: local.parse().unwrap(),
    }
}

/// A host with an SSH connection of each family, and what does not count.
fn host() -> (Keeper, Shared) {
    let (keeper, told) = keeper(PathBuf::from("/etc/limiter/limiter.toml"), Now::read());
    told.lock().unwrap().connections = Some(vec![
        connection("203.0.113.7:50122", "192.0.2.1:22"),
        connection("[2001:db8::7]:50123", "[2001:db8:1::1]:22"),
        connection("203.0.114.9:50124", "192.0.2.1:443"),
        connection("127.0.0.1:50125", "127.0.0.1:22"),
        connection("192.0.2.1:50126", "192.0.2.1:22"),
    ]);
    (keeper, told)
}

fn entries(networks: &[&str]) -> Vec<Entry> {
    let entry = |network: &&str| Entry {
        network: (*network).to_owned(),
        ..Entry::default()
    };
    networks.iter().map(entry).collect()
}

fn deny(keeper: &mut Keeper, networks: &[&str], by: By) -> Result<Changed, Refusal> {
    keeper.add_to_list(ListKind::Deny, &entries(networks), by, Now::read())
}

fn reload(keeper: &mut Keeper, text: &str, by: By) -> Result<Reloaded, Refusal> {
    keeper.reload(parse("limiter.toml", text, &NoFiles), by, Now::read())
}

#[test]
fn a_deny_that_cuts_off_is_refused_and_done_by_force() {
    let (mut keeper, told) = host();
    keeper.start(true, Now::read()).unwrap();
    let before = told.lock().unwrap().lists.1.clone();
    let refusal = deny(&mut keeper, &["192.0.2.9", "203.0.113.0/24"], BY).unwrap_err();
    assert_eq!(refusal.status, 409);
    assert_eq!(
        refusal.detail,
        "203.0.113.0/24 contains 203.0.113.7, from where an SSH connection is open \
         (203.0.113.7 port 50122 to port 22): deny would cut that off"
    );
    assert_eq!(refusal.help, "leave it out, or repeat with --force");
    let refusal = deny(&mut keeper, &["2001:db8::7", "203.0.113.7"], BY).unwrap_err();
    assert!(
        refusal.detail.contains("203.0.113.7 is from where"),
        "{refusal:?}"
    );
    assert!(refusal.detail.ends_with(", and another SSH connection"));
    assert_eq!(told.lock().unwrap().lists.1, before, "all or none");
    // Other services, loopback, and the host with itself.
    deny(&mut keeper, &["203.0.114.0/24", "127.0.0.0/8"], BY).unwrap();
    deny(&mut keeper, &["192.0.2.0/24"], BY).unwrap();

    let forced = By {
        is_forced: true,
        ..BY
    };
    let changed = deny(&mut keeper, &["203.0.113.0/24"], forced).unwrap();
    assert_eq!(
        changed.notices,
        ["deny 203.0.113.0/24 cuts off the SSH connection from 203.0.113.7 port 50122 to port 22"]
    );
    // What is cut off can be cut off no more.
    deny(&mut keeper, &["203.0.113.7"], BY).unwrap();
    reload(&mut keeper, POLICY, BY).unwrap();
}

#[test]
fn an_allow_overrules() {
    let (mut keeper, _told) = host();
    let allow = entries(&["203.0.113.7"]);
    keeper
        .add_to_list(ListKind::Allow, &allow, BY, Now::read())
        .unwrap();
    deny(&mut keeper, &["203.0.113.0/24"], BY).unwrap();
}

#[test]
fn the_callers_own_session_counts_on_any_port() {
    let (mut keeper, _told) = host();
    let login = connection("198.18.0.9:50000", "192.0.2.1:2222");
    let by = By {
        login: Some(login),
        ..BY
    };
    let network = ["198.18.0.0/15"];
    let refusal = deny(&mut keeper, &network, by).unwrap_err();
    assert_eq!(
        refusal.detail,
        "198.18.0.0/15 contains 198.18.0.9, from where you are logged in \
         (SSH, 198.18.0.9 port 50000 to port 2222): deny would cut that off"
    );
    let now = Now::read();
    let refusal = keeper.add_blocks(&entries(&network), by, now).unwrap_err();
    assert!(
        refusal.detail.ends_with(": a block would cut that off"),
        "{refusal:?}"
    );
    // Blocks spare port 22; and nobody else is logged in by the other one.
    let other = ["203.0.113.0/24"];
    keeper.import_blocks(&entries(&other), by, now).unwrap();
    keeper.import_blocks(&entries(&network), BY, now).unwrap();
    // It is blocked already.
    keeper.add_blocks(&entries(&network), by, now).unwrap();
    // The own session is named first.
    let by = By {
        login: Some(connection("[2001:db8::7]:50123", "[2001:db8:1::1]:22")),
        ..BY
    };
    let all = ["203.0.113.0/24", "2001:db8::/32"];
    let refusal = deny(&mut keeper, &all, by).unwrap_err();
    assert!(refusal.detail.starts_with("2001:db8::/32"), "{refusal:?}");
    let forced = By {
        is_forced: true,
        ..by
    };
    let changed = deny(&mut keeper, &all, forced).unwrap();
    assert_eq!(changed.notices.len(), 2);
    assert!(changed.notices[0].contains("your SSH connection"));
}

#[test]
fn a_policy_that_cuts_off_leaves_the_old_one_in_force() {
    let (mut keeper, told) = host();
    keeper.start(true, Now::read()).unwrap();
    let with = |old: &str, new: &str| {
        assert!(POLICY.contains(old));
        POLICY.replace(old, new)
    };
    let denied = with("\"198.51.100.0/24\"", "\"203.0.113.0/24\"");
    let gated = with("ports = [4434]", "ports = [22]");
    for (text, cause) in [
        (&denied, "deny would cut that off"),
        (
            &gated,
            "`from` of limit `admin` does not name 203.0.113.7, from where an SSH connection is \
             open (203.0.113.7 port 50122 to port 22): the limit would cut that off, and another \
             SSH connection",
        ),
    ] {
        let refusal = reload(&mut keeper, text, BY).unwrap_err();
        assert_eq!(refusal.status, 409);
        assert!(refusal.detail.ends_with(cause), "{refusal:?}");
        assert!(refusal.help.ends_with("the old policy stays in force"));
        assert!(told.lock().unwrap().policy.is_none());
    }
    // A block that is spared no longer; the new ports count too.
    let now = Now::read();
    let blocks = entries(&["203.0.0.0/8"]);
    keeper.add_blocks(&blocks, BY, now).unwrap();
    let moved = format!("{POLICY}[edge.safety]\nssh_ports = [443]\n");
    let refusal = reload(&mut keeper, &moved, BY).unwrap_err();
    assert!(refusal.detail.contains("a block would"), "{refusal:?}");
    // Run-time entries stay.
    let allow = entries(&["203.0.113.7", "2001:db8::/32"]);
    keeper
        .add_to_list(ListKind::Allow, &allow, BY, now)
        .unwrap();
    for text in [&denied, &gated, &moved] {
        reload(&mut keeper, text, BY).unwrap();
    }
    keeper
        .delete_from_list(ListKind::Allow, "203.0.113.7", BY, now)
        .unwrap();
    // Port 443 is protected now, and would not be spared any more.
    reload(&mut keeper, POLICY, BY).unwrap_err();
    keeper.delete_block("203.0.0.0/8", None, BY, now).unwrap();
    reload(&mut keeper, POLICY, BY).unwrap();
    let forced = By {
        is_forced: true,
        ..BY
    };
    let reloaded = reload(&mut keeper, &denied, forced).unwrap();
    let notices = reloaded.notices.concat();
    assert!(notices.contains("cuts off the SSH connection"), "{notices}");
}

/// Only a run-time allow lets the connection through.
#[test]
fn the_end_of_an_allow_takes_force_too() {
    let (mut keeper, _) = host();
    keeper.start(true, Now::read()).unwrap();
    let now = Now::read();
    let allow = entries(&["203.0.113.7"]);
    keeper
        .add_to_list(ListKind::Allow, &allow, BY, now)
        .unwrap();
    let denied = POLICY.replace("198.51.100.0/24", "203.0.112.0/21");
    reload(&mut keeper, &denied, BY).unwrap();
    let mut end = |by| keeper.delete_from_list(ListKind::Allow, "203.0.113.7", by, now);
    let refusal = end(BY).unwrap_err();
    assert!(refusal.detail.contains("203.0.112.0/21"), "{refusal:?}");
    let forced = By {
        is_forced: true,
        ..BY
    };
    assert_eq!(end(forced).unwrap().notices.len(), 1);
}

/// After `detach` somebody who is denied can log in.
#[test]
fn a_policy_that_comes_back_to_an_interface_cuts_off_too() {
    let (mut keeper, told) = host();
    keeper.start(true, Now::read()).unwrap();
    let forced = By {
        is_forced: true,
        ..BY
    };
    deny(&mut keeper, &["203.0.113.0/24"], forced).unwrap();
    reload(&mut keeper, POLICY, BY).unwrap();
    keeper.detach(None, BY, Now::read()).unwrap();
    let refusal = reload(&mut keeper, POLICY, BY).unwrap_err();
    assert!(refusal.detail.starts_with("203.0.113.0/24"), "{refusal:?}");
    assert!(told.lock().unwrap().attached.is_empty());
    reload(&mut keeper, POLICY, forced).unwrap();
    reload(&mut keeper, POLICY, BY).unwrap();
}

#[test]
fn a_list_file_that_cuts_off_is_kept() {
    let (mut keeper, told) = host();
    let change = |list, network: &str, listed| ListChange {
        list,
        network: network.parse().unwrap(),
        listed,
    };
    let deny = change(ListKind::Deny, "203.0.113.0/24", true);
    let news = |keeper: &Keeper, changes: Vec<ListChange>| {
        let base = keeper.lists();
        let mut next = base.clone();
        next.deny = Arc::new((*base.deny).clone());
        News {
            base,
            next,
            changes,
        }
    };
    let it = news(&keeper, vec![deny]);
    let error = keeper.follow_lists(&it).unwrap_err().to_string();
    assert!(
        error.ends_with("deny would cut that off; `limiter reload --force` if that is meant"),
        "{error}"
    );
    assert_eq!(told.lock().unwrap().lists.1.len(), 1);
    let allowed = change(ListKind::Allow, "203.0.113.7/32", true);
    let it = news(&keeper, vec![allowed, deny]);
    assert!(keeper.follow_lists(&it).unwrap());
    // And now the allow goes again.
    let gone = ListChange {
        listed: false,
        ..allowed
    };
    let it = news(&keeper, vec![gone]);
    keeper.follow_lists(&it).unwrap_err();
}

#[test]
fn what_the_kernel_does_not_say_is_a_notice() {
    let (mut keeper, told) = host();
    told.lock().unwrap().connections = None;
    let by = By {
        login: Some(connection("198.18.0.9:50000", "192.0.2.1:22")),
        ..BY
    };
    let changed = deny(&mut keeper, &["203.0.113.0/24"], by).unwrap();
    assert_eq!(
        changed.notices,
        ["open SSH connections could not be checked: permission denied"]
    );
    deny(&mut keeper, &["198.18.0.9"], by).unwrap_err();
}

#[test]
fn a_start_cuts_off_and_says_so() {
    let (mut keeper, told) = host();
    let shut_out = connection("198.51.100.7:1", "192.0.2.1:22");
    told.lock().unwrap().connections = Some(vec![shut_out]);
    assert_eq!(
        keeper.already_cut_off(),
        ["deny 198.51.100.0/24 cuts off the SSH connection from 198.51.100.7 port 1 to port 22"]
    );
    keeper.start(false, Now::read()).unwrap();
}
