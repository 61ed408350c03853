//! nginx before an application, guarded by its own `limit_req` or by limiter.

use super::policy::{self, Port};
use crate::{
    many,
    rounds::percentile_ms,
    usage::cpu_seconds,
    watch,
    wrk::{self, CONNECTIONS, Load},
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    cpu::{self, Awake},
    daemon::Daemon,
    delay::Delayed,
    netns::Namespace,
    pace::{self, Pace},
    process::Scratch,
    servers::Nginx,
    veth::{Options, Veth},
    wait,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// What the application takes.
pub(super) const DELAY: Duration = Duration::from_millis(1);
/// How long wrk asks.
pub(super) const SECONDS: u64 = 2;
/// How long is asked at half of that load.
pub(super) const HALF: Duration = Duration::from_millis(1_500);
const APPLICATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8_080);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\n\r\n";
/// How long reports may be on their way.
const LATE: Duration = Duration::from_secs(1);

/// A server and its clients.
pub(super) struct Front {
    /// How the clients come, and who is refused.
    pub(super) pairs: [Veth; 2],
    pub(super) address: SocketAddr,
    pub(super) nginx: Nginx,
    /// limiter, where it is asked.
    daemon: Option<Daemon>,
    application: Delayed,
    _scratch: Scratch,
}

impl Front {
    /// Guarded by `limit_req`, as nginx' manual has it: by address, with a burst, which here are so high
    /// that nobody is refused.
    pub(super) fn bare(last: usize) -> Result<Self> {
        let zone = "limit_req_zone $binary_remote_addr zone=one:10m rate=1000000r/s;";
        Self::new(last, |_, _| {
            let server = "limit_req zone=one burst=1000 nodelay;".to_owned();
            Ok((None, zone.to_owned(), server))
        })
    }

    /// Guarded by limiter, by the configuration that it writes.
    pub(super) fn guarded(last: usize, port: Port) -> Result<Self> {
        Self::new(last, |pairs, scratch| {
            let server = &pairs[0].right.namespace;
            let policy = policy::five_rules(pairs, port, scratch);
            let daemon = Daemon::start(server, &policy)?;
            let file = daemon.policy().display().to_string();
            let part = |part| {
                let asked = [
                    "integration",
                    "nginx",
                    "--part",
                    part,
                    "--origin",
                    "application",
                ];
                daemon.ask(&[&asked[..], &["--config", &file]].concat())
            };
            let (http, server) = (part("http")?, part("server")?);
            // The site's own log, which the reports take the place of, as the manual says.
            let log = scratch.path("site.log");
            let server = format!("access_log {};\n{server}", log.display());
            Ok((Some(daemon), http, server))
        })
    }

    fn new(
        last: usize,
        guard: impl FnOnce(&[Veth; 2], &Scratch) -> Result<(Option<Daemon>, String, String)>,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let server = Namespace::new()?;
        let pair = |number| {
            let options = Options {
                number,
                ipv6: false,
                ..Options::default()
            };
            Veth::new(&Namespace::new()?, &server, options)
        };
        let pairs = [pair(1)?, pair(2)?];
        many::addresses(&pairs[0])?;
        // As systemd has it: else nginx throws reports away that others wait before.
        server.set("unix/max_dgram_qlen", "512")?;
        let application = Delayed::start(&server, APPLICATION, DELAY, last)?;
        let (daemon, http, guarded) = guard(&pairs, &scratch)?;
        let text = format!(
            "{http}\nupstream application {{\nserver {APPLICATION};\nkeepalive 64;\n}}\n\
             server {{\nlisten 80;\nkeepalive_requests 100000000;\n{guarded}\n\
             location / {{\nproxy_pass http://application;\nproxy_http_version 1.1;\n\
             proxy_set_header Connection \"\";\nproxy_set_header Host $host;\n}}\n}}\n"
        );
        let address = SocketAddr::new(pairs[0].right.ipv4.into(), 80);
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        Ok(Self {
            nginx: Nginx::start(&server, local, &text)?,
            pairs,
            address,
            daemon,
            application,
            _scratch: scratch,
        })
    }

    pub(super) fn limiter(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("nobody asks limiter here")
    }

    /// Requests a second while as many are asked as are answered; microseconds of the CPU for
    /// each, of all, of nginx and of limiter; and how many percent of them limiter was told the
    /// outcome of.
    pub(super) fn saturate(&self, last: usize) -> Result<Vec<f64>> {
        let before = self.counts()?;
        let load = Load {
            path: "/",
            seconds: SECONDS,
            script: None,
        };
        let clients = &self.pairs[0].left.namespace;
        let seen = cpu::on(last, || wrk::ask(clients, self.address, load))?;
        let (refused, broken) = (seen.refused, seen.broken);
        ensure!(
            refused == 0 && broken == 0,
            "{refused} refused, {broken} broken"
        );
        let after = self.settled(&before, seen.answered)?;
        // Those that were on their way when wrk ended come on top.
        let is_all =
            |count: u64| (seen.answered..=seen.answered + u64::from(CONNECTIONS)).contains(&count);
        let passed = after.passed - before.passed;
        ensure!(is_all(passed), "{} of {passed} answered", seen.answered);
        // Where limiter is late, requests pass unseen.
        let asked = after.asked - before.asked;
        ensure!(
            self.daemon.is_none() || is_all(asked),
            "limiter was asked about {asked} of {}",
            seen.answered
        );
        let us = |after: f64, before: f64| (after - before) * 1e6 / seen.answered as f64;
        let nginx = us(after.nginx_seconds, before.nginx_seconds);
        let limiter = us(after.limiter_seconds, before.limiter_seconds);
        let told = (after.told - before.told) as f64 / passed as f64 * 1e2;
        Ok(vec![seen.per_second, nginx + limiter, nginx, limiter, told])
    }

    /// p50 and p99 in ms of so many requests a second.
    pub(super) fn latencies(&self, per_second: f64, last: usize) -> Result<Vec<f64>> {
        let before = self.counts()?;
        let pace = Pace {
            per_second,
            lasts: HALF,
            connections: CONNECTIONS as usize,
        };
        let clients = &self.pairs[0].left.namespace;
        // To wake a CPU that rests takes longer than an answer.
        let _awake = [Awake::on(0), Awake::on(last)];
        let taken = cpu::on(last, || {
            cpu::hurry()?;
            pace::ask(clients, self.address, REQUEST, pace)
        })?;
        let after = self.counts()?;
        let sent = taken.len() as u64;
        let passed = after.passed - before.passed;
        ensure!(passed == sent, "{passed} of {sent} came through");
        let asked = after.asked - before.asked;
        ensure!(
            self.daemon.is_none() || asked == sent,
            "limiter was asked about {asked} of {sent}"
        );
        let mut taken: Vec<Duration> = taken.iter().map(|it| it.took).collect();
        let shares = [50, 99].map(|share| percentile_ms(&mut taken, share));
        Ok(shares.to_vec())
    }

    /// After reports have come, or will not come any more.
    fn settled(&self, before: &Counts, answered: u64) -> Result<Counts> {
        if self.daemon.is_some() {
            // Those that nginx could not send never come.
            let _come = wait::until("reports", LATE, || {
                let told = self.counts()?.told - before.told;
                Ok((told >= answered).then_some(()))
            });
        }
        self.counts()
    }

    fn counts(&self) -> Result<Counts> {
        let mut counts = Counts {
            passed: self.application.answered(),
            nginx_seconds: cpu_seconds(self.nginx.id())?,
            limiter_seconds: 0.0,
            asked: 0,
            told: 0,
        };
        if let Some(daemon) = &self.daemon {
            counts.limiter_seconds = cpu_seconds(daemon.id()?)?;
            counts.asked = heard(daemon, "check")?;
            counts.told = heard(daemon, "feedback")?;
        }
        Ok(counts)
    }
}

/// What was counted so far.
struct Counts {
    /// Requests that the application has answered.
    passed: u64,
    /// Of the CPU.
    nginx_seconds: f64,
    limiter_seconds: f64,
    /// Questions that limiter has heard.
    asked: u64,
    /// Outcomes that it was told.
    told: u64,
}

/// What the origins of events whose names begin so have told that limiter has understood.
pub(super) fn heard(daemon: &Daemon, origin: &str) -> Result<u64> {
    let told = watch::ask(daemon, "/v1/origins")?;
    let rows = told["origins"].as_array().context("no origins")?;
    let named = rows.iter().filter(|row| {
        let name = row["name"].as_str();
        name.is_some_and(|name| name.starts_with(origin))
    });
    Ok(named.filter_map(|row| row["understood"].as_u64()).sum())
}
