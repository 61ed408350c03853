//! Descriptions and differences.

use super::super::{Description, Differences, NoFiles, parse};

fn described(text: &str) -> Description {
    let loaded = parse("limiter.toml", text, &NoFiles);
    Description::of(&loaded.unwrap_or_else(|error| panic!("{error}")).policy)
}

const WEB: &str = "[[edge.limit]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [443]\n";
const DNS: &str = "[[edge.limit]]\nname = \"dns\"\nprotocol = \"udp\"\npackets = \"9/s\"\n";

#[test]
fn other_words_for_the_same_are_no_difference() {
    let short = described(&format!("{WEB}packets = \"1000/s\"\n"));
    let long = described(&format!(
        "[edge]\nenforce = true\n{WEB}packets = {{ rate = \"1000/s\", burst = 1_000 }}\n"
    ));
    assert_eq!(Differences::between(&short, &long).values, []);
    assert!(Differences::between(&short, &long).is_empty());
}

#[test]
fn values_lists_and_order_are_told() {
    let old = described(&format!(
        "[edge]\nallow = [\"192.0.2.0/24\"]\n{WEB}packets = \"1000/s\"\n{DNS}"
    ));
    let new = described(&format!(
        "[edge]\nenforce = false\nallow = [\"192.0.2.0/25\"]\n{DNS}{WEB}bytes = \"1MB/s\"\nexceed = {{ block = \"15m\" }}\n"
    ));
    let differences = Differences::between(&old, &new);
    let told: Vec<(&str, Option<&str>, Option<&str>)> = differences
        .values
        .iter()
        .map(|it| (&*it.key, it.old.as_deref(), it.new.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("edge.enforce", Some("true"), Some("false")),
            ("edge.limit.web.bytes", None, Some("1MB/s, burst 1MB")),
            ("edge.limit.web.exceed", Some("drop"), Some("block for 15m")),
            ("edge.limit.web.packets", Some("1000/s, burst 1000"), None),
        ]
    );
    assert_eq!(differences.order.unwrap(), ["dns", "web"]);
    assert_eq!(differences.allow.added, ["192.0.2.0/25".parse().unwrap()]);
    assert_eq!(differences.allow.removed, ["192.0.2.0/24".parse().unwrap()]);
    assert!(differences.deny.is_empty());
}

/// What a description leaves out, `diff` would not tell.
#[test]
fn no_value_of_a_policy_is_left_out() {
    let all = "[edge]\ninterfaces = [\"eth0\"]\nmode = \"native\"\nenforce = false\non_exit = \"detach\"\n\
        ipv4_prefix = 24\nipv6_prefix = 56\nsources = 2048\nunparsed = \"drop\"\n\
        [edge.flood]\nnew_sources = \"1/s\"\nunknown = { packets = \"1/s\", connections = \"1/s\" }\n\
        aggregate = { ipv4 = 16, ipv6 = 32 }\n\
        [edge.safety]\nssh_ports = [2222]\ncontrol_traffic = \"limit\"\n\
        [edge.tables]\nblocks_operator = 10\nblocks_rule = 10\nblocks_kernel = 10\n\
        lists = 10\ninterfaces = 2\nrecent = 2048\n\
        [metrics]\nlisten = \"127.0.0.1:1\"\n\
        [control]\nsocket = \"/run/other\"\ngroup = \"other\"\nread_group = \"readers\"\n\
        [state]\ndirectory = \"/srv/other\"\npins = \"/srv/bpf\"\nretention = \"2d\"\naudit_size = \"2GiB\"\n";
    let old = described("");
    let differences = Differences::between(&old, &described(all));
    let is_missed = |key: &&String| differences.values.iter().all(|it| it.key != **key);
    let unchanged: Vec<&String> = old.values.keys().filter(is_missed).collect();
    assert!(unchanged.is_empty(), "{unchanged:?}");
}

const LOGIN: &str = "[[rule]]\nname = \"login\"\nrequests = [\"POST /login\"]\n\
    count = { statuses = [401, \"5xx\"] }\n\
    tiers = [{ limit = 4, period = \"1m\", action = \"js_challenge\" }]\n";

#[test]
fn rules_are_told() {
    let old = described("");
    let new = described(LOGIN);
    let differences = Differences::between(&old, &new);
    let value = |key: &str| {
        let found = differences.values.iter().find(|it| it.key == key);
        found.and_then(|it| it.new.as_deref())
    };
    assert_eq!(value("decide.listen"), Some("127.0.0.1:4480"));
    assert_eq!(value("rule.login.requests"), Some("POST /login"));
    assert_eq!(value("rule.login.count"), Some("statuses 401, 500-599"));
    assert_eq!(value("rule.login.key"), Some("source"));
    let tier = "4 in 1m, sliding_log: js_challenge";
    assert_eq!(value("rule.login.tiers.1"), Some(tier));

    let short =
        described("[[rule]]\nname = \"a\"\nlimit = 1\nperiod = \"60s\"\naction = \"reject\"\n");
    let long = described(
        "[decide]\n[[rule]]\nname = \"a\"\nkey = [\"source\"]\n\
         tiers = [{ limit = 1, period = \"1m\", action = \"reject\", algorithm = \"sliding_log\" }]\n",
    );
    assert!(Differences::between(&short, &long).is_empty());
}

/// What a rule does not say goes without saying where only one of the policies has it.
#[test]
fn of_a_rule_that_is_renamed_only_what_it_says_is_told() {
    let named = |name: &str| {
        described(&format!(
            "[[rule]]\nname = \"{name}\"\ncount = \"attempts\"\nlimit = 5\nperiod = \"5m\"\n\
             action = \"reject\"\njitter = 5\n"
        ))
    };
    let told = |differences: &Differences| -> Vec<String> {
        let values = differences.values.iter().filter(|it| !it.is_default);
        values.map(|it| it.key.clone()).collect()
    };
    let differences = Differences::between(&named("old"), &named("new"));
    let said = ["new", "old"].map(|rule| {
        ["count", "jitter", "key", "tiers.1"].map(|field| format!("rule.{rule}.{field}"))
    });
    assert_eq!(told(&differences), said.concat());
    // Of one that both have, whatever differs.
    let mut plain = named("old");
    let jitter = plain.values.get_mut("rule.old.jitter").unwrap();
    *jitter = "0".to_owned();
    let differences = Differences::between(&named("old"), &plain);
    assert_eq!(told(&differences), ["rule.old.jitter"]);
}

/// What a description of a rule leaves out, `diff` would not tell.
#[test]
fn every_key_of_a_rule_is_described() {
    let limit =
        "[[edge.limit]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [443]\npackets = \"1/s\"\n";
    let base = "limit = 5\nperiod = \"5m\"\naction = \"reject\"\n";
    let with = |text: &str| {
        described(&format!(
            "{limit}[[rule]]\nname = \"b\"\n{base}[[rule]]\nname = \"a\"\n{text}"
        ))
    };
    let plain = with(base);
    for (key, text) in [
        ("requests", "requests = [\"GET /a\"]"),
        ("hosts", "hosts = [\"a\"]"),
        ("backends", "backends = [\"a\"]"),
        ("from", "from = [\"10.0.0.0/8\"]"),
        ("count", "count = \"attempts\""),
        (
            "count",
            "count = { response_header = { name = \"X\", value = \"a\" } }",
        ),
        ("count", "count = { score_header = \"X\" }"),
        ("count", "count = { distinct = \"account\" }"),
        ("failure", "failure = { statuses = [401] }"),
        ("success", "success = { location = \"/a\" }"),
        ("key", "key = []"),
        ("absent", "absent = \"share\""),
        ("ipv4_prefix", "ipv4_prefix = 24"),
        ("ipv6_prefix", "ipv6_prefix = 48"),
        ("except", "except = [\"10.0.0.0/8\"]"),
        ("tiers.1", "for = \"1h\""),
        ("tiers.1", "then = \"captcha\""),
        ("tiers.1", "exceeds = true"),
        ("tiers.1", "simulate = true"),
        ("tiers.1", "algorithm = \"fixed_window\""),
        ("tiers.1", "key = [\"account\"]\nnotify = \"owner\""),
        ("simulate", "simulate = true"),
        ("jitter", "jitter = 5"),
        ("on_success", "on_success = \"reset\""),
        ("reserve", "reserve = true"),
        ("count_refused", "count_refused = true"),
        ("apply", "apply = [\"/x\"]"),
        ("shared", "shared = \"block\""),
        ("block_limit", "block_limit = \"web\""),
        ("clears", "clears = [\"b\"]"),
        ("tracked", "tracked = 5"),
        ("blocked", "blocked = 5"),
        ("keys_per_source", "keys_per_source = 5"),
        ("response.status", "response = { status = 403 }"),
        ("response.headers", "response = { headers = \"none\" }"),
        ("response.body", "response = { body = \"/a\" }"),
    ] {
        let differences = Differences::between(&plain, &with(&format!("{base}{text}\n")));
        let wanted = format!("rule.a.{key}");
        assert!(
            differences.values.iter().any(|it| it.key == wanted),
            "{text}"
        );
    }
    let window = "period = \"5m\"\naction = \"throttle\"\n";
    for (key, one, other) in [
        ("tiers.1", "limit = 5\n", "limit = 5\nwait = 7\n"),
        (
            "ladder_decay",
            "ladder = [{ limit = 5, for = \"1m\" }]\n",
            "ladder = [{ limit = 5, for = \"1m\" }]\nladder_decay = \"1h\"\n",
        ),
        (
            "ladder.1",
            "ladder = [{ limit = 5, for = \"1m\" }]\n",
            "ladder = [{ limit = 6, for = \"1m\" }]\n",
        ),
    ] {
        let (one, other) = (
            with(&format!("{window}{one}")),
            with(&format!("{window}{other}")),
        );
        let differences = Differences::between(&one, &other);
        let keys: Vec<&str> = differences.values.iter().map(|it| &*it.key).collect();
        assert_eq!(keys, [format!("rule.a.{key}")]);
    }
    let boruta = "algorithm = \"boruta\"\nlimit = 1\nperiod = \"1s\"\npenalty = 1\ntimeout = 1\n";
    let faithful = with(&format!("{boruta}faithful = true\n"));
    let differences = Differences::between(&with(boruta), &faithful);
    assert_eq!(differences.values[0].key, "rule.a.boruta");
}

/// The same of `[decide]`.
#[test]
fn every_key_of_decide_is_described() {
    let all = "[decide]\nlisten = \"127.0.0.1:1\"\napi = \"unix:/a\"\ngroup = \"www\"\nfeedback = [\"unix:/b\"]\n\
        logs = [{ path = \"/c\", format = \"caddy\" }]\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
        client_header = \"X-Real-IP\"\nlocal_proxy = false\nexempt = [\"10.0.0.0/8\"]\nenforce = false\n\
        accounts = { from = [\"basic\"], nfkc = false, ignore_case = false, trim = false }\n";
    let differences = Differences::between(&described("[decide]\n"), &described(all));
    let keys: Vec<&str> = differences.values.iter().map(|it| &*it.key).collect();
    let expected = [
        "accounts.from",
        "accounts.ignore_case",
        "accounts.nfkc",
        "accounts.trim",
        "api",
        "client_header",
        "enforce",
        "exempt",
        "feedback",
        "group",
        "listen",
        "local_proxy",
        "logs",
        "trusted_proxies",
    ];
    assert_eq!(keys, expected.map(|key| format!("decide.{key}")));
}
