//! wrk: a client that asks as often as it is answered.

use anyhow::{Context as _, Result, ensure};
use limiter_tests::netns::Namespace;
use std::net::SocketAddr;

/// Connections at once.
pub(crate) const CONNECTIONS: u32 = 32;

/// What it saw.
pub(crate) struct Seen {
    pub(crate) per_second: f64,
    /// Of a hundred requests 99 took no longer, in milliseconds.
    pub(crate) p99_ms: f64,
}

/// Asks for `/` for so many seconds.
pub(crate) fn run(namespace: &Namespace, server: SocketAddr, seconds: u64) -> Result<Seen> {
    let arguments = [
        "--threads=1".to_owned(),
        format!("--connections={CONNECTIONS}"),
        format!("--duration={seconds}s"),
        "--timeout=10s".to_owned(),
        "--latency".to_owned(),
        format!("http://{server}/"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = namespace.output("wrk", &arguments)?;
    read(&printed).with_context(|| format!("reading what wrk prints: {printed}"))
}

fn read(printed: &str) -> Result<Seen> {
    ensure!(!printed.contains("Non-2xx"), "not all answers were 200");
    let field = |name: &str| {
        let line = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name}"))
    };
    let per_second = field("Requests/sec:")?.parse()?;
    // Of no answers it prints that they took no time.
    let p99_ms = if per_second > 0.0 {
        milliseconds(field("99%")?)?
    } else {
        f64::INFINITY
    };
    Ok(Seen { per_second, p99_ms })
}

fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)];
    let found = units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    });
    found.with_context(|| format!("no time: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_prints_is_read() {
        let printed = "Running 2s test @ http://10.1.0.2:443/\n  Latency Distribution\n\
             \x20    50%  512.00us\n     99%    1.25ms\nRequests/sec:  61234.56\n";
        let seen = read(printed).unwrap();
        assert_eq!((seen.per_second, seen.p99_ms), (61_234.56, 1.25));
        assert_eq!(milliseconds("2.00s").unwrap(), 2_000.0);
        assert!(read("").is_err());
    }
}
