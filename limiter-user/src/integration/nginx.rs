//! nginx: `auth_request`, and a second request that fetches the answer.

use std::fmt::Write as _;

use super::{Failure, Site, asked_at, asks_location, open_gates, signals};
use crate::adapters::check::NGINX_ORIGIN;
use crate::event::formats::Format;
use crate::policy::{Count, Datagrams, Decide, RequestPattern};

/// Headers that limiter puts on responses that pass, with the variables that hold them.
const SHOWN: [(&str, &str); 6] = [
    ("X-RateLimit-Limit", "limiter_limit"),
    ("X-RateLimit-Remaining", "limiter_remaining"),
    ("X-RateLimit-Reset", "limiter_reset"),
    ("RateLimit", "limiter_ratelimit"),
    ("RateLimit-Policy", "limiter_policy"),
    ("Access-Control-Expose-Headers", "limiter_exposed"),
];

/// The configuration for `http`, and that for `server`.
#[must_use]
pub fn nginx(decide: &Decide, site: &Site<'_>) -> (String, String) {
    (http(decide), server(decide, site))
}

fn http(decide: &Decide) -> String {
    let mut text = String::from(
        "# limiter, for nginx's `http`: /etc/nginx/conf.d/limiter.conf\n\
         # Written by `limiter integration nginx`; write it again when the policy changes.\n\n",
    );
    let at = asked_at(&decide.listen, "unix:");
    let _ = write!(
        text,
        "upstream limiter {{\n    server {at};\n    keepalive 64;\n}}\n\n"
    );
    text.push_str(&bounds(decide));
    text.push_str(&log_format(decide));
    text.push_str(&floor(decide));
    text
}

/// What a client may make long is cut: a report that is larger than a datagram is lost, and
/// with it what became of a login. Of a list of addresses the end is kept, which proxies have
/// written.
fn bounds(decide: &Decide) -> String {
    let client = format!("http_{}", as_variable(&decide.client_header));
    format!(
        "# A report has to fit into a datagram, whatever the client sends.\n\
         map $request_uri $limiter_uri {{\n    default $request_uri;\n    \
         \"~(?s)^(?<limiter_first>.{{4096}})\" $limiter_first;\n}}\n\
         map ${client} $limiter_client {{\n    default ${client};\n    \
         \"~(?s)^.*(?<limiter_last>.{{4096}})$\" $limiter_last;\n}}\n\
         map $http_access_control_request_method $limiter_preflight {{\n    \
         default \"\";\n    \"~.\" yes;\n}}\n\
         # An error_page makes a GET of every request, which is asked about again then.\n\
         map $request $limiter_method {{\n    default $request_method;\n    \
         \"~^(?<limiter_verb>[^ ]+) \" $limiter_verb;\n}}\n\
         # What nginx' limit_req refuses is not the origin's answer.\n\
         map $limit_req_status $limiter_own {{\n    default $sent_http_x_limiter;\n    \
         REJECTED floor;\n}}\n\n"
    )
}

/// The name of a header as nginx' variables have it.
fn as_variable(header: &str) -> String {
    header.to_ascii_lowercase().replace('-', "_")
}

/// What is reported of each request: joined to the question by the id, with what the
/// origin says to limiter, and with the mark of responses that it did not make.
fn log_format(decide: &Decide) -> String {
    let mut pairs: Vec<(String, String)> =
        ["msec", "request_id", "realip_remote_addr", "host", "status"]
            .map(|name| (name.to_owned(), name.to_owned()))
            .into();
    let client = format!("http_{}", as_variable(&decide.client_header));
    for (key, held) in [
        ("request_method", "limiter_method"),
        ("request_uri", "limiter_uri"),
        ("http_access_control_request_method", "limiter_preflight"),
        ("sent_http_x_limiter", "limiter_own"),
        (&client, "limiter_client"),
    ] {
        pairs.push((key.to_owned(), held.to_owned()));
    }
    let location = asks_location(decide).then_some("location");
    for name in signals(decide).into_iter().chain(location) {
        let name = format!("upstream_http_{}", as_variable(name));
        pairs.push((name.clone(), name));
    }
    let mut text = String::from(
        "# The peer is the source here too: limiter finds the client as in its question.\n\
         log_format limiter escape=json\n    '{\"remote_addr\":\"$realip_remote_addr\"'\n",
    );
    for (key, held) in pairs {
        let _ = writeln!(text, "    ',\"{key}\":\"${held}\"'");
    }
    text.push_str("    '}';\n\n");
    text
}

/// `limit_req` where passwords are tried: it holds where limiter is away. Patterns that
/// fit all paths, or only what is read, are no places where passwords are tried.
fn floor(decide: &Decide) -> String {
    let guesses = decide.rules.iter().filter(|rule| match &rule.count {
        Count::Failures | Count::Attempts => true,
        Count::Statuses(statuses) => statuses.contains(401),
        _ => false,
    });
    let patterns = guesses.flat_map(|rule| &rule.requests).filter(|pattern| {
        pattern.method.as_deref() != Some("GET") && !["*", "/*"].contains(&pattern.path.as_str())
    });
    let patterns: Vec<String> = patterns.map(expression).collect();
    if patterns.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "# A floor of nginx's own where passwords are tried, if limiter is away.\n\
         map \"$request_method $uri\" $limiter_guess {\n    default \"\";\n",
    );
    let mut known: Vec<&String> = Vec::new();
    for pattern in &patterns {
        if !known.contains(&pattern) {
            known.push(pattern);
            let _ = writeln!(text, "    \"~{pattern}\" $binary_remote_addr;");
        }
    }
    text.push_str("}\nlimit_req_zone $limiter_guess zone=limiter_guess:10m rate=1r/s;\n");
    text
}

/// What a pattern of requests is as a regular expression.
fn expression(pattern: &RequestPattern) -> String {
    let method = match pattern.method.as_deref() {
        None => "[A-Z]+".to_owned(),
        Some(method) => method.to_owned(),
    };
    // A path may hold the end of a line (%0A), which a `.` does not match otherwise.
    let mut text = format!("(?s)^{method} ");
    let mut rest = pattern.path.as_str().chars();
    while let Some(character) = rest.next() {
        match character {
            '*' => text.push_str(".*"),
            '{' => {
                let _name = rest.by_ref().find(|it| *it == '}');
                text.push_str("[^/]+");
            }
            '/' | '-' | '_' => text.push(character),
            other if other.is_ascii_alphanumeric() => text.push(other),
            other if other == '"' || other.is_control() => text.push('.'),
            // nginx reads `$` in a map's expression as it stands.
            other => {
                text.push('\\');
                text.push(other);
            }
        }
    }
    text.push('$');
    text
}

fn server(decide: &Decide, site: &Site<'_>) -> String {
    let mut text = String::from(
        "# limiter, for nginx's `server`: include snippets/limiter.conf\n\
         # A location with an add_header, error_page or proxy_hide_header of its own inherits none of\n\
         # those below: repeat them there.\n",
    );
    text.push_str(open_gates(decide, site.failure));
    text.push('\n');
    text.push_str(&reports(decide));
    text.push_str(
        "auth_request /.limiter/check;\n\
         auth_request_set $limiter_verdict $upstream_http_x_limiter_verdict;\n",
    );
    for (header, variable) in SHOWN {
        let held = as_variable(header);
        let _ = writeln!(text, "auth_request_set ${variable} $upstream_http_{held};");
    }
    text.push_str("error_page 403 = @limiter_answer;\n");
    for (header, variable) in SHOWN {
        let _ = writeln!(text, "add_header {header} ${variable} always;");
    }
    let signals = signals(decide);
    if !signals.is_empty() {
        text.push_str("\n# What the origin says to limiter is for no client.\n");
    }
    for name in signals {
        let _ = writeln!(text, "proxy_hide_header {name};");
    }
    text.push_str("proxy_hide_header X-Limiter;\nproxy_hide_header X-Limiter-Verdict;\n");
    if !floor(decide).is_empty() {
        text.push_str("\nlimit_req zone=limiter_guess burst=20 nodelay;\nlimit_req_status 429;\n");
    }
    text.push_str(&question(site.failure));
    text.push_str(ANSWER);
    if decide.challenges() {
        text.push_str(SOLUTION);
    }
    let origin = site.origin;
    let _ = write!(
        text,
        "\n# Who was made to wait goes on here, with its body: as the location that it asked for.\n\
         location {NGINX_ORIGIN} {{\n    auth_request off;\n    proxy_pass http://{origin};\n    \
         proxy_set_header Host $host;\n}}\n"
    );
    text
}

/// Where the access log goes: to the first place of the policy that reads it.
fn reports(decide: &Decide) -> String {
    let feedback = decide
        .feedback
        .iter()
        .find(|it| it.format == Format::NginxJson);
    let log = decide.logs.iter().find(|it| it.format == Format::NginxJson);
    match (feedback.map(|it| &it.at), log) {
        (Some(Datagrams::Unix(path)), _) => format!(
            "access_log syslog:server=unix:{},nohostname,tag=nginx limiter;\n\n",
            path.display()
        ),
        (Some(Datagrams::Udp { listen, .. }), _) => {
            format!("access_log syslog:server={listen},nohostname,tag=nginx limiter;\n\n")
        }
        (None, Some(log)) => format!("access_log {} limiter;\n\n", log.path.display()),
        (None, None) => "# Nothing is reported: name a place in the policy, as\n\
             # feedback = [{ unix = \"/run/limiter/nginx.sock\", format = \"nginx-json\" }]\n\n"
            .to_owned(),
    }
}

/// The question. Within 300 ms it is answered or limiter is away.
fn question(failure: Failure) -> String {
    let away = match failure {
        Failure::Open => {
            "    # Fail open: where limiter is away, or cannot answer, requests pass.\n    \
             proxy_intercept_errors on;\n    \
             error_page 500 502 503 504 = /.limiter/open;\n}\n\n\
             location = /.limiter/open {\n    internal;\n    auth_request off;\n    return 204;\n}\n"
        }
        Failure::Closed => {
            "}\n\n# Fail closed: where limiter is away, requests are refused.\n\
             error_page 500 = @limiter_away;\nlocation @limiter_away {\n    auth_request off;\n    \
             add_header X-Limiter away always;\n    add_header Retry-After 5 always;\n    \
             add_header Cache-Control no-store always;\n    return 503;\n}\n"
        }
    };
    format!(
        "\nlocation = /.limiter/check {{\n    internal;\n    auth_request off;\n    \
         proxy_pass http://limiter/check/nginx;\n    proxy_http_version 1.1;\n    \
         proxy_pass_request_body off;\n    \
         # Each is overwritten, whatever the client sends.\n    \
         proxy_set_header Connection \"\";\n    proxy_set_header Content-Length \"\";\n    \
         proxy_set_header Host limiter;\n    \
         proxy_set_header X-Limiter-Id $request_id;\n    \
         proxy_set_header X-Limiter-Peer $realip_remote_addr;\n    \
         proxy_set_header X-Limiter-Method $limiter_method;\n    \
         proxy_set_header X-Limiter-Host $host;\n    \
         proxy_set_header X-Limiter-Uri $request_uri;\n    \
         proxy_connect_timeout 100ms;\n    proxy_send_timeout 100ms;\n    \
         proxy_read_timeout 200ms;\n{away}"
    )
}

/// A variable in `proxy_pass`: a named location allows no path otherwise, and a rewritten
/// one would go on to the origin.
const ANSWER: &str = "\n# The final answer. Who is throttled waits here, for a minute at most.\n\
location @limiter_answer {\n    auth_request off;\n    set $limiter_answer /check/nginx/answer;\n    \
proxy_pass http://limiter$limiter_answer;\n    proxy_http_version 1.1;\n    \
proxy_pass_request_body off;\n    proxy_set_header Connection \"\";\n    \
proxy_set_header Content-Length \"\";\n    proxy_set_header Host limiter;\n    \
proxy_set_header X-Limiter-Verdict $limiter_verdict;\n    proxy_connect_timeout 100ms;\n    \
proxy_read_timeout 75s;\n    \
# Of its own, so that the answer's headers come once; an empty one is not sent.\n    \
add_header X-Limiter-Answer \"\";\n    \
# Likewise: the mark of limiter's own answers stays on, for the log.\n    proxy_hide_header X-Limiter-Verdict;\n}\n";

/// As [`PATH`](crate::challenge::PATH) names it.
const SOLUTION: &str = "\n# Where browsers send what they have computed.\n\
location = /.limiter/challenge {\n    auth_request off;\n    \
proxy_pass http://limiter/check/challenge;\n    proxy_http_version 1.1;\n    \
proxy_pass_request_body off;\n    proxy_intercept_errors off;\n    \
proxy_set_header Connection \"\";\n    proxy_set_header Content-Length \"\";\n    \
proxy_set_header Host $host;\n    proxy_connect_timeout 100ms;\n    \
# The provider of a CAPTCHA may take its time.\n    proxy_read_timeout 15s;\n    \
# Likewise.\n    add_header X-Limiter-Answer \"\";\n    proxy_hide_header X-Limiter-Verdict;\n}\n";
