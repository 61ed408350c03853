//! Who guards nginx in section `goodput`.

use crate::{guards::fed, limiter::Limiter, policies::WEB};
use anyhow::{Context as _, Result};
use limiter_tests::{flood::Sink, veth::End};
use limiter_user::policy::{Mode, NoFiles, parse};

/// Packets a second of one source, and at once.
pub(crate) const PER_SECOND: u32 = 5_000;
pub(crate) const BURST: u32 = 10_000;
/// What [`Shield::LowCeiling`] lets pass of unknown sources, packets a second.
pub(crate) const LOW: u32 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shield {
    /// What floods goes no further than the interface; nobody else is guarded
    /// against: what the machine can do under this load at best.
    Sink,
    Limiter,
    /// With a lower ceiling of unknown sources.
    LowCeiling,
    Nothing,
    Nftables,
}

/// One that stands; it leaves when dropped.
pub(crate) enum Standing {
    Sink(Sink),
    Limiter(Box<Limiter>),
    Nothing,
    Nftables(End),
}

impl Shield {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sink => "sink",
            Self::Limiter => "limiter",
            Self::LowCeiling => "limiter, `unknown` lower",
            Self::Nothing => "nothing",
            Self::Nftables => "nftables",
        }
    }

    /// Puts it before the interface of the flood and that of the clients.
    pub(crate) fn stand(self, flood: &End, clients: &End) -> Result<Standing> {
        Ok(match self {
            Self::Sink => Standing::Sink(Sink::attach(flood)?),
            Self::Limiter => Standing::Limiter(Box::new(limiter("", &[flood, clients])?)),
            Self::LowCeiling => {
                let edge = format!("[edge.flood]\nunknown = {{ packets = \"{LOW}/s\" }}\n");
                Standing::Limiter(Box::new(limiter(&edge, &[flood, clients])?))
            }
            Self::Nothing => Standing::Nothing,
            Self::Nftables => {
                let command = &mut flood.namespace.command("nft");
                fed(command.args(["-f", "-"]), &ruleset(flood, clients))?;
                Standing::Nftables(flood.clone())
            }
        })
    }
}

fn limiter(edge: &str, ends: &[&End]) -> Result<Limiter> {
    let text = format!(
        "[edge]\ninterfaces = [\"none0\"]\n{edge}\
         [[edge.limit]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [{WEB}]\n\
         packets = {{ rate = \"{PER_SECOND}/s\", burst = {BURST} }}\n\
         connections = {{ rate = \"50/s\", burst = 200 }}\n"
    );
    let mut limiter = Limiter::new(&parse("bench.toml", &text, &NoFiles)?.policy)?;
    for end in ends {
        let attach = || limiter.plane.attach(&end.name, Mode::Native);
        end.namespace.run(attach).context("attaching limiter")?;
    }
    Ok(limiter)
}

fn ruleset(flood: &End, clients: &End) -> String {
    format!(
        "table netdev bench {{\n\
         set sources {{ type ipv4_addr; size 65536; flags dynamic,timeout; timeout 5m; }}\n\
         chain ingress {{\n\
         type filter hook ingress devices = {{ {}, {} }} priority 0;\n\
         tcp dport {WEB} update @sources {{ ip saddr limit rate over {PER_SECOND}/second \
         burst {BURST} packets }} drop\n}}\n}}\n",
        flood.name, clients.name
    )
}

impl Standing {
    /// Packets that it counted at the interface of the flood, if it does.
    pub(crate) fn counted(&self, flood: &End) -> Result<Option<u64>> {
        Ok(match self {
            Self::Sink(sink) => Some(sink.received()?),
            Self::Limiter(limiter) => Some(limiter.counts_at(&flood.name)?.values().sum()),
            Self::Nothing | Self::Nftables(_) => None,
        })
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Self::Nftables(end) = self {
            let arguments = ["delete", "table", "netdev", "bench"];
            if let Err(error) = end.namespace.output("nft", &arguments) {
                eprintln!("taking nftables' rules away: {error:#}");
            }
        }
    }
}
