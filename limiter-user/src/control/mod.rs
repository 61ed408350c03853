//! The control socket: HTTP/1.1 and JSON over a Unix socket. What can be
//! asked and ordered there stands in `docs/control.md`.

mod access;
pub mod api;
pub(crate) mod audit;
pub mod client;
mod observe;
mod routes;
mod rules;
mod server;
pub mod socket;
#[cfg(test)]
mod tests;

pub use access::{Access, NoGroup};
pub(crate) use server::reload;
pub use server::{LIMITS, serve};

/// Where the control socket is unless the policy or the command line says
/// otherwise.
pub const DEFAULT_SOCKET: &str = "/run/limiter/control.sock";
