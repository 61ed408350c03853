//! The allow and deny lists: entries of the file and of run time as one set.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::clock::{Now, seconds_left, timestamp};
use crate::control::api::ListRow;

/// A run-time entry of a list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) since: SystemTime,
    /// `None`: for good.
    pub(super) until: Option<Now>,
    pub(super) reason: Option<String>,
    pub(super) uid: u32,
}

/// One list.
#[derive(Clone, Debug, Default)]
pub(super) struct NetworkList {
    file: BTreeSet<IpNet>,
    runtime: BTreeMap<IpNet, Listed>,
}

impl NetworkList {
    /// The list of a policy file, without run-time entries.
    pub(super) fn of_file(file: &[IpNet]) -> Self {
        let mut list = Self::default();
        list.set_file(file);
        list
    }

    /// The list of another policy file; the run-time entries stay.
    pub(super) fn set_file(&mut self, file: &[IpNet]) {
        self.file = file.iter().copied().collect();
    }

    /// Lets the files name a network, or no longer.
    pub(super) fn change_file(&mut self, network: IpNet, listed: bool) {
        if listed {
            self.file.insert(network);
        } else {
            self.file.remove(&network);
        }
    }

    /// The networks of the files, sorted.
    pub(super) fn file(&self) -> impl Iterator<Item = IpNet> {
        self.file.iter().copied()
    }

    /// Makes this the run-time entry of a network; `None`: there is none from
    /// now on. Returns what it was before.
    pub(super) fn replace(&mut self, network: IpNet, entry: Option<Listed>) -> Option<Listed> {
        match entry {
            Some(listed) => self.runtime.insert(network, listed),
            None => self.runtime.remove(&network),
        }
    }

    /// Whether file or run time name exactly this network.
    pub(super) fn contains(&self, network: IpNet) -> bool {
        self.file.contains(&network) || self.runtime.contains_key(&network)
    }

    /// The widest network that contains this one: a look-up for each shorter prefix, however
    /// long the list is. Where many are asked for, [`Cover`] is faster.
    pub(super) fn widest(&self, network: IpNet) -> Option<IpNet> {
        (0..=network.prefix_len())
            .filter_map(|prefix| IpNet::new(network.addr(), prefix).ok())
            .map(|wider| wider.trunc())
            .find(|wider| self.contains(*wider))
    }

    /// Whether there is a run-time entry of exactly this network.
    pub(super) fn at_runtime(&self, network: IpNet) -> bool {
        self.runtime.contains_key(&network)
    }

    pub(super) fn in_file(&self, network: IpNet) -> bool {
        self.file.contains(&network)
    }

    /// The entries of run time, sorted.
    pub(super) fn entries(&self) -> impl Iterator<Item = (IpNet, &Listed)> {
        let entries = self.runtime.iter();
        entries.map(|(network, listed)| (*network, listed))
    }

    /// The networks of run time, sorted.
    pub(super) fn runtime(&self) -> impl Iterator<Item = IpNet> {
        self.runtime.keys().copied()
    }

    /// All networks once.
    pub(super) fn networks(&self) -> impl Iterator<Item = IpNet> {
        let more = self.runtime().filter(|network| !self.in_file(*network));
        self.file.iter().copied().chain(more)
    }

    /// How many networks there are.
    pub(super) fn len(&self) -> usize {
        let twice = |network: &&IpNet| self.file.contains(network);
        self.file.len() + self.runtime.len() - self.runtime.keys().filter(twice).count()
    }

    /// The run-time entries whose time is over.
    pub(super) fn over(&self, now: Now) -> Vec<IpNet> {
        let is_over = |listed: &Listed| {
            listed
                .until
                .is_some_and(|until| until.instant <= now.instant)
        };
        let all = self.runtime.iter();
        all.filter(|(_, listed)| is_over(listed))
            .map(|(network, _)| *network)
            .collect()
    }

    /// The entries as they are listed: those of the file, then for the same
    /// network that of run time.
    pub(super) fn rows(&self, now: Now, loaded: SystemTime) -> Vec<ListRow> {
        let file = self.file.iter().map(|network| ListRow {
            network: *network,
            origin: "file".to_owned(),
            since: timestamp(loaded),
            remaining_seconds: None,
            expires: None,
            reason: None,
            uid: None,
            overruled_by: None,
        });
        let runtime = self.runtime.iter().map(|(network, listed)| {
            let left = |until: Now| until.instant.saturating_duration_since(now.instant);
            ListRow {
                network: *network,
                origin: "runtime".to_owned(),
                since: timestamp(listed.since),
                remaining_seconds: listed.until.map(|until| seconds_left(left(until))),
                expires: listed.until.map(|until| timestamp(until.wall)),
                reason: listed.reason.clone(),
                uid: Some(listed.uid),
                overruled_by: None,
            }
        });
        let mut rows: Vec<ListRow> = file.chain(runtime).collect();
        rows.sort_by_key(|row| row.network);
        rows
    }
}

/// A set of networks that is asked which of them contains another: as many
/// look-ups as it has shorter prefixes, however large it is.
#[derive(Debug, Default)]
pub(crate) struct Cover {
    networks: HashSet<IpNet>,
    /// The prefix lengths of both families.
    prefixes: BTreeSet<u8>,
}

impl Cover {
    pub(crate) fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let networks: HashSet<IpNet> = networks.into_iter().collect();
        let prefixes = networks.iter().map(IpNet::prefix_len).collect();
        Self { networks, prefixes }
    }

    /// The widest network of the set that contains `network`.
    pub(crate) fn of(&self, network: IpNet) -> Option<IpNet> {
        self.prefixes
            .range(..=network.prefix_len())
            .filter_map(|prefix| IpNet::new(network.addr(), *prefix).ok())
            .map(|wider| wider.trunc())
            .find(|wider| self.networks.contains(wider))
    }
}

/// When something that lasts `lasting` from `now` ends.
pub(super) fn until(now: Now, lasting: Option<Duration>) -> Option<Now> {
    lasting.map(|duration| now.after(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn listed(now: Now, lasting: Option<u64>) -> Listed {
        Listed {
            since: now.wall,
            until: until(now, lasting.map(Duration::from_secs)),
            reason: None,
            uid: 0,
        }
    }

    #[test]
    fn file_and_run_time_are_one_set() {
        let now = Now::read();
        let (file, runtime) = (net("10.0.0.0/8"), net("192.0.2.1/32"));
        let mut list = NetworkList::of_file(&[file, net("2001:db8::/32")]);
        for network in [file, runtime] {
            let before = list.replace(network, Some(listed(now, None)));
            assert!(before.is_none() && list.contains(network) && list.at_runtime(network));
        }
        assert_eq!(list.len(), 3);
        assert_eq!(list.networks().count(), 3);
        assert_eq!(list.rows(now, now.wall).len(), 4);
        assert_eq!(list.widest(net("10.1.0.0/16")), Some(file));
        assert_eq!(list.widest(runtime), Some(runtime));
        assert_eq!(list.widest(net("192.0.2.0/24")), None);
        assert_eq!(
            list.widest(net("2001:db8:1::/64")),
            Some(net("2001:db8::/32"))
        );
        list.replace(net("192.0.2.0/24"), Some(listed(now, None)));
        assert_eq!(list.widest(runtime), Some(net("192.0.2.0/24")));
        list.replace(net("192.0.2.0/24"), None);
        for network in [file, runtime] {
            assert!(list.replace(network, None).is_some());
            assert!(list.replace(network, None).is_none() && !list.at_runtime(network));
        }
        assert!(list.contains(file) && !list.contains(runtime));
        list.set_file(&[]);
        assert!(!list.contains(file));
    }

    #[test]
    fn entries_end_exactly_when_their_time_is_over() {
        let now = Now::read();
        let mut list = NetworkList::default();
        list.replace(net("192.0.2.1/32"), Some(listed(now, Some(60))));
        list.replace(net("192.0.2.2/32"), Some(listed(now, None)));
        let just_before = now.after(Duration::from_millis(59_999));
        assert!(list.over(just_before).is_empty());
        assert_eq!(
            list.rows(just_before, now.wall)[0].remaining_seconds,
            Some(1)
        );
        for later in [60, 1 << 40] {
            let over = list.over(now.after(Duration::from_secs(later)));
            assert_eq!(over, [net("192.0.2.1/32")]);
        }
    }

    #[test]
    fn a_cover_finds_the_widest() {
        let cover = Cover::new([net("10.0.0.0/8"), net("10.1.0.0/16"), net("::/0")]);
        assert_eq!(cover.of(net("10.1.2.3/32")), Some(net("10.0.0.0/8")));
        assert_eq!(cover.of(net("10.0.0.0/8")), Some(net("10.0.0.0/8")));
        assert_eq!(cover.of(net("0.0.0.0/0")), None);
        assert_eq!(cover.of(net("2001:db8::/32")), Some(net("::/0")));
    }
}
