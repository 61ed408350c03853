//! What the kernel program and the control plane share: the layouts of the
//! maps, header parsing, source keys, the arithmetic of limits and the verdict
//! path itself.
//!
//! Nothing here reads a clock, a random number or a map: callers pass them in
//! ([`tables::Tables`]), so that one and the same [`judge::judge`] runs on
//! packets in the kernel, on captures in user space and on made-up frames in
//! tests.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "the BPF target offers compare-and-swap only as an intrinsic"
    )
)]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod atomic;
pub mod block;
pub mod blocked;
pub mod bucket;
pub mod class;
pub mod entry;
pub mod filter;
pub mod flood;
pub mod judge;
pub mod known;
pub mod layout;
pub mod packet;
pub mod sample;
pub mod standing;
pub mod tables;
pub mod time;
pub mod total;
pub mod verdict;
