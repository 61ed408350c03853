//! Which rows a question is about.

use std::time::SystemTime;

use ipnet::IpNet;
use rusqlite::types::Value;

use super::log::AccountHash;
use super::row::{Kind, action_number, ends, short, time_to_ms};
use super::tables::CHUNK_ROWS;
use crate::policy::Action;

/// Which rows a question is about: those to which all that is named applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The account, normalised as the engine does.
    pub account: Option<String>,
    /// The network that the source lies in.
    pub source: Option<IpNet>,
    /// The rule's name.
    pub rule: Option<String>,
    /// What was done. What a dry run would have done is left out then.
    pub action: Option<Action>,
    /// What the row is about.
    pub kind: Option<Kind>,
    /// From then on.
    pub since: Option<SystemTime>,
    /// Until right before then.
    pub until: Option<SystemTime>,
}

/// What rows can be counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The source.
    Source,
    /// The account.
    Account,
    /// The path.
    Path,
    /// The rule.
    Rule,
    /// The action.
    Action,
}

/// Every field.
pub const FIELDS: [Field; 5] = [
    Field::Source,
    Field::Account,
    Field::Path,
    Field::Rule,
    Field::Action,
];

impl Field {
    /// Its name in queries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Account => "account",
            Self::Path => "path",
            Self::Rule => "rule",
            Self::Action => "action",
        }
    }

    /// The field of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        FIELDS.into_iter().find(|field| field.name() == name)
    }
}

/// A filter as the database takes it: the rows of one chunk, the first parameter.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) since_ms: i64,
    /// Excluded.
    pub(super) until_ms: i64,
    conditions: String,
    parameters: Vec<Value>,
    index: Option<&'static str>,
}

impl Selection {
    /// `rule` is the number of the filter's rule.
    pub(super) fn new(filter: &Filter, rule: Option<i64>, accounts: Option<&AccountHash>) -> Self {
        let mut it = Self {
            since_ms: filter.since.map_or(i64::MIN, time_to_ms),
            until_ms: filter.until.map_or(i64::MAX, time_to_ms),
            conditions: String::from("chunk = ?"),
            parameters: Vec::new(),
            index: None,
        };
        if let Some(account) = &filter.account {
            // Without a secret nothing was ever hashed.
            let account = short(account.as_str().into());
            let hash = accounts.map(|accounts| accounts.of(&account));
            it.and(
                " AND account = ?",
                [hash.map_or(Value::Null, Value::Integer)],
            );
            it.index = Some("audit_by_account");
        }
        if let Some(network) = filter.source {
            let (first, last) = ends(network);
            let length = Value::Integer(first.len() as i64);
            let range = [Value::Blob(first), Value::Blob(last), length];
            it.and(
                " AND source >= ? AND source <= ? AND length(source) = ?",
                range,
            );
            it.index.get_or_insert("audit_by_source");
        }
        if let Some(action) = filter.action {
            let number = Value::Integer(action_number(Some(action)));
            it.and(" AND action = ? AND simulated = 0", [number]);
        }
        if filter.rule.is_some() {
            it.and(" AND rule = ?", [rule.map_or(Value::Null, Value::Integer)]);
        }
        if let Some(kind) = filter.kind {
            // As a number in the text: the index of what was done by hand is found by it.
            it.and(&format!(" AND kind = {}", kind as i64), []);
            if kind == Kind::Hand {
                it.index.get_or_insert("audit_by_hand");
            }
        }
        it
    }

    fn and<const N: usize>(&mut self, condition: &str, parameters: [Value; N]) {
        self.conditions.push_str(condition);
        self.parameters.extend(parameters);
    }

    /// The rows of a chunk, from an index that has what is asked of them.
    pub(super) fn indexed(&self, what: &str, index: &str, rest: &str) -> String {
        let index = self.index.unwrap_or(index);
        let Self { conditions, .. } = self;
        format!(
            "SELECT {what} FROM audit INDEXED BY {index} WHERE {conditions} \
             AND at_ms >= ? AND at_ms < ? {rest}"
        )
    }

    /// Whole rows of a chunk; without an account or a source they are read in turn.
    pub(super) fn rows(&self, what: &str, rest: &str) -> String {
        let Self { conditions, .. } = self;
        let (conditions, index) = match self.index {
            Some(index) => (conditions.as_str(), format!("INDEXED BY {index}")),
            None => {
                let of_chunk = format!("id >= ?1 * {CHUNK_ROWS} AND id < (?1 + 1) * {CHUNK_ROWS}");
                let more = conditions.strip_prefix("chunk = ?").unwrap_or_default();
                return format!(
                    "SELECT {what} FROM audit NOT INDEXED WHERE {of_chunk}{more} \
                     AND at_ms >= ? AND at_ms < ? {rest}"
                );
            }
        };
        format!(
            "SELECT {what} FROM audit {index} WHERE {conditions} \
             AND at_ms >= ? AND at_ms < ? {rest}"
        )
    }

    /// The parameters for a chunk.
    pub(super) fn parameters(&self, chunk: i64) -> Vec<Value> {
        let mut all = vec![Value::Integer(chunk)];
        all.extend(self.parameters.iter().cloned());
        all.extend([Value::Integer(self.since_ms), Value::Integer(self.until_ms)]);
        all
    }
}
