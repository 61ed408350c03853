//! Debian packages, installed without starting what they serve.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    toolchain::on_path,
    workspace::{is_root, run},
};

/// The package manager, with what this run has done with it.
#[derive(Default)]
pub(crate) struct Apt {
    updated: bool,
}

impl Apt {
    /// Whether this machine has it, and we may use it.
    pub(crate) fn usable() -> bool {
        is_root() && on_path("apt-get").is_some()
    }

    /// Whether there is such a package to be installed. Reads the lists anew
    /// before it says no.
    pub(crate) fn offers(&mut self, package: &str) -> Result<bool> {
        if on_path("apt-cache").is_none() {
            return Ok(false);
        }
        if has_candidate(package)? {
            return Ok(true);
        }
        if self.updated || !Self::usable() {
            return Ok(false);
        }
        self.update()?;
        has_candidate(package)
    }

    fn update(&mut self) -> Result<()> {
        self.updated = true;
        run(Command::new("apt-get").args(["-q", "update"]))
    }

    /// Installs packages. `why` is for whoever must do it by hand.
    pub(crate) fn install(&mut self, packages: &[String], why: &str) -> Result<()> {
        let list = packages.join(" ");
        if on_path("apt-get").is_none() {
            bail!(
                "missing for {why}, by the names of Debian's packages: {list}\n\
                 this machine has no apt-get: install the like with its own package manager"
            );
        }
        if !is_root() {
            bail!(
                "missing for {why}: {list}\n\
                 run this task as root, or `apt-get install --no-install-recommends {list}`"
            );
        }
        println!("installing for {why}: {list}");
        let _policy = ServicePolicy::forbid_starts()?;
        if try_install(packages).is_ok() {
            return Ok(());
        }
        // The usual cause is a list older than the archive.
        if self.updated {
            bail!("apt-get could not install {list}; its output is above");
        }
        self.update()?;
        try_install(packages)
    }

    /// Unpacks a package below a directory and installs nothing: nothing is configured,
    /// and what it needs is not brought.
    pub(crate) fn unpack(&mut self, package: &str, directory: &Path) -> Result<()> {
        let archives = directory.join("archives");
        fs::create_dir_all(&archives)
            .with_context(|| format!("creating {}", archives.display()))?;
        let downloaded = download(package, &archives);
        if downloaded.is_err() && !self.updated && Self::usable() {
            // The usual cause is a list older than the archive.
            self.update()?;
            download(package, &archives)?;
        } else {
            downloaded?;
        }
        for archive in fs::read_dir(&archives).context("listing what was downloaded")? {
            let archive = archive.context("listing what was downloaded")?;
            run(Command::new("dpkg-deb")
                .arg("-x")
                .arg(archive.path())
                .arg(directory))?;
        }
        fs::remove_dir_all(&archives).with_context(|| format!("removing {}", archives.display()))
    }
}

fn download(package: &str, into: &Path) -> Result<()> {
    run(Command::new("apt-get")
        .args(["-q", "download", package])
        .current_dir(into))
}

fn try_install(packages: &[String]) -> Result<()> {
    run(Command::new("apt-get")
        .args(["-q", "-y", "--no-install-recommends"])
        // Another installation may be under way.
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(["-o", "Dpkg::Use-Pty=0"])
        .arg("install")
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

fn has_candidate(package: &str) -> Result<bool> {
    let output = Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .context("running apt-cache policy")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let candidate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(candidate.is_some_and(|version| version != "(none)"))
}

/// Whether a package is installed.
pub(crate) fn is_installed(package: &str) -> bool {
    // Its exit status alone would count what was removed but not purged.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .output();
    output.is_ok_and(|output| output.stdout == b"installed")
}

/// Keeps Debian's packages from starting their services while it lives.
struct ServicePolicy {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n# Put here by limiter's set-up, until it ends.\nexit 101\n";

impl ServicePolicy {
    fn forbid_starts() -> Result<Self> {
        let present = fs::read_to_string(POLICY);
        // An interrupted set-up may have left its own behind.
        if Path::new(POLICY).exists() && present.ok().as_deref() != Some(POLICY_TEXT) {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, POLICY_TEXT)
            .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {POLICY}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        if let Err(error) = fs::remove_file(POLICY) {
            eprintln!("warning: removing {POLICY}: {error}; no service starts until it is gone");
        }
    }
}
