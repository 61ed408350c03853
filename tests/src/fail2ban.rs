//! fail2ban as Debian packages it.

use crate::{
    netns::Namespace,
    peers,
    process::{Process, Scratch},
    wait,
};
use anyhow::{Context as _, Result};
use std::{cell::RefCell, fs, process::Command};

/// The interpreter that the package's programs name.
const PYTHON: &str = "/usr/bin/python3";
const MODULES: &str = "usr/lib/python3/dist-packages";

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct Fail2ban {
    process: RefCell<Process>,
    namespace: Namespace,
    scratch: Scratch,
}

impl Fail2ban {
    /// Starts one with one jail, in place of all others, and waits until it is at work: Debian's
    /// configuration with `settings` of the jail and further `files` (`filter.d/login.conf`).
    ///
    /// # Errors
    /// The package was not unpacked, or the server does not start.
    pub fn start(jail: &str, settings: &str, files: &[(&str, &str)]) -> Result<Self> {
        let scratch = Scratch::new()?;
        configure(&scratch, jail, settings, files)?;
        let namespace = Namespace::new()?;
        let mut server = command(&namespace, &scratch, "usr/bin/fail2ban-server")?;
        server.args(["-f", "--loglevel", "INFO", "--logtarget"]);
        server.arg(scratch.path("log")).arg("start");
        let printed = scratch.path("printed");
        let process = Process::start(&mut server, &printed)?;
        let server = Self {
            process: RefCell::new(process),
            namespace,
            scratch,
        };
        wait::until("fail2ban's jail", wait::SOON, || {
            peers::ensure_runs(&mut server.process.borrow_mut(), &printed)?;
            let started = format!("Jail '{jail}' started");
            Ok(server.log().contains(&started).then_some(()))
        })?;
        Ok(server)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.borrow().id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path("log")).unwrap_or_default()
    }

    /// Runs its client; returns what that printed.
    ///
    /// # Errors
    /// The client fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut client = command(&self.namespace, &self.scratch, "usr/bin/fail2ban-client")?;
        peers::output(client.args(arguments))
    }

    /// Ends it as an init system would, and waits.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.process.into_inner().stop().map(drop)
    }
}

/// Debian's configuration with one jail in place of all others.
fn configure(scratch: &Scratch, jail: &str, settings: &str, files: &[(&str, &str)]) -> Result<()> {
    let directory = scratch.path("etc");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(peers::file("etc/fail2ban")?);
    peers::output(copy.arg(&directory))?;
    fs::remove_dir_all(directory.join("jail.d")).context("removing Debian's jails")?;
    let write = |name: &str, text: &str| {
        fs::write(directory.join(name), text).with_context(|| format!("writing {name}"))
    };
    let database = scratch.path("database").display().to_string();
    write(
        "fail2ban.local",
        &format!("[DEFAULT]\nallowipv6 = auto\ndbfile = {database}\n"),
    )?;
    let jail = format!("[{jail}]\nenabled = true\n{settings}\n");
    write("jail.local", &jail)?;
    files.iter().try_for_each(|(name, text)| write(name, text))
}

/// A program of the package, for the server of this directory.
fn command(namespace: &Namespace, scratch: &Scratch, program: &str) -> Result<Command> {
    let mut command = namespace.command(PYTHON);
    command.env("PYTHONPATH", peers::file(MODULES)?);
    command.arg(peers::file(program)?);
    command.arg("-c").arg(scratch.path("etc"));
    command.arg("-s").arg(scratch.path("socket"));
    command.arg("-p").arg(scratch.path("pid"));
    Ok(command)
}
