//! A row as it is told: one JSON object, whose fields keep their names.

use std::net::IpAddr;

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::row::{ACTIONS, Kind, kind};
use crate::policy::Action;

/// A row of the log. What does not apply is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number; never used again.
    pub id: i64,
    /// When, RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// What it is about.
    pub kind: Kind,
    /// How often: rows that are alike within a second are one.
    pub count: u64,
    /// The rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The rule's key, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Whose login, if that account is known to exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The keyed hash of the account, 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_hash: Option<String>,
    /// The path, normalised, without its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Whether it only would have been.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
    /// The tier of the rule, or the rung of its ladder, that did it; from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<u32>,
    /// How many rungs of the ladder are reached by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rung: Option<u32>,
    /// When the action ends, as `at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Whether the owner of the account is to be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify_owner: bool,
    /// Who did it by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// What he did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// To what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How: for how long, and what else he said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why, where he said; of a refusal, where it was not for what was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a record is read from.
pub(super) const COLUMNS: &str = "id, at_ms, kind, action, simulated, \
    (SELECT name FROM audit_rule AS r WHERE r.rule = audit.rule) AS rule_name, key, source, \
    (SELECT name FROM audit_account AS n WHERE n.hash = audit.account) AS name, account, \
    (SELECT text FROM audit_path AS p WHERE p.chunk = audit.chunk AND p.path = audit.path) \
    AS path_text, status, tier, rung, until_ms, notify_owner, uid, hand_order, subject, \
    detail, reason, count";

impl Record {
    /// `None`: a later version has written it.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let Some(kind) = kind(row.get("kind")?) else {
            return Ok(None);
        };
        let key: Option<Vec<u8>> = row.get("key")?;
        let account: Option<i64> = row.get("account")?;
        let until_ms: Option<i64> = row.get("until_ms")?;
        Ok(Some(Self {
            id: row.get("id")?,
            at: timestamp(row.get("at_ms")?),
            kind,
            count: u64::try_from(row.get::<_, i64>("count")?).unwrap_or(0),
            rule: row.get("rule_name")?,
            key: key.map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect()),
            source: address(row.get("source")?),
            account: row.get("name")?,
            account_hash: account.map(hash_text),
            path: row.get("path_text")?,
            status: row.get("status")?,
            action: action(row.get("action")?),
            simulated: row.get("simulated")?,
            tier: row.get("tier")?,
            rung: row.get("rung")?,
            until: until_ms.map(timestamp),
            notify_owner: row.get("notify_owner")?,
            uid: row.get("uid")?,
            order: row.get("hand_order")?,
            subject: row.get("subject")?,
            detail: row.get("detail")?,
            reason: row.get("reason")?,
        }))
    }
}

pub(super) fn action(number: i64) -> Option<Action> {
    let place = usize::try_from(number).ok()?.checked_sub(1)?;
    ACTIONS.get(place).copied()
}

pub(super) fn address(bytes: Option<Vec<u8>>) -> Option<IpAddr> {
    let bytes = bytes?;
    if let Ok(octets) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

pub(super) fn hash_text(hash: i64) -> String {
    format!("{:016x}", hash.cast_unsigned())
}

/// Times after the year 9999 are its end.
pub(super) fn timestamp(at_ms: i64) -> String {
    const LATEST_MS: u64 = 253_402_300_799_999;
    let since = std::time::Duration::from_millis(u64::try_from(at_ms).unwrap_or(0).min(LATEST_MS));
    humantime::format_rfc3339_millis(std::time::SystemTime::UNIX_EPOCH + since).to_string()
}
