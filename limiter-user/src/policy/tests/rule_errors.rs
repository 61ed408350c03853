//! Each error of `[decide]` and `[[rule]]`, with its place.

use super::{Diagnostic, Severity, brief, error, parsed};

/// A rule with nothing wrong in it, for cases to add to.
const RULE: &str = "[[rule]]\nname = 'login'\nlimit = 5\nperiod = '5m'\naction = 'reject'\n";

/// (what follows `[decide]`, the error's beginning). Line 2 is the first.
const DECIDE: &[(&str, &str)] = &[
    (
        "challenge = { solve_within = '1s' }",
        "2:30: `1s` is out of range; allowed: 10s to 1h",
    ),
    (
        "challenge = { rotate = '1s' }",
        "2:24: `1s` is out of range; allowed: 1h to 365d",
    ),
    (
        "challenge = { clearance = '63h', rotate = '1h' }",
        "2:43: a clearance would outlive its key: 64 are kept; allowed: `clearance` of up to 62 times",
    ),
    (
        "challenge = { contact = \"a\\nb\" }",
        "2:25: `a\nb` is no contact; allowed: a line of up to 200",
    ),
    (
        "challenge = { captcha = { site_key = 'k', secret_file = '/s' } }",
        "2:25: `captcha` has no `provider`; allowed: turnstile, hcaptcha, recaptcha-v3, friendly-captcha",
    ),
    (
        "challenge = { captcha = { provider = 'turnstile', site_key = 'k' } }",
        "2:25: `captcha` has no `secret_file`; name the file that has the provider's secret",
    ),
    (
        "challenge = { captcha = { provider = 'turnstile', site_key = 'a b', secret_file = '/s' } }",
        "2:62: `a b` is no site key; allowed: 1 to 200",
    ),
    (
        "challenge = { captcha = { provider = 'hcaptcha', site_key = 'k', secret_file = '/s', score = 0.5 } }",
        "2:94: `score` with `hcaptcha`; only recaptcha-v3 gives a score",
    ),
    (
        "challenge = { captcha = { provider = 'recaptcha-v3', site_key = 'k', secret_file = '/s', score = 5 } }",
        "2:98: `score` is out of range; allowed: 0.0 to 1.0",
    ),
    (
        "challenge = { captcha = { provider = 'friendly-captcha', site_key = 'k', secret_file = '/s', send_address = true } }",
        "2:25: `send_address` with `friendly-captcha`; it documents no field",
    ),
    (
        "challenge = { captcha = { provider = 'turnstile', site_key = 'k', secret_file = '/s', script_url = \"https://x/;script-src *\" } }",
        "2:100: `https://x/;script-src *` has marks in it; allowed: an address",
    ),
    (
        "challenge = { captcha = { provider = 'turnstile', site_key = 'k', secret_file = '/s', timeout = '11s' } }",
        "2:97: `11s` is out of range; allowed: 1s to 10s",
    ),
    (
        "listen = '4480'",
        "2:10: `4480` is not an address with a port; allowed: an address with a port, such as 127.0.0.1:4480, or unix:",
    ),
    (
        "listen = 'unix:run/x'",
        "2:10: `run/x` is not an absolute path; allowed: an absolute path of at most 107",
    ),
    (
        "api = '/run/x'",
        "2:7: `/run/x` is no Unix socket; allowed: unix: and",
    ),
    (
        "api = { listen = '127.0.0.1:1' }",
        "2:7: `api` without `token_file`; name the file that holds the token",
    ),
    (
        "api = { token_file = '/x' }",
        "2:7: `api` without `listen`; allowed: unix:",
    ),
    (
        "api = { listen = '127.0.0.1:1', token = 'secret', token_file = '/x' }",
        "2:33: unknown key `token`; allowed here: listen, token_file",
    ),
    (
        "api = { listen = '127.0.0.1:1', token_file = 'secret' }",
        "2:46: `secret` is not an absolute path",
    ),
    ("api = 1", "2:7: `api`: expected a string, found integer"),
    (
        "group = 'a b'",
        "2:9: `a b` is not the name of a group; allowed: a group's name",
    ),
    (
        "feedback = 'unix:/x'",
        "2:12: `feedback`: expected an array, found string; allowed: unix:",
    ),
    (
        "feedback = ['/x']",
        "2:13: `/x` is no Unix socket; allowed: unix:",
    ),
    (
        "feedback = [{ udp = '127.0.0.1:1' }]",
        "2:13: `udp` without `from`; name the senders that are heard",
    ),
    (
        "feedback = [{ udp = '127.0.0.1:1', from = [] }]",
        "2:13: `udp` without `from`",
    ),
    (
        "feedback = [{ unix = '/x', from = ['10.0.0.5'] }]",
        "2:35: `from` with a Unix socket; who may write",
    ),
    (
        "feedback = [{}]",
        "2:13: one of `unix` and `udp` is needed; allowed",
    ),
    (
        "feedback = [{ unix = '/x', udp = '127.0.0.1:1' }]",
        "2:13: one of `unix` and `udp` is needed; allowed",
    ),
    (
        "logs = [{ format = 'caddy' }]",
        "2:9: a log without `path`; allowed: tables such as",
    ),
    (
        "logs = [{ path = '/x' }]",
        "2:9: a log without `format`; allowed: json, nginx, nginx-json",
    ),
    (
        "logs = [{ path = '/x', format = 'nginx-jsn' }]",
        "2:33: `format` cannot be `nginx-jsn`; did you mean `nginx-json`? allowed: json",
    ),
    (
        "logs = [{ path = '/x', format = 'fields' }]",
        "2:9: the format `fields` without `fields`; say where each field",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { status = '/s' } }]",
        "2:52: `fields` without `source`; say where the client",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { source = '/s', id = '/s/1' } }]",
        "2:52: `/s` is another field too, or lies inside of one; name a place of its own",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { sorce = '/s', source = '/s' } }]",
        "2:54: unknown key `sorce`; did you mean `source`? allowed here: at, id, source",
    ),
    (
        "logs = [{ path = '/x', format = 'caddy', fields = { source = '/s' } }]",
        "2:51: `fields` with a format that has its own; write format",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { source = 'ip' } }]",
        "2:63: `ip` is no JSON pointer; allowed: a JSON pointer",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { source = '/a~2' } }]",
        "2:63: `/a~2` is no JSON pointer",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { source = '/a', headers = { 'a b' = '/b' } } }]",
        "2:89: `a b` is not the name of a header",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { source = '/a', headers = { a = 'b' } } }]",
        "2:85: `b` is no JSON pointer",
    ),
    (
        "logs = [{ path = '/x', format = 'fields', fields = { source = { a = '/b' } } }]",
        "2:63: `source`: expected a string, found table",
    ),
    (
        "logs = [{ path = '/x', format = 'caddy', direct = 1 }]",
        "2:51: `direct`: expected a boolean",
    ),
    (
        "trusted_proxies = ['proxy']",
        "2:20: `proxy` is not a network; allowed: a network",
    ),
    (
        "client_header = 'X Real'",
        "2:17: `X Real` is not the name of a header; allowed: the name",
    ),
    (
        "exempt = ['10.0.0.1/8']",
        "2:11: `10.0.0.1/8` has bits set outside its prefix",
    ),
    (
        "enforce = 1",
        "2:11: `enforce`: expected a boolean, found integer",
    ),
    (
        "accounts.from = ['body:user']",
        "2:18: `body:user` is no place of an account; allowed: basic, header:NAME",
    ),
    (
        "acounts = {}",
        "2:1: unknown key `acounts`; did you mean `accounts`? allowed here: listen, spoe",
    ),
    (
        "[rule]\nname = 'a'",
        "2:1: `rule`: expected an array, found table; write [[rule]]",
    ),
];

/// (what follows [`RULE`], the error's beginning). Line 6 is the first.
const RULES: &[(&str, &str)] = &[
    (
        "requests = ['login']",
        "6:13: `login` has a path that starts with neither / nor *; allowed: \"METHOD path\"",
    ),
    (
        "requests = ['post /login']",
        "6:13: `post /login`: methods are written in capitals; write `POST`",
    ),
    (
        "requests = ['GET  /login']",
        "6:13: `GET  /login` has a path that starts",
    ),
    (
        "requests = ['G?T /login']",
        "6:13: `G?T /login` does not start with a method",
    ),
    (
        "requests = ['/login?a=b']",
        "6:13: `/login?a=b` has a query, which is not compared; leave out",
    ),
    (
        "requests = ['/a//b']",
        "6:13: `/a//b` would never match; paths are compared normalised: write `/a/b`",
    ),
    (
        "requests = ['/%7Euser']",
        "6:13: `/%7Euser` would never match; paths are compared normalised: write `/~user`",
    ),
    (
        "requests = ['GET *//b']",
        "6:13: `GET *//b` would never match; paths are compared normalised: write `*/b`",
    ),
    (
        "requests = ['/a{x}']",
        "6:13: `/a{x}` has a brace that encloses no whole segment; allowed: /sessions/{id}",
    ),
    (
        "requests = '/login'",
        "6:12: `requests`: expected an array, found string; allowed: \"METHOD path\"",
    ),
    (
        "apply = ['x']",
        "6:10: `x` has a path that starts with neither",
    ),
    (
        "hosts = ['example.com:443']",
        "6:10: `example.com:443` is not the name of a host; write it without port",
    ),
    (
        "hosts = ['größe.example']",
        "6:10: `größe.example` is not the name of a host; write it as DNS has it",
    ),
    (
        "backends = ['']",
        "6:13: `` is empty or too long; allowed: a string of up to 512 bytes",
    ),
    (
        "from = []",
        "6:8: an empty `from` would let nobody in; name the networks that may pass, or remove it",
    ),
    (
        "from = ['10.0.0.1/8']",
        "6:9: `10.0.0.1/8` has bits set outside its prefix; write `10.0.0.0/8`",
    ),
    (
        "count = 'failure'",
        "6:9: `count` cannot be `failure`; did you mean `failures`? allowed: requests, failures, attempts, { statuses = [401] }",
    ),
    (
        "count = {}",
        "6:9: `count` counts nothing; allowed: requests, failures",
    ),
    (
        "count = { statuses = [401], score_header = 'X' }",
        "6:9: `count` counts two things; write one rule for each",
    ),
    (
        "count = { statuses = [] }",
        "6:22: no status: nothing would fit; allowed: 100 to 599",
    ),
    (
        "count = { statuses = [99] }",
        "6:23: `statuses` cannot be `99`; allowed: 100 to 599",
    ),
    (
        "count = { statuses = ['6xx'] }",
        "6:23: `6xx` is no status, class or range; allowed: 100 to 599",
    ),
    (
        "count = { statuses = ['404-400'] }",
        "6:23: `404-400` is a range from high to low; write \"400-404\"",
    ),
    (
        "count = { response_header = 'X-Block' }",
        "6:29: `response_header`: expected a table, found string; allowed in it: name, value",
    ),
    (
        "count = { response_header = { value = 'low' } }",
        "6:29: `response_header` without `name`; allowed: the name of a header",
    ),
    (
        "count = { score_header = 'X: 1' }",
        "6:26: `X: 1` is not the name of a header",
    ),
    (
        "count = { distinct = 'acount' }",
        "6:22: `acount` is no part of a key; did you mean `account`? allowed: source, peer",
    ),
    (
        "count = { distinct = 'source' }",
        "6:9: distinct `source` for each of it: always one; take it out of `key`",
    ),
    (
        "count = { distinct = 'account' }\ntiers = [{ limit = 1_001 }]",
        "6:9: a limit of 1001 is too much to tell values apart; allowed: up to 1000",
    ),
    (
        "count = { status = [401], statuses = [401] }",
        "6:11: unknown key `status`; did you mean `statuses`? allowed here: statuses, response_header",
    ),
    (
        "ignore_case = 'yes'",
        "6:15: `ignore_case`: expected a boolean, found string",
    ),
    (
        "failure = {}",
        "6:11: an empty `failure` would fit every response; give it statuses",
    ),
    (
        "success = { location = '' }",
        "6:24: `` is empty or too long",
    ),
    (
        "key = ['ip']",
        "6:8: `ip` is no part of a key; allowed: source, peer, account, method, path, host, header:NAME",
    ),
    (
        "key = ['source', 'source']",
        "6:18: `source` is listed twice; remove one",
    ),
    ("key = ['header:']", "6:8: `` is not the name of a header"),
    (
        "key = ['cookie:a b']",
        "6:8: `cookie:a b` names no cookie, parameter, field or claim",
    ),
    (
        "key = 'source'",
        "6:7: `key`: expected an array, found string; allowed: source",
    ),
    (
        "absent = 'ignore'",
        "6:10: `absent` cannot be `ignore`; allowed: skip, share",
    ),
    (
        "ipv6_prefix = 128",
        "6:15: `ipv6_prefix` cannot be `128`; allowed: 16 to 64",
    ),
    (
        "except = ['x']",
        "6:11: `x` is not a network; allowed: a network",
    ),
    (
        "exceeds = 1",
        "6:11: `exceeds`: expected a boolean, found integer",
    ),
    (
        "algorithm = 'leaky'",
        "6:13: `algorithm` cannot be `leaky`; allowed: sliding_log, sliding_window, fixed_window, token_bucket, boruta",
    ),
    (
        "algorithm = 'token_bucket'",
        "3:9: `limit` beside a token bucket; a token bucket has rate, burst and delay",
    ),
    (
        "rate = '10/s'",
        "6:8: `rate` without a token bucket; add algorithm",
    ),
    (
        "for = '0s'",
        "6:7: `0s` is out of range; allowed: 1s to 365d",
    ),
    (
        "then = 'block'",
        "6:8: `then` cannot be `block`; allowed: js_challenge, captcha",
    ),
    (
        "difficulty = 29",
        "6:14: `difficulty` cannot be `29`; allowed: 1 to 28",
    ),
    (
        "difficulty = 9",
        "6:14: `difficulty` with `reject`; allowed where there is a challenge",
    ),
    (
        "wait = 100",
        "6:8: `wait` with `reject`; allowed with throttle alone",
    ),
    (
        "notify = 'admin'",
        "6:10: `notify` cannot be `admin`; allowed: owner",
    ),
    (
        "notify = 'owner'",
        "6:10: no owner to notify: the key has no account; add account to `key`",
    ),
    (
        "simulate = 'yes'",
        "6:12: `simulate`: expected a boolean, found string; allowed: true, false",
    ),
    (
        "penalty = 500",
        "6:11: `penalty` without boruta; add algorithm = \"boruta\"",
    ),
    (
        "ladder_decay = '1d'",
        "6:16: `ladder_decay` without `ladder`; add a ladder, or remove it",
    ),
    (
        "jitter = 101",
        "6:10: `jitter` cannot be `101`; allowed: 0 to 100",
    ),
    (
        "on_success = 'clear'",
        "6:14: `on_success` cannot be `clear`; allowed: keep, reset, halve",
    ),
    (
        "shared = 'pass'",
        "6:10: `shared` cannot be `pass`; allowed: challenge, block",
    ),
    (
        "block_limit = 'https'",
        "6:15: there is no limit `https`; the policy has no [[edge.limit]]",
    ),
    (
        "clears = ['login']",
        "6:11: a rule that clears itself; name another",
    ),
    (
        "clears = ['logni']",
        "6:11: there is no rule `logni`; allowed: ",
    ),
    (
        "clears = ['logins']\n[[rule]]\nname = 'logins'\nrate = 1\n",
        "9:8: `rate`: expected a string, found integer; allowed: N/s",
    ),
    (
        "tracked = 0",
        "6:11: `tracked` cannot be `0`; allowed: 1 to 16777216",
    ),
    (
        "tracked = 10\nkeys_per_source = 11",
        "7:19: `keys_per_source` cannot be `11`; allowed: 1 to 10",
    ),
    (
        "response = { status = 503 }",
        "6:23: `status` cannot be `503`; allowed: 400 to 499",
    ),
    (
        "response = { headers = 'x-ratelimits' }",
        "6:24: `headers` cannot be `x-ratelimits`; did you mean `x-ratelimit`? allowed: x-ratelimit, x-ratelimit-delta, ietf, none",
    ),
    (
        "response = { body = 'json' }",
        "6:21: `body` cannot be `json`; allowed: ory-json, problem-json, html, empty, the absolute path",
    ),
    (
        "[[rule]]\nname = 'login'\nlimit = 1\nperiod = '1s'\naction = 'reject'",
        "7:8: a second rule named `login`; the first is at limiter.toml:2; rename one",
    ),
    (
        "tier = []",
        "6:1: unknown key `tier`; did you mean `tiers`? allowed here: name, requests",
    ),
];

/// (what follows the heading `[[rule]]` and a name, the error's beginning).
/// Line 3 is the first.
const COURSES: &[(&str, &str)] = &[
    (
        "",
        "1:1: this rule never acts; give it limit, period and action, or tiers, or a ladder",
    ),
    (
        "limit = 5\naction = 'reject'",
        "1:1: no `period`; write how many in which time",
    ),
    (
        "period = '5m'\naction = 'reject'",
        "1:1: no `limit`; write how many",
    ),
    (
        "limit = 5\nperiod = '5m'",
        "1:1: no `action`; allowed: throttle, js_challenge",
    ),
    (
        "limit = 0\nperiod = '5m'\naction = 'reject'",
        "3:9: `limit` cannot be `0`; allowed: 1 to 1000000000",
    ),
    (
        "limit = 5\nperiod = '366d'\naction = 'reject'",
        "4:10: `366d` is out of range; allowed: 1s to 365d",
    ),
    (
        "limit = 5\nperiod = '500ms'\naction = 'reject'",
        "4:10: `500ms` lacks a unit, or its unit is unknown",
    ),
    (
        "limit = 10001\nperiod = '5m'\naction = 'reject'\nalgorithm = 'sliding_log'",
        "3:9: a limit of 10001 is too much for a sliding log; allowed: up to 10000; or",
    ),
    (
        "limit = 5\nperiod = '5m'\naction = 'block'\nkey = ['account']",
        "5:10: a block where the key has no source: what one client did would not tell whom to block; add source",
    ),
    (
        "limit = 5\nperiod = '5m'\naction = 'captcha'\nthen = 'captcha'",
        "6:8: `then` after `captcha`; allowed after reject alone",
    ),
    (
        "tiers = []",
        "3:9: `tiers` is empty; allowed: tables such as",
    ),
    (
        "tiers = [1]",
        "3:10: `tiers`: expected a table, found integer; allowed in it: limit, period",
    ),
    (
        "tiers = [{ limit = 5, period = '5m' }]",
        "3:10: no `action`; allowed",
    ),
    (
        "tiers = [{ limit = 5, period = '5m', action = 'ban' }]",
        "3:47: `action` cannot be `ban`; allowed: throttle, js_challenge, captcha, reject, block",
    ),
    (
        "tiers = [{ limits = 5, limit = 5, period = '5m', action = 'reject' }]",
        "3:12: unknown key `limits`; did you mean `limit`? allowed here: limit, period",
    ),
    (
        "tiers = [{ algorithm = 'boruta' }]\naction = 'reject'",
        "3:24: boruta has neither tiers nor a ladder; write algorithm",
    ),
    (
        "tiers = [{ limit = 5, period = '5m', action = 'reject' }]\nladder = [{ limit = 5, period = '5m', action = 'reject', for = '1m' }]",
        "4:10: `tiers` and `ladder` in one rule; tiers count side by side",
    ),
    (
        "ladder = [{ limit = 5, period = '5m', action = 'reject' }]",
        "3:11: a rung without `for`; say how long",
    ),
    (
        "ladder = [{ algorithm = 'token_bucket', rate = '1/s', action = 'reject', for = '1m' }]",
        "3:25: a ladder counts in periods; allowed: sliding_log",
    ),
    (
        "algorithm = 'token_bucket'\naction = 'reject'",
        "1:1: no `rate`; write how fast",
    ),
    (
        "algorithm = 'token_bucket'\nrate = '10/s'\nburst = 5\ndelay = 5\naction = 'reject'",
        "6:9: a delay after 5 never comes in a burst of 5; allowed: less than the burst",
    ),
    (
        "algorithm = 'boruta'\nlimit = 10\nperiod = '1s'\npenalty = 500",
        "1:1: no `timeout`; boruta needs limit, period, penalty and timeout (in milliseconds)",
    ),
    (
        "algorithm = 'boruta'\nlimit = 10\nperiod = '1s'\npenalty = 500\ntimeout = 5000\naction = 'reject'",
        "8:10: `action` beside boruta; boruta delays, and rejects",
    ),
    (
        "algorithm = 'boruta'\nlimit = 10\nperiod = '2h'\npenalty = 500\ntimeout = 5000",
        "5:10: too long a period for boruta; allowed: 1s to 1h",
    ),
    (
        "algorithm = 'boruta'\nlimit = 100001\nperiod = '1s'\npenalty = 500\ntimeout = 5000",
        "4:9: `limit` cannot be `100001` with boruta; allowed: 1 to 100000",
    ),
    (
        "algorithm = 'boruta'\ntiers = [{ limit = 5, period = '5m', action = 'reject' }]",
        "4:9: boruta has neither tiers nor a ladder; remove them",
    ),
    (
        "algorithm = 'boruta'\nlimit = 10\nperiod = '1s'\npenalty = 0\ntimeout = 5000",
        "6:11: `penalty` cannot be `0`; allowed: 1 to 600000",
    ),
];

/// The cases that come to something else.
fn wrong(prefix: &str, cases: &[(&str, &str)]) -> Vec<String> {
    let differs = |(text, expected): &(&str, &str)| {
        let text = format!("{prefix}{text}\n");
        let found = errors(&text);
        let fits = matches!(&found[..], [one] if one.starts_with(expected));
        (!fits).then(|| format!("{text}{expected}\n{found:#?}"))
    };
    cases.iter().filter_map(differs).collect()
}

fn errors(text: &str) -> Vec<String> {
    let is_error = |d: &&Diagnostic| d.severity == Severity::Error;
    match parsed(text) {
        Ok(_) => Vec::new(),
        Err(fault) => fault
            .diagnostics
            .iter()
            .filter(is_error)
            .map(brief)
            .collect(),
    }
}

#[test]
fn each_error_says_what_where_and_what_is_allowed() {
    let mut found = wrong("[decide]\n", DECIDE);
    found.extend(wrong(RULE, RULES));
    found.extend(wrong("[[rule]]\nname = 'a'\n", COURSES));
    let names: &[(&str, &str)] = &[
        (
            "limit = 5\nperiod = '1m'\naction = 'reject'",
            "1:1: this rule has no `name`; allowed: 1 to 63",
        ),
        (
            "name = 'a b'\nlimit = 5\nperiod = '1m'\naction = 'reject'",
            "2:8: `a b` is no name for a rule; allowed: 1 to 63",
        ),
    ];
    found.extend(wrong("[[rule]]\n", names));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_too_much_is_refused() {
    let rule =
        |n| format!("[[rule]]\nname = 'r{n}'\nlimit = 1\nperiod = '1m'\naction = 'reject'\n");
    let text: String = (0..257).map(rule).collect();
    assert_eq!(error(&text), "1:1: 257 rules; allowed: up to 256");
    let paths: Vec<String> = (0..257).map(|n| format!("'/{n}'")).collect();
    let text = format!("{RULE}requests = [{}]\n", paths.join(","));
    assert_eq!(
        error(&text),
        "6:12: 257 entries in `requests`; allowed: up to 256"
    );
    let tier = "{ limit = 1, period = '1m', action = 'reject' }";
    let text = format!("[[rule]]\nname = 'a'\ntiers = [{}]\n", [tier; 17].join(","));
    assert_eq!(
        error(&text),
        "3:9: 17 entries in `tiers`; allowed: up to 16"
    );
    let long = format!("{RULE}requests = ['/{}']\n", "a".repeat(512));
    assert!(error(&long).contains("is too long; allowed: up to 512 bytes"));
}

/// A limit that is confined to exists, or the nearest is named.
#[test]
fn limits_of_the_edge_are_known() {
    let limit =
        "[[edge.limit]]\nname = 'https'\nprotocol = 'tcp'\nports = [443]\npackets = '1/s'\n";
    let text = format!("{limit}{RULE}block_limit = 'http'\n");
    assert_eq!(
        error(&text),
        "11:15: there is no limit `http`; did you mean `https`? allowed: https"
    );
}
