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
    address::{Address, Family},
    layout::{Kind, Network, row},
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

/// The longest network around an address; to be read before the next is asked
/// for.
#[inline(always)]
pub fn network(
    generation: u32,
    seed: u64,
    kind: Kind,
    address: Address,
) -> Option<&'static Network> {
    let about = (address.family as u16) << 8 | kind as u16;
    // As in `limiter_common::filter`, each half by a factor of its own.
    let hi = (address.hi ^ u64::from(about)).wrapping_mul(seed | 1);
    let lo = address.lo.wrapping_mul(seed.rotate_left(32) | 1);
    let place = (hi.wrapping_add(lo) >> 54) as u32;
    let answer = ANSWERS.get_ptr(place)?;
    // SAFETY: this CPU's own value, which nothing else changes until the program
    // returns; `ask` only before the next line reads it.
    let is_known = unsafe {
        (*answer).hi == address.hi
            && (*answer).lo == address.lo
            && (*answer).generation == generation
            && (*answer).about == about
    };
    if !is_known {
        ask(place, address.hi, address.lo, generation, about.into());
    }
    // SAFETY: as above, and `ask` has returned.
    let answer = unsafe { &*answer };
    (answer.found != 0).then_some(&answer.network)
}

/// Asks the trie, and keeps its answer at `place`.
///
/// A global function, which has a stack of its own for the trie's key.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ask(place: u32, hi: u64, lo: u64, generation: u32, about: u32) -> u32 {
    let Some(answer) = ANSWERS.get_ptr_mut(place) else {
        return 0;
    };
    let family = match about >> 8 {
        4 => Family::Ipv4,
        _ => Family::Ipv6,
    };
    let kind = match about & 0xff {
        0 => Kind::Source,
        _ => Kind::Destination,
    };
    let found = longest_network(row(generation), kind, Address { family, hi, lo });
    // SAFETY: this CPU's own value, and nothing else runs on it until the
    // program returns; no answer that was given out before is read after the
    // next question.
    let answer = unsafe { &mut *answer };
    (answer.hi, answer.lo) = (hi, lo);
    answer.generation = generation;
    answer.about = about as u16;
    answer.found = u16::from(found.is_some());
    if let Some(network) = found {
        answer.network = *network;
    }
    0
}
