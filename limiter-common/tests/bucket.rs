//! Limits over many CPUs, in simulation: [`judge`] itself, called for one CPU
//! after the other, or by one thread for each, against an ideal token bucket
//! in exact arithmetic.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod rig;

use limiter_common::{
    bucket::Bucket,
    layout::Former,
    time::{Time, UNITS_PER_NS},
    verdict::Budget,
};
use rig::{Budgets, Cost, Ideal, Rate, Rig, SOURCES, Traffic};
use std::sync::{
    Barrier,
    atomic::{AtomicU64, Ordering},
};

const STEP_NS: u64 = 4_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const STEPS_PER_SECOND: u64 = SECOND_NS / STEP_NS;

fn at(step: u64) -> Time {
    Time::new(step, STEP_NS * UNITS_PER_NS)
}

fn per_second(amount: u64, burst: u64) -> Rate {
    Rate {
        amount,
        per_ns: SECOND_NS,
        burst,
    }
}

/// How packets are spread over CPUs.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Even,
    NinetyTen,
    Moving,
    One,
}

impl Spread {
    const ALL: [Self; 4] = [Self::Even, Self::NinetyTen, Self::Moving, Self::One];

    fn cpu(self, traffic: &mut Traffic, step: u64, cpus: u64) -> u32 {
        let any = traffic.below(cpus);
        let cpu = match self {
            Self::Even => any,
            Self::NinetyTen if traffic.below(10) != 0 => cpus / 2,
            Self::NinetyTen => any,
            // Every 100 ms.
            Self::Moving => (step / 25).wrapping_mul(7) % cpus,
            Self::One => cpus - 1,
        };
        u32::try_from(cpu).unwrap()
    }
}

/// What a run came to.
#[derive(Debug, Default)]
struct Outcome {
    offered: u64,
    admitted: u64,
    ideal: u64,
    /// Packets about which the two disagree.
    different: u64,
}

struct Scenario {
    cpus: u32,
    spread: Spread,
    budgets: Budgets,
    /// Times the rate that is offered.
    overload: f64,
    packets: u64,
}

impl Scenario {
    /// Offers random traffic and lets `each` see every packet: when, its cost,
    /// and what limiter said.
    fn run(&self, mut each: impl FnMut(u64, Cost, Result<(), Budget>)) {
        let rig = Rig::new(self.cpus, &self.budgets);
        let mut traffic = Traffic::new(u64::from(self.cpus) << 8 | self.spread as u64);
        let a_step = self.budgets.packets_per_step(STEP_NS) * self.overload;
        let mut due = 0.0;
        let mut step = 1 << 32;
        let mut offered = 0;
        while offered < self.packets {
            step += match traffic.below(500) {
                0 => traffic.below(2_000),
                _ => 1,
            };
            due += a_step * 2.0 * traffic.fraction();
            while due >= 1.0 && offered < self.packets {
                due -= 1.0;
                offered += 1;
                let cpu = self.spread.cpu(&mut traffic, step, u64::from(self.cpus));
                let cost = traffic.cost();
                each(step, cost, rig.offer(cpu, at(step), cost));
            }
        }
    }

    /// Runs it beside an ideal limit, and beside buckets that are charged what
    /// limiter admitted, which must never be overdrawn: that is the bound over
    /// every interval.
    fn compare(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ideal = Ideal::new(&self.budgets);
        let mut charged = Ideal::new(&self.budgets);
        self.run(|step, cost, verdict| {
            let now_ns = u128::from(step) * u128::from(STEP_NS);
            let expected = ideal.offer(now_ns, cost);
            outcome.offered += 1;
            outcome.ideal += u64::from(expected.is_ok());
            // A refusal for its bytes is repeated within the step, also when
            // packets ran out meanwhile.
            let repeated = expected.is_err() && verdict == Err(Budget::Bytes);
            outcome.different += u64::from(expected != verdict && !repeated);
            if verdict.is_ok() {
                outcome.admitted += 1;
                charged.charge(now_ns, cost);
            }
        });
        outcome
    }
}

/// Rates that are whole fractions of the bucket's time unit, and one that is
/// not, with bursts from tiny to large.
fn rates() -> impl Iterator<Item = (Rate, bool)> {
    [
        (10, true),
        (1_000, true),
        (30_000, false),
        (1_000_000, true),
    ]
    .into_iter()
    .flat_map(|(rate, exact)| {
        let a_step = (rate / STEPS_PER_SECOND).max(1);
        [a_step, 8 * a_step + 3, 2 * rate].map(|burst| (per_second(rate, burst), exact))
    })
}

fn every_scenario(overload: f64, packets: u64, mut check: impl FnMut(Scenario, bool)) {
    for cpus in [2, 64, 256] {
        for spread in Spread::ALL {
            for (rate, exact) in rates() {
                let budgets = Budgets {
                    packets: Some(rate),
                    ..Budgets::default()
                };
                let scenario = Scenario {
                    cpus,
                    spread,
                    budgets,
                    overload,
                    packets,
                };
                check(scenario, exact);
            }
        }
    }
}

#[test]
fn packets_are_admitted_as_by_an_ideal_bucket() {
    every_scenario(3.0, 40_000, |scenario, exact| {
        let outcome = scenario.compare();
        let Scenario { cpus, spread, .. } = scenario;
        let packets = scenario.budgets.packets;
        assert!(
            outcome.admitted * 100 >= outcome.ideal * 95,
            "{cpus} {spread:?} {packets:?}: {outcome:?}"
        );
        if exact {
            assert_eq!(
                outcome.different, 0,
                "{cpus} {spread:?} {packets:?}: {outcome:?}"
            );
        }
    });
}

#[test]
fn three_budgets_are_charged_together_or_not_at_all() {
    let budgets = Budgets {
        connections: Some(per_second(400, 100)),
        packets: Some(per_second(5_000, 40)),
        bytes: Some(per_second(2_500_000, 30_000)),
    };
    let mut refused = [0_u64; 4];
    for cpus in [2, 64, 256] {
        for spread in Spread::ALL {
            for overload in [0.2, 0.8, 1.5, 20.0] {
                let scenario = Scenario {
                    cpus,
                    spread,
                    budgets,
                    overload,
                    packets: 40_000,
                };
                let outcome = scenario.compare();
                // A refused packet that charged anything would show in one of
                // the next verdicts.
                assert_eq!(outcome.different, 0, "{cpus} {spread:?} {overload}");
                scenario.run(|_, _, verdict| {
                    refused[verdict.err().map_or(0, |budget| budget as usize)] += 1;
                });
            }
        }
    }
    assert!(refused.iter().all(|&count| count > 1_000), "{refused:?}");
}

/// Traffic that an ideal bucket would admit as a whole is never dropped. Where
/// a token's cost was rounded up, by at most a thousandth, the ideal bucket's
/// rate is lower by as much.
#[test]
fn conforming_traffic_is_never_dropped() {
    every_scenario(1.5, 30_000, |scenario, exact| {
        let Scenario { cpus, spread, .. } = scenario;
        let mut slower = scenario.budgets;
        if !exact {
            let rate = slower.packets.as_mut().unwrap();
            rate.amount *= 999;
            rate.per_ns *= 1_000;
        }
        let mut ideal = Ideal::new(&slower);
        let rig = Rig::new(cpus, &scenario.budgets);
        scenario.run_filtered(&mut ideal, |step, cpu, cost| {
            let verdict = rig.offer(cpu, at(step), cost);
            assert_eq!(verdict, Ok(()), "{cpus} {spread:?} {:?}", scenario.budgets);
        });
    });
}

impl Scenario {
    /// Offers to `each` only what `ideal` admits.
    fn run_filtered(&self, ideal: &mut Ideal, mut each: impl FnMut(u64, u32, Cost)) {
        let mut traffic = Traffic::new(u64::from(self.cpus) << 8 | self.spread as u64);
        let a_step = self.budgets.packets_per_step(STEP_NS) * self.overload;
        let mut due = 0.0;
        let mut offered = 0;
        let mut step = 1 << 32;
        while offered < self.packets {
            step += 1;
            due += a_step * 2.0 * traffic.fraction();
            while due >= 1.0 {
                due -= 1.0;
                offered += 1;
                let cpu = self.spread.cpu(&mut traffic, step, u64::from(self.cpus));
                let cost = traffic.cost();
                if ideal
                    .offer(u128::from(step) * u128::from(STEP_NS), cost)
                    .is_ok()
                {
                    each(step, cpu, cost);
                }
            }
        }
    }
}

/// Sources that push each other out of the one place of each CPU: all that was
/// leased there gets back to where it came from.
#[test]
fn sources_that_share_a_place_are_judged_as_if_alone() {
    for (cpus, overload) in [(1, 0.7), (1, 3.0), (8, 0.7), (8, 3.0)] {
        for (rate, exact) in rates() {
            let budgets = Budgets {
                packets: Some(rate),
                bytes: Some(Rate {
                    amount: rate.amount * 640,
                    burst: rate.burst * 640 + 6_000,
                    ..rate
                }),
                ..Budgets::default()
            };
            let rig = Rig::new(cpus, &budgets);
            let mut ideals: Vec<_> = (0..SOURCES).map(|_| Ideal::new(&budgets)).collect();
            let mut charged: Vec<_> = (0..SOURCES).map(|_| Ideal::new(&budgets)).collect();
            let mut traffic = Traffic::new(u64::from(cpus));
            let mut due = 0.0;
            let mut different = 0;
            for step in 1_u64 << 32..(1 << 32) + 2_000 {
                due += budgets.packets_per_step(STEP_NS) * overload * f64::from(SOURCES);
                for _ in 0..(due as u64).min(400) {
                    let source = traffic.below(SOURCES.into());
                    let cpu = traffic.below(cpus.into());
                    let (source, cpu) = (source as usize, cpu as u32);
                    let cost = traffic.cost();
                    let now_ns = u128::from(step) * u128::from(STEP_NS);
                    let expected = ideals[source].offer(now_ns, cost);
                    let verdict = rig.offer_from(source as u8, cpu, at(step), cost);
                    different += u64::from(expected.is_ok() != verdict.is_ok());
                    if verdict.is_ok() {
                        charged[source].charge(now_ns, cost);
                    }
                }
                due = due.fract();
            }
            assert!(
                !exact || different == 0,
                "{cpus} {overload} {rate:?}: {different}"
            );
        }
    }
}

/// What was lent to an entry that is gone is not given to the one that came
/// after it, whose buckets are full.
#[test]
fn a_lease_ends_with_its_entry() {
    let budgets = Budgets {
        connections: Some(per_second(10, 80)),
        packets: Some(per_second(10, 160)),
        ..Budgets::default()
    };
    let attempt = Cost {
        connection: true,
        ..Cost::PACKET
    };
    let mut rig = Rig::new(1, &budgets);
    for now in [at(7), at((1 << 40) + 9)] {
        // Ten connections and twenty packets are lent, and all the packets go.
        for _ in 0..22 {
            assert_eq!(rig.offer(0, now, Cost::PACKET), Ok(()));
        }
        assert!(rig.has_lease(0));
        rig.evict(0);
        let admitted = (0..200).filter(|_| rig.offer(0, now, attempt).is_ok());
        assert_eq!(admitted.count(), 80);
        rig.evict(0);
    }
}

/// A source short of connections still has its packets lent, and its last
/// connections.
#[test]
fn few_connections_are_not_lent() {
    let budgets = Budgets {
        connections: Some(per_second(10, 40)),
        packets: Some(per_second(100_000, 10_000)),
        ..Budgets::default()
    };
    let attempt = Cost {
        connection: true,
        ..Cost::PACKET
    };
    let rig = Rig::new(2, &budgets);
    let mut admitted = 0;
    for i in 0..2_000_u32 {
        let cost = if i % 20 == 0 { attempt } else { Cost::PACKET };
        match rig.offer(0, at(7), cost) {
            Ok(()) => admitted += u32::from(cost.connection),
            Err(budget) => assert_eq!((cost.connection, budget), (true, Budget::Connections)),
        }
    }
    assert_eq!(admitted, 40);
    assert!(rig.has_lease(0));
}

#[test]
fn after_any_pause_at_most_the_burst_passes_at_once() {
    let budgets = Budgets {
        packets: Some(per_second(10_000, 1_000)),
        ..Budgets::default()
    };
    let rig = Rig::new(64, &budgets);
    let mut step = 1 << 40;
    for pause in [1, 24, 25, 26, 1_000, u64::from(u32::MAX), 1 << 33] {
        let admitted = (0..3_000)
            .filter(|cpu| rig.offer(cpu % 64, at(step), Cost::PACKET).is_ok())
            .count();
        assert!(admitted <= 1_000, "{admitted} after {pause}");
        step += pause;
    }
}

/// A packet as large as the burst passes a full bucket, at every rate.
#[test]
fn a_packet_of_the_whole_burst_passes() {
    for rate in [
        33_333_333,
        70_000_000,
        300_000_000,
        33_333_333_333,
        99_999_999_999,
    ] {
        let budgets = Budgets {
            bytes: Some(per_second(rate, 1_514)),
            ..Budgets::default()
        };
        let rig = Rig::new(2, &budgets);
        let cost = Cost {
            bytes: 1_514,
            ..Cost::PACKET
        };
        assert_eq!(rig.offer(0, at(1), cost), Ok(()), "{rate}");
        assert_eq!(rig.offer(1, at(1), cost), Err(Budget::Bytes), "{rate}");
        assert_eq!(rig.offer(1, at(2), cost), Ok(()), "{rate}");
    }
}

/// What one thread saw in one clock step.
#[derive(Clone, Copy, Default)]
struct Count {
    offered: u64,
    admitted: u64,
}

/// Threads in place of CPUs, all on one source, against the clock that one of
/// them advances. Returns what was offered and admitted in each step: a packet
/// counts at the step at which it was judged.
fn hammer(budgets: &Budgets, cpus: u32, steps: u64, packets_per_step: u64) -> Vec<Count> {
    let rig = Rig::new(cpus, budgets);
    let clock = AtomicU64::new(1);
    let barrier = Barrier::new(cpus as usize);
    let work = |cpu| {
        let mut counts = vec![Count::default(); usize::try_from(steps).unwrap() + 1];
        let mut offered = 0;
        barrier.wait();
        while let step = clock.load(Ordering::Relaxed)
            && step <= steps
        {
            let count = &mut counts[usize::try_from(step).unwrap()];
            for _ in 0..16 {
                let verdict = rig.offer(cpu, at(step), Cost::PACKET);
                count.admitted += u64::from(verdict.is_ok());
            }
            count.offered += 16;
            offered += 16;
            if cpu == 0 && offered >= packets_per_step {
                offered = 0;
                clock.fetch_add(1, Ordering::Relaxed);
            }
        }
        counts
    };
    let work = &work;
    let each: Vec<Vec<Count>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|cpu| scope.spawn(move || work(cpu)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    });
    let sum = |step: usize| {
        each.iter().fold(Count::default(), |sum, counts| Count {
            offered: sum.offered + counts[step].offered,
            admitted: sum.admitted + counts[step].admitted,
        })
    };
    (0..=usize::try_from(steps).unwrap()).map(sum).collect()
}

/// Bursts of ten steps and more.
const BURSTS: [(u64, u64); 3] = [(50_000, 10_000), (400_000, 16_000), (100_000, 4_000)];

#[test]
fn threads_that_race_stay_within_the_limit() {
    for (rate, burst) in BURSTS {
        let budgets = Budgets::packets(per_second(rate, burst));
        let counts = hammer(&budgets, 8, 400, 2 * rate / STEPS_PER_SECOND);
        let mut ideal = Ideal::new(&budgets);
        let mut charged = Ideal::new(&budgets);
        let [mut expected, mut admitted] = [0; 2];
        for (step, count) in counts.into_iter().enumerate() {
            let now_ns = step as u128 * u128::from(STEP_NS);
            for _ in 0..count.offered {
                expected += u64::from(ideal.offer(now_ns, Cost::PACKET).is_ok());
            }
            for _ in 0..count.admitted {
                charged.charge(now_ns, Cost::PACKET);
            }
            admitted += count.admitted;
        }
        assert!(
            admitted * 100 >= expected * 95,
            "{rate} {burst}: {admitted}, {expected} would be ideal"
        );
    }
}

fn bucket(rate: u64, burst: u64) -> Bucket {
    Bucket::new(rate, SECOND_NS, burst, 64).unwrap()
}

/// Charges `count` packets from CPUs in turn; how many were admitted.
fn drain(rig: &Rig, now: Time, count: u32) -> u64 {
    (0..count)
        .map(|i| u64::from(rig.offer(i % rig.cpus(), now, Cost::PACKET).is_ok()))
        .sum()
}

#[test]
fn a_reload_keeps_the_tokens_up_to_the_new_burst() {
    for (rate, burst, left) in [(5_000, 3_000, 700), (10, 2_000, 700), (100_000, 500, 500)] {
        let mut rig = Rig::new(4, &Budgets::packets(per_second(1_000, 1_000)));
        assert_eq!(drain(&rig, at(10), 300), 300);
        rig.reload(bucket(rate, burst), 0);
        // What the owner still spends of the old lease, in the step of the
        // reload, comes ahead of the clamp.
        let admitted = drain(&rig, at(10), 5_000);
        let lease = if burst < 700 { 64 } else { 0 };
        assert!((left..=left + lease).contains(&admitted), "{admitted}");
        // And refills at the new rate from there.
        let refilled = (rate * 25 / STEPS_PER_SECOND).min(burst);
        assert_eq!(drain(&rig, at(35), 200_000), refilled, "{rate} {burst}");
    }
}

#[test]
fn a_budget_that_was_not_there_before_is_full() {
    let mut rig = Rig::new(4, &Budgets::packets(per_second(1_000, 1_000)));
    drain(&rig, at(10), 1_000);
    rig.limit.buckets[2] = Bucket::new(10_000, SECOND_NS, 10_000, 0).unwrap();
    rig.limit.buckets[1] = Bucket::NONE;
    rig.next_version(0);
    assert_eq!(
        drain(&rig, at(10), 1_000),
        10_000 / u64::from(Cost::PACKET.bytes)
    );
}

#[test]
fn a_slot_taken_by_another_limit_starts_full() {
    let mut rig = Rig::new(4, &Budgets::packets(per_second(1_000, 1_000)));
    assert_eq!(drain(&rig, at(10), 2_000), 1_000);
    rig.reload(bucket(1_000, 400), 2);
    assert_eq!(drain(&rig, at(10), 2_000), 400);
}

#[test]
fn an_entry_that_slept_through_reloads_is_not_refilled() {
    let mut rig = Rig::new(4, &Budgets::packets(per_second(1_000, 1_000)));
    assert_eq!(drain(&rig, at(10), 2_000), 1_000);
    rig.reload(bucket(2_000, 1_000), 0);
    rig.reload(bucket(1_000, 1_000), 0);
    rig.former = Former {
        version: rig.limit.version - 1,
        ..rig.former
    };
    let admitted = drain(&rig, at(10), 2_000);
    assert!(admitted <= 64, "{admitted}");
}

#[test]
fn versions_wrap_around() {
    let mut rig = Rig::new(2, &Budgets::packets(per_second(1_000, 1_000)));
    rig.limit.version = u16::MAX;
    rig.limit.since = u16::MAX - 5;
    assert_eq!(drain(&rig, at(10), 300), 300);
    rig.reload_as(bucket(1_000, 1_000), 1, u16::MAX - 5);
    assert_eq!(drain(&rig, at(10), 2_000), 700);
}
