//! The SSH connections that no order may cut off unawares: those established to
//! `edge.safety.ssh_ports`, and the one by which whoever gives it is logged in.

#[cfg(test)]
mod tests;

use std::io;

use hyper::StatusCode;
use ipnet::IpNet;

use super::lists::NetworkList;
use super::lockout::{Cause, Cut, Peers, Rules, cuts};
use super::{By, Keeper, shown};
use crate::control::api::Refusal;
use crate::nic::sockets::Connection;
use crate::policy::Policy;

/// Lists the connections that are established to these ports of the host.
pub type Sessions = Box<dyn Fn(&[u16]) -> io::Result<Vec<Connection>> + Send>;

/// Connections named at most in one answer.
const NAMED: usize = 5;

/// What there is to protect, and what decides about it now.
pub(super) struct Guarded {
    by: Option<By>,
    connections: Vec<Connection>,
    peers: Peers,
    rules: Rules,
    /// Whether the rules hold for all connections already.
    is_everywhere: bool,
    /// Why not all are known.
    trouble: Option<String>,
}

impl Guarded {
    /// The same where the program comes to interfaces that it was not on: nobody
    /// was cut off there.
    pub(super) fn somewhere_new(self) -> Self {
        Self {
            is_everywhere: false,
            ..self
        }
    }

    /// The rules in force, to be changed into those of after.
    pub(super) fn rules(&self) -> Rules {
        self.rules.clone()
    }

    /// The networks that matter here.
    pub(super) fn near(&self, networks: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
        self.peers.near(networks)
    }

    /// Whether a network matters here.
    pub(super) fn is_near(&self, network: &IpNet) -> bool {
        self.peers.any_in(network)
    }

    /// The rules of another policy, as if the run-time entries stood in it.
    pub(super) fn rules_of(
        &self,
        policy: &Policy,
        allow: &NetworkList,
        deny: &NetworkList,
    ) -> Rules {
        let list = |file: &[IpNet], list: &NetworkList| {
            let mut networks = self.near(file.iter().copied());
            networks.extend(self.peers.around().filter(|it| list.at_runtime(*it)));
            networks
        };
        let edge = &policy.edge;
        Rules {
            blocks: self.rules.blocks.clone(),
            ..Rules::new(policy, list(&edge.allow, allow), list(&edge.deny, deny))
        }
    }

    /// Refuses what would cut somebody off. By force, nothing is refused, and
    /// the notices say who was.
    pub(super) fn check(self, after: &Rules) -> Result<Vec<String>, Refusal> {
        let mut notices: Vec<String> = self.trouble.into_iter().collect();
        // A policy that cannot be compiled is refused for that.
        let before = self.is_everywhere.then_some(&self.rules);
        let mut cut = cuts(before, after, &self.connections).unwrap_or_default();
        let login = self.by.and_then(|by| by.login);
        let is_own =
            |cut: &Cut| login.is_some_and(|login| login.peer.ip() == cut.connection.peer.ip());
        cut.sort_by_key(|cut| !is_own(cut));
        let more = cut.len().saturating_sub(NAMED);
        if self.by.is_some_and(|by| by.is_forced) {
            notices.extend(cut.iter().take(NAMED).map(|cut| done(cut, is_own(cut))));
            notices.extend((more > 0).then(|| format!("and {more} more SSH connections")));
            return Ok(notices);
        }
        let Some(first) = cut.first() else {
            return Ok(notices);
        };
        let mut detail = threat(first, is_own(first));
        match cut.len() - 1 {
            0 => {}
            1 => detail.push_str(", and another SSH connection"),
            more => detail.push_str(&format!(", and {more} other SSH connections")),
        }
        let help = "leave it out, or repeat with --force";
        Err(Refusal::new(StatusCode::CONFLICT, detail, help))
    }
}

impl Keeper {
    /// What there is to protect under the policy in force, and under the one that may
    /// be in force again.
    pub(super) fn guards(&self, by: Option<By>) -> Vec<Guarded> {
        let mut guards = vec![self.guarded(by, None)];
        if let Some(before) = self.policy_before() {
            let guarded = self.guarded(by, Some(before));
            let rules = guarded.rules_of(before, &self.allow, &self.deny);
            guards.push(Guarded { rules, ..guarded });
        }
        guards
    }

    /// What there is to protect under the policy in force, and `other`, from an
    /// order; `None`: from what the daemon does of itself.
    pub(super) fn guarded(&self, by: Option<By>, other: Option<&Policy>) -> Guarded {
        let policies = [Some(&self.policy), other];
        let policies = policies.into_iter().flatten();
        let ports_of = |policy: &Policy| policy.edge.safety.ssh_ports.clone();
        let mut ports: Vec<u16> = policies.clone().flat_map(ports_of).collect();
        ports.sort_unstable();
        ports.dedup();
        let (mut connections, mut trouble) = match (self.sessions)(&ports) {
            Ok(connections) => (connections, None),
            Err(error) => {
                let trouble = format!("open SSH connections could not be checked: {error}");
                (Vec::new(), Some(trouble))
            }
        };
        connections.extend(by.and_then(|by| by.login));
        connections.retain(|connection| !connection.is_inside());
        connections.sort_unstable();
        connections.dedup();
        let peers = Peers::of(&connections);
        let list = |list: &NetworkList| peers.around().filter(|it| list.contains(*it)).collect();
        let mut rules = Rules::new(&self.policy, list(&self.allow), list(&self.deny));
        // To ports that they spare, blocks need not be known.
        let is_spared = |port: u16| {
            let spares = |policy: &Policy| policy.edge.safety.ssh_ports.contains(&port);
            policies.clone().all(spares)
        };
        if !(connections.iter()).all(|it| is_spared(it.local.port())) {
            match self.plane.blocks() {
                Ok(blocks) => rules.blocks = blocks,
                Err(error) => {
                    trouble.get_or_insert(format!(
                        "whether blocks cut SSH connections off could not be checked: {error}"
                    ));
                }
            }
            rules.blocks.retain(|block| peers.any_in(&block.network));
        }
        Guarded {
            by,
            connections,
            peers,
            rules,
            is_everywhere: true,
            trouble,
        }
    }

    /// The SSH connections that are cut off by what is in force.
    pub(super) fn already_cut_off(&self) -> Vec<String> {
        let guarded = self.guarded(None, None);
        let mut notices: Vec<String> = guarded.trouble.into_iter().collect();
        let cut = cuts(None, &guarded.rules, &guarded.connections).unwrap_or_default();
        let more = cut.len().saturating_sub(NAMED);
        notices.extend(cut.iter().take(NAMED).map(|cut| done(cut, false)));
        notices.extend((more > 0).then(|| format!("and {more} more SSH connections")));
        notices
    }
}

/// What a change would do, and to whom.
fn threat(cut: &Cut, is_own: bool) -> String {
    let Connection { peer, local } = cut.connection;
    let (address, port, to) = (peer.ip(), peer.port(), local.port());
    let place = match is_own {
        true => "from where you are logged in",
        false => "from where an SSH connection is open",
    };
    let ssh = if is_own { "SSH, " } else { "" };
    let session = format!("{place} ({ssh}{address} port {port} to port {to})");
    let what = match &cut.cause {
        Cause::Deny => "deny",
        Cause::Block => "a block",
        Cause::Gate(limit) => {
            return format!(
                "`from` of limit `{limit}` does not name {address}, {session}: \
                 the limit would cut that off"
            );
        }
    };
    let whom = match cut.network.map(shown) {
        Some(network) if network != address.to_string() => {
            format!("{network} contains {address},")
        }
        _ => format!("{address} is"),
    };
    format!("{whom} {session}: {what} would cut that off")
}

/// What a change did, and to whom.
fn done(cut: &Cut, is_own: bool) -> String {
    let Connection { peer, local } = cut.connection;
    let network = cut.network.map(shown).unwrap_or_default();
    let cause = match &cut.cause {
        Cause::Deny => format!("deny {network}"),
        Cause::Block => format!("the block of {network}"),
        Cause::Gate(limit) => format!("`from` of limit `{limit}`"),
    };
    let (address, port, to) = (peer.ip(), peer.port(), local.port());
    let yours = if is_own { "your " } else { "the " };
    format!("{cause} cuts off {yours}SSH connection from {address} port {port} to port {to}")
}
