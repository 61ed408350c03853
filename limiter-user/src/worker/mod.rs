//! The worker: a process without privileges that hears events, decides, and serves the
//! metrics, and what the daemon has to do with it.
//!
//! Four processes are one program. The *daemon* holds the BPF rights and reads nothing
//! that strangers write. Before it gives up its privileges it makes the *spawner*
//! ([`spawner`]), which has none, and which makes the *worker* ([`process`]) as often as it
//! is needed, and beside it the [courier](crate::courier). Daemon and worker talk over a [`channel`] of [`message`]s; the
//! [`supervisor`] is the daemon's end of it.

mod answers;
pub mod channel;
mod desk;
mod hearing;
pub mod held;
mod link;
pub mod message;
mod outgoing;
pub mod process;
mod rate;
mod rows;
mod said;
pub(crate) mod sandbox;
pub mod spawner;
pub mod supervisor;

pub use held::{Held, Room};
pub use spawner::{Identity, NoWorker, Role, Spawner};
pub use supervisor::{Settings, Worker};

use process::standard_input;

/// What a process of this name does; `None`: it is a command.
///
/// # Errors
/// Those of the process.
pub fn called(name: &str) -> Option<anyhow::Result<()>> {
    match name {
        spawner::SPAWNER => Some(spawner::run()),
        spawner::WORKER => Some(process::run()),
        spawner::COURIER => Some(crate::courier::process::run()),
        _ => None,
    }
}
