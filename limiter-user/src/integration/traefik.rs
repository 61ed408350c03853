//! Traefik: the `ForwardAuth` middleware, whose answer is the client's.

use std::fmt::Write as _;

use super::{Site, asks_location, signals};
use crate::challenge::PATH;
use crate::event::formats::Format;
use crate::policy::{Decide, Listen};

/// The dynamic configuration and the static one. `None`: limiter is asked over a Unix socket,
/// which Traefik does not.
#[must_use]
pub fn traefik(decide: &Decide, site: &Site<'_>) -> Option<(String, String)> {
    let Listen::Tcp(address) = decide.listen else {
        return None;
    };
    let at = format!("http://{address}");
    Some((moving(decide, site, &at), standing(decide)))
}

fn moving(decide: &Decide, site: &Site<'_>, at: &str) -> String {
    let mut text = format!(
        "# limiter, for Traefik's dynamic configuration: the middleware, to be named in each router that\n\
         # is to ask. Where limiter is away Traefik refuses with 500; it knows no other way.\n\
         # Written by `limiter integration traefik`; write it again when the policy changes.\n\
         http:\n  middlewares:\n    limiter:\n      forwardAuth:\n        address: {at}/check\n\
         \x20       # What clients send in X-Forwarded-* is dropped.\n\
         \x20       trustForwardHeader: false\n        authResponseHeaders: []\n"
    );
    if decide.accounts.reads_bodies() {
        text.push_str(
            "        # Accounts stand in bodies, and limiter looks at no more. Traefik answers 401 to larger\n\
             \x20       # ones: keep it to the routers of logins.\n\
             \x20       forwardBody: true\n        maxBodySize: 65536\n",
        );
    }
    if decide.challenges() {
        text.push_str(
            "    limiter-challenge:\n      replacePath:\n        path: /check/challenge\n",
        );
    }
    text.push_str(
        "  routers:\n    web:\n      rule: PathPrefix(`/`)\n      middlewares: [limiter]\n      service: origin\n",
    );
    if decide.challenges() {
        let _ = write!(
            text,
            "    # Where browsers send what they have computed; nobody asks about that.\n\
             \x20   limiter-challenge:\n      rule: Path(`{PATH}`)\n      priority: 10000\n\
             \x20     middlewares: [limiter-challenge]\n      service: limiter\n"
        );
    }
    let service = |name: &str, url: &str| {
        format!("    {name}:\n      loadBalancer:\n        servers:\n          - url: {url}\n")
    };
    text.push_str("  services:\n");
    text.push_str(&service("origin", &format!("http://{}", site.origin)));
    if decide.challenges() {
        text.push_str(&service("limiter", at));
    }
    text
}

fn standing(decide: &Decide) -> String {
    let mut text = String::from("# limiter, for Traefik's static configuration.\n");
    let Some(log) = decide.logs.iter().find(|it| it.format == Format::Traefik) else {
        text.push_str(
            "# Nothing is reported: name a place in the policy, as\n\
             # logs = [{ path = \"/var/log/traefik/access.log\", format = \"traefik\", asked = true }]\n",
        );
        return text;
    };
    let _ = write!(
        text,
        "accessLog:\n  filePath: {}\n  format: json\n  fields:\n    headers:\n      names:\n\
         \x20       # limiter's own refusals, which are not the origin's.\n        X-Limiter: keep\n",
        log.path.display()
    );
    let signals = signals(decide);
    if !signals.is_empty() {
        text.push_str("        # What the origin says to limiter; clients see it too.\n");
    }
    let location = asks_location(decide).then_some("location");
    for name in signals.into_iter().chain(location) {
        let _ = writeln!(text, "        {name}: keep");
    }
    text
}
