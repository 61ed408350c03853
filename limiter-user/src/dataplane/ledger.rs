//! What the maps mean: the names of their slots and rows, and what was counted
//! under names that are gone. Kept in maps of its own, which the program never
//! sees, so that the next daemon reads the others as this one does.
//!
//! There are two rows, as of a policy's tables: one goes with the policy in
//! force, and the write that puts another policy in force puts the other row in
//! force too. Each is written by one system call: what is killed in between has
//! written all of it or nothing.

use super::{
    error::Error, lengths::SourcePrefixes, model::Attachment, object::Shape, pins::Set, sys::Blobs,
};
use crate::image::Slots;
use limiter_common::layout::row;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, io};

/// Bytes of [`Meta`] at most, as JSON.
const META_BYTES: usize = 8 << 10;
/// Bytes of [`Row`] at most, as JSON.
const ROW_BYTES: usize = 1 << 20;

/// The names of the maps' pins.
const META: &str = "META";
const LEDGER: &str = "LEDGER";

/// What holds for a set of maps as long as there is one. Any version of limiter
/// can read it: fields are only added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The version of limiter that made the maps.
    pub(super) version: String,
    /// What they look like.
    pub(super) shape: Shape,
    /// What hashes in them are keyed with.
    pub(super) seed: u64,
    /// Nanoseconds in a step of their clock.
    pub(super) step_ns: u64,
    /// A random number that goes with the blocks and counters in them.
    pub(super) lineage: u64,
    /// Whether they have been filled: what is killed before leaves a set that
    /// never was in force.
    pub(super) is_complete: bool,
}

/// What goes with one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The limit of each slot in use.
    pub(super) slots: BTreeMap<usize, String>,
    /// The source prefixes of the kernel's own blocks.
    pub(super) prefixes: SourcePrefixes,
    /// The interface of each row of counters, from row 1 on.
    pub(super) interfaces: Vec<Option<Attachment>>,
    /// What counters showed when their slot's name left: place, packets, bytes.
    pub(super) baseline: Vec<(u32, u64, u64)>,
    /// What was counted under names that are gone: interface row, name, outcome,
    /// packets, bytes.
    pub(super) retired: Vec<(u32, String, u32, u64, u64)>,
}

impl Row {
    /// The names of slots.
    pub(super) fn slots(&self) -> Slots {
        let names = self.slots.iter();
        Slots::of_names(names.map(|(slot, name)| (*slot, name.as_str())))
    }
}

/// The ledger of a set.
#[derive(Debug)]
pub(super) struct Ledger {
    meta: Blobs,
    rows: Blobs,
}

impl Ledger {
    /// An empty one.
    pub(super) fn create() -> Result<Self, Error> {
        let failed = || Error::system("making the ledger's maps");
        Ok(Self {
            meta: Blobs::create(META_BYTES, 1, *b"limiter_meta\0\0\0\0").map_err(failed())?,
            rows: Blobs::create(ROW_BYTES, 2, *b"limiter_ledger\0\0").map_err(failed())?,
        })
    }

    /// That of a set.
    pub(super) fn open(set: &Set) -> Result<Self, Error> {
        Ok(Self {
            meta: Blobs::new(set.get(META)?, META_BYTES),
            rows: Blobs::new(set.get(LEDGER)?, ROW_BYTES),
        })
    }

    /// Gives it names in a set, where it has none.
    pub(super) fn pin(&self, set: &Set) -> Result<(), Error> {
        for (name, map) in [(META, &self.meta), (LEDGER, &self.rows)] {
            if !set.has(name) {
                set.pin(name, map.fd())?;
            }
        }
        Ok(())
    }

    /// Whether a set has one.
    pub(super) fn is_in(set: &Set) -> bool {
        set.has(META) && set.has(LEDGER)
    }

    /// What was said of the set; `None`: nothing yet, or nothing that this
    /// version understands.
    pub(super) fn meta(&self) -> Result<Option<Meta>, Error> {
        let value = self.meta.get(0);
        Ok(parse(&value.map_err(Error::system("reading the ledger"))?))
    }

    pub(super) fn set_meta(&self, meta: &Meta) -> Result<(), Error> {
        let written = text(meta).and_then(|text| self.meta.set(0, text));
        written.map_err(Error::system("writing the ledger"))
    }

    /// The row that goes with `generation`.
    pub(super) fn row(&self, generation: u32) -> Result<Option<Row>, Error> {
        let value = self.rows.get(row(generation));
        Ok(parse(&value.map_err(Error::system("reading the ledger"))?))
    }

    /// Writes it. Where it does not fit, which takes thousands of limits that are
    /// gone, the counters are left out: after the next start, and not before, what
    /// their slots counted shows under the limits that have them then.
    pub(super) fn set_row(&self, generation: u32, contents: &Row) -> Result<(), Error> {
        let write = |contents: &Row| {
            let value = text(contents)?;
            self.rows.set(row(generation), value)
        };
        let written = match write(contents) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                tracing::warn!(
                    "too many limits have come and gone: a restart loses their counters"
                );
                write(&Row {
                    baseline: Vec::new(),
                    retired: Vec::new(),
                    ..contents.clone()
                })
            }
            written => written,
        };
        written.map_err(Error::system("writing the ledger"))
    }
}

fn text<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

/// A value, without the zeros behind it.
fn parse<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    let end = value.iter().position(|byte| *byte == 0)?;
    serde_json::from_slice(&value[..end]).ok()
}
