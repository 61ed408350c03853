//! What operators get beside the program, tried by the programs that it is for.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod alerts;
mod crowdsec;
mod dashboard;
mod fail2ban;
mod migrate;

use ipnet::IpNet;
use limiter_tests::{daemon::Daemon, netns::Namespace, wait};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A file of the checkout.
fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A daemon that others give orders to; it has no interface.
fn daemon(edge: &str) -> Daemon {
    let policy = format!("[edge]\n{edge}");
    Daemon::start(&Namespace::new().unwrap(), &policy).unwrap()
}

/// What `limiter KIND list` shows: each network with its reason and the seconds that are left.
fn entries(daemon: &Daemon, kind: &str) -> BTreeMap<String, (String, u64)> {
    let listed = daemon.json(&[kind, "list"]).unwrap();
    let key = if kind == "block" { "blocks" } else { "entries" };
    let entry = |row: &Value| {
        let network: IpNet = row["network"].as_str().unwrap().parse().unwrap();
        let network = match network.prefix_len() == network.max_prefix_len() {
            true => network.addr().to_string(),
            false => network.to_string(),
        };
        let reason = row["reason"].as_str().unwrap_or_default().to_owned();
        (
            network,
            (reason, row["remaining_seconds"].as_u64().unwrap()),
        )
    };
    listed[key].as_array().unwrap().iter().map(entry).collect()
}

/// Waits until exactly these networks are listed; returns what is said of them.
fn until_listed(daemon: &Daemon, kind: &str, networks: &[&str]) -> BTreeMap<String, (String, u64)> {
    let listed = wait::until("what is listed", wait::SOON * 3, || {
        let entries = entries(daemon, kind);
        Ok(entries.keys().eq(networks).then_some(entries))
    });
    assert!(listed.is_ok(), "{listed:?}: {:?}", entries(daemon, kind));
    listed.unwrap()
}
