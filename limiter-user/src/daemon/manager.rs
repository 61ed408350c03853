//! The service manager: that the daemon is ready, reloads, stops, how things
//! stand, and that it is not stuck (`sd_notify(3)`).

use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::keeper::Handle;

/// How often it is looked whether the status has changed.
const LOOK: Duration = Duration::from_secs(2);

/// How long to wait where the keeper has more orders than it takes.
const AGAIN: Duration = Duration::from_millis(50);

/// How long the manager may take to receive: while its queue is full, senders
/// wait.
const RECEIVED: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    // Opened once: the watchdog must be told even when there are no file
    // descriptors left.
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Finds the one that the environment names.
    pub(super) fn find() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let opened = open(name.as_bytes());
            let failed = |error: &io::Error| {
                tracing::warn!(%error, socket = ?name, "the service manager cannot be told anything");
            };
            opened.inspect_err(failed).ok()
        });
        Self {
            socket,
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// Tells it, if it is there.
    pub(super) fn tell(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        let mut text = String::new();
        for state in states {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{state}");
        }
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    }

    /// Tells that a reload begins. It ends with the next `READY=1`.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// Keeps it up to date for ever; drop the future to stop.
    pub(super) async fn inform(&self, keeper: &Handle) {
        if self.socket.is_some() {
            tokio::join!(self.keep_alive(keeper), self.keep_status(keeper));
        }
        std::future::pending().await
    }

    /// A sign of life, if the manager waits for them, and only while the
    /// keeper's thread answers: twice in the time that is allowed between two.
    async fn keep_alive(&self, keeper: &Handle) {
        let Some(allowed) = self.watchdog.filter(|allowed| !allowed.is_zero()) else {
            return;
        };
        let mut due = interval(allowed / 2);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            match timeout(allowed / 2, answered(keeper)).await {
                Ok(()) => self.tell(&[NotifyState::Watchdog]),
                Err(_) => {
                    tracing::warn!("the keeper does not answer: no sign of life to the watchdog");
                }
            }
        }
    }

    /// A line on how things stand, whenever it changes.
    async fn keep_status(&self, keeper: &Handle) {
        let mut told = String::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if let Ok(line) = keeper.ask(|keeper| keeper.in_one_line()).await
                && line != told
            {
                self.tell(&[NotifyState::Status(&line)]);
                told = line;
            }
        }
    }
}

/// Waits until the keeper's thread has come to this.
async fn answered(keeper: &Handle) {
    while keeper.ask(|_| ()).await.is_err() {
        tokio::time::sleep(AGAIN).await;
    }
}

/// A socket to send from, and where to: `@` begins an abstract name.
fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(RECEIVED))?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::{Now, fake};
    use std::time::Instant;

    /// A manager's socket, and how long it is read.
    fn next(socket: &UnixDatagram, at_most: Duration) -> Option<String> {
        socket.set_read_timeout(Some(at_most)).unwrap();
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_keeper_that_hangs_gives_no_sign_of_life() {
        const ALLOWED: Duration = Duration::from_millis(100);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = Manager {
            socket: Some(open(path.as_os_str().as_bytes()).unwrap()),
            watchdog: Some(ALLOWED),
        };
        let (keeper, _told) = fake::keeper("limiter.toml".into(), Now::read());
        let (handle, _ended) = Handle::spawn(keeper).unwrap();
        let (held, release) = std::sync::mpsc::channel::<()>();
        let (hung, hangs) = std::sync::mpsc::channel();
        let order = handle.clone();
        let informing = tokio::spawn(async move { manager.inform(&handle).await });
        let check = tokio::task::spawn_blocking(move || {
            let await_sign = || {
                let deadline = Instant::now() + Duration::from_secs(10);
                while Instant::now() < deadline {
                    let told = next(&listener, Duration::from_secs(1));
                    if told.as_deref() == Some("WATCHDOG=1\n") {
                        return true;
                    }
                }
                false
            };
            assert!(await_sign());
            let hang = tokio::spawn(async move {
                let order = order.ask(move |_| {
                    hung.send(()).unwrap();
                    let _released = release.recv();
                });
                order.await.unwrap();
            });
            hangs.recv().unwrap();
            // At most what was on its way.
            let late = std::iter::from_fn(|| next(&listener, ALLOWED * 4));
            assert!(late.take(3).count() <= 1);
            drop(held);
            assert!(await_sign());
            hang
        });
        check.await.unwrap().await.unwrap();
        informing.abort();
    }

    #[test]
    fn an_abstract_name_is_one() {
        let (_socket, address) = open(b"@limiter-test").unwrap();
        assert_eq!(address.as_abstract_name(), Some(&b"limiter-test"[..]));
    }
}
