//! Builds an eBPF crate and leaves its object in `OUT_DIR`, to be embedded
//! with `aya::include_bytes_aligned!`: what a build script of this workspace
//! is made of. limiter-user's builds the XDP program, limiter-tests' the
//! programs of the test rig.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[path = "toolchain.rs"]
mod toolchain;

use toolchain::{
    BOTH_WAYS, Choice, LINKER_VARIABLE, SYSROOT_VARIABLE, Setup, on_path, search, set_variable,
};

/// Set where this program runs as the inner cargo's wrapper around rustc.
const WRAPPER_VARIABLE: &str = "LIMITER_BUILD_WRAPS_RUSTC";

/// What is built.
pub(crate) struct Object<'a> {
    /// The eBPF crate's directory, from the workspace's root.
    pub(crate) directory: &'a str,
    /// The name of its binary, and of the object in `OUT_DIR`.
    pub(crate) binary: &'a str,
    /// What else than the crate goes into it, from the workspace's root.
    pub(crate) inputs: &'a [&'a str],
}

/// The build script.
pub(crate) fn main(object: &Object<'_>) -> ExitCode {
    if env::var_os(WRAPPER_VARIABLE).is_some() {
        return wrap_rustc();
    }
    match build(object) {
        Ok(warnings) => warnings
            .lines()
            .for_each(|line| println!("cargo::warning={line}")),
        // Cargo fails the build for these, and shows them without the rest of
        // what build scripts print.
        Err(message) => message
            .lines()
            .for_each(|line| println!("cargo::error={line}")),
    }
    ExitCode::SUCCESS
}

/// Returns what the compiler had to say.
fn build(object: &Object<'_>) -> Result<String, String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err(format!(
            "{arch}: limiter runs on little-endian machines only"
        ));
    }
    let root = manifest
        .parent()
        .ok_or_else(|| format!("{} has no parent directory", manifest.display()))?;
    let target_directory = target_directory(&out, &variable("TARGET")?)?;
    watch(root, object, &target_directory);

    let setup = find_setup(&target_directory)?;
    // Outside of OUT_DIR, so that the outer profiles share one build of it;
    // not the outer target directory itself, whose lock the outer cargo holds.
    let inner_target = target_directory.join("bpf").join(&arch);
    let mut cargo = setup.cargo("build", &arch, root);
    cargo.current_dir(root.join(object.directory));
    cargo.arg("--target-dir").arg(&inner_target);
    let this = env::current_exe().map_err(|error| format!("finding the build script: {error}"))?;
    cargo.env("RUSTC_WRAPPER", this).env(WRAPPER_VARIABLE, "1");

    let output = cargo
        .output()
        .map_err(|error| format!("running {}: {error}", cargo.get_program().display()))?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let (toolchain, linker) = (&setup.toolchain, setup.linker.display());
        return Err(format!(
            "building {} failed ({})\n{log}compiler: {toolchain}\nlinker: {linker}",
            object.directory, output.status
        ));
    }
    let built = inner_target
        .join("bpfel-unknown-none/release")
        .join(object.binary);
    let copy = out.join(object.binary);
    fs::copy(&built, &copy)
        .map_err(|error| format!("copying {} to {}: {error}", built.display(), copy.display()))?;
    Ok(log)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; this program is run by cargo"))
}

/// The outer cargo's target directory, which build scripts are not told:
/// `OUT_DIR` is `<it>/[TRIPLE/]PROFILE/build/…/out`.
fn target_directory(out: &Path, triple: &str) -> Result<PathBuf, String> {
    let named = |directory: &&Path, name: &str| directory.file_name().is_some_and(|it| it == name);
    out.ancestors()
        .find(|directory| named(directory, "build"))
        .and_then(|build| build.parent()?.parent())
        .and_then(|parent| match named(&parent, triple) {
            true => parent.parent(),
            false => Some(parent),
        })
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not as cargo lays it out", out.display()))
}

/// `None` where set-up has not run. Only the two paths are recorded: what
/// the compiler can do is asked anew, since it may have been upgraded.
fn recorded(target_directory: &Path) -> Option<(PathBuf, PathBuf)> {
    let text = fs::read_to_string(Setup::path(target_directory)).ok()?;
    let mut lines = text.lines();
    Some((lines.next()?.into(), lines.next()?.into()))
}

/// The toolchain for a build: what the environment says, else what set-up
/// recorded, else what the machine offers.
fn find_setup(target_directory: &Path) -> Result<Setup, String> {
    let recorded = recorded(target_directory);
    let Choice { usable, refused } = search();
    let chosen_by_setup = recorded
        .as_ref()
        .and_then(|(sysroot, _)| usable.iter().find(|one| one.sysroot == *sysroot));
    let Some(toolchain) = chosen_by_setup.or(usable.first()).cloned() else {
        let mut message = "found no Rust compiler that can build the XDP program".to_owned();
        for line in refused {
            message.push_str("\n  ");
            message.push_str(&line);
        }
        return Err(format!("{message}\n{BOTH_WAYS}"));
    };
    let recorded_linker = recorded
        .filter(|(sysroot, _)| *sysroot == toolchain.sysroot)
        .map(|(_, linker)| linker);
    let linker = match set_variable(LINKER_VARIABLE).map(PathBuf::from) {
        Some(named) if named.is_file() => named,
        Some(named) => {
            let named = named.display();
            return Err(format!("{LINKER_VARIABLE} names {named}, which is no file"));
        }
        None => recorded_linker
            .filter(|linker| linker.is_file())
            .or_else(|| on_path("bpf-linker"))
            .ok_or_else(|| format!("found {toolchain}, but no bpf-linker for it\n{BOTH_WAYS}"))?,
    };
    Ok(Setup { toolchain, linker })
}

/// Has cargo run this script again when one of its inputs changes. What does
/// not exist is left out, since for cargo it would have changed each time.
fn watch(root: &Path, object: &Object<'_>, target_directory: &Path) {
    let own =
        ["Cargo.toml", "Cargo.lock", "src"].map(|input| root.join(object.directory).join(input));
    let others: Vec<PathBuf> = object.inputs.iter().map(|it| root.join(it)).collect();
    for input in own
        .iter()
        .chain(&others)
        .chain([&Setup::path(target_directory)])
    {
        if input.exists() {
            println!("cargo::rerun-if-changed={}", input.display());
        }
    }
    for name in [LINKER_VARIABLE, SYSROOT_VARIABLE] {
        println!("cargo::rerun-if-env-changed={name}");
    }
}

/// Runs rustc with crate identities that do not depend on where the checkout
/// lies. Cargo hashes the absolute path of limiter-common, which is outside
/// of the inner workspace, into `-C metadata`, and from there it would get
/// into every symbol of the object.
fn wrap_rustc() -> ExitCode {
    let name = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let ours = name.starts_with("limiter-");
    let mut arguments = env::args_os().skip(1);
    let Some(rustc) = arguments.next() else {
        eprintln!("{WRAPPER_VARIABLE} is set, but no compiler is named");
        return ExitCode::FAILURE;
    };
    let arguments = arguments.map(|argument| {
        if ours && argument.as_encoded_bytes().starts_with(b"metadata=") {
            format!("metadata={name}").into()
        } else {
            argument
        }
    });
    let error = Command::new(&rustc).args(arguments).exec();
    eprintln!("running {}: {error}", rustc.display());
    ExitCode::FAILURE
}
