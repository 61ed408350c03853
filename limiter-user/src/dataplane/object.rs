//! The embedded eBPF object, loaded.

use super::{
    clock::Reading,
    error::Error,
    pins::Set,
    sys::{self, Table},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};
use limiter_common::layout::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

/// The object, built from `limiter-ebpf` by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/limiter"));

/// What is set when the object is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) step_units: u64,
    pub(super) seed: u64,
    pub(super) entries: u32,
    pub(super) networks: u32,
    pub(super) recent_lines: u32,
    /// Words of stamps of known sources, a power of two.
    pub(super) known_words: u32,
    pub(super) blocks: u32,
    pub(super) kernel_places: u32,
    pub(super) interfaces: u32,
    pub(super) test_clock: bool,
    pub(super) trace: bool,
}

/// The maps whose contents outlive the process that loaded the program. All
/// others begin anew with each load.
pub(super) const KEPT: [&str; 21] = [
    "ACTIVE",
    "AGGREGATE",
    "BLOCKS",
    "CANDIDATE",
    "CLASS",
    "CONTROL",
    "ENTRIES",
    "FILTER",
    "FORMER",
    "GATES",
    "INTERFACES",
    "KERNEL_BLOCKS",
    "KNOWN",
    "LENGTHS",
    "LIMIT",
    "NETWORKS",
    "POLICIES",
    "RECENT",
    "STANDING",
    "TALLY",
    "TOTALS",
];

/// What the maps of a load look like; where two differ, one program cannot use
/// the other's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    /// [`LAYOUT_VERSION`]: what the bytes mean.
    pub(super) layout: u32,
    /// Of each kept map its type, size of keys, size of values, capacity, flags.
    pub(super) maps: BTreeMap<String, [u32; 5]>,
}

/// The loaded object.
#[derive(Debug)]
pub(super) struct Object {
    ebpf: Ebpf,
    clock: Table<u32, u64>,
}

/// What a packet run through the program met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// `XDP_PASS` (2) or `XDP_DROP` (1).
    pub action: u32,
    /// Mean time per packet.
    pub duration: Duration,
}

impl Sizes {
    /// For a load that is asked for the time or for the shape of maps, or only tried.
    pub(super) const SMALLEST: Self = Self {
        step_units: 1,
        seed: 0,
        entries: 1_024,
        networks: 1,
        recent_lines: 1,
        known_words: 1,
        blocks: 1,
        kernel_places: 1,
        interfaces: 1,
        test_clock: false,
        trace: false,
    };

    /// The maps of which the capacity is chosen when they are made.
    fn capacities(&self) -> [(&'static str, u32); 7] {
        [
            ("ENTRIES", self.entries),
            ("NETWORKS", self.networks),
            ("KNOWN", self.known_words),
            ("RECENT", self.recent_lines),
            ("BLOCKS", self.blocks),
            ("KERNEL_BLOCKS", self.kernel_places),
            ("TALLY", self.interfaces * super::TALLIES),
        ]
    }
}

impl Object {
    /// Loads the object, and of its programs those named: the verifier takes
    /// its time for `limiter`. The maps of [`KEPT`] are those of `set`, or will
    /// be: those that it lacks are made there.
    pub(super) fn load(sizes: &Sizes, programs: &[&str], set: Option<&Set>) -> Result<Self, Error> {
        let (test_clock, trace) = (u32::from(sizes.test_clock), u32::from(sizes.trace));
        let mut loader = EbpfLoader::new();
        for (name, capacity) in sizes.capacities() {
            loader.map_max_entries(name, capacity);
        }
        if let Some(set) = set {
            for name in KEPT {
                loader.map_pin_path(name, set.path(name));
            }
        }
        let mut ebpf = loader
            .override_global("STEP_UNITS", &sizes.step_units, true)
            .override_global("SEED", &sizes.seed, true)
            .override_global("KERNEL_PLACES", &sizes.kernel_places, true)
            .override_global("RECENT_LINES", &sizes.recent_lines, true)
            .override_global("KNOWN_WORDS_SHIFT", &sizes.known_words.ilog2(), true)
            .override_global("TEST_CLOCK", &test_clock, true)
            .override_global("TRACE", &trace, true)
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        for name in programs {
            let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
            let program: &mut Xdp = program
                .try_into()
                .map_err(|error: ProgramError| load_error(&error))?;
            program.load().map_err(|error| load_error(&error))?;
        }
        let clock = Table::new(descriptor(&ebpf, "CLOCK")?);
        Ok(Self { ebpf, clock })
    }

    /// What kept maps of these sizes look like.
    pub(super) fn shape(&self, sizes: &Sizes) -> Result<Shape, Error> {
        let mut maps = BTreeMap::new();
        for name in KEPT {
            let shape = sys::map_shape(self.kept(name)?);
            let shape = shape.map_err(Error::system("asking the kernel about a map"))?;
            maps.insert(name.to_owned(), shape);
        }
        for (name, capacity) in sizes.capacities() {
            if let Some(shape) = maps.get_mut(name) {
                shape[3] = capacity;
            }
        }
        Ok(Shape {
            layout: LAYOUT_VERSION,
            maps,
        })
    }

    /// A map of [`KEPT`].
    pub(super) fn kept(&self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        let map = self.ebpf.map(name).ok_or_else(|| missing(name))?;
        Ok(data(map).ok_or_else(|| missing(name))?.fd().as_fd())
    }

    /// A descriptor of a map.
    pub(super) fn descriptor(&self, name: &str) -> Result<OwnedFd, Error> {
        descriptor(&self.ebpf, name)
    }

    /// The map of this name.
    pub(super) fn table<K: sys::Plain, V: sys::Plain>(
        &self,
        name: &str,
    ) -> Result<Table<K, V>, Error> {
        descriptor(&self.ebpf, name).map(Table::new)
    }

    /// The ring buffer of this name.
    pub(super) fn ring(&mut self, name: &str) -> Result<RingBuf<MapData>, Error> {
        let map = self.ebpf.take_map(name).ok_or_else(|| missing(name))?;
        RingBuf::try_from(map).map_err(|error| load_error(&error))
    }

    /// The XDP program's descriptor.
    pub(super) fn limiter(&self) -> Result<BorrowedFd<'_>, Error> {
        let program = self.program("limiter")?;
        let fd = program.fd().map_err(|error| load_error(&error))?;
        Ok(fd.as_fd())
    }

    pub(super) fn verified_instructions(&self) -> Result<Option<u32>, Error> {
        let info = self.program("limiter")?.info();
        let info = info.map_err(|error| load_error(&error))?;
        Ok(info.verified_instruction_count())
    }

    pub(super) fn program_id(&self) -> Result<u32, Error> {
        let info = self.program("limiter")?.info();
        Ok(info.map_err(|error| load_error(&error))?.id())
    }

    fn program(&self, name: &str) -> Result<&Xdp, Error> {
        self.ebpf
            .program(name)
            .ok_or_else(|| missing(name))?
            .try_into()
            .map_err(|error: ProgramError| load_error(&error))
    }

    /// Everything, for aya-log.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// What the kernel's clocks show.
    pub(super) fn read_clock(&self) -> Result<Reading, Error> {
        self.run("clock", &[0; 14], 1)?;
        let read = |index| {
            self.clock
                .get(&index)
                .map_err(Error::system("reading the kernel's clock"))
                .map(Option::unwrap_or_default)
        };
        Ok(Reading {
            step: read(1)?,
            ns: read(2)?,
        })
    }

    /// Sets the clock of a program loaded with the test clock.
    pub(super) fn set_test_step(&self, step: u64) -> Result<(), Error> {
        self.clock
            .set(&0, &step)
            .map_err(Error::system("setting the test clock"))
    }

    /// Runs a program on a frame.
    pub(super) fn run(&self, name: &str, frame: &[u8], repeat: u32) -> Result<TestRun, Error> {
        let program = self.program(name)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        let result = program
            .test_run(options)
            .map_err(|error| load_error(&error))?;
        Ok(TestRun {
            action: result.return_value,
            duration: result.duration,
        })
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuLruHashMap(data) => Some(data),
        _ => None,
    }
}

fn descriptor(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, Error> {
    let data = ebpf.map(name).and_then(data).ok_or_else(|| missing(name))?;
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(Error::system("keeping a map open"))
}

fn missing(name: &str) -> Error {
    Error::Load {
        reason: format!("the embedded object has no `{name}`; this build is broken"),
    }
}

/// What the verifier says at the end, of all that it says.
const VERIFIER_LINES: usize = 4;

fn load_error(error: &(dyn std::error::Error + 'static)) -> Error {
    // The verifier refuses with the same number as a lack of permission.
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref() {
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        if !lines.is_empty() {
            let last = lines.len().saturating_sub(VERIFIER_LINES);
            let said = lines[last..].join("; ");
            let reason = format!("this kernel's verifier refuses the program: {said}");
            return Error::Load { reason };
        }
    }
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if is_denied(cause) {
            return Error::Permission {
                what: "loading the XDP program".to_owned(),
            };
        }
        let text = cause.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        source = cause.source();
    }
    if is_denied(error) {
        return Error::Permission {
            what: "loading the XDP program".to_owned(),
        };
    }
    Error::Load { reason }
}

fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}
