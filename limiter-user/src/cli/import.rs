//! Files of networks: one a line, with an optional duration, `#` comments.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::Failure;
use super::args::Import;
use crate::control::api::Entry;
use crate::policy::parse_network;
use crate::policy::units::parse_duration;

/// The largest file. What the daemon takes at once is less than this as JSON.
const MAX_BYTES: u64 = 16 << 20;

/// Errors shown at most.
const MAX_ERRORS: usize = 20;

/// Reads a file, or standard input.
pub(super) fn read(import: &Import) -> Result<Vec<Entry>, Failure> {
    let is_stdin = import.file == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        import.file.display().to_string()
    };
    let text = if is_stdin {
        bounded(io::stdin())
    } else {
        File::open(&import.file).and_then(bounded)
    };
    let text = text.map_err(|cause| Failure::Words(format!("cannot read {name}: {cause}")))?;
    let defaults = Entry {
        lasting: import.lasting.clone(),
        reason: import.reason.clone(),
        ..Entry::default()
    };
    parse(&name, &text, &defaults).map_err(Failure::Words)
}

fn bounded(reader: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("larger than 16 MiB; import it in parts"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}

/// All entries, or the errors of all lines.
fn parse(name: &str, text: &str, defaults: &Entry) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut errors = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() {
            continue;
        }
        match parse_line(line, defaults) {
            Ok(entry) => entries.push(entry),
            Err(problem) => errors.push(format!("{name}:{}: {problem}", index + 1)),
        }
    }
    if errors.is_empty() {
        if entries.is_empty() {
            return Err(format!("{name}: there is no network in it"));
        }
        return Ok(entries);
    }
    let more = errors.len().saturating_sub(MAX_ERRORS);
    errors.truncate(MAX_ERRORS);
    if more > 0 {
        errors.push(format!("and {more} more"));
    }
    errors.push("nothing was imported".to_owned());
    Err(errors.join("\n"))
}

fn parse_line(line: &str, defaults: &Entry) -> Result<Entry, String> {
    let mut parts = line.split_whitespace();
    let network = parts.next().unwrap_or_default();
    parse_network(network).map_err(|problem| problem.to_string())?;
    let lasting = parts.next();
    if let Some(text) = lasting {
        parse_duration(text).map_err(|problem| problem.to_string())?;
    }
    if parts.next().is_some() {
        return Err("more than a network and a duration; comments start with #".to_owned());
    }
    Ok(Entry {
        network: network.to_owned(),
        lasting: lasting
            .map(str::to_owned)
            .or_else(|| defaults.lasting.clone()),
        ..defaults.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Entry>, String> {
        let defaults = Entry {
            lasting: Some("1h".to_owned()),
            ..Entry::default()
        };
        parse("list.txt", text, &defaults)
    }

    #[test]
    fn networks_durations_and_comments() {
        let entries = read("\u{feff}192.0.2.1\r\n# all\n\n 2001:db8::/32\t15m # why\n").unwrap();
        let short: Vec<(&str, Option<&str>)> = entries
            .iter()
            .map(|entry| (entry.network.as_str(), entry.lasting.as_deref()))
            .collect();
        assert_eq!(
            short,
            [("192.0.2.1", Some("1h")), ("2001:db8::/32", Some("15m"))]
        );
    }

    #[test]
    fn every_wrong_line_is_named_and_nothing_imported() {
        let error = read("192.0.2.1\n192.0.2.1/24\n\n::ffff:1.2.3.4\n1.2.3.4 x\n1.2.3.4 1h y\n");
        let error = error.unwrap_err();
        for place in [
            "list.txt:2: ",
            "list.txt:4: ",
            "list.txt:5: ",
            "list.txt:6: ",
        ] {
            assert!(error.contains(place), "{error}");
        }
        assert!(error.contains("192.0.2.0/24") && error.ends_with("nothing was imported"));
        assert!(read("# nothing\n").is_err());
        assert!(
            read(&"x\n".repeat(100))
                .unwrap_err()
                .contains("and 80 more")
        );
    }
}
