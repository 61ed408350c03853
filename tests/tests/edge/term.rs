//! In force for a time: a tried policy and a pause end by themselves, whoever is
//! there.

use crate::{
    lockout::{SAFETY, SSH, Session, refusal},
    site::{LATE, Site, limit},
};
use limiter_tests::wait;
use serde_json::Value;
use std::time::Duration;

const ALWAYS: &str = "packets = { rate = \"100000000/s\", burst = 100000000 }";

/// A policy with one limit, `name`.
fn edge(name: &str, more: &str) -> String {
    format!("{more}{SAFETY}{}", limit(name, "udp", 1_000, ALWAYS))
}

/// One that cuts everybody off.
fn shut() -> String {
    edge("shut", "deny = [\"0.0.0.0/0\"]\n")
}

fn write(site: &Site, edge: &str) {
    let policy = site.policy("native", edge);
    site.daemon.write_policy(&policy).unwrap();
}

fn status(site: &Site) -> Value {
    site.daemon.json(&["status"]).unwrap()
}

/// The daemon is killed while the policy is tried: the program goes back alone, and
/// the next daemon does not take the file's word for it.
#[test]
fn a_lock_out_ends_with_nobody_there() {
    let site = Site::new("native", &edge("web", ""));
    let mut session = Session::open(&site, SSH);
    assert!(session.lives(LATE));
    write(&site, &shut());
    let why = refusal(&site.daemon.output(&["reload", "--confirm", "8s"]).unwrap());
    assert!(why.contains("--force"), "{why}");
    let order = ["reload", "--confirm", "8s", "--force"];
    let said = site.daemon.ask(&order).unwrap();
    assert!(
        said.contains("unless `limiter confirm` comes first"),
        "{said}"
    );
    assert!(!session.lives(Duration::from_secs(1)));
    site.daemon.kill().unwrap();
    assert!(session.lives(LATE), "still cut off");

    site.daemon.launch().unwrap();
    let log = site.daemon.log().unwrap();
    assert!(log.contains("nobody has confirmed what"), "{log}");
    let after = status(&site);
    assert_eq!(after["limits"][0], "web", "{after}");
    assert_eq!(after["reload"]["successful"], false, "{after}");
    assert!(session.lives(LATE));
    let why = refusal(&site.daemon.output(&["confirm"]).unwrap());
    assert!(why.contains("no policy awaits its confirmation"), "{why}");
    // Who means it can have it.
    site.daemon.ask(&["reload", "--force"]).unwrap();
    site.daemon.kill().unwrap();
    site.daemon.launch().unwrap();
    assert_eq!(status(&site)["limits"][0], "shut");
}

#[test]
fn a_daemon_that_is_there_puts_all_of_it_back() {
    let site = Site::new("native", &edge("web", ""));
    write(&site, &shut());
    site.daemon.ask(&["reload", "--confirm", "1s"]).unwrap();
    // Not in the file of either.
    site.daemon.ask(&["allow", "add", "192.0.2.0/24"]).unwrap();
    let after = wait::until("the policy of before", LATE, || {
        let status = site.daemon.json(&["status"])?;
        Ok(status["term"].is_null().then_some(status))
    })
    .unwrap();
    assert_eq!(after["limits"][0], "web", "{after}");
    assert_eq!((&after["allow"], &after["deny"]), (&1.into(), &0.into()));
    let error = after["reload"]["error"].as_str().unwrap();
    assert!(
        error.ends_with("was not confirmed and is rolled back"),
        "{error}"
    );

    // Confirmed, it stays, also when the daemon does not.
    site.daemon.ask(&["reload", "--confirm", "1m"]).unwrap();
    let tried = status(&site);
    assert_eq!(tried["term"]["term"], "unconfirmed", "{tried}");
    let why = refusal(&site.daemon.output(&["reload"]).unwrap());
    assert!(why.contains("awaits its confirmation"), "{why}");
    site.daemon.ask(&["confirm"]).unwrap();
    site.daemon.kill().unwrap();
    site.daemon.launch().unwrap();
    let after = status(&site);
    assert_eq!(
        (&after["limits"][0], &after["term"]),
        (&"shut".into(), &Value::Null)
    );
}

#[test]
fn a_pause_lets_everything_pass_and_outlasts_the_daemon() {
    let site = Site::new("native", &edge("web", ""));
    let mut session = Session::open(&site, SSH);
    write(&site, &shut());
    site.daemon.ask(&["reload", "--force"]).unwrap();
    assert!(!session.lives(Duration::from_secs(1)));
    let said = site.daemon.ask(&["pause", "--for", "1h"]).unwrap();
    assert!(said.contains("everything passes until"), "{said}");
    assert!(session.lives(LATE));
    site.daemon.kill().unwrap();
    site.daemon.launch().unwrap();
    let after = status(&site);
    assert_eq!(
        (&after["term"]["term"], &after["enforce"]),
        (&"paused".into(), &false.into())
    );
    assert!(
        after["term"]["remaining_seconds"].as_u64() > Some(3_000),
        "{after}"
    );
    let shown = site.daemon.ask(&["status"]).unwrap();
    assert!(
        shown.contains("paused      everything passes until"),
        "{shown}"
    );
    let counts = site.counts();
    assert!(counts.contains_key("- would_drop deny -"), "{counts:?}");

    // Again, and this time it is over soon.
    site.daemon.ask(&["pause", "--for", "1s"]).unwrap();
    wait::until("the end of the pause", LATE, || {
        let status = site.daemon.json(&["status"])?;
        Ok((status["enforce"] == true).then_some(()))
    })
    .unwrap();
    let drops = |site: &Site| crate::site::row(&site.counts(), "- drop deny -");
    let before = drops(&site);
    assert!(!session.goes_on(Duration::from_secs(1)));
    assert!(drops(&site) > before);
}
