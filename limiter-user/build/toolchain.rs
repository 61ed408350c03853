//! Which compiler and which linker build the XDP program, and how.
//!
//! The build script of `limiter-user` and `cargo xtask` share this file: what
//! set-up chose is what the build uses. It depends on `std` alone, because
//! both must compile on a machine that has nothing but stable Rust.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the `bpf-linker` to use, before everything else.
pub(crate) const LINKER_VARIABLE: &str = "LIMITER_BPF_LINKER";
/// Names the directory whose `bin/rustc` builds the XDP program, and stops the
/// search for others.
pub(crate) const SYSROOT_VARIABLE: &str = "LIMITER_BPF_SYSROOT";

const TARGET: &str = "bpfel-unknown-none";

/// The two ways to a toolchain, for whoever has none.
pub(crate) const BOTH_WAYS: &str = "\
`cargo xtask setup` installs what is missing on Debian and Ubuntu. By hand, either
  - rustup: `rustup toolchain install nightly --component rust-src`, or
  - Debian or Ubuntu packages: `apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf`
    (newer releases: `rustc cargo libstd-rust-dev-bpf`);
and for either a bpf-linker of that compiler's LLVM version NN (see `rustc -vV`), from
  `cargo install bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-NN`,
on PATH or named by LIMITER_BPF_LINKER.";

/// A compiler found on this machine, with all that decides whether it can
/// build for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Compiler {
    sysroot: PathBuf,
    /// Major and minor: 1.96 is (1, 96).
    version: (u32, u32),
    llvm: u32,
    nightly: bool,
    /// The sources of `core`, from which a nightly builds it for BPF. A
    /// nightly without this component is common, and of no use here.
    rust_src: bool,
    /// A `core` already built for BPF, as Debian packages it.
    prebuilt_core: bool,
}

/// Where `core` for BPF comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    BuildStd,
    Prebuilt,
}

/// A compiler that can build for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) sysroot: PathBuf,
    pub(crate) llvm: u32,
    pub(crate) core: Core,
}

/// What the search came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Those that can do it, the preferred one first.
    pub(crate) usable: Vec<Toolchain>,
    /// Why each of the others cannot, a line each.
    pub(crate) refused: Vec<String>,
}

impl Compiler {
    /// Asks the compiler under `sysroot` what it is; `None` without one that
    /// answers, or without a cargo beside it.
    fn probe(sysroot: &Path) -> Option<Self> {
        if !sysroot.join("bin/cargo").is_file() {
            return None;
        }
        let mut rustc = Command::new(sysroot.join("bin/rustc"));
        scrub(&mut rustc);
        let output = rustc.arg("-vV").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let release = field("release")?;
        let rustlib = sysroot.join("lib/rustlib");
        Some(Self {
            sysroot: sysroot.to_owned(),
            version: major_minor(release)?,
            llvm: field("LLVM version")?.split('.').next()?.parse().ok()?,
            nightly: release.contains("nightly"),
            rust_src: rustlib.join("src/rust/library").is_dir(),
            prebuilt_core: has_core(&rustlib.join(TARGET).join("lib")),
        })
    }
}

fn has_core(lib: &Path) -> bool {
    fs::read_dir(lib).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(b"libcore-")
        })
    })
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Looks for compilers and chooses among them.
pub(crate) fn search() -> Choice {
    let compilers = find_compilers();
    let mut choice = choose(&compilers, oldest_rust());
    if let (Some(named), []) = (set_variable(SYSROOT_VARIABLE), compilers.as_slice()) {
        let path = Path::new(&named).join("bin/rustc");
        choice.refused.push(format!(
            "{}: no such compiler with a cargo beside it, though {SYSROOT_VARIABLE} names its directory",
            path.display()
        ));
    }
    choice
}

/// The compilers worth a look: the one that the environment names, or else
/// rustup's nightlies and the distribution's.
fn find_compilers() -> Vec<Compiler> {
    let sysroots = match set_variable(SYSROOT_VARIABLE) {
        Some(sysroot) => vec![PathBuf::from(sysroot)],
        None => {
            let mut sysroots = rustup_nightlies();
            sysroots.push(PathBuf::from("/usr"));
            sysroots
        }
    };
    sysroots
        .iter()
        .filter_map(|sysroot| Compiler::probe(sysroot))
        .collect()
}

/// Read from the directory and not from `rustup toolchain list`: it is there
/// even where rustup itself is not on PATH.
fn rustup_nightlies() -> Vec<PathBuf> {
    let Some(home) = set_variable("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set_variable("HOME")?).join(".rustup")))
    else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(home.join("toolchains")) else {
        return Vec::new();
    };
    let mut nightlies: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"nightly"))
        .map(|entry| entry.path())
        .collect();
    // In descending order `nightly-x86_64-…` comes before `nightly-2026-…`,
    // and of the dated ones the newest first.
    nightlies.sort_by(|a, b| b.cmp(a));
    nightlies
}

/// Prefers a nightly with `rust-src`: whoever installed that component did it
/// to build for such a target, and it needs no root. `oldest` is the oldest
/// Rust that this project builds with.
fn choose(compilers: &[Compiler], oldest: (u32, u32)) -> Choice {
    let mut choice = Choice {
        usable: Vec::new(),
        refused: Vec::new(),
    };
    let mut prebuilt = Vec::new();
    for compiler in compilers {
        let toolchain = |core| Toolchain {
            sysroot: compiler.sysroot.clone(),
            llvm: compiler.llvm,
            core,
        };
        let (major, minor) = compiler.version;
        let refused = if compiler.version < oldest {
            format!(
                "Rust {major}.{minor} is older than {}.{}",
                oldest.0, oldest.1
            )
        } else if compiler.nightly && compiler.rust_src {
            choice.usable.push(toolchain(Core::BuildStd));
            continue;
        } else if compiler.prebuilt_core {
            prebuilt.push(toolchain(Core::Prebuilt));
            continue;
        } else if compiler.nightly {
            "a nightly without the component rust-src".to_owned()
        } else {
            format!("Rust {major}.{minor} without a core for {TARGET}")
        };
        choice
            .refused
            .push(format!("{}: {refused}", compiler.sysroot.display()));
    }
    choice.usable.append(&mut prebuilt);
    choice
}

/// The oldest Rust of the workspace, from its `rust-version`.
fn oldest_rust() -> (u32, u32) {
    // Zero would accept any compiler, which then says itself what it lacks.
    major_minor(env!("CARGO_PKG_RUST_VERSION")).unwrap_or((0, 0))
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = match self.core {
            Core::BuildStd => "nightly with rust-src, core built from source",
            Core::Prebuilt => "packaged compiler with a prebuilt core for BPF",
        };
        let sysroot = self.sysroot.display();
        write!(f, "{sysroot} ({core}, LLVM {})", self.llvm)
    }
}

/// What set-up decided, for the builds that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) toolchain: Toolchain,
    pub(crate) linker: PathBuf,
}

impl Setup {
    /// Where set-up leaves its decision under cargo's target directory: the
    /// compiler's directory and the linker, a line each.
    pub(crate) fn path(target_directory: &Path) -> PathBuf {
        target_directory.join("setup/bpf-toolchain")
    }

    /// A cargo that builds or checks the XDP program, for programs that run on
    /// `arch`. The caller adds the target directory.
    ///
    /// `aya-build` would do most of this, but it calls `rustup run NAME`, and
    /// so builds only with a toolchain that rustup knows by name; it takes a
    /// nightly without `rust-src`; and it cannot remap paths.
    pub(crate) fn cargo(&self, subcommand: &str, arch: &str, sources: &Path) -> Command {
        let bin = self.toolchain.sysroot.join("bin");
        let mut cargo = Command::new(bin.join("cargo"));
        let home = scrub(&mut cargo);
        cargo
            .env("RUSTC", bin.join("rustc"))
            // Empty is none, and wins over a configuration file's.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .current_dir(sources.join("limiter-ebpf"))
            .arg(subcommand)
            .args(["--quiet", "--locked", "--release", "--target", TARGET]);
        if subcommand == "clippy" {
            // `cargo clippy` looks for its driver beside the cargo-clippy that
            // it finds on PATH, which may be another toolchain's.
            let mut path = OsString::from(&bin);
            path.push(":");
            path.push(set_variable("PATH").unwrap_or_default());
            cargo.env("PATH", path);
        }
        match self.toolchain.core {
            Core::BuildStd => {
                cargo.args(["-Z", "build-std=core"]);
            }
            // aya-ebpf needs unstable features, which a stable compiler
            // allows only so.
            Core::Prebuilt => {
                cargo.env("RUSTC_BOOTSTRAP", "1");
            }
        }
        let flags = self.flags(arch, sources, home.as_deref());
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
        cargo
    }

    /// The flags, separated as cargo wants them in `CARGO_ENCODED_RUSTFLAGS`.
    fn flags(&self, arch: &str, sources: &Path, home: Option<&Path>) -> OsString {
        let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{arch}\""));
        for flag in [
            "-Cdebuginfo=2",
            "-Clink-arg=--btf",
            // Version 3 has the atomic instructions that the counters need.
            "-Ctarget-cpu=v3",
            "-Cpanic=abort",
        ] {
            flags.push("\x1f");
            flags.push(flag);
        }
        // Without these the line information differs from one checkout to the
        // next, and so does the object.
        let mut remap = |from: &Path, to: &str| {
            flags.push("\x1f--remap-path-prefix=");
            flags.push(from);
            flags.push("=");
            flags.push(to);
        };
        remap(sources, "/limiter");
        remap(
            &self.toolchain.sysroot.join("lib/rustlib/src/rust"),
            "/rust",
        );
        if let Some(home) = home {
            remap(home, "/cargo");
        }
        flags
    }
}

/// Takes out of a command's environment what an outer cargo, rustup or user
/// put there for another compilation, and returns cargo's home, which stays.
pub(crate) fn scrub(command: &mut Command) -> Option<PathBuf> {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_foreign) {
            command.env_remove(name);
        }
    }
    // Without a home cargo refuses to run, so there is no need to ask the
    // password database for it.
    set_variable("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set_variable("HOME")?).join(".cargo")))
}

/// Whether a variable would change how the inner cargo compiles. The network
/// settings stay, and so does the job server: it bounds both cargos together.
fn is_foreign(name: &str) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "RUSTUP_HOME",
    ];
    // What rustup and cargo put into LD_LIBRARY_PATH holds the outer
    // compiler's libraries, which the inner one must not load.
    const FOREIGN: [&str; 4] = ["LD_LIBRARY_PATH", "TARGET", "HOST", "PROFILE"];
    (name.starts_with("CARGO") || name.starts_with("RUST") || FOREIGN.contains(&name))
        && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// A variable's value, if it has one that is not empty.
pub(crate) fn set_variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Finds a program. The administrators' directories count even where they are
/// not on PATH, as for users of Debian.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = set_variable("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(OsStr::new(program)))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDEST: (u32, u32) = (1, 95);

    fn compiler(sysroot: &str) -> Compiler {
        Compiler {
            sysroot: sysroot.into(),
            version: (1, 96),
            llvm: 22,
            nightly: false,
            rust_src: false,
            prebuilt_core: false,
        }
    }

    fn nightly(rust_src: bool) -> Compiler {
        Compiler {
            nightly: true,
            rust_src,
            ..compiler("/nightly")
        }
    }

    fn packaged() -> Compiler {
        Compiler {
            prebuilt_core: true,
            ..compiler("/usr")
        }
    }

    fn usable(compilers: &[Compiler]) -> Vec<(PathBuf, Core)> {
        choose(compilers, OLDEST)
            .usable
            .into_iter()
            .map(|toolchain| (toolchain.sysroot, toolchain.core))
            .collect()
    }

    #[test]
    fn a_nightly_with_rust_src_comes_first() {
        assert_eq!(
            usable(&[packaged(), nightly(true)]),
            [
                ("/nightly".into(), Core::BuildStd),
                ("/usr".into(), Core::Prebuilt)
            ]
        );
    }

    #[test]
    fn a_nightly_without_rust_src_is_refused() {
        let choice = choose(&[nightly(false), packaged()], OLDEST);
        assert_eq!(choice.usable.len(), 1);
        assert_eq!(choice.usable[0].core, Core::Prebuilt);
        assert_eq!(
            choice.refused,
            ["/nightly: a nightly without the component rust-src"]
        );
    }

    #[test]
    fn a_stable_with_rust_src_cannot_build_core() {
        let stable = Compiler {
            rust_src: true,
            ..compiler("/stable")
        };
        let choice = choose(&[stable], OLDEST);
        assert!(choice.usable.is_empty());
        assert_eq!(
            choice.refused,
            ["/stable: Rust 1.96 without a core for bpfel-unknown-none"]
        );
    }

    #[test]
    fn a_compiler_older_than_the_workspace_needs_is_refused() {
        let exactly = Compiler {
            version: OLDEST,
            ..packaged()
        };
        let older = Compiler {
            version: (1, 94),
            ..packaged()
        };
        assert_eq!(usable(&[exactly]).len(), 1);
        let choice = choose(&[older], OLDEST);
        assert!(choice.usable.is_empty());
        assert_eq!(choice.refused, ["/usr: Rust 1.94 is older than 1.95"]);
    }

    #[test]
    fn nothing_found_is_nothing_usable() {
        let choice = choose(&[], OLDEST);
        assert!(choice.usable.is_empty() && choice.refused.is_empty());
    }

    #[test]
    fn an_outer_cargo_s_settings_stay_outside() {
        for name in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_DEBUG",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ] {
            assert!(is_foreign(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!is_foreign(name), "{name}");
        }
    }
}
