//! Programs that follow a log and decide about its sources, and how one of them is timed.

use crate::{
    access_log::{self, AccessLog},
    interrupt,
    usage::cpu_seconds,
};
use anyhow::{Context as _, Result, bail, ensure};
use limiter_tests::process::Scratch;
use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Between two looks at what was decided.
const PAUSE: Duration = Duration::from_millis(20);
/// Until a line that was written last is heard, before another is written.
const PRIMED: Duration = Duration::from_secs(2);
/// Long enough for anything that will happen.
const LATE: Duration = Duration::from_secs(300);

/// Somebody who follows a log: five failed logins within ten minutes, and the source is
/// banned for an hour.
pub(crate) trait Follower {
    /// Its process; others may be below it.
    fn id(&self) -> Result<u32>;
    /// What it says that it has heard.
    fn heard(&self) -> Result<Heard>;
    /// How many sources it has banned, looked at often.
    fn banned(&self) -> Result<usize>;
    /// Whom it has banned.
    fn sources(&self) -> Result<BTreeSet<IpAddr>>;
}

/// What somebody counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Lines(usize),
    /// Those that tell of a failed login.
    Failures(usize),
}

impl Heard {
    /// As many of its own kind as these logs have, one after the other.
    fn of(self, primers: usize, log: &AccessLog) -> Self {
        match self {
            Self::Lines(_) => Self::Lines(primers + log.lines),
            Self::Failures(_) => Self::Failures(primers + log.failures),
        }
    }

    const fn count(self) -> usize {
        match self {
            Self::Lines(count) | Self::Failures(count) => count,
        }
    }
}

/// Has somebody started on an empty log, writes so many lines to it at once, and waits until
/// all who offend are banned: lines a second, and lines for each second of all its processes
/// on a CPU.
pub(crate) fn follow<F: Follower>(
    lines: usize,
    start: impl FnOnce(&Path) -> Result<F>,
) -> Result<Vec<f64>> {
    let scratch = Scratch::new()?;
    let path = scratch.path("access.log");
    let mut file = File::create(&path).context("making a log")?;
    let follower = start(&path)?;
    let primers = prime(&follower, &mut file)?;
    let log = AccessLog::new(lines, SystemTime::now())?;
    let banned_before = follower.banned()?;
    ensure!(banned_before == 0, "{banned_before} banned before the log");
    let cpu_before = cpu_seconds(follower.id()?)?;
    let began = Instant::now();
    file.write_all(&log.text).context("writing a log")?;
    let wanted = log.offenders.len();
    until(began, || {
        let banned = follower.banned()?;
        ensure!(banned <= wanted, "{banned} banned, {wanted} offended");
        Ok(banned == wanted)
    })?;
    let lasted = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds(follower.id()?)? - cpu_before;
    check(&follower, primers, &log)?;
    let lines = log.lines as f64;
    Ok(vec![lines / lasted, lines / cpu])
}

/// Writes lines until one is heard: some begin at the end of the file, and when they do
/// nobody can see. Returns how many they have heard of them.
fn prime(follower: &impl Follower, file: &mut File) -> Result<usize> {
    let before = follower.heard()?.count();
    ensure!(before == 0, "{before} heard of an empty log");
    for number in 1..=30 {
        let line = access_log::primer(number, SystemTime::now())?;
        file.write_all(&line).context("writing a log")?;
        let written = Instant::now();
        while written.elapsed() < PRIMED {
            interrupt::check()?;
            let heard = follower.heard()?.count();
            if heard > 0 {
                return Ok(heard);
            }
            thread::sleep(PAUSE * 5);
        }
    }
    bail!("it does not follow the log");
}

/// Whether everything was heard, and nobody banned but those who offend.
fn check(follower: &impl Follower, primers: usize, log: &AccessLog) -> Result<()> {
    let sources = follower.sources()?;
    ensure!(
        sources == log.offenders,
        "{} banned, of {} who offend {}",
        sources.len(),
        log.offenders.len(),
        sources.intersection(&log.offenders).count()
    );
    let heard = follower.heard()?;
    let right = heard.of(primers, log);
    ensure!(heard == right, "{heard:?}, not {right:?}");
    Ok(())
}

fn until(began: Instant, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    while !is_so()? {
        interrupt::check()?;
        ensure!(began.elapsed() < LATE, "not all are banned after {LATE:?}");
        thread::sleep(PAUSE);
    }
    Ok(())
}
