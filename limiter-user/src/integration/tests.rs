use super::*;
use crate::challenge::PATH;
use crate::policy::{NoFiles, parse};

const POLICY: &str = r#"
[decide]
listen = "127.0.0.1:4490"
client_header = "X-Real-IP"
feedback = [{ unix = "/run/limiter/nginx.sock", format = "nginx-json" }]
logs = [{ path = "/var/log/caddy/access.json", format = "caddy" }]
accounts = { from = ["response_header:X-Auth-Account"] }

[[rule]]
name = "login"
requests = ["POST /login", "/api/*/user/{id}", "PUT /a.b", "GET /login", "POST *"]
count = "failures"
failure = { response_header = { name = "X-Auth-Result", value = "no" }, location = "*error*" }
limit = 5
period = "5m"
action = "reject"

[[rule]]
name = "signal"
count = { response_header = { name = "X-CF-Block", value = "low" } }
limit = 1
period = "5m"
action = "reject"
"#;

fn decide(text: &str) -> Decide {
    let loaded = parse("limiter.toml", text, &NoFiles);
    let loaded = loaded.unwrap_or_else(|fault| panic!("{fault}"));
    loaded.policy.decide.unwrap()
}

fn site(failure: Failure) -> Site<'static> {
    Site {
        origin: "127.0.0.1:8080",
        failure,
    }
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        let mut all = text.lines().map(str::trim);
        assert!(all.any(|it| it == *line), "{line}\n{text}");
    }
}

#[test]
fn nginx_reports_what_the_rules_ask_for_and_hides_it() {
    let (http, server) = nginx(&decide(POLICY), &site(Failure::Open));
    has(
        &http,
        &[
            "server 127.0.0.1:4490;",
            r#"',"request_id":"$request_id"'"#,
            r#"',"http_x_real_ip":"$limiter_client"'"#,
            "map $http_x_real_ip $limiter_client {",
            r#"',"request_uri":"$limiter_uri"'"#,
            r#"',"upstream_http_x_cf_block":"$upstream_http_x_cf_block"'"#,
            r#"',"upstream_http_x_auth_account":"$upstream_http_x_auth_account"'"#,
            r#"',"upstream_http_location":"$upstream_http_location"'"#,
            r#"',"sent_http_x_limiter":"$limiter_own"'"#,
            r#""~(?s)^POST /login$" $binary_remote_addr;"#,
            r#""~(?s)^[A-Z]+ /api/.*/user/[^/]+$" $binary_remote_addr;"#,
            r#""~(?s)^PUT /a\.b$" $binary_remote_addr;"#,
        ],
    );
    // What is read, or everything, is no place of its own.
    assert_eq!(http.matches("$binary_remote_addr;").count(), 3, "{http}");
    has(
        &server,
        &[
            "access_log syslog:server=unix:/run/limiter/nginx.sock,nohostname,tag=nginx limiter;",
            "proxy_hide_header x-cf-block;",
            "proxy_hide_header x-auth-result;",
            "proxy_hide_header x-auth-account;",
            "proxy_set_header X-Limiter-Peer $realip_remote_addr;",
            "proxy_set_header X-Limiter-Verdict $limiter_verdict;",
            "location @limiter_origin {",
            "return 204;",
        ],
    );
    assert!(!server.contains("proxy_hide_header location"), "{server}");
}

#[test]
fn what_happens_without_limiter_is_chosen() {
    let decide = decide(POLICY);
    let (_, closed) = nginx(&decide, &site(Failure::Closed));
    has(&closed, &["error_page 500 = @limiter_away;", "return 503;"]);
    assert!(!closed.contains("return 204"), "{closed}");
    let open = caddy(&decide, &site(Failure::Open));
    assert!(open.contains("# Fail open"), "{open}");
    let closed = caddy(&decide, &site(Failure::Closed));
    has(
        &closed,
        &["respond 503", "output file /var/log/caddy/access.json"],
    );
    has(
        &closed,
        &["header_down -X-Limiter", "forward_auth 127.0.0.1:4490 {"],
    );
}

#[test]
fn a_policy_without_reports_says_what_is_missing() {
    let rule = "[[rule]]\nname = 'r'\nlimit = 1\nperiod = '1m'\naction = 'reject'\n";
    let text = format!("[decide]\nlisten = 'unix:/run/limiter/check.sock'\n{rule}");
    let (http, server) = nginx(&decide(&text), &site(Failure::Open));
    has(&http, &["server unix:/run/limiter/check.sock;"]);
    assert!(!http.contains("limit_req_zone"), "{http}");
    assert!(server.contains("# Nothing is reported"), "{server}");
    assert!(!server.contains("limit_req"), "{server}");
    let caddy = caddy(&decide(&text), &site(Failure::Open));
    assert!(
        caddy.contains("forward_auth unix//run/limiter/check.sock {"),
        "{caddy}"
    );
}

#[test]
fn solutions_of_challenges_have_a_way_where_challenges_are_posed() {
    let rule = "[[rule]]\nname = 'r'\nlimit = 1\nperiod = '1m'\naction = 'js_challenge'\n";
    let challenging = decide(rule);
    let (_, server) = nginx(&challenging, &site(Failure::Open));
    has(&server, &[&format!("location = {PATH} {{")]);
    let caddy_text = caddy(&challenging, &site(Failure::Open));
    has(&caddy_text, &[&format!("handle {PATH} {{")]);
    let (_, server) = nginx(&decide(POLICY), &site(Failure::Open));
    assert!(!server.contains(PATH), "{server}");
    assert!(!caddy(&decide(POLICY), &site(Failure::Open)).contains(PATH));
}

#[test]
fn haproxy_asks_and_reports_what_the_rules_ask_for() {
    let spoe = POLICY.replacen(
        "[decide]\n",
        "[decide]\nspoe = 'unix:/run/limiter/spoe.sock'\n",
        1,
    );
    let decide = decide(&spoe);
    let (frontend, filter) = haproxy(&decide, &site(Failure::Open)).unwrap();
    has(
        &frontend,
        &[
            "http-response del-header x-cf-block",
            "http-response del-header x-auth-account",
            "http-response del-header X-Limiter unless { be_name -m str limiter_answer }",
            "server origin 127.0.0.1:8080",
            "server limiter 127.0.0.1:4490",
            "server limiter unix@/run/limiter/spoe.sock check inter 1s fall 1 rise 1",
        ],
    );
    for header in ["X-RateLimit-Limit", "Access-Control-Expose-Headers"] {
        assert!(frontend.contains(header), "{frontend}");
    }
    // No rule has the one, none poses the other, and nothing stands in bodies.
    for other in ["RateLimit-Policy", PATH, "http-buffer-request", "503"] {
        assert!(!frontend.contains(other), "{frontend}");
    }
    has(
        &filter,
        &[
            "args header:x-cf-block=res.fhdr(x-cf-block),bytes(0,1024)",
            "args header:location=res.fhdr(location),bytes(0,1024)",
            "event on-frontend-http-request if { nbsrv(limiter) gt 0 }",
        ],
    );
    assert!(!filter.contains("req.body"), "{filter}");
    let (closed, _) = haproxy(&decide, &site(Failure::Closed)).unwrap();
    assert!(closed.contains("status 503"), "{closed}");
}

#[test]
fn haproxy_waits_for_bodies_and_passes_solutions_on() {
    let rule = "[decide]\nspoe = '127.0.0.1:4482'\naccounts = { from = ['form:user'] }\n\
                [[rule]]\nname = 'r'\nlimit = 1\nperiod = '1m'\naction = 'js_challenge'\n";
    let (frontend, filter) = haproxy(&decide(rule), &site(Failure::Closed)).unwrap();
    has(
        &frontend,
        &[
            "option http-buffer-request",
            "backend limiter_challenge",
            &format!("use_backend limiter_challenge if {{ path {PATH} }}"),
        ],
    );
    has(
        &filter,
        &["args body=req.body,bytes(0,4096) body_size=req.body_size"],
    );
    let without = "[[rule]]\nname = 'r'\nlimit = 1\nperiod = '1m'\naction = 'reject'\n";
    assert_eq!(haproxy(&decide(without), &site(Failure::Open)), None);
}

#[test]
fn traefik_asks_over_tcp_and_keeps_what_the_rules_ask_for() {
    let log = "[decide]\nlogs = [{ path = '/var/log/t.log', format = 'traefik', asked = true }]\n";
    let signal = "[[rule]]\nname = 's'\ncount = { response_header = { name = 'X-CF-Block' } }\n\
                  limit = 1\nperiod = '1m'\naction = 'captcha'\n";
    let posing = decide(&format!("{log}{signal}"));
    let (moving, standing) = traefik(&posing, &site(Failure::Closed)).unwrap();
    has(
        &moving,
        &[
            "address: http://127.0.0.1:4480/check",
            "trustForwardHeader: false",
            &format!("rule: Path(`{PATH}`)"),
            "- url: http://127.0.0.1:8080",
        ],
    );
    has(
        &standing,
        &[
            "filePath: /var/log/t.log",
            "X-Limiter: keep",
            "x-cf-block: keep",
        ],
    );
    let rule = "[[rule]]\nname = 'r'\nlimit = 1\nperiod = '1m'\naction = 'reject'\n";
    let (moving, standing) = traefik(&decide(rule), &site(Failure::Closed)).unwrap();
    assert!(!moving.contains(PATH), "{moving}");
    assert!(standing.contains("# Nothing is reported"), "{standing}");
    let socket = format!("[decide]\nlisten = 'unix:/run/limiter/check.sock'\n{rule}");
    assert_eq!(traefik(&decide(&socket), &site(Failure::Closed)), None);
}

#[test]
fn who_fails_open_is_told_that_gates_are_open_then() {
    let rule = "[decide]\nspoe = '127.0.0.1:4482'\n[[rule]]\nname = 'r'\nhosts = ['a']\n";
    let gated = decide(&format!("{rule}from = ['10.0.0.0/8']\n"));
    let open = decide(&format!(
        "{rule}limit = 1\nperiod = '1m'\naction = 'reject'\n"
    ));
    let texts = |decide: &Decide, failure| {
        let site = site(failure);
        let (frontend, _) = haproxy(decide, &site).unwrap();
        [nginx(decide, &site).1, caddy(decide, &site), frontend]
    };
    for (decide, failure, is_told) in [
        (&gated, Failure::Open, true),
        (&gated, Failure::Closed, false),
        (&open, Failure::Open, false),
    ] {
        for text in texts(decide, failure) {
            assert_eq!(text.contains("the gates of the policy"), is_told, "{text}");
        }
    }
}
