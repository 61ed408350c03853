//! The `limiter` program on real packets, end to end: the daemon, its command
//! line and the loaded program, in namespaces.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod blocks;
mod captchas;
mod capture;
mod challenges;
mod doctor;
mod faults;
mod flood;
mod front;
mod haproxy;
mod hearing;
mod imports;
mod interfaces;
mod list_files;
mod lists;
mod lockout;
mod modes;
mod notify;
mod presets;
mod presets_by_proxy;
mod presets_cloudflare;
mod presets_login;
mod proxies;
mod reload;
mod restarts;
mod rules;
mod site;
mod state;
mod suggest;
mod term;
mod top;
mod web;
mod worker;
