//! Maps by system call: typed tables, in batches.
//!
//! aya loads and attaches; its maps know no batches, and a hundred thousand
//! entries one by one take a second.

use std::{
    io,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// A type of which every bit pattern is a value and that has no padding: what
/// may be copied from and to the kernel.
///
/// # Safety
///
/// As said: `#[repr(C)]` or `#[repr(transparent)]` over integers, no implicit
/// padding.
pub(super) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: integers only, sizes asserted where they are defined.
            unsafe impl Plain for $type {}
        )*
    };
}

/// The key of an LPM trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct TrieKey {
    pub(super) bits: u32,
    pub(super) data: [u8; 24],
}

plain!(
    u32,
    u64,
    TrieKey,
    limiter_common::block::Block,
    limiter_common::block::BlockKey,
    limiter_common::block::Lengths,
    limiter_common::class::Class,
    limiter_common::layout::Active,
    limiter_common::layout::EntryKey,
    limiter_common::layout::Former,
    limiter_common::layout::Interface,
    limiter_common::layout::Limit,
    limiter_common::layout::LimitSet,
    limiter_common::layout::Network,
    limiter_common::layout::Policy,
    limiter_common::layout::Tally,
    [u64; 8],
    [u64; 24],
);

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const MAP_DELETE_BATCH: libc::c_long = 27;

const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    reserved: [u32; 4],
}

/// `bpf(2)`.
fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is one of the structures above, whose pointers the
    // callers keep alive; the kernel checks everything else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>().addr() as u64
}

/// Entries in one batch.
const BATCH: usize = 4_096;

/// A map with keys `K` and values `V`.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// The map behind `fd`, which must have keys and values of these sizes.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            types: PhantomData,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn element(&self, key: &K, value: u64) -> ElementAttr {
        ElementAttr {
            map_fd: self.fd.as_raw_fd() as u32,
            reserved: 0,
            key: address(key),
            value,
            flags: 0,
        }
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let target = value.as_mut_ptr().addr() as u64;
        match bpf(MAP_LOOKUP, &mut self.element(key, target)) {
            // SAFETY: the kernel filled the whole value.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts `value` under `key`.
    pub(super) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        bpf(MAP_UPDATE, &mut self.element(key, address(value))).map(drop)
    }

    /// Puts many values.
    pub(super) fn set_many(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let mut attr = self.batch(address(keys), address(values), keys.len());
            bpf(MAP_UPDATE_BATCH, &mut attr)?;
        }
        Ok(())
    }

    /// Takes many keys away; those that are not there do not matter.
    pub(super) fn remove_many(&self, keys: &[K]) -> io::Result<()> {
        for keys in keys.chunks(BATCH) {
            let mut rest = keys;
            while !rest.is_empty() {
                let mut attr = self.batch(address(rest), 0, rest.len());
                match bpf(MAP_DELETE_BATCH, &mut attr) {
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        // `count` were deleted before the one that is missing.
                        rest = rest.get(attr.count as usize + 1..).unwrap_or_default();
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// All entries, or the first `most` of an array. `copies` values belong to
    /// a key: 1, or the possible CPUs of a per-CPU map.
    pub(super) fn read(&self, copies: usize, most: usize) -> io::Result<Vec<(K, Vec<V>)>> {
        let mut all = Vec::new();
        self.for_each(copies, most, |key, values| all.push((key, values.to_vec())))?;
        Ok(all)
    }

    /// The same, one entry after the other: a million of them need no memory
    /// but a batch's.
    pub(super) fn for_each(
        &self,
        copies: usize,
        most: usize,
        mut told: impl FnMut(K, &[V]),
    ) -> io::Result<()> {
        let mut seen = 0;
        let mut cursor = 0_u32;
        let mut started = false;
        let mut room = BATCH;
        let mut keys = Vec::<K>::new();
        let mut values = Vec::<V>::new();
        while seen < most {
            let count = room.min(most - seen);
            keys.clear();
            keys.reserve(count);
            values.clear();
            values.reserve(count * copies);
            let mut next = 0_u32;
            let mut attr = BatchAttr {
                in_batch: if started { address(&cursor) } else { 0 },
                out_batch: std::ptr::from_mut(&mut next).addr() as u64,
                ..self.batch(
                    keys.as_mut_ptr().addr() as u64,
                    values.as_mut_ptr().addr() as u64,
                    count,
                )
            };
            let last = match bpf(MAP_LOOKUP_BATCH, &mut attr) {
                Ok(_) => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < 1 << 22 => {
                    // A bucket holds more than there is room for.
                    room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = attr.count as usize;
            // SAFETY: the kernel filled `count` keys.
            unsafe { keys.set_len(count) };
            // SAFETY: and `copies` values for each.
            unsafe { values.set_len(count * copies) };
            for (key, values) in keys.iter().zip(values.chunks(copies)) {
                told(*key, values);
            }
            seen += count;
            if last {
                break;
            }
            // Written by the kernel behind the compiler's back.
            cursor = std::hint::black_box(next);
            started = true;
        }
        Ok(())
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: count as u32,
            map_fd: self.fd.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        }
    }
}

impl<V: Plain> Table<u32, V> {
    /// Puts values in an array from `first` on.
    pub(super) fn set_range(&self, first: u32, values: &[V]) -> io::Result<()> {
        let keys: Vec<u32> = (first..).take(values.len()).collect();
        self.set_many(&keys, values)
    }
}

/// Waits until no packet is under way that began before.
///
/// Replacing the inner map of a map of maps makes the kernel wait for a grace
/// period (`maybe_wait_bpf_programs`), also where `membarrier(2)` refuses
/// (nohz_full).
#[derive(Debug)]
pub(super) struct GracePeriod {
    outer: Table<u32, u32>,
    inner: OwnedFd,
}

impl GracePeriod {
    pub(super) fn new() -> io::Result<Self> {
        let inner = create(ARRAY, 0)?;
        let outer = create(ARRAY_OF_MAPS, inner.as_raw_fd() as u32)?;
        Ok(Self {
            outer: Table::new(outer),
            inner,
        })
    }

    pub(super) fn wait(&self) -> io::Result<()> {
        self.outer.set(&0, &(self.inner.as_raw_fd() as u32))
    }
}

fn create(map_type: u32, inner_map_fd: u32) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"limiter_grace");
    let fd = bpf(
        MAP_CREATE,
        &mut CreateAttr {
            map_type,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            map_flags: 0,
            inner_map_fd,
            numa_node: 0,
            name,
            reserved: [0; 4],
        },
    )?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A shared mapping of an array of words (`BPF_F_MMAPABLE`).
#[derive(Debug)]
pub(super) struct Words {
    start: std::ptr::NonNull<std::sync::atomic::AtomicU64>,
    count: usize,
}

// SAFETY: the mapping is shared memory of atomics; nothing is tied to a thread.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    pub(super) fn map(fd: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = std::ptr::NonNull::new(start.cast())
            .ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { start, count })
    }

    pub(super) fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        // SAFETY: the mapping covers `count` words, page-aligned, and lives as
        // long as `self`; others change them only as atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; no slice outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * 8) };
    }
}
