//! Section `memory`: what the table of sources takes, beside a plain one.

use crate::{
    limiter::Limiter,
    policies::Shape,
    report::{Column, Row, Table},
    rounds::Figure,
};
use anyhow::{Context as _, Result, ensure};
use aya::{Ebpf, EbpfLoader};
use limiter_common::{entry::Entry, layout::EntryKey};
use limiter_tests::programs::OBJECT;
use limiter_user::dataplane;
use std::fs;

/// Sizes that are loaded.
const SIZES: [u32; 3] = [65_536, 262_144, 1_000_000];
/// The size that is computed for other machines, and their CPUs.
const MANY: u32 = 1_000_000;
const CPUS: [u64; 3] = [2, 8, 64];
/// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
const LRU_PERCPU: u32 = 10;
/// The key of the plain table: the address alone.
const PLAIN_KEY: u64 = 4;
const PLAIN_VALUE: u64 = 64;

/// Measures; once, because nothing varies.
pub(crate) fn run() -> Result<Table> {
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let cpus = cpus as u64;
    let (key, value) = (size_of::<EntryKey>() as u64, size_of::<Entry>() as u64);
    let mut rows = Vec::new();
    // All stay loaded until the end: what is freed comes back late.
    let mut limiters = Vec::new();
    let mut plains = Vec::new();
    let mut before = None;
    for size in SIZES {
        let held = Held::now()?;
        limiters.push(load(size)?);
        let taken = Held::now()?.since(held);
        // What the other tables take is the same for all sizes.
        let first = *before.get_or_insert((size, taken));
        let row = Measured { size, taken, first };
        rows.push(row.row("limiter", cpus, [key, value])?);
    }
    before = None;
    for size in SIZES {
        let held = Held::now()?;
        plains.push(plain(size)?);
        let taken = Held::now()?.since(held);
        let first = *before.get_or_insert((size, taken));
        let row = Measured { size, taken, first };
        rows.push(row.row("plain", cpus, [PLAIN_KEY, PLAIN_VALUE])?);
    }
    for cpus in CPUS {
        let policy = Shape {
            sources: MANY,
            ..Shape::STRICT
        };
        let all = dataplane::memory(&policy.policy()?, cpus);
        let name = format!("limiter, {MANY} sources, {cpus} CPUs, computed");
        rows.push(row(
            name,
            MANY,
            cpus,
            computed(MANY, cpus, key, value),
            None,
            Some(all),
        ));
        let name = format!("plain, {MANY} sources, {cpus} CPUs, computed");
        let bytes = computed(MANY, cpus, PLAIN_KEY, PLAIN_VALUE);
        rows.push(row(name, MANY, cpus, bytes, None, None));
    }
    Ok(Table {
        section: "memory",
        title: format!("tables of sources; {cpus} possible CPUs here"),
        columns: COLUMNS
            .map(|(name, decimals)| Column::new(name, decimals))
            .to_vec(),
        rows,
        notes: notes(key, value),
    })
}

const COLUMNS: [(&str, usize); 5] = [
    ("MiB", 1),
    ("bytes an entry", 1),
    ("an entry and CPU", 1),
    ("of memory, a further entry", 1),
    ("all tables, MiB", 1),
];

fn notes(key: u64, value: u64) -> Vec<String> {
    vec![
        "a table by what the kernel says of the map (`memlock`); of memory: by how much \
         `Percpu` and `VmallocUsed` of /proc/meminfo rose from the smallest size on, which has what \
         the kernel's allocators keep beside (of per-CPU memory, where control groups are charged for \
         it, 8 bytes for each 4 of a value, whatever the number of CPUs)"
            .to_owned(),
        format!(
            "bytes = entries × (48 for the kernel's element + 8 for a pointer + the key in whole words + \
             CPUs × value) + buckets (entries, rounded up to a power of two) × 16; limiter: key {key}, \
             value {value}; plain: key {PLAIN_KEY}, value {PLAIN_VALUE}"
        ),
        "checked here to a hundredth against the kernel's figure; all tables: with those of blocks, \
         counters, seen sources and the policy"
            .to_owned(),
    ]
}

/// What the kernel's map of a per-CPU LRU takes.
fn computed(entries: u32, cpus: u64, key: u64, value: u64) -> u64 {
    let element = 48 + 8 + key.next_multiple_of(8) + cpus * value.next_multiple_of(8);
    u64::from(entries) * element + u64::from(entries).next_power_of_two() * 16
}

/// A table that was loaded.
struct Measured {
    size: u32,
    taken: u64,
    /// The smallest of its kind: size, and what it took.
    first: (u32, u64),
}

impl Measured {
    fn row(&self, kind: &str, cpus: u64, [key, value]: [u64; 2]) -> Result<Row> {
        let (size, (smallest, least)) = (self.size, self.first);
        let bytes = memlock(size, value)?;
        let computed = computed(size, cpus, key, value);
        ensure!(
            bytes.abs_diff(computed) * 100 < bytes,
            "the kernel says {bytes} bytes of {size} sources, and {computed} were computed"
        );
        let further = (size > smallest)
            .then(|| self.taken.saturating_sub(least) as f64 / f64::from(size - smallest));
        Ok(row(
            format!("{kind}, {size} sources"),
            size,
            cpus,
            bytes,
            further,
            None,
        ))
    }
}

fn row(
    name: String,
    entries: u32,
    cpus: u64,
    bytes: u64,
    further: Option<f64>,
    all: Option<u64>,
) -> Row {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let each = bytes as f64 / f64::from(entries);
    let figures = [
        Some(mib(bytes)),
        Some(each),
        Some(each / cpus as f64),
        further,
        all.map(mib),
    ];
    Row {
        name,
        figures: figures
            .map(|it| it.and_then(|it| Figure::of(vec![it])))
            .to_vec(),
        fault: None,
    }
}

fn load(sources: u32) -> Result<Limiter> {
    Limiter::of(&Shape {
        sources,
        ..Shape::STRICT
    })
}

/// The rig's own table with values of 64 bytes and nothing else.
fn plain(entries: u32) -> Result<Ebpf> {
    EbpfLoader::new()
        .map_max_entries("PLAIN", entries)
        .load(OBJECT)
        .context("making a plain table")
}

/// What the kernel says of the newest of this process's per-CPU LRU maps with
/// so many entries of such values.
fn memlock(entries: u32, value: u64) -> Result<u64> {
    let directory = "/proc/self/fdinfo";
    let files = fs::read_dir(directory).with_context(|| format!("listing {directory}"))?;
    let mut found = Vec::new();
    for file in files.flatten() {
        // The one of the listing itself is gone.
        let Ok(text) = fs::read_to_string(file.path()) else {
            continue;
        };
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line?.trim().parse().ok()
        };
        let wanted = [
            ("map_type:", u64::from(LRU_PERCPU)),
            ("value_size:", value),
            ("max_entries:", entries.into()),
        ];
        if wanted
            .iter()
            .all(|(name, wanted)| field(name) == Some(*wanted))
        {
            found.push((field("map_id:"), field("memlock:").context("no memlock")?));
        }
    }
    let newest = found.into_iter().max();
    newest
        .map(|(_, bytes)| bytes)
        .with_context(|| format!("no map of {entries} entries"))
}

/// What the kernel has allocated for such tables, among others.
#[derive(Clone, Copy)]
struct Held(u64);

impl Held {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let kib = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        let sum = kib("Percpu:").zip(kib("VmallocUsed:"));
        let (percpu, vmalloc) = sum.context("/proc/meminfo lacks Percpu or VmallocUsed")?;
        Ok(Self((percpu + vmalloc) * 1024))
    }

    const fn since(self, before: Self) -> u64 {
        self.0.saturating_sub(before.0)
    }
}
