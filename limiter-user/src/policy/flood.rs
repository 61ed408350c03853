//! `[edge.flood]`.

use super::limit::bucket;
use super::model::{Aggregate, Bucket, Flood, Unknown};
use super::reader::Section;
use super::report::Read;
use super::units::{Measure, Rate};

const SECOND_NS: u64 = 1_000_000_000;

const fn a_second(amount: u64) -> Rate {
    Rate {
        amount,
        per_ns: SECOND_NS,
    }
}

const fn ceiling(amount: u64) -> Bucket {
    Bucket {
        rate: a_second(amount),
        burst: amount,
    }
}

pub(super) fn flood(edge: &Section<'_>) -> Read<Flood> {
    let section = edge.section("flood")?;
    let help = Measure::Count.rate_help();
    let new_sources = section.read_or("new_sources", a_second(10_000), |v| {
        v.text(help, |text| Measure::Count.parse_rate(text))
    });
    let unknown = unknown(&section);
    let aggregate = aggregate(&section);
    Ok(Flood {
        new_sources: new_sources?,
        unknown: unknown?,
        aggregate: aggregate?,
    })
}

fn unknown(flood: &Section<'_>) -> Read<Unknown> {
    let section = flood.section("unknown")?;
    let read = |key, default| {
        section.read_or(key, ceiling(default), |v| {
            Ok(bucket(v, Measure::Count)?.value)
        })
    };
    let (packets, connections) = (read("packets", 20_000), read("connections", 20_000));
    Ok(Unknown {
        packets: packets?,
        connections: connections?,
    })
}

fn aggregate(flood: &Section<'_>) -> Read<Aggregate> {
    let section = flood.section("aggregate")?;
    let ipv4 = section.read_or("ipv4", 24, |v| v.small(8..=32));
    let ipv6 = section.read_or("ipv6", 48, |v| v.small(16..=64));
    Ok(Aggregate {
        ipv4: ipv4?,
        ipv6: ipv6?,
    })
}
