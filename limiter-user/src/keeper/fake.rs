//! A data plane of plain vectors, and a keeper over it, for tests.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use limiter_common::sample::Refusals;

use tokio::sync::watch;

use super::interfaces::Present;
use super::records::{Change, Progress, Receipt, Records, Saved};
use super::{Keeper, Now, Plane, PlaneError, Recalled};
use crate::dataplane::model::{
    AttachedMode, Attachment, BlockRequest, BlockState, Counter, FloodState, MapUse, SampledPacket,
    SourceCount, SourceState, Term,
};
use crate::image::{ListChange, ListKind};
use crate::nic::{Link, sockets::Connection};
use crate::policy::{Mode, NoFiles, Policy, parse};
use crate::store::audit::Audit;

/// What the fake was told; shared with the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) attached: Vec<Attachment>,
    pub(crate) policy: Option<Policy>,
    /// What is in force for a time; the test lets it end.
    pub(crate) term: Option<(Term, Duration)>,
    /// The same of the daemon before.
    pub(crate) term_before: Option<(Term, Duration)>,
    pub(crate) lists: (Vec<IpNet>, Vec<IpNet>),
    pub(crate) blocks: Vec<BlockState>,
    pub(crate) counters: Vec<Counter>,
    pub(crate) sources: Vec<SourceState>,
    pub(crate) flood: FloodState,
    pub(crate) sampled: Refusals,
    pub(crate) samples: Vec<SampledPacket>,
    /// Where the program sat once.
    pub(crate) known: Vec<String>,
    /// Where somebody else has taken the program off.
    pub(crate) taken_off: Vec<String>,
    /// Pins that somebody removed.
    pub(crate) missing: usize,
    pub(crate) lineage: u64,
    /// For this many blocks.
    pub(crate) room: usize,
    /// What was stored before.
    pub(crate) saved: Option<Saved>,
    /// What was handed over to be stored.
    pub(crate) changes: Vec<Change>,
    /// What was handed over for the audit log.
    pub(crate) audit: Audit,
    /// Why nothing can be stored.
    pub(crate) trouble: Option<&'static str>,
    /// The disk does not answer.
    pub(crate) hangs: bool,
    /// How the interfaces hang together; those that are not named stand alone.
    pub(crate) links: Vec<Link>,
    /// The interfaces that there are, instead of [`host`].
    pub(crate) present: Option<Vec<Present>>,
    /// The TCP connections that are established; `None`: the kernel does not say.
    pub(crate) connections: Option<Vec<Connection>>,
    /// The next change fails with these words.
    pub(crate) failure: Option<&'static str>,
}

pub(crate) type Shared = Arc<Mutex<Told>>;

#[derive(Debug)]
pub(crate) struct Fake(pub(crate) Shared);

impl Fake {
    fn change<R>(&self, change: impl FnOnce(&mut Told) -> R) -> Result<R, PlaneError> {
        let mut told = self.0.lock().unwrap();
        match told.failure {
            Some(words) => Err(words.into()),
            None => Ok(change(&mut told)),
        }
    }
}

impl Plane for Fake {
    fn attach(&mut self, interface: &str, _mode: Mode) -> Result<Attachment, PlaneError> {
        if interface == "taken0" {
            return Err("another XDP program sits on taken0".into());
        }
        let present = self.0.lock().unwrap().present.clone();
        let present = present.unwrap_or_else(host);
        let index = present.iter().find(|i| i.name == interface).unwrap().index;
        let attachment = Attachment {
            interface: interface.to_owned(),
            index,
            mode: AttachedMode::Generic,
            fallback: Some("the driver has no XDP".to_owned()),
        };
        self.change(|told| told.attached.push(attachment.clone()))?;
        Ok(attachment)
    }

    fn detach(&mut self, interface: &str) -> Result<(), PlaneError> {
        self.change(|told| told.attached.retain(|a| a.interface != interface))
    }

    fn take_over(&mut self) -> Result<(), PlaneError> {
        self.change(|_| ())
    }

    fn leave(&mut self) -> Result<(), PlaneError> {
        Ok(())
    }

    fn mend(&mut self) -> Result<usize, PlaneError> {
        self.change(|told| std::mem::take(&mut told.missing))
    }

    fn rename(&mut self, index: u32, interface: &str) -> Result<(), PlaneError> {
        self.change(|told| {
            let mut attached = told.attached.iter_mut();
            let found = attached.find(|it| it.index == index).unwrap();
            found.interface = interface.to_owned();
        })
    }

    fn forget_detached(&mut self) -> Result<Vec<Attachment>, PlaneError> {
        self.change(|told| {
            let is_gone = |it: &Attachment| told.taken_off.contains(&it.interface);
            let (gone, left) = told.attached.drain(..).partition(is_gone);
            told.attached = left;
            gone
        })
    }

    fn knows(&self, interface: &str) -> bool {
        let told = self.0.lock().unwrap();
        told.known.iter().any(|known| known == interface)
    }

    fn attachments(&self) -> Vec<Attachment> {
        self.0.lock().unwrap().attached.clone()
    }

    fn mtu(&self, interface: &str) -> Result<u32, PlaneError> {
        Ok(if interface == "eth1" { 9_000 } else { 1_500 })
    }

    fn links(&self) -> Result<Vec<Link>, PlaneError> {
        Ok(self.0.lock().unwrap().links.clone())
    }

    fn apply(&mut self, policy: &Policy) -> Result<(), PlaneError> {
        self.change(|told| {
            told.lists = (policy.edge.allow.clone(), policy.edge.deny.clone());
            told.policy = Some(policy.clone());
            told.term = None;
        })
    }

    fn apply_for(
        &mut self,
        policy: &Policy,
        lasting: Duration,
        term: Term,
    ) -> Result<(), PlaneError> {
        self.apply(policy)?;
        self.change(|told| told.term = Some((term, lasting)))
    }

    fn keep(&mut self) -> Result<bool, PlaneError> {
        self.change(|told| told.term.take().is_some())
    }

    fn prolong(&mut self, lasting: Duration) -> Result<bool, PlaneError> {
        self.change(|told| {
            let Some((_, left)) = &mut told.term else {
                return false;
            };
            *left = lasting;
            true
        })
    }

    fn term_left(&self) -> Result<Option<(Term, Duration)>, PlaneError> {
        Ok(self.0.lock().unwrap().term)
    }

    fn term_before(&self) -> Option<(Term, Duration)> {
        self.0.lock().unwrap().term_before
    }

    fn change_lists(&mut self, changes: &[ListChange]) -> Result<(), PlaneError> {
        self.change(|told| {
            for change in changes {
                let list = match change.list {
                    ListKind::Allow => &mut told.lists.0,
                    ListKind::Deny => &mut told.lists.1,
                };
                list.retain(|network| *network != change.network);
                if change.listed {
                    list.push(change.network);
                }
                list.sort();
            }
        })
    }

    fn block_many(&mut self, requests: &[BlockRequest]) -> Result<Vec<BlockState>, PlaneError> {
        self.change(|told| {
            let states: Vec<BlockState> = requests
                .iter()
                .map(|request| BlockState {
                    network: request.network,
                    owner: request.owner,
                    limit: request.limit.clone(),
                    remaining: request.lasting.unwrap_or(Duration::from_secs(900)),
                    dry: false,
                })
                .collect();
            for state in &states {
                told.blocks
                    .retain(|old| (old.network, &old.limit) != (state.network, &state.limit));
                // What is to last no time has ended.
                if !state.remaining.is_zero() {
                    told.blocks.push(state.clone());
                }
            }
            states
        })
    }

    fn restore(&mut self, blocks: &[BlockState]) -> Result<Vec<BlockState>, PlaneError> {
        self.change(|told| {
            let room = told.room.saturating_sub(told.blocks.len());
            let (fit, refused) = blocks.split_at(room.min(blocks.len()));
            told.blocks.extend_from_slice(fit);
            refused.to_vec()
        })
    }

    fn lineage(&self) -> u64 {
        self.0.lock().unwrap().lineage
    }

    fn block_of(
        &self,
        network: IpNet,
        limit: Option<&str>,
    ) -> Result<Option<BlockState>, PlaneError> {
        let blocks = self.blocks()?.into_iter();
        let mut same = blocks.filter(|it| it.network == network && it.limit.as_deref() == limit);
        Ok(same.find(|it| it.owner != limiter_common::block::Owner::Kernel))
    }

    fn unblock(&mut self, network: IpNet, limit: Option<&str>) -> Result<bool, PlaneError> {
        self.change(|told| {
            let before = told.blocks.len();
            told.blocks.retain(|b| {
                b.network != network || (limit.is_some() && b.limit.as_deref() != limit)
            });
            told.blocks.len() < before
        })
    }

    fn blocks(&self) -> Result<Vec<BlockState>, PlaneError> {
        Ok(self.0.lock().unwrap().blocks.clone())
    }

    fn expire_blocks(&mut self) -> Result<usize, PlaneError> {
        Ok(0)
    }

    fn counters(&self) -> Result<Vec<Counter>, PlaneError> {
        Ok(self.0.lock().unwrap().counters.clone())
    }

    fn flood(&self) -> Result<FloodState, PlaneError> {
        Ok(self.0.lock().unwrap().flood)
    }

    fn sources(&self) -> Result<Vec<SourceState>, PlaneError> {
        Ok(self.0.lock().unwrap().sources.clone())
    }

    fn sample(&mut self, wanted: Refusals) -> Result<(), PlaneError> {
        self.change(|told| told.sampled = wanted)
    }

    fn samples(&mut self) -> Result<Vec<SampledPacket>, PlaneError> {
        self.change(|told| std::mem::take(&mut told.samples))
    }

    fn source_counts(&self) -> Result<Vec<SourceCount>, PlaneError> {
        let sources = &self.0.lock().unwrap().sources;
        let count = |(place, state): (u64, &SourceState)| SourceCount {
            key: (place, 0),
            passed: state.passed,
            dropped: state.dropped,
            unsettled: 0,
            refusal: 0,
        };
        Ok((0..).zip(sources).map(count).collect())
    }

    fn source(&self, count: &SourceCount) -> Option<SourceState> {
        let place = usize::try_from(count.key.0).unwrap();
        self.0.lock().unwrap().sources.get(place).cloned()
    }

    fn capacities(&self) -> Result<Vec<MapUse>, PlaneError> {
        let map = |map, entries| MapUse {
            map,
            capacity: 1_024,
            entries,
        };
        let blocks = self.0.lock().unwrap().blocks.len() as u64;
        Ok(vec![
            map("blocks_operator", Some(blocks)),
            map("sources", None),
        ])
    }
}

/// Records of what was handed over.
struct FakeRecords {
    told: Shared,
    handed: u64,
    progress: watch::Sender<Progress>,
}

impl Records for FakeRecords {
    fn saved(&mut self) -> Option<Saved> {
        self.told.lock().unwrap().saved.take()
    }

    fn hand_over(&mut self, change: Change, _now: Now) {
        let mut told = self.told.lock().unwrap();
        self.handed += 1;
        told.changes.push(change);
        if told.hangs {
            return;
        }
        let trouble = told.trouble.map(str::to_owned);
        self.progress.send_modify(|progress| {
            progress.handled = self.handed;
            if trouble.is_none() {
                progress.stored = self.handed;
            }
            progress.trouble = trouble;
        });
    }

    fn receipt(&self) -> Receipt {
        Receipt::new(self.handed, self.progress.subscribe())
    }

    fn trouble(&self) -> Option<String> {
        self.told.lock().unwrap().trouble.map(str::to_owned)
    }

    fn audit(&self) -> Audit {
        self.told.lock().unwrap().audit.clone()
    }
}

/// The interfaces of the tests.
pub(crate) fn host() -> Vec<Present> {
    let names = ["lo", "eth0", "eth1", "taken0"];
    let indexed = names.into_iter().zip(1..);
    indexed
        .map(|(name, index)| Present {
            name: name.to_owned(),
            index,
            is_up: true,
        })
        .collect()
}

pub(crate) const POLICY: &str = r#"
[edge]
interfaces = ["eth0"]
allow = ["10.0.0.0/8"]
deny = ["198.51.100.0/24"]
[[edge.limit]]
name = "https"
protocol = "tcp"
ports = [443]
packets = { rate = "5000/s", burst = 10_000 }
[[edge.limit]]
name = "admin"
protocol = "tcp"
ports = [4434]
from = ["10.0.0.0/8"]
packets = { rate = "50/s", burst = 100 }
"#;

pub(crate) fn policy(text: &str) -> Policy {
    parse("limiter.toml", text, &NoFiles).unwrap().policy
}

/// A keeper of [`POLICY`] that nothing was attached for yet.
pub(crate) fn keeper(config: PathBuf, now: Now) -> (Keeper, Shared) {
    let told = Told {
        room: 1_000,
        connections: Some(Vec::new()),
        ..Told::default()
    };
    begun(config, policy(POLICY), told, now)
}

/// A keeper of a policy that begins with what `told` has saved.
pub(crate) fn begun(config: PathBuf, policy: Policy, told: Told, now: Now) -> (Keeper, Shared) {
    let told = Arc::new(Mutex::new(told));
    let records = FakeRecords {
        told: Arc::clone(&told),
        handed: 0,
        progress: watch::Sender::default(),
    };
    let recalled = Recalled::new(Box::new(records), &policy, now);
    let edge = recalled.effective(&policy).edge;
    told.lock().unwrap().lists = (edge.allow, edge.deny);
    let plane = Box::new(Fake(Arc::clone(&told)));
    let shared = Arc::clone(&told);
    let interfaces = Box::new(move || {
        let present = shared.lock().unwrap().present.clone();
        Ok(present.unwrap_or_else(host))
    });
    let shared = Arc::clone(&told);
    let sessions = Box::new(move |ports: &[u16]| {
        let connections = shared.lock().unwrap().connections.clone();
        let mut connections = connections.ok_or(std::io::ErrorKind::PermissionDenied)?;
        connections.retain(|it| ports.contains(&it.local.port()));
        Ok(connections)
    });
    let keeper = Keeper::new(plane, interfaces, sessions, config, policy, recalled, now);
    (keeper, told)
}
