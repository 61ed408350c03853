//! What the kernel has of what the program needs, tried one by one; nothing is
//! attached and nothing stays.

use super::{
    clock::Clock,
    error::Error,
    machine,
    object::{Object, Sizes},
    sys::{self, GracePeriod, Table, TrieKey},
};
use aya::{
    maps::MapType,
    programs::{ProgramError, ProgramType, loaded_programs},
    sys::{BpfHelper, SyscallError, is_helper_supported, is_map_supported, is_program_supported},
};
use limiter_common::layout::{EntryKey, Network};
use std::io;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel has it.
    There,
    /// The kernel has it not.
    Missing,
    /// It may not be asked, or the answer was none.
    Unseen(String),
}

/// Something that the program needs of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What, as the kernel calls it.
    pub name: &'static str,
    /// The first Linux that has it.
    pub since: &'static str,
    /// Whether this one has.
    pub answer: Answer,
}

/// What the load of the program showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Instructions that the verifier followed, where it tells.
    pub instructions: Option<u32>,
    /// A step of the packet path's clock.
    pub step_ns: u64,
}

type Probe = fn() -> io::Result<bool>;

/// In the order in which kernels learnt them.
const FEATURES: &[(&str, &str, Probe)] = &[
    ("helper bpf_ktime_get_ns", "4.1", || {
        helper(BpfHelper::BPF_FUNC_ktime_get_ns)
    }),
    ("helper bpf_get_smp_processor_id", "4.1", || {
        helper(BpfHelper::BPF_FUNC_get_smp_processor_id)
    }),
    ("per-CPU arrays", "4.6", || map(MapType::PerCpuArray)),
    ("XDP programs", "4.8", || {
        answer(is_program_supported(ProgramType::Xdp))
    }),
    ("per-CPU LRU hash tables", "4.10", || {
        map(MapType::LruPerCpuHash)
    }),
    ("longest-prefix tries", "4.11", || map(MapType::LpmTrie)),
    ("maps of maps", "4.12", || map(MapType::ArrayOfMaps)),
    (
        "arrays in user memory (BPF_F_MMAPABLE)",
        "5.5",
        mapped_array,
    ),
    ("helper bpf_jiffies64", "5.6", || {
        helper(BpfHelper::BPF_FUNC_jiffies64)
    }),
    ("ring buffers", "5.8", || map(MapType::RingBuf)),
    ("atomic compare-and-swap", "5.12", compare_and_swap),
    ("helper bpf_xdp_load_bytes", "5.18", || {
        helper(BpfHelper::BPF_FUNC_xdp_load_bytes)
    }),
    ("frames of several buffers", "5.18", several_buffers),
    ("helper bpf_map_lookup_percpu_elem", "5.19", || {
        helper(BpfHelper::BPF_FUNC_map_lookup_percpu_elem)
    }),
];

/// Tries each of them.
#[must_use]
pub fn features() -> Vec<Feature> {
    let tried = FEATURES.iter().map(|(name, since, probe)| Feature {
        name,
        since,
        answer: match probe() {
            Ok(true) => Answer::There,
            Ok(false) => Answer::Missing,
            Err(error) => Answer::Unseen(error.to_string()),
        },
    });
    tried.collect()
}

/// Whether a kernel of this release has all that is told by its version.
///
/// # Errors
///
/// [`Error::OldKernel`].
pub fn check_release(release: &str) -> Result<(), Error> {
    machine::check_kernel(release)
}

/// Takes the program through the verifier, runs its clock, and writes and reads
/// tables of the smallest size: all that `run` does but attaching.
///
/// # Errors
///
/// [`Error::OldKernel`], [`Error::Permission`], [`Error::Load`].
pub fn load() -> Result<Proof, Error> {
    machine::check_kernel(&machine::kernel_release()?)?;
    let object = Object::load(&Sizes::SMALLEST, &["clock", "limiter"], None)?;
    let clock = Clock::calibrate(&object)?;
    let failed = Error::system("writing and reading tables");
    tables(&object)?.map_err(failed)?;
    Ok(Proof {
        instructions: object.verified_instructions()?,
        step_ns: clock.step_ns,
    })
}

fn tables(object: &Object) -> Result<io::Result<()>, Error> {
    let networks: Table<TrieKey, Network> = object.table("NETWORKS")?;
    let entries: Table<EntryKey, [u64; 8]> = object.table("ENTRIES")?;
    let cpus = machine::possible_cpus()?;
    let key = TrieKey {
        bits: 0,
        data: [0; 24],
    };
    let tried = || {
        networks.set_many(&[key], &[Network::default()])?;
        networks.remove_many(&[key])?;
        entries.for_each(cpus, 1, |_, _| {})?;
        GracePeriod::new()?.wait()
    };
    Ok(tried())
}

/// The name of a program by its id, for who may ask (CAP_SYS_ADMIN).
#[must_use]
pub fn program_name(id: u32) -> Option<String> {
    let found = loaded_programs()
        .map_while(Result::ok)
        .find(|program| program.id() == id)?;
    found
        .name_as_str()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

fn helper(helper: BpfHelper) -> io::Result<bool> {
    answer(is_helper_supported(ProgramType::Xdp, helper))
}

fn map(kind: MapType) -> io::Result<bool> {
    is_map_supported(kind).map_err(|SyscallError { io_error, .. }| io_error)
}

fn answer(answer: Result<bool, ProgramError>) -> io::Result<bool> {
    answer.map_err(|error| match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error,
        other => io::Error::other(other.to_string()),
    })
}

/// The first fields of the call that makes a map.
#[repr(C)]
struct MapAttr {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

fn mapped_array() -> io::Result<bool> {
    const ARRAY: u32 = 2;
    const MMAPABLE: u32 = 1 << 10;
    supported(sys::make_map(&mut MapAttr {
        kind: ARRAY,
        key_bytes: 4,
        value_bytes: 8,
        entries: 1,
        flags: MMAPABLE,
    }))
}

/// The first fields of the call that loads a program.
#[repr(C)]
struct ProgramAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

/// An instruction: code, registers (source, then destination, in four bits
/// each), offset, value.
const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> u64 {
    let offset = (offset as u16 as u64) << 16;
    let value = (value as u32 as u64) << 32;
    value | offset | (registers as u64) << 8 | code as u64
}

const PASS: [u64; 2] = [instruction(0xb7, 0, 0, 2), instruction(0x95, 0, 0, 0)];

fn several_buffers() -> io::Result<bool> {
    const HAS_FRAGS: u32 = 1 << 5;
    load_instructions(&PASS, HAS_FRAGS)
}

fn compare_and_swap() -> io::Result<bool> {
    let program = [
        instruction(0xb7, 0x00, 0, 0),
        instruction(0x7b, 0x0a, -8, 0),
        instruction(0xb7, 0x01, 0, 1),
        instruction(0xdb, 0x1a, -8, 0xf1),
        PASS[0],
        PASS[1],
    ];
    load_instructions(&program, 0)
}

fn load_instructions(instructions: &[u64], flags: u32) -> io::Result<bool> {
    const XDP: u32 = 6;
    let license = c"Dual MIT/GPL";
    supported(sys::load_program(&mut ProgramAttr {
        kind: XDP,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel: 0,
        flags,
    }))
}

/// A kernel finds invalid what it does not know.
fn supported(made: io::Result<std::os::fd::OwnedFd>) -> io::Result<bool> {
    match made {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}
