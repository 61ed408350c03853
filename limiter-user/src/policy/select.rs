//! What a rule selects, counts and counts by: requests, hosts, statuses,
//! headers, outcomes, keys.

use std::ops::RangeInclusive;

use super::diagnostic::quote;
use super::pattern::Pattern;
use super::reader::{Section, Value};
use super::report::{At, Read};
use super::rule::{Count, HeaderPattern, KeyPart, OutcomePattern, RequestPattern, Statuses};
use super::schema::suggest;
use super::units::Problem;
use super::words::key_part_text;
use crate::event::path::normalise;

/// The most entries of a list in a rule.
pub(super) const MAX_PATTERNS: usize = 256;
const MAX_KEY_PARTS: usize = 8;
const MAX_PATTERN_BYTES: usize = 512;
const REQUESTS_HELP: &str =
    r#"allowed: "METHOD path" or "path", such as ["POST /login", "/api/*", "/sessions/{id}"]"#;
const HOSTS_HELP: &str = r#"allowed: host names, such as ["example.com", "*.example.com"]"#;
const NAME_HELP: &str = "allowed: the name of a header, such as X-Cost";
const STATUSES_HELP: &str =
    r#"allowed: 100 to 599, as statuses, classes and ranges: [401, "5xx", "400-404"]"#;
const TEXT_HELP: &str = "allowed: a string of up to 512 bytes";
const KEYS: [(&str, KeyPart); 6] = [
    ("source", KeyPart::Source),
    ("peer", KeyPart::Peer),
    ("account", KeyPart::Account),
    ("method", KeyPart::Method),
    ("path", KeyPart::Path),
    ("host", KeyPart::Host),
];
const KEY_HELP: &str =
    "allowed: source, peer, account, method, path, host, header:NAME, cookie:NAME, query:NAME";

/// As [`Value::list`], with a bound.
pub(super) fn bounded<'a, T>(
    value: &Value<'a>,
    help: &str,
    most: usize,
    read: impl Fn(&Value<'a>) -> Read<T>,
) -> Read<Vec<T>> {
    let items = value.list(help, read)?;
    if items.len() > most {
        let message = format!("{} entries in `{}`", items.len(), value.key());
        return Err(value.error(Problem::new(message, format!("allowed: up to {most}"))));
    }
    Ok(items)
}

pub(super) fn requests(value: &Value<'_>) -> Read<At<Vec<RequestPattern>>> {
    let requests = bounded(value, REQUESTS_HELP, MAX_PATTERNS, |item| {
        item.text(REQUESTS_HELP, request)
    })?;
    Ok(value.at(requests))
}

fn request(text: &str) -> Result<RequestPattern, Problem> {
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (Some(method), path),
        None => (None, text),
    };
    let method = method.map(|method| method_name(text, method)).transpose()?;
    path_is_normal(text, path)?;
    let path = Pattern::path(path)?;
    Ok(RequestPattern { method, path })
}

fn method_name(text: &str, method: &str) -> Result<String, Problem> {
    let known = |b: u8| b.is_ascii_alphabetic() || b"-_".contains(&b);
    if !(1..=32).contains(&method.len()) || !method.bytes().all(known) {
        let message = format!("{} does not start with a method", quote(text));
        return Err(Problem::new(message, REQUESTS_HELP));
    }
    let capitals = method.to_ascii_uppercase();
    if capitals != method {
        let message = format!("{}: methods are written in capitals", quote(text));
        return Err(Problem::new(message, format!("write `{capitals}`")));
    }
    Ok(capitals)
}

/// What is never seen in a normalised path would never match.
fn path_is_normal(text: &str, path: &str) -> Result<(), Problem> {
    let wrong = |what: &str, help: &str| {
        let message = format!("{} {what}", quote(text));
        Err(Problem::new(message, help))
    };
    if path.len() > MAX_PATTERN_BYTES {
        return wrong("is too long", "allowed: up to 512 bytes");
    }
    if !path.starts_with(['/', '*']) {
        return wrong("has a path that starts with neither / nor *", REQUESTS_HELP);
    }
    if path.contains(['?', '#']) {
        return wrong(
            "has a query, which is not compared",
            "leave out what follows the path; query:NAME may be in `key`",
        );
    }
    let (star, rest) = match path.strip_prefix('*') {
        Some(_) => ("/", path),
        None => ("", path),
    };
    let written = format!("{star}{rest}");
    let normal = normalise(&written);
    if normal != written {
        let normal = normal.strip_prefix(star).unwrap_or(&normal);
        let help = format!("paths are compared normalised: write {}", quote(normal));
        return wrong("would never match", &help);
    }
    Ok(())
}

pub(super) fn hosts(value: &Value<'_>) -> Read<Vec<Pattern>> {
    bounded(value, HOSTS_HELP, MAX_PATTERNS, |item| {
        item.text(HOSTS_HELP, host)
    })
}

fn host(text: &str) -> Result<Pattern, Problem> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.*".contains(&b);
    let name = text.strip_suffix('.').unwrap_or(text);
    if (1..=253).contains(&name.len()) && name.bytes().all(known) {
        return Ok(Pattern::wildcard(&name.to_ascii_lowercase()));
    }
    let help = if text.contains(':') {
        "write it without port"
    } else if text.is_ascii() {
        HOSTS_HELP
    } else {
        "write it as DNS has it, with xn--"
    };
    let message = format!("{} is not the name of a host", quote(text));
    Err(Problem::new(message, help))
}

/// Some text of bounded length.
pub(super) fn short_text(value: &Value<'_>) -> Read<String> {
    value.text(TEXT_HELP, |text| {
        if (1..=MAX_PATTERN_BYTES).contains(&text.len()) {
            return Ok(text.to_owned());
        }
        let message = format!("{} is empty or too long", quote(text));
        Err(Problem::new(message, TEXT_HELP))
    })
}

pub(super) fn statuses(value: &Value<'_>) -> Read<Statuses> {
    let ranges = bounded(value, STATUSES_HELP, MAX_PATTERNS, |item| {
        if item.is_integer() {
            return item.small(100..=599).map(|status: u16| status..=status);
        }
        item.text(STATUSES_HELP, status_range)
    })?;
    if ranges.is_empty() {
        let message = "no status: nothing would fit";
        return Err(value.error(Problem::new(message, STATUSES_HELP)));
    }
    Ok(Statuses::new(ranges))
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let wrong = || {
        let message = format!("{} is no status, class or range", quote(text));
        Problem::new(message, STATUSES_HELP)
    };
    let status = |text: &str| {
        let is_status = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        let status = text.parse::<u16>().ok().filter(|_| is_status);
        status.filter(|it| (100..=599).contains(it))
    };
    if let Some(class) = text.strip_suffix("xx") {
        let first = status(&format!("{class}00")).ok_or_else(wrong)?;
        return Ok(first..=first + 99);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (
        status(first).ok_or_else(wrong)?,
        status(last).ok_or_else(wrong)?,
    );
    if first > last {
        let message = format!("{} is a range from high to low", quote(text));
        return Err(Problem::new(message, format!(r#"write "{last}-{first}""#)));
    }
    Ok(first..=last)
}

/// The name of a header, in lower case.
pub(super) fn header_name(text: &str) -> Result<String, Problem> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=256).contains(&text.len()) && text.bytes().all(known) {
        return Ok(text.to_ascii_lowercase());
    }
    let message = format!("{} is not the name of a header", quote(text));
    Err(Problem::new(message, NAME_HELP))
}

pub(super) fn response_header(value: &Value<'_>, ignore_case: bool) -> Read<HeaderPattern> {
    let section = value.section()?;
    let name = section.read("name", |v| v.text(NAME_HELP, header_name));
    let wanted = section.read("value", short_text);
    let name = name?.ok_or_else(|| {
        let message = format!("`{}` without `name`", value.key());
        value.error(Problem::new(message, NAME_HELP))
    })?;
    Ok(HeaderPattern {
        name,
        value: wanted?.map(|it| it.trim().to_owned()),
        ignore_case,
    })
}

/// `failure` or `success`.
pub(super) fn outcome(value: &Value<'_>, ignore_case: bool) -> Read<At<OutcomePattern>> {
    let section = value.section()?;
    let statuses = section.read("statuses", statuses);
    let location = section.read("location", |v| Ok(Pattern::wildcard(&short_text(v)?)));
    let response_header = section.read("response_header", |v| response_header(v, ignore_case));
    let pattern = OutcomePattern {
        statuses: statuses?,
        location: location?,
        response_header: response_header?,
    };
    if pattern.statuses.is_none() && pattern.location.is_none() && pattern.response_header.is_none()
    {
        let message = format!("an empty `{}` would fit every response", value.key());
        let help = "give it statuses, location or response_header";
        return Err(value.error(Problem::new(message, help)));
    }
    Ok(value.at(pattern))
}

const COUNTS: [&str; 3] = ["requests", "failures", "attempts"];
const COUNT_TABLES: [&str; 4] = [
    "{ statuses = [401] }",
    r#"{ response_header = { name = "X-Block" } }"#,
    r#"{ score_header = "X-Cost" }"#,
    r#"{ distinct = "account" }"#,
];

pub(super) fn count(value: &Value<'_>, ignore_case: bool) -> Read<At<Count>> {
    if !value.is_table() {
        const WORDS: [(&str, u8); 3] = [(COUNTS[0], 0), (COUNTS[1], 1), (COUNTS[2], 2)];
        let count = match value.word_or(&WORDS, &COUNT_TABLES)? {
            0 => Count::Requests,
            1 => Count::Failures,
            _ => Count::Attempts,
        };
        return Ok(value.at(count));
    }
    let section = value.section()?;
    let statuses = section.read("statuses", |v| Ok(Count::Statuses(statuses(v)?)));
    let header = section.read("response_header", |v| {
        Ok(Count::ResponseHeader(response_header(v, ignore_case)?))
    });
    let score = section.read("score_header", |v| {
        Ok(Count::ScoreHeader(v.text(NAME_HELP, header_name)?))
    });
    let distinct = section.read("distinct", |v| {
        Ok(Count::Distinct(v.text(KEY_HELP, key_part)?))
    });
    let mut given = [statuses?, header?, score?, distinct?]
        .into_iter()
        .flatten();
    match (given.next(), given.next()) {
        (Some(count), None) => Ok(value.at(count)),
        (None, _) => {
            let help = suggest("", COUNTS.into_iter().chain(COUNT_TABLES), "");
            Err(value.error(Problem::new("`count` counts nothing", help)))
        }
        (Some(_), Some(_)) => {
            let help = "write one rule for each";
            Err(value.error(Problem::new("`count` counts two things", help)))
        }
    }
}

pub(super) fn key(value: &Value<'_>) -> Read<At<Vec<KeyPart>>> {
    let parts = bounded(value, KEY_HELP, MAX_KEY_PARTS, |item| {
        Ok(item.at(item.text(KEY_HELP, key_part)?))
    })?;
    let mut twice = Ok(());
    for (index, part) in parts.iter().enumerate() {
        if parts[..index].iter().any(|other| other.value == part.value) {
            let message = format!("{} is listed twice", quote(&key_part_text(&part.value)));
            twice = Err(value.error_at(&part.place, Problem::new(message, "remove one")));
        }
    }
    twice?;
    Ok(value.at(parts.into_iter().map(|part| part.value).collect()))
}

fn key_part(text: &str) -> Result<KeyPart, Problem> {
    if let Some((_, part)) = KEYS.iter().find(|(name, _)| *name == text) {
        return Ok(part.clone());
    }
    match text.split_once(':') {
        Some(("header", name)) => Ok(KeyPart::Header(header_name(name)?)),
        Some(("cookie", name)) => Ok(KeyPart::Cookie(parameter(text, name)?)),
        Some(("query", name)) => Ok(KeyPart::Query(parameter(text, name)?)),
        _ => {
            let names = KEYS.iter().map(|(name, _)| *name);
            let names = names.chain(["header:NAME", "cookie:NAME", "query:NAME"]);
            let message = format!("{} is no part of a key", quote(text));
            Err(Problem::new(message, suggest(text, names, "")))
        }
    }
}

/// The name of a cookie or of a parameter of the query.
pub(super) fn parameter(text: &str, name: &str) -> Result<String, Problem> {
    let is_good = |c: char| !c.is_whitespace() && !c.is_control() && !"=;,&".contains(c);
    if (1..=256).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(name.to_owned());
    }
    let message = format!("{} names no cookie, parameter, field or claim", quote(text));
    let help = "allowed: a name of 1 to 256 bytes without spaces and any of = ; , &";
    Err(Problem::new(message, help))
}

/// A table's list of names, each once.
pub(super) fn names(section: &Section<'_>, key: &'static str) -> Read<Vec<At<String>>> {
    section.read_or(key, Vec::new(), |value| {
        bounded(value, "allowed: an array of names", MAX_PATTERNS, |item| {
            Ok(item.at(short_text(item)?))
        })
    })
}
