//! Whether the program would outlast the daemon, looked after.

use std::path::PathBuf;

use super::{Keeper, in_full};

/// What is known of the pins.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Where they are; `None`: the program ends with the daemon.
    root: Option<PathBuf>,
    /// Why it would end with the daemon all the same.
    error: Option<String>,
}

impl Keeper {
    /// Says where the program and its maps are kept.
    pub fn set_pins(&mut self, root: PathBuf) {
        self.pins.root = Some(root);
    }

    /// Whether the program outlasts the daemon.
    pub(super) fn is_pinned(&self) -> bool {
        self.pins.root.is_some() && self.pins.error.is_none()
    }

    /// Where it is kept, and what is wrong with that.
    pub(super) fn pins(&self) -> (Option<String>, Option<String>) {
        let root = self.pins.root.as_ref();
        let root = root.map(|root| root.display().to_string());
        (root, self.pins.error.clone())
    }

    /// Makes pins again that somebody removed, and says so once.
    pub(super) fn mend_pins(&mut self) {
        if self.pins.root.is_none() {
            return;
        }
        match self.plane.mend() {
            Ok(missing) => {
                if missing > 0 {
                    tracing::warn!(missing, "somebody removed pins of limiter; they are back");
                }
                self.pins.error = None;
            }
            Err(error) => {
                let error = in_full(&*error);
                if self.pins.error.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the program would end with the daemon: its pins are gone"
                    );
                }
                self.pins.error = Some(error);
            }
        }
    }
}
