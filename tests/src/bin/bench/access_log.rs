//! An access log as nginx writes it, with logins that fail in it.

use crate::dice::Dice;
use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::SystemTime,
};

/// How many failures within ten minutes have a source banned.
pub(crate) const LIMIT: usize = 5;
/// One line of so many tells of a failed login.
const FAILURES: usize = 100;
/// Failures of ten: so many of one who is banned and who goes on, …
const OF_OFFENDER: usize = LIMIT + 1;
/// … and the others of one who is not.
const OF_BYSTANDER: usize = LIMIT - 1;
/// Sources of all other lines, by Zipf's law.
const READERS: u32 = 50_000;

const FIRST_OFFENDER: u32 = 198 << 24 | 18 << 16;
const FIRST_BYSTANDER: u32 = 198 << 24 | 19 << 16;
const FIRST_READER: u32 = 100 << 24 | 64 << 16;
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// Lines, and who must be banned for them.
pub(crate) struct AccessLog {
    pub(crate) text: Vec<u8>,
    pub(crate) lines: usize,
    pub(crate) failures: usize,
    pub(crate) offenders: BTreeSet<IpAddr>,
}

impl AccessLog {
    /// So many lines (a multiple of 1,000) of this moment, the same ones every time. The last
    /// is the one for which the last offender is to be banned.
    pub(crate) fn new(lines: usize, now: SystemTime) -> Result<Self> {
        let mut dice = Dice::new();
        let failing = failing(lines / FAILURES, &mut dice);
        let stamp = stamp(now)?;
        let mut text = Vec::with_capacity(lines * 200);
        for line in 0..lines {
            if line % FAILURES == FAILURES - 1 {
                failure(&mut text, failing[line / FAILURES], &stamp)?;
            } else {
                request(&mut text, &mut dice, &stamp)?;
            }
        }
        Ok(Self {
            text,
            lines,
            failures: failing.len(),
            offenders: (0..offenders(failing.len())).map(offender).collect(),
        })
    }
}

/// A failed login of one who has nothing to do with the rest of the log.
pub(crate) fn primer(number: u8, now: SystemTime) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let source = Ipv4Addr::new(203, 0, 113, number);
    failure(&mut text, source.into(), &stamp(now)?)?;
    Ok(text)
}

fn offenders(failures: usize) -> u32 {
    (failures / (OF_OFFENDER + OF_BYSTANDER)) as u32
}

fn offender(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(FIRST_OFFENDER + number).into()
}

/// Whose logins fail, in no order but for the last.
fn failing(count: usize, dice: &mut Dice) -> Vec<IpAddr> {
    let offenders = offenders(count);
    let bystander = |number| IpAddr::from(Ipv4Addr::from_bits(FIRST_BYSTANDER + number));
    let last = offender(offenders - 1);
    let mut failing: Vec<IpAddr> = (0..offenders)
        .flat_map(|number| {
            let own = [offender(number); OF_OFFENDER];
            own.into_iter().chain([bystander(number); OF_BYSTANDER])
        })
        .collect();
    // Those of the last offender that come before its last: one less than the limit.
    failing.retain(|source| *source != last);
    failing.extend([last; LIMIT - 1]);
    failing.push(bystander(offenders));
    for place in (1..failing.len()).rev() {
        failing.swap(place, (dice.roll() % (place as u64 + 1)) as usize);
    }
    failing.push(last);
    failing
}

fn failure(text: &mut Vec<u8>, source: IpAddr, stamp: &str) -> Result<()> {
    writeln!(
        text,
        "{source} - - [{stamp}] \"POST /login HTTP/1.1\" 401 153 \
         \"https://example.com/login\" \"{BROWSER}\""
    )?;
    Ok(())
}

fn request(text: &mut Vec<u8>, dice: &mut Dice, stamp: &str) -> Result<()> {
    let source = Ipv4Addr::from_bits(FIRST_READER + dice.zipf(READERS));
    let random = dice.roll();
    let (article, page, bytes) = (random % 977, random % 7, 5_000 + random % 9_000);
    writeln!(
        text,
        "{source} - - [{stamp}] \"GET /articles/{article}?page={page} HTTP/1.1\" 200 {bytes} \
         \"https://example.com/\" \"{BROWSER}\""
    )?;
    Ok(())
}

/// A time as nginx writes it, `22/Nov/2026:22:20:57 +0000`.
fn stamp(time: SystemTime) -> Result<String> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let (date, clock) = text.split_once('T').context("no date")?;
    let [year, month, day]: [&str; 3] = date
        .split('-')
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| anyhow::anyhow!("no date: {date}"))?;
    let month: usize = month.parse()?;
    let month = MONTHS.get(month - 1).context("no month")?;
    let clock = clock.trim_end_matches('Z');
    Ok(format!("{day}/{month}/{year}:{clock} +0000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, time::Duration};

    #[test]
    fn offenders_and_nobody_else_reach_the_limit_the_last_with_the_last_line() {
        let log = AccessLog::new(20_000, SystemTime::UNIX_EPOCH).unwrap();
        let text = std::str::from_utf8(&log.text).unwrap();
        assert_eq!(text.lines().count(), log.lines);
        let mut failures: BTreeMap<IpAddr, usize> = BTreeMap::new();
        let mut reached = Vec::new();
        let failed = text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(" 401 "));
        for (number, line) in failed {
            let source = line.split(' ').next().unwrap().parse().unwrap();
            let own = failures.entry(source).or_default();
            *own += 1;
            if *own == LIMIT {
                reached.push((source, number));
            }
        }
        assert_eq!(failures.values().sum::<usize>(), log.failures);
        assert_eq!(reached.last().unwrap().1, log.lines - 1);
        let reached: BTreeSet<IpAddr> = reached.into_iter().map(|(source, _)| source).collect();
        assert_eq!(reached, log.offenders);
        assert_eq!(reached.len(), 20);
    }

    #[test]
    fn times_are_as_nginx_writes_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_386_057);
        assert_eq!(stamp(time).unwrap(), "22/Nov/2026:22:20:57 +0000");
    }
}
