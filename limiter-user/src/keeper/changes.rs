//! Changes at run time: blocks and list entries.

use hyper::StatusCode;
use ipnet::IpNet;

use super::links::DETACHED;
use super::lists::{Cover, Listed, until};
use super::records::Change;
use super::wanted::{Wanted, place_of, read_all, read_network};
use super::{By, Keeper, ListKind, Note, Now, refused, shown, unreadable};
use crate::control::api::{Changed, Detached, Entry, Refusal};
use crate::dataplane::model::{BlockRequest, BlockState};
use crate::policy::{OnExit, units::duration_text};
use crate::store::audit::ByHand;
use limiter_common::block::Owner;

/// Notices at most in one answer; an import could cause one for every line.
const MAX_NOTICES: usize = 20;

impl Keeper {
    /// Makes all of these blocks or none, and tells each as it is now.
    ///
    /// # Errors
    /// Those of [`Keeper::import_blocks`].
    pub fn add_blocks(&mut self, entries: &[Entry], by: By, now: Now) -> Result<Changed, Refusal> {
        let (changed, states) = self.make_blocks("block add", entries, by, now)?;
        let rows = states.iter().map(|state| self.block_row(state, now));
        Ok(Changed {
            blocks: rows.collect(),
            ..changed
        })
    }

    /// Makes all of these blocks or none.
    ///
    /// # Errors
    /// One cannot be read, lies inside an allow, names no limit, would cut an
    /// SSH connection off, or the operators' quota is used up.
    pub fn import_blocks(
        &mut self,
        entries: &[Entry],
        by: By,
        now: Now,
    ) -> Result<Changed, Refusal> {
        self.make_blocks("block import", entries, by, now)
            .map(|(changed, _)| changed)
    }

    fn make_blocks(
        &mut self,
        order: &'static str,
        entries: &[Entry],
        by: By,
        now: Now,
    ) -> Result<(Changed, Vec<BlockState>), Refusal> {
        let wanted = read_all(entries)?;
        let allow = Cover::new(self.allow.networks());
        for (place, entry) in wanted.iter().enumerate() {
            if let Some(limit) = &entry.limit {
                self.known_limit(limit)
                    .map_err(|refusal| refusal.at(place_of(entries, place)))?;
            }
            self.not_inside(&allow, entry.network, "block")
                .map_err(|refusal| refusal.at(place_of(entries, place)))?;
        }
        let mut notices = self.cut_by_blocks(&wanted, by)?;
        let requests: Vec<BlockRequest> = wanted
            .iter()
            .map(|entry| BlockRequest {
                network: entry.network,
                lasting: entry.lasting,
                owner: Owner::Operator,
                limit: entry.limit.clone(),
            })
            .collect();
        let states = match self.plane.block_many(&requests) {
            Ok(states) => states,
            Err(error) => {
                self.blocks_refused += requests.len() as u64;
                self.record(Change::BlocksRefused(self.blocks_refused), now);
                return Err(refused(error));
            }
        };
        for entry in &wanted {
            let name = (entry.network, entry.limit.clone());
            let note = self.notes.entry(name).or_insert_with(|| Note {
                since: now.wall,
                reason: None,
                uid: None,
                rules: Vec::new(),
            });
            // It is the operator's from now on.
            note.rules.clear();
            note.uid = Some(by.uid);
            // Adding again to give another expiry does not take the reason
            // away.
            if entry.reason.is_some() {
                note.reason.clone_from(&entry.reason);
            }
        }
        self.record_blocks(&states, now);
        self.sever(&states);
        self.note_entries(order, by, &wanted, now);
        log_change(by, order, &wanted);
        if states.iter().any(|block| block.dry) {
            let notice = "the policy is not enforced: these blocks only count, and end when it is";
            notices.push(notice.to_owned());
        }
        let changed = Changed {
            changed: wanted.len() as u64,
            notices,
            blocks: Vec::new(),
        };
        Ok((changed, states))
    }

    /// Ends a block.
    ///
    /// # Errors
    /// There is none of exactly this network and limit.
    pub fn delete_block(
        &mut self,
        network: &str,
        limit: Option<&str>,
        by: By,
        now: Now,
    ) -> Result<Changed, Refusal> {
        let network = read_network(network)?;
        if let Some(limit) = limit {
            self.known_limit(limit)?;
        }
        if !self.plane.unblock(network, limit).map_err(refused)? {
            return Err(self.no_such_block(network, limit));
        }
        // Without a limit, all blocks of the network have ended.
        self.notes.retain(|(of, confined), _| {
            *of != network || (limit.is_some() && confined.as_deref() != limit)
        });
        self.record_unblocked(network, limit, now);
        self.note_by_hand(ByHand {
            subject: Some(network.to_string()),
            detail: limit.map(|limit| format!("limit {limit}")),
            ..by.hand("block del", now)
        });
        let limit = limit.unwrap_or_default();
        tracing::info!(uid = by.uid, pid = by.pid, %network, limit, "block del");
        Ok(Changed {
            changed: 1,
            ..Changed::default()
        })
    }

    /// Adds all of these to a list or none.
    ///
    /// # Errors
    /// One cannot be read, a deny lies inside an allow or would cut an SSH
    /// connection off, or the lists are full.
    pub fn add_to_list(
        &mut self,
        kind: ListKind,
        entries: &[Entry],
        by: By,
        now: Now,
    ) -> Result<Changed, Refusal> {
        let wanted = read_all(entries)?;
        let allow = match kind {
            ListKind::Allow => Cover::default(),
            ListKind::Deny => Cover::new(self.allow.networks()),
        };
        for (place, entry) in wanted.iter().enumerate() {
            let at = |refusal: Refusal| refusal.at(place_of(entries, place));
            if entry.limit.is_some() {
                let help = format!(
                    "leave `limit` out; only blocks have one, not {}",
                    kind.name()
                );
                let detail = "an entry of a list cannot be confined to a limit";
                return Err(at(Refusal::new(StatusCode::BAD_REQUEST, detail, help)));
            }
            if kind == ListKind::Deny {
                self.not_inside(&allow, entry.network, "deny").map_err(at)?;
            }
        }
        let mut notices = self.notices_of_adding(kind, &wanted)?;
        if kind == ListKind::Deny {
            notices.extend(self.cut_by_denies(&wanted, by)?);
        }
        let listed = |entry: &Wanted| Listed {
            since: now.wall,
            until: until(now, entry.lasting),
            reason: entry.reason.clone(),
            uid: by.uid,
        };
        let entries = wanted
            .iter()
            .map(|entry| (entry.network, Some(listed(entry))));
        let entries = entries.collect();
        self.change_list(kind, entries, now).map_err(refused)?;
        let order = match kind {
            ListKind::Allow => "allow add",
            ListKind::Deny => "deny add",
        };
        self.note_entries(order, by, &wanted, now);
        log_change(by, order, &wanted);
        let more = notices.len().saturating_sub(MAX_NOTICES);
        notices.truncate(MAX_NOTICES);
        if more > 0 {
            notices.push(format!("and {more} more of these"));
        }
        Ok(Changed {
            changed: wanted.len() as u64,
            notices,
            blocks: Vec::new(),
        })
    }

    /// Takes a run-time entry off a list.
    ///
    /// # Errors
    /// There is none, it is one of the policy file, or only it lets an SSH connection
    /// through.
    pub fn delete_from_list(
        &mut self,
        kind: ListKind,
        network: &str,
        by: By,
        now: Now,
    ) -> Result<Changed, Refusal> {
        let network = read_network(network)?;
        let in_file = self.list(kind).in_file(network);
        if !self.list(kind).at_runtime(network) {
            return Err(self.no_such_entry(kind, network, in_file));
        }
        let mut notices = Vec::new();
        if kind == ListKind::Allow && !in_file {
            notices = self.cut_by_end_of_allow(network, by)?;
        }
        self.change_list(kind, vec![(network, None)], now)
            .map_err(refused)?;
        let order = match kind {
            ListKind::Allow => "allow del",
            ListKind::Deny => "deny del",
        };
        self.note_by_hand(ByHand {
            subject: Some(network.to_string()),
            ..by.hand(order, now)
        });
        tracing::info!(uid = by.uid, pid = by.pid, %network, "{order}");
        if in_file {
            let file = self.config.display();
            notices.push(format!("{} stays: {file} names it too", shown(network)));
        }
        Ok(Changed {
            changed: 1,
            notices,
            blocks: Vec::new(),
        })
    }

    /// Takes the program off one interface, or off all, and does not put it
    /// there again before the next reload.
    ///
    /// # Errors
    /// It does not sit there, or the kernel refuses.
    pub fn detach(
        &mut self,
        interface: Option<&str>,
        by: By,
        now: Now,
    ) -> Result<Detached, Refusal> {
        let detached = self.take_off(interface, by)?;
        for name in &detached.detached {
            self.note_by_hand(ByHand {
                subject: Some(name.clone()),
                ..by.hand("detach", now)
            });
        }
        Ok(detached)
    }

    fn take_off(&mut self, interface: Option<&str>, by: By) -> Result<Detached, Refusal> {
        let mut rows = self.rows_of_interfaces(&[]);
        rows.retain(|row| row.state != DETACHED);
        let names: Vec<String> = rows.iter().map(|row| row.interface.clone()).collect();
        let meant: Vec<String> = match interface {
            None => names,
            Some(name) if names.iter().any(|known| known == name) => vec![name.to_owned()],
            Some(name) => {
                let help = if names.is_empty() {
                    "it is attached nowhere".to_owned()
                } else {
                    format!("it is attached to {}", names.join(", "))
                };
                let detail = format!("limiter is not attached to `{name}`");
                return Err(Refusal::new(StatusCode::NOT_FOUND, detail, help));
            }
        };
        for name in &meant {
            self.plane
                .detach(name)
                .map_err(|error| refused(error).at(format!("interface {name}")))?;
            tracing::info!(uid = by.uid, pid = by.pid, interface = name, "detach");
        }
        rows.retain(|row| meant.contains(&row.interface));
        self.links.release(rows, interface.is_none());
        Ok(Detached { detached: meant })
    }

    /// The end of a daemon that could not start: it leaves what there was.
    pub fn leave(&mut self) {
        if let Err(error) = self.plane.leave() {
            tracing::warn!(%error, "what was made for the start stays behind");
        }
    }

    /// The end of the daemon: what becomes of the program is the policy's to say.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stop(&mut self, by: By) -> Result<(), Refusal> {
        let policy = self.policy_before().unwrap_or(&self.policy);
        if policy.edge.on_exit == OnExit::Detach || !self.is_pinned() {
            self.take_off(None, by)?;
        }
        self.plane.leave().map_err(refused)?;
        let left = self.plane.attachments().into_iter();
        let left: Vec<String> = left.map(|attached| attached.interface).collect();
        if !left.is_empty() {
            tracing::info!(
                interfaces = left.join(" "),
                "the program stays at work (edge.on_exit); `limiter detach` takes it off"
            );
        }
        Ok(())
    }

    /// Refuses denies that cut SSH connections off; by force, says so.
    fn cut_by_denies(&self, wanted: &[Wanted], by: By) -> Result<Vec<String>, Refusal> {
        let mut notices = Vec::new();
        for guarded in self.guards(Some(by)) {
            let mut after = guarded.rules();
            let networks = wanted.iter().map(|entry| entry.network);
            after.policy.edge.deny.extend(guarded.near(networks));
            notices.extend(guarded.check(&after)?);
        }
        notices.dedup();
        Ok(notices)
    }

    /// Refuses to end an allow that alone lets SSH connections through; by force, says
    /// so.
    fn cut_by_end_of_allow(&self, network: IpNet, by: By) -> Result<Vec<String>, Refusal> {
        let mut notices = Vec::new();
        for guarded in self.guards(Some(by)) {
            let mut after = guarded.rules();
            after.policy.edge.allow.retain(|it| *it != network);
            notices.extend(guarded.check(&after)?);
        }
        notices.dedup();
        Ok(notices)
    }

    /// Refuses blocks that cut SSH connections off; by force, says so.
    fn cut_by_blocks(&self, wanted: &[Wanted], by: By) -> Result<Vec<String>, Refusal> {
        let mut notices = Vec::new();
        for guarded in self.guards(Some(by)) {
            let mut after = guarded.rules();
            let dry = !after.policy.edge.enforce;
            let near = wanted
                .iter()
                .filter(|entry| guarded.is_near(&entry.network));
            after.blocks.extend(near.map(|entry| BlockState {
                network: entry.network,
                owner: Owner::Operator,
                limit: entry.limit.clone(),
                remaining: entry.lasting.unwrap_or_default(),
                dry,
            }));
            notices.extend(guarded.check(&after)?);
        }
        notices.dedup();
        Ok(notices)
    }

    /// Refuses what lies inside an allow, naming it and what to do.
    fn not_inside(&self, allow: &Cover, network: IpNet, what: &str) -> Result<(), Refusal> {
        let Some(wider) = allow.of(network) else {
            return Ok(());
        };
        let (inner, outer) = (shown(network), shown(wider));
        let detail =
            format!("{inner} lies inside {outer}, which is allowed: a {what} would have no effect");
        let help = if self.allow.in_file(wider) {
            let file = self.config.display();
            format!("take {outer} out of {file} or its list files first, then `limiter reload`")
        } else {
            format!("`limiter allow del {outer}` first")
        };
        Err(Refusal::new(StatusCode::CONFLICT, detail, help))
    }

    pub(super) fn known_limit(&self, name: &str) -> Result<(), Refusal> {
        let limits = &self.policy.edge.limits;
        if limits.iter().any(|limit| limit.name == name) {
            return Ok(());
        }
        let names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
        let help = if names.is_empty() {
            "the policy has none".to_owned()
        } else {
            format!("the policy has: {}", names.join(", "))
        };
        let detail = format!("there is no limit `{name}`");
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, detail, help))
    }

    fn no_such_block(&self, network: IpNet, limit: Option<&str>) -> Refusal {
        let confined = limit.map(|limit| format!(" confined to limit `{limit}`"));
        let confined = confined.unwrap_or_default();
        let detail = format!("{} is not blocked{confined}", shown(network));
        let blocks = self.plane.blocks().unwrap_or_default();
        let near = blocks
            .iter()
            .find(|block| block.network.contains(&network) || network.contains(&block.network));
        let help = match near {
            Some(block) => {
                let limit = block.limit.as_deref();
                let limit = limit.map(|limit| format!(" --limit {limit}"));
                let limit = limit.unwrap_or_default();
                format!(
                    "what there is: `limiter block del {}{limit}`",
                    shown(block.network)
                )
            }
            None => "`limiter block list` shows the blocks in force".to_owned(),
        };
        Refusal::new(StatusCode::NOT_FOUND, detail, help)
    }

    fn no_such_entry(&mut self, kind: ListKind, network: IpNet, in_file: bool) -> Refusal {
        let name = kind.name();
        if in_file {
            let file = self.config.display();
            let detail = format!(
                "{} is on the {name} list of the policy file",
                shown(network)
            );
            let help = format!("remove it from {file} or its list files, then `limiter reload`");
            return Refusal::new(StatusCode::CONFLICT, detail, help);
        }
        let wider = Cover::new(self.list(kind).networks()).of(network);
        let help = match wider {
            Some(wider) => format!("it lies inside {}, which is", shown(wider)),
            None => format!("`limiter {name} list` shows what is"),
        };
        let detail = format!("{} is not on the {name} list", shown(network));
        Refusal::new(StatusCode::NOT_FOUND, detail, help)
    }

    /// What somebody who adds entries should know.
    fn notices_of_adding(&self, kind: ListKind, wanted: &[Wanted]) -> Result<Vec<String>, Refusal> {
        let mut notices = Vec::new();
        if kind == ListKind::Allow {
            let added = Cover::new(wanted.iter().map(|entry| entry.network));
            for denied in self.deny.networks() {
                if let Some(allow) = added.of(denied) {
                    let (denied, allow) = (shown(denied), shown(allow));
                    notices.push(format!(
                        "deny {denied} has no effect while {allow} is allowed"
                    ));
                }
            }
            for block in self.plane.blocks().map_err(unreadable)? {
                if let Some(allow) = added.of(block.network) {
                    let (network, allow) = (shown(block.network), shown(allow));
                    notices.push(format!(
                        "the block of {network} has no effect while {allow} is allowed"
                    ));
                }
            }
        }
        Ok(notices)
    }
}

/// One line in the log for one change, with the first of its entries.
fn log_change(by: By, change: &str, wanted: &[Wanted]) {
    let Some(first) = wanted.first() else { return };
    let lasting = first.lasting.map(duration_text).unwrap_or_default();
    tracing::info!(
        uid = by.uid,
        pid = by.pid,
        entries = wanted.len(),
        network = %first.network,
        lasting,
        limit = first.limit.as_deref().unwrap_or_default(),
        reason = first.reason.as_deref().unwrap_or_default(),
        "{change}"
    );
}
