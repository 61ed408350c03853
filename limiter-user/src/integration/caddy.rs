//! Caddy: `forward_auth`, whose answer is the client's.

use std::fmt::Write as _;

use super::{Failure, Site, asked_at, open_gates, shown, signals};
use crate::challenge::PATH;
use crate::event::formats::Format;
use crate::policy::{Datagrams, Decide};

/// What goes into a site's block, in the place of its `reverse_proxy`.
#[must_use]
pub fn caddy(decide: &Decide, site: &Site<'_>) -> String {
    let mut text = String::from(
        "# limiter, for a site of Caddy's: it replaces the site's `reverse_proxy`.\n\
         # Written by `limiter integration caddy`; write it again when the policy changes.\n\
         #\n\
         # The global options, at the head of the Caddyfile, need this beside it: Caddy takes heads\n\
         # of a megabyte and logs them whole, and limiter takes no more than 40 KiB of one.\n\
         # {\n#\tservers {\n#\t\tmax_header_size 16KB\n#\t}\n# }\n",
    );
    text.push_str(open_gates(decide, site.failure));
    text.push('\n');
    text.push_str(&reports(decide));
    let (at, origin) = (asked_at(&decide.listen, "unix/"), site.origin);
    let shown = shown(decide);
    let _ = write!(
        text,
        "{}route {{\n\tvars limiter asking\n\t\
         # The log has it from here, which joins the report to the question.\n\t\
         header {{\n\t\tX-Limiter-Id {{http.request.uuid}}\n\t\tdefer\n\t}}\n\t\
         request_header -X-Limiter-Verdict\n\t\
         # Caddy overwrites X-Forwarded-For, -Method, -Uri and -Host, whatever the client sends.\n\t\
         forward_auth {at} {{\n\t\turi /check?id={{http.request.uuid}}&throttle=later\n\t\t\
         copy_headers X-Limiter-Verdict{}\n\t\t\
         # limiter that cannot answer is as limiter that is away.\n\t\t\
         @limiter_failed status 5xx\n\t\thandle_response @limiter_failed {{\n\t\t\terror 503\n\t\t}}\n\t\ttransport http {{\n\t\t\t\
         dial_timeout 100ms\n\t\t\tresponse_header_timeout 200ms\n\t\t}}\n\t}}\n\t\
         # Who is throttled waits here, for a minute at most. (Of others it is the placeholder itself.)\n\t\
         @limiter_wait header_regexp X-Limiter-Verdict ^action=\n\t\
         forward_auth @limiter_wait {at} {{\n\t\turi /check/wait\n\t\ttransport http {{\n\t\t\t\
         dial_timeout 100ms\n\t\t\tresponse_header_timeout 75s\n\t\t}}\n\t}}\n\t\
         request_header -X-Limiter-Verdict\n\tvars limiter asked\n{}\t{}",
        solutions(decide, &at),
        shown
            .iter()
            .fold(String::new(), |all, name| all + " " + name),
        tells(&shown),
        passes_on(origin)
    );
    for name in signals(decide) {
        let _ = writeln!(
            text,
            "\t# Clients see {name}: Caddy logs only what it sends."
        );
    }
    text.push_str("}\n\n");
    text.push_str(&away(site));
    text
}

/// Puts what limiter has told of the limit on a response that passes; the origin does not see
/// it. Where limiter told nothing, Caddy has copied the placeholder itself.
fn tells(shown: &[&str]) -> String {
    let mut text = String::new();
    for (number, name) in shown.iter().enumerate() {
        let _ = write!(
            text,
            "\t@limiter_{number} header_regexp {name} ^[^{{]\n\t\
             header @limiter_{number} {name} {{http.request.header.{name}}}\n\t\
             request_header -{name}\n"
        );
    }
    text
}

/// Where browsers send what they have computed ([`PATH`]).
fn solutions(decide: &Decide, at: &str) -> String {
    if !decide.challenges() {
        return String::new();
    }
    format!(
        "handle {PATH} {{\n\trewrite * /check/challenge\n\treverse_proxy {at} {{\n\t\t\
         header_up -X-Limiter-Verdict\n\t}}\n}}\n\n"
    )
}

/// To the origin, whose word for limiter's own answers is not taken.
fn passes_on(origin: &str) -> String {
    format!("reverse_proxy {origin} {{\n\t\theader_down -X-Limiter\n\t}}\n")
}

fn reports(decide: &Decide) -> String {
    let log = decide.logs.iter().find(|it| it.format == Format::Caddy);
    let feedback = decide.feedback.iter().find(|it| it.format == Format::Caddy);
    match (log, feedback.map(|it| &it.at)) {
        (Some(log), _) => format!(
            "log {{\n\toutput file {}\n\tformat json\n}}\n\n",
            log.path.display()
        ),
        (None, Some(Datagrams::Udp { listen, .. })) => {
            format!("log {{\n\toutput net udp/{listen}\n\tformat json\n}}\n\n")
        }
        (None, Some(Datagrams::Unix(path))) => format!(
            "log {{\n\toutput net unixgram/{}\n\tformat json\n}}\n\n",
            path.display()
        ),
        (None, None) => "# Nothing is reported: name a place in the policy, as\n\
             # logs = [{ path = \"/var/log/caddy/access.json\", format = \"caddy\" }]\n\n"
            .to_owned(),
    }
}

/// What happens where limiter does not answer within 300 ms. What fails later is the
/// origin's fault, and is not asked for again.
fn away(site: &Site<'_>) -> String {
    let rest = match site.failure {
        Failure::Open => format!(
            "\t\t# Fail open: where limiter is away, requests pass.\n\t\t{}",
            passes_on(site.origin)
        ),
        Failure::Closed => "\t\t# Fail closed: where limiter is away, requests are refused.\n\t\t\
             header X-Limiter away\n\t\theader Retry-After 5\n\t\trespond 503\n"
            .to_owned(),
    };
    format!(
        "handle_errors {{\n\t@limiter_away vars {{http.vars.limiter}} asking\n\t\
         handle @limiter_away {{\n{rest}\t}}\n}}\n"
    )
}
