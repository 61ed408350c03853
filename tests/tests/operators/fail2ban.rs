//! The action for fail2ban: it reads a log, and limiter blocks.

use crate::{daemon, entries, until_listed};
use limiter_tests::{
    daemon::{self, Daemon},
    fail2ban::Fail2ban,
    process::Scratch,
    wait,
};
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

const ACTION: &str = include_str!("../../../packaging/fail2ban/limiter.conf");
const FILTER: &str = "[Definition]\nfailregex = ^\\s*<ADDR> failed$\ndatepattern = ^EPOCH\n";
const HOUR: u64 = 3_600;
/// The longest that limiter blocks for.
const FOR_GOOD: u64 = 3_650 * 24 * HOUR;

/// fail2ban with a jail that bans at the second failure, and the daemon that it orders.
struct Host {
    daemon: Daemon,
    fail2ban: Fail2ban,
    scratch: Scratch,
}

impl Host {
    /// `edge` of the policy, `options` of the action and further `settings` of the jail.
    fn new(edge: &str, options: &str, settings: &str) -> Self {
        let daemon = daemon(edge);
        let scratch = Scratch::new().unwrap();
        let log = scratch.path("log");
        fs::write(&log, "").unwrap();
        let program = daemon::program().unwrap();
        let socket = daemon.socket();
        let command = format!("{} --socket {}", program.display(), socket.display());
        let settings = format!(
            "filter = login\naction = limiter[limiter=\"{command}\"{options}]\nlogpath = {}\n\
             backend = polling\nmaxretry = 2\nfindtime = 10m\n{settings}",
            log.display()
        );
        let files = [
            ("filter.d/login.conf", FILTER),
            ("action.d/limiter.conf", ACTION),
        ];
        let fail2ban = Fail2ban::start("login", &settings, &files).unwrap();
        Self {
            daemon,
            fail2ban,
            scratch,
        }
    }

    /// Two failures of a source.
    fn fails(&self, source: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let line = format!("{} {source} failed\n", now.as_secs());
        let mut log = OpenOptions::new();
        let mut log = log.append(true).open(self.scratch.path("log")).unwrap();
        log.write_all(line.repeat(2).as_bytes()).unwrap();
    }

    fn unban(&self, source: &str) {
        let arguments = ["set", "login", "unbanip", source];
        self.fail2ban.ask(&arguments).unwrap();
    }

    /// Waits until it has logged these words.
    fn says(&self, words: &str) {
        let said = wait::until(words, wait::SOON * 3, || {
            Ok(self.fail2ban.log().contains(words).then_some(()))
        });
        assert!(said.is_ok(), "{said:?}: {}", self.fail2ban.log());
    }
}

#[test]
fn who_fails_is_blocked_until_the_ban_is_lifted() {
    let host = Host::new("", "", "bantime = 1h");
    host.fails("192.0.2.7");
    host.fails("2001:db8::7");
    let both = ["192.0.2.7", "2001:db8::7"];
    for (reason, seconds) in until_listed(&host.daemon, "block", &both).values() {
        assert_eq!(reason, "fail2ban: login");
        // A minute longer than the ban.
        assert!((HOUR..=HOUR + 60).contains(seconds), "{seconds}");
    }
    host.unban("192.0.2.7");
    until_listed(&host.daemon, "block", &["2001:db8::7"]);
    // Its own are lifted at its end, and no others.
    host.daemon.ask(&["block", "add", "192.0.2.8"]).unwrap();
    assert!(!host.fail2ban.log().contains("ERROR"));
    host.fail2ban.stop().unwrap();
    until_listed(&host.daemon, "block", &["192.0.2.8"]);
}

#[test]
fn a_ban_for_good_is_as_long_as_a_block_can_be() {
    let host = Host::new("", "", "bantime = -1");
    host.fails("192.0.2.7");
    let blocks = until_listed(&host.daemon, "block", &["192.0.2.7"]);
    let (_, seconds) = blocks["192.0.2.7"];
    assert!((FOR_GOOD - 60..=FOR_GOOD).contains(&seconds), "{seconds}");
}

/// fail2ban bans for the usual time first, and says ten seconds later that it is longer for who
/// was banned before.
#[test]
fn a_ban_that_is_prolonged_prolongs_the_block() {
    let settings = "bantime = 8s\nbantime.increment = true\nbantime.multipliers = 1 450";
    let host = Host::new("", "", settings);
    host.fails("192.0.2.7");
    host.says("Unban 192.0.2.7");
    until_listed(&host.daemon, "block", &[]);
    host.fails("192.0.2.7");
    host.says("Increase Ban 192.0.2.7");
    let seconds = wait::until("the longer block", wait::SOON * 3, || {
        let blocks = entries(&host.daemon, "block");
        let seconds = blocks.values().map(|(_, seconds)| *seconds);
        Ok(seconds.max().filter(|seconds| *seconds > 68))
    })
    .unwrap();
    assert!((HOUR - 60..=HOUR + 60).contains(&seconds), "{seconds}");
}

#[test]
fn a_jail_of_ssh_denies() {
    let host = Host::new("", ", list=deny", "bantime = 1h");
    host.fails("192.0.2.7");
    let denied = until_listed(&host.daemon, "deny", &["192.0.2.7"]);
    let (reason, seconds) = &denied["192.0.2.7"];
    assert_eq!(reason, "fail2ban: login");
    assert!((HOUR..=HOUR + 60).contains(seconds), "{seconds}");
    assert!(entries(&host.daemon, "block").is_empty());
    host.unban("192.0.2.7");
    until_listed(&host.daemon, "deny", &[]);
}

#[test]
fn what_limiter_refuses_is_said_and_what_is_gone_is_no_error() {
    let host = Host::new("allow = [\"198.51.100.0/24\"]", "", "bantime = 1h");
    host.fails("192.0.2.7");
    until_listed(&host.daemon, "block", &["192.0.2.7"]);
    host.daemon.ask(&["block", "del", "192.0.2.7"]).unwrap();
    host.unban("192.0.2.7");
    assert!(!host.fail2ban.log().contains("ERROR"));
    host.fails("198.51.100.7");
    host.says("198.51.100.7 lies inside 198.51.100.0/24, which is allowed");
    assert!(entries(&host.daemon, "block").is_empty());
}
