//! Signals that ask a command to come to its end.

use std::io;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals caught: none of them ends the process unseen.
#[derive(Debug)]
pub(super) struct Signals {
    runtime: Runtime,
    /// SIGTERM, SIGHUP, SIGINT, SIGQUIT.
    caught: [Signal; 4],
}

impl Signals {
    /// Catches them from here on.
    pub(super) fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let within = runtime.enter();
        let caught = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ];
        drop(within);
        Ok(Self { runtime, caught })
    }

    /// Waits for one.
    pub(super) fn wait(&mut self) {
        let [terminate, hangup, interrupt, quit] = &mut self.caught;
        self.runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
                _ = quit.recv() => {}
            }
        });
    }
}
