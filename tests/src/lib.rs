//! Harness of the end-to-end tests.
//!
//! Everything happens in network namespaces without a name: they last as long
//! as the test process holds them or something runs in them, so that nothing
//! is left behind however a test ends. Processes are killed when their handle
//! is dropped, or when the thread that started them ends without.

pub mod browser;
pub mod clients;
pub mod counter;
pub mod cpu;
pub mod crowd;
pub mod crowdsec;
pub mod daemon;
pub mod delay;
pub mod documented;
pub mod exim;
pub mod fail2ban;
pub mod flood;
pub mod frames;
pub mod mounts;
pub mod netns;
pub mod origin;
pub mod pace;
pub mod pcapng;
pub mod peers;
pub mod process;
pub mod programs;
pub mod ready;
pub mod sender;
pub mod servers;
pub mod shape;
pub mod terminal;
pub mod veth;
pub mod wait;
