//! Words that several CPUs change at once.
//!
//! `core::sync::atomic` has neither compare-and-swap nor fetch-and-add on the
//! BPF target, although the instruction set has both (`-C target-cpu=v3`).
//! This is the only module that knows.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{
    AtomicU32 as Raw32, AtomicU64 as Raw64,
    Ordering::{AcqRel, Acquire, Release},
};
#[cfg(target_arch = "bpf")]
use {
    core::cell::UnsafeCell,
    core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd, atomic_xchg},
};

#[cfg(target_arch = "bpf")]
type Raw32 = UnsafeCell<u32>;
#[cfg(target_arch = "bpf")]
type Raw64 = UnsafeCell<u64>;

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name($raw);

        impl $name {
            /// A word that holds `value`.
            pub const fn new(value: $int) -> Self {
                Self($raw::new(value))
            }

            /// What it holds now.
            #[inline(always)]
            pub fn load(&self) -> $int {
                #[cfg(not(target_arch = "bpf"))]
                {
                    self.0.load(Acquire)
                }
                #[cfg(target_arch = "bpf")]
                {
                    // SAFETY: an aligned word of this size, which the CPU
                    // reads whole; volatile, since others write it.
                    unsafe { self.0.get().read_volatile() }
                }
            }

            /// Overwrites it.
            #[inline(always)]
            pub fn store(&self, value: $int) {
                #[cfg(not(target_arch = "bpf"))]
                {
                    self.0.store(value, Release);
                }
                #[cfg(target_arch = "bpf")]
                {
                    // SAFETY: as for `load`.
                    unsafe { self.0.get().write_volatile(value) };
                }
            }

            /// Puts `new` where `old` is expected; false, and nothing changed,
            /// if another CPU was faster.
            #[inline(always)]
            #[must_use]
            pub fn replace(&self, old: $int, new: $int) -> bool {
                #[cfg(not(target_arch = "bpf"))]
                {
                    self.0.compare_exchange(old, new, AcqRel, Acquire).is_ok()
                }
                #[cfg(target_arch = "bpf")]
                {
                    const SUCCESS: AtomicOrdering = AtomicOrdering::AcqRel;
                    const FAILURE: AtomicOrdering = AtomicOrdering::Acquire;
                    // SAFETY: a live, aligned word.
                    unsafe { atomic_cxchg::<$int, SUCCESS, FAILURE>(self.0.get(), old, new).1 }
                }
            }
        }

        #[cfg(target_arch = "bpf")]
        // SAFETY: all access is by whole words, as above.
        unsafe impl Sync for $name {}
    };
}

word!(
    /// 32 bits shared by all CPUs.
    Word32,
    Raw32,
    u32
);
word!(
    /// 64 bits shared by all CPUs.
    Word,
    Raw64,
    u64
);

impl Word {
    /// Adds `amount`, wrapping; returns what was there before.
    #[inline(always)]
    pub fn fetch_add(&self, amount: u64) -> u64 {
        #[cfg(not(target_arch = "bpf"))]
        {
            self.0.fetch_add(amount, AcqRel)
        }
        #[cfg(target_arch = "bpf")]
        {
            // SAFETY: a live, aligned word.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(self.0.get(), amount) }
        }
    }

    /// Puts `value` there; returns what was there before.
    #[inline(always)]
    pub fn swap(&self, value: u64) -> u64 {
        #[cfg(not(target_arch = "bpf"))]
        {
            self.0.swap(value, AcqRel)
        }
        #[cfg(target_arch = "bpf")]
        {
            // SAFETY: a live, aligned word.
            unsafe { atomic_xchg::<u64, { AtomicOrdering::AcqRel }>(self.0.get(), value) }
        }
    }

    /// Adds to a word that only this CPU writes: no bus lock.
    #[inline(always)]
    pub fn add_local(&self, amount: u64) {
        self.store(self.load().wrapping_add(amount));
    }

    /// Sets bits for all CPUs; a bit already set costs no write.
    #[inline(always)]
    pub fn set_bits(&self, bits: u64) {
        if self.load() & bits == bits {
            return;
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            self.0.fetch_or(bits, AcqRel);
        }
        #[cfg(target_arch = "bpf")]
        {
            // SAFETY: a live, aligned word.
            unsafe { atomic_or::<u64, u64, { AtomicOrdering::AcqRel }>(self.0.get(), bits) };
        }
    }
}
