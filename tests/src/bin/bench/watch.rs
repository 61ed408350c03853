//! limiter as it follows a log: the daemon, and `explain --events`.

use crate::{
    access_log::{AccessLog, LIMIT},
    followers::{Follower, Heard},
};
use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use limiter_tests::{
    daemon::{self, Daemon},
    netns::Namespace,
    process::Scratch,
    veth::{Options, Veth},
    wait,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Instant, SystemTime},
};

/// The rule of all contestants, in limiter's words.
pub(crate) fn rule() -> String {
    format!(
        "[[rule]]\nname = \"login\"\nrequests = [\"POST /login\"]\n\
         count = {{ statuses = [401] }}\nkey = [\"source\"]\n\
         tiers = [{{ limit = {LIMIT}, period = \"10m\", action = \"block\", for = \"1h\" }}]\n"
    )
}

/// The daemon at an interface, whose clients are in the log: whom it bans it drops there.
pub(crate) struct Watch {
    daemon: Daemon,
    _pair: Veth,
    _scratch: Scratch,
}

impl Watch {
    pub(crate) fn start(log: &Path) -> Result<Self> {
        let scratch = Scratch::new()?;
        let server = Namespace::new()?;
        let quiet = Options {
            ipv6: false,
            ..Options::default()
        };
        let pair = Veth::new(&Namespace::new()?, &server, quiet)?;
        let policy = format!(
            "[edge]\ninterfaces = [{:?}]\nmode = \"native\"\n\
             [decide]\napi = \"unix:{}\"\n\
             logs = [{{ path = {log:?}, format = \"nginx\", direct = true }}]\n{}",
            pair.right.name,
            scratch.path("api.sock").display(),
            rule()
        );
        let watch = Self {
            daemon: Daemon::start(&server, &policy)?,
            _pair: pair,
            _scratch: scratch,
        };
        // The daemon answers before the process that follows logs does.
        wait::until("what follows the log", wait::SOON, || {
            Ok(watch.heard().ok())
        })?;
        Ok(watch)
    }
}

impl Follower for Watch {
    fn id(&self) -> Result<u32> {
        self.daemon.id()
    }

    fn heard(&self) -> Result<Heard> {
        let told = ask(&self.daemon, "/v1/origins")?;
        let origins = told["origins"].as_array().context("no origins")?;
        let log = origins.iter().find(|row| {
            row["name"]
                .as_str()
                .is_some_and(|it| it.starts_with("log:"))
        });
        let log = log.context("no log among the origins")?;
        let (read, dropped) = (log["read"].as_u64(), log["dropped"].as_u64());
        ensure!(dropped == Some(0), "{dropped:?} events dropped");
        Ok(Heard::Lines(usize::try_from(read.context("no lines")?)?))
    }

    fn banned(&self) -> Result<usize> {
        let told = ask(&self.daemon, "/v1/rules")?;
        let blocked = told["rules"][0]["blocked"].as_u64().context("no rule")?;
        Ok(usize::try_from(blocked)?)
    }

    fn sources(&self) -> Result<BTreeSet<IpAddr>> {
        let wanted = self.banned()?;
        // What was decided is on its way to the interface.
        wait::until("the blocks at the interface", wait::SOON, || {
            let sources = blocked(&self.daemon)?;
            Ok((sources.len() >= wanted).then_some(sources))
        })
    }
}

/// Whom rules block at the interface.
pub(crate) fn blocked(daemon: &Daemon) -> Result<BTreeSet<IpAddr>> {
    let told = ask(daemon, "/v1/blocks")?;
    let blocks = told["blocks"].as_array().context("no blocks")?;
    let of_rules = blocks.iter().filter(|block| block["owner"] == "rule");
    of_rules
        .map(|block| {
            let network = block["network"].as_str().context("a block of nobody")?;
            Ok(network.parse::<IpNet>()?.addr())
        })
        .collect()
}

/// Asks over the control socket. A command of its own would take a good part of a CPU that is
/// being measured.
pub(crate) fn ask(daemon: &Daemon, path: &str) -> Result<Value> {
    let mut answer = Vec::new();
    let mut stream = UnixStream::connect(daemon.socket())?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    stream.read_to_end(&mut answer)?;
    let told = String::from_utf8(answer).context("an answer that is no text")?;
    let body = told
        .split_once("\r\n\r\n")
        .filter(|_| told.starts_with("HTTP/1.1 200 "));
    let (_, body) = body.with_context(|| format!("GET {path}: {told:.500}"))?;
    serde_json::from_str(body).with_context(|| format!("GET {path}: {body:.500}"))
}

/// `limiter explain --events` on a whole file: lines a second, from the command's start to its
/// end, and lines for each second of a CPU.
pub(crate) fn explain(lines: usize) -> Result<Vec<f64>> {
    let scratch = Scratch::new()?;
    let log = AccessLog::new(lines, SystemTime::now())?;
    let (path, policy) = (scratch.path("access.log"), scratch.path("limiter.toml"));
    fs::write(&path, &log.text).context("writing a log")?;
    fs::write(&policy, format!("[decide]\n{}", rule())).context("writing a policy")?;
    let mut command = Command::new("/bin/sh");
    // Its own times, as the shell sees them.
    command.args(["-c", "\"$@\"; times >&2", "sh"]);
    command
        .arg(daemon::program()?)
        .args(["explain", "--events"]);
    command.arg(&path).args(["--format", "nginx", "--config"]);
    let began = Instant::now();
    let output = command.arg(&policy).output().context("running limiter")?;
    let lasted = began.elapsed().as_secs_f64();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "limiter explain: {errors}");
    let told = String::from_utf8(output.stdout).context("reading what limiter prints")?;
    let begun = told.lines().filter(|line| line.contains(" begins block "));
    let sources = begun.map(|line| {
        let source = line.rsplit(' ').next().context("an empty line")?;
        Ok(source.parse()?)
    });
    let sources = sources.collect::<Result<BTreeSet<IpAddr>>>()?;
    ensure!(
        sources == log.offenders,
        "{} begun: {told:.2000}",
        sources.len()
    );
    let lines = log.lines as f64;
    Ok(vec![lines / lasted, lines / cpu_seconds(&errors)?])
}

/// The children's line of what `times` prints: `0m1.200000s 0m0.300000s`.
fn cpu_seconds(told: &str) -> Result<f64> {
    let line = told.trim_end().lines().next_back().context("no times")?;
    let seconds = line.split(' ').map(|time| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    });
    let seconds: Option<f64> = seconds.sum();
    seconds.with_context(|| format!("no times: {line}"))
}
