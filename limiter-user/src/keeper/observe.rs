//! What an observation of the sources needs.

use std::collections::BTreeMap;
use std::time::Instant;

use ipnet::IpNet;

use super::lists::Cover;
use super::{Keeper, unreadable};
use crate::control::api::{BudgetRow, Refusal};
use crate::observe::Reading;
use crate::policy::units::Measure;
use crate::policy::{Bucket, Limit};

/// The policy that was in force when an observation ended.
#[derive(Debug)]
pub struct Ruling {
    /// Whether drops are drops.
    pub enforce: bool,
    /// The limits in order, with their budgets by name.
    pub limits: Vec<(String, BTreeMap<String, BudgetRow>)>,
    exempt: Cover,
}

impl Ruling {
    /// Whether a list decides about a source, so that no limit does.
    #[must_use]
    pub fn is_exempt(&self, source: IpNet) -> bool {
        self.exempt.of(source).is_some()
    }
}

impl Keeper {
    /// The tables as they are; `now` is when the reading begins.
    ///
    /// # Errors
    /// The data plane cannot be read.
    pub fn reading(&self, now: Instant) -> Result<Reading, Refusal> {
        Ok(Reading {
            taken: now,
            sources: self.plane.sources().map_err(unreadable)?,
            counters: self.plane.counters().map_err(unreadable)?,
        })
    }

    /// What observed sources are measured against.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        let limits = self.policy.edge.limits.iter();
        let listed = self.allow.networks();
        Ruling {
            enforce: self.is_enforced(),
            limits: limits
                .map(|limit| (limit.name.clone(), budgets(limit)))
                .collect(),
            exempt: Cover::new(listed.chain(self.deny.networks())),
        }
    }
}

fn budgets(limit: &Limit) -> BTreeMap<String, BudgetRow> {
    let row = |bucket: &Bucket, measure: Measure| BudgetRow {
        rate: measure.rate_text(bucket.rate).to_string(),
        burst: bucket.burst,
    };
    let budgets = [
        ("packets", &limit.packets, Measure::Count),
        ("bytes", &limit.bytes, Measure::Bytes),
        ("connections", &limit.connections, Measure::Count),
    ];
    budgets
        .into_iter()
        .filter_map(|(name, bucket, measure)| {
            let row = row(bucket.as_ref()?, measure);
            Some((name.to_owned(), row))
        })
        .collect()
}
