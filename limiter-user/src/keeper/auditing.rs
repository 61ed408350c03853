//! The audit log, as far as the keeper has to do with it: who changed what by hand, how
//! much is kept, and accounts that are to be forgotten.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::wanted::Wanted;
use super::{By, Keeper, Now};
use crate::control::api::AuditRow;
use crate::engine::normalised_account;
use crate::policy::units::duration_text;
use crate::policy::{Accounts, Policy};
use crate::store::audit::{Audit, Bounds, ByHand};

/// Entries of one order that have a row each. More of them have one together: an import
/// of a hundred thousand would leave no room for anything else.
const MOST_ROWS: usize = 1_000;

impl By {
    /// What this user has ordered, for the audit log.
    #[must_use]
    pub const fn hand(self, order: &'static str, now: Now) -> ByHand {
        ByHand::new(now.wall, self.uid, order)
    }
}

impl Keeper {
    /// What writes to the audit log.
    #[must_use]
    pub const fn audit(&self) -> &Audit {
        self.recording.audit()
    }

    /// In which directory the audit log is, and how accounts are compared.
    #[must_use]
    pub fn audit_place(&self) -> (PathBuf, Option<Accounts>) {
        let policy = &self.policy;
        let decide = policy.decide.as_ref();
        let accounts = decide.map(|decide| decide.accounts.clone());
        (policy.state.directory.clone(), accounts)
    }

    /// Has written down what somebody changed by hand.
    pub fn note_by_hand(&self, by_hand: ByHand) {
        self.audit().record_by_hand(by_hand);
    }

    /// The same of entries that one order has added.
    pub(super) fn note_entries(&self, order: &'static str, by: By, wanted: &[Wanted], now: Now) {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            return;
        };
        if wanted.len() > MOST_ROWS {
            let entries = wanted.len();
            return self.note_by_hand(ByHand {
                subject: Some(format!(
                    "{entries} networks, {} to {}",
                    first.network, last.network
                )),
                reason: first.reason.clone(),
                count: entries as u64,
                ..by.hand(order, now)
            });
        }
        for entry in wanted {
            let lasting = entry.lasting.map(|it| format!("for {}", duration_text(it)));
            let limit = entry.limit.as_ref().map(|limit| format!("limit {limit}"));
            let detail: Vec<String> = lasting.into_iter().chain(limit).collect();
            self.note_by_hand(ByHand {
                subject: Some(entry.network.to_string()),
                detail: Some(detail.join(", ")).filter(|detail| !detail.is_empty()),
                reason: entry.reason.clone(),
                ..by.hand(order, now)
            });
        }
    }

    /// Has an account forgotten by the audit log, as [`Audit::erase`]. That it was is
    /// written down, without its name.
    pub fn erase_account(
        &self,
        account: &str,
        by: By,
        now: Now,
    ) -> oneshot::Receiver<Result<u64, String>> {
        let (_, accounts) = self.audit_place();
        let account = normalised_account(accounts.as_ref(), account);
        tracing::info!(uid = by.uid, pid = by.pid, "audit erase");
        self.note_by_hand(by.hand("audit erase", now));
        if let Some(notifier) = self.notifier() {
            notifier.erase(&account);
        }
        self.audit().erase(&account)
    }

    /// How the audit log fares.
    pub(super) fn audit_row(&self) -> AuditRow {
        let health = self.audit().health();
        AuditRow {
            waiting: health.waiting as u64,
            dropped: health.dropped,
            error: health.trouble,
        }
    }

    /// Has as much of the audit log kept as the policy says.
    pub(super) fn keep_audit(&self) {
        self.audit().keep(bounds(&self.policy));
    }
}

/// How much of the audit log a policy keeps.
pub(super) const fn bounds(policy: &Policy) -> Bounds {
    Bounds {
        age: policy.state.retention,
        bytes: policy.state.audit_size,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::api::Entry;
    use crate::keeper::ListKind;
    use crate::keeper::fake::{POLICY, Shared, keeper};
    use crate::policy::{NoFiles, parse};

    const BY: By = By::user(1_000, Some(4_711));

    fn entry(network: &str, reason: Option<&str>) -> Entry {
        Entry {
            network: network.to_owned(),
            lasting: Some("10m".to_owned()),
            reason: reason.map(str::to_owned),
            limit: None,
        }
    }

    fn noted(told: &Shared) -> Vec<String> {
        told.lock().unwrap().audit.by_hand()
    }

    /// Each in the words of the command that does it; what is refused changes nothing.
    #[test]
    fn every_change_by_hand_is_noted() {
        let now = Now::read();
        let (mut keeper, told) = keeper("/etc/limiter.toml".into(), now);
        keeper.start(true, now).unwrap();
        let scanner = [entry("192.0.2.1", Some("scanner"))];
        keeper.add_blocks(&scanner, BY, now).unwrap();
        let confined = Entry {
            limit: Some("https".to_owned()),
            lasting: None,
            ..entry("192.0.2.2", None)
        };
        keeper.import_blocks(&[confined], BY, now).unwrap();
        keeper.delete_block("192.0.2.1", None, BY, now).unwrap();
        let listed = [entry("203.0.113.0/24", None)];
        for kind in [ListKind::Deny, ListKind::Allow] {
            keeper.add_to_list(kind, &listed, BY, now).unwrap();
            let removed = keeper.delete_from_list(kind, "203.0.113.0/24", BY, now);
            removed.unwrap();
        }
        let inside = [entry("10.0.0.1", None)];
        keeper.add_blocks(&inside, BY, now).unwrap_err();
        keeper
            .reload(parse("limiter.toml", POLICY, &NoFiles), BY, now)
            .unwrap();
        keeper.pause(Duration::from_mins(5), BY, now).unwrap();
        keeper.resume(BY, now).unwrap();
        keeper.detach(Some("eth0"), BY, now).unwrap();
        keeper.stop(BY).unwrap();
        assert_eq!(
            noted(&told),
            [
                "1000 block add; 192.0.2.1/32; for 10m; scanner",
                "1000 block import; 192.0.2.2/32; limit https",
                "1000 block del; 192.0.2.1/32",
                "1000 deny add; 203.0.113.0/24; for 10m",
                "1000 deny del; 203.0.113.0/24",
                "1000 allow add; 203.0.113.0/24; for 10m",
                "1000 allow del; 203.0.113.0/24",
                "1000 reload; /etc/limiter.toml",
                "1000 pause; for 5m",
                "1000 resume",
                "1000 detach; eth0",
            ]
        );
    }

    #[test]
    fn a_large_import_is_one_row() {
        let now = Now::read();
        let (mut keeper, told) = keeper("/etc/limiter.toml".into(), now);
        let entries: Vec<Entry> = (0..1_001_u32)
            .map(|number| std::net::Ipv4Addr::from(0xc612_0000 + number))
            .map(|address| entry(&address.to_string(), Some("feed")))
            .collect();
        keeper.import_blocks(&entries, BY, now).unwrap();
        let row = "1000 block import; 1001 networks, 198.18.0.0/32 to 198.18.3.232/32; feed";
        assert_eq!(noted(&told), [row]);
    }

    #[test]
    fn an_erasure_is_noted_without_the_name() {
        let now = Now::read();
        let (keeper, told) = keeper("/etc/limiter.toml".into(), now);
        let _erased = keeper.erase_account("ann", BY, now);
        assert_eq!(noted(&told), ["1000 audit erase"]);
    }
}
