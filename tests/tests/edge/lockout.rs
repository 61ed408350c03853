//! Orders that would cut off whoever gives them, or another SSH connection.

use crate::site::{LATE, Site, row};
use limiter_tests::{clients, wait};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    time::Duration,
};

/// In `ssh_ports`, and not.
pub(crate) const SSH: u16 = 2_022;
const OTHER: u16 = 2_023;
pub(crate) const SAFETY: &str = "[edge.safety]\nssh_ports = [2022]\n";

/// A connection, seen from both of its ends.
pub(crate) struct Session {
    client: TcpStream,
    server: TcpStream,
}

impl Session {
    pub(crate) fn open(site: &Site, port: u16) -> Self {
        let address = SocketAddr::new(site.pairs[0].right.ipv4.into(), port);
        let listener = site.server().run(|| TcpListener::bind(address)).unwrap();
        let client = clients::connect(site.client(), address, LATE).unwrap();
        let (server, _) = listener.accept().unwrap();
        Self { client, server }
    }

    /// Whether a byte from the client gets through in this time.
    pub(crate) fn lives(&mut self, at_most: Duration) -> bool {
        self.client.write_all(b"x").unwrap();
        self.server.set_read_timeout(Some(at_most)).unwrap();
        self.server.read_exact(&mut [0]).is_ok()
    }

    /// The same after what came late has been read.
    pub(crate) fn goes_on(&mut self, at_most: Duration) -> bool {
        self.server.set_nonblocking(true).unwrap();
        while self.server.read(&mut [0; 64]).is_ok() {}
        self.server.set_nonblocking(false).unwrap();
        self.lives(at_most)
    }

    /// What `sshd` would say of it in `SSH_CONNECTION`.
    fn environment(&self) -> String {
        let [peer, local] = [self.server.peer_addr(), self.server.local_addr()].map(Result::unwrap);
        let (peer_port, local_port) = (peer.port(), local.port());
        format!("{} {peer_port} {} {local_port}", peer.ip(), local.ip())
    }
}

pub(crate) fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

#[test]
fn a_deny_of_an_open_ssh_connection_takes_force() {
    let site = Site::new("native", SAFETY);
    let mut session = Session::open(&site, SSH);
    let client = site.pairs[0].left.ipv4.to_string();
    let port = session.client.local_addr().unwrap().port();

    let why = refusal(&site.daemon.output(&["deny", "add", "10.1.0.0/24"]).unwrap());
    let named = format!("10.1.0.0/24 contains {client}, from where an SSH connection is open");
    assert!(why.contains(&named), "{why}");
    assert!(why.contains(&format!("port {port} to port {SSH}")), "{why}");
    assert!(why.contains("--force"), "{why}");
    assert!(session.lives(LATE));
    // Blocks spare it.
    site.daemon.ask(&["block", "add", &client]).unwrap();
    assert!(session.lives(LATE));

    // In the policy's file, by order and by signal.
    let denied = site.policy("native", &format!("deny = [\"10.1.0.0/24\"]\n{SAFETY}"));
    site.daemon.write_policy(&denied).unwrap();
    let why = refusal(&site.daemon.output(&["reload"]).unwrap());
    assert!(why.contains("the old policy stays in force"), "{why}");
    site.daemon.signal(libc::SIGHUP).unwrap();
    wait::until("the second refusal", LATE, || {
        let log = site.daemon.log()?;
        Ok((log.matches("policy not reloaded").count() == 2).then_some(()))
    })
    .unwrap();
    assert!(session.lives(LATE));
    assert_eq!(row(&site.counts(), "- drop deny -"), 0);

    let done = site
        .daemon
        .ask(&["deny", "add", &client, "--force"])
        .unwrap();
    assert!(done.contains(&format!("deny {client} cuts off")), "{done}");
    assert!(!session.lives(Duration::from_secs(1)));
    assert!(row(&site.counts(), "- drop deny -") >= 1);
    // What is cut off already stops nothing any more.
    site.daemon.ask(&["reload"]).unwrap();
    site.daemon.ask(&["deny", "del", &client]).unwrap();
}

#[test]
fn the_callers_own_session_is_found_by_its_environment() {
    let site = Site::new("native", SAFETY);
    let mut session = Session::open(&site, OTHER);
    let client = site.pairs[0].left.ipv4.to_string();
    let as_caller = |arguments: &[&str]| {
        let mut command = site.daemon.command(arguments).unwrap();
        command.env("SSH_CONNECTION", session.environment());
        command.output().unwrap()
    };
    for list in ["deny", "block"] {
        let why = refusal(&as_caller(&[list, "add", &client]));
        let named = format!("{client} is from where you are logged in");
        assert!(why.contains(&named), "{why}");
        assert!(why.contains(&format!("to port {OTHER}")), "{why}");
    }
    let forced = as_caller(&["block", "add", &client, "--force"]);
    let text = String::from_utf8_lossy(&forced.stdout).into_owned();
    assert!(forced.status.success());
    let cut = format!("the block of {client} cuts off your SSH connection");
    assert!(text.contains(&cut), "{text}");
    assert!(!session.lives(Duration::from_secs(1)));
    site.daemon.ask(&["block", "del", &client]).unwrap();
    // No port of SSH: to all others it is a connection like any other.
    site.daemon.ask(&["deny", "add", &client]).unwrap();
}
