//! Which open connections a change would cut off: a packet of each is judged
//! by the very function that the kernel program calls, under the rules of
//! before and of after.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use limiter_common::block::{Block, BlockKey, DRY, Owner};
use limiter_common::time::{Time, UNITS_PER_NS};
use limiter_common::verdict::{Action, Outcome, Reason};

use crate::dataplane::model::BlockState;
use crate::image::{Image, ImageError, Slots, network_parts};
use crate::nic::sockets::Connection;
use crate::policy::{CLOCK_STEP, Edge, Policy, Tables};
use crate::replay::{CutFrame, MemoryTables};

/// The addresses at the other ends of connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Vec<IpAddr>);

impl Peers {
    pub(super) fn of(connections: &[Connection]) -> Self {
        let mut addresses: Vec<IpAddr> = connections.iter().map(|it| it.peer.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self(addresses)
    }

    /// Whether a network contains one of them.
    pub(super) fn any_in(&self, network: &IpNet) -> bool {
        let first = self.0.partition_point(|peer| *peer < network.network());
        (self.0.get(first)).is_some_and(|peer| *peer <= network.broadcast())
    }

    /// The networks that contain one of them.
    pub(super) fn near(&self, networks: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
        let networks = networks.into_iter();
        networks.filter(|network| self.any_in(network)).collect()
    }

    /// Every network that contains one of them, on whatever list it may be.
    pub(super) fn around(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().flat_map(|peer| {
            let widest = IpNet::from(*peer);
            (0..=widest.max_prefix_len())
                .filter_map(|prefix| IpNet::new(*peer, prefix).ok())
                .map(|network| network.trunc())
        })
    }
}

/// All that decides about the packets of a few peers: a policy with only those
/// entries of its lists that contain one, run-time entries included, and the
/// blocks that do.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) blocks: Vec<BlockState>,
}

impl Rules {
    pub(super) fn new(policy: &Policy, allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        let edge = &policy.edge;
        // Small tables: there are few packets, and each source is asked once.
        let edge = Edge {
            interfaces: Vec::new(),
            sources: 1_024,
            allow,
            deny,
            allow_from: Arc::default(),
            deny_from: Arc::default(),
            flood: edge.flood.clone(),
            safety: edge.safety.clone(),
            tables: Tables {
                blocks_kernel: 1,
                recent: 1_024,
                ..edge.tables
            },
            limits: edge.limits.clone(),
            ..*edge
        };
        Self {
            policy: Policy {
                edge,
                metrics: policy.metrics.clone(),
                control: policy.control.clone(),
                state: policy.state.clone(),
                decide: None,
                notify: None,
            },
            blocks: Vec::new(),
        }
    }

    /// What drops the packets of each connection, in their order. Budgets do
    /// not: what runs out of one gets through again.
    fn judge(&self, connections: &[Connection]) -> Result<Vec<Option<Cause>>, ImageError> {
        let edge = &self.policy.edge;
        let step_ns = CLOCK_STEP.as_nanos() as u64;
        let mut slots = Slots::default();
        let image = Image::compile(&self.policy, &edge.allow, &edge.deny, &mut slots, step_ns)?;
        let mut tables = MemoryTables::new(image, edge, 1);
        for state in &self.blocks {
            let limit = match (&state.limit, state.owner) {
                // The kernel's name the limit that was exceeded.
                (None, _) | (_, Owner::Kernel) => 0,
                (Some(name), _) => match slots.find(name) {
                    Some(slot) => slot as u32 + 1,
                    // Ended with its limit.
                    None => continue,
                },
            };
            let (address, prefix) = network_parts(&state.network);
            let block = Block {
                expires_step: u64::MAX,
                flags: if state.dry { DRY } else { 0 },
                owner: state.owner as u32,
            };
            // Where it has no room here it has none in the kernel.
            let _fits = tables.block(BlockKey::new(address, prefix, limit), block);
        }
        let now = Time::new(1, step_ns * UNITS_PER_NS);
        let causes = connections.iter().map(|connection| {
            let frame = frame(connection);
            let verdict = tables.judge(&mut CutFrame::new(&frame, frame.len()), now);
            let dropped = |reason| verdict.outcome == Outcome::new(Action::Drop, reason);
            if dropped(Reason::Deny) {
                Some(Cause::Deny)
            } else if dropped(Reason::Block) {
                Some(Cause::Block)
            } else if dropped(Reason::NotFrom) {
                let limit = slots.name(verdict.limit as usize);
                Some(Cause::Gate(limit.unwrap_or_default().to_owned()))
            } else {
                None
            }
        });
        Ok(causes.collect())
    }

    /// The entry of deny, or the block, that says so of this peer; if possible
    /// one that was not there `before`.
    fn named(&self, cause: &Cause, peer: IpAddr, before: Option<&Self>) -> Option<IpNet> {
        let networks = |rules: &Self| -> Vec<IpNet> {
            let named = match cause {
                Cause::Deny => rules.policy.edge.deny.clone(),
                Cause::Block => rules.blocks.iter().map(|it| it.network).collect(),
                Cause::Gate(_) => Vec::new(),
            };
            let near = named.into_iter().filter(|it| it.contains(&peer));
            near.collect()
        };
        let (old, new) = (before.map(networks).unwrap_or_default(), networks(self));
        let added = new.iter().find(|network| !old.contains(network));
        added.or(new.first()).copied()
    }
}

/// Why packets are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Deny,
    Block,
    /// The gate (`from`) of this limit.
    Gate(String),
}

/// A connection that a change cuts off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) connection: Connection,
    pub(super) cause: Cause,
    /// The entry of deny, or the block.
    pub(super) network: Option<IpNet>,
}

/// The connections that get through under `before`, or that nothing was known of
/// then, and not under `after`.
///
/// # Errors
/// A policy cannot be compiled.
pub(super) fn cuts(
    before: Option<&Rules>,
    after: &Rules,
    connections: &[Connection],
) -> Result<Vec<Cut>, ImageError> {
    let old = match before {
        Some(rules) => rules.judge(connections)?,
        None => vec![None; connections.len()],
    };
    let new = after.judge(connections)?;
    let cut = connections.iter().zip(old).zip(new);
    let cut = cut.filter_map(|((connection, old), new)| {
        let cause = new.filter(|_| old.is_none())?;
        Some(Cut {
            connection: *connection,
            network: after.named(&cause, connection.peer.ip(), before),
            cause,
        })
    });
    Ok(cut.collect())
}

/// A packet that the peer sends within a connection: no data, and ACK alone.
fn frame(connection: &Connection) -> Vec<u8> {
    const TCP: u8 = 6;
    const TCP_BYTES: u8 = 20;
    const HOPS: u8 = 64;
    let mut frame = vec![0; 12];
    match (connection.peer, connection.local) {
        (SocketAddr::V4(peer), SocketAddr::V4(local)) => {
            frame.extend([
                8,
                0,
                0x45,
                0,
                0,
                20 + TCP_BYTES,
                0,
                0,
                0,
                0,
                HOPS,
                TCP,
                0,
                0,
            ]);
            frame.extend(peer.ip().octets());
            frame.extend(local.ip().octets());
        }
        (peer, local) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, TCP_BYTES, TCP, HOPS]);
            for end in [peer.ip(), local.ip()] {
                let address = match end {
                    IpAddr::V6(address) => address,
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                };
                frame.extend(address.octets());
            }
        }
    }
    frame.extend(connection.peer.port().to_be_bytes());
    frame.extend(connection.local.port().to_be_bytes());
    const ACK: u8 = 0x10;
    frame.extend([
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        1,
        TCP_BYTES << 2,
        ACK,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    frame
}
