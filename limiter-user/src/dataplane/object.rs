//! The embedded eBPF object, loaded.

use super::{clock::Reading, error::Error, sys::Table};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};
use std::{
    os::fd::{AsFd as _, OwnedFd},
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

impl Object {
    /// Loads the object, and of its programs those named: the verifier takes
    /// its time for `limiter`.
    pub(super) fn load(sizes: &Sizes, programs: &[&str]) -> Result<Self, Error> {
        let tallies = sizes.interfaces * super::TALLIES;
        let (test_clock, trace) = (u32::from(sizes.test_clock), u32::from(sizes.trace));
        let mut ebpf = EbpfLoader::new()
            .override_global("STEP_UNITS", &sizes.step_units, true)
            .override_global("SEED", &sizes.seed, true)
            .override_global("KERNEL_PLACES", &sizes.kernel_places, true)
            .override_global("RECENT_LINES", &sizes.recent_lines, true)
            .override_global("KNOWN_WORDS_SHIFT", &sizes.known_words.ilog2(), true)
            .override_global("TEST_CLOCK", &test_clock, true)
            .override_global("TRACE", &trace, true)
            .map_max_entries("ENTRIES", sizes.entries)
            .map_max_entries("NETWORKS", sizes.networks)
            .map_max_entries("KNOWN", sizes.known_words)
            .map_max_entries("RECENT", sizes.recent_lines)
            .map_max_entries("BLOCKS", sizes.blocks)
            .map_max_entries("KERNEL_BLOCKS", sizes.kernel_places)
            .map_max_entries("TALLY", tallies)
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        for name in programs {
            program(&mut ebpf, name)?
                .load()
                .map_err(|error| load_error(&error))?;
        }
        let clock = Table::new(descriptor(&mut ebpf, "CLOCK")?);
        Ok(Self { ebpf, clock })
    }

    /// The map of this name.
    pub(super) fn table<K: super::sys::Plain, V: super::sys::Plain>(
        &mut self,
        name: &str,
    ) -> Result<Table<K, V>, Error> {
        descriptor(&mut self.ebpf, name).map(Table::new)
    }

    /// The ring buffer of this name.
    pub(super) fn ring(&mut self, name: &str) -> Result<RingBuf<MapData>, Error> {
        let map = self.ebpf.take_map(name).ok_or_else(|| missing(name))?;
        RingBuf::try_from(map).map_err(|error| load_error(&error))
    }

    /// The XDP program.
    pub(super) fn limiter(&mut self) -> Result<&mut Xdp, Error> {
        program(&mut self.ebpf, "limiter")
    }

    pub(super) fn verified_instructions(&mut self) -> Result<Option<u32>, Error> {
        let info = self.limiter()?.info().map_err(|error| load_error(&error))?;
        Ok(info.verified_instruction_count())
    }

    pub(super) fn program_id(&mut self) -> Result<u32, Error> {
        let info = self.limiter()?.info().map_err(|error| load_error(&error))?;
        Ok(info.id())
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
        let program: &Xdp = self
            .ebpf
            .program(name)
            .ok_or_else(|| missing(name))?
            .try_into()
            .map_err(|error: ProgramError| load_error(&error))?;
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

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    ebpf.program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(|error: ProgramError| load_error(&error))
}

fn descriptor(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd, Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuLruHashMap(data) => data,
        _ => return Err(missing(name)),
    };
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
