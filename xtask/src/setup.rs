//! Installs what the build and the tests need, where it is missing.
//!
//! Everything is looked for first, which takes a fraction of a second, so no
//! stamp has to be trusted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    apt::{Apt, is_installed},
    toolchain::{
        BOTH_WAYS, Choice, LINKER_VARIABLE, SYSROOT_VARIABLE, Setup, Toolchain, on_path, search,
        set_variable,
    },
    workspace::{self, Workspace, succeeds},
};

const LINKER_VERSION: &str = "0.13.0";
/// The LLVM versions that this release of bpf-linker has features for.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Programs that the tests and the bench run, and Debian's packages of them, of which the
/// first that the release offers is installed.
const PROGRAMS: [(&str, &[&str]); 17] = [
    ("bpftool", &["bpftool", "linux-tools-common"]),
    ("caddy", &["caddy"]),
    // It solves challenges.
    ("chromium", &["chromium"]),
    ("curl", &["curl"]),
    ("ethtool", &["ethtool"]),
    ("exim4", &["exim4-daemon-light"]),
    ("haproxy", &["haproxy"]),
    ("ip", &["iproute2"]),
    ("iptables", &["iptables"]),
    ("nft", &["nftables"]),
    ("nginx", &["nginx-light", "nginx"]),
    // The example of the clients' guide runs in it.
    ("node", &["nodejs"]),
    ("promtool", &["prometheus"]),
    // It looks at the unit; nothing of it is started.
    ("systemd-analyze", &["systemd"]),
    ("tcpdump", &["tcpdump"]),
    ("wrk", &["wrk"]),
    // The bench loads the objects that come with it.
    ("xdp-filter", &["xdp-tools"]),
];

/// Programs that limiter is measured beside or works with, by a file of each, and Debian's
/// packages of them. Tests and bench run them where they are unpacked. Installed, a service of
/// each would start with the machine, and CrowdSec's package registers the machine with its
/// makers.
const PEERS: [(&str, &str); 4] = [
    ("usr/bin/fail2ban-server", "fail2ban"),
    (
        "usr/lib/python3/dist-packages/pyinotify.py",
        "python3-pyinotify",
    ),
    ("usr/bin/crowdsec", "crowdsec"),
    ("usr/bin/crowdsec-custom-bouncer", "crowdsec-custom-bouncer"),
];

/// What the tests import: the reference parser of the metrics format.
const PYTHON_PACKAGE: (&str, &str) = ("prometheus_client", "0.26.0");

/// Compilers that Debian and Ubuntu package with a core for BPF: the first is
/// Debian's newer one beside a stable release's own.
const PACKAGED: [(&str, &[&str], &str); 2] = [
    (
        "libstd-rust-web-dev-bpf",
        &["rustc-web", "cargo-web"],
        "rust-web-clippy",
    ),
    ("libstd-rust-dev-bpf", &["rustc", "cargo"], "rust-clippy"),
];

/// Sets up, and returns what the XDP program is to be built with.
pub(crate) fn run(workspace: &Workspace) -> Result<Setup> {
    let mut apt = Apt::default();
    let setup = bpf_toolchain(workspace, &mut apt)?;
    record(&setup, &workspace.target)?;
    test_programs(&mut apt)?;
    python(workspace, &mut apt)?;
    peers(workspace, &mut apt)?;
    Ok(setup)
}

fn bpf_toolchain(workspace: &Workspace, apt: &mut Apt) -> Result<Setup> {
    let Choice { usable, refused } = search();
    for line in &refused {
        println!("BPF compiler: not {line}");
    }
    let mut reasons = refused;
    for toolchain in usable {
        match linker(workspace, &toolchain, apt)? {
            Ok(linker) => {
                println!("BPF compiler: {toolchain}");
                println!("BPF linker:   {}", linker.display());
                clippy(&toolchain, apt)?;
                return Ok(Setup { toolchain, linker });
            }
            Err(reason) => {
                println!("BPF compiler: not {toolchain}: {reason}");
                reasons.push(format!("{}: {reason}", toolchain.sysroot.display()));
            }
        }
    }

    let nowhere = || {
        let reasons = reasons.join("\n  ");
        anyhow!("nothing here can build the XDP program\n  {reasons}\n{BOTH_WAYS}")
    };
    if set_variable(SYSROOT_VARIABLE).is_some() {
        // Whoever names a compiler does not want another installed.
        return Err(nowhere());
    }
    for (core, compiler, clippy) in PACKAGED {
        let mut packages = vec![core.to_owned()];
        packages.extend(compiler.iter().map(|&package| package.to_owned()));
        // Installed and yet refused: to install it again would not help.
        if packages.iter().all(|package| is_installed(package)) || !apt.offers(core)? {
            continue;
        }
        println!("BPF compiler: no usable one found, so from packages");
        if apt.offers(clippy)? {
            packages.push(clippy.to_owned());
        }
        apt.install(&packages, "building the XDP program")?;
        // It is there now, so this does not come here a third time.
        return bpf_toolchain(workspace, apt);
    }
    Err(nowhere())
}

/// Finds or installs a bpf-linker for this compiler's LLVM. The inner error
/// says why this compiler is to be passed over.
fn linker(
    workspace: &Workspace,
    toolchain: &Toolchain,
    apt: &mut Apt,
) -> Result<Result<PathBuf, String>> {
    if let Some(named) = set_variable(LINKER_VARIABLE).map(PathBuf::from) {
        if !named.is_file() {
            bail!(
                "{LINKER_VARIABLE} names {}, which is no file",
                named.display()
            );
        }
        return Ok(Ok(named));
    }
    let root = workspace.setup_directory().join("bpf-linker");
    let own = root.join("bin/bpf-linker");
    let feature = format!("llvm-{}", toolchain.llvm);
    if is_built_with(&root, &feature) && succeeds(Command::new(&own).arg("--version")) {
        return Ok(Ok(own));
    }
    let prefix = match llvm_prefix(toolchain.llvm, apt)? {
        Ok(prefix) => prefix,
        Err(reason) => {
            // Built elsewhere, or a released binary. Nothing tells which LLVM
            // is inside; if it is another, linking says so.
            return Ok(match on_path("bpf-linker") {
                Some(found) => {
                    println!("BPF linker: cannot be built here ({reason}), so the one on PATH");
                    Ok(found)
                }
                None => Err(reason),
            });
        }
    };
    println!("BPF linker: building {LINKER_VERSION} with {feature}, as this compiler has");
    let mut install = workspace.cargo(&["install", "bpf-linker", "--locked", "--force", "--quiet"]);
    install
        .args(["--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", &feature])
        .arg("--root")
        .arg(&root)
        // A directory of its own: the workspace's may be locked by a build.
        .arg("--target-dir")
        .arg(root.join("build"))
        .env("LLVM_PREFIX", prefix)
        // The work is done inside LLVM's library; what is compiled here need
        // not be fast, and its debug information is for nobody.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        // Flags meant for the workspace are not meant for a tool.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    workspace::run(&mut install).context("building bpf-linker")?;
    // Only the program is wanted; its intermediate files are ten times as big.
    fs::remove_dir_all(root.join("build")).context("removing bpf-linker's build directory")?;
    Ok(Ok(own))
}

/// Reads what cargo itself noted when it installed.
fn is_built_with(root: &Path, feature: &str) -> bool {
    fs::read_to_string(root.join(".crates2.json")).is_ok_and(|installed| {
        installed.contains(&format!("\"bpf-linker {LINKER_VERSION} "))
            && installed.contains(&format!("\"{feature}\""))
    })
}

/// Where LLVM's libraries and headers are, installing them if need be.
fn llvm_prefix(major: u32, apt: &mut Apt) -> Result<Result<PathBuf, String>> {
    if !LINKER_LLVM.contains(&major) {
        return Ok(Err(format!(
            "bpf-linker {LINKER_VERSION} knows LLVM {} to {}, not {major}",
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        )));
    }
    let development = format!("llvm-{major}-dev");
    let packages = [
        development.clone(),
        format!("libpolly-{major}-dev"),
        "libzstd-dev".to_owned(),
        "zlib1g-dev".to_owned(),
    ];
    let missing: Vec<String> = packages
        .into_iter()
        .filter(|one| !is_installed(one))
        .collect();
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if missing.is_empty() {
        return Ok(Ok(debian));
    }
    // Not from a package: the distribution may be another, or LLVM one's own.
    for program in [format!("llvm-config-{major}"), "llvm-config".to_owned()] {
        let ask = |question| {
            let output = Command::new(&program).arg(question).output().ok()?;
            let answer = String::from_utf8(output.stdout).ok()?;
            Some(answer.trim().to_owned())
        };
        let prefix = ask("--prefix").filter(|prefix| Path::new(prefix) != debian);
        if let (Some(version), Some(prefix)) = (ask("--version"), prefix)
            && version.split('.').next() == Some(&major.to_string())
        {
            return Ok(Ok(prefix.into()));
        }
    }
    if !apt.offers(&development)? {
        return Ok(Err(format!(
            "its bpf-linker needs the libraries and headers of LLVM {major}, and there is no \
             package {development} to install; put a bpf-linker of that LLVM on PATH, or name \
             it in {LINKER_VARIABLE}"
        )));
    }
    apt.install(&missing, "building bpf-linker")?;
    Ok(Ok(debian))
}

/// The packaged compiler's clippy is a package of its own. Where there is
/// none, `check` makes do with the compiler's warnings.
fn clippy(toolchain: &Toolchain, apt: &mut Apt) -> Result<()> {
    if toolchain.sysroot != Path::new("/usr") || Path::new("/usr/bin/clippy-driver").exists() {
        return Ok(());
    }
    for (core, _, clippy) in PACKAGED {
        if is_installed(core) && Apt::usable() && apt.offers(clippy)? {
            apt.install(&[clippy.to_owned()], "linting the XDP program")?;
        }
    }
    Ok(())
}

/// Leaves the decision for the build script. A file that says the same
/// already is left alone: the script runs again whenever it changes.
fn record(setup: &Setup, target: &Path) -> Result<()> {
    let text = format!(
        "{}\n{}\n",
        setup.toolchain.sysroot.display(),
        setup.linker.display()
    );
    let path = Setup::path(target);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
    }
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn test_programs(apt: &mut Apt) -> Result<()> {
    let mut packages = Vec::new();
    for (program, candidates) in PROGRAMS {
        if on_path(program).is_some() {
            continue;
        }
        let mut package = candidates[0];
        for candidate in candidates {
            if apt.offers(candidate)? {
                package = candidate;
                break;
            }
        }
        packages.push(package.to_owned());
    }
    if !packages.is_empty() {
        apt.install(&packages, "the tests")?;
    }
    for (program, _) in PROGRAMS {
        if on_path(program).is_none() {
            bail!("{program} is still not on PATH; install it by hand");
        }
    }
    let names: Vec<&str> = PROGRAMS.iter().map(|(program, _)| *program).collect();
    println!("programs:     {}", names.join(", "));
    Ok(())
}

fn peers(workspace: &Workspace, apt: &mut Apt) -> Result<()> {
    let directory = workspace.setup_directory().join("peers");
    for (file, package) in PEERS {
        if !directory.join(file).exists() {
            apt.unpack(package, &directory)
                .with_context(|| format!("unpacking {package}, which tests run"))?;
        }
    }
    println!("peers:        {}", directory.display());
    Ok(())
}

/// A virtual environment, since Debian forbids pip to write to the system's.
fn python(workspace: &Workspace, apt: &mut Apt) -> Result<()> {
    let (package, version) = PYTHON_PACKAGE;
    let directory = workspace.setup_directory().join("venv");
    let python = directory.join("bin/python");
    let check = format!(
        "import {package}, importlib.metadata as m; \
         raise SystemExit(m.version('{package}') != '{version}')"
    );
    if !succeeds(Command::new(&python).args(["-c", &check])) {
        let system = venv_capable_python(apt)?;
        // --clear: the interpreter of an old environment may be gone.
        run_python(
            Command::new(system)
                .args(["-m", "venv", "--clear"])
                .arg(&directory),
        )?;
        run_python(
            Command::new(&python)
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                ])
                .arg(format!("{package}=={version}")),
        )?;
    }
    println!(
        "Python:       {} with {package} {version}",
        python.display()
    );
    Ok(())
}

fn run_python(command: &mut Command) -> Result<()> {
    workspace::run(command).context("setting up the Python environment of the tests")
}

fn venv_capable_python(apt: &mut Apt) -> Result<&'static str> {
    // Debian's python3 has the module venv, but not what it copies.
    let capable =
        |python: &str| succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]));
    for python in ["python3", "/usr/bin/python3"] {
        if capable(python) {
            return Ok(python);
        }
    }
    apt.install(&["python3-venv".to_owned()], "the tests")?;
    match capable("/usr/bin/python3") {
        true => Ok("/usr/bin/python3"),
        false => bail!("/usr/bin/python3 still cannot make virtual environments"),
    }
}
