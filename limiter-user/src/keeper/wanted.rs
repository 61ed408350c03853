//! Entries as they were asked for, read and checked.

use std::time::Duration;

use hyper::StatusCode;
use ipnet::IpNet;

use crate::control::api::{Entry, Refusal};
use crate::policy::parse_network;
use crate::policy::units::{duration_text, parse_duration};

/// The longest text that is kept as the reason of an entry.
const MAX_REASON_CHARS: usize = 200;

/// The longest time that an entry may be made for.
const LONGEST: Duration = Duration::from_hours(3_650 * 24);

/// An entry that could be read.
pub(super) struct Wanted {
    pub(super) network: IpNet,
    pub(super) lasting: Option<Duration>,
    pub(super) reason: Option<String>,
    pub(super) limit: Option<String>,
}

/// Which of several entries is meant; nothing where there is only one.
pub(super) fn place_of(entries: &[Entry], place: usize) -> String {
    if entries.len() < 2 {
        return String::new();
    }
    let network = entries.get(place).map(|entry| entry.network.as_str());
    format!("entry {} ({})", place + 1, network.unwrap_or_default())
}

pub(super) fn read_all(entries: &[Entry]) -> Result<Vec<Wanted>, Refusal> {
    if entries.is_empty() {
        let help = "send at least one, as {\"network\": \"192.0.2.1\"}";
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "there are no entries",
            help,
        ));
    }
    let read =
        |(place, entry)| read_entry(entry).map_err(|refusal| refusal.at(place_of(entries, place)));
    entries.iter().enumerate().map(read).collect()
}

fn read_entry(entry: &Entry) -> Result<Wanted, Refusal> {
    let network = read_network(&entry.network)?;
    let invalid =
        |detail: String, help: String| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, detail, help);
    let lasting = entry.lasting.as_deref().map(parse_duration).transpose();
    let lasting = lasting.map_err(|problem| invalid(problem.message, problem.help))?;
    if let Some(lasting) = lasting
        && (lasting.is_zero() || lasting > LONGEST)
    {
        let text = duration_text(lasting);
        let help = format!("allowed: 1s to {}", duration_text(LONGEST));
        return Err(invalid(format!("nothing can be made for {text}"), help));
    }
    if let Some(reason) = &entry.reason
        && reason.chars().count() > MAX_REASON_CHARS
    {
        let help = format!("allowed: up to {MAX_REASON_CHARS} characters");
        return Err(invalid("the reason is too long".to_owned(), help));
    }
    Ok(Wanted {
        network,
        lasting,
        reason: entry.reason.clone(),
        limit: entry.limit.clone(),
    })
}

pub(super) fn read_network(text: &str) -> Result<IpNet, Refusal> {
    parse_network(text).map_err(|problem| {
        Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            problem.message,
            problem.help,
        )
    })
}
