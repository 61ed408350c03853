//! Connections of those who are blocked at the NIC. No packet of theirs arrives any more, so the
//! server would hold each until it gives up; they are closed instead, where the kernel can do
//! that, on a thread of its own.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use limiter_common::block::Owner;

use super::Keeper;
use crate::dataplane::model::BlockState;
use crate::nic::sockets::Connection;
use crate::policy::{Edge, Protocol};

/// Blocks that may wait; what is more leaves its connections to the server.
const MOST_WAITING: usize = 65_536;

/// What the server still answers may leave meanwhile, the answer to the last request among it.
const GRACE: Duration = Duration::from_millis(50);

/// The connections of a host can be many to look through: so many times as long as that took
/// passes before it is done again.
const REST: u32 = 10;

/// Closes connections that it is asked about, and says how many ([`crate::nic::sockets::close`]).
pub type Close = dyn Fn(&dyn Fn(&Connection) -> bool) -> io::Result<u64> + Send;

/// Whom a block cuts off, and from what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Severed {
    peer: IpNet,
    /// Of this host; empty: all.
    ports: Vec<RangeInclusive<u16>>,
    /// Addresses of this host; empty: all.
    to: Vec<IpNet>,
    /// Ports of this host that are spared: who is logged in there stays so, until the block ends.
    spared: Arc<[u16]>,
}

impl Severed {
    /// What a block leaves no packet of. `None`: all of it arrives, or it is no TCP.
    fn of(block: &BlockState, edge: &Edge, spared: &Arc<[u16]>) -> Option<Self> {
        if block.dry || block.owner == Owner::Kernel || block.remaining.is_zero() {
            return None;
        }
        let (ports, to) = match &block.limit {
            None => Default::default(),
            Some(name) => {
                let limit = edge.limits.iter().find(|limit| limit.name == *name)?;
                if !matches!(limit.protocol, Protocol::Tcp | Protocol::Any) {
                    return None;
                }
                (limit.ports.clone(), limit.to.clone())
            }
        };
        Some(Self {
            peer: block.network,
            ports,
            to,
            spared: Arc::clone(spared),
        })
    }

    fn covers(&self, connection: &Connection) -> bool {
        let (address, port) = (connection.local.ip(), connection.local.port());
        !connection.is_inside()
            && !self.spared.contains(&port)
            && (self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(&port)))
            && (self.to.is_empty() || self.to.iter().any(|network| network.contains(&address)))
    }
}

/// Many of them, to be found by the other end of a connection.
#[derive(Debug, Default)]
struct AllSevered {
    by_peer: HashMap<IpNet, Vec<Severed>>,
    prefixes: BTreeSet<u8>,
}

impl AllSevered {
    fn add(&mut self, severed: Severed) {
        self.prefixes.insert(severed.peer.prefix_len());
        let same = self.by_peer.entry(severed.peer.trunc()).or_default();
        if !same.contains(&severed) {
            same.push(severed);
        }
    }

    fn covers(&self, connection: &Connection) -> bool {
        self.around(connection.peer.ip())
            .any(|severed| severed.covers(connection))
    }

    fn around(&self, peer: IpAddr) -> impl Iterator<Item = &Severed> {
        let networks = self.prefixes.iter();
        let networks = networks.filter_map(move |prefix| IpNet::new(peer, *prefix).ok());
        let found = networks.filter_map(|network| self.by_peer.get(&network.trunc()));
        found.flatten()
    }
}

/// Closes the connections of whom it is told. Dropping it ends its thread.
#[derive(Debug)]
pub struct Closer {
    waiting: SyncSender<Severed>,
    closed: Arc<AtomicU64>,
}

impl Closer {
    /// Starts its thread.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn start(close: Box<Close>) -> io::Result<Self> {
        let (waiting, severed) = sync_channel(MOST_WAITING);
        let closed = Arc::default();
        let count = Arc::clone(&closed);
        let thread = thread::Builder::new().name("closer".to_owned());
        thread.spawn(move || run(&severed, &*close, &count))?;
        Ok(Self { waiting, closed })
    }

    /// Connections closed so far.
    pub(super) fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }
}

fn run(waiting: &Receiver<Severed>, close: &Close, closed: &AtomicU64) {
    let mut is_able = true;
    while let Ok(first) = waiting.recv() {
        thread::sleep(GRACE);
        let mut all = AllSevered::default();
        all.add(first);
        waiting.try_iter().for_each(|severed| all.add(severed));
        let begun = Instant::now();
        match close(&|connection| all.covers(connection)) {
            Ok(count) => {
                closed.fetch_add(count, Ordering::Relaxed);
                is_able = true;
            }
            // Each block would say the same.
            Err(error) if is_able => {
                tracing::warn!(
                    %error,
                    "connections of blocked sources stay open until the server gives them up; \
                     closing them takes CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY"
                );
                is_able = false;
            }
            Err(_) => {}
        }
        thread::sleep(begun.elapsed() * REST);
    }
}

impl Keeper {
    /// Has connections closed whose packets are dropped from now on.
    pub fn set_closer(&mut self, closer: Closer) {
        self.closer = Some(closer);
    }

    /// Has the connections closed that blocks leave no packet of.
    pub(super) fn sever(&self, blocks: &[BlockState]) {
        let Some(closer) = &self.closer else { return };
        let edge = &self.policy.edge;
        let spared: Arc<[u16]> = edge.safety.ssh_ports.as_slice().into();
        let severed = blocks.iter();
        for severed in severed.filter_map(|block| Severed::of(block, edge, &spared)) {
            // So many at once are a flood, whose connections the server gives up.
            let _is_full = closer.waiting.try_send(severed);
        }
    }

    /// Connections closed since the start.
    pub(super) fn connections_closed(&self) -> u64 {
        self.closer.as_ref().map_or(0, Closer::closed)
    }
}
