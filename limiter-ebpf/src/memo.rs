//! What the trie of networks answered of late, on this CPU.
//!
//! A look-up in the trie costs as much as the rest of a packet's way. Known
//! sources do without it, since their entries remember the lists; but denied
//! and blocked sources have no entry, packets that no limit matches never look
//! for one, and destinations are few and asked for again and again.
//!
//! An answer holds for the generation in which it was given, as what entries
//! remember does: every change of the trie, also one that failed and was undone,
//! ends with a new one.

use crate::maps::longest_network;
use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use limiter_common::{
    address::Address,
    layout::{Kind, Network},
};

/// Answers kept: with 64 bytes each, within reach of the second-level cache.
const PLACES: u32 = 1 << 10;

/// An answer, and the question.
#[derive(Clone, Copy)]
#[repr(C)]
struct Answer {
    hi: u64,
    lo: u64,
    generation: u32,
    /// Family and [`Kind`]; 0: no answer yet.
    about: u16,
    /// 1: there is a network around the address.
    found: u16,
    network: Network,
}
const _: () = assert!(size_of::<Answer>() == 64);

#[btf_map]
static ANSWERS: PerCpuArray<Answer, { PLACES as usize }> = PerCpuArray::new();

/// The longest network around an address.
#[inline(always)]
pub fn network(
    generation: u32,
    seed: u64,
    row: u32,
    kind: Kind,
    address: Address,
) -> Option<&'static Network> {
    let about = (address.family as u16) << 8 | kind as u16;
    // As in `limiter_common::filter`, each half by a factor of its own.
    let hi = (address.hi ^ u64::from(about)).wrapping_mul(seed | 1);
    let lo = address.lo.wrapping_mul(seed.rotate_left(32) | 1);
    let place = (hi.wrapping_add(lo) >> 54) as u32;
    let answer = ANSWERS.get_ptr_mut(place)?;
    // SAFETY: this CPU's own value, and nothing else runs on it until the
    // program returns; nobody else has a reference.
    let answer = unsafe { &mut *answer };
    if answer.hi != address.hi
        || answer.lo != address.lo
        || answer.generation != generation
        || answer.about != about
    {
        let found = longest_network(row, kind, address);
        *answer = Answer {
            hi: address.hi,
            lo: address.lo,
            generation,
            about,
            found: u16::from(found.is_some()),
            network: found.copied().unwrap_or_default(),
        };
    }
    (answer.found != 0).then_some(&answer.network)
}
