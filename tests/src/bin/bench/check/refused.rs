//! A client that is refused again and again, and then blocked at the NIC: what it still costs nginx.

use super::{front::Front, front::heard, policy};
use crate::{
    usage::cpu_seconds,
    watch::blocked,
    wrk::{self, Load},
};
use anyhow::{Result, ensure};
use limiter_tests::{cpu, wait};
use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

/// How long wrk asks.
pub(super) const SECONDS: u64 = 3;
/// From when to when nginx' CPU is looked at, after the block is there.
pub(super) const SETTLED: Duration = Duration::from_millis(100);
pub(super) const LOOKED: Duration = Duration::from_secs(1);

/// Requests a second until the block, nginx' percent of a CPU meanwhile and after it.
pub(super) fn measure(front: &Front, last: usize) -> Result<Vec<f64>> {
    let daemon = front.limiter()?;
    let pair = &front.pairs[1];
    let source = IpAddr::from(pair.left.ipv4);
    let address = SocketAddr::new(pair.right.ipv4.into(), front.address.port());
    let nginx = || cpu_seconds(front.nginx.id());
    let load = Load {
        path: policy::BUSY,
        seconds: SECONDS,
        script: None,
    };
    let asked = heard(daemon, "check")?;
    let figures = thread::scope(|scope| {
        let (began, before) = (Instant::now(), nginx()?);
        let flood =
            scope.spawn(move || cpu::on(last, || wrk::ask(&pair.left.namespace, address, load)));
        let looked = || -> Result<Vec<f64>> {
            wait::until("the block", wait::SOON, || {
                Ok(blocked(daemon)?.contains(&source).then_some(()))
            })?;
            let there = Instant::now();
            let lasted = began.elapsed().as_secs_f64();
            let (meanwhile, questions) = (nginx()? - before, heard(daemon, "check")? - asked);
            thread::sleep(SETTLED.saturating_sub(there.elapsed()));
            let settled = nginx()?;
            thread::sleep((SETTLED + LOOKED).saturating_sub(there.elapsed()));
            let after = nginx()? - settled;
            ensure!(blocked(daemon)?.contains(&source), "the block has gone");
            Ok(vec![
                questions as f64 / lasted,
                meanwhile / lasted * 1e2,
                after / LOOKED.as_secs_f64() * 1e2,
            ])
        };
        let figures = looked();
        let seen = match flood.join() {
            Ok(seen) => seen?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let refused = u64::from(policy::REFUSED);
        ensure!(
            (refused / 2..refused * 2).contains(&seen.refused),
            "{} refused, to be blocked after {refused}",
            seen.refused
        );
        figures
    })?;
    daemon.ask(&["block", "del", &source.to_string()])?;
    Ok(figures)
}
