//! The allow and deny lists: entries of the file and of run time as one set.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::clock::{Now, seconds_left, timestamp};
use crate::control::api::ListRow;

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Never limited, denied or blocked.
    Allow,
    /// Always dropped.
    Deny,
}

impl ListKind {
    /// The word used in commands, answers and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

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
    /// The list of a policy file, the run-time entries kept.
    pub(super) fn with_file(&self, file: &[IpNet]) -> Self {
        Self {
            file: file.iter().copied().collect(),
            runtime: self.runtime.clone(),
        }
    }

    /// Puts an entry in, or changes its expiry and reason.
    pub(super) fn insert(&mut self, network: IpNet, listed: Listed) {
        self.runtime.insert(network, listed);
    }

    /// Takes a run-time entry out; `false`: there was none.
    pub(super) fn remove(&mut self, network: IpNet) -> bool {
        self.runtime.remove(&network).is_some()
    }

    pub(super) fn in_file(&self, network: IpNet) -> bool {
        self.file.contains(&network)
    }

    /// All networks once, sorted.
    pub(super) fn networks(&self) -> BTreeSet<IpNet> {
        let mut all = self.file.clone();
        all.extend(self.runtime.keys().copied());
        all
    }

    /// How many networks there are.
    pub(super) fn len(&self) -> usize {
        let twice = |network: &&IpNet| self.file.contains(network);
        self.file.len() + self.runtime.len() - self.runtime.keys().filter(twice).count()
    }

    /// Takes out the run-time entries whose time is over.
    pub(super) fn expire(&mut self, now: Now) -> Vec<IpNet> {
        let is_over = |listed: &Listed| {
            listed
                .until
                .is_some_and(|until| until.instant <= now.instant)
        };
        let over: Vec<IpNet> = self
            .runtime
            .iter()
            .filter(|(_, listed)| is_over(listed))
            .map(|(network, _)| *network)
            .collect();
        for network in &over {
            self.runtime.remove(network);
        }
        over
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
/// look-ups as there are shorter prefixes, however large the set is.
#[derive(Debug, Default)]
pub(super) struct Cover(HashSet<IpNet>);

impl Cover {
    pub(super) fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// The widest network of the set that contains `network`.
    pub(super) fn of(&self, network: IpNet) -> Option<IpNet> {
        (0..=network.prefix_len())
            .filter_map(|length| IpNet::new(network.addr(), length).ok())
            .map(|wider| wider.trunc())
            .find(|wider| self.0.contains(wider))
    }
}

/// What the data plane gets: both lists sorted, and of deny only what an allow
/// does not take the effect of anyway.
pub(super) fn effective(allow: &NetworkList, deny: &NetworkList) -> (Vec<IpNet>, Vec<IpNet>) {
    let allow = allow.networks();
    let cover = Cover::new(allow.iter().copied());
    let deny = deny
        .networks()
        .into_iter()
        .filter(|network| cover.of(*network).is_none())
        .collect();
    (allow.into_iter().collect(), deny)
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
        let mut list = NetworkList::default().with_file(&[net("10.0.0.0/8"), net("2001:db8::/32")]);
        list.insert(net("10.0.0.0/8"), listed(now, None));
        list.insert(net("192.0.2.1/32"), listed(now, None));
        assert_eq!(list.len(), 3);
        assert_eq!(list.networks().len(), 3);
        assert_eq!(list.rows(now, now.wall).len(), 4);
        assert!(list.remove(net("10.0.0.0/8")) && list.in_file(net("10.0.0.0/8")));
        assert!(!list.remove(net("10.0.0.0/8")));
    }

    #[test]
    fn entries_end_exactly_when_their_time_is_over() {
        let now = Now::read();
        let mut list = NetworkList::default();
        list.insert(net("192.0.2.1/32"), listed(now, Some(60)));
        list.insert(net("192.0.2.2/32"), listed(now, None));
        let just_before = now.after(Duration::from_millis(59_999));
        assert!(list.expire(just_before).is_empty());
        assert_eq!(
            list.rows(just_before, now.wall)[0].remaining_seconds,
            Some(1)
        );
        let over = list.expire(now.after(Duration::from_secs(60)));
        assert_eq!(over, [net("192.0.2.1/32")]);
        assert!(
            list.expire(now.after(Duration::from_secs(1 << 40)))
                .is_empty()
        );
    }

    #[test]
    fn a_cover_finds_the_widest() {
        let cover = Cover::new([net("10.0.0.0/8"), net("10.1.0.0/16"), net("::/0")]);
        assert_eq!(cover.of(net("10.1.2.3/32")), Some(net("10.0.0.0/8")));
        assert_eq!(cover.of(net("10.0.0.0/8")), Some(net("10.0.0.0/8")));
        assert_eq!(cover.of(net("0.0.0.0/0")), None);
        assert_eq!(cover.of(net("2001:db8::/32")), Some(net("::/0")));
    }

    #[test]
    fn an_allow_takes_what_lies_in_it_off_deny() {
        let allow = NetworkList::default().with_file(&[net("10.0.0.0/8")]);
        let deny = NetworkList::default().with_file(&[net("10.1.0.0/16"), net("0.0.0.0/0")]);
        let (allow, deny) = effective(&allow, &deny);
        assert_eq!(
            (allow, deny),
            (vec![net("10.0.0.0/8")], vec![net("0.0.0.0/0")])
        );
    }
}
