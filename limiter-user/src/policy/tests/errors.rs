//! Each error, with its place.

use super::{CLEAN, LIMIT, error};

/// (what follows [`CLEAN`], the error's beginning). Line 3 is the first.
const EDGE: &[(&str, &str)] = &[
    (
        "mode = 'nativ'",
        "3:8: `mode` cannot be `nativ`; did you mean `native`? allowed: auto, native, generic",
    ),
    (
        "mode = 1",
        "3:8: `mode`: expected a string, found integer; allowed: auto, native, generic",
    ),
    (
        "enforce = 'yes'",
        "3:11: `enforce`: expected a boolean, found string; allowed: true, false",
    ),
    (
        "on_exit = 'stay'",
        "3:11: `on_exit` cannot be `stay`; allowed: keep, detach",
    ),
    (
        "ipv4_prefix = 7",
        "3:15: `ipv4_prefix` cannot be `7`; allowed: 8 to 32",
    ),
    (
        "ipv4_prefix = 33",
        "3:15: `ipv4_prefix` cannot be `33`; allowed: 8 to 32",
    ),
    (
        "ipv6_prefix = 65",
        "3:15: `ipv6_prefix` cannot be `65`; allowed: 16 to 64",
    ),
    (
        "ipv6_prefix = -1",
        "3:15: `ipv6_prefix` cannot be `-1`; allowed: 16 to 64",
    ),
    (
        "sources = 0",
        "3:11: `sources` cannot be `0`; allowed: 1024 to 16777216",
    ),
    (
        "sources = 0x1000001",
        "3:11: `sources` cannot be `0x1000001`; allowed: 1024 to 16777216",
    ),
    (
        "sources = 1e6",
        "3:11: `sources`: expected an integer, found float",
    ),
    (
        "sources = 99999999999999999999999999",
        "3:11: `sources` cannot be `99999999999999999999999999`",
    ),
    (
        "unparsed = 'limit'",
        "3:12: `unparsed` cannot be `limit`; allowed: pass, drop",
    ),
    (
        "allow = '10.0.0.0/8'",
        "3:9: `allow`: expected an array, found string; allowed: a network",
    ),
    (
        "allow = [10]",
        "3:10: `allow`: expected a string, found integer; allowed: a network",
    ),
    (
        "allow = ['10.0.0.1/8']",
        "3:10: `10.0.0.1/8` has bits set outside its prefix; write `10.0.0.0/8`, or `10.0.0.1`",
    ),
    (
        "deny = ['::ffff:192.0.2.0/120']",
        "3:9: `::ffff:192.0.2.0/120` is IPv4 written as IPv6; no packet carries such an address; write `192.0.2.0/24`",
    ),
    (
        "allow = ['10.0.0.0/8']\ndeny = ['10.1.0.0/16']",
        "4:9: deny 10.1.0.0/16 lies inside allow 10.0.0.0/8; what is allowed is never denied; remove one (the allow is at limiter.toml:3)",
    ),
    (
        "allow = ['192.0.2.1']\ndeny = ['192.0.2.1/32']",
        "4:9: deny 192.0.2.1/32 lies inside",
    ),
    ("allow_files = ['a[']", "3:16: `a[` is not a glob: "),
    (
        "allow = ['192.0.2.1', '192.0.2.2']\ntables.lists = 1",
        "1:1: allow and deny hold 2 networks, the table 1; raise `edge.tables.lists`",
    ),
    (
        "tables.blocks_rule = 0",
        "3:22: `blocks_rule` cannot be `0`; allowed: 1 to 16777216",
    ),
    (
        "tables.interfaces = 1025",
        "3:21: `interfaces` cannot be `1025`; allowed: 1 to 1024",
    ),
    (
        "safety.ssh_ports = [0]",
        "3:21: `ssh_ports` cannot be `0`; allowed: 1 to 65535",
    ),
    (
        "safety.ssh_ports = [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
        "3:20: 17 ports in `ssh_ports`; allowed: up to 16",
    ),
    (
        "safety.control_traffic = 'drop'",
        "3:26: `control_traffic` cannot be `drop`; allowed: pass, limit",
    ),
    (
        "safety = 1",
        "3:10: `safety`: expected a table, found integer; allowed in it: ssh_ports, control_traffic",
    ),
    (
        "flood = { new_sources = '0/s' }",
        "3:25: `0/s` is a rate of zero, which would refuse everything",
    ),
    (
        "[notify]",
        "3:1: `notify` names nobody to tell; add `smtp` or `webhook`, or remove it",
    ),
    (
        "limits = []",
        "3:1: unknown key `limits`; did you mean `limit`? allowed here: interfaces, mode",
    ),
    (
        "[edge.limit]",
        "3:1: `limit`: expected an array, found table; write [[edge.limit]]",
    ),
    (
        "[metric]",
        "3:2: unknown key `metric`; did you mean `metrics`? allowed here: edge, metrics, control, state",
    ),
    (
        "[metrics]\nlisten = 'localhost'",
        "4:10: `localhost` is not an address with a port; allowed: an address with a port",
    ),
    (
        "[control]\nsocket = 'run/x'",
        "4:10: `run/x` is not an absolute path; allowed: an absolute path of at most 107",
    ),
    (
        "[control]\ngroup = ''",
        "4:9: `` is not the name of a group; allowed: a group's name",
    ),
    (
        "[control]\nread_group = 'a b'",
        "4:14: `a b` is not the name of a group",
    ),
];

/// (what follows [`LIMIT`], the error's beginning). Line 7 is the first.
const LIMITS: &[(&str, &str)] = &[
    (
        "",
        "3:1: limit `https` limits nothing; give it packets, bytes, connections, total or from",
    ),
    (
        "packets = '0/s'",
        "7:11: `0/s` is a rate of zero, which would refuse everything; allowed: N/s",
    ),
    (
        "packets = '100000001/s'",
        "7:11: `100000001/s` is above the highest rate; allowed",
    ),
    (
        "bytes = '101GB/s'",
        "7:9: `101GB/s` is above the highest rate; allowed",
    ),
    (
        "bytes = '5000/s'",
        "7:9: `5000/s` lacks a unit, or its unit is unknown",
    ),
    (
        "packets = { burst = 1 }",
        "7:11: a budget without a `rate`; allowed: N/s",
    ),
    (
        "packets = 5",
        "7:11: `packets`: expected a rate, or a table of rate and burst, found integer; allowed: N/s",
    ),
    (
        "packets = { rate = '5/s', burts = 10 }",
        "7:27: unknown key `burts`; did you mean `burst`? allowed here: rate, burst",
    ),
    (
        "packets = { rate = '5/s', burst = 0 }",
        "7:35: a burst of 0 is below one packet; no packet would",
    ),
    (
        "packets = { rate = '5/s', burst = '10' }",
        "7:35: `burst`: expected an integer, found string",
    ),
    (
        "bytes = { rate = '1MB/s', burst = 1513 }",
        "7:35: a burst of 1513 is below the largest frame, 1514 bytes; such frames",
    ),
    (
        "packets = { rate = '1/h', burst = 8761 }",
        "7:35: a burst of 8761 at 1/h takes 365 days to refill; allowed: up to 365 days",
    ),
    (
        "name2 = 1\npackets = '1/s'",
        "7:1: unknown key `name2`; did you mean `name`? allowed here: name, protocol",
    ),
    (
        "packets = '1/s'\ntotal = { packet = '1/s' }",
        "8:11: unknown key `packet`; did you mean `packets`? allowed here: packets, bytes, connections",
    ),
    (
        "packets = '1/s'\nexceed = 'dorp'",
        "8:10: `exceed` cannot be `dorp`; did you mean `drop`? allowed: drop, observe, { block = \"60s\" }",
    ),
    (
        "packets = '1/s'\nexceed = { block = '0s' }",
        "8:20: `0s` is out of range; allowed: 1s to 30d",
    ),
    (
        "packets = '1/s'\nexceed = { block = '31d' }",
        "8:20: `31d` is out of range; allowed: 1s to 30d",
    ),
    (
        "packets = '1/s'\nexceed = { block = '500ms' }",
        "8:20: `500ms` lacks a unit, or its unit is unknown; allowed",
    ),
    (
        "packets = '1/s'\nexceed = {}",
        "8:10: `exceed` without `block`; write",
    ),
    (
        "packets = '1/s'\nfrom = []",
        "8:8: an empty `from` would let nobody in; name",
    ),
    (
        "packets = '1/s'\nto = ['x']",
        "8:7: `x` is not a network; allowed: a network or address",
    ),
    (
        "packets = '1/s'\n[[edge.limit]]\nname = 'https'\npackets = '1/s'",
        "9:8: a second limit named `https`; the first is at limiter.toml:4; rename one",
    ),
];

/// (a whole limit, the error's beginning). Line 2 is the limit's first.
const WHOLE_LIMITS: &[(&str, &str)] = &[
    (
        "packets = '1/s'",
        "1:1: this limit has no `name`; allowed: 1 to 63",
    ),
    (
        "name = ''\npackets = '1/s'",
        "2:8: `` is no name for a limit; allowed: 1 to 63",
    ),
    (
        "name = 'a b'\npackets = '1/s'",
        "2:8: `a b` is no name for a limit",
    ),
    (
        "name = 'a'\nports = [443]\npackets = '1/s'",
        "3:9: `ports` without a protocol that has ports; add protocol = \"tcp\" or \"udp\"",
    ),
    (
        "name = 'a'\nprotocol = 'icmp'\nports = [443]\npackets = '1/s'",
        "4:9: `ports` without a protocol that has ports",
    ),
    (
        "name = 'a'\nprotocol = 'udp'\nconnections = '1/s'",
        "4:15: `connections` where the protocol has none; it counts TCP SYNs",
    ),
    (
        "name = 'a'\nprotocol = 'tpc'\nports = [443]\npackets = '1/s'",
        "3:12: `protocol` cannot be `tpc`; did you mean `tcp`?",
    ),
    (
        "name = 'a'\nprotocol = 'tcp'\nports = [0]\npackets = '1/s'",
        "4:10: `ports` cannot be `0`; allowed: 1 to 65535",
    ),
    (
        "name = 'a'\nprotocol = 'tcp'\nports = ['0-9']\npackets = '1/s'",
        "4:10: `0-9` has port 0, to which",
    ),
    (
        "name = 'a'\nprotocol = 'tcp'\nports = ['9-8']\npackets = '1/s'",
        "4:10: `9-8` is a range from high to low; write \"8-9\"",
    ),
    (
        "name = 'a'\nprotocol = 'tcp'\nports = ['+9']\npackets = '1/s'",
        "4:10: `+9` is no port and no range",
    ),
    (
        "name = 'a'\nprotocol = 'tcp'\nports = [true]\npackets = '1/s'",
        "4:10: `ports`: expected a string, found boolean; allowed: ports",
    ),
];

fn check(prefix: &str, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let found = error(&format!("{prefix}{text}\n"));
        assert!(found.starts_with(expected), "{text}\n{found}\n{expected}");
    }
}

#[test]
fn each_error_says_what_where_and_what_is_allowed() {
    check(CLEAN, EDGE);
    check(LIMIT, LIMITS);
    check("[[edge.limit]]\n", WHOLE_LIMITS);
    let interfaces: &[(&str, &str)] = &[
        (
            "['eth0', 'eth0']",
            "1:28: `eth0` is listed twice; remove one",
        ),
        (
            "['']",
            "1:20: `` cannot be the name of an interface; allowed: interface names",
        ),
        ("['a/b']", "1:20: `a/b` cannot be the name"),
        (
            "['sixteen-letters-']",
            "1:20: `sixteen-letters-` is longer than the 15",
        ),
        ("['eth[']", "1:20: `eth[` is not a glob: "),
        (
            "'eth0'",
            "1:19: `interfaces`: expected an array, found string",
        ),
    ];
    check("edge.interfaces = ", interfaces);
}

#[test]
fn too_many_limits_are_refused() {
    let limit = |n| format!("[[edge.limit]]\nname = 'l{n}'\npackets = '1/s'\n");
    let text: String = (0..257).map(limit).collect();
    assert_eq!(error(&text), "1:1: 257 limits; allowed: up to 256");
}
