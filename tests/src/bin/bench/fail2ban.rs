//! fail2ban as Debian packages it, with one jail.

use crate::{
    access_log::LIMIT,
    followers::{Follower, Heard},
    peers,
};
use anyhow::{Context as _, Result};
use limiter_tests::{
    netns::Namespace,
    process::{Process, Scratch},
    wait,
};
use std::{cell::RefCell, collections::BTreeSet, fs, net::IpAddr, path::Path, process::Command};

/// The interpreter that the package's programs name.
const PYTHON: &str = "/usr/bin/python3";
const MODULES: &str = "usr/lib/python3/dist-packages";
const NAME: &str = "login";

/// One of its jails.
#[derive(Clone, Copy)]
pub(crate) struct Jail {
    pub(crate) backend: Backend,
    pub(crate) dates: Dates,
}

/// How it learns that a file has grown.
#[derive(Clone, Copy)]
pub(crate) enum Backend {
    /// It looks every second.
    Polling,
    /// The kernel tells it; the default where the package that it recommends is there.
    Inotify,
}

/// How a filter finds the date in a line.
#[derive(Clone, Copy)]
pub(crate) enum Dates {
    /// As one that says nothing about dates: it tries all that it knows.
    Detected,
    /// As in the package's own filter of nginx's access log, `nginx-bad-request`.
    Placed,
}

/// A running server. It decides, and writes down whom it would ban.
pub(crate) struct Fail2ban {
    process: RefCell<Process>,
    namespace: Namespace,
    scratch: Scratch,
}

impl Jail {
    pub(crate) const fn name(self) -> &'static str {
        match (self.backend, self.dates) {
            (Backend::Inotify, Dates::Detected) => "fail2ban, dates detected",
            (Backend::Inotify, Dates::Placed) => "fail2ban, as its filter of nginx",
            (Backend::Polling, Dates::Detected) => "fail2ban, dates detected, polling",
            (Backend::Polling, Dates::Placed) => "fail2ban, as its filter of nginx, polling",
        }
    }

    const fn backend(self) -> &'static str {
        match self.backend {
            Backend::Polling => "polling",
            Backend::Inotify => "pyinotify",
        }
    }

    /// Anchored at both ends of what it looks at.
    fn filter(self) -> String {
        let dates = match self.dates {
            Dates::Detected => "",
            Dates::Placed => "datepattern = ^[^\\[]*\\[({DATE})\n              {^LN-BEG}\n",
        };
        format!(
            "[Definition]\nfailregex = ^<ADDR> - \\S+ \\[\\] \"POST /login[ ?][^\"]*\" 401\\b\n{dates}"
        )
    }
}

impl Fail2ban {
    pub(crate) fn start(jail: Jail, log: &Path) -> Result<Self> {
        let scratch = Scratch::new()?;
        configure(&scratch, jail, log)?;
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
            let log = fs::read_to_string(server.scratch.path("log")).unwrap_or_default();
            let started = format!("Jail '{NAME}' started");
            Ok(log.contains(&started).then_some(()))
        })?;
        Ok(server)
    }
}

/// Debian's configuration with one jail in place of all others.
fn configure(scratch: &Scratch, jail: Jail, log: &Path) -> Result<()> {
    let directory = scratch.path("etc");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(peers::file("etc/fail2ban")?);
    peers::output(copy.arg(&directory))?;
    fs::remove_dir_all(directory.join("jail.d")).context("removing Debian's jails")?;
    let write = |name: &str, text: String| {
        fs::write(directory.join(name), text).with_context(|| format!("writing {name}"))
    };
    write(
        "fail2ban.local",
        format!(
            "[DEFAULT]\nallowipv6 = auto\ndbfile = {}\n",
            scratch.path("database").display()
        ),
    )?;
    write(
        "jail.local",
        format!(
            "[{NAME}]\nenabled = true\nfilter = login\naction = note\nlogpath = {}\n\
             backend = {}\nmaxretry = {LIMIT}\nfindtime = 10m\nbantime = 1h\n",
            log.display(),
            jail.backend()
        ),
    )?;
    write("filter.d/login.conf", jail.filter())?;
    let banned = scratch.path("banned");
    fs::write(&banned, "").context("making a file")?;
    write(
        "action.d/note.conf",
        format!(
            "[Definition]\nactionban = echo <ip> >> {}\nactionunban =\n",
            banned.display()
        ),
    )
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

impl Follower for Fail2ban {
    fn id(&self) -> Result<u32> {
        Ok(self.process.borrow().id())
    }

    fn heard(&self) -> Result<Heard> {
        let mut client = command(&self.namespace, &self.scratch, "usr/bin/fail2ban-client")?;
        let status = peers::output(client.args(["status", NAME]))?;
        let failed = status
            .lines()
            .find_map(|line| line.split_once("Total failed:"));
        let (_, failed) = failed.with_context(|| format!("no failures in {status}"))?;
        Ok(Heard::Failures(failed.trim().parse()?))
    }

    fn banned(&self) -> Result<usize> {
        Ok(self.noted()?.lines().count())
    }

    fn sources(&self) -> Result<BTreeSet<IpAddr>> {
        let noted = self.noted()?;
        let sources = noted.lines().map(|line| Ok(line.parse()?));
        sources.collect()
    }
}

impl Fail2ban {
    /// What the action has written.
    fn noted(&self) -> Result<String> {
        fs::read_to_string(self.scratch.path("banned")).context("reading who is banned")
    }
}
