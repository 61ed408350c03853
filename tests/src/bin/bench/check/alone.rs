//! `/check` itself, asked over connections that stay open.

use super::front::{Front, heard};
use crate::{
    usage::cpu_seconds,
    wrk::{self, CONNECTIONS, Load},
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{cpu, netns::Namespace, process::Scratch, servers::Nginx};
use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// How long wrk asks.
pub(super) const SECONDS: u64 = 1;
const CHECK: ([u8; 4], u16) = ([127, 0, 0, 1], 4_480);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// `/check`, with what a proxy must tell and nothing else.
    Bare,
    /// `/check/nginx` as nginx asks for a browser.
    Browser,
    /// A path where there is nothing: what HTTP takes.
    Nothing,
}

impl Question {
    pub(super) const ALL: [Self; 3] = [Self::Bare, Self::Browser, Self::Nothing];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "/check, what it must be told",
            Self::Browser => "/check/nginx, a browser's request",
            Self::Nothing => "a path with nothing behind (404)",
        }
    }

    /// The lines of the request in Lua; `n` counts them. No two are the same, and they
    /// are of 64,256 sources.
    const fn lines(self) -> &'static str {
        match self {
            Self::Bare => {
                "\"GET /check HTTP/1.1\\r\\nHost: limiter\\r\\nX-Forwarded-Method: GET\\r\\n\
                 X-Forwarded-Uri: /\\r\\nX-Forwarded-For: 198.18.\" .. n % 256 .. \".\" .. n % 251 .. \
                 \"\\r\\n\\r\\n\""
            }
            Self::Browser => {
                "\"GET /check/nginx HTTP/1.1\\r\\nX-Limiter-Id: 6b4c1f2e9a7d4e0f8c3b5a6d\" .. n .. \
                 \"\\r\\nX-Limiter-Peer: 198.18.\" .. n % 256 .. \".\" .. n % 251 .. \"\\r\\n\
                 X-Limiter-Method: GET\\r\\nX-Limiter-Host: example.com\\r\\nX-Limiter-Uri: /\\r\\n\
                 Host: limiter\\r\\n\
                 User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\\r\\n\
                 Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\\r\\n\
                 Accept-Language: en-US,en;q=0.5\\r\\nAccept-Encoding: gzip, deflate, br\\r\\n\
                 Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\\r\\n\
                 Upgrade-Insecure-Requests: 1\\r\\nSec-Fetch-Dest: document\\r\\n\
                 Sec-Fetch-Mode: navigate\\r\\nSec-Fetch-Site: none\\r\\n\\r\\n\""
            }
            Self::Nothing => "\"GET /nothing HTTP/1.1\\r\\nHost: limiter\\r\\n\\r\\n\"",
        }
    }
}

/// Requests of a run at most: the next one's go on from there.
const MOST: u64 = 10_000_000;

/// Answers a second, and answers for each second of limiter's processes on a CPU.
pub(super) fn measure(front: &Front, question: Question, last: usize) -> Result<Vec<f64>> {
    let daemon = front.limiter()?;
    let scratch = Scratch::new()?;
    let script = scratch.path("questions.lua");
    let lines = question.lines();
    static RUN: AtomicU64 = AtomicU64::new(0);
    let first = RUN.fetch_add(1, Relaxed) * MOST;
    let text =
        format!("local n = {first}\nfunction request()\n  n = n + 1\n  return {lines}\nend\n");
    fs::write(&script, text).context("writing a script")?;
    let load = Load {
        path: "/",
        seconds: SECONDS,
        script: Some(&script),
    };
    let server = &front.pairs[0].right.namespace;
    let (cpu, asked) = (cpu_seconds(daemon.id()?)?, heard(daemon, "check")?);
    let seen = cpu::on(last, || wrk::ask(server, SocketAddr::from(CHECK), load))?;
    let cpu = cpu_seconds(daemon.id()?)? - cpu;
    let asked = heard(daemon, "check")? - asked;
    let (wanted, refused) = match question {
        Question::Nothing => (0..=0, seen.answered),
        _ => (seen.answered..=seen.answered + u64::from(CONNECTIONS), 0),
    };
    ensure!(
        wanted.contains(&asked) && seen.refused == refused && seen.broken == 0,
        "{} answered, {asked} heard, {} refused, {} broken",
        seen.answered,
        seen.refused,
        seen.broken
    );
    Ok(vec![seen.per_second, seen.answered as f64 / cpu])
}

/// What a server that does nothing reaches here.
pub(super) struct Ceiling {
    namespace: Namespace,
    address: SocketAddr,
    nginx: Nginx,
}

impl Ceiling {
    pub(super) fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        let address = SocketAddr::from(CHECK);
        let text = format!(
            "server {{ listen {address}; access_log off; keepalive_requests 100000000; return 204; }}"
        );
        Ok(Self {
            nginx: Nginx::start(&namespace, address, &text)?,
            namespace,
            address,
        })
    }

    /// As [`measure`].
    pub(super) fn measure(&self, last: usize) -> Result<Vec<f64>> {
        let load = Load {
            path: "/",
            seconds: SECONDS,
            script: None,
        };
        let cpu = cpu_seconds(self.nginx.id())?;
        let seen = cpu::on(last, || wrk::ask(&self.namespace, self.address, load))?;
        let cpu = cpu_seconds(self.nginx.id())? - cpu;
        ensure!(
            seen.refused == 0 && seen.broken == 0,
            "{} refused, {} broken",
            seen.refused,
            seen.broken
        );
        Ok(vec![seen.per_second, seen.answered as f64 / cpu])
    }
}
