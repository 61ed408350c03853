//! wrk: a client that asks as often as it is answered.

use anyhow::{Context as _, Result, ensure};
use limiter_tests::netns::Namespace;
use std::{net::SocketAddr, path::Path};

/// Connections at once.
pub(crate) const CONNECTIONS: u32 = 32;

/// What is asked, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) path: &'a str,
    pub(crate) seconds: u64,
    /// Makes the requests.
    pub(crate) script: Option<&'a Path>,
}

/// What it saw.
pub(crate) struct Seen {
    pub(crate) per_second: f64,
    /// Of a hundred requests 99 took no longer, in milliseconds.
    pub(crate) p99_ms: f64,
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Those of them whose answer was neither a 2xx nor a 3xx.
    pub(crate) refused: u64,
    /// Connections that failed, and requests that were not answered in time.
    pub(crate) broken: u64,
}

/// Asks for `/` for so many seconds; all answers are 200.
pub(crate) fn run(namespace: &Namespace, server: SocketAddr, seconds: u64) -> Result<Seen> {
    let load = Load {
        path: "/",
        seconds,
        script: None,
    };
    let seen = ask(namespace, server, load)?;
    ensure!(seen.refused == 0, "not all answers were 200");
    Ok(seen)
}

/// Asks, whatever is answered.
pub(crate) fn ask(namespace: &Namespace, server: SocketAddr, load: Load<'_>) -> Result<Seen> {
    let mut arguments = vec![
        "--threads=1".to_owned(),
        format!("--connections={CONNECTIONS}"),
        format!("--duration={}s", load.seconds),
        "--timeout=10s".to_owned(),
        "--latency".to_owned(),
    ];
    let script = load.script.map(|it| format!("--script={}", it.display()));
    arguments.extend(script);
    arguments.push(format!("http://{server}{}", load.path));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = namespace.output("wrk", &arguments)?;
    read(&printed).with_context(|| format!("reading what wrk prints: {printed}"))
}

fn read(printed: &str) -> Result<Seen> {
    let lines = || printed.lines().map(str::trim);
    let behind = |name: &str| lines().find_map(|line| line.strip_prefix(name));
    let field = |name: &str| {
        behind(name)
            .map(str::trim)
            .with_context(|| format!("no {name}"))
    };
    let answered = lines().find_map(|line| line.split_once(" requests in "));
    let (answered, _) = answered.context("no requests")?;
    // It says nothing of those where there are none.
    let refused = behind("Non-2xx or 3xx responses:").map_or(Ok(0), |it| it.trim().parse())?;
    let broken = behind("Socket errors:").unwrap_or_default();
    let broken = broken
        .split([' ', ','])
        .filter_map(|word| word.parse::<u64>().ok());
    let per_second = field("Requests/sec:")?.parse()?;
    // Of no answers it prints that they took no time.
    let p99_ms = if per_second > 0.0 {
        milliseconds(field("99%")?)?
    } else {
        f64::INFINITY
    };
    Ok(Seen {
        per_second,
        p99_ms,
        answered: answered.parse()?,
        refused,
        broken: broken.sum(),
    })
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
             \x20    50%  512.00us\n     99%    1.25ms\n  122469 requests in 2.00s, 20.1MB read\n\
             Requests/sec:  61234.56\n";
        let seen = read(printed).unwrap();
        assert_eq!((seen.per_second, seen.p99_ms), (61_234.56, 1.25));
        assert_eq!((seen.answered, seen.refused, seen.broken), (122_469, 0, 0));
        let more = "  Socket errors: connect 1, read 20, write 0, timeout 3\n\
             \x20 Non-2xx or 3xx responses: 7\n";
        let seen = read(&format!("{printed}{more}")).unwrap();
        assert_eq!((seen.refused, seen.broken), (7, 24));
        assert_eq!(milliseconds("2.00s").unwrap(), 2_000.0);
        assert!(read("").is_err());
    }
}
