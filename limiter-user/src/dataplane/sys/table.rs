//! Typed tables, in batches: aya's maps know none, and a hundred thousand
//! entries one by one take a second.

use super::{MAP_LOOKUP, MAP_UPDATE, Plain, address, bpf, element};
use std::{
    io,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const MAP_DELETE_BATCH: libc::c_long = 27;

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

/// Entries in one batch.
const BATCH: usize = 4_096;

/// A map with keys `K` and values `V`.
#[derive(Debug)]
pub(in crate::dataplane) struct Table<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// The map behind `fd`, which must have keys and values of these sizes.
    pub(in crate::dataplane) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            types: PhantomData,
        }
    }

    pub(in crate::dataplane) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The value of `key`.
    pub(in crate::dataplane) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let target = value.as_mut_ptr().expose_provenance() as u64;
        match element(MAP_LOOKUP, self.fd(), address(key), target) {
            // SAFETY: the kernel filled the whole value.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts `value` under `key`.
    pub(in crate::dataplane) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        element(MAP_UPDATE, self.fd(), address(key), address(value))
    }

    /// Puts many values.
    pub(in crate::dataplane) fn set_many(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let mut attr = self.batch(address(keys), address(values), keys.len());
            bpf(MAP_UPDATE_BATCH, &mut attr)?;
        }
        Ok(())
    }

    /// Takes many keys away; those that are not there do not matter.
    pub(in crate::dataplane) fn remove_many(&self, keys: &[K]) -> io::Result<()> {
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
    pub(in crate::dataplane) fn read(
        &self,
        copies: usize,
        most: usize,
    ) -> io::Result<Vec<(K, Vec<V>)>> {
        let mut all = Vec::new();
        self.for_each(copies, most, |key, values| all.push((key, values.to_vec())))?;
        Ok(all)
    }

    /// The same, one entry after the other: a million of them need no memory
    /// but a batch's.
    pub(in crate::dataplane) fn for_each(
        &self,
        copies: usize,
        most: usize,
        mut told: impl FnMut(K, &[V]),
    ) -> io::Result<()> {
        let mut seen = 0;
        // Where the next batch begins: a number for hash tables and arrays, a key
        // for tries.
        let mut cursor = vec![0_u64; size_of::<K>().div_ceil(8).max(1)];
        let mut next = cursor.clone();
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
            let mut attr = BatchAttr {
                in_batch: if started {
                    address(cursor.as_slice())
                } else {
                    0
                },
                out_batch: next.as_mut_ptr().expose_provenance() as u64,
                ..self.batch(
                    keys.as_mut_ptr().expose_provenance() as u64,
                    values.as_mut_ptr().expose_provenance() as u64,
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
            std::mem::swap(&mut cursor, &mut next);
            // Written by the kernel behind the compiler's back.
            std::hint::black_box(&mut cursor);
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
    pub(in crate::dataplane) fn set_range(&self, first: u32, values: &[V]) -> io::Result<()> {
        let keys: Vec<u32> = (first..).take(values.len()).collect();
        self.set_many(&keys, values)
    }
}
