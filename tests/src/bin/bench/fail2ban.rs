//! fail2ban as Debian packages it, with one jail.

use crate::{
    access_log::LIMIT,
    followers::{Follower, Heard},
};
use anyhow::{Context as _, Result};
use limiter_tests::{fail2ban, process::Scratch};
use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

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
    server: fail2ban::Fail2ban,
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
        let banned = scratch.path("banned");
        fs::write(&banned, "").context("making a file")?;
        let settings = format!(
            "filter = login\naction = note\nlogpath = {}\nbackend = {}\n\
             maxretry = {LIMIT}\nfindtime = 10m\nbantime = 1h",
            log.display(),
            jail.backend()
        );
        let action = format!(
            "[Definition]\nactionban = echo <ip> >> {}\nactionunban =\n",
            banned.display()
        );
        let files = [
            ("filter.d/login.conf", jail.filter()),
            ("action.d/note.conf", action),
        ];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let server = fail2ban::Fail2ban::start(NAME, &settings, &files)?;
        Ok(Self { server, scratch })
    }

    /// What the action has written.
    fn noted(&self) -> Result<String> {
        fs::read_to_string(self.scratch.path("banned")).context("reading who is banned")
    }
}

impl Follower for Fail2ban {
    fn id(&self) -> Result<u32> {
        Ok(self.server.id())
    }

    fn heard(&self) -> Result<Heard> {
        let status = self.server.ask(&["status", NAME])?;
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
