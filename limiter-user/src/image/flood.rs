//! `[edge.flood]` for the packet path.

use crate::policy::{self, Edge, Flood};
use limiter_common::{
    address::source_mask,
    bucket::Bucket,
    flood::{FloodRules, RECENT_WAYS},
};
use std::time::Duration;

/// How long admission stays on after new sources were last too many.
const HOLD: Duration = Duration::from_secs(5);
/// How long a source counts as seen of late: a client repeats its SYN after
/// one second, then two and four.
const RECENT: Duration = Duration::from_secs(10);
/// The clock of what was seen of late ticks about as often.
const TICK: Duration = Duration::from_millis(64);
/// The part of what unknown sources share that one aggregate gets.
const AGGREGATE_PART: u64 = 16;

pub(super) fn rules(flood: &Flood, step_ns: u64) -> FloodRules {
    let new_sources = policy::Bucket {
        rate: flood.new_sources,
        burst: flood.new_sources.tokens_in(1_000_000_000).max(1),
    };
    let unknown = [flood.unknown.connections, flood.unknown.packets];
    let steps = |time: Duration| time.as_nanos() as u64 / step_ns.max(1);
    let tick_shift = steps(TICK).max(1).ilog2();
    FloodRules {
        new_sources: whole(&new_sources),
        unknown: unknown.map(|bucket| whole(&bucket)),
        unknown_each: unknown.map(|bucket| part(&bucket)),
        new_sources_each: part(&new_sources),
        aggregate_masks: [
            // An IPv4 source is in the lower half of its key.
            0xffff_ffff << 32 | source_mask(flood.aggregate.ipv4.into()) >> 32,
            source_mask(flood.aggregate.ipv6.into()),
        ],
        hold_steps: steps(HOLD).max(1),
        recent_ticks: u32::try_from(steps(RECENT) >> tick_shift).unwrap_or(u32::MAX),
        tick_shift,
    }
}

fn whole(bucket: &policy::Bucket) -> Bucket {
    let policy::Bucket { rate, burst } = *bucket;
    Bucket::new(rate.amount, rate.per_ns, burst, 0).unwrap_or(Bucket::NONE)
}

fn part(bucket: &policy::Bucket) -> Bucket {
    let policy::Bucket { rate, burst } = *bucket;
    let burst = (burst / AGGREGATE_PART).max(1);
    Bucket::new(rate.amount, rate.per_ns * AGGREGATE_PART, burst, 0).unwrap_or(Bucket::NONE)
}

/// Lines of the table of sources seen of late: a power of two.
pub fn recent_lines(edge: &Edge) -> u32 {
    let ways = RECENT_WAYS as u32;
    edge.tables.recent.div_ceil(ways).next_power_of_two()
}
