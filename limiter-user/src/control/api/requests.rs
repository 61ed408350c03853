//! What is asked about requests, and what comes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RuleRow;
use crate::adapters::LatencyRow;
use crate::adapters::origin::Row;

/// What the rules do, and what they are told. All counts are those of the process that
/// hears events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// In the order of the policy.
    pub rules: Vec<RuleRow>,
    /// Where events come from; the parts of keys that they give are left out.
    pub origins: Vec<Row>,
    /// What those who ask over HTTP were answered.
    pub answers: Vec<AnswerRow>,
    /// How long decisions took; `None`: nobody can ask.
    pub decisions: Option<LatencyRow>,
    /// What became of challenges, by the word for it, as in `limiter_challenges_total`.
    pub challenges: BTreeMap<String, u64>,
}

/// Answers of one status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRow {
    /// Whom they were given: `api`, applications; `check`, proxies.
    pub endpoint: String,
    /// The status.
    pub status: u16,
    /// How many.
    pub answers: u64,
}

/// The part of a status that only the process knows that hears events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What is probably not meant.
    pub warnings: Vec<String>,
    /// What comes of requests; `None`: there are no rules.
    pub requests: Option<Requests>,
}
