//! `[edge.flood]` for the packet path.

use crate::policy::{self, Edge, units::Rate};
use limiter_common::{
    address::source_mask,
    bucket::Bucket,
    flood::{FloodRules, RECENT_WAYS},
};
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;
/// How long admission stays on after new sources were last too many.
const HOLD: Duration = Duration::from_secs(5);
/// How long a source counts as seen of late: a client repeats its SYN after
/// one second, then two and four.
const RECENT: Duration = Duration::from_secs(10);
/// The clock of what was seen of late ticks about as often.
const TICK: Duration = Duration::from_millis(64);
/// The part of what unknown sources share that one aggregate gets.
const AGGREGATE_PART: u64 = 16;

/// For so many seconds entries can be made at the highest rate before a whole
/// table was replaced. Connections: random SYNs that were by chance seen before
/// must not take all, and never come again, so that their entries go first.
/// Others: those of a botnet come again and again, and an entry that goes then
/// is as likely that of a client.
const TURNOVER_S: [u64; 2] = [8, 64];
/// How often a second it is asked whether a source was seen before, for packets
/// that are no connection attempts. Beyond, chance decides: a client that
/// sends ten packets a second is recognised after some seconds.
const LOOKS_PER_SECOND: u64 = 100_000;
/// The part of the table that can be filled at once.
const BURST_PART: u64 = 8;

pub(super) fn rules(edge: &Edge, step_ns: u64) -> FloodRules {
    let flood = &edge.flood;
    let new_sources = policy::Bucket {
        rate: flood.new_sources,
        burst: flood.new_sources.tokens_in(SECOND_NS).max(1),
    };
    let admitted = TURNOVER_S.map(|seconds| admitted(&new_sources, edge.sources.into(), seconds));
    let unknown = [flood.unknown.connections, flood.unknown.packets];
    let steps = |time: Duration| time.as_nanos() as u64 / step_ns.max(1);
    let tick_shift = steps(TICK).max(1).ilog2();
    FloodRules {
        new_sources: whole(&new_sources),
        unknown: unknown.map(|bucket| whole(&bucket)),
        unknown_each: unknown.map(|bucket| part(&bucket)),
        admitted: admitted.map(|bucket| whole(&bucket)),
        admitted_each: admitted.map(|bucket| part(&bucket)),
        looks: [
            Bucket::NONE,
            whole(&policy::Bucket {
                rate: Rate {
                    amount: LOOKS_PER_SECOND,
                    per_ns: SECOND_NS,
                },
                burst: LOOKS_PER_SECOND / 10,
            }),
        ],
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

/// As `new_sources`, but no faster than replaces a table of `sources` in
/// `seconds`.
fn admitted(new_sources: &policy::Bucket, sources: u64, seconds: u64) -> policy::Bucket {
    let turnover = Rate {
        amount: sources,
        per_ns: seconds * SECOND_NS,
    };
    let wanted = new_sources.rate;
    let is_faster = u128::from(wanted.amount) * u128::from(turnover.per_ns)
        > u128::from(turnover.amount) * u128::from(wanted.per_ns);
    policy::Bucket {
        rate: if is_faster { turnover } else { wanted },
        burst: new_sources.burst.min(sources / BURST_PART).max(1),
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

/// Words of stamps of known sources for the table of this policy.
pub const fn known_words(edge: &Edge) -> u32 {
    edge.sources.next_power_of_two()
}

/// Lines of the table of sources seen of late: a power of two.
pub fn recent_lines(edge: &Edge) -> u32 {
    let ways = RECENT_WAYS as u32;
    edge.tables.recent.div_ceil(ways).next_power_of_two()
}
