//! What a service manager is told, by a socket of the test's.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use limiter_tests::{
    daemon::{Daemon, Terms},
    netns::Namespace,
    process::Scratch,
    wait,
};
use std::{
    io,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

/// The service manager's side.
struct Manager {
    socket: UnixDatagram,
    scratch: Scratch,
}

impl Manager {
    fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        let socket = UnixDatagram::bind(scratch.path("notify")).unwrap();
        Self { socket, scratch }
    }

    fn terms(&self, more: &[(&str, &str)]) -> Terms {
        let socket = self.scratch.path("notify").display().to_string();
        let own = ("NOTIFY_SOCKET", socket.as_str());
        let all = std::iter::once(own).chain(more.iter().copied());
        Terms {
            environment: all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Terms::default()
        }
    }

    /// The next message; `None`: none came in time.
    fn next(&self, at_most: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(at_most)).unwrap();
        let mut bytes = [0; 4_096];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Some(String::from_utf8(bytes[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message that begins so; returns those that came before it
    /// and itself.
    #[track_caller]
    fn until(&self, begin: &str) -> Vec<String> {
        let deadline = Instant::now() + wait::SOON;
        let mut messages = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.next(left.max(Duration::from_millis(1)));
            let Some(message) = message else {
                panic!("no {begin}, but {messages:?}");
            };
            let is_it = message.starts_with(begin);
            messages.push(message);
            if is_it {
                return messages;
            }
        }
    }
}

fn policy(limits: usize) -> String {
    let limit = |number| {
        format!(
            "[[edge.limit]]\nname = \"l{number}\"\nprotocol = \"udp\"\nports = [{number}]\npackets = \"9/s\"\n"
        )
    };
    let limits: String = (1..=limits).map(limit).collect();
    format!("[edge]\ninterfaces = [\"lo\"]\n{limits}")
}

#[test]
fn ready_reload_status_and_stop_are_told() {
    let manager = Manager::new();
    let namespace = Namespace::new().unwrap();
    let daemon = Daemon::start_on(&namespace, &policy(1), manager.terms(&[])).unwrap();
    assert_eq!(manager.until("READY=1"), ["READY=1\n"]);
    // By then it is attached.
    assert!(namespace.ip("link show lo").unwrap().contains("xdp"));
    let status = manager.until("STATUS=");
    assert_eq!(status, ["STATUS=guarding lo: 1 limit, 0 blocks\n"]);

    daemon.write_policy(&policy(2)).unwrap();
    daemon.signal(libc::SIGHUP).unwrap();
    let told = manager.until("READY=1");
    let [reloading, _ready] = &told[..] else {
        panic!("{told:?}");
    };
    // With the moment at which it began, as Type=notify-reload wants it.
    let began = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap();
    assert!(began.trim_end().parse::<u64>().unwrap() > 0);
    daemon.ask(&["block", "add", "192.0.2.1"]).unwrap();
    let told = manager.until("STATUS=guarding lo: 2 limits, 1 block");
    assert!(!told.concat().contains("WATCHDOG"), "nobody asked for it");

    // A reload that is refused ends as well.
    daemon.write_policy("[edge]\nmode = 1\n").unwrap();
    daemon.signal(libc::SIGHUP).unwrap();
    let told = manager.until("READY=1").concat();
    assert!(told.contains("RELOADING=1"), "{told}");
    manager.until("STATUS=guarding lo: 2 limits, 1 block; the last reload was refused");

    assert!(daemon.stop().unwrap().success());
    assert_eq!(manager.until("STOPPING=1").last().unwrap(), "STOPPING=1\n");
}

#[test]
fn a_watchdog_hears_of_a_daemon_that_lives() {
    /// Twice in this.
    const ALLOWED: Duration = Duration::from_millis(300);
    let manager = Manager::new();
    let allowed = ALLOWED.as_micros().to_string();
    let terms = manager.terms(&[("WATCHDOG_USEC", &allowed)]);
    let daemon = Daemon::start_on(&Namespace::new().unwrap(), &policy(1), terms).unwrap();
    manager.until("READY=1");
    for _ in 0..5 {
        manager.until("WATCHDOG=1");
    }
    daemon.signal(libc::SIGSTOP).unwrap();
    // At most what was on its way when the signal came, then silence.
    let late = std::iter::from_fn(|| manager.next(ALLOWED * 4));
    assert!(
        late.take(3).count() <= 1,
        "signs of life of a stopped daemon"
    );
    daemon.signal(libc::SIGCONT).unwrap();
    manager.until("WATCHDOG=1");
}

#[test]
fn a_watchdog_for_another_process_is_not_for_this_one() {
    let manager = Manager::new();
    // The test's own, which is not the daemon's.
    let pid = std::process::id().to_string();
    let terms = manager.terms(&[("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", &pid)]);
    let daemon = Daemon::start_on(&Namespace::new().unwrap(), &policy(1), terms).unwrap();
    daemon.ask(&["block", "add", "192.0.2.1"]).unwrap();
    let told = manager.until("STATUS=guarding lo: 1 limit, 1 block");
    assert!(!told.concat().contains("WATCHDOG"), "{told:?}");
}
