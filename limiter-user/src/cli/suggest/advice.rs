//! From what was observed to a limit that would have hurt nobody.

use crate::control::api::ObservedLimit;

/// What the busiest source may send more than it was seen to, in percent: an
/// observation is a glimpse, and tomorrow's peak is higher.
pub(super) const MARGIN_PERCENT: u64 = 50;

/// The highest rate that a policy may name, in packets a second.
const HIGHEST_RATE: u64 = 100_000_000;

/// The leading digits of round numbers, in tenths.
const ROUND: [u64; 10] = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80];

/// A budget of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// Packets a second.
    pub(super) rate: u64,
    /// Packets.
    pub(super) burst: u64,
}

/// The budget under which none of the packets that were seen would have been
/// refused; `None` where nothing was seen.
///
/// The rate covers the busiest interval of any source, so that only what came
/// at once draws on the burst. Between two readings nobody saw when a packet
/// came: all of an interval may have come at its end and all of the next at its
/// beginning. So the burst covers the largest interval twice.
pub(super) fn advice(seen: &ObservedLimit) -> Option<Advice> {
    if seen.packets_at_once == 0 {
        return None;
    }
    let rate = round_up(with_margin(seen.packets_per_second.max)).clamp(1, HIGHEST_RATE);
    let burst = round_up(with_margin(seen.packets_at_once.saturating_mul(2)));
    Some(Advice { rate, burst })
}

fn with_margin(value: u64) -> u64 {
    let more = u128::from(value) * u128::from(100 + MARGIN_PERCENT);
    u64::try_from(more.div_ceil(100)).unwrap_or(u64::MAX)
}

/// The next round number that is not below: 1, 2, … 10, 12, 15, 20, 25, …
fn round_up(value: u64) -> u64 {
    if value <= 10 {
        return value;
    }
    let mut tenth: u64 = 1;
    loop {
        for digits in ROUND {
            let round = digits.saturating_mul(tenth);
            if round >= value {
                return round;
            }
        }
        tenth = tenth.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::model::SourceState;
    use crate::observe::{Observer, Reading};
    use crate::policy::{NoFiles, parse};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    #[test]
    fn numbers_are_rounded_up_to_round_ones() {
        let pairs = [
            (0, 0),
            (7, 7),
            (11, 12),
            (100, 100),
            (101, 120),
            (2_501, 3_000),
            (81, 100),
        ];
        for (value, round) in pairs {
            assert_eq!(round_up(value), round, "{value}");
        }
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    /// Tokens of a bucket that starts full, in thousandths of a packet.
    fn refused(arrivals_ms: &[u64], advice: Advice) -> usize {
        let full = advice.burst * 1_000;
        let (mut tokens, mut last) = (full, 0);
        let mut refused = 0;
        for arrival in arrivals_ms {
            tokens = full.min(tokens + (arrival - last) * advice.rate);
            last = *arrival;
            match tokens.checked_sub(1_000) {
                Some(rest) => tokens = rest,
                None => refused += 1,
            }
        }
        refused
    }

    /// What the arrivals look like to somebody who reads at these times.
    fn observe(arrivals_ms: &[u64], readings_ms: &[u64]) -> ObservedLimit {
        let begin = Instant::now();
        let mut observer = Observer::default();
        for reading in readings_ms {
            let packets = arrivals_ms.iter().filter(|at| *at <= reading).count() as u64;
            let state = SourceState {
                source: "192.0.2.1/32".parse().unwrap(),
                limit: "web".to_owned(),
                passed: packets,
                dropped: 0,
                unsettled: 0,
                last_refusal: None,
            };
            observer.record(&Reading {
                taken: begin + Duration::from_millis(*reading),
                // A source that has sent nothing is in no table.
                sources: if packets > 0 { vec![state] } else { Vec::new() },
                counters: Vec::new(),
            });
        }
        observer.limit_observed("web", |_| false)
    }

    proptest! {
        #[test]
        fn what_was_seen_would_not_have_been_refused(
            mut gaps in proptest::collection::vec(prop_oneof![Just(0), 1_u64..30, 500_u64..3_000], 1..300),
            pauses in proptest::collection::vec(500_u64..2_500, 1..30),
        ) {
            gaps[0] += 1;
            let sum = |gaps: &[u64]| {
                let sums = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) });
                sums.collect::<Vec<u64>>()
            };
            let mut readings = vec![0];
            readings.extend(sum(&pauses));
            let end = readings[readings.len() - 1];
            let mut arrivals = sum(&gaps);
            arrivals.retain(|at| *at <= end);
            let seen = observe(&arrivals, &readings);
            match advice(&seen) {
                Some(advice) => prop_assert_eq!(refused(&arrivals, advice), 0, "{:?}", advice),
                None => prop_assert!(arrivals.is_empty()),
            }
        }

        #[test]
        fn a_policy_can_hold_every_advice(rate in any::<u64>(), more in 0_u64..1_000_000_000) {
            let seen = ObservedLimit {
                packets_per_second: crate::observe::spread([rate % 200_000_000]),
                packets_at_once: 1 + more,
                ..observe(&[], &[0])
            };
            let advice = advice(&seen).unwrap();
            let line = super::super::toml(advice);
            let text = format!("[[edge.limit]]\nname = \"web\"\n{line}");
            let policy = parse("x.toml", &format!("[edge]\ninterfaces = [\"eth0\"]\n{text}"), &NoFiles);
            let policy = policy.unwrap().policy;
            let packets = policy.edge.limits[0].packets.unwrap();
            prop_assert_eq!((packets.rate.amount, packets.burst), (advice.rate, advice.burst));
        }
    }
}
