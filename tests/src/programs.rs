//! The XDP programs of the rig, in one object, and how one is got out of it.

use anyhow::{Context as _, Result};
use aya::{Ebpf, programs::Xdp};

/// The object, built from `tests/ebpf` by the build script.
pub static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/limiter-tests-rig"));

/// The XDP program of this name in a loaded object.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}
