//! Who is measured under flood: limiter and its peers, each as it would be used.

use crate::{
    limiter::Limiter,
    others::XdpFilter,
    policies::WEB,
    rig::{Attack, FIRST, Guard},
};
use anyhow::{Context as _, Result};
use aya::programs::{XdpMode, xdp::XdpLinkId};
use limiter_tests::{flood::Sink, programs::program, veth::End};
use limiter_user::policy::Mode;
use serde_json::Value;
use std::{
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

/// Drops everything at once: the ceiling.
#[derive(Default)]
pub(crate) struct DropAll(Option<Sink>);

impl Guard for DropAll {
    fn stand(&mut self, end: &End, _attack: Attack) -> Result<()> {
        self.0 = Some(Sink::attach(end)?);
        Ok(())
    }

    fn counts(&self, _end: &End) -> Result<[u64; 2]> {
        Ok([0, self.0.as_ref().context("no sink")?.received()?])
    }

    fn leave(&mut self, _end: &End) -> Result<()> {
        self.0 = None;
        Ok(())
    }
}

impl Guard for Limiter {
    fn stand(&mut self, end: &End, _attack: Attack) -> Result<()> {
        let attached = end
            .namespace
            .run(|| self.plane.attach(&end.name, Mode::Native));
        attached.context("attaching limiter")?;
        Ok(())
    }

    fn counts(&self, _end: &End) -> Result<[u64; 2]> {
        self.passed_and_dropped()
    }

    fn leave(&mut self, end: &End) -> Result<()> {
        self.plane.detach(&end.name)?;
        Ok(())
    }
}

/// xdp-filter, which drops the one source of an attack.
pub(crate) struct Filter {
    filter: XdpFilter,
    name: &'static str,
    link: Option<XdpLinkId>,
}

impl Filter {
    pub(crate) fn new(name: &'static str) -> Result<Self> {
        Ok(Self {
            filter: XdpFilter::new(name, Ipv4Addr::from(FIRST))?,
            name,
            link: None,
        })
    }
}

impl Guard for Filter {
    fn stand(&mut self, end: &End, _attack: Attack) -> Result<()> {
        let program = program(&mut self.filter.0.ebpf, self.name)?;
        let attach = || program.attach(&end.name, XdpMode::Driver);
        let link = end.namespace.run(attach);
        self.link = Some(link.context("attaching xdp-filter")?);
        Ok(())
    }

    fn counts(&self, _end: &End) -> Result<[u64; 2]> {
        self.filter.passed_and_dropped()
    }

    fn leave(&mut self, _end: &End) -> Result<()> {
        if let Some(link) = self.link.take() {
            program(&mut self.filter.0.ebpf, self.name)?.detach(link)?;
        }
        Ok(())
    }
}

/// nftables: a dynamic set in the ingress hook of the interface.
pub(crate) struct Nftables;

impl Guard for Nftables {
    fn stand(&mut self, end: &End, attack: Attack) -> Result<()> {
        let ruleset = format!(
            "table netdev bench {{\n\
             set sources {{ type ipv4_addr; size {}; flags dynamic,timeout; timeout 5m; }}\n\
             chain ingress {{\n\
             type filter hook ingress device \"{}\" priority 0;\n\
             tcp dport {WEB} counter\n\
             tcp dport {WEB} update @sources {{ ip saddr limit rate over 1/minute burst 1 packets }} \
             counter drop\n}}\n}}\n",
            attack.table_size(),
            end.name
        );
        fed(end.namespace.command("nft").args(["-f", "-"]), &ruleset)
    }

    fn counts(&self, end: &End) -> Result<[u64; 2]> {
        let arguments = ["-j", "list", "chain", "netdev", "bench", "ingress"];
        let shown = end.namespace.output("nft", &arguments)?;
        let shown: Value = serde_json::from_str(&shown).context("reading nft's JSON")?;
        let rules = shown["nftables"].as_array().context("nft lists nothing")?;
        let statements = rules.iter().filter_map(|it| it["rule"]["expr"].as_array());
        let counters: Vec<u64> = statements
            .flatten()
            .filter_map(|it| it["counter"]["packets"].as_u64())
            .collect();
        passed_and_dropped(&counters)
    }

    fn leave(&mut self, end: &End) -> Result<()> {
        let arguments = ["delete", "table", "netdev", "bench"];
        end.namespace.output("nft", &arguments).map(drop)
    }
}

/// iptables: hashlimit, as early as it can be had.
pub(crate) struct Hashlimit;

impl Guard for Hashlimit {
    fn stand(&mut self, end: &End, attack: Attack) -> Result<()> {
        let size = attack.table_size();
        let rules = format!(
            "*raw\n-A PREROUTING -p tcp --dport {WEB}\n\
             -A PREROUTING -p tcp --dport {WEB} -m hashlimit --hashlimit-name bench \
             --hashlimit-mode srcip --hashlimit-above 1/min --hashlimit-burst 1 \
             --hashlimit-htable-size {size} --hashlimit-htable-max {size} \
             --hashlimit-htable-expire 300000 -j DROP\nCOMMIT\n"
        );
        fed(&mut end.namespace.command("iptables-restore"), &rules)
    }

    fn counts(&self, end: &End) -> Result<[u64; 2]> {
        let arguments = ["-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n"];
        let shown = end.namespace.output("iptables", &arguments)?;
        // Two lines of headings.
        let rules = shown.lines().skip(2);
        let counters: Vec<u64> = rules
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        passed_and_dropped(&counters)
    }

    fn leave(&mut self, end: &End) -> Result<()> {
        let arguments = ["-t", "raw", "-F", "PREROUTING"];
        end.namespace.output("iptables", &arguments).map(drop)
    }
}

/// From the counters of two rules: all packets, and those dropped.
fn passed_and_dropped(counters: &[u64]) -> Result<[u64; 2]> {
    match counters {
        [all, dropped] => Ok([all - dropped, *dropped]),
        _ => anyhow::bail!("two counters expected, {counters:?} met"),
    }
}

/// Runs a program that reads `text`; it must succeed.
pub(crate) fn fed(command: &mut Command, text: &str) -> Result<()> {
    let name = command.get_program().display().to_string();
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name}: {}", errors.trim());
    Ok(())
}
