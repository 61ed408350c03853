//! The daemon, if one runs already.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::finding::{About, Finding};
use crate::control::api::Status;
use crate::control::client::Client;

/// Whether a daemon answers, and where its program is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Where it was asked.
    pub(super) socket: PathBuf,
    /// `None`: this user may not ask.
    pub(super) is_running: Option<bool>,
    /// Its process.
    pub(super) pid: Option<u32>,
    /// Indices of the interfaces that its program is on.
    pub(super) attached: Vec<u32>,
}

impl Facts {
    pub(super) fn read(socket: &Path) -> Self {
        let is_running = match UnixStream::connect(socket) {
            Ok(_) => Some(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(_) => Some(false),
        };
        let mut facts = Self {
            socket: socket.to_owned(),
            is_running,
            ..Self::default()
        };
        if is_running == Some(true)
            && let Ok(status) = Client::new(socket).get::<Status>("/v1/status", &[])
        {
            facts.pid = Some(status.pid);
            let attached = status.interfaces.into_iter().filter(|row| row.present);
            facts.attached = attached.map(|row| row.index).collect();
        }
        facts
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut about = About::new("daemon");
        let socket = self.socket.display();
        match (self.is_running, self.pid) {
            (None, _) => about.note(format!("{socket} is not for this user to ask")),
            (Some(false), _) => about.ok(format!("none answers on {socket}")),
            (Some(true), Some(pid)) => about.ok(format!(
                "process {pid} answers on {socket}, with its program on {} interfaces",
                self.attached.len()
            )),
            (Some(true), None) => about.note(format!("somebody listens on {socket}")),
        }
        about.findings()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_daemon_is_there_or_not_or_not_to_be_asked() {
        let mut facts = Facts::read(Path::new("/nowhere/control.sock"));
        assert_eq!(facts.is_running, Some(false));
        assert_eq!(facts.judge()[0].level, Level::Ok);
        facts.is_running = None;
        assert_eq!(facts.judge()[0].level, Level::Note);
        facts.is_running = Some(true);
        assert!(facts.judge()[0].what.contains("somebody listens"));
        facts.pid = Some(12);
        assert!(facts.judge()[0].what.contains("process 12 answers"));
    }
}
