//! `[[edge.limit]]`.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::diagnostic::quote;
use super::model::{Bucket, Exceed, Limit, Protocol, Total};
use super::networks::{NETWORK_HELP, parse_network};
use super::reader::{Section, Value};
use super::report::{At, Place, Read};
use super::units::{Measure, Problem, duration_text, parse_duration};
use super::{LARGEST_FRAME_BYTES, MAX_LIMIT_NETWORKS, MAX_REFILL};

const PORTS_HELP: &str = r#"allowed: ports and ranges, such as [443, "8000-8100"]"#;
const PROTOCOLS: [(&str, Protocol); 4] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("icmp", Protocol::Icmp),
    ("any", Protocol::Any),
];
const EXCEED: [(&str, Exceed); 2] = [("drop", Exceed::Drop), ("observe", Exceed::Observe)];
const SECOND_NS: u64 = 1_000_000_000;

type Ports = Vec<RangeInclusive<u16>>;

/// A limit with the places that warnings about it point to.
pub(super) struct PlacedLimit {
    pub(super) limit: Limit,
    pub(super) name: Place,
    pub(super) buckets: Vec<At<Bucket>>,
    pub(super) exceed: Place,
    pub(super) from: Place,
}

/// Reads one limit; `names` are those of the limits before it.
pub(super) fn limit(value: &Value<'_>, names: &mut HashMap<String, Place>) -> Read<PlacedLimit> {
    let section = value.section()?;
    let name = section.read("name", |v| Ok(v.at(v.text(NAME_HELP, limit_name)?)));
    let protocol = section.read_or("protocol", Protocol::Any, |v| v.word(&PROTOCOLS));
    let ports = section.read_or("ports", value.at(Vec::new()), |v| Ok(v.at(ports(v)?)));
    let to = section.read_or("to", Vec::new(), networks);
    let packets = section.read("packets", |v| bucket(v, Measure::Count));
    let bytes = section.read("bytes", |v| bucket(v, Measure::Bytes));
    let connections = section.read("connections", |v| bucket(v, Measure::Count));
    let exceed = section.read_or("exceed", value.at(Exceed::Drop), exceed);
    let total = total(&section);
    let from = section.read("from", gate);

    let name = name.and_then(|name| claim(name, value, names));
    if let Ok(protocol) = protocol {
        ports_fit(value, protocol, &ports);
        let ceiling = total.as_ref().ok().and_then(|(_, place)| place.as_ref());
        let budget = connections.as_ref().ok().and_then(Option::as_ref);
        connections_fit(value, protocol, budget);
        connections_fit(value, protocol, ceiling);
    }
    let (packets, bytes, connections) = (packets?, bytes?, connections?);
    let (name, protocol, exceed, from) = (name?, protocol?, exceed?, from?);
    let (total, _) = total?;
    let buckets: Vec<At<Bucket>> = [&packets, &bytes, &connections]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if buckets.is_empty() && from.is_none() && !total.exists() {
        let message = format!("limit {} limits nothing", quote(&name.value));
        let help = "give it packets, bytes, connections, total or from";
        return Err(value.error(Problem::new(message, help)));
    }
    let from_place = from.as_ref().map_or(&value.place, |from| &from.place);
    Ok(PlacedLimit {
        name: name.place,
        buckets,
        exceed: exceed.place,
        from: from_place.clone(),
        limit: Limit {
            name: name.value,
            protocol,
            ports: ports?.value,
            to: to?,
            packets: packets.map(|at| at.value),
            bytes: bytes.map(|at| at.value),
            connections: connections.map(|at| at.value),
            exceed: exceed.value,
            total,
            from: from.map(|at| at.value),
        },
    })
}

/// The name, unless there is none or another limit has it.
fn claim(
    name: Option<At<String>>,
    value: &Value<'_>,
    names: &mut HashMap<String, Place>,
) -> Read<At<String>> {
    let name =
        name.ok_or_else(|| value.error(Problem::new("this limit has no `name`", NAME_HELP)))?;
    if let Some(first) = names.get(&name.value) {
        let message = format!("a second limit named {}", quote(&name.value));
        let help = format!("the first is at {}; rename one", first.label());
        return Err(value.error_at(&name.place, Problem::new(message, help)));
    }
    names.insert(name.value.clone(), name.place.clone());
    Ok(name)
}

fn ports_fit(value: &Value<'_>, protocol: Protocol, ports: &Read<At<Ports>>) {
    let has_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp);
    if let Ok(ports) = ports
        && !ports.value.is_empty()
        && !has_ports
    {
        let message = "`ports` without a protocol that has ports";
        let help = r#"add protocol = "tcp" or "udp", or remove the ports"#;
        value.error_at(&ports.place, Problem::new(message, help));
    }
}

fn connections_fit(value: &Value<'_>, protocol: Protocol, budget: Option<&At<Bucket>>) {
    let has_connections = matches!(protocol, Protocol::Tcp | Protocol::Any);
    if let Some(budget) = budget
        && !has_connections
    {
        let message = "`connections` where the protocol has none";
        let help = r#"it counts TCP SYNs: allowed with protocol = "tcp" or "any""#;
        value.error_at(&budget.place, Problem::new(message, help));
    }
}

pub(super) const NAME_HELP: &str = "allowed: 1 to 63 of A-Z a-z 0-9 _ . -";

/// Whether it may name a limit or a rule.
pub(super) fn is_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=63).contains(&text.len()) && text.bytes().all(known)
}

fn limit_name(text: &str) -> Result<String, Problem> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    let message = format!("{} is no name for a limit", quote(text));
    Err(Problem::new(message, NAME_HELP))
}

/// An array of networks, in the order of the file.
pub(super) fn networks(value: &Value<'_>) -> Read<Vec<IpNet>> {
    let networks = value.list(NETWORK_HELP, |item| item.text(NETWORK_HELP, parse_network))?;
    if networks.len() > MAX_LIMIT_NETWORKS {
        let message = format!("{} networks in one list", networks.len());
        let help = format!("allowed: up to {MAX_LIMIT_NETWORKS}");
        return Err(value.error(Problem::new(message, help)));
    }
    Ok(networks)
}

/// The networks that may pass: of a limit, or of a rule.
pub(super) fn gate(value: &Value<'_>) -> Read<At<Vec<IpNet>>> {
    let networks = networks(value)?;
    if networks.is_empty() {
        let message = "an empty `from` would let nobody in";
        let help = "name the networks that may pass, or remove it";
        return Err(value.error(Problem::new(message, help)));
    }
    Ok(value.at(networks))
}

fn ports(value: &Value<'_>) -> Read<Ports> {
    let mut ranges = value.list(PORTS_HELP, |item| {
        if item.is_integer() {
            return item.small(1..=65_535).map(|port: u16| port..=port);
        }
        item.text(PORTS_HELP, port_range)
    })?;
    ranges.sort_by_key(|range| *range.start());
    Ok(merge(ranges))
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let wrong = |what: &str| Problem::new(format!("{} {what}", quote(text)), PORTS_HELP);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| match text.parse::<u16>() {
        Ok(0) => Err(wrong("has port 0, to which nothing can be sent")),
        Ok(port) if text.starts_with(|c: char| c.is_ascii_digit()) => Ok(port),
        _ => Err(wrong("is no port and no range of ports up to 65535")),
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        let message = format!("{} is a range from high to low", quote(text));
        return Err(Problem::new(message, format!(r#"write "{last}-{first}""#)));
    }
    Ok(first..=last)
}

/// Joins sorted ranges that overlap or touch.
pub(super) fn merge(sorted: Ports) -> Ports {
    let mut merged: Ports = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The ceilings, and the one for connections with its place.
fn total(limit: &Section<'_>) -> Read<(Total, Option<At<Bucket>>)> {
    let section = limit.section("total")?;
    let packets = section.read("packets", |v| bucket(v, Measure::Count));
    let bytes = section.read("bytes", |v| bucket(v, Measure::Bytes));
    let connections = section.read("connections", |v| bucket(v, Measure::Count));
    let (packets, bytes, connections) = (packets?, bytes?, connections?);
    let total = Total {
        packets: packets.map(|at| at.value),
        bytes: bytes.map(|at| at.value),
        connections: connections.as_ref().map(|at| at.value),
    };
    Ok((total, connections))
}

/// `"5000/s"`, or a table of rate and burst.
pub(super) fn bucket(value: &Value<'_>, measure: Measure) -> Read<At<Bucket>> {
    let rate_help = measure.rate_help();
    let read_rate = |v: &Value<'_>| v.text(rate_help, |text| measure.parse_rate(text));
    let (rate, burst) = if value.as_str().is_some() {
        (read_rate(value).map(Some), Ok(None))
    } else if !value.is_table() {
        return value.mismatch("a rate, or a table of rate and burst", rate_help);
    } else {
        let section = value.section()?;
        let rate = section.read("rate", read_rate);
        (rate, section.read("burst", |v| burst(v, measure)))
    };
    let rate =
        rate?.ok_or_else(|| value.error(Problem::new("a budget without a `rate`", rate_help)))?;
    let burst = match burst? {
        Some(burst) => burst,
        None => value.at(rate.tokens_in(SECOND_NS).max(least_burst(measure))),
    };
    let refill_ns = rate.time_for_ns(burst.value);
    if refill_ns > MAX_REFILL.as_nanos() {
        let days = refill_ns / Duration::from_hours(24).as_nanos();
        let message = format!(
            "a burst of {} at {} takes {days} days to refill",
            measure.amount_text(burst.value),
            measure.rate_text(rate),
        );
        let help = "allowed: up to 365 days; lower the burst or raise the rate";
        return Err(value.error_at(&burst.place, Problem::new(message, help)));
    }
    let bucket = Bucket {
        rate,
        burst: burst.value,
    };
    Ok(At {
        value: bucket,
        place: burst.place,
    })
}

fn least_burst(measure: Measure) -> u64 {
    match measure {
        Measure::Count => 1,
        Measure::Bytes => LARGEST_FRAME_BYTES,
    }
}

fn burst(value: &Value<'_>, measure: Measure) -> Read<At<u64>> {
    let least = least_burst(measure);
    let burst = if value.as_str().is_some() && measure == Measure::Bytes {
        value.text("", |text| measure.parse_amount(text))?
    } else {
        value.integer(0..=u64::MAX)?
    };
    if burst < least {
        let (what, help) = match measure {
            Measure::Count => (
                "one packet",
                "no packet would ever pass; allowed: 1 and more",
            ),
            Measure::Bytes => (
                "the largest frame, 1514 bytes",
                "such frames would never pass; allowed: 1514 and more",
            ),
        };
        let message = format!("a burst of {burst} is below {what}");
        return Err(value.error(Problem::new(message, help)));
    }
    Ok(value.at(burst))
}

fn exceed(value: &Value<'_>) -> Read<At<Exceed>> {
    if !value.is_table() {
        return Ok(value.at(value.word_or(&EXCEED, &[r#"{ block = "60s" }"#])?));
    }
    let section = value.section()?;
    let block = section.read("block", |v| {
        v.text("allowed: a duration, such as 60s", |text| {
            bounded_duration(text, MIN_BLOCK..=MAX_BLOCK)
        })
    })?;
    match block {
        Some(duration) => Ok(value.at(Exceed::Block(duration))),
        None => {
            let help = r#"write { block = "60s" }, "drop" or "observe""#;
            Err(value.error(Problem::new("`exceed` without `block`", help)))
        }
    }
}

const MIN_BLOCK: Duration = Duration::from_secs(1);
const MAX_BLOCK: Duration = Duration::from_hours(30 * 24);

/// A duration inside a range, which the error names.
pub(super) fn bounded_duration(
    text: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Problem> {
    let duration = parse_duration(text)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
    let message = format!("{} is out of range", quote(text));
    Err(Problem::new(message, format!("allowed: {least} to {most}")))
}
