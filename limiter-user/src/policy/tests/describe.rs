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
        [state]\ndirectory = \"/srv/other\"\npins = \"/srv/bpf\"\nretention = \"2d\"\n";
    let old = described("");
    let differences = Differences::between(&old, &described(all));
    let is_missed = |key: &&String| differences.values.iter().all(|it| it.key != **key);
    let unchanged: Vec<&String> = old.values.keys().filter(is_missed).collect();
    assert!(unchanged.is_empty(), "{unchanged:?}");
}
