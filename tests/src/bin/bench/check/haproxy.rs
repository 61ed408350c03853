//! HAProxy before an application: failed logins are counted in its own stick-table, or limiter is
//! told of every request.

use super::{
    front::{DELAY, SECONDS, heard},
    policy,
};
use crate::{
    many,
    usage::cpu_seconds,
    wrk::{self, CONNECTIONS, Load},
};
use anyhow::{Result, ensure};
use limiter_tests::{
    cpu,
    daemon::Daemon,
    delay::Delayed,
    netns::Namespace,
    process::Scratch,
    servers::Haproxy,
    veth::{Options, Veth},
};
use std::net::SocketAddr;

/// HAProxy's own: who fails to log in five times within ten minutes is refused there.
const OWN: &str = "\
frontend web
  bind :80
  stick-table type ip size 100k expire 10m store gpc0,gpc0_rate(10m)
  http-request track-sc0 src
  http-request set-var(txn.login) bool(true) if METH_POST { path /login }
  http-request deny deny_status 429 if { var(txn.login) -m bool } { sc0_gpc0_rate ge 5 }
  http-response sc-inc-gpc0(0) if { var(txn.login) -m bool } { status 401 }
  default_backend origin

backend origin
  server origin 127.0.0.1:8080
";

/// A server and its clients.
pub(super) struct Balancer {
    pair: Veth,
    address: SocketAddr,
    haproxy: Haproxy,
    /// limiter, where it is asked.
    daemon: Option<Daemon>,
    application: Delayed,
    _scratch: Scratch,
}

impl Balancer {
    /// With its stick-table.
    pub(super) fn own(last: usize) -> Result<Self> {
        Self::new(last, |_, _| Ok((None, OWN.to_owned(), String::new())))
    }

    /// With limiter, by the configuration that it writes.
    pub(super) fn asking(last: usize) -> Result<Self> {
        Self::new(last, |pair, scratch| {
            let policy = policy::logins(pair, scratch);
            let daemon = Daemon::start(&pair.right.namespace, &policy)?;
            let file = daemon.policy().display().to_string();
            let part = |part| {
                let asked = ["integration", "haproxy", "--part", part];
                daemon.ask(&[&asked[..], &["--config", &file]].concat())
            };
            let (sections, spoe) = (part("frontend")?, part("filter")?);
            Ok((Some(daemon), sections, spoe))
        })
    }

    fn new(
        last: usize,
        guard: impl FnOnce(&Veth, &Scratch) -> Result<(Option<Daemon>, String, String)>,
    ) -> Result<Self> {
        let (scratch, server) = (Scratch::new()?, Namespace::new()?);
        let quiet = Options {
            ipv6: false,
            ..Options::default()
        };
        let pair = Veth::new(&Namespace::new()?, &server, quiet)?;
        many::addresses(&pair)?;
        let origin = SocketAddr::from(([127, 0, 0, 1], 8_080));
        let application = Delayed::start(&server, origin, DELAY, last)?;
        let (daemon, sections, spoe) = guard(&pair, &scratch)?;
        let address = SocketAddr::new(pair.right.ipv4.into(), 80);
        Ok(Self {
            haproxy: Haproxy::start(&server, address, &sections, &spoe)?,
            pair,
            address,
            daemon,
            application,
            _scratch: scratch,
        })
    }

    /// Requests a second, microseconds of the CPU for each.
    pub(super) fn saturate(&self, last: usize) -> Result<Vec<f64>> {
        let (cpu, passed, told) = self.counts()?;
        let load = Load {
            path: "/",
            seconds: SECONDS,
            script: None,
        };
        let clients = &self.pair.left.namespace;
        let seen = cpu::on(last, || wrk::ask(clients, self.address, load))?;
        let (refused, broken) = (seen.refused, seen.broken);
        ensure!(
            refused == 0 && broken == 0,
            "{refused} refused, {broken} broken"
        );
        let after = self.counts()?;
        let passed = after.1 - passed;
        let most = seen.answered + u64::from(CONNECTIONS);
        ensure!(
            (seen.answered..=most).contains(&passed),
            "{} of {passed} answered",
            seen.answered
        );
        // A question and a report of each, and a request that limiter was not asked about passes.
        let told = after.2 - told;
        ensure!(
            self.daemon.is_none() || (2 * seen.answered..=2 * most).contains(&told),
            "limiter was told {told} times of {} requests",
            seen.answered
        );
        let us = (after.0 - cpu) * 1e6 / seen.answered as f64;
        Ok(vec![seen.per_second, us])
    }

    /// Seconds of the CPU, requests that came through, and what limiter was told.
    fn counts(&self) -> Result<(f64, u64, u64)> {
        let mut cpu = cpu_seconds(self.haproxy.id())?;
        let mut told = 0;
        if let Some(daemon) = &self.daemon {
            cpu += cpu_seconds(daemon.id()?)?;
            told = heard(daemon, "spoe")?;
        }
        Ok((cpu, self.application.answered(), told))
    }
}
