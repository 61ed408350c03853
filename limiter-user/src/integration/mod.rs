//! The configuration of a proxy for the policy at hand: that it asks about each request,
//! overwrites what is believed, hides what the origin says to limiter alone, and what
//! happens where limiter is away. Pure: a policy becomes text.

mod caddy;
mod haproxy;
mod nginx;
#[cfg(test)]
mod tests;
mod traefik;

pub use caddy::caddy;
pub use haproxy::haproxy;
pub use nginx::nginx;
pub use traefik::traefik;

use crate::policy::{AccountPlace, Count, Decide, HeaderPattern, Listen, OutcomePattern, Rule};
use crate::response::limit_headers;

/// What becomes of requests where limiter does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// They pass.
    Open,
    /// They are refused with 503.
    Closed,
}

/// What the policy does not say.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// Where the proxy passes requests on to: `127.0.0.1:8080`, or the name of an
    /// upstream.
    pub origin: &'a str,
    /// What happens where limiter is away.
    pub failure: Failure,
}

/// Response headers that the origin says to limiter, in lower case: clients have no use
/// for them, and attackers do.
fn signals(decide: &Decide) -> Vec<&str> {
    let of_accounts = decide.accounts.from.iter().filter_map(|place| match place {
        AccountPlace::ResponseHeader(name) => Some(name.as_str()),
        _ => None,
    });
    let mut names: Vec<&str> = decide.rules.iter().flat_map(of_rule).collect();
    names.extend(of_accounts);
    names.extend(decide.accounts.owner_header.as_deref());
    names.retain(|name| *name != "location");
    names.sort_unstable();
    names.dedup();
    names
}

fn of_rule(rule: &Rule) -> impl Iterator<Item = &str> {
    let counted = match &rule.count {
        Count::ResponseHeader(HeaderPattern { name, .. }) | Count::ScoreHeader(name) => {
            Some(name.as_str())
        }
        _ => None,
    };
    let patterns = [&rule.failure, &rule.success].into_iter().flatten();
    let outcomes = patterns.filter_map(|pattern| pattern.response_header.as_ref());
    counted
        .into_iter()
        .chain(outcomes.map(|it| it.name.as_str()))
}

/// Whether a rule looks at where the origin sends a client.
fn asks_location(decide: &Decide) -> bool {
    let asks = |pattern: &OutcomePattern| pattern.location.is_some();
    let mut rules = decide.rules.iter();
    rules.any(|rule| {
        [&rule.failure, &rule.success]
            .into_iter()
            .flatten()
            .any(asks)
    })
}

/// The headers of the limit that responses of the policy's rules have.
fn shown(decide: &Decide) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for rule in &decide.rules {
        for name in limit_headers(rule.response.headers) {
            if !names.contains(name) {
                names.push(name);
            }
        }
    }
    if !names.is_empty() {
        names.push("Access-Control-Expose-Headers");
    }
    names
}

/// What who writes it should know of the policy's gates.
fn open_gates(decide: &Decide, failure: Failure) -> &'static str {
    let is_gated = decide.rules.iter().any(|rule| rule.from.is_some());
    match failure {
        Failure::Open if is_gated => {
            "# Where limiter is away, the gates of the policy (`from`) are open. `--fail-closed` keeps them\n\
             # closed.\n"
        }
        _ => "",
    }
}

/// Where limiter is asked, as the proxy names it.
fn asked_at(listen: &Listen, unix: &str) -> String {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => format!("{unix}{}", path.display()),
    }
}
