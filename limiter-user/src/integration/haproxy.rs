//! HAProxy: a filter that asks over its stream processing offload protocol (SPOE), and reports.

use std::fmt::Write as _;

use super::{Failure, Site, asked_at, asks_location, open_gates, shown, signals};
use crate::challenge::PATH;
use crate::policy::Decide;

/// The frontend and the backends, and what the filter of the frontend reads. `None`: the policy
/// has no place where HAProxy could ask.
#[must_use]
pub fn haproxy(decide: &Decide, site: &Site<'_>) -> Option<(String, String)> {
    let spoe = asked_at(decide.spoe.as_ref()?, "unix@");
    Some((sections(decide, site, &spoe), filter(decide)))
}

fn sections(decide: &Decide, site: &Site<'_>, spoe: &str) -> String {
    let mut text = String::from(
        "# limiter, for /etc/haproxy/haproxy.cfg. Put the lines of this frontend before those of your\n\
         # own; their order matters.\n\
         # Written by `limiter integration haproxy`; write it again when the policy changes.\n",
    );
    text.push_str(open_gates(decide, site.failure));
    text.push_str("frontend web\n  bind :80\n");
    if decide.accounts.reads_bodies() {
        text.push_str("  # Accounts stand in bodies.\n  option http-buffer-request\n");
    }
    text.push_str(
        "  filter spoe engine limiter config /etc/haproxy/limiter.cfg\n\
         \x20 filter spoe engine limiter-wait config /etc/haproxy/limiter.cfg\n",
    );
    text.push_str(&refusals(decide, site.failure));
    text.push_str(&responses(decide));
    text.push_str(&ways(decide));
    let listen = asked_at(&decide.listen, "unix@");
    let _ = write!(
        text,
        "  default_backend origin\n\nbackend origin\n  server origin {}\n\n\
         # The names of limiter's backends stand in the conditions too.\n\
         backend limiter_answer\n\
         \x20 http-request set-header X-Limiter-Verdict %[var(txn.limiter.verdict)]\n\
         \x20 http-request set-method GET\n  http-request set-path /check/nginx/answer\n\
         \x20 server limiter {listen}\n\n",
        site.origin
    );
    if decide.challenges() {
        let _ = write!(
            text,
            "backend limiter_challenge\n  http-request set-path /check/challenge\n\
             \x20 server limiter {listen}\n\n"
        );
    }
    let _ = write!(
        text,
        "backend limiter\n  mode tcp\n\
         \x20 # Another try at once would find the same, and one after a pause comes too late.\n\
         \x20 retries 0\n  timeout connect 1s\n  timeout server 90s\n\
         \x20 server limiter {spoe} check inter 1s fall 1 rise 1\n"
    );
    text
}

/// What is kept for the report, and who is refused or waits.
fn refusals(decide: &Decide, failure: Failure) -> String {
    let mut text = String::from(
        "  # The response has no request any more: what limiter is told of it is kept, and no more than\n\
         \x20 # fits into a frame.\n\
         \x20 http-request set-var(txn.method) method,bytes(0,32)\n\
         \x20 http-request set-var(txn.path) pathq,bytes(0,1024)\n\
         \x20 http-request set-var(txn.host) req.hdr(host),bytes(0,255)\n\
         \x20 # What does not fit into a frame was not looked at.\n\
         \x20 http-request return status 431 if { var(txn.limiter.error) -m int 3 }\n",
    );
    if failure == Failure::Closed {
        let solution = match decide.challenges() {
            true => format!(" !{{ path {PATH} }}"),
            false => String::new(),
        };
        let _ = writeln!(
            text,
            "  # Fail closed: where limiter is away, requests are refused.\n\
             \x20 http-request return status 503 hdr Retry-After 5 hdr X-Limiter away \
             if !{{ var(txn.limiter.action) -m found }}{solution}"
        );
    }
    text.push_str(
        "  # Who is throttled waits; where too many do, this brings a verdict.\n\
         \x20 http-request send-spoe-group limiter-wait limiter-wait if { var(txn.limiter.wait) -m found }\n",
    );
    text
}

/// What of responses clients see.
fn responses(decide: &Decide) -> String {
    let mut text = String::new();
    let signals = signals(decide);
    if !signals.is_empty() {
        text.push_str("  # What the origin says to limiter is for no client.\n");
    }
    for name in signals {
        let _ = writeln!(text, "  http-response del-header {name}");
    }
    let _ = writeln!(
        text,
        "  # The mark of limiter's own answers is no origin's to set.\n\
         \x20 http-response del-header X-Limiter unless {{ be_name -m str {} }}",
        own(decide)
    );
    let shown = shown(decide);
    if !shown.is_empty() {
        text.push_str("  # Who passes learns what is left.\n");
    }
    for name in shown {
        let variable = format!(
            "txn.limiter.{}",
            name.to_ascii_lowercase().replace('-', "_")
        );
        // Others may expose headers too.
        let verb = match name {
            "Access-Control-Expose-Headers" => "add-header",
            _ => "set-header",
        };
        let _ = writeln!(
            text,
            "  http-response {verb} {name} %[var({variable})] if {{ var({variable}) -m found }}"
        );
    }
    text
}

/// What goes to limiter and not to the origin.
fn ways(decide: &Decide) -> String {
    let mut text = String::new();
    if decide.challenges() {
        let _ = writeln!(
            text,
            "  # Where browsers send what they have computed.\n\
             \x20 use_backend limiter_challenge if {{ path {PATH} }}"
        );
    }
    text.push_str(
        "  # Who is refused gets limiter's answer.\n\
         \x20 use_backend limiter_answer if { var(txn.limiter.verdict) -m found }\n",
    );
    text
}

/// The backends whose answers are limiter's own.
fn own(decide: &Decide) -> &'static str {
    match decide.challenges() {
        true => "limiter_answer limiter_challenge",
        false => "limiter_answer",
    }
}

fn filter(decide: &Decide) -> String {
    let mut text = String::from(
        "# limiter, for /etc/haproxy/limiter.cfg.\n\
         # Written by `limiter integration haproxy`; write it again when the policy changes.\n\
         [limiter]\nspoe-agent limiter\n  messages limiter-check limiter-report\n\
         \x20 option var-prefix limiter\n  option continue-on-error\n  option set-on-error error\n\
         \x20 # What does not fit into one frame is an error at once, and not after 300 ms.\n\
         \x20 no option send-frag-payload\n\
         \x20 timeout hello 300ms\n  timeout idle 60s\n  timeout processing 300ms\n  use-backend limiter\n\
         spoe-message limiter-check\n\
         \x20 args peer=src method=method path=pathq host=req.hdr(host) headers=req.hdrs_bin\n",
    );
    if decide.accounts.reads_bodies() {
        text.push_str("  args body=req.body,bytes(0,4096) body_size=req.body_size\n");
    }
    text.push_str("  # Without a server every question would wait for its 300 ms.\n");
    let solution = match decide.challenges() {
        true => {
            text.push_str(
                "  # Solutions of challenges are limiter's own, and nobody asks about them.\n",
            );
            format!(" !{{ path {PATH} }}")
        }
        false => String::new(),
    };
    let _ = write!(
        text,
        "  event on-frontend-http-request if {{ nbsrv(limiter) gt 0 }}{solution}\n\
         spoe-message limiter-report\n\
         \x20 args id=var(txn.limiter.id) peer=src method=var(txn.method) path=var(txn.path) \
         host=var(txn.host) status=status\n"
    );
    let location = asks_location(decide).then_some("location");
    for name in signals(decide).into_iter().chain(location) {
        let _ = writeln!(text, "  args header:{name}=res.fhdr({name}),bytes(0,1024)");
    }
    let _ = write!(
        text,
        "  # What limiter answers itself is not the origin's.\n\
         \x20 event on-http-response unless {{ be_name -m str {} }}\n\n\
         [limiter-wait]\nspoe-agent limiter-wait\n  groups limiter-wait\n\
         \x20 option var-prefix limiter\n  option continue-on-error\n\
         \x20 timeout hello 300ms\n  timeout idle 75s\n  timeout processing 61s\n  use-backend limiter\n\
         spoe-message limiter-wait\n  args wait=var(txn.limiter.wait)\n\
         spoe-group limiter-wait\n  messages limiter-wait\n",
        own(decide)
    );
    text
}
